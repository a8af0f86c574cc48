//! How many bits the state has.

/// Tensors with fewer elements than this keep their state in full: there is nothing to gain.
pub(super) const LEAST_ELEMENTS: usize = 4096;

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
/// The random bits of stochastic rounding depend on nothing but step, tensor and the element's place in memory: runs
/// repeat to the last bit, on any number of threads.
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

/// How a number is brought to fewer bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Rounding {
    /// Up or down at random, the nearer the likelier: right on average, so that changes much smaller than the spacing,
    /// like those of a slow moving average, are not lost.
    #[default]
    Stochastic,
    /// To the nearest number; of two equally near, to the even one.
    Nearest,
}
