//! Gradients without NaN.

use std::fmt;
use std::sync::Arc;

use super::{Adaptor, Outcome, adapted};
use crate::error::Result;
use crate::params::{Element, Layout};
use crate::state::{Commit, StateReader, StateWriter};
use crate::step::{Grad, Optimizer, Report, Step};

/// Replaces NaN in the gradients by 0. Created by [`GuardExt::zero_nans`](crate::GuardExt::zero_nans).
///
/// Infinities stay as they are. A NaN usually has a cause that should be found, so prefer
/// [`skip_nonfinite`](crate::GuardExt::skip_nonfinite), which leaves the step out, or [`check_finite`](crate::GuardExt::check_finite). If
/// you know that single elements are NaN for a harmless reason, `zero_nans` keeps the rest of the gradient.
/// [`zeroed`](ZeroNans::zeroed) counts the elements.
///
/// ```
/// use gradus::prelude::*;
/// use ndarray::array;
///
/// let mut opt = Sgd::new(1.0).zero_nans();
/// let mut w = array![0.0, 0.0];
/// opt.step(&mut w, &array![f64::NAN, 2.0])?;
/// assert_eq!((w, opt.zeroed()), (array![0.0, -2.0], 1));
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// # Update rule
/// ```text
/// gᵢ ← 0 if gᵢ is NaN
/// ```
///
/// # State
/// The count. On several ranks, each counts its own elements.
///
/// # Cost
/// One read of the gradients, and a copy of those that have a NaN or an infinity.
///
/// # Conventions
/// optax's `zero_nans`, whose state says instead which tensors of the last step had NaN.
#[must_use = "an adaptor does nothing until it is around an optimizer"]
#[derive(Clone, Default)]
pub struct ZeroNans {
    zeroed: u64,
}

impl ZeroNans {
    /// Starts with a count of 0.
    pub fn new() -> Self {
        Self::default()
    }

    /// The number of elements that were replaced.
    pub fn zeroed(&self) -> u64 {
        self.zeroed
    }
}

/// Replaces NaN by 0, and returns how many there were.
fn zero<A: Element>(step: &mut Step<'_, A>) -> u64 {
    let mut count = 0;
    if step.are_finite() {
        return count;
    }
    for (info, grad) in step.grads_mut() {
        let (info, grad) = grad.compact_mut(info);
        let mut values = grad.to_array(info.shape());
        let nans = values.iter_mut().filter(|value| value.is_nan());
        let found = nans.map(|value| *value = A::zero()).count() as u64;
        if found > 0 {
            *grad = Grad::from_array(values);
            count += found;
        }
    }
    count
}

impl<A: Element> Adaptor<A> for ZeroNans {
    fn check(&self, step: &Step<'_, A>, inner: &dyn Optimizer<A>) -> Result<()> {
        adapted::check(step, inner, |step| {
            zero(step);
            Ok(Outcome::pass())
        })
    }

    fn apply(&mut self, step: Step<'_, A>, inner: &mut dyn Optimizer<A>) -> Result<Report> {
        let mut found = 0;
        let (report, _) = adapted::apply(step, inner, |step| {
            found = zero(step);
            Ok(Outcome::pass())
        })?;
        self.zeroed = self.zeroed.saturating_add(found);
        Ok(report)
    }

    fn describe(&self) -> String {
        format!("{self:?}")
    }

    fn moves_parameters(&self) -> bool {
        false
    }

    fn layout(&self) -> Option<&Arc<Layout>> {
        None
    }

    fn write_state(&self, state: &mut StateWriter<'_>) {
        state.node("zero_nans").value("zeroed", self.zeroed);
    }

    fn read_state<'s>(&'s mut self, state: &mut StateReader<'_>) -> Result<Commit<'s>> {
        let count = state.node("zero_nans")?.value("zeroed", "a count")?;
        Ok(Commit::new(move || self.zeroed = count))
    }
}

impl fmt::Debug for ZeroNans {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("zero_nans()")
    }
}
