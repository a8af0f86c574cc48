//! The precision of the state.

use crate::kernel::four_bits::SMALL_GROUP;
use crate::kernel::narrow::GROUP;

/// Tensors with fewer elements than this keep their state in full: there is nothing to gain.
pub(super) const LEAST_ELEMENTS: usize = 4096;

/// The storage format of an optimizer's state slots. The arithmetic is the same for all: blocks are widened in the cache, updated and narrowed again.
///
/// | | bytes per slot and parameter | relative spacing | range |
/// |---|---|---|---|
/// | `Full` | 4 (f32), 8 (f64) | 2⁻²⁴, 2⁻⁵³ | all |
/// | `Bf16` | 2 | 2⁻⁸ | that of f32 |
/// | `Blockwise8` | 1 + 4/256 | 2⁻³ | the largest of 256 elements × 2⁻³² … 1 (2⁻¹⁶ … 1 where signs are mixed) |
/// | `Blockwise4` | 1/2 + 4/128 | 1/16 of the largest of 128 elements | the largest of 128 elements × 1/16 … 1 (0.0055 … 1 of both signs) |
///
/// `Blockwise8` stores one scale per group of 256 elements and one 8-bit floating-point number per element. If the group has no negative element, as in
/// second moments, the number has 5 bits of exponent and 3 of fraction; otherwise it has a sign, 4 bits of exponent and 3 of fraction. It rounds
/// stochastically.
///
/// `Blockwise4` has the groups, the numbers and the layout of torchao's `AdamW4bit`: one scale per group of 128 elements, and two codes per byte. Slots that
/// are never negative ([`Rule::non_negative`](super::Rule::non_negative)), such as second moments, have the numbers 1/16, 2/16, …, 1 times the scale,
/// and a small number becomes 1/16. The other slots have 0, ±0.0055, ±0.0325, ±0.0775, ±0.2125, ±0.4375, ±0.6625, ±0.8875 and 1 times the scale, so the
/// largest of a group loses an eighth if it is negative. With `Rounding::Nearest` the codes are torchao's, bit for bit; then a slow average changes
/// little more than its scales. 4 bits are for moments of gradients. They are too coarse for slots that remember parameters (`x0` of `Madgrad`, `z_minus_y`
/// of the schedule-free optimizers, `init_minus_param` of `Prodigy`, `DoG`, `DoWG` and `DAdaptSgd`), step sizes (`Rprop`) or divisors of both signs
/// (`hessian_moment` of `Sophia`).
///
/// torchao also keeps full state for tensors whose elements are no multiple of 128, and its scales are at least 1e-12.
///
/// Tensors of fewer than 4,096 elements keep full state.
///
/// The random bits of stochastic rounding depend only on the step, the tensor and the element's place in memory. Runs are therefore bit-identical, on
/// any number of threads.
///
/// # References
/// - T. Dettmers, M. Lewis, S. Shleifer, L. Zettlemoyer, *8-bit Optimizers via Block-wise Quantization* (2021),
///   [arXiv:2110.02861](https://arxiv.org/abs/2110.02861).
/// - B. Li, J. Chen, J. Zhu, *Memory Efficient Optimizers with 4-bit States* (2023), [arXiv:2309.01507](https://arxiv.org/abs/2309.01507).
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
    /// 4 bits an element, and a scale for every 128.
    Blockwise4(Rounding),
}

impl StatePrecision {
    /// The number of elements that share a scale, 1 if none do.
    pub(super) fn group(self) -> usize {
        match self {
            Self::Full | Self::Bf16(_) => 1,
            Self::Blockwise8 => GROUP,
            Self::Blockwise4(_) => SMALL_GROUP,
        }
    }

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
