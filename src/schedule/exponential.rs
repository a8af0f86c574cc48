//! Exponential decay.

use super::anneal::{decay_factor, finite, left_out, product, require};
use super::line::in_one_line;
#[cfg(feature = "serde")]
use super::number;
use super::{Schedule, function_of_the_step};
use crate::error::{AT_LEAST_1, Result};

/// Multiplies the value by a factor at every step.
///
/// # Formula
/// ```text
/// at(t) = start · gamma^(t / steps)
/// ```
///
/// # Arguments
/// | name | default | range | meaning | unit |
/// |---|---|---|---|---|
/// | `start` | – | finite | the value at step 0 | the hyper-parameter's |
/// | `gamma` | – | ≥ 0 | the factor of `steps` steps; above 1 the value grows | 1 |
/// | [`over`](Self::over) | 1 | ≥ 1 | the number of steps for one factor of `gamma` | steps |
///
/// # Values
/// `start` at step 0, `start · gamma` at step `steps`. There is no end: the value tends to 0 if `gamma < 1`, and to infinity if `gamma > 1`. Use
/// [`clamp`](super::ScheduleExt::clamp) to limit it.
///
/// # Conventions
/// PyTorch's `ExponentialLR(gamma)`; with [`over`](Self::over) optax's `exponential_decay(transition_steps,
/// decay_rate)` and Keras' `ExponentialDecay`, step for step. Their staircase is [`Step`](super::Step), optax's
/// `transition_begin` is [`delay`](super::ScheduleExt::delay) and its `end_value` is [`clamp`](super::ScheduleExt::clamp).
///
/// # Errors
/// [`check`](Schedule::check) reports an argument outside its range.
///
/// # Example
/// ```
/// use gradus::schedule::{Exponential, Schedule};
///
/// assert_eq!(Exponential::new(0.8, 0.5).at(3), 0.1);
/// let slow = Exponential::new(0.8, 0.25).over(100);
/// assert_eq!([0, 50, 100].map(|t| slow.at(t)), [0.8, 0.4, 0.2]);
/// ```
///
/// # References
/// A. Senior, G. Heigold, M. Ranzato, K. Yang, *An Empirical Study of Learning Rates in Deep Neural Networks for
/// Speech Recognition*, 2013, ICASSP.
#[doc(alias("ExponentialLR", "exponential_decay"))]
#[must_use = "a schedule does nothing until an optimizer has it"]
#[derive(Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct Exponential {
    #[cfg_attr(feature = "serde", serde(with = "number"))]
    start: f64,
    #[cfg_attr(feature = "serde", serde(with = "number"))]
    gamma: f64,
    #[cfg_attr(
        feature = "serde",
        serde(rename = "over", default = "left_out::steps", deserialize_with = "number::count")
    )]
    steps: u64,
}

left_out!(left_out: Exponential::new(0.0, 0.0); steps: u64);

in_one_line!(Exponential: start, gamma; Exponential::new(0.0, 0.0) => steps);

impl Exponential {
    /// `start`, times `gamma` after each step.
    pub fn new(start: f64, gamma: f64) -> Self {
        Self { start, gamma, steps: 1 }
    }

    /// Applies the factor once per this many steps instead of once per step.
    pub fn over(mut self, steps: u64) -> Self {
        self.steps = steps;
        self
    }
}

impl Schedule for Exponential {
    fn at(&self, step: u64) -> f64 {
        product(self.start, self.gamma.powf(step as f64 / self.steps.max(1) as f64))
    }

    fn check(&self) -> Result<()> {
        finite("Exponential", "start", self.start)?;
        decay_factor("Exponential", self.gamma)?;
        require(self.steps > 0, "Exponential", "over", self.steps as f64, AT_LEAST_1)
    }

    function_of_the_step!();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_factor_above_one_grows() {
        assert_eq!(Exponential::new(1.0, 4.0).over(2).at(3), 8.0);
    }

    #[test]
    fn a_factor_of_zero_leaves_only_the_first_step() {
        assert_eq!([0, 1, 2].map(|t| Exponential::new(0.3, 0.0).at(t)), [0.3, 0.0, 0.0]);
    }
}
