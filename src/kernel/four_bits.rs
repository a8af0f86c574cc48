//! Groups of 4-bit codes with one scale: the maps and the layout of torchao.

use pulp::Arch;

use super::narrow::{GOLDEN, MAGNITUDE, as_f32, from_f32, random};
use crate::params::Scalar;

/// Elements that share one scale of 4-bit codes.
pub(crate) const SMALL_GROUP: usize = 128;

/// The numbers that codes stand for, relative to the group's scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Map {
    /// Seven negative numbers, 0 and eight positive ones, closer to each other near 0.
    #[default]
    Signed,
    /// The sixteenths from 1/16 to 1: no number becomes 0.
    Unsigned,
}

/// The rounding to codes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum CodeRounding {
    Nearest,
    /// With the random bits of this seed, which are others for each slot.
    Stochastic {
        seed: u32,
        slot: usize,
    },
}

/// The positive numbers of [`Map::Signed`], after 0. The negative ones are the same without 1.
const STEPS: [f32; 9] = [0.0, 0.0055, 0.032500003, 0.0775, 0.21249999, 0.4375, 0.6625, 0.8875, 1.0];

/// The code of 0 in [`Map::Signed`].
const ZERO: u8 = 7;

/// The least numbers that are rounded to the codes from 1 on, as torchao rounds: a residual of half the distance goes up.
const SIGNED_BOUNDS: [f32; 15] = [
    -0.775,
    -0.55,
    -0.325,
    -0.145,
    -0.055,
    -0.019000001,
    -0.00275,
    0.00275,
    0.019000001,
    0.055000003,
    0.145,
    0.32500002,
    0.55,
    0.77500004,
    0.94375,
];

/// The same for the sixteenths: the middles between them.
const UNSIGNED_BOUNDS: [f32; 15] = {
    let (mut bounds, mut at) = ([0.0; 15], 0);
    while at < 15 {
        bounds[at] = (2 * at + 3) as f32 / 32.0;
        at += 1;
    }
    bounds
};

const SIGNED_NUMBERS: [f32; 16] = {
    let (mut numbers, mut at) = ([0.0; 16], 0);
    while at < 16 {
        numbers[at] = if at < ZERO as usize { -STEPS[ZERO as usize - at] } else { STEPS[at - ZERO as usize] };
        at += 1;
    }
    numbers
};

const UNSIGNED_NUMBERS: [f32; 16] = {
    let (mut numbers, mut at) = ([0.0; 16], 0);
    while at < 16 {
        numbers[at] = (at + 1) as f32 / 16.0;
        at += 1;
    }
    numbers
};

/// The two numbers of every byte: the upper half of the bits is the code of the first.
const fn pairs(numbers: [f32; 16]) -> [[f32; 2]; 256] {
    let (mut pairs, mut byte) = ([[0.0; 2]; 256], 0);
    while byte < 256 {
        pairs[byte] = [numbers[byte >> 4], numbers[byte & 15]];
        byte += 1;
    }
    pairs
}

static SIGNED_PAIRS: [[f32; 2]; 256] = pairs(SIGNED_NUMBERS);
static UNSIGNED_PAIRS: [[f32; 2]; 256] = pairs(UNSIGNED_NUMBERS);

impl Map {
    /// A byte of codes for the numbers nearest to 0.
    pub(crate) fn zeros(self) -> u8 {
        match self {
            Self::Signed => ZERO << 4 | ZERO,
            Self::Unsigned => 0,
        }
    }

    fn pairs(self) -> &'static [[f32; 2]; 256] {
        match self {
            Self::Signed => &SIGNED_PAIRS,
            Self::Unsigned => &UNSIGNED_PAIRS,
        }
    }

    /// The number at this place of a slot.
    pub(crate) fn number<A: Scalar>(self, codes: &[u8], scales: &[f32], at: usize) -> A {
        from_f32(self.pairs()[usize::from(codes[at / 2])][at % 2] * scales[at / SMALL_GROUP])
    }

    /// Widens the codes of whole groups; the last may be shorter.
    pub(crate) fn widen<A: Scalar>(self, arch: Arch, codes: &[u8], scales: &[f32], out: &mut [A]) {
        let pairs = self.pairs();
        arch.dispatch(
            #[inline(always)]
            move || {
                let out = out; // what is moved makes this a closure that is called once
                let groups = codes.chunks(SMALL_GROUP / 2).zip(scales).zip(out.chunks_mut(SMALL_GROUP));
                for ((codes, scale), out) in groups {
                    let mut numbers = [0.0_f32; SMALL_GROUP];
                    let halves = numbers.as_chunks_mut::<2>().0.iter_mut();
                    halves.zip(codes).for_each(|(pair, code)| *pair = pairs[usize::from(*code)]);
                    out.iter_mut().zip(numbers).for_each(|(out, number)| *out = from_f32(number * scale));
                }
            },
        );
    }

    /// The codes and the scales of whole groups from their values; the last may be shorter. Consecutive elements add 1 to the seed.
    pub(crate) fn narrow<A: Scalar>(
        self,
        arch: Arch,
        values: &[A],
        (codes, scales): (&mut [u8], &mut [f32]),
        rounding: CodeRounding,
    ) {
        arch.dispatch(
            #[inline(always)]
            move || {
                let (codes, scales) = (codes, scales);
                let groups = values.chunks(SMALL_GROUP).zip(codes.chunks_mut(SMALL_GROUP / 2)).zip(scales);
                for (number, ((values, codes), scale)) in groups.enumerate() {
                    *scale = match rounding {
                        CodeRounding::Stochastic { seed, slot } => {
                            // Per group: wherever a call begins, the seed of a group is the same.
                            let seed = seed.wrapping_add((number * SMALL_GROUP) as u32) ^ ((slot as u32) << 30);
                            match self {
                                Self::Signed => group(values, codes, seed, signed_at_random),
                                Self::Unsigned => group(values, codes, seed, unsigned_at_random),
                            }
                        }
                        CodeRounding::Nearest => match self {
                            Self::Signed => group(values, codes, 0, |value, _| signed_nearest(value)),
                            Self::Unsigned => group(values, codes, 0, |value, _| unsigned_nearest(value)),
                        },
                    };
                }
            },
        );
    }
}

/// One group's codes; returns the scale. `code` gets a number from −1 to 1 and 32 random bits.
#[inline(always)]
fn group<A: Scalar>(values: &[A], codes: &mut [u8], seed: u32, code: impl Fn(f32, u32) -> u32) -> f32 {
    let mut numbers = [0.0_f32; SMALL_GROUP];
    numbers.iter_mut().zip(values).for_each(|(number, value)| *number = as_f32(*value));
    let largest = numbers.iter().fold(0, |largest, number| (number.to_bits() & MAGNITUDE).max(largest));
    let scale = f32::from_bits(largest);
    let divisor = if largest == 0 { 1.0 } else { scale };
    let (mut all, mut random) = ([0_u32; SMALL_GROUP], random(seed));
    for (all, number) in all.iter_mut().zip(&numbers) {
        *all = code(number / divisor, random);
        random = random.wrapping_add(GOLDEN);
    }
    codes.iter_mut().zip(all.as_chunks::<2>().0).for_each(|(codes, [first, second])| {
        *codes = (first << 4 | second) as u8;
    });
    scale
}

/// A number from 0 to 1, of 16 random bits: so few that a sum with it never reaches the next code.
#[inline(always)]
fn fraction(random: u32) -> f32 {
    const UNIT: f32 = 1.0 / 65536.0;
    (random >> 16) as i32 as f32 * UNIT
}

#[inline(always)]
fn unsigned_nearest(value: f32) -> u32 {
    UNSIGNED_BOUNDS.iter().map(|bound| u32::from(value >= *bound)).sum()
}

#[inline(always)]
fn unsigned_at_random(value: f32, random: u32) -> u32 {
    // Between 32 and 64 the bits have the whole sixteenths at a fixed place.
    let sixteenths = (16.0 * value + fraction(random) + 32.0).to_bits() >> 18 & 31;
    sixteenths.clamp(1, 16) - 1
}

#[inline(always)]
fn signed_nearest(value: f32) -> u32 {
    SIGNED_BOUNDS.iter().map(|bound| u32::from(value >= *bound)).sum()
}

/// Between two numbers the upper one is reached with a probability that makes the result right on average.
#[inline(always)]
fn signed_at_random(value: f32, random: u32) -> u32 {
    let (size, fraction, zero) = (value.abs(), fraction(random), u32::from(ZERO));
    let mut steps = 0;
    for (below, above) in STEPS.iter().zip(&STEPS[1..]) {
        steps += u32::from(size > below + fraction * (above - below));
    }
    if value < 0.0 { zero - steps.min(zero) } else { zero + steps }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::simd;

    fn round_trip<A: Scalar>(map: Map, values: &[A], rounding: CodeRounding, arch: Arch) -> (Vec<u8>, Vec<A>) {
        let mut codes = vec![map.zeros(); values.len().div_ceil(2)];
        let (mut scales, mut back) = (vec![0.0; values.len().div_ceil(SMALL_GROUP)], vec![A::zero(); values.len()]);
        map.narrow(arch, values, (&mut codes, &mut scales), rounding);
        map.widen(arch, &codes, &scales, &mut back);
        let numbers: Vec<A> = (0..values.len()).map(|at| map.number(&codes, &scales, at)).collect();
        assert!(back.iter().zip(&numbers).all(|(one, other)| one.as_f64().to_bits() == other.as_f64().to_bits()));
        (codes, back)
    }

    fn numbers<A: Scalar>(map: Map, count: u32) -> Vec<A> {
        let number = |i: u32| f64::from(random(i)) / f64::from(u32::MAX);
        let sign = |i: u32| if map == Map::Signed && i.is_multiple_of(3) { -1.0 } else { 1.0 };
        (0..count).map(|i| A::from_f64(sign(i) * number(i).powi(3) * f64::from(i / 128 + 1))).collect()
    }

    #[test]
    fn to_the_nearest_and_up_from_the_middle() {
        for (map, numbers) in [(Map::Signed, SIGNED_NUMBERS), (Map::Unsigned, UNSIGNED_NUMBERS)] {
            for (below, above) in numbers.iter().zip(&numbers[1..]) {
                let middle = (below + above) / 2.0;
                // A hair beside the middle, for what the difference of two numbers loses.
                let values = [1.0, middle - 1e-6, middle + 1e-6, *below];
                let (_, back) = round_trip(map, &values, CodeRounding::Nearest, Arch::Scalar);
                assert_eq!(back, [1.0, *below, *above, *below]);
            }
        }
        assert_eq!(round_trip(Map::Unsigned, &[32.0, 3.0], CodeRounding::Nearest, Arch::Scalar).1, [32.0, 4.0]);
        assert_eq!(round_trip(Map::Signed, &[-1.0_f32, 0.0], CodeRounding::Nearest, Arch::Scalar).1, [-0.8875, 0.0]);
    }

    /// The first of two elements has the upper half of the byte, and what is missing has the code of zero.
    #[test]
    fn two_codes_a_byte() {
        let codes = |map, values: &[f32]| round_trip(map, values, CodeRounding::Nearest, Arch::Scalar).0;
        assert_eq!(codes(Map::Signed, &[1.0, -1.0, 0.0]), [0xf0, 0x77]);
        assert_eq!(codes(Map::Unsigned, &[1.0, 0.5, 0.0]), [0xf7, 0x00]);
        assert_eq!(codes(Map::Signed, &[0.0; 4]), [0x77; 2]);
    }

    #[test]
    fn groups_of_zeros_stay_so_and_squares_stay_above_zero() {
        for rounding in [CodeRounding::Nearest, CodeRounding::Stochastic { seed: 7, slot: 0 }] {
            for map in [Map::Signed, Map::Unsigned] {
                assert_eq!(round_trip(map, &[0.0_f32; 300], rounding, Arch::Scalar).1, [0.0; 300]);
            }
            let mut values = [0.0_f32; 130];
            values[..3].copy_from_slice(&[1e-30, 1.0, 1e-3]);
            let (_, back) = round_trip(Map::Unsigned, &values, rounding, Arch::Scalar);
            assert!(back[..128].iter().all(|value| *value >= 0.0625) && back[128..] == [0.0, 0.0], "{back:?}");
            let (_, back) = round_trip(Map::Signed, &values, rounding, Arch::Scalar);
            assert!(back[3..].iter().all(|value| *value == 0.0), "{back:?}");
        }
    }

    #[test]
    fn every_level_has_the_same_codes() {
        fn check<A: Scalar>() {
            for map in [Map::Signed, Map::Unsigned] {
                for rounding in [CodeRounding::Nearest, CodeRounding::Stochastic { seed: 99, slot: 0 }] {
                    let values = numbers::<A>(map, 1003);
                    let expected = round_trip(map, &values, rounding, Arch::Scalar);
                    for arch in simd::available().into_iter().filter_map(|level| level.arch()) {
                        assert!(
                            round_trip(map, &values, rounding, arch) == expected,
                            "{map:?}, {rounding:?}, {arch:?}"
                        );
                    }
                }
            }
        }
        check::<f32>();
        check::<f64>();
    }

    /// Between the smallest and the largest number of a map.
    #[test]
    fn random_rounding_is_right_on_average() {
        let cases = [
            (Map::Unsigned, vec![0.0625_f32, 0.07, 0.1, 0.33, 0.5, 0.71, 0.99]),
            (Map::Signed, vec![-0.88_f32, -0.3, -0.05, -0.002, 0.0, 0.001, 0.01, 0.1, 0.5, 0.93]),
        ];
        const ROUNDS: u32 = 4000;
        for (map, mut values) in cases {
            values.push(1.0);
            let mut sums = vec![0.0_f64; values.len()];
            for round in 0..ROUNDS {
                let rounding = CodeRounding::Stochastic { seed: round.wrapping_mul(1009), slot: 0 };
                let (_, back) = round_trip(map, &values, rounding, Arch::Scalar);
                sums.iter_mut().zip(back).for_each(|(sum, back)| *sum += f64::from(back));
            }
            for (value, sum) in values.iter().zip(sums) {
                // The standard deviation of one is at most half the largest distance, 0.225; of the mean, four of them are allowed.
                let (mean, allowed) = (sum / f64::from(ROUNDS), 4.0 * 0.1125 / f64::from(ROUNDS).sqrt());
                assert!((mean - f64::from(*value)).abs() < allowed, "{map:?}: {value} is {mean} on average");
            }
        }
    }
}
