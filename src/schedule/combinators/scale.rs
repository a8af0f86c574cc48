//! A schedule times a number.

use std::fmt;

use super::combinator;
use crate::error::Result;
use crate::schedule::anneal::{finite, product};
use crate::schedule::line::short;
#[cfg(feature = "serde")]
use crate::schedule::number;
use crate::schedule::{Memory, Schedule};

combinator! {
    /// A schedule times a number: see [`scale`](crate::schedule::ScheduleExt::scale).
    pub struct Scale<S> {
        #[serde(with = "number::inner")]
        inner: S,
        #[serde(with = "number")]
        factor: f64,
    }
}

impl<S: Schedule> Schedule for Scale<S> {
    fn at(&self, step: u64) -> f64 {
        product(self.inner.at(step), self.factor)
    }

    fn first_value(&self) -> f64 {
        product(self.inner.first_value(), self.factor)
    }

    fn check(&self) -> Result<()> {
        finite("Scale", "factor", self.factor)?;
        self.inner.check()
    }

    fn memory(&self) -> Memory<'_> {
        self.inner.memory()
    }

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.describe(f)?;
        write!(f, ".scale({})", short(self.factor))
    }
}
