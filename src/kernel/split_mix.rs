//! SplitMix64 of Steele, Lea and Flood: random bits from a counter, the same on every machine.

/// What the counter grows by.
pub(crate) const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

/// The random bits of a counter's value.
pub(crate) fn finish(value: u64) -> u64 {
    let z = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The first random bits of the generator that starts from a seed.
pub(crate) fn mixed(seed: u64) -> u64 {
    finish(seed.wrapping_add(GAMMA))
}

/// A number in −1 … 1: the `nth` of the generator that starts from 0.
pub(crate) fn signed(nth: u64) -> f64 {
    (finish(nth.wrapping_mul(GAMMA)) >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
}
