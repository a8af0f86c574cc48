//! Schedules of half-lives.

use super::anneal::{clamp, progress, require};
use super::line::in_one_line;
#[cfg(feature = "serde")]
use super::number;
use super::{Schedule, function_of_the_step};
use crate::error::Result;

/// Changes the decay β of an average so that its half-life changes linearly.
///
/// An average with the decay β forgets half of a value in ln ½/ln β steps. It is the schedule of β₃ of [`AdEMAMix`](crate::AdEMAMix).
///
/// # Formula
/// ```text
/// p = min(t / steps, 1)
/// at(t) = exp(1 / ((1 − p)/ln start + p/ln end))
/// ```
///
/// # Arguments
/// | name | range | meaning | unit |
/// |---|---|---|---|
/// | `start` | 0 < start < 1 | the decay at step 0 | per step |
/// | `end` | 0 < end < 1 | the decay from step `steps` on; may be below `start` | per step |
/// | `steps` | any | the number of steps from `start` to `end` | steps |
///
/// # Values
/// `start` at step 0, `end` at step `steps` and beyond. With 0 steps it is `end` everywhere.
///
/// # Conventions
/// The paper's f_β₃, with `start` = β₁. Its steps count from 0, as optax's do; pytorch-optimizer's `AdEMAMix` is one step ahead.
///
/// # Errors
/// [`check`](Schedule::check) reports an argument outside its range.
///
/// # Example
/// ```
/// use gradus::schedule::{HalfLife, Schedule};
///
/// let schedule = HalfLife::new(0.5, 0.25_f64.sqrt().sqrt(), 100); // half-lives of 1 and 2 steps
/// assert!((schedule.at(50) - 0.5_f64.powf(1.0 / 1.5)).abs() < 1e-15);
/// ```
///
/// # References
/// M. Pagliardini, P. Ablin and D. Grangier, *The AdEMAMix Optimizer: Better, Faster, Older* (2024),
/// [arXiv:2409.03137](https://arxiv.org/abs/2409.03137), section 3 and app. A.1.
#[must_use = "a schedule does nothing until an optimizer has it"]
#[derive(Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct HalfLife {
    #[cfg_attr(feature = "serde", serde(with = "number"))]
    start: f64,
    #[cfg_attr(feature = "serde", serde(with = "number"))]
    end: f64,
    #[cfg_attr(feature = "serde", serde(deserialize_with = "number::count"))]
    steps: u64,
}

in_one_line!(HalfLife: start, end, steps);

impl HalfLife {
    /// From the decay `start` to the decay `end` in `steps` steps.
    pub fn new(start: f64, end: f64, steps: u64) -> Self {
        Self { start, end, steps }
    }
}

impl Schedule for HalfLife {
    fn at(&self, step: u64) -> f64 {
        let done = progress(step, self.steps);
        if done == 1.0 {
            return self.end;
        }
        let decay = (1.0 / ((1.0 - done) / self.start.ln() + done / self.end.ln())).exp();
        clamp(decay, self.start.min(self.end), self.start.max(self.end))
    }

    fn first_value(&self) -> f64 {
        self.start
    }

    fn check(&self) -> Result<()> {
        for (argument, decay) in [("start", self.start), ("end", self.end)] {
            require(decay > 0.0 && decay < 1.0, "HalfLife", argument, decay, "a number in 0 < decay < 1")?;
        }
        Ok(())
    }

    function_of_the_step!();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_lives_in_equal_steps() {
        let half_life = |decay: f64| 0.5_f64.ln() / decay.ln();
        let schedule = HalfLife::new(0.5, 0.5_f64.powf(0.2), 4); // from 1 step to 5
        for (step, expected) in [1.0, 2.0, 3.0, 4.0, 5.0, 5.0].into_iter().enumerate() {
            assert!((half_life(schedule.at(step as u64)) - expected).abs() < 1e-12, "step {step}");
        }
    }

    #[test]
    fn both_ends_are_exact() {
        let schedule = HalfLife::new(0.9, 0.9999, 1000);
        assert_eq!([0, 1000, u64::MAX].map(|step| schedule.at(step)), [0.9, 0.9999, 0.9999]);
        assert_eq!(HalfLife::new(0.9, 0.5, 0).at(0), 0.5);
    }
}
