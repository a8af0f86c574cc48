//! A schedule that starts later.

use std::fmt;

use super::combinator;
use crate::error::Result;
#[cfg(feature = "serde")]
use crate::schedule::number;
use crate::schedule::{Memory, Schedule};

combinator! {
    /// A schedule that starts later: see [`delay`](crate::schedule::ScheduleExt::delay).
    pub struct Delay<S> {
        #[serde(with = "number::inner")]
        inner: S,
        #[serde(deserialize_with = "number::count")]
        steps: u64,
    }
}

impl<S: Schedule> Schedule for Delay<S> {
    fn at(&self, step: u64) -> f64 {
        match step.checked_sub(self.steps) {
            Some(step) => self.inner.at(step),
            None => self.inner.first_value(),
        }
    }

    fn first_value(&self) -> f64 {
        self.inner.first_value()
    }

    fn check(&self) -> Result<()> {
        self.inner.check()
    }

    fn memory(&self) -> Memory<'_> {
        self.inner.memory()
    }

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.describe(f)?;
        write!(f, ".delay({})", self.steps)
    }
}
