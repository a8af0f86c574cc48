//! Clipping relative to the parameters.

use super::{Clipper, bound, changes, named, norm_of_norms, quotient, write};
use crate::error::{Error, Result, StepError};
use crate::kernel::threads;
use crate::params::{Element, Layout, Params, ParamsMut};
use crate::schedule::Hyper;
use crate::step::{Grad, Step, Tensor, norm};

/// Adaptive gradient clipping (AGC): a unit's gradient may be at most a share of the unit's parameters.
///
/// A unit is one index of the first axis: a row of a linear layer's (out, in) weight, a filter of a convolution's
/// (out, in, height, width). A tensor of dimension 0 or 1 is one unit.
///
/// # Update rule
/// For each unit i:
/// ```text
/// c ← λ·max(‖θᵢ‖, ε)
/// gᵢ ← gᵢ·c/max(‖gᵢ‖, 1e-6) if ‖gᵢ‖ > c
/// ```
/// # Hyper-parameters
/// | name | default | range | meaning |
/// |---|---|---|---|
/// | `clipping` λ | – | 0 ≤ λ ≤ ∞ | the largest ratio of gradient to parameter let through; 0.01 is usual |
/// | `eps` ε | 1e-3 | ε ≥ 0 | lets parameters near zero move |
///
/// # Conventions
/// timm's `adaptive_clip_grad`. optax's `adaptive_grad_clip` takes the *last* axis of a matrix for the units, as
/// fits weights of shape (in, out).
///
/// # References
/// A. Brock, S. De, S. L. Smith and K. Simonyan, *High-Performance Large-Scale Image Recognition Without
/// Normalization* (2021), [arXiv:2102.06171](https://arxiv.org/abs/2102.06171), eq. 3.
#[derive(Debug, Clone)]
pub struct Adaptive {
    clipping: Hyper,
    eps: Hyper,
}

impl Adaptive {
    /// Lets a unit's gradient norm be at most `clipping` times its parameter norm.
    pub fn new(clipping: impl Into<Hyper>) -> Self {
        Self { clipping: clipping.into(), eps: 1e-3.into() }
    }

    /// The least parameter norm that a unit is taken to have.
    pub fn eps(mut self, eps: impl Into<Hyper>) -> Self {
        self.eps = eps.into();
        self
    }

    /// Clips a gradient tree in place; returns the norm of all gradients together before.
    ///
    /// # Errors
    /// Those of [`clip::adaptive`](super::adaptive()).
    pub fn clip<G, P>(&self, grads: &mut G, params: &P) -> Result<f64>
    where
        G: ParamsMut,
        P: Params<Elem = G::Elem>,
    {
        let step = Step::of_grads(grads, Layout::of(params)?)?;
        let params = Step::of_grads(params, Layout::clone(step.layout()))?;
        let all: Vec<_> = params.iter().map(|(info, param)| (info, param.grad.as_ref())).collect();
        // The tree may have shown none in its second walk.
        let params: Vec<_> = with_grad(&step)
            .map(|tensor| match all[tensor.index()] {
                (_, Some(param)) => Ok(param),
                (info, None) => Err(Error::Step(StepError::ParametersChanged {
                    expected: info.to_string(),
                    found: "no tensor of this path".into(),
                })),
            })
            .collect::<Result<_>>()?;
        let (norm, factors) = self.factors(&named(&step), &params, 0)?;
        let changes = changes(step, norm, |step| self.mark(factors, step))?;
        write(changes, grads)?;
        Ok(norm)
    }

    /// The norm of all gradients, and each one's factors.
    fn factors<A: Element>(
        &self,
        grads: &[norm::Named<'_, '_, A>],
        params: &[&Grad<'_, A>],
        at: u64,
    ) -> Result<(f64, Vec<Factors>)> {
        /// timm's guard against a division by zero.
        const LEAST_NORM: f64 = 1e-6;
        let clipping = bound(&self.clipping, "clipping", at)?;
        let eps = self.eps.within("eps", 0.0.., at)?;
        let mut norms = Vec::new();
        let mut factors = Vec::with_capacity(grads.len());
        for (&(info, grad), param) in grads.iter().zip(params) {
            let units = if info.shape().len() > 1 { info.shape()[0] } else { 1 };
            let length = info.elements() / units.max(1);
            let own_norms = norms.len();
            norms.resize(own_norms + units, 0.0);
            let (own_norms, mut own_factors) = (&mut norms[own_norms..], vec![[1.0; 2]; units]);
            over_units(0, length, own_norms, &mut own_factors, &|unit| {
                let norm = norm::norm_of_range((info, grad), unit * length, length);
                let most = clipping * norm::norm_of_range((info, param), unit * length, length).max(eps);
                (norm, if norm > most { quotient(most, norm.max(LEAST_NORM)) } else { [1.0; 2] })
            });
            let clipped =
                own_norms.iter().all(|norm| norm.is_finite()) && own_factors.iter().any(|own| *own != [1.0; 2]);
            factors.push(clipped.then_some(own_factors));
        }
        Ok((norm_of_norms(&norms, 2.0), factors))
    }
}

/// For a gradient that has to be clipped, two factors for each unit.
type Factors = Option<Vec<[f64; 2]>>;

/// Norm and factor of every unit, from unit `first` on, on all threads.
fn over_units(
    first: usize,
    length: usize,
    norms: &mut [f64],
    factors: &mut [[f64; 2]],
    unit: &(impl Fn(usize) -> (f64, [f64; 2]) + Sync),
) {
    let units = norms.len();
    if units > 1 && units * length > norm::SERIAL_NORM {
        let middle = units / 2;
        let ((left_norms, right_norms), (left, right)) = (norms.split_at_mut(middle), factors.split_at_mut(middle));
        threads::join(
            || over_units(first, length, left_norms, left, unit),
            || over_units(first + middle, length, right_norms, right, unit),
        );
        return;
    }
    for (number, (norm, factor)) in (first..).zip(norms.iter_mut().zip(factors)) {
        (*norm, *factor) = unit(number);
    }
}

/// The tensors of a step that have a gradient.
fn with_grad<'s, 'a, A: Element>(step: &'s Step<'a, A>) -> impl Iterator<Item = &'s Tensor<'a, A>> {
    step.iter().map(|(_, tensor)| tensor).filter(|tensor| tensor.grad.is_some())
}

impl Clipper for Adaptive {
    type Found<A: Element> = Vec<Factors>;

    fn measure<A: Element>(&self, step: &Step<'_, A>, at: u64) -> Result<(f64, Self::Found<A>)> {
        let params: Vec<_> = with_grad(step).map(|tensor| Grad::new(tensor.param.as_values())).collect();
        step.ensure_uncut("clip_adaptive")?;
        let (norm, factors) = self.factors(&named(step), &params.iter().collect::<Vec<_>>(), at)?;
        Ok((step.norm_of_all(norm, 2.0)?, factors))
    }

    fn mark<A: Element>(&self, factors: Self::Found<A>, step: &mut Step<'_, A>) {
        let tensors = step.iter_mut().map(|(_, tensor)| tensor).filter(|tensor| tensor.grad.is_some());
        for (tensor, factors) in tensors.zip(factors) {
            let Some(factors) = factors else { continue };
            let [first, rest] = [0, 1].map(|at| factors.iter().map(|own| own[at]).collect::<Vec<_>>());
            tensor.grad = tensor.grad.take().map(|grad| grad.scale_units(first));
            if rest.iter().any(|factor| *factor != 1.0) {
                tensor.grad = tensor.grad.take().map(|grad| grad.scale_units(rest));
            }
        }
    }
}
