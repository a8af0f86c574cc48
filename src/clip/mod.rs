//! Gradient clipping, as adaptors in a chain and as functions on a gradient tree.
//!
//! | what is limited | function | adaptor |
//! |---|---|---|
//! | the norm of all gradients together | [`global_norm`] | [`clip_global_norm`](crate::OptimizerExt::clip_global_norm) |
//! | the norm of each tensor | [`per_tensor_norm`] | [`clip_per_tensor_norm`](crate::OptimizerExt::clip_per_tensor_norm) |
//! | each element | [`value`] | [`clip_value`](crate::OptimizerExt::clip_value) |
//! | the norm of each unit, relative to its parameters | [`adaptive`] | [`clip_adaptive`](crate::OptimizerExt::clip_adaptive) |
//! | the logits of attention, by query and key weights | | [`qk_clip`](crate::OptimizerExt::qk_clip) |
//!
//! The functions return the norm before clipping; an adaptor puts it into the [`Report`](crate::Report). An adaptor does not write
//! gradients: the optimizer applies the factor when it reads them. The functions change the tree in place, for loops without an optimizer
//! of this crate. If they return an error, the tree is unchanged.
//!
//! Norms are summed in `f64` in a fixed order, so their bits do not depend on the number of threads or on the memory layout. A norm does
//! not overflow if the result can be represented. A factor that is not a normal number of the element type is applied in `f64`, and so is
//! every factor in 16-bit types. A limit above 0 that becomes 0 in the element type is an error in `f32` and `f64`. In 16-bit types, the
//! functions set every element to 0 then.
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
mod qk_clip;
mod value;

use crate::error::Result;
use crate::params::{Params, ParamsMut};
use in_place::in_place;

pub use adaptive::Adaptive;
#[cfg(feature = "distributed")]
pub(crate) use limits::norm_of_norms;
pub use norm::Norm;
pub use qk_clip::QkClip;
pub use value::Value;

/// Clips the norm of all gradients together, as [`Norm::global`] with its defaults. Returns the norm before clipping.
///
/// # Errors
/// [`StepError::NonFiniteGradient`](crate::error::StepError::NonFiniteGradient) or
/// [`StepError::NormOverflow`](crate::error::StepError::NormOverflow) if the norm is not finite, and
/// [`StepError::HyperParameter`](crate::error::StepError::HyperParameter) unless `max_norm` ≥ 0.
#[doc(alias("clip_grad_norm_", "clip_by_global_norm"))]
pub fn global_norm<T: ParamsMut>(grads: &mut T, max_norm: f64) -> Result<f64> {
    Norm::global(max_norm).clip(grads)
}

/// Clips the norm of each tensor, as [`Norm::per_tensor`] with its defaults. Returns the norm of all gradients together before clipping.
///
/// # Errors
/// [`StepError::NonFiniteGradient`](crate::error::StepError::NonFiniteGradient) or
/// [`StepError::NormOverflow`](crate::error::StepError::NormOverflow) if a norm is not finite, and
/// [`StepError::HyperParameter`](crate::error::StepError::HyperParameter) unless `max_norm` ≥ 0.
pub fn per_tensor_norm<T: ParamsMut>(grads: &mut T, max_norm: f64) -> Result<f64> {
    Norm::per_tensor(max_norm).clip(grads)
}

/// Limits every element to the range −`limit` to `limit`. Returns the largest absolute value before clipping.
///
/// # Errors
/// [`StepError::NonFiniteGradient`](crate::error::StepError::NonFiniteGradient), and [`StepError::HyperParameter`](crate::error::StepError::HyperParameter) unless `limit` ≥ 0.
#[doc(alias = "clip_grad_value_")]
pub fn value<T: ParamsMut>(grads: &mut T, limit: f64) -> Result<f64> {
    in_place(&Value::new(limit), grads)
}

/// Limits the norm of each unit relative to its parameters, as [`Adaptive`] with its defaults. Returns the norm of all gradients together
/// before clipping.
///
/// # Errors
/// [`StepError::NonFiniteGradient`](crate::error::StepError::NonFiniteGradient) or
/// [`StepError::NormOverflow`](crate::error::StepError::NormOverflow) if a norm is not finite,
/// [`StepError::HyperParameter`](crate::error::StepError::HyperParameter) unless `clipping` ≥ 0, and the errors of
/// [`Step::pair`](crate::Step::pair) if the trees do not match.
pub fn adaptive<G, P>(grads: &mut G, params: &P, clipping: f64) -> Result<f64>
where
    G: ParamsMut,
    P: Params<Elem = G::Elem>,
{
    Adaptive::new(clipping).clip(grads, params)
}
