//! Adaptive clipping, relative to the parameters.

use std::fmt;

use super::in_place::{changes, write};
use super::limits::{bound, norm_of_norms, quotient};
use crate::adaptor::{Adapted, NonFinite, Outcome, Transform, Transforming};
use crate::error::{Error, Result, StepError};
use crate::kernel::{threads, tree};
use crate::params::{Element, Layout, Params, ParamsMut, TensorInfo};
use crate::schedule::Hyper;
use crate::step::memo::Quantity;
use crate::step::share::Extent;
use crate::step::{Grad, Step, norm};

/// Adaptive gradient clipping (AGC): limits the norm of a unit's gradient to a fraction of the norm of the unit's parameters. Created by
/// [`OptimizerExt::clip_adaptive`](crate::OptimizerExt::clip_adaptive).
///
/// A unit is one index of the first axis: a row of a linear layer's weight (out, in), or a filter of a convolution (out, in, height,
/// width). A tensor of dimension 0 or 1 is one unit.
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
/// | `clipping` λ | – | 0 ≤ λ ≤ ∞ | the largest allowed ratio of gradient norm to parameter norm; 0.01 is usual |
/// | [`eps`](Adaptive::eps) ε | 1e-3 | ε ≥ 0 | the least parameter norm in this ratio, so that parameters near zero can move |
/// | [`non_finite`](Adaptive::non_finite) | error | | what happens if a norm is NaN or infinite |
///
/// # Conventions
/// timm's `adaptive_clip_grad`. optax's `adaptive_grad_clip` uses the *last* axis of a matrix for the units, because its weights have the
/// shape (in, out).
///
/// # References
/// A. Brock, S. De, S. L. Smith and K. Simonyan, *High-Performance Large-Scale Image Recognition Without
/// Normalization* (2021), [arXiv:2102.06171](https://arxiv.org/abs/2102.06171), eq. 3.
#[must_use = "settings clip nothing; call `clip`, or add them to a chain"]
#[derive(Clone)]
pub struct Adaptive {
    clipping: Hyper,
    eps: Hyper,
    non_finite: NonFinite,
}

impl Adaptive {
    /// Limits the norm of each unit's gradient to `clipping` times the norm of its parameters.
    pub fn new(clipping: impl Into<Hyper>) -> Self {
        Self { clipping: clipping.into(), eps: 1e-3.into(), non_finite: NonFinite::Error }
    }

    /// Sets ε: a smaller parameter norm counts as ε.
    pub fn eps(mut self, eps: impl Into<Hyper>) -> Self {
        self.eps = eps.into();
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
    /// Those of [`clip::adaptive`](crate::clip::adaptive()).
    pub fn clip<G, P>(&self, grads: &mut G, params: &P) -> Result<f64>
    where
        G: ParamsMut,
        P: Params<Elem = G::Elem>,
    {
        let mut step = Step::of_grads(grads, Layout::of(params)?)?;
        let params = Step::of_grads(params, Layout::clone(step.layout()))?;
        let all: Vec<_> = params.iter().map(|(info, param)| (info, param.grad.as_ref())).collect();
        // The tree may have shown none in its second walk.
        let with_grad = step.iter().filter(|(_, tensor)| tensor.grad.is_some());
        let params: Vec<_> = with_grad
            .map(|(_, tensor)| match all[tensor.index()] {
                (_, Some(param)) => Ok(param),
                (info, None) => Err(Error::Step(StepError::ParametersChanged {
                    expected: info.to_string(),
                    found: "no tensor of this path".into(),
                })),
            })
            .collect::<Result<_>>()?;
        let (norm, factors) = self.factors(&step, &params)?;
        if !norm.is_finite() {
            return Err(norm::non_finite(&step.grads().collect::<Vec<_>>()));
        }
        scale(&mut step, factors);
        let changes = changes(step);
        write(changes, grads)?;
        Ok(norm)
    }

    /// The norm of all gradients, and each one's factors.
    fn factors<A: Element>(&self, step: &Step<'_, A>, params: &[&Grad<'_, A>]) -> Result<(f64, Vec<Factors>)> {
        /// timm's guard against a division by zero.
        const LEAST_NORM: f64 = 1e-6;
        let clipping = bound(&self.clipping, "clipping", step.number())?;
        let eps = self.eps.within("eps", 0.0.., step.number())?;
        let norms = step.measured_each(Quantity::NormOfUnits, |grads| grads.iter().flat_map(norms_of_units).collect());
        let (mut begin, mut factors) = (0, Vec::with_capacity(params.len()));
        for ((info, grad), param) in step.grads().zip(params) {
            let rows = grad.rows().map(|(rows, _)| rows);
            let (units, length) = units(grad.compact(info).0);
            let own = &norms[begin..begin + units];
            begin += units;
            let mut least: Vec<_> = own.iter().map(|norm| (*norm, [1.0; 2])).collect();
            over_units(0, length, &mut least, &|unit, (norm, factor)| {
                // Of a vector, which is one unit, all elements count.
                let (unit, length) = match rows {
                    Some(rows) if info.shape().len() > 1 => (rows[unit], length),
                    Some(_) => (0, info.elements()),
                    None => (unit, length),
                };
                let most = clipping * norm::norm_of_range((info, param), unit * length, length).max(eps);
                if *norm > most {
                    *factor = quotient(most, norm.max(LEAST_NORM));
                }
            });
            let own_factors: Vec<_> = least.into_iter().map(|(_, factor)| factor).collect();
            let clipped = own.iter().all(|norm| norm.is_finite()) && own_factors.iter().any(|own| *own != [1.0; 2]);
            factors.push(clipped.then_some(own_factors));
        }
        Ok((norm_of_norms(&norms, 2.0), factors))
    }
}

/// How many units a tensor has, and of how many elements each is.
fn units(info: &TensorInfo) -> (usize, usize) {
    let units = if info.shape().len() > 1 { info.shape()[0] } else { 1 };
    (units, info.elements() / units.max(1))
}

/// The norm of each unit of a gradient.
fn norms_of_units<A: Element>(&(info, grad): &norm::Named<'_, '_, A>) -> Vec<f64> {
    let (info, grad) = grad.compact(info);
    let (units, length) = units(info);
    let mut norms = vec![0.0; units];
    over_units(0, length, &mut norms, &|unit, norm| {
        *norm = norm::norm_of_range((info, grad), unit * length, length);
    });
    norms
}

/// For a gradient that has to be clipped, two factors for each unit.
type Factors = Option<Vec<[f64; 2]>>;

/// Calls `f` with every unit, from unit `first` on, and what there is for it, on all threads.
fn over_units<T: Send>(first: usize, length: usize, all: &mut [T], f: &(impl Fn(usize, &mut T) + Sync)) {
    if all.len() > 1 && all.len() * length > tree::SERIAL_NORM {
        let (left, right) = all.split_at_mut(all.len() / 2);
        let middle = first + left.len();
        threads::join(|| over_units(first, length, left, f), || over_units(middle, length, right, f));
        return;
    }
    (first..).zip(all).for_each(|(number, own)| f(number, own));
}

/// Multiplies the gradients' units by their factors.
fn scale<A: Element>(step: &mut Step<'_, A>, factors: Vec<Factors>) {
    let stepped = step.iter_mut().filter(|(_, tensor)| tensor.grad.is_some());
    for ((info, tensor), factors) in stepped.zip(factors) {
        let (Some(factors), Some(grad)) = (factors, &mut tensor.grad) else { continue };
        tensor.clipped = true;
        let (_, grad) = grad.compact_mut(info);
        let [first, rest] = [0, 1].map(|at| factors.iter().map(|own| own[at]).collect::<Vec<_>>());
        grad.replace_with(|grad| grad.scale_units(first));
        if rest.iter().any(|factor| *factor != 1.0) {
            grad.replace_with(|grad| grad.scale_units(rest));
        }
    }
}

impl<A: Element> Transform<A> for Adaptive {
    fn name(&self) -> &'static str {
        "clip_adaptive"
    }

    fn describe(&self) -> String {
        format!("{self:?}")
    }

    fn hyper_parameters(&self) -> Vec<(&'static str, &Hyper)> {
        vec![("clipping", &self.clipping), ("eps", &self.eps)]
    }

    fn transform<'s>(&'s self, step: &mut Step<'s, A>) -> Result<Outcome> {
        step.share().ensure(Extent::Tensors, "clip_adaptive")?;
        let (norm, factors) = {
            let with_grad = step.iter().filter(|(_, tensor)| tensor.grad.is_some());
            let params: Vec<_> = with_grad.map(|(_, tensor)| Grad::new(tensor.param())).collect();
            self.factors(step, &params.iter().collect::<Vec<_>>())?
        };
        let norm = step.share().norm(norm, 2.0)?;
        let outcome = self.non_finite.outcome(norm, step)?;
        scale(step, factors);
        Ok(outcome)
    }
}

impl fmt::Debug for Adaptive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "clip_adaptive({:?}).eps({:?})", self.clipping, self.eps)
    }
}

impl<O> Adapted<O, Transforming<Adaptive>> {
    /// Sets ε: a smaller parameter norm counts as ε. The default is 1e-3.
    pub fn eps(self, eps: impl Into<Hyper>) -> Self {
        self.with(|own| own.with(|adaptive| adaptive.eps(eps)))
    }

    /// Sets what to do if a norm is NaN or infinite. The default is an error.
    pub fn non_finite(self, policy: NonFinite) -> Self {
        self.with(|own| own.with(|adaptive| adaptive.non_finite(policy)))
    }
}
