//! Step decay: after a fixed number of steps, or at given steps.

use super::anneal::{decay_factor, finite, product, require};
use super::line::in_one_line;
#[cfg(feature = "serde")]
use super::number;
use super::{Schedule, function_of_the_step};
use crate::error::{AT_LEAST_1, Result};

/// Multiplies the value by a factor every `period` steps.
///
/// # Formula
/// ```text
/// at(t) = start · gamma^⌊t / period⌋
/// ```
///
/// # Arguments
/// | name | range | meaning | unit |
/// |---|---|---|---|
/// | `start` | finite | the value before the first change | the hyper-parameter's |
/// | `period` | ≥ 1 | the number of steps with the same value | steps |
/// | `gamma` | ≥ 0 | the factor of each change | 1 |
///
/// # Values
/// `start` at steps 0 to `period − 1`, then `start · gamma`, and so on. There is no end: the value tends to 0 if `gamma < 1`, and to infinity if
/// `gamma > 1`.
///
/// # Conventions
/// PyTorch's `StepLR(step_size, gamma)`, and optax's `exponential_decay(…, staircase=True)`, step for step. If the period counts epochs, add
/// [`per_epoch`](super::ScheduleExt::per_epoch).
///
/// # Errors
/// [`check`](Schedule::check) reports an argument outside its range.
///
/// # Example
/// ```
/// use gradus::schedule::{Schedule, Step};
///
/// let schedule = Step::new(0.8, 30, 0.5);
/// assert_eq!(schedule.at(29), 0.8);
/// assert_eq!(schedule.at(30), 0.4);
/// assert_eq!(schedule.at(60), 0.2);
/// ```
#[doc(alias = "StepLR")]
#[must_use = "a schedule does nothing until an optimizer has it"]
#[derive(Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct Step {
    #[cfg_attr(feature = "serde", serde(with = "number"))]
    start: f64,
    #[cfg_attr(feature = "serde", serde(deserialize_with = "number::count"))]
    period: u64,
    #[cfg_attr(feature = "serde", serde(with = "number"))]
    gamma: f64,
}

in_one_line!(Step: start, period, gamma);

impl Step {
    /// `start`, times `gamma` after every `period` steps.
    pub fn new(start: f64, period: u64, gamma: f64) -> Self {
        Self { start, period, gamma }
    }
}

impl Schedule for Step {
    fn at(&self, step: u64) -> f64 {
        let changes = step.checked_div(self.period).unwrap_or(0);
        product(self.start, self.gamma.powf(changes as f64))
    }

    fn check(&self) -> Result<()> {
        finite("Step", "start", self.start)?;
        require(self.period > 0, "Step", "period", self.period as f64, AT_LEAST_1)?;
        decay_factor("Step", self.gamma)
    }

    function_of_the_step!();
}

/// Multiplies the value by a factor at each of the given steps.
///
/// # Formula
/// ```text
/// at(t) = start · gamma^(number of milestones ≤ t)
/// ```
///
/// # Arguments
/// | name | range | meaning | unit |
/// |---|---|---|---|
/// | `start` | finite | the value before the first milestone | the hyper-parameter's |
/// | `milestones` | any number, in any order | the first step of each new value; a milestone given twice counts twice | steps |
/// | `gamma` | ≥ 0 | the factor of each change | 1 |
///
/// # Values
/// `start` at step 0, unless 0 is a milestone. After the last milestone the value stays constant.
///
/// # Conventions
/// PyTorch's `MultiStepLR(milestones, gamma)`, step for step. optax's `piecewise_constant_schedule`, which has a separate factor for each change,
/// is [`PiecewiseConstant`](super::PiecewiseConstant).
///
/// # Errors
/// [`check`](Schedule::check) reports an argument outside its range.
///
/// # Example
/// ```
/// use gradus::schedule::{MultiStep, Schedule};
///
/// let schedule = MultiStep::new(1.0, [30, 80], 0.5);
/// assert_eq!(schedule.at(29), 1.0);
/// assert_eq!(schedule.at(30), 0.5);
/// assert_eq!(schedule.at(1000), 0.25);
/// ```
///
/// # References
/// K. He, X. Zhang, S. Ren, J. Sun, *Deep Residual Learning for Image Recognition*, 2015, [arXiv:1512.03385](https://arxiv.org/abs/1512.03385), sec. 4.2.
#[doc(alias = "MultiStepLR")]
#[must_use = "a schedule does nothing until an optimizer has it"]
#[derive(Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct MultiStep {
    #[cfg_attr(feature = "serde", serde(with = "number"))]
    start: f64,
    #[cfg_attr(feature = "serde", serde(deserialize_with = "number::sorted_counts"))]
    milestones: Vec<u64>,
    #[cfg_attr(feature = "serde", serde(with = "number"))]
    gamma: f64,
}

in_one_line!(MultiStep: start, milestones, gamma);

impl MultiStep {
    /// `start`, times `gamma` from each of the `milestones` on.
    pub fn new(start: f64, milestones: impl IntoIterator<Item = u64>, gamma: f64) -> Self {
        let mut milestones: Vec<u64> = milestones.into_iter().collect();
        milestones.sort_unstable();
        Self { start, milestones, gamma }
    }
}

impl Schedule for MultiStep {
    fn at(&self, step: u64) -> f64 {
        let changes = self.milestones.partition_point(|milestone| *milestone <= step);
        product(self.start, self.gamma.powf(changes as f64))
    }

    fn check(&self) -> Result<()> {
        finite("MultiStep", "start", self.start)?;
        decay_factor("MultiStep", self.gamma)
    }

    function_of_the_step!();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_lasts_its_period() {
        let schedule = Step::new(1.0, 3, 0.5);
        let values: Vec<f64> = (0..8).map(|t| schedule.at(t)).collect();
        assert_eq!(values, [1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.25, 0.25]);
    }

    #[test]
    fn the_order_of_milestones_does_not_matter_and_twice_counts_twice() {
        let schedule = MultiStep::new(1.0, [5, 2, 5], 0.5);
        assert_eq!([1, 2, 4, 5, 6].map(|t| schedule.at(t)), [1.0, 0.5, 0.5, 0.125, 0.125]);
        assert_eq!(MultiStep::new(1.0, [], 0.5).at(9), 1.0);
    }
}
