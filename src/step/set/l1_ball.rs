//! The L1 ball: absolute values whose sum is limited.

use ndarray::ArrayViewMutD;

use super::simplex::{finite, threshold, write};
use super::sums::sum;
use super::{Scope, Set, ensure, scope};
use crate::error::Result;
use crate::params::Element;

/// The L1 ball: the sum of absolute values is at most r, of each tensor or of each row. Projected weights are sparse.
///
/// # Projection
/// ```text
/// x ← sign(x)·max(|x| − τ, 0)        if Σ|x| > r, with τ such that Σ|x| = r
/// ```
/// As in [`Simplex`](super::Simplex), τ is computed in f64 and the rest that rounding leaves is added to the largest element. A tensor or row with an
/// element that is not finite does not change. A row is one index of the first axis of a tensor with two axes or more; a vector is one row.
///
/// # Errors
/// [`ArgumentError::Range`](crate::error::ArgumentError::Range) unless r ≥ 0 is finite.
///
/// # Conventions
/// optax's `projection_l1_ball(x, r)` for each tensor.
///
/// # Example
/// ```
/// use gradus::{prelude::*, set::L1Ball};
/// use ndarray::array;
///
/// let mut opt = Sgd::new(1.0).project("**", L1Ball::per_tensor(1.0));
/// let mut w = array![0.5, 0.0, 0.0];
/// opt.step(&mut w, &array![-0.75, 0.75, 0.25])?; // [1.25, −0.75, −0.25]
/// assert_eq!(w, array![0.75, -0.25, 0.0]);
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// # References
/// J. Duchi, S. Shalev-Shwartz, Y. Singer and T. Chandra, *Efficient Projections onto the ℓ₁-Ball for Learning in High Dimensions* (2008),
/// sec. 4.
#[doc(alias("lasso", "projection_l1_ball"))]
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct L1Ball {
    radius: f64,
    by_row: bool,
}

impl L1Ball {
    /// Limits the sum of absolute values of each tensor to `radius`.
    pub fn per_tensor(radius: f64) -> Self {
        Self { radius, by_row: false }
    }

    /// Limits the sum of absolute values of each row to `radius`.
    pub fn per_row(radius: f64) -> Self {
        Self { radius, by_row: true }
    }
}

impl<A: Element> Set<A> for L1Ball {
    fn project(&self, mut values: ArrayViewMutD<'_, A>) {
        let largest = self.radius * (1.0 + A::epsilon().as_f64() / 2.0);
        if sum(values.iter().map(|x| x.as_f64().abs())).value() <= largest {
            return;
        }
        let Some(mut all) = finite(&values) else { return };
        if self.radius == 0.0 {
            return values.fill(A::zero());
        }
        all.iter_mut().for_each(|x| *x = x.abs());
        threshold(&mut all, self.radius);
        write(&mut values, &all, self.radius, A::signum);
    }

    fn scope(&self) -> Scope {
        scope(self.by_row)
    }

    fn check(&self) -> Result<()> {
        ensure("radius", self.radius, self.radius >= 0.0, "a finite number ≥ 0")
    }

    fn describe(&self) -> String {
        format!("L1Ball::{}({})", if self.by_row { "per_row" } else { "per_tensor" }, self.radius)
    }
}
