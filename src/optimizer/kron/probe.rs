//! The random numbers with which Kron learns.

use std::f64::consts::TAU;
use std::fmt;
use std::sync::Arc;

use ndarray::Array2;

use crate::kernel::split_mix::mixed;
use crate::params::Scalar;

/// The numbers of the probe, a matrix of the gradient's shape, that [`Kron`](crate::optimizer::Kron) compares the gradient with in each update.
///
/// The default draws from the standard normal distribution, with the same bits on every machine. The numbers are a function of the [`seed`](crate::optimizer::Kron::seed), the tensor's step and the
/// element, so they are not part of the state, and a resumed run draws the same ones. Tensors that have taken equally many steps have the same numbers,
/// which does not matter because each learns by itself. Your own function gets the tensor's path, its step, which starts at 1, and the element's
/// number in row-major order. Its numbers must be finite, independent, of mean 0 and variance 1; an update with a number that is not finite is left out.
///
/// ```
/// use gradus::{optimizer::{Kron, KronProbe}, prelude::*};
///
/// // Signs instead of normal numbers.
/// let signs = |_: &str, step: u64, element: usize| if (step ^ element as u64).count_ones() % 2 == 0 { 1.0 } else { -1.0 };
/// let opt = Kron::<f32>::new(3e-4).probe(KronProbe::from_fn(signs));
/// assert_eq!(format!("{opt:?}"), "Kron(learning_rate: 0.0003, probe: from_fn)");
/// ```
#[derive(Clone, Default)]
pub struct KronProbe(Option<Arc<Probe>>);

/// Path, step and element to a number.
type Probe = dyn Fn(&str, u64, usize) -> f64 + Send + Sync;

impl KronProbe {
    /// Normal numbers, which is the default.
    pub fn normal() -> Self {
        Self(None)
    }

    /// The numbers that a function of path, step and element returns.
    pub fn from_fn(numbers: impl Fn(&str, u64, usize) -> f64 + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(numbers)))
    }

    /// The probe of a tensor at its step, for a gradient with these rows and columns.
    pub(super) fn matrix<A: Scalar>(&self, seed: u64, path: &str, step: u64, shape: (usize, usize)) -> Array2<A> {
        let stream = mixed(mixed(seed) ^ step);
        let number = |element| match &self.0 {
            Some(own) => own(path, step, element),
            None => normal(stream, element as u64),
        };
        let mut elements = 0..;
        Array2::from_shape_simple_fn(shape, || A::from_f64(elements.next().map_or(0.0, number)))
    }
}

impl fmt::Debug for KronProbe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "from_fn" } else { "normal" })
    }
}

/// A number of the standard normal distribution, by Box and Muller's formula. Logarithm and cosine of `libm` have the same bits on every machine.
fn normal(stream: u64, element: u64) -> f64 {
    // In (0, 1], because the logarithm of 0 is not finite.
    let uniform = |at: u64| ((mixed(stream ^ mixed(at)) >> 11) + 1) as f64 / (1_u64 << 53) as f64;
    let (radius, angle) = (uniform(2 * element), uniform(2 * element + 1));
    (-2.0 * libm::log(radius)).sqrt() * libm::cos(TAU * angle)
}

/// A probe is code: a configuration cannot have one, and says so.
#[cfg(feature = "config")]
impl<'de> serde::Deserialize<'de> for KronProbe {
    fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Err(serde::de::Error::custom("a probe is code, which no file has: call `probe` on the optimizer"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe(seed: u64, step: u64, side: usize) -> Array2<f64> {
        KronProbe::normal().matrix(seed, "w", step, (side, side))
    }

    /// Exact bits, which a logarithm of the platform need not have.
    #[test]
    fn numbers_are_the_same_on_every_machine() {
        let draws = probe(7, 1, 64);
        let hash = draws.iter().fold(0, |hash, x: &f64| mixed(hash ^ x.to_bits()));
        assert_eq!(hash, 0xe7cc_c5dc_3692_82d2);
    }

    /// Mean, variance and fourth moment of a normal distribution, and no correlation between neighbors, steps and seeds.
    #[test]
    fn numbers_are_normal_and_independent() {
        let draws = probe(7, 1, 320);
        let count = draws.len() as f64;
        let mean = |power: i32| draws.mapv(|x| x.powi(power)).sum() / count;
        // Six standard deviations of each mean.
        assert!(mean(1).abs() < 6.0 / count.sqrt(), "{}", mean(1));
        assert!((mean(2) - 1.0).abs() < 6.0 * (2.0 / count).sqrt(), "{}", mean(2));
        assert!((mean(4) - 3.0).abs() < 6.0 * (96.0 / count).sqrt(), "{}", mean(4));
        let shifted = draws.iter().zip(draws.iter().skip(1)).map(|(a, b)| a * b).sum::<f64>() / count;
        assert!(shifted.abs() < 6.0 / count.sqrt(), "{shifted}");
        for other in [probe(7, 2, 320), probe(8, 1, 320)] {
            let product = (&draws * &other).sum() / count;
            assert!(product.abs() < 6.0 / count.sqrt(), "{product}");
        }
        assert_eq!(draws, probe(7, 1, 320));
    }
}
