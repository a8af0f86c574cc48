//! A linear rise before a schedule.

use std::fmt;

use super::combinator;
use crate::error::Result;
use crate::schedule::anneal::{finite, mix, product, progress};
use crate::schedule::line::short;
#[cfg(feature = "serde")]
use crate::schedule::number;
use crate::schedule::{Memory, Schedule};

combinator! {
    /// A linear rise to a schedule's first value, then the schedule: see [`warmup`](crate::schedule::ScheduleExt::warmup).
    pub struct Warmup<S> {
        #[serde(with = "number::inner")]
        inner: S,
        #[serde(default, with = "number")]
        start_factor: f64,
        #[serde(deserialize_with = "number::count")]
        steps: u64,
    }
}

impl<S: Schedule> Warmup<S> {
    /// The value at a step of the warm-up.
    fn on_the_way(&self, step: u64) -> f64 {
        product(self.inner.first_value(), mix(self.start_factor, 1.0, progress(step, self.steps)))
    }
}

impl<S: Schedule> Schedule for Warmup<S> {
    fn at(&self, step: u64) -> f64 {
        match step.checked_sub(self.steps) {
            Some(step) => self.inner.at(step),
            None => self.on_the_way(step),
        }
    }

    fn first_value(&self) -> f64 {
        if self.steps == 0 { self.inner.first_value() } else { self.on_the_way(0) }
    }

    fn check(&self) -> Result<()> {
        finite("Warmup", "start_factor", self.start_factor)?;
        self.inner.check()
    }

    fn memory(&self) -> Memory<'_> {
        self.inner.memory()
    }

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { inner, start_factor, steps } = self;
        inner.describe(f)?;
        match *start_factor {
            0.0 => write!(f, ".warmup({steps})"),
            start_factor => write!(f, ".warmup_from({}, {steps})", short(start_factor)),
        }
    }
}
