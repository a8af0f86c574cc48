//! The simplex: values that are at least 0 and have a given sum.

use ndarray::ArrayViewMutD;

use super::sums::{Sum, sum};
use super::{Scope, Set, ensure, scope};
use crate::error::Result;
use crate::params::Element;

/// The simplex: every element is at least 0 and the sum is s, of each tensor or of each row. With s = 1 these are probabilities, or the weights of
/// a mixture.
///
/// # Projection
/// ```text
/// x ← max(x − τ, 0)        τ such that Σx = s
/// ```
/// The threshold τ is found by sorting. It is computed in f64, and the rest that rounding leaves is added to the largest element, so that the sum is
/// s to the last bit of that element. A tensor or row with an element that is not finite does not change. A row is one index of the first axis
/// of a tensor with two axes or more; a vector is one row.
///
/// # Hyper-parameters
/// | name | default | range | meaning |
/// |---|---|---|---|
/// | [`scale`](Self::scale) s | 1 | > 0 | the sum of the elements |
///
/// # Errors
/// [`ArgumentError::Range`](crate::error::ArgumentError::Range) for `scale`.
///
/// # Conventions
/// optax's `projection_simplex(x, s)` for each tensor.
///
/// # Example
/// ```
/// use gradus::{prelude::*, set::Simplex};
/// use ndarray::array;
///
/// let mut opt = Sgd::new(1.0).project("**", Simplex::per_tensor());
/// let mut w = array![0.5, 0.25, 0.25];
/// opt.step(&mut w, &array![-0.25, 0.0, 1.0])?; // [0.75, 0.25, −0.75]
/// assert_eq!(w, array![0.75, 0.25, 0.0]);
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// # References
/// J. Duchi, S. Shalev-Shwartz, Y. Singer and T. Chandra, *Efficient Projections onto the ℓ₁-Ball for Learning in High Dimensions* (2008),
/// fig. 1.
#[doc(alias("probability simplex", "projection_simplex"))]
#[must_use = "pass it to `project`"]
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Simplex {
    scale: f64,
    by_row: bool,
}

impl Simplex {
    /// Each tensor has the sum 1.
    pub fn per_tensor() -> Self {
        Self { scale: 1.0, by_row: false }
    }

    /// Each row has the sum 1.
    pub fn per_row() -> Self {
        Self { scale: 1.0, by_row: true }
    }

    /// Sets the sum of the elements.
    pub fn scale(self, scale: f64) -> Self {
        Self { scale, ..self }
    }
}

impl<A: Element> Set<A> for Simplex {
    fn project(&self, mut values: ArrayViewMutD<'_, A>) {
        if values.iter().all(|x| *x >= A::zero() && x.is_finite()) && is_sum_of(&values, self.scale) {
            return;
        }
        let Some(mut all) = finite(&values) else { return };
        threshold(&mut all, self.scale);
        write(&mut values, &all, self.scale, |_| A::one());
    }

    fn scope(&self) -> Scope {
        scope(self.by_row)
    }

    fn check(&self) -> Result<()> {
        ensure("scale", self.scale, self.scale > 0.0, "a finite number > 0")
    }

    fn describe(&self) -> String {
        let scale = if self.scale == 1.0 { String::new() } else { format!(".scale({})", self.scale) };
        format!("Simplex::{}(){scale}", if self.by_row { "per_row" } else { "per_tensor" })
    }
}

/// The absolute values as f64, or `None` unless all are finite. For values ≥ 0 these are the values.
pub(super) fn finite<A: Element>(values: &ArrayViewMutD<'_, A>) -> Option<Vec<f64>> {
    values.iter().map(|x| Some(x.as_f64()).filter(|x| x.is_finite())).collect()
}

/// Whether the absolute values have this sum, as near as the element type can tell.
fn is_sum_of<A: Element>(values: &ArrayViewMutD<'_, A>, scale: f64) -> bool {
    (sum(values.iter().map(|x| x.as_f64().abs())).value() - scale).abs() <= scale * A::epsilon().as_f64() / 2.0
}

/// Replaces values by max(x − τ, 0), where τ is such that they have this sum.
pub(super) fn threshold(values: &mut [f64], scale: f64) {
    let largest = values.iter().fold(f64::NEG_INFINITY, |most, x| most.max(*x));
    // Values that are that far below the largest one become 0. The others are taken relative to it, so that no digits cancel.
    values.iter_mut().for_each(|x| *x = (*x - largest).max(-2.0 * scale));
    let mut sorted: Vec<f64> = values.iter().copied().filter(|x| *x > -scale).collect();
    sorted.sort_unstable_by(|a, b| b.total_cmp(a));
    let (mut total, mut tau) = (Sum { high: -scale, low: 0.0 }, -scale);
    for (count, x) in sorted.iter().enumerate() {
        total = total.plus(*x);
        let own = total.value() / (count + 1) as f64;
        if *x <= own {
            break;
        }
        tau = own;
    }
    values.iter_mut().for_each(|x| *x = (*x - tau).max(0.0));
}

/// Writes values ≥ 0 over elements, `sign` times each, and adds to the largest what is missing of the sum.
pub(super) fn write<A: Element>(to: &mut ArrayViewMutD<'_, A>, values: &[f64], scale: f64, sign: impl Fn(A) -> A) {
    let (mut largest, mut total) = (f64::NEG_INFINITY, Sum::default());
    let mut place = None;
    for (to, value) in to.iter_mut().zip(values) {
        let value = A::from_f64(*value);
        *to = sign(*to) * value;
        total = total.plus(value.as_f64());
        if value.as_f64() > largest {
            (largest, place) = (value.as_f64(), Some(to));
        }
    }
    if let Some(to) = place {
        // A sum that is exact is not touched: 0 is added.
        let missing = total.plus(-scale);
        *to = sign(*to) * A::from_f64((largest - missing.value()).max(0.0));
    }
}
