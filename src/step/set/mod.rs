//! Sets that parameters stay in: bounds, norms, the simplex, the L1 ball, or your own.
//!
//! [`OptimizerExt::project`](crate::OptimizerExt::project) moves parameters to the nearest point of a set after every step:
//!
//! ```
//! use gradus::{prelude::*, set::NonNegative};
//! use ndarray::array;
//!
//! let mut opt = Sgd::new(1.0).project("**", NonNegative);
//! let mut w = array![0.5, 0.5];
//! opt.step(&mut w, &array![0.25, 2.0])?;
//! assert_eq!(w, array![0.25, 0.0]);
//! # Ok::<(), gradus::Error>(())
//! ```
//!
//! | set | elements x of a tensor or row | nearest point |
//! |---|---|---|
//! | [`Interval`] | lower ≤ xᵢ ≤ upper | `min(max(xᵢ, lower), upper)` |
//! | [`NonNegative`] | xᵢ ≥ 0 | `max(xᵢ, 0)` |
//! | [`MaxNorm`] | ‖x‖₂ ≤ r | `x·min(1, r/‖x‖₂)` |
//! | [`UnitNorm`] | ‖x‖₂ = 1 | `x/‖x‖₂` |
//! | [`Simplex`] | xᵢ ≥ 0, Σxᵢ = s | `max(xᵢ − τ, 0)`, with τ such that the sum is s |
//! | [`L1Ball`] | Σ\|xᵢ\| ≤ r | `sign(xᵢ)·max(\|xᵢ\| − τ, 0)`, if the sum is larger than r |
//!
//! A row is one index of the first axis of a tensor with two axes or more. A vector or a number is one row.
//!
//! A closure is a set of your own; it changes the values of one tensor in place. To project rows, or to check settings, implement
//! [`Set`]:
//!
//! ```
//! use gradus::prelude::*;
//! use ndarray::{ArrayViewMutD, array};
//!
//! // Values that add up to 0.
//! let centered = |mut values: ArrayViewMutD<'_, f64>| {
//!     let mean = values.mean().unwrap_or(0.0);
//!     values -= mean;
//! };
//! let mut opt = Sgd::new(1.0).project("**", centered);
//! let mut w = array![1.0, 0.0];
//! opt.step(&mut w, &array![0.0, 0.0])?;
//! assert_eq!(w, array![0.5, -0.5]);
//! # Ok::<(), gradus::Error>(())
//! ```

mod interval;
mod l1_ball;
mod length;
mod simplex;
mod sums;

use ndarray::ArrayViewMutD;

use crate::error::{Error, Result};
use crate::params::Element;

pub use interval::{Interval, NonNegative};
pub use l1_ball::L1Ball;
pub use length::{MaxNorm, UnitNorm};
pub use simplex::Simplex;

/// A set of values that a tensor is kept in. See the [module](self) for the sets that exist, and
/// [`OptimizerExt::project`](crate::OptimizerExt::project) for their use.
///
/// A closure that takes an `ArrayViewMutD<'_, A>` is a set whose scope is the tensor.
pub trait Set<A: Element>: Send + Sync + 'static {
    /// Moves values into the set: to the nearest point, if the set is convex. Values that are in the set must stay as they are.
    ///
    /// The values are those of one row if the [scope](Self::scope) is [`Scope::Rows`], and otherwise those of one tensor. It is not called for a
    /// tensor without elements.
    fn project(&self, values: ArrayViewMutD<'_, A>);

    /// What is projected together: the tensor by default.
    fn scope(&self) -> Scope {
        Scope::Tensor
    }

    /// Returns an error if a setting is out of range. It is called before every step. The default returns `Ok`.
    ///
    /// # Errors
    /// Your own. The step is then not taken.
    fn check(&self) -> Result<()> {
        Ok(())
    }

    /// The set in `Debug` of an optimizer: the call that created it.
    fn describe(&self) -> String {
        "a set".into()
    }
}

impl<A: Element, F: Fn(ArrayViewMutD<'_, A>) + Send + Sync + 'static> Set<A> for F {
    fn project(&self, values: ArrayViewMutD<'_, A>) {
        self(values);
    }

    fn describe(&self) -> String {
        "a closure".into()
    }
}

/// What a [`Set`] projects together.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scope {
    /// Each element by itself, to the nearest number within the bounds. This is done in the pass that moves the parameters, and
    /// [`Set::project`] is not called.
    Elements {
        /// The smallest value, or −∞.
        lower: f64,
        /// The largest value, or ∞.
        upper: f64,
    },
    /// Each row by itself.
    Rows,
    /// The tensor as a whole.
    Tensor,
}

/// Limits each element. NaN stays NaN.
#[inline(always)]
pub(crate) fn limit<A: Element>(value: A, [lower, upper]: [A; 2]) -> A {
    let value = if value < lower { lower } else { value };
    if value > upper { upper } else { value }
}

/// The scope of a set that has `per_tensor` and `per_row`.
fn scope(by_row: bool) -> Scope {
    if by_row { Scope::Rows } else { Scope::Tensor }
}

/// Returns an error unless a number of a set is finite and in range.
fn ensure(argument: &'static str, value: f64, is_in_range: bool, accepted: &str) -> Result<()> {
    if is_in_range && value.is_finite() { Ok(()) } else { Err(Error::argument(argument, value, accepted)) }
}

#[cfg(test)]
mod tests {
    use super::limit;

    #[test]
    fn elements_are_limited() {
        let limited = |value: f64| limit(value, [-1.0, 2.0]);
        assert_eq!([-3.0, -1.0, 0.5, 2.0, 2.5].map(limited), [-1.0, -1.0, 0.5, 2.0, 2.0]);
        assert_eq!([f64::NEG_INFINITY, f64::INFINITY].map(limited), [-1.0, 2.0]);
        assert!(limited(f64::NAN).is_nan());
    }
}
