//! Gradient clipping, as plain functions on a gradient tree and as what the clipping adaptors follow.
//!
//! | what is limited | function | adaptor |
//! |---|---|---|
//! | the norm of all gradients together | [`global_norm`] | [`clip_global_norm`](crate::OptimizerExt::clip_global_norm) |
//! | each tensor's own norm | [`per_tensor_norm`] | [`clip_per_tensor_norm`](crate::OptimizerExt::clip_per_tensor_norm) |
//! | each element | [`value`] | [`clip_value`](crate::OptimizerExt::clip_value) |
//! | each unit's norm, relative to its parameters' | [`adaptive`] | [`clip_adaptive`](crate::OptimizerExt::clip_adaptive) |
//!
//! All return the norm before clipping. An adaptor writes nothing: the step multiplies as it reads. The functions
//! change the tree in place, for loops without an optimizer of this crate; on an error they leave it untouched.
//!
//! Norms accumulate in `f64` over fixed blocks: their bits depend neither on the number of threads nor on memory
//! layouts, and they do not overflow where the result is representable. Neither does the factor: in 16 bits, and where it is no
//! normal number of the element type, products are taken in `f64` and rounded once. A limit above 0 that is 0 in the element
//! type is an error in `f32` and `f64`; in 16 bits, in place, every element becomes the nearest number that there is, 0.
//!
//! ```
//! use gradus::clip::{self, Norm};
//! use ndarray::array;
//!
//! let mut grads = (array![3.0, 0.0], array![[4.0]]);
//! let norm = clip::global_norm(&mut grads, 1.0)?;
//! assert_eq!(norm, 5.0);
//! assert!((grads.0[0] - 0.6_f64).abs() < 1e-6);
//!
//! let largest = Norm::global(0.5).p(f64::INFINITY).exact().clip(&mut grads)?; // with options
//! assert!((grads.1[[0, 0]] - 0.5_f64).abs() < 1e-12 && (largest - 0.8).abs() < 1e-6);
//! # Ok::<(), gradus::Error>(())
//! ```

mod adaptive;

use std::sync::Arc;

use ndarray::{ArrayD, ArrayView1};

use crate::error::{Error, Result, StepError};
use crate::params::{Element, Layout, Params, ParamsMut, TensorInfo, Values, collect_mut};
use crate::schedule::Hyper;
use crate::step::grad::{Grad, is_in_type, transform};
use crate::step::{Step, norm};

pub use adaptive::Adaptive;

/// Clips the norm of all gradients together: [`Norm::global`] with its defaults. Returns the norm before clipping.
///
/// # Errors
/// [`StepError::NonFiniteGradient`] or [`StepError::NormOverflow`], and [`StepError::HyperParameter`] unless `max_norm` ≥ 0.
#[doc(alias("clip_grad_norm_", "clip_by_global_norm"))]
pub fn global_norm<T: ParamsMut>(grads: &mut T, max_norm: f64) -> Result<f64> {
    Norm::global(max_norm).clip(grads)
}

/// Clips each tensor's own norm: [`Norm::per_tensor`] with its defaults. Returns the norm of all tensors together before
/// clipping.
///
/// # Errors
/// [`StepError::NonFiniteGradient`] or [`StepError::NormOverflow`], and [`StepError::HyperParameter`] unless `max_norm` ≥ 0.
pub fn per_tensor_norm<T: ParamsMut>(grads: &mut T, max_norm: f64) -> Result<f64> {
    Norm::per_tensor(max_norm).clip(grads)
}

/// Limits every element to −`limit` … `limit`. Returns the largest absolute value before clipping.
///
/// # Errors
/// [`StepError::NonFiniteGradient`], and [`StepError::HyperParameter`] unless `limit` ≥ 0.
#[doc(alias = "clip_grad_value_")]
pub fn value<T: ParamsMut>(grads: &mut T, limit: f64) -> Result<f64> {
    in_place(&Value::new(limit), grads)
}

/// Limits each unit's norm relative to its parameters': [`Adaptive`] with its defaults. Returns the norm of all
/// gradients together before clipping.
///
/// # Errors
/// [`StepError::NonFiniteGradient`] or [`StepError::NormOverflow`], [`StepError::HyperParameter`] unless `clipping` ≥ 0, and
/// what [`Step::pair`] says of trees that do not match.
pub fn adaptive<G, P>(grads: &mut G, params: &P, clipping: f64) -> Result<f64>
where
    G: ParamsMut,
    P: Params<Elem = G::Elem>,
{
    Adaptive::new(clipping).clip(grads, params)
}

/// What the clipping adaptor [`Clip`](crate::adaptor::Clip) needs to know of a way of clipping.
pub trait Clipper: Clone + Send {
    /// What [`measure`](Clipper::measure) found, apart from the norm.
    type Found<A: Element>;

    /// The norm of the step's gradients, and what [`mark`](Clipper::mark) needs. `at` is the optimizer's step count.
    ///
    /// # Errors
    /// [`StepError::HyperParameter`]. A norm that is not finite is no error here.
    fn measure<A: Element>(&self, step: &Step<'_, A>, at: u64) -> Result<(f64, Self::Found<A>)>;

    /// Describes the clipping on the step's gradients.
    fn mark<A: Element>(&self, found: Self::Found<A>, step: &mut Step<'_, A>);
}

/// A limit ≥ 0, or infinity for none: whoever only wants to know the norm.
fn bound(hyper: &Hyper, name: &'static str, at: u64) -> Result<f64> {
    if hyper.at(at) == f64::INFINITY {
        return Ok(f64::INFINITY);
    }
    hyper.within(name, 0.0.., at).map_err(|error| error.accepting("a number ≥ 0 or infinity"))
}

/// [`bound`] for what elements are kept within: one that is above 0, but 0 as a number of the type, would stop them all.
fn bound_of_elements<A: Element>(hyper: &Hyper, name: &'static str, at: u64) -> Result<f64> {
    let value = bound(hyper, name, at)?;
    // Halves are computed in f32, and in place the nearest of them is what is asked for.
    if value > 0.0 && A::from_f64(value).is_zero() && size_of::<A>() >= size_of::<f32>() {
        let least = (A::min_positive_value() * A::epsilon()).as_f64();
        let accepted = format!("0 or at least {least:e} as {}", A::DTYPE);
        return Err(Error::Step(StepError::HyperParameter { name, value, step: at, path: None, accepted }));
    }
    Ok(value)
}

/// The factor that brings a norm down to a limit. Where it is no normal number it is the product of two.
fn quotient(limit: f64, norm: f64) -> [f64; 2] {
    /// 2⁻¹⁰⁰⁰
    const FAR: f64 = f64::from_bits(23 << 52);
    match limit / norm {
        factor if factor == 0.0 && limit > 0.0 || factor.is_subnormal() => [FAR, limit / FAR / norm],
        factor => [factor, 1.0],
    }
}

/// The gradients of a step with their names, as the reductions take them.
fn named<'s, 'a, A: Element>(step: &'s Step<'a, A>) -> Vec<norm::Named<'s, 'a, A>> {
    step.grads().collect()
}

/// Applies a clipper to a tree instead of to a step.
fn in_place<T: ParamsMut>(clipper: &impl Clipper, grads: &mut T) -> Result<f64> {
    let step = Step::of_grads(grads, Layout::of(grads)?)?;
    let (norm, found) = clipper.measure(&step, 0)?;
    let changes = changes(step, norm, |step| clipper.mark(found, step))?;
    write(changes, grads)?;
    Ok(norm)
}

/// What becomes of one gradient.
enum Change<A> {
    Affine { scale: f64, limit: f64 },
    Replace(ArrayD<A>),
}

/// What `mark` makes of the gradients of a step whose norm is finite.
fn changes<'a, A: Element>(
    mut step: Step<'a, A>,
    norm: f64,
    mark: impl FnOnce(&mut Step<'a, A>),
) -> Result<Vec<(TensorInfo, Change<A>)>> {
    if !norm.is_finite() {
        return Err(norm::non_finite(&named(&step)));
    }
    mark(&mut step);
    let change = |(info, grad): norm::Named<'_, '_, A>| {
        let change = match (grad.is_affine(), grad.scale_and_limit()) {
            (true, (scale, limit)) => Change::Affine { scale, limit },
            (false, _) => Change::Replace(grad.to_array(info.shape())),
        };
        (info.clone(), change)
    };
    Ok(step.grads().map(change).collect())
}

/// Makes the changes in one walk, which is looked at first. It may have another order than the step.
fn write<T: ParamsMut>(changes: Vec<(TensorInfo, Change<T::Elem>)>, grads: &mut T) -> Result<()> {
    let (infos, changes): (Vec<TensorInfo>, Vec<Change<T::Elem>>) = changes.into_iter().unzip();
    let step = Arc::new(Layout::new(infos)?);
    let (layout, values) = collect_mut(grads, Some(&step), |_, values| values)?;
    if !step.has_tensors_of(&layout) {
        return step.ensure_same(&layout);
    }
    for (info, mut values) in layout.tensors().iter().zip(values) {
        match step.position(info.path()).and_then(|at| changes.get(at)) {
            Some(Change::Affine { scale, limit }) if *scale != 1.0 || limit.is_finite() => {
                let own = [*scale, *limit].map(T::Elem::from_f64);
                match is_in_type::<T::Elem>(*scale) {
                    true => values.map(info.shape(), |value| transform(value, own[0], own[1])),
                    false => {
                        values.map(info.shape(), |value| Element::from_f64(transform(value.as_f64(), *scale, *limit)));
                    }
                }
            }
            Some(Change::Replace(array)) => values.view_mut(info.shape()).assign(array),
            _ => {}
        }
    }
    Ok(())
}

/// Clipping by norm.
///
/// [`Norm::global`] takes the norm of all gradients together, which keep their direction. [`Norm::per_tensor`] takes
/// each tensor's own: the direction of the whole changes, but no tensor drowns another.
///
/// # Update rule
/// ```text
/// g ← g·min(1, c/(‖g‖ₚ + 1e-6))
/// ```
/// With [`exact`](Norm::exact): unchanged if ‖g‖ₚ ≤ c, else `g·c/‖g‖ₚ`.
///
/// # Hyper-parameters
/// | name | default | range | meaning |
/// |---|---|---|---|
/// | `max_norm` c | – | 0 ≤ c ≤ ∞ | the largest norm let through; unit of the gradient. ∞ only measures |
/// | `p` | 2 | 1 ≤ p ≤ ∞ | which norm |
///
/// # Conventions
/// The default is PyTorch's `clip_grad_norm_`, on all parameters or on each; `exact()` is optax's
/// `clip_by_global_norm`, TensorFlow's `clip_by_global_norm` and, per tensor, Keras' `clipnorm`.
///
/// # References
/// R. Pascanu, T. Mikolov and Y. Bengio, *On the difficulty of training recurrent neural networks* (2013),
/// arXiv:1211.5063, algorithm 1.
#[derive(Debug, Clone)]
pub struct Norm {
    max_norm: Hyper,
    per_tensor: bool,
    p: f64,
    exact: bool,
}

impl Norm {
    /// Clips the Euclidean norm of all gradients together to `max_norm`.
    pub fn global(max_norm: impl Into<Hyper>) -> Self {
        Self { max_norm: max_norm.into(), per_tensor: false, p: 2.0, exact: false }
    }

    /// Clips every tensor's own Euclidean norm to `max_norm`.
    pub fn per_tensor(max_norm: impl Into<Hyper>) -> Self {
        Self { per_tensor: true, ..Self::global(max_norm) }
    }

    /// Takes the p-norm, 1 ≤ p ≤ ∞ (`f64::INFINITY`).
    pub fn p(mut self, p: f64) -> Self {
        self.p = p;
        self
    }

    /// Leaves norms up to the maximum alone and takes no ε.
    pub fn exact(mut self) -> Self {
        self.exact = true;
        self
    }

    /// Clips a gradient tree in place; returns the norm of all tensors together before.
    ///
    /// # Errors
    /// Those of [`global_norm`].
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

impl Clipper for Norm {
    /// Two factors for each gradient, of which the second is 1 unless their product is no number.
    type Found<A: Element> = Vec<[f64; 2]>;

    fn measure<A: Element>(&self, step: &Step<'_, A>, at: u64) -> Result<(f64, Vec<[f64; 2]>)> {
        let max_norm = bound_of_elements::<A>(&self.max_norm, "max_norm", at)?;
        if self.p.is_nan() || self.p < 1.0 {
            let accepted = "a number ≥ 1 or infinity".into();
            return Err(Error::Step(StepError::HyperParameter {
                name: "p",
                value: self.p,
                step: at,
                path: None,
                accepted,
            }));
        }
        let grads = named(step);
        if !self.per_tensor {
            let norm = step.norm_of_all(norm::norm(&grads, self.p), self.p)?;
            return Ok((norm, vec![self.factor(norm, max_norm); grads.len()]));
        }
        step.ensure_uncut("clip_per_tensor_norm")?;
        let norms: Vec<f64> = grads.iter().map(|&grad| norm::norm(&[grad], self.p)).collect();
        let factors = norms.iter().map(|&norm| self.factor(norm, max_norm)).collect();
        Ok((step.norm_of_all(norm_of_norms(&norms, self.p), self.p)?, factors))
    }

    fn mark<A: Element>(&self, factors: Vec<[f64; 2]>, step: &mut Step<'_, A>) {
        let grads = step.iter_mut().map(|(_, tensor)| &mut tensor.grad).filter(|grad| grad.is_some());
        for (grad, [factor, rest]) in grads.zip(factors) {
            match (&mut *grad, rest == 1.0) {
                (Some(grad), true) => grad.scale_by(factor),
                _ => *grad = grad.take().map(|grad| grad.scale_units([factor]).scale_units([rest])),
            }
        }
    }
}

/// The norm of a whole from the norms of its parts.
pub(crate) fn norm_of_norms(norms: &[f64], p: f64) -> f64 {
    let norms = ArrayView1::from(norms);
    let info = TensorInfo::new("", norms.shape());
    norm::norm(&[(&info, &Grad::new(Values::new(norms)))], p)
}

/// Clipping of every element by itself: cheap, but the direction of the gradient changes.
///
/// # Update rule
/// ```text
/// g ← min(max(g, −c), c)
/// ```
/// # Hyper-parameters
/// | name | default | range | meaning |
/// |---|---|---|---|
/// | `limit` c | – | 0 ≤ c ≤ ∞ | the largest absolute value let through; unit of the gradient |
///
/// # Conventions
/// PyTorch's `clip_grad_value_`, Keras' `clipvalue`, optax's `clip`.
#[derive(Debug, Clone)]
pub struct Value {
    limit: Hyper,
}

impl Value {
    /// Limits every element to −`limit` … `limit`.
    pub fn new(limit: impl Into<Hyper>) -> Self {
        Self { limit: limit.into() }
    }
}

impl Clipper for Value {
    type Found<A: Element> = f64;

    fn measure<A: Element>(&self, step: &Step<'_, A>, at: u64) -> Result<(f64, f64)> {
        let limit = bound_of_elements::<A>(&self.limit, "limit", at)?;
        Ok((step.norm_of_all(norm::norm(&named(step), f64::INFINITY), f64::INFINITY)?, limit))
    }

    fn mark<A: Element>(&self, limit: f64, step: &mut Step<'_, A>) {
        step.iter_mut().filter_map(|(_, tensor)| tensor.grad.as_mut()).for_each(|grad| grad.limit_to(limit));
    }
}
