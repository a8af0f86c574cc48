//! Sums of squares, in f64.

use pulp::NullaryFnOnce;

use crate::kernel::simd;
use crate::params::Scalar;

/// Squares summed side by side, the same on every machine.
const SQUARE_LANES: usize = 8;

/// Σ x² of a slice, in f64.
pub(crate) fn sum_of_squares<A: Scalar>(values: &[A]) -> f64 {
    simd::arch().dispatch(Squares { values })
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
        lanes.iter_mut().zip(rest).for_each(|(lane, value)| *lane += square(value));
        lanes.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::sum_of_squares;

    #[test]
    fn sums_of_any_length() {
        for length in [0, 1, 7, 8, 9, 100] {
            let values: Vec<f32> = (1..=length).map(|value| value as f32).collect();
            assert_eq!(sum_of_squares(&values), f64::from(length * (length + 1) * (2 * length + 1)) / 6.0);
        }
    }
}
