//! Schedules: a hyper-parameter as a pure function of the step.

use crate::error::Result;

/// A hyper-parameter as a pure function of the step.
pub trait Schedule: Send + Sync {
    /// The value at a step; 0 is the first.
    fn at(&self, step: u64) -> f64;

    /// Whether the schedule's own arguments make sense.
    fn check(&self) -> Result<()> {
        Ok(())
    }
}

impl Schedule for f64 {
    fn at(&self, _: u64) -> f64 {
        *self
    }
}

impl<F: Fn(u64) -> f64 + Send + Sync> Schedule for F {
    fn at(&self, step: u64) -> f64 {
        self(step)
    }
}

impl Schedule for Box<dyn Schedule> {
    fn at(&self, step: u64) -> f64 {
        (**self).at(step)
    }

    fn check(&self) -> Result<()> {
        (**self).check()
    }
}

/// x
pub struct Cosine(f64);
impl Schedule for Cosine {
    fn at(&self, step: u64) -> f64 {
        self.0 / step as f64
    }
}
