//! Decay with the inverse square root of the step.

use super::anneal::{finite, require};
use super::line::in_one_line;
#[cfg(feature = "serde")]
use super::number;
use super::{Schedule, function_of_the_step};
use crate::error::{AT_LEAST_1, Result};

/// Falls with the inverse square root of the step.
///
/// # Formula
/// ```text
/// at(t) = peak · √(timescale / (t + timescale))
/// ```
///
/// # Arguments
/// | name | range | meaning | unit |
/// |---|---|---|---|
/// | `peak` | finite | the value at step 0 | the hyper-parameter's |
/// | `timescale` | ≥ 1 | the value is `peak / 2` after 3 timescales, and `peak / 10` after 99 | steps |
///
/// # Values
/// `peak` at step 0. There is no end: the value tends to 0, slowly.
///
/// # Conventions
/// Hugging Face's `get_inverse_sqrt_schedule(num_warmup_steps, timescale)` is
/// `InverseSqrt::new(lr, timescale).warmup(num_warmup_steps)`, step for step; its default `timescale` is `num_warmup_steps`, or 10 000 without
/// a warm-up. The schedule of the Transformer paper is [`Noam`](super::Noam). PyTorch and optax have no counterpart.
///
/// # Errors
/// [`check`](Schedule::check) reports an argument outside its range.
///
/// # Example
/// ```
/// use gradus::schedule::{InverseSqrt, Schedule};
///
/// let schedule = InverseSqrt::new(0.5, 100);
/// assert_eq!([0, 300, 1500].map(|t| schedule.at(t)), [0.5, 0.25, 0.125]);
/// ```
///
/// # References
/// X. Zhai, A. Kolesnikov, N. Houlsby, L. Beyer, *Scaling Vision Transformers*, 2021, [arXiv:2106.04560](https://arxiv.org/abs/2106.04560), sec. 3.5.
#[must_use = "a schedule does nothing until an optimizer has it"]
#[derive(Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct InverseSqrt {
    #[cfg_attr(feature = "serde", serde(with = "number"))]
    peak: f64,
    #[cfg_attr(feature = "serde", serde(deserialize_with = "number::count"))]
    timescale: u64,
}

in_one_line!(InverseSqrt: peak, timescale);

impl InverseSqrt {
    /// From `peak` down; `peak / 2` after 3 · `timescale` steps.
    pub fn new(peak: f64, timescale: u64) -> Self {
        Self { peak, timescale }
    }
}

impl Schedule for InverseSqrt {
    fn at(&self, step: u64) -> f64 {
        let timescale = self.timescale.max(1) as f64;
        self.peak * (timescale / (step as f64 + timescale)).sqrt()
    }

    fn check(&self) -> Result<()> {
        finite("InverseSqrt", "peak", self.peak)?;
        require(self.timescale > 0, "InverseSqrt", "timescale", self.timescale as f64, AT_LEAST_1)
    }

    function_of_the_step!();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_times_as_late_is_half_as_large() {
        let schedule = InverseSqrt::new(1.0, 1);
        assert_eq!([0, 3, 15, 63].map(|t| schedule.at(t)), [1.0, 0.5, 0.25, 0.125]);
    }
}
