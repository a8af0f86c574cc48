//! Cube roots from IEEE operations, so that their bits are the same on every machine.

use num_traits::Float;

/// Numbers that have a cube root.
#[allow(unnameable_types, reason = "a bound of a sealed trait")]
pub trait CubeRoot: Float {
    /// The cube root of a number that is not negative, to 2 units in the last place.
    #[doc(hidden)]
    fn cube_root(self) -> Self;
}

/// What is added to a third of the bits of a number with an exponent bias of `bias`, in units of the exponent. Bits are nearly the logarithm; the small
/// number makes up for the mantissa, in which they are linear.
const fn added(bias: f64) -> f64 {
    bias * (2.0 / 3.0) - 0.033
}

impl CubeRoot for f32 {
    #[inline(always)]
    fn cube_root(self) -> Self {
        const ADDED: u32 = (added(127.0) * (1 << 23) as f64) as u32;
        improved(self, 2, |x| Self::from_bits((x.to_bits() / 3).wrapping_add(ADDED)))
    }
}

impl CubeRoot for f64 {
    #[inline(always)]
    fn cube_root(self) -> Self {
        // The upper half is enough, and there are SIMD instructions that divide numbers of 32 bits, but none for 64.
        const ADDED: u64 = (added(1023.0) * (1 << 20) as f64) as u64;
        improved(self, 3, |x| Self::from_bits(((x.to_bits() >> 32) / 3).wrapping_add(ADDED) << 32))
    }
}

/// The cube root from one that is a twentieth off. `near` is called for normal numbers; what it returns for NaN or infinity does not matter.
#[inline(always)]
fn improved<A: Float>(whole: A, rounds: usize, near: impl Fn(A) -> A) -> A {
    let [two, four, eight] = [1, 2, 3].map(|power| (A::one() + A::one()).powi(power));
    let (is_small, is_large) = (whole < A::min_positive_value(), whole > A::max_value() / eight);
    // The iteration adds up three numbers of this size.
    let (enlarged, reduced) = (whole * two.powi(60), whole / (eight * eight));
    let x = if is_small { enlarged } else { whole };
    let x = if is_large { reduced } else { x };
    let mut root = near(x);
    // Halley's iteration triples the number of right digits: from 1 to 4, 13 and 40.
    for _ in 0..rounds {
        let cube = root * root * root;
        root = root * ((cube + x + x) / (cube + cube + x));
    }
    let root = if is_small { root / two.powi(20) } else { root };
    let root = if is_large { root * four } else { root };
    if whole == A::zero() || whole == A::infinity() { whole } else { root }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::params::Element;

    #[test]
    fn of_numbers_of_any_size() {
        fn check<A: Element + CubeRoot>(exponents: std::ops::Range<i32>) {
            let agrees = |x: A| {
                let (found, expected) = (x.cube_root().as_f64(), x.as_f64().cbrt());
                assert!((found / expected - 1.0).abs() <= 2.0 * A::epsilon().as_f64(), "{x}: {found}, {expected}");
            };
            for exponent in exponents {
                (0..100).for_each(|i| agrees(A::from_f64((1.0 + 0.09 * f64::from(i)) * 10.0_f64.powi(exponent))));
            }
            let least = A::min_positive_value();
            for x in [A::max_value(), least, least / A::from_f64(3.0), least * A::epsilon()] {
                agrees(x);
            }
            assert_eq!([A::zero(), A::infinity()].map(A::cube_root), [A::zero(), A::infinity()]);
            assert!(A::nan().cube_root().is_nan());
        }
        check::<f32>(-37..38);
        check::<f64>(-307..308);
    }
}
