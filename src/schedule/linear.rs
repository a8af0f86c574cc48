//! Linear schedules.

use super::anneal::{finite, mix, progress};
use super::line::in_one_line;
#[cfg(feature = "serde")]
use super::number;
use super::{Schedule, function_of_the_step};
use crate::error::Result;

/// Changes linearly from one value to another.
///
/// # Formula
/// ```text
/// p = min(t / steps, 1)
/// at(t) = start · (1 − p) + end · p
/// ```
///
/// # Arguments
/// | name | range | meaning | unit |
/// |---|---|---|---|
/// | `start` | finite | the value at step 0 | the hyper-parameter's |
/// | `end` | finite | the value from step `steps` on; may be above `start` | the hyper-parameter's |
/// | `steps` | any | the number of steps from `start` to `end` | steps |
///
/// # Values
/// `start` at step 0, `end` at step `steps` and beyond. With 0 steps it is `end` everywhere.
///
/// # Conventions
/// PyTorch's `LinearLR` with `start = lr · start_factor` and `end = lr · end_factor`, and optax's `linear_schedule`,
/// step for step; for 0 steps optax stays at the start instead. Hugging Face's `get_linear_schedule_with_warmup(w, n)`
/// is `Linear::new(lr, 0.0, n - w).warmup(w)`.
///
/// # Errors
/// [`check`](Schedule::check) reports an argument outside its range.
///
/// # Example
/// ```
/// use gradus::schedule::{Linear, Schedule};
///
/// let schedule = Linear::new(0.5, 0.25, 100);
/// assert_eq!([0, 50, 100, 1000].map(|t| schedule.at(t)), [0.5, 0.375, 0.25, 0.25]);
/// ```
///
/// # References
/// J. Devlin, M.-W. Chang, K. Lee, K. Toutanova, *BERT: Pre-training of Deep Bidirectional Transformers for Language
/// Understanding*, 2018, [arXiv:1810.04805](https://arxiv.org/abs/1810.04805), app. A.2.
#[doc(alias("LinearLR", "linear_schedule"))]
#[must_use = "a schedule does nothing until an optimizer has it"]
#[derive(Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct Linear {
    #[cfg_attr(feature = "serde", serde(with = "number"))]
    start: f64,
    #[cfg_attr(feature = "serde", serde(with = "number"))]
    end: f64,
    #[cfg_attr(feature = "serde", serde(deserialize_with = "number::count"))]
    steps: u64,
}

in_one_line!(Linear: start, end, steps);

impl Linear {
    /// From `start` to `end` in `steps` steps.
    pub fn new(start: f64, end: f64, steps: u64) -> Self {
        Self { start, end, steps }
    }
}

impl Schedule for Linear {
    fn at(&self, step: u64) -> f64 {
        mix(self.start, self.end, progress(step, self.steps))
    }

    fn first_value(&self) -> f64 {
        self.start
    }

    fn check(&self) -> Result<()> {
        finite("Linear", "start", self.start)?;
        finite("Linear", "end", self.end)
    }

    function_of_the_step!();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn up_and_down() {
        assert_eq!([0, 1, 2, 3, 4, 5].map(|t| Linear::new(1.0, 3.0, 4).at(t)), [1.0, 1.5, 2.0, 2.5, 3.0, 3.0]);
        assert_eq!([0, 1, 2, 3, 4, 5].map(|t| Linear::new(1.0, 0.0, 4).at(t)), [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]);
    }

    #[test]
    fn no_steps_is_the_end() {
        assert_eq!(Linear::new(1.0, 0.5, 0).at(0), 0.5);
    }
}
