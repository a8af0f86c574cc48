//! Numbers in fewer bits: bfloat16, and groups of 8-bit codes with one scale.

use crate::params::Scalar;

/// Elements that share one scale of 8-bit codes.
pub(crate) const GROUP: usize = 256;

/// A seed for the random bits of one tensor in one step; consecutive elements add 1 to it.
pub(crate) fn seed(tensor: usize, step: u64) -> u32 {
    let mix = |x: u64| (x ^ (x >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mix(mix(mix(step).wrapping_add(tensor as u64))) >> 32) as u32
}

/// 2³² over the golden ratio.
pub(crate) const GOLDEN: u32 = 0x9e37_79b9;

/// 32 random bits of one element: steps of the golden ratio from the seed.
///
/// Over all seeds every element's bits are equally likely, which is what makes rounding right on average, and over the
/// elements of one step they are spread more evenly than chance would, at the price of an addition.
#[inline(always)]
pub(crate) fn random(number: u32) -> u32 {
    number.wrapping_mul(GOLDEN)
}

#[inline(always)]
pub(super) fn as_f32<A: Scalar>(value: A) -> f32 {
    value.as_f64() as f32
}

#[inline(always)]
pub(super) fn from_f32<A: Scalar>(value: f32) -> A {
    A::from_f64(f64::from(value))
}

#[inline(always)]
pub(crate) fn widen_bf16<A: Scalar>(bits: u16) -> A {
    from_f32(f32::from_bits(u32::from(bits) << 16))
}

#[inline(always)]
pub(crate) fn nearest_bf16<A: Scalar>(value: A) -> u16 {
    let bits = as_f32(value).to_bits();
    upper_half(value, 0x7fff + ((bits >> 16) & 1))
}

/// `random` has 16 random bits.
#[inline(always)]
pub(crate) fn stochastic_bf16<A: Scalar>(value: A, random: u32) -> u16 {
    upper_half(value, random)
}

/// The upper half of the bits, after something has been added to the lower; not to those of a NaN, which could become a
/// number. The NaN of an arithmetic operation has its mark in the upper half.
#[inline(always)]
fn upper_half<A: Scalar>(value: A, add: u32) -> u16 {
    let value = as_f32(value);
    let add = if value.is_nan() { 0 } else { add };
    (value.to_bits().wrapping_add(add) >> 16) as u16
}

/// The bits of an f32's fraction that a code does not keep.
const DROPPED: u32 = 20;

/// 1.0 without the dropped bits.
const ONE: u32 = 0x3f80_0000 >> DROPPED;

/// Codes of 1.0: of magnitudes alone, and beside a sign.
const UNSIGNED: u32 = 255;
const SIGNED: u32 = 127;
const SIGN: u8 = 0x80;
pub(super) const MAGNITUDE: u32 = 0x7fff_ffff;

/// How the codes of one group are read.
#[derive(Debug, Clone, Copy)]
#[allow(unnameable_types, reason = "seen by the driver alone")]
pub struct Reader {
    scale: f32,
    sign: u32,
    offset: u32,
}

impl Reader {
    /// A negative scale says that the codes have signs.
    #[inline(always)]
    pub(crate) fn new(scale: f32) -> Self {
        let (sign, top) = if scale.is_sign_negative() { (u32::from(SIGN), SIGNED) } else { (0, UNSIGNED) };
        Self { scale: scale.abs(), sign, offset: ONE - top }
    }

    #[inline(always)]
    pub(crate) fn widen<A: Scalar>(self, code: u8) -> A {
        let code = u32::from(code);
        let sign = code & self.sign;
        let magnitude = code ^ sign;
        let size = f32::from_bits((magnitude + self.offset) << DROPPED) * self.scale;
        let size = if magnitude == 0 { 0.0 } else { size };
        from_f32(f32::from_bits(size.to_bits() | sign << 24))
    }
}

/// A group's codes from its values; returns the scale.
#[inline(always)]
pub(crate) fn narrow_group<A: Scalar>(values: &[A], codes: &mut [u8], seed: u32) -> f32 {
    /// Keeps the quotient of the largest element at or below 1, whose code is the last.
    const BELOW_1: f32 = 1.0 - f32::EPSILON;
    let (mut largest, mut signs) = (0, 0);
    for value in values {
        let bits = as_f32(*value).to_bits();
        largest = largest.max(bits & MAGNITUDE);
        signs |= bits;
    }
    if largest == 0 {
        codes.fill(0);
        return 0.0;
    }
    // The reciprocal of a smaller one would not be finite.
    let scale = f32::from_bits(largest.max(f32::MIN_POSITIVE.to_bits()));
    let inverse = BELOW_1 / scale;
    let mut random = random(seed);
    if signs & !MAGNITUDE == 0 {
        for (code, value) in codes.iter_mut().zip(values) {
            let value = as_f32(*value);
            // What is not zero stays above it: a zero second moment would make a step of any length.
            *code = if value == 0.0 { 0 } else { round(value * inverse, random, UNSIGNED, 1) as u8 };
            random = random.wrapping_add(GOLDEN);
        }
        scale
    } else {
        for (code, value) in codes.iter_mut().zip(values) {
            let value = as_f32(*value);
            let sign = (value.to_bits() >> 24) as u8 & SIGN;
            *code = round(value.abs() * inverse, random, SIGNED, 0) as u8 | sign;
            random = random.wrapping_add(GOLDEN);
        }
        -scale
    }
}

/// The code, at least `least`, of a number from 0 to 1.
#[inline(always)]
fn round(value: f32, random: u32, top: u32, least: u32) -> u32 {
    let bits = value.to_bits() + (random >> (32 - DROPPED));
    (bits >> DROPPED).max(ONE - top + least) - (ONE - top)
}
