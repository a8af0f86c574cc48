//! Random projections.

use ndarray::Array2;

use crate::kernel::split_mix::mixed;
use crate::params::Scalar;

/// A random number with mean 0 and variance 1: the sum of four uniform ones. It has the same bits on every machine, which a logarithm has not.
fn number(key: u64, at: u64) -> f64 {
    const VALUES: f64 = 65_536.0;
    let bits = mixed(key.wrapping_add(at));
    let sum: u64 = (0..4).map(|part| (bits >> (16 * part)) & 0xFFFF).sum();
    // The sum of four numbers from 0 to 65535 has this mean, and a variance of 4·(65536² − 1)/12.
    (sum as f64 - 2.0 * (VALUES - 1.0)) / ((VALUES * VALUES - 1.0) / 3.0).sqrt()
}

/// A matrix of random numbers with mean 0 and variance 1/columns, by seed and number. It keeps lengths on average.
pub(super) fn projection<A: Scalar>((rows, columns): (usize, usize), seed: u64, nth: u64) -> Array2<A> {
    let key = mixed(mixed(seed).wrapping_add(nth));
    let root = (columns as f64).sqrt();
    let element = |(row, column)| A::from_f64(number(key, (row * columns + column) as u64) / root);
    Array2::from_shape_fn((rows, columns), element)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_centered_and_independent() {
        let matrix = projection::<f64>((300, 100), 7, 0) * 10.0;
        let mean = |f: &dyn Fn(usize, usize) -> f64| {
            (0..300).flat_map(|i| (0..99).map(move |j| f(i, j))).sum::<f64>() / 29_700.0
        };
        // Standard errors are about 0.006 and 0.01.
        assert!(mean(&|i, j| matrix[[i, j]]).abs() < 0.03);
        assert!((mean(&|i, j| matrix[[i, j]].powi(2)) - 1.0).abs() < 0.05);
        assert!(mean(&|i, j| matrix[[i, j]] * matrix[[i, j + 1]]).abs() < 0.03);
        for other in [projection::<f64>((300, 100), 8, 0), projection((300, 100), 7, 1)] {
            assert!(mean(&|i, j| matrix[[i, j]] * other[[i, j]] * 10.0).abs() < 0.03);
        }
    }
}
