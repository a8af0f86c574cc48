//! Sums of squares and norms, in f64.

use ndarray::{ArrayRef, Dimension};
use pulp::NullaryFnOnce;

use crate::kernel::simd::{self, padded};
use crate::params::Scalar;

/// Sums of squares below this have lost digits to underflow.
pub(crate) const LEAST_SUM: f64 = 1e-280;

/// Squares summed side by side, the same on every machine.
const SQUARE_LANES: usize = 8;

/// Σ x² of a slice, in f64.
pub(crate) fn sum_of_squares<A: Scalar>(values: &[A]) -> f64 {
    simd::arch().dispatch(Squares { values })
}

/// Σ x² of an array, in f64.
pub(crate) fn squares_of<A: Scalar, D: Dimension>(values: &ArrayRef<A, D>) -> f64 {
    match values.as_slice_memory_order() {
        Some(values) => sum_of_squares(values),
        None => values.iter().map(|x| x.as_f64() * x.as_f64()).sum(),
    }
}

/// The power of two that brings a number near 1; 1 for 0 and what is not finite.
pub(crate) fn near_one(number: f64) -> f64 {
    if number == 0.0 || !number.is_finite() {
        return 1.0;
    }
    2.0_f64.powi(-number.log2().floor().clamp(-1000.0, 1000.0) as i32)
}

/// The Euclidean norm of an array, in f64.
pub(crate) fn norm<A: Scalar, D: Dimension>(values: &ArrayRef<A, D>) -> f64 {
    root(squares_of(values), values)
}

/// The Euclidean norm of an array whose sum of squares is known: its root, unless the squares have over- or underflowed.
pub(crate) fn root<A: Scalar, D: Dimension>(squares: f64, values: &ArrayRef<A, D>) -> f64 {
    if squares.is_finite() && squares > LEAST_SUM {
        return squares.sqrt();
    }
    let largest = values.iter().fold(0.0, |largest, x| x.as_f64().abs().max(largest));
    if largest == 0.0 || !largest.is_finite() {
        return largest;
    }
    let scaled = values.iter().map(|x| x.as_f64() / largest);
    largest * scaled.map(|x| x * x).sum::<f64>().sqrt()
}

/// x ← x·factor/divisor, in f64: the quotient may have no reciprocal in the type of x. Divided by 0, x becomes 0.
pub(crate) fn divide<A: Scalar, D: Dimension>(values: &mut ArrayRef<A, D>, divisor: f64, factor: f64) {
    if divisor == 0.0 {
        return values.fill(A::zero());
    }
    values.map_inplace(|x| *x = A::from_f64(x.as_f64() / divisor * factor));
}

struct Squares<'v, A> {
    values: &'v [A],
}

impl<A: Scalar> NullaryFnOnce for Squares<'_, A> {
    type Output = f64;

    #[inline(always)]
    fn call(self) -> f64 {
        let square = |value: &A| value.as_f64() * value.as_f64();
        let (chunks, rest) = self.values.as_chunks::<SQUARE_LANES>();
        let mut lanes = [0.0; SQUARE_LANES];
        for chunk in chunks {
            lanes.iter_mut().zip(chunk).for_each(|(lane, value)| *lane += square(value));
        }
        lanes.iter_mut().zip(&padded::<A, SQUARE_LANES>(rest)).for_each(|(lane, value)| *lane += square(value));
        lanes.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array2, array};

    use super::*;

    #[test]
    fn sums_of_any_length() {
        for length in [0, 1, 7, 8, 9, 100] {
            let values: Vec<f32> = (1..=length).map(|value| value as f32).collect();
            assert_eq!(sum_of_squares(&values), f64::from(length * (length + 1) * (2 * length + 1)) / 6.0);
        }
    }

    #[test]
    fn norms_of_any_size() {
        for scale in [5e-324, 1e-310, 1e-200, 1.0, 1e200, 1e307] {
            let found = norm(&array![[3.0 * scale, 0.0], [0.0, 4.0 * scale]]);
            assert!((found / scale - 5.0).abs() < 1e-14, "{scale}: {found}");
            let mut values = array![3.0 * scale, -4.0 * scale];
            divide(&mut values, found, 10.0);
            assert!((values - array![6.0, -8.0]).iter().all(|x| x.abs() < 1e-13));
        }
        assert_eq!(norm(&array![[3.0_f32, 1.0], [4.0, 1.0]].column(0)), 5.0);
        assert_eq!(norm(&Array2::<f32>::zeros((2, 0))), 0.0);
        let mut zeros = array![0.0_f32];
        divide(&mut zeros, 0.0, 1.0);
        assert_eq!(zeros, array![0.0]);
    }
}
