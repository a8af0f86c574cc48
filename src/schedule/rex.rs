//! Reflected exponential decay.

use super::anneal::{finite, progress};
use super::line::in_one_line;
#[cfg(feature = "serde")]
use super::number;
use super::{Schedule, function_of_the_step};
use crate::error::Result;

/// Falls from a peak to 0: slowly at first, then ever faster. REX is short for reflected exponential.
///
/// # Formula
/// ```text
/// p = min(t / steps, 1)
/// at(t) = peak · (1 − p) / (1/2 + (1 − p)/2)
/// ```
///
/// # Arguments
/// | name | range | meaning | unit |
/// |---|---|---|---|
/// | `peak` | finite | the value at step 0 | the hyper-parameter's |
/// | `steps` | any | the length of the decay | steps |
///
/// # Values
/// `peak` at step 0, `3/4 · peak` after 2/5 of the steps, `peak / 2` after 2/3, 0 at step `steps` and beyond. With 0 steps it is 0
/// everywhere.
///
/// # Conventions
/// The paper's form, which is also `peak · (1 − t / steps) / (1 − t / (2 · steps))`. PyTorch, Hugging Face and optax have no counterpart.
///
/// # Errors
/// [`check`](Schedule::check) reports an argument outside its range.
///
/// # Example
/// ```
/// use gradus::schedule::{Rex, Schedule};
///
/// let schedule = Rex::new(1.0, 300);
/// assert_eq!([0, 200, 300, 1000].map(|t| schedule.at(t)), [1.0, 0.5, 0.0, 0.0]);
/// ```
///
/// # References
/// J. Chen, C. Wolfe, A. Kyrillidis, *REX: Revisiting Budgeted Training with an Improved Schedule*, 2021,
/// [arXiv:2107.04197](https://arxiv.org/abs/2107.04197).
#[must_use = "a schedule does nothing until an optimizer has it"]
#[derive(Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct Rex {
    #[cfg_attr(feature = "serde", serde(with = "number"))]
    peak: f64,
    #[cfg_attr(feature = "serde", serde(deserialize_with = "number::count"))]
    steps: u64,
}

in_one_line!(Rex: peak, steps);

impl Rex {
    /// From `peak` to 0 in `steps` steps.
    pub fn new(peak: f64, steps: u64) -> Self {
        Self { peak, steps }
    }
}

impl Schedule for Rex {
    fn at(&self, step: u64) -> f64 {
        let left = 1.0 - progress(step, self.steps);
        self.peak * (left / (0.5 + 0.5 * left))
    }

    fn first_value(&self) -> f64 {
        self.peak
    }

    fn check(&self) -> Result<()> {
        finite("Rex", "peak", self.peak)
    }

    function_of_the_step!();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_peak_is_left_for_the_last_third() {
        let schedule = Rex::new(0.5, 3);
        assert_eq!([0, 2, 3, 4, u64::MAX].map(|t| schedule.at(t)), [0.5, 0.25, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn without_steps_it_is_over() {
        let schedule = Rex::new(0.5, 0);
        assert_eq!((schedule.at(0), schedule.first_value()), (0.0, 0.5));
    }
}
