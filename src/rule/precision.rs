//! State slots in fewer bits than the arithmetic has.

use pulp::Arch;

use super::lanes::MAX_SLOTS;
use crate::scalar::Scalar;

/// Elements that share one scale of 8-bit state.
pub(super) const GROUP: usize = 256;

/// Tensors with fewer elements than this keep their state in full: there is nothing to gain.
const LEAST_ELEMENTS: usize = 4096;

/// How the state slots of an optimizer are stored. The arithmetic is the same: blocks are widened in the cache, updated
/// and narrowed again.
///
/// | | bytes a slot and parameter | relative spacing | range |
/// |---|---|---|---|
/// | `Full` | 4 (f32), 8 (f64) | 2⁻²⁴, 2⁻⁵³ | all |
/// | `Bf16` | 2 | 2⁻⁸ | that of f32 |
/// | `Blockwise8` | 1 + 4/256 | 2⁻³ | the largest of 256 elements × 2⁻³² … 1 (2⁻¹⁶ … 1 where signs are mixed) |
///
/// `Blockwise8` stores a scale for each group of 256 elements and for each element a floating-point number of 8 bits: an
/// exponent of 5 bits and a fraction of 3 where the group has no negative element (second moments), a sign, an exponent
/// of 4 and a fraction of 3 where it has. It rounds stochastically. Tensors of fewer than 4,096 elements keep full
/// state.
///
/// The random bits of stochastic rounding are a hash of step, tensor and element: runs repeat to the last bit, on any
/// number of threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StatePrecision {
    /// The parameters' own type.
    #[default]
    Full,
    /// bfloat16: the upper half of an f32.
    Bf16(Rounding),
    /// 8 bits an element, and a scale for every 256.
    Blockwise8,
}

/// How a number is brought to fewer bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Rounding {
    /// Up or down at random, the nearer the likelier: right on average, so that changes much smaller than the spacing,
    /// like those of a slow moving average, are not lost.
    #[default]
    Stochastic,
    /// To the nearest number; of two equally near, to the even one.
    Nearest,
}

/// One stored slot of one tensor.
#[derive(Debug, Clone)]
pub(super) enum Slot<A> {
    Full(Vec<A>),
    Bf16(Vec<u16>, Rounding),
    Blockwise8 { codes: Vec<u8>, scales: Vec<f32> },
}

/// A range of a stored slot.
pub(super) enum SlotMut<'s, A> {
    Full(&'s mut [A]),
    Bf16(&'s mut [u16], Rounding),
    Blockwise8 { codes: &'s mut [u8], scales: &'s mut [f32] },
}

impl<A> Default for Slot<A> {
    fn default() -> Self {
        Self::Full(Vec::new())
    }
}

impl<A> Default for SlotMut<'_, A> {
    fn default() -> Self {
        Self::Full(&mut [])
    }
}

impl<A: Scalar> Slot<A> {
    /// A slot of zeros.
    pub(super) fn zeros(elements: usize, precision: StatePrecision) -> Self {
        match precision {
            StatePrecision::Bf16(rounding) if elements >= LEAST_ELEMENTS => Self::Bf16(vec![0; elements], rounding),
            StatePrecision::Blockwise8 if elements >= LEAST_ELEMENTS => {
                Self::Blockwise8 { codes: vec![0; elements], scales: vec![0.0; elements.div_ceil(GROUP)] }
            }
            _ => Self::Full(vec![A::zero(); elements]),
        }
    }

    pub(super) fn as_mut(&mut self) -> SlotMut<'_, A> {
        match self {
            Self::Full(values) => SlotMut::Full(values),
            Self::Bf16(values, rounding) => SlotMut::Bf16(values, *rounding),
            Self::Blockwise8 { codes, scales } => SlotMut::Blockwise8 { codes, scales },
        }
    }

    /// The values, widened.
    pub(super) fn values(&self) -> Vec<A> {
        match self {
            Self::Full(values) => values.clone(),
            Self::Bf16(values, _) => values.iter().map(|bits| widen_bf16(*bits)).collect(),
            Self::Blockwise8 { codes, scales } => {
                let mut out = vec![A::zero(); codes.len()];
                for ((out, codes), scale) in out.chunks_mut(GROUP).zip(codes.chunks(GROUP)).zip(scales) {
                    widen_group(codes, *scale, out);
                }
                out
            }
        }
    }

    /// The bytes that the slot takes.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Full(values) => size_of_val(&values[..]),
            Self::Bf16(values, _) => size_of_val(&values[..]),
            Self::Blockwise8 { codes, scales } => codes.len() + size_of_val(&scales[..]),
        }
    }
}

impl<'s, A: Scalar> SlotMut<'s, A> {
    /// The first `at` elements and the others. Where elements share scales, `at` must be a multiple of [`GROUP`].
    pub(super) fn split_at(self, at: usize) -> (Self, Self) {
        match self {
            Self::Full([]) => Default::default(),
            Self::Full(values) => {
                let (left, right) = values.split_at_mut(at);
                (Self::Full(left), Self::Full(right))
            }
            Self::Bf16(values, rounding) => {
                let (left, right) = values.split_at_mut(at);
                (Self::Bf16(left, rounding), Self::Bf16(right, rounding))
            }
            Self::Blockwise8 { codes, scales } => {
                let (left, right) = codes.split_at_mut(at);
                let (left_scales, right_scales) = scales.split_at_mut(at.div_ceil(GROUP));
                let right = Self::Blockwise8 { codes: right, scales: right_scales };
                (Self::Blockwise8 { codes: left, scales: left_scales }, right)
            }
        }
    }

    /// Widens `out.len()` elements from element `at`, a multiple of [`GROUP`], into `out`.
    pub(super) fn load(&self, arch: Arch, at: usize, out: &mut [A]) {
        let range = at..at + out.len();
        match self {
            Self::Full(values) => out.copy_from_slice(&values[range]),
            Self::Bf16(values, _) => arch.dispatch(
                #[inline(always)]
                || out.iter_mut().zip(&values[range]).for_each(|(out, bits)| *out = widen_bf16(*bits)),
            ),
            Self::Blockwise8 { codes, scales } => arch.dispatch(
                #[inline(always)]
                || {
                    let groups = out.chunks_mut(GROUP).zip(codes[range].chunks(GROUP)).zip(&scales[at / GROUP..]);
                    groups.for_each(|((out, codes), scale)| widen_group(codes, *scale, out));
                },
            ),
        }
    }

    /// Narrows `values` to the elements from `at`, a multiple of [`GROUP`]. `seed` belongs to the first.
    pub(super) fn store(&mut self, arch: Arch, at: usize, values: &[A], seed: u32) {
        let range = at..at + values.len();
        match self {
            Self::Full(own) => own[range].copy_from_slice(values),
            Self::Bf16(own, Rounding::Nearest) => arch.dispatch(
                #[inline(always)]
                || own[range].iter_mut().zip(values).for_each(|(own, value)| *own = nearest_bf16(as_f32(*value))),
            ),
            Self::Bf16(own, Rounding::Stochastic) => arch.dispatch(
                #[inline(always)]
                || {
                    for ((own, value), number) in own[range].iter_mut().zip(values).zip(0_u32..) {
                        *own = stochastic_bf16(as_f32(*value), hash(seed.wrapping_add(number)));
                    }
                },
            ),
            Self::Blockwise8 { codes, scales } => arch.dispatch(
                #[inline(always)]
                || {
                    let scales = &mut scales[at / GROUP..];
                    let groups = codes[range].chunks_mut(GROUP).zip(values.chunks(GROUP)).zip(scales);
                    for (((codes, values), scale), number) in groups.zip(0_u32..) {
                        *scale = narrow_group(values, codes, seed.wrapping_add(number * GROUP as u32));
                    }
                },
            ),
        }
    }
}

/// A seed for the random bits of one slot of one tensor in one step; consecutive elements add 1 to it.
pub(super) fn seed(tensor: usize, step: u64, slot: usize) -> u32 {
    let mixed = (step.wrapping_mul(MAX_SLOTS as u64) + slot as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    hash((mixed >> 32) as u32 ^ (tensor as u32).wrapping_mul(0x85eb_ca6b))
}

/// 32 bits that look random (the finaliser of MurmurHash3).
#[inline(always)]
fn hash(mut x: u32) -> u32 {
    x ^= x >> 16;
    x = x.wrapping_mul(0x85eb_ca6b);
    x ^= x >> 13;
    x = x.wrapping_mul(0xc2b2_ae35);
    x ^ (x >> 16)
}

#[inline(always)]
fn as_f32<A: Scalar>(value: A) -> f32 {
    value.as_f64() as f32
}

#[inline(always)]
fn from_f32<A: Scalar>(value: f32) -> A {
    A::from_f64(f64::from(value))
}

#[inline(always)]
fn widen_bf16<A: Scalar>(bits: u16) -> A {
    from_f32(f32::from_bits(u32::from(bits) << 16))
}

/// A quiet NaN: adding to the bits of another could make a number of it.
const NAN: u16 = 0x7fc0;

#[inline(always)]
fn nearest_bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    let rounded = (bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16) as u16;
    if value.is_nan() { NAN } else { rounded }
}

#[inline(always)]
fn stochastic_bf16(value: f32, random: u32) -> u16 {
    let rounded = (value.to_bits().wrapping_add(random >> 16) >> 16) as u16;
    if value.is_nan() { NAN } else { rounded }
}

/// The bits of an f32's fraction that a code does not keep.
const DROPPED: u32 = 20;

/// 1.0 without the dropped bits.
const ONE: u32 = 0x3f80_0000 >> DROPPED;

/// Codes of 1.0: of magnitudes alone, and beside a sign.
const UNSIGNED: u32 = 255;
const SIGNED: u32 = 127;
const SIGN: u8 = 0x80;

/// A group's values from its codes. A negative scale says that the codes have signs.
#[inline(always)]
fn widen_group<A: Scalar>(codes: &[u8], scale: f32, out: &mut [A]) {
    if scale.is_sign_negative() {
        let scale = -scale;
        for (out, code) in out.iter_mut().zip(codes) {
            let magnitude = u32::from(code & !SIGN);
            let size = f32::from_bits((magnitude + (ONE - SIGNED)) << DROPPED) * scale;
            let size = if magnitude == 0 { 0.0 } else { size };
            *out = from_f32(if code & SIGN == 0 { size } else { -size });
        }
    } else {
        for (out, code) in out.iter_mut().zip(codes) {
            let size = f32::from_bits((u32::from(*code) + (ONE - UNSIGNED)) << DROPPED) * scale;
            *out = from_f32(if *code == 0 { 0.0 } else { size });
        }
    }
}

/// A group's codes from its values; returns the scale.
#[inline(always)]
fn narrow_group<A: Scalar>(values: &[A], codes: &mut [u8], seed: u32) -> f32 {
    const MAGNITUDE: u32 = 0x7fff_ffff;
    /// Keeps the reciprocal of a tiny scale finite.
    const TINY: f32 = 1e-30;
    const LARGE: f32 = (1_u128 << 100) as f32;
    let (mut largest, mut signs) = (0, 0);
    for value in values {
        let bits = as_f32(*value).to_bits();
        largest = largest.max(bits & MAGNITUDE);
        signs |= if bits & MAGNITUDE == 0 { 0 } else { bits };
    }
    let scale = f32::from_bits(largest);
    if scale == 0.0 {
        codes.fill(0);
        return 0.0;
    }
    let lift = if scale < TINY { LARGE } else { 1.0 };
    let inverse = 1.0 / (scale * lift);
    let rounded = |value: f32, number: u32, top: u32| {
        let bits =
            (value.abs() * lift * inverse).to_bits().wrapping_add(hash(seed.wrapping_add(number)) >> (32 - DROPPED));
        (bits >> DROPPED).saturating_sub(ONE - top).min(top)
    };
    if signs & !MAGNITUDE == 0 {
        for ((code, value), number) in codes.iter_mut().zip(values).zip(0_u32..) {
            let value = as_f32(*value);
            // What is not zero stays above it: a zero second moment would make a step of any length.
            *code = rounded(value, number, UNSIGNED).max(u32::from(value != 0.0)) as u8;
        }
        scale
    } else {
        for ((code, value), number) in codes.iter_mut().zip(values).zip(0_u32..) {
            let value = as_f32(*value);
            let sign = if value < 0.0 { SIGN } else { 0 };
            *code = rounded(value, number, SIGNED) as u8 | sign;
        }
        -scale
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [StatePrecision; 3] = [
        StatePrecision::Bf16(Rounding::Nearest),
        StatePrecision::Bf16(Rounding::Stochastic),
        StatePrecision::Blockwise8,
    ];

    /// The largest relative distance of neighbouring numbers.
    fn spacing(precision: StatePrecision) -> f64 {
        match precision {
            StatePrecision::Full => 0.0,
            StatePrecision::Bf16(Rounding::Nearest) => 2.0_f64.powi(-8),
            StatePrecision::Bf16(Rounding::Stochastic) => 2.0_f64.powi(-7),
            StatePrecision::Blockwise8 => 2.0_f64.powi(-3),
        }
    }

    fn round_trip<A: Scalar>(values: &[A], precision: StatePrecision, seed: u32) -> Vec<A> {
        let mut padded = values.to_vec();
        padded.resize(LEAST_ELEMENTS.max(values.len()), A::zero());
        let mut slot = Slot::zeros(padded.len(), precision);
        slot.as_mut().store(Arch::new(), 0, &padded, seed);
        let mut loaded = vec![A::one(); padded.len()];
        slot.as_mut().load(Arch::new(), 0, &mut loaded);
        let same = |(a, b): (&A, A)| *a == b || a.is_nan() && b.is_nan();
        assert!(loaded.iter().zip(slot.values()).all(same));
        loaded.truncate(values.len());
        loaded
    }

    /// Numbers over six decades, of both signs if asked.
    fn numbers<A: Scalar>(count: u32, signs: bool) -> Vec<A> {
        let number = |i: u32| {
            let random = f64::from(hash(i)) / f64::from(u32::MAX);
            let sign = if signs && i % 3 == 0 { -1.0 } else { 1.0 };
            A::from_f64(sign * 10.0_f64.powf(if signs { 4.0 } else { 6.0 } * (random - 1.0)))
        };
        (0..count).map(number).collect()
    }

    #[test]
    fn a_number_comes_back_within_the_spacing() {
        fn check<A: Scalar>() {
            for precision in ALL {
                for signs in [false, true] {
                    let values = numbers::<A>(5000, signs);
                    for (value, back) in values.iter().zip(round_trip(&values, precision, 1)) {
                        let error = (back.as_f64() - value.as_f64()).abs();
                        let allowed = spacing(precision) * value.as_f64().abs();
                        assert!(error <= allowed, "{precision:?}: {value} became {back}");
                    }
                }
            }
        }
        check::<f32>();
        check::<f64>();
    }

    /// The mean of many stochastic roundings is the number, where one to the nearest is off.
    #[test]
    fn stochastic_rounding_is_right_on_average() {
        for precision in [StatePrecision::Bf16(Rounding::Stochastic), StatePrecision::Blockwise8] {
            for value in [1.0_f32 + 1.0 / 700.0, 0.3, -0.7, 0.011] {
                let mut values = vec![value; GROUP];
                values[0] = 1.5;
                values[1] = -1.5;
                let rounds = 400;
                let roundings = (0..rounds).flat_map(|round| round_trip(&values, precision, round * 1009).split_off(2));
                let (mut sum, mut count) = (0.0, 0.0);
                for rounded in roundings {
                    sum += f64::from(rounded);
                    count += 1.0;
                }
                // The standard deviation of one is at most half the spacing; of the mean, four of them are allowed.
                let allowed = 4.0 * 0.5 * spacing(precision) * f64::from(value.abs()) / f64::sqrt(count);
                assert!(
                    (sum / count - f64::from(value)).abs() < allowed,
                    "{precision:?}: {value} is {} on average",
                    sum / count
                );
            }
        }
    }

    #[test]
    fn zeros_stay_and_nothing_else_becomes_zero() {
        for precision in ALL {
            assert_eq!(round_trip(&[0.0_f32; 300], precision, 3), [0.0; 300]);
            let back = round_trip(&[1e30_f32, 0.0, 1e-30, f32::MIN_POSITIVE], precision, 3);
            assert!(back[1] == 0.0 && back[2] > 0.0 && back[3] > 0.0, "{precision:?}: {back:?}");
        }
        let tiny = round_trip(&[1e-42_f32, 0.0, -5e-43], StatePrecision::Blockwise8, 3);
        assert!(tiny[0] > 0.0 && tiny[1] == 0.0 && tiny[2] < 0.0, "{tiny:?}");
    }

    #[test]
    fn what_is_not_finite_stays_so() {
        for precision in ALL {
            let back = round_trip(&[1.0_f32, f32::NAN, 2.0], precision, 3);
            assert!(back[1].is_nan(), "{precision:?}: {back:?}");
            let back = round_trip(&[1.0_f32, f32::INFINITY, 2.0], precision, 3);
            assert!(!back[1].is_finite(), "{precision:?}: {back:?}");
        }
    }

    #[test]
    fn the_largest_of_a_group_is_exact() {
        let mut values = vec![0.1_f32; GROUP];
        values[17] = 0.7;
        assert_eq!(round_trip(&values, StatePrecision::Blockwise8, 9)[17], 0.7);
        values[18] = -0.9;
        assert_eq!(round_trip(&values, StatePrecision::Blockwise8, 9)[18], -0.9);
    }

    #[test]
    fn bytes_and_small_tensors() {
        let bytes = |elements, precision| Slot::<f32>::zeros(elements, precision).bytes();
        assert_eq!(bytes(1 << 16, StatePrecision::Full), 4 << 16);
        assert_eq!(bytes(1 << 16, StatePrecision::Bf16(Rounding::Nearest)), 2 << 16);
        assert_eq!(bytes(1 << 16, StatePrecision::Blockwise8), (1 << 16) + 4 * (1 << 8));
        assert!(ALL.iter().all(|precision| bytes(LEAST_ELEMENTS - 1, *precision) == 4 * (LEAST_ELEMENTS - 1)));
    }

    /// A slot in pieces holds what it holds in one.
    #[test]
    fn pieces_at_groups() {
        let values = numbers::<f32>(6000, true);
        for precision in ALL {
            let mut whole = Slot::zeros(values.len(), precision);
            whole.as_mut().store(Arch::new(), 0, &values, 77);
            let mut cut = Slot::<f32>::zeros(values.len(), precision);
            let (mut left, mut right) = cut.as_mut().split_at(2048);
            left.store(Arch::Scalar, 0, &values[..2048], 77);
            right.store(Arch::Scalar, 0, &values[2048..4096], 77 + 2048);
            right.store(Arch::Scalar, 2048, &values[4096..], 77 + 4096);
            assert_eq!(whole.values(), cut.values(), "{precision:?}");
        }
    }
}
