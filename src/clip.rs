//! Gradient clipping, as plain functions on a gradient tree and as what the clipping adaptors follow.
//!
//! | what is limited | function | adaptor |
//! |---|---|---|
//! | the norm of all gradients together | [`global_norm`] | [`clip_global_norm`](crate::Optimizer::clip_global_norm) |
//! | each tensor's own norm | [`per_tensor_norm`] | [`clip_per_tensor_norm`](crate::Optimizer::clip_per_tensor_norm) |
//! | each element | [`value`] | [`clip_value`](crate::Optimizer::clip_value) |
//! | each unit's norm, relative to its parameters' | [`adaptive`] | [`clip_adaptive`](crate::Optimizer::clip_adaptive) |
//!
//! All return the norm before clipping. An adaptor writes nothing: the step multiplies as it reads. The functions
//! change the tree in place, for loops without an optimizer of this crate; on an error they leave it untouched.
//!
//! Norms accumulate in `f64` over fixed blocks: their bits depend neither on the number of threads nor on memory
//! layouts, and they do not overflow where the result is representable.
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

use std::sync::Arc;

use ndarray::{ArrayD, ArrayView1};

use crate::error::{Error, Result};
use crate::grad::{Grad, transform};
use crate::hyper::Hyper;
use crate::norm;
use crate::params::{Layout, Params, ParamsMut, TensorInfo, Values, collect_mut};
use crate::scalar::Element;
use crate::step::{Step, Tensor};
use crate::threads;

/// Clips the norm of all gradients together: [`Norm::global`] with its defaults. Returns the norm before clipping.
///
/// # Errors
/// [`Error::NonFiniteGradient`] or [`Error::NormOverflow`], and [`Error::HyperParameter`] unless `max_norm` ≥ 0.
pub fn global_norm<T: ParamsMut>(grads: &mut T, max_norm: f64) -> Result<f64> {
    Norm::global(max_norm).clip(grads)
}

/// Clips each tensor's own norm: [`Norm::per_tensor`] with its defaults. Returns the norm of all tensors together before
/// clipping.
///
/// # Errors
/// [`Error::NonFiniteGradient`] or [`Error::NormOverflow`], and [`Error::HyperParameter`] unless `max_norm` ≥ 0.
pub fn per_tensor_norm<T: ParamsMut>(grads: &mut T, max_norm: f64) -> Result<f64> {
    Norm::per_tensor(max_norm).clip(grads)
}

/// Limits every element to −`limit` … `limit`. Returns the largest absolute value before clipping.
///
/// # Errors
/// [`Error::NonFiniteGradient`], and [`Error::HyperParameter`] unless `limit` ≥ 0.
pub fn value<T: ParamsMut>(grads: &mut T, limit: f64) -> Result<f64> {
    in_place(&Value::new(limit), grads)
}

/// Limits each unit's norm relative to its parameters': [`Adaptive`] with its defaults. Returns the norm of all
/// gradients together before clipping.
///
/// # Errors
/// [`Error::NonFiniteGradient`] or [`Error::NormOverflow`], [`Error::HyperParameter`] unless `clipping` ≥ 0, and
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
    /// [`Error::HyperParameter`]. A norm that is not finite is no error here.
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
        let change = match grad.is_affine() {
            true => Change::Affine { scale: grad.scale(), limit: grad.limit() },
            false => Change::Replace(grad.to_array(info.shape())),
        };
        (info.clone(), change)
    };
    Ok(step.grads().map(change).collect())
}

/// Makes the changes in one walk, which is looked at first. It may have another order than the step.
fn write<T: ParamsMut>(changes: Vec<(TensorInfo, Change<T::Elem>)>, grads: &mut T) -> Result<()> {
    let (infos, changes): (Vec<_>, Vec<_>) = changes.into_iter().unzip();
    let step = Arc::new(Layout::new(infos)?);
    let (layout, values) = collect_mut(grads, Some(&step), |_, values| values)?;
    if !step.has_tensors_of(&layout) {
        return step.ensure_same(&layout);
    }
    for (info, mut values) in layout.tensors().iter().zip(values) {
        match step.position(info.path()).and_then(|at| changes.get(at)) {
            Some(Change::Affine { scale, limit }) if *scale != 1.0 || limit.is_finite() => {
                let (scale, limit) = (Element::from_f64(*scale), Element::from_f64(*limit));
                values.map(info.shape(), |value| transform(value, scale, limit));
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
    fn factor(&self, norm: f64, max_norm: f64) -> f64 {
        /// PyTorch's guard against a division by zero.
        const PYTORCH_EPS: f64 = 1e-6;
        match self.exact {
            _ if !norm.is_finite() => 1.0,
            false => (max_norm / (norm + PYTORCH_EPS)).min(1.0),
            true if norm > max_norm => max_norm / norm,
            true => 1.0,
        }
    }
}

impl Clipper for Norm {
    /// A factor for each gradient.
    type Found<A: Element> = Vec<f64>;

    fn measure<A: Element>(&self, step: &Step<'_, A>, at: u64) -> Result<(f64, Vec<f64>)> {
        let max_norm = bound(&self.max_norm, "max_norm", at)?;
        if self.p.is_nan() || self.p < 1.0 {
            let accepted = "a number ≥ 1 or infinity".into();
            return Err(Error::HyperParameter { name: "p", value: self.p, step: at, path: None, accepted });
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

    fn mark<A: Element>(&self, factors: Vec<f64>, step: &mut Step<'_, A>) {
        let grads = step.iter_mut().filter_map(|(_, tensor)| tensor.grad.as_mut());
        grads.zip(factors).for_each(|(grad, factor)| grad.scale_by(factor));
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
        let limit = bound(&self.limit, "limit", at)?;
        Ok((step.norm_of_all(norm::norm(&named(step), f64::INFINITY), f64::INFINITY)?, limit))
    }

    fn mark<A: Element>(&self, limit: f64, step: &mut Step<'_, A>) {
        step.iter_mut().filter_map(|(_, tensor)| tensor.grad.as_mut()).for_each(|grad| grad.limit_to(limit));
    }
}

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
/// Normalization* (2021), arXiv:2102.06171, eq. 3.
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
    /// Those of [`adaptive`].
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
                (info, None) => {
                    Err(Error::ParametersChanged { expected: info.to_string(), found: "no tensor of this path".into() })
                }
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
    ) -> Result<(f64, Vec<Factors<A>>)> {
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
            let (own_norms, mut own_factors) = (&mut norms[own_norms..], vec![A::one(); units]);
            over_units(0, length, own_norms, &mut own_factors, &|unit| {
                let norm = norm::norm_of_range((info, grad), unit * length, length);
                let most = clipping * norm::norm_of_range((info, param), unit * length, length).max(eps);
                (norm, A::from_f64(if norm > most { most / norm.max(LEAST_NORM) } else { 1.0 }))
            });
            let clipped =
                own_norms.iter().all(|norm| norm.is_finite()) && own_factors.iter().any(|factor| *factor != A::one());
            factors.push(clipped.then(|| own_factors.into()));
        }
        Ok((norm_of_norms(&norms, 2.0), factors))
    }
}

/// For a gradient that has to be clipped, a factor for each unit.
type Factors<A> = Option<Arc<[A]>>;

/// Norm and factor of every unit, from unit `first` on, on all threads.
fn over_units<A: Element>(
    first: usize,
    length: usize,
    norms: &mut [f64],
    factors: &mut [A],
    unit: &(impl Fn(usize) -> (f64, A) + Sync),
) {
    let units = norms.len();
    if units > 1 && units * length > norm::SERIAL {
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
    type Found<A: Element> = Vec<Factors<A>>;

    fn measure<A: Element>(&self, step: &Step<'_, A>, at: u64) -> Result<(f64, Self::Found<A>)> {
        let params: Vec<_> = with_grad(step).map(|tensor| Grad::new(tensor.param.as_values())).collect();
        step.ensure_uncut("clip_adaptive")?;
        let (norm, factors) = self.factors(&named(step), &params.iter().collect::<Vec<_>>(), at)?;
        Ok((step.norm_of_all(norm, 2.0)?, factors))
    }

    fn mark<A: Element>(&self, factors: Self::Found<A>, step: &mut Step<'_, A>) {
        let tensors = step.iter_mut().map(|(_, tensor)| tensor).filter(|tensor| tensor.grad.is_some());
        for (tensor, factors) in tensors.zip(factors) {
            if let Some(factors) = factors {
                tensor.grad = tensor.grad.take().map(|grad| grad.scale_units(factors));
            }
        }
    }
}
