//! Sets of tensors or rows by their Euclidean norm.

use ndarray::{ArrayViewD, ArrayViewMutD};

use super::sums::norm;
use super::{Scope, Set, ensure, scope};
use crate::error::Result;
use crate::params::Element;

/// The Euclidean norm of values: `None` if they are all 0, or if one is not finite.
fn length<A: Element>(values: &ArrayViewD<'_, A>) -> Option<f64> {
    let largest = values.iter().fold(0.0_f64, |most, x| if x.is_nan() { f64::NAN } else { most.max(x.as_f64().abs()) });
    let is_finite = values.iter().all(|x| x.is_finite());
    (is_finite && largest > 0.0).then(|| norm(values.iter().map(|x| x.as_f64()), largest))
}

/// Multiplies values by `to/from`.
fn rescale<A: Element>(values: &mut ArrayViewMutD<'_, A>, from: f64, to: f64) {
    let factor = to / from;
    match factor.is_normal() && from.is_finite() {
        true => values.mapv_inplace(|x| A::from_f64(x.as_f64() * factor)),
        // The norm is near the end of the range of f64: in two steps that are not.
        false => values.mapv_inplace(|x| A::from_f64(x.as_f64() / from.min(f64::MAX) * to)),
    }
}

/// Euclidean norm of at most r, of each tensor or of each row.
///
/// # Projection
/// ```text
/// x ← x·min(1, r/‖x‖)
/// ```
/// Norms are computed in f64 with twice its digits, and values with a larger norm are projected to the largest norm that the element type has
/// at or below r. A tensor or row with an element that is not finite does not change. A row is one index of the first axis of a tensor with two
/// axes or more; a vector is one row.
///
/// # Errors
/// [`ArgumentError::Range`](crate::error::ArgumentError::Range) unless r ≥ 0 is finite.
///
/// # Conventions
/// optax's `projection_l2_ball(x, r)` for each tensor. Keras's `MaxNorm(r, axis=1)` for weights of the shape (out, in), without its ε.
/// PyTorch's `Embedding(max_norm=r)` with `per_row`, which PyTorch does before the rows are used and without the optimizer.
///
/// # Example
/// ```
/// use gradus::{prelude::*, set::MaxNorm};
/// use ndarray::array;
///
/// let mut opt = Sgd::new(1.0).project("**", MaxNorm::per_row(5.0));
/// let mut w = array![[6.0, 8.0], [3.0, 4.0]];
/// opt.step(&mut w, &array![[0.0, 0.0], [1.0, 0.0]])?;
/// assert_eq!(w, array![[3.0, 4.0], [2.0, 4.0]]);
/// # Ok::<(), gradus::Error>(())
/// ```
#[doc(alias("max_norm", "l2 ball", "projection_l2_ball"))]
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MaxNorm {
    radius: f64,
    by_row: bool,
}

impl MaxNorm {
    /// Limits the norm of each tensor to `radius`.
    pub fn per_tensor(radius: f64) -> Self {
        Self { radius, by_row: false }
    }

    /// Limits the norm of each row to `radius`.
    pub fn per_row(radius: f64) -> Self {
        Self { radius, by_row: true }
    }
}

impl<A: Element> Set<A> for MaxNorm {
    fn project(&self, mut values: ArrayViewMutD<'_, A>) {
        // Rounding can leave the norm an ulp above; a second step then shortens by an ulp.
        let mut aim = self.radius;
        for _ in 0..4 {
            let Some(length) = length(&values.view()).filter(|length| *length > self.radius) else { return };
            rescale(&mut values, length, aim);
            aim = self.radius * (1.0 - A::epsilon().as_f64() / 2.0);
        }
    }

    fn scope(&self) -> Scope {
        scope(self.by_row)
    }

    fn check(&self) -> Result<()> {
        ensure("radius", self.radius, self.radius >= 0.0, "a finite number ≥ 0")
    }

    fn describe(&self) -> String {
        format!("MaxNorm::{}({})", if self.by_row { "per_row" } else { "per_tensor" }, self.radius)
    }
}

/// Euclidean norm of 1, of each tensor or of each row.
///
/// # Projection
/// ```text
/// x ← x/‖x‖
/// ```
/// Norms are computed in f64 with twice its digits. A tensor or row that is 0 has no direction and does not change; nor does one with an
/// element that is not finite. A row is one index of the first axis of a tensor with two axes or more; a vector is one row.
///
/// To keep another norm, the norm that each tensor starts with, use the option [`keep_norm`](crate::rule::Elementwise::keep_norm).
///
/// # Conventions
/// optax's `projection_l2_sphere`, which divides 0 by 0. Keras's `UnitNorm(axis=1)` for weights of the shape (out, in), without its ε.
///
/// # Example
/// ```
/// use gradus::{prelude::*, set::UnitNorm};
/// use ndarray::array;
///
/// let mut opt = Sgd::new(1.0).project("**", UnitNorm::per_tensor());
/// let mut w = array![0.0, 4.0];
/// opt.step(&mut w, &array![-3.0, 0.0])?;
/// assert_eq!(w, array![0.6, 0.8]);
/// # Ok::<(), gradus::Error>(())
/// ```
#[doc(alias("unit_norm", "sphere", "l2 sphere", "projection_l2_sphere"))]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnitNorm {
    by_row: bool,
}

impl UnitNorm {
    /// Each tensor has the norm 1.
    pub fn per_tensor() -> Self {
        Self { by_row: false }
    }

    /// Each row has the norm 1.
    pub fn per_row() -> Self {
        Self { by_row: true }
    }
}

impl<A: Element> Set<A> for UnitNorm {
    fn project(&self, mut values: ArrayViewMutD<'_, A>) {
        let Some(norm) = length(&values.view()) else { return };
        if (norm - 1.0).abs() <= A::epsilon().as_f64() / 2.0 {
            return;
        }
        match norm.is_normal() {
            true => values.mapv_inplace(|x| A::from_f64(x.as_f64() / norm)),
            false => {
                // The norm has no digits, or exceeds f64: first near 1.
                let largest = values.iter().fold(0.0_f64, |most, x| most.max(x.as_f64().abs()));
                values.mapv_inplace(|x| A::from_f64(x.as_f64() / largest));
                Set::project(self, values);
            }
        }
    }

    fn scope(&self) -> Scope {
        scope(self.by_row)
    }

    fn describe(&self) -> String {
        format!("UnitNorm::{}()", if self.by_row { "per_row" } else { "per_tensor" })
    }
}
