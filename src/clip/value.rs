//! Clipping of elements.

use std::fmt;

use super::limits::bound_of_elements;
use crate::adaptor::{Adapted, NonFinite, Outcome, Transform, Transforming};
use crate::error::Result;
use crate::params::Element;
use crate::schedule::Hyper;
use crate::step::Step;

/// Limits every element. It is cheap, but the direction of the gradient changes. Created by
/// [`OptimizerExt::clip_value`](crate::OptimizerExt::clip_value).
///
/// # Update rule
/// ```text
/// g ← min(max(g, −c), c)
/// ```
/// # Hyper-parameters
/// | name | default | range | meaning |
/// |---|---|---|---|
/// | `limit` c | – | 0 ≤ c ≤ ∞ | the largest absolute value, in the unit of the gradient |
///
/// # Conventions
/// PyTorch's `clip_grad_value_`, Keras' `clipvalue`, optax's `clip`.
#[must_use = "settings clip nothing; call `clip`, or add them to a chain"]
#[derive(Clone)]
pub struct Value {
    limit: Hyper,
    non_finite: NonFinite,
}

impl Value {
    /// Limits every element to the range −`limit` to `limit`.
    pub fn new(limit: impl Into<Hyper>) -> Self {
        Self { limit: limit.into(), non_finite: NonFinite::Error }
    }

    /// Sets what to do if an element is NaN or infinite. The default is an error. In place it is always an error.
    pub fn non_finite(mut self, policy: NonFinite) -> Self {
        self.non_finite = policy;
        self
    }
}

impl<A: Element> Transform<A> for Value {
    fn name(&self) -> &'static str {
        "clip_value"
    }

    fn describe(&self) -> String {
        format!("{self:?}")
    }

    fn hyper_parameters(&self) -> Vec<(&'static str, &Hyper)> {
        vec![("limit", &self.limit)]
    }

    fn transform<'s>(&'s self, step: &mut Step<'s, A>) -> Result<Outcome> {
        let limit = bound_of_elements::<A>(&self.limit, "limit", step.number())?;
        let outcome = self.non_finite.outcome(step.grad_norm(f64::INFINITY)?, step)?;
        step.grads_mut().for_each(|(_, grad)| grad.limit_to(limit));
        Ok(outcome)
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "clip_value({:?})", self.limit)
    }
}

impl<O> Adapted<O, Transforming<Value>> {
    /// Sets what to do if an element is NaN or infinite. The default is an error.
    pub fn non_finite(self, policy: NonFinite) -> Self {
        self.with(|own| own.with(|value| value.non_finite(policy)))
    }
}
