//! One schedule after another.

use std::fmt;

use super::combinator;
use crate::error::Result;
#[cfg(feature = "serde")]
use crate::schedule::number;
use crate::schedule::{Memory, Schedule};

combinator! {
    /// One schedule, then another: see [`then`](crate::schedule::ScheduleExt::then).
    pub struct Then<S, T> {
        #[serde(with = "number::inner")]
        first: S,
        #[serde(deserialize_with = "number::count")]
        at: u64,
        #[serde(with = "number::inner")]
        next: T,
    }
}

impl<S: Schedule, T: Schedule> Schedule for Then<S, T> {
    fn at(&self, step: u64) -> f64 {
        match step.checked_sub(self.at) {
            Some(step) => self.next.at(step),
            None => self.first.at(step),
        }
    }

    fn first_value(&self) -> f64 {
        self.first.first_value()
    }

    /// What is never reached may be what could not be: a period of no steps, say.
    fn check(&self) -> Result<()> {
        if self.at > 0 {
            self.first.check()?;
        }
        self.next.check()
    }

    fn memory(&self) -> Memory<'_> {
        self.first.memory().and(self.next.memory())
    }

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.first.describe(f)?;
        write!(f, ".then({}, ", self.at)?;
        self.next.describe(f)?;
        f.write_str(")")
    }
}
