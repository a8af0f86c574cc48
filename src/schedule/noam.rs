//! The schedule of the Transformer paper.

use super::anneal::require;
use super::line::in_one_line;
#[cfg(feature = "serde")]
use super::number;
use super::{Schedule, function_of_the_step};
use crate::error::{AT_LEAST_1, Result};

/// Rises linearly, then falls with the inverse square root of the step, scaled by the model's width.
///
/// # Formula
/// ```text
/// n = t + 1
/// at(t) = d_model^−½ · min(n^−½, n · warmup^−3⁄2)
/// ```
///
/// # Arguments
/// | name | range | meaning | unit |
/// |---|---|---|---|
/// | `d_model` | ≥ 1 | the width of the model | features |
/// | `warmup` | any | the length of the rise; with 0 the value falls from the first step on | steps |
///
/// # Values
/// `d_model^−½ · warmup^−3⁄2` at step 0, so the first step already moves the parameters. The largest value, `(d_model · warmup)^−½`, is at step
/// `warmup − 1`. There is no end: the value tends to 0. Use [`scale`](super::ScheduleExt::scale) to multiply it.
///
/// # Conventions
/// The paper counts steps from 1, this library from 0: the value at step 0 is the paper's for step 1. PyTorch, Hugging
/// Face and optax have no counterpart.
///
/// # Errors
/// [`check`](Schedule::check) reports an argument outside its range.
///
/// # Example
/// ```
/// use gradus::schedule::{Noam, Schedule};
///
/// let schedule = Noam::new(256, 16);
/// assert_eq!([0, 15, 63].map(|t| schedule.at(t)), [1.0 / 1024.0, 1.0 / 64.0, 1.0 / 128.0]);
/// ```
///
/// # References
/// A. Vaswani et al., *Attention Is All You Need*, 2017, [arXiv:1706.03762](https://arxiv.org/abs/1706.03762), eq. 3.
#[must_use = "a schedule does nothing until an optimizer has it"]
#[derive(Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct Noam {
    #[cfg_attr(feature = "serde", serde(deserialize_with = "number::count"))]
    d_model: u64,
    #[cfg_attr(feature = "serde", serde(deserialize_with = "number::count"))]
    warmup: u64,
}

in_one_line!(Noam: d_model, warmup);

impl Noam {
    /// For a model of width `d_model`, with a rise of `warmup` steps.
    pub fn new(d_model: u64, warmup: u64) -> Self {
        Self { d_model, warmup }
    }
}

impl Schedule for Noam {
    fn at(&self, step: u64) -> f64 {
        let n = step as f64 + 1.0;
        let rise = n * (self.warmup as f64).powf(-1.5);
        (self.d_model.max(1) as f64).powf(-0.5) * n.powf(-0.5).min(rise)
    }

    fn check(&self) -> Result<()> {
        require(self.d_model > 0, "Noam", "d_model", self.d_model as f64, AT_LEAST_1)
    }

    function_of_the_step!();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_warmup_it_only_falls() {
        assert_eq!([0, 3, 15].map(|t| Noam::new(4, 0).at(t)), [0.5, 0.25, 0.125]);
    }
}
