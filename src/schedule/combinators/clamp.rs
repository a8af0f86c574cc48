//! A schedule within bounds.

use std::fmt;

use super::combinator;
use crate::error::Result;
use crate::schedule::anneal::{clamp, require};
use crate::schedule::line::short;
#[cfg(feature = "serde")]
use crate::schedule::number;
use crate::schedule::{Memory, Schedule};

combinator! {
    /// A schedule kept within bounds: see [`clamp`](crate::schedule::ScheduleExt::clamp).
    pub struct Clamp<S> {
        #[serde(with = "number::inner")]
        inner: S,
        #[serde(default = "no_min", with = "number")]
        min: f64,
        #[serde(default = "no_max", with = "number")]
        max: f64,
    }
}

#[cfg(feature = "serde")]
fn no_min() -> f64 {
    f64::NEG_INFINITY
}

#[cfg(feature = "serde")]
fn no_max() -> f64 {
    f64::INFINITY
}

impl<S: Schedule> Schedule for Clamp<S> {
    fn at(&self, step: u64) -> f64 {
        clamp(self.inner.at(step), self.min, self.max)
    }

    fn first_value(&self) -> f64 {
        clamp(self.inner.first_value(), self.min, self.max)
    }

    fn check(&self) -> Result<()> {
        require(!self.max.is_nan(), "Clamp", "max", self.max, "a number, or infinity for none")?;
        require(self.min <= self.max, "Clamp", "min", self.min, "a number, at most the max")?;
        self.inner.check()
    }

    fn memory(&self) -> Memory<'_> {
        self.inner.memory()
    }

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.describe(f)?;
        write!(f, ".clamp({}, {})", short(self.min), short(self.max))
    }
}
