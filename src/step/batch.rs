//! Which part of a larger batch the gradients of a step belong to.

use crate::error::{Error, Result, StepError};

/// The micro-batch that the gradients of a step are the mean of.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Batch {
    /// Its weight in a mean with others, such as its number of samples.
    pub(crate) weight: f64,
    /// Whether the weight may differ from that of other micro-batches and ranks.
    pub(crate) is_weighted: bool,
    /// Whether it is the last one: every `accumulate` takes its step.
    pub(crate) is_last: bool,
}

impl Batch {
    /// A micro-batch like all others.
    pub(crate) const EQUAL: Self = Self { weight: 1.0, is_weighted: false, is_last: false };

    /// No micro-batch, after the last one.
    pub(crate) const FLUSH: Self = Self { weight: 0.0, is_weighted: false, is_last: true };

    /// A micro-batch of this weight in the step of this number.
    ///
    /// # Errors
    /// [`StepError::HyperParameter`] unless the weight is finite and ≥ 0.
    pub(crate) fn weighted(weight: f64, step: u64) -> Result<Self> {
        if weight.is_finite() && weight >= 0.0 {
            return Ok(Self { weight, is_weighted: true, is_last: false });
        }
        let (name, accepted) = ("weight", "a finite number ≥ 0".into());
        Err(Error::Step(StepError::HyperParameter { name, value: weight, step, path: None, pattern: None, accepted }))
    }
}

/// A part of a chain in which several ranks take each step together: all must take part, also one that has no gradient.
/// Nobody has one: its type is what such a part [answers](crate::Optimizer::part) to.
#[derive(Debug)]
pub(crate) enum JoinsRanks {}
