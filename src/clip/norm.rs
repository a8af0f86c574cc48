//! Clipping by norm.

use std::fmt;
use std::sync::Arc;

use super::in_place::in_place;
use super::limits::{bound_of_elements, norm_of_norms, quotient, scale};
use crate::adaptor::{Adapted, NonFinite, Outcome, Transform, Transforming};
use crate::error::{Error, Result, StepError};
use crate::params::{Element, ParamsMut};
use crate::schedule::Hyper;
use crate::step::memo::Quantity;
use crate::step::share::Extent;
use crate::step::{Step, norm};

/// Clips by norm. Created by [`OptimizerExt::clip_global_norm`](crate::OptimizerExt::clip_global_norm) and
/// [`OptimizerExt::clip_per_tensor_norm`](crate::OptimizerExt::clip_per_tensor_norm).
///
/// [`Norm::global`] uses the norm of all gradients together, so the direction of the gradient is unchanged. [`Norm::per_tensor`] uses the
/// norm of each tensor, so one large tensor does not affect the others; the direction of the whole gradient changes.
///
/// An adaptor reads the gradients once, for the norm. The optimizer applies the factor when it reads them again.
/// [`Report::grad_norm`](crate::Report::grad_norm) is the norm of all gradients before clipping.
///
/// ```
/// use gradus::prelude::*;
/// use ndarray::array;
///
/// let mut opt = Sgd::new(1.0).clip_global_norm(1.0).exact(true);
/// let mut w = array![0.0, 0.0];
/// let report = opt.step(&mut w, &array![30.0, -40.0])?;
/// assert_eq!(report.grad_norm, Some(50.0));
/// assert_eq!(w, array![-0.6, 0.8]);
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// # Update rule
/// ```text
/// g ← g·min(1, c/(‖g‖ₚ + 1e-6))
/// ```
/// With [`exact(true)`](Norm::exact): unchanged if ‖g‖ₚ ≤ c, else `g·c/‖g‖ₚ`.
///
/// # Hyper-parameters
/// | name | default | range | meaning |
/// |---|---|---|---|
/// | `max_norm` c | – | 0 ≤ c ≤ ∞ | the largest norm, in the unit of the gradient; with ∞ the norm is only reported |
/// | [`p`](Norm::p) | 2 | 1 ≤ p ≤ ∞ | the p of the p-norm |
/// | [`exact`](Norm::exact) | no | | whether to leave out the ε of 1e-6 |
/// | [`non_finite`](Norm::non_finite) | error | | what happens if the norm is NaN or infinite |
///
/// # Conventions
/// The default is PyTorch's `clip_grad_norm_`, for all parameters or for each one. `exact(true)` is `clip_by_global_norm` of optax and of
/// TensorFlow and, per tensor, Keras' `clipnorm`.
///
/// # References
/// R. Pascanu, T. Mikolov and Y. Bengio, *On the difficulty of training recurrent neural networks* (2013),
/// [arXiv:1211.5063](https://arxiv.org/abs/1211.5063), algorithm 1.
#[must_use = "settings clip nothing; call `clip`, or add them to a chain"]
#[derive(Clone)]
pub struct Norm {
    max_norm: Hyper,
    per_tensor: bool,
    p: f64,
    exact: bool,
    non_finite: NonFinite,
}

impl Norm {
    /// Clips the Euclidean norm of all gradients together to `max_norm`.
    pub fn global(max_norm: impl Into<Hyper>) -> Self {
        Self { max_norm: max_norm.into(), per_tensor: false, p: 2.0, exact: false, non_finite: NonFinite::Error }
    }

    /// Clips the Euclidean norm of each tensor to `max_norm`.
    pub fn per_tensor(max_norm: impl Into<Hyper>) -> Self {
        Self { per_tensor: true, ..Self::global(max_norm) }
    }

    /// Uses the p-norm, 1 ≤ p ≤ ∞ (`f64::INFINITY`).
    pub fn p(mut self, p: f64) -> Self {
        self.p = p;
        self
    }

    /// Whether to leave out the ε: gradients with ‖g‖ ≤ c are unchanged, others become `g·c/‖g‖`.
    pub fn exact(mut self, exact: bool) -> Self {
        self.exact = exact;
        self
    }

    /// Sets what to do if a norm is NaN or infinite. The default is an error. [`clip`](Self::clip) always returns an error.
    pub fn non_finite(mut self, policy: NonFinite) -> Self {
        self.non_finite = policy;
        self
    }

    /// Clips a gradient tree in place, and returns the norm of all gradients together before clipping.
    ///
    /// # Errors
    /// Those of [`clip::global_norm`](crate::clip::global_norm).
    pub fn clip<T: ParamsMut>(&self, grads: &mut T) -> Result<f64> {
        in_place(self, grads)
    }

    /// The factor that brings a norm down to its maximum.
    fn factor(&self, norm: f64, max_norm: f64) -> [f64; 2] {
        /// PyTorch's guard against a division by zero.
        const PYTORCH_EPS: f64 = 1e-6;
        match self.exact {
            _ if !norm.is_finite() => [1.0; 2],
            false if max_norm < norm + PYTORCH_EPS => quotient(max_norm, norm + PYTORCH_EPS),
            true if norm > max_norm => quotient(max_norm, norm),
            _ => [1.0; 2],
        }
    }
}

impl<A: Element> Transform<A> for Norm {
    fn name(&self) -> &'static str {
        if self.per_tensor { "clip_per_tensor_norm" } else { "clip_global_norm" }
    }

    fn describe(&self) -> String {
        format!("{self:?}")
    }

    fn hyper_parameters(&self) -> Vec<(&'static str, &Hyper)> {
        vec![("max_norm", &self.max_norm)]
    }

    fn transform<'s>(&'s self, step: &mut Step<'s, A>) -> Result<Outcome> {
        let max_norm = bound_of_elements::<A>(&self.max_norm, "max_norm", step.number())?;
        ensure_norm(self.p, step.number())?;
        let norms = if self.per_tensor { Some(self.norm_of_each(step)?) } else { None };
        let norm = match &norms {
            None => step.grad_norm(self.p)?,
            Some(norms) => step.share().norm(norm_of_norms(norms, self.p), self.p)?,
        };
        let outcome = self.non_finite.outcome(norm, step)?;
        let stepped = step.iter_mut().filter(|(_, tensor)| tensor.grad.is_some());
        for (at, (_, tensor)) in stepped.enumerate() {
            let factor = self.factor(norms.as_ref().map_or(norm, |norms| norms[at]), max_norm);
            tensor.clipped |= factor != [1.0; 2];
            if let Some(grad) = &mut tensor.grad {
                scale(grad, factor);
            }
        }
        Ok(outcome)
    }
}

impl Norm {
    /// The norm of each gradient.
    fn norm_of_each<A: Element>(&self, step: &Step<'_, A>) -> Result<Arc<[f64]>> {
        step.share().ensure(Extent::Tensors, "clip_per_tensor_norm")?;
        let each = |grads: &[norm::Named<'_, '_, A>]| grads.iter().map(|grad| norm::norm(&[*grad], self.p)).collect();
        Ok(step.measured_each(Quantity::NormOfEach { p: self.p }, each))
    }
}

/// Returns an error unless there is a p-norm.
fn ensure_norm(p: f64, step: u64) -> Result<()> {
    match p >= 1.0 {
        true => Ok(()),
        false => {
            let accepted = "a number ≥ 1 or infinity".into();
            Err(Error::Step(StepError::HyperParameter {
                name: "p",
                value: p,
                step,
                path: None,
                pattern: None,
                accepted,
            }))
        }
    }
}

impl fmt::Debug for Norm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = if self.per_tensor { "clip_per_tensor_norm" } else { "clip_global_norm" };
        write!(f, "{name}({:?})", self.max_norm)?;
        if self.p != 2.0 {
            write!(f, ".p({})", self.p)?;
        }
        if self.exact { f.write_str(".exact(true)") } else { Ok(()) }
    }
}

impl<O> Adapted<O, Transforming<Norm>> {
    /// Uses the p-norm, 1 ≤ p ≤ ∞ (`f64::INFINITY`), instead of the Euclidean norm.
    pub fn p(self, p: f64) -> Self {
        self.with(|own| own.with(|norm| norm.p(p)))
    }

    /// Whether to leave out the ε: gradients with ‖g‖ ≤ c are unchanged, others become `g·c/‖g‖`.
    pub fn exact(self, exact: bool) -> Self {
        self.with(|own| own.with(|norm| norm.exact(exact)))
    }

    /// Sets what to do if a norm is NaN or infinite. The default is an error.
    pub fn non_finite(self, policy: NonFinite) -> Self {
        self.with(|own| own.with(|norm| norm.non_finite(policy)))
    }
}
