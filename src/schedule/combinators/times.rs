//! The product of two schedules.

use std::fmt;

use super::combinator;
use crate::error::Result;
use crate::schedule::anneal::product;
#[cfg(feature = "serde")]
use crate::schedule::number;
use crate::schedule::{Memory, Schedule};

combinator! {
    /// The product of two schedules: see [`times`](crate::schedule::ScheduleExt::times).
    pub struct Times<S, T> {
        #[serde(with = "number::inner")]
        left: S,
        #[serde(with = "number::inner")]
        right: T,
    }
}

impl<S: Schedule, T: Schedule> Schedule for Times<S, T> {
    fn at(&self, step: u64) -> f64 {
        product(self.left.at(step), self.right.at(step))
    }

    fn first_value(&self) -> f64 {
        product(self.left.first_value(), self.right.first_value())
    }

    fn check(&self) -> Result<()> {
        self.left.check()?;
        self.right.check()
    }

    fn memory(&self) -> Memory<'_> {
        self.left.memory().and(self.right.memory())
    }

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.left.describe(f)?;
        f.write_str(".times(")?;
        self.right.describe(f)?;
        f.write_str(")")
    }
}
