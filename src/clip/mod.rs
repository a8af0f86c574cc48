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
//! let largest = Norm::global(0.5).p(f64::INFINITY).exact(true).clip(&mut grads)?; // with options
//! assert!((grads.1[[0, 0]] - 0.5_f64).abs() < 1e-12 && (largest - 0.8).abs() < 1e-6);
//! # Ok::<(), gradus::Error>(())
//! ```

mod adaptive;
mod in_place;
mod limits;
mod norm;
mod value;

use crate::error::Result;
use crate::params::{Params, ParamsMut};
use in_place::in_place;

pub use adaptive::Adaptive;
#[cfg(feature = "distributed")]
pub(crate) use limits::norm_of_norms;
pub use norm::Norm;
pub use value::Value;

/// Clips the norm of all gradients together: [`Norm::global`] with its defaults. Returns the norm before clipping.
///
/// # Errors
/// [`StepError::NonFiniteGradient`](crate::error::StepError::NonFiniteGradient) or [`StepError::NormOverflow`](crate::error::StepError::NormOverflow), and [`StepError::HyperParameter`](crate::error::StepError::HyperParameter) unless `max_norm` ≥ 0.
#[doc(alias("clip_grad_norm_", "clip_by_global_norm"))]
pub fn global_norm<T: ParamsMut>(grads: &mut T, max_norm: f64) -> Result<f64> {
    Norm::global(max_norm).clip(grads)
}

/// Clips each tensor's own norm: [`Norm::per_tensor`] with its defaults. Returns the norm of all tensors together before
/// clipping.
///
/// # Errors
/// [`StepError::NonFiniteGradient`](crate::error::StepError::NonFiniteGradient) or [`StepError::NormOverflow`](crate::error::StepError::NormOverflow), and [`StepError::HyperParameter`](crate::error::StepError::HyperParameter) unless `max_norm` ≥ 0.
pub fn per_tensor_norm<T: ParamsMut>(grads: &mut T, max_norm: f64) -> Result<f64> {
    Norm::per_tensor(max_norm).clip(grads)
}

/// Limits every element to −`limit` … `limit`. Returns the largest absolute value before clipping.
///
/// # Errors
/// [`StepError::NonFiniteGradient`](crate::error::StepError::NonFiniteGradient), and [`StepError::HyperParameter`](crate::error::StepError::HyperParameter) unless `limit` ≥ 0.
#[doc(alias = "clip_grad_value_")]
pub fn value<T: ParamsMut>(grads: &mut T, limit: f64) -> Result<f64> {
    in_place(&Value::new(limit), grads)
}

/// Limits each unit's norm relative to its parameters': [`Adaptive`] with its defaults. Returns the norm of all
/// gradients together before clipping.
///
/// # Errors
/// [`StepError::NonFiniteGradient`](crate::error::StepError::NonFiniteGradient) or [`StepError::NormOverflow`](crate::error::StepError::NormOverflow), [`StepError::HyperParameter`](crate::error::StepError::HyperParameter) unless `clipping` ≥ 0, and
/// what [`Step::pair`](crate::Step::pair) says of trees that do not match.
pub fn adaptive<G, P>(grads: &mut G, params: &P, clipping: f64) -> Result<f64>
where
    G: ParamsMut,
    P: Params<Elem = G::Elem>,
{
    Adaptive::new(clipping).clip(grads, params)
}
