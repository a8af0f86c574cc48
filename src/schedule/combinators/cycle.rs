//! A schedule that repeats.

use std::fmt;

use super::combinator;
use crate::error::{AT_LEAST_1, Result};
use crate::schedule::anneal::require;
#[cfg(feature = "serde")]
use crate::schedule::number;
use crate::schedule::{Memory, Schedule};

combinator! {
    /// A schedule that repeats: see [`cycle`](crate::schedule::ScheduleExt::cycle).
    pub struct Cycle<S> {
        #[serde(with = "number::inner")]
        inner: S,
        #[serde(deserialize_with = "number::count")]
        steps: u64,
    }
}

impl<S: Schedule> Schedule for Cycle<S> {
    fn at(&self, step: u64) -> f64 {
        self.inner.at(step.checked_rem(self.steps).unwrap_or(0))
    }

    fn first_value(&self) -> f64 {
        self.inner.first_value()
    }

    fn check(&self) -> Result<()> {
        require(self.steps > 0, "Cycle", "steps", self.steps as f64, AT_LEAST_1)?;
        self.inner.check()
    }

    fn memory(&self) -> Memory<'_> {
        self.inner.memory()
    }

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.describe(f)?;
        write!(f, ".cycle({})", self.steps)
    }
}
