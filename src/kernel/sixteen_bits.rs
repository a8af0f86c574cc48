//! Numbers of 16 bits, rounded from f32.

use half::{bf16, f16};

use super::split_mix::mixed;
use crate::params::Element;

/// An element type of 16 bits: `half::bf16` or `half::f16`. The trait is sealed.
#[diagnostic::on_unimplemented(
    message = "`{Self}` has not 16 bits",
    note = "`stochastic_rounding` and `kahan` are for parameters in `half::bf16` and `half::f16`"
)]
#[allow(unnameable_types, reason = "the types of a sealed trait")]
pub trait SixteenBits: Element {
    /// The same number, wider.
    #[doc(hidden)]
    fn widen(self) -> f32;

    /// The nearest number, ties to even.
    #[doc(hidden)]
    fn nearest(value: f32) -> Self;

    /// One of the two numbers next to it, with probabilities that make it right on average; itself, if it has 16 bits.
    #[doc(hidden)]
    fn stochastic(value: f32, random: u32) -> Self;
}

impl SixteenBits for bf16 {
    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }

    #[inline(always)]
    fn nearest(value: f32) -> Self {
        Self::from_bits(super::narrow::nearest_bf16(value))
    }

    #[inline(always)]
    fn stochastic(value: f32, random: u32) -> Self {
        Self::from_bits(super::narrow::stochastic_bf16(value, random >> 16))
    }
}

impl SixteenBits for f16 {
    #[inline(always)]
    fn widen(self) -> f32 {
        self.to_f32()
    }

    #[inline(always)]
    fn nearest(value: f32) -> Self {
        Self::from_f32(value)
    }

    #[inline(always)]
    fn stochastic(value: f32, random: u32) -> Self {
        /// The bits of an f32's fraction that an f16 does not have.
        const DROPPED: u32 = 13;
        /// The smallest number with all bits of the fraction; below it all numbers have the same distance.
        const NORMAL: f32 = 1.0 / 16384.0;
        const DISTANCE: f32 = NORMAL / 1024.0;
        if value.is_nan() {
            return Self::NAN;
        }
        let size = value.abs();
        let rounded = match size < NORMAL {
            true => {
                // As many bits as leave the sum exact.
                let fraction = (random >> (32 - DROPPED)) as f32 / (1 << DROPPED) as f32;
                (size / DISTANCE + fraction).floor() * DISTANCE
            }
            false => f32::from_bits((size.to_bits() + (random >> (32 - DROPPED))) >> DROPPED << DROPPED),
        };
        // The largest number has no neighbor above; what is nearest to it stays finite.
        let rounded = if size.is_finite() && rounded > Self::MAX.to_f32() { size } else { rounded };
        Self::from_f32(rounded.copysign(value))
    }
}

/// The random bits of the elements of one tensor in one step: a function of seed, step, path and element alone.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RandomBits {
    first: u32,
    second: u32,
}

impl RandomBits {
    /// `tensor` is a digest of the tensor's path.
    pub(crate) fn new(seed: u64, step: u64, tensor: u64) -> Self {
        let key = mixed(mixed(mixed(seed).wrapping_add(step)).wrapping_add(tensor));
        Self { first: key as u32, second: (key >> 32) as u32 }
    }

    /// 32 bits of the element of this index in row-major order.
    #[inline(always)]
    pub(crate) fn of(self, element: usize) -> u32 {
        // C. Wellons' hash of 32 bits, with a key before each multiplication.
        let bits = (element as u32).wrapping_mul(super::narrow::GOLDEN) ^ self.first;
        let bits = (bits ^ (bits >> 16)).wrapping_mul(0x21f0_aaad) ^ self.second;
        let bits = (bits ^ (bits >> 15)).wrapping_mul(0xd35a_2d97);
        bits ^ (bits >> 15)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What 16 bits can say stays, whatever the random bits; nothing leaves its two neighbors.
    #[test]
    fn stochastic_rounding_goes_to_a_neighbor() {
        let largest = [65504.0, 65510.0, -65510.0, 65519.0].map(|value| f16::stochastic(value, u32::MAX).widen());
        assert_eq!(largest, [65504.0, 65504.0, -65504.0, 65504.0]);
        assert_eq!(f16::stochastic(65520.0, u32::MAX), f16::INFINITY);
        fn check<H: SixteenBits>(values: &[f32]) {
            for random in [0, 1, 0x7fff_ffff, 0x8000_0000, u32::MAX] {
                for value in values {
                    let exact = H::nearest(*value);
                    assert_eq!(H::stochastic(exact.widen(), random), exact, "{value}");
                    let rounded = H::stochastic(*value, random).widen();
                    let spacing = (exact.widen() * H::epsilon().widen())
                        .abs()
                        .max(H::min_positive_value().widen() * H::epsilon().widen());
                    assert!((rounded - value).abs() < 2.0 * spacing, "{value} became {rounded}");
                    assert!(rounded.is_sign_negative() == value.is_sign_negative());
                }
            }
            assert!(H::stochastic(f32::NAN, u32::MAX).is_nan());
            assert_eq!(H::stochastic(f32::NEG_INFINITY, u32::MAX), H::neg_infinity());
        }
        check::<bf16>(&[1.0, -1.001, 3.3e-39, 0.0, 1e30, -0.7]);
        check::<f16>(&[1.0, -1.001, 3.3e-6, 6.1e-5, -1e-8, 0.0, 60_000.0, -0.7]);
    }

    /// The mean over elements, over steps and over tensors is the number: χ² of the sums against the binomial's.
    #[test]
    fn stochastic_rounding_is_right_on_average() {
        fn check<H: SixteenBits>(value: f32, spacing: f32) {
            const COUNT: usize = 1 << 16;
            let below = (value / spacing).floor() * spacing;
            let up = f64::from((value - below) / spacing);
            let each: [fn(usize) -> (RandomBits, usize); 3] = [
                |i| (RandomBits::new(1, 2, 3), i),
                |i| (RandomBits::new(1, i as u64, 3), 5),
                |i| (RandomBits::new(1, 2, i as u64), 5),
            ];
            for random in each {
                let rounded = (0..COUNT).map(|i| {
                    let (bits, element) = random(i);
                    H::stochastic(value, bits.of(element)).widen()
                });
                let ups = rounded.filter(|rounded| *rounded > value).count() as f64;
                let (expected, variance) = (COUNT as f64 * up, COUNT as f64 * up * (1.0 - up));
                // One degree of freedom: 16 is four standard deviations.
                assert!((ups - expected).powi(2) / variance < 16.0, "{value}: {ups} of {expected}");
            }
        }
        check::<bf16>(1.001, 2.0_f32.powi(-7));
        check::<bf16>(1.006, 2.0_f32.powi(-7));
        check::<f16>(1.0003, 2.0_f32.powi(-10));
        check::<f16>(1.23e-6, 2.0_f32.powi(-24));
    }

    /// Neighboring elements, steps and tensors have bits of their own: no two of 16 are equal more often than by chance.
    #[test]
    fn random_bits_do_not_depend_on_each_other() {
        const COUNT: u64 = 1 << 14;
        let pairs: [fn(u64) -> [u32; 2]; 3] = [
            |i| [RandomBits::new(7, 1, 2).of(i as usize), RandomBits::new(7, 1, 2).of(i as usize + 1)],
            |i| [RandomBits::new(7, 1, 2).of(i as usize), RandomBits::new(7, 2, 2).of(i as usize)],
            |i| [RandomBits::new(7, 1, 2).of(i as usize), RandomBits::new(8, 1, 2).of(i as usize)],
        ];
        for pair in pairs {
            // The correlation of the upper bits, as fractions around 0: its standard deviation is 1/√n.
            let fraction = |bits: u32| f64::from(bits) / f64::from(u32::MAX) - 0.5;
            let products = (0..COUNT).map(|i| pair(i).map(fraction)).map(|[one, other]| 12.0 * one * other);
            let correlation = products.sum::<f64>() / COUNT as f64;
            assert!(correlation.abs() < 4.0 / (COUNT as f64).sqrt(), "{correlation}");
        }
    }
}
