//! The precision of the state.

/// Tensors with fewer elements than this keep their state in full: there is nothing to gain.
pub(super) const LEAST_ELEMENTS: usize = 4096;

/// The storage format of an optimizer's state slots. The arithmetic is the same for all: blocks are widened in the cache, updated and narrowed again.
///
/// | | bytes per slot and parameter | relative spacing | range |
/// |---|---|---|---|
/// | `Full` | 4 (f32), 8 (f64) | 2⁻²⁴, 2⁻⁵³ | all |
/// | `Bf16` | 2 | 2⁻⁸ | that of f32 |
/// | `Blockwise8` | 1 + 4/256 | 2⁻³ | the largest of 256 elements × 2⁻³² … 1 (2⁻¹⁶ … 1 where signs are mixed) |
///
/// `Blockwise8` stores one scale per group of 256 elements and one 8-bit floating-point number per element. If the group has no negative element, as in
/// second moments, the number has 5 bits of exponent and 3 of fraction; otherwise it has a sign, 4 bits of exponent and 3 of fraction. It rounds
/// stochastically. Tensors of fewer than 4,096 elements keep full state.
///
/// The random bits of stochastic rounding depend only on the step, the tensor and the element's place in memory. Runs are therefore bit-identical, on
/// any number of threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum StatePrecision {
    /// The parameters' own type.
    #[default]
    Full,
    /// bfloat16: the upper half of an f32.
    Bf16(Rounding),
    /// 8 bits an element, and a scale for every 256.
    Blockwise8,
}

impl StatePrecision {
    /// What holds for a tensor of so many elements.
    pub(super) fn of(self, elements: usize) -> Self {
        if elements < LEAST_ELEMENTS { Self::Full } else { self }
    }
}

/// The rounding to fewer bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Rounding {
    /// Up or down at random, with probabilities that make the result correct on average. Changes much smaller than the spacing, such as those of a slow
    /// moving average, are not lost.
    #[default]
    Stochastic,
    /// To the nearest number, ties to even.
    Nearest,
}
