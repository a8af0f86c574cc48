//! A schedule that counts epochs.

use std::fmt;

use super::combinator;
use crate::error::{AT_LEAST_1, Result};
use crate::schedule::anneal::require;
#[cfg(feature = "serde")]
use crate::schedule::number;
use crate::schedule::{Memory, Schedule};

combinator! {
    /// A schedule that counts epochs: see [`per_epoch`](crate::schedule::ScheduleExt::per_epoch).
    pub struct PerEpoch<S> {
        #[serde(with = "number::inner")]
        inner: S,
        #[serde(deserialize_with = "number::count")]
        steps_per_epoch: u64,
    }
}

impl<S: Schedule> Schedule for PerEpoch<S> {
    fn at(&self, step: u64) -> f64 {
        self.inner.at(step.checked_div(self.steps_per_epoch).unwrap_or(0))
    }

    fn first_value(&self) -> f64 {
        self.inner.first_value()
    }

    fn check(&self) -> Result<()> {
        let steps = self.steps_per_epoch;
        require(steps > 0, "PerEpoch", "steps_per_epoch", steps as f64, AT_LEAST_1)?;
        self.inner.check()
    }

    fn memory(&self) -> Memory<'_> {
        self.inner.memory()
    }

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.describe(f)?;
        write!(f, ".per_epoch({})", self.steps_per_epoch)
    }
}
