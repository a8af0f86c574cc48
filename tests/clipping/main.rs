//! Clipping, as functions and as adaptors: PyTorch's and optax's numbers, and the laws.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod edges;
mod factors;
mod golden;
mod laws;

use gradus::prelude::*;
use gradus::{Commit, Report, Result, StateReader, StateWriter, Step};
use ndarray::ArrayD;

/// An optimizer that moves nothing and keeps the gradients that it was given.
#[derive(Debug, Clone, Default)]
pub(crate) struct Probe<A> {
    seen: Vec<ArrayD<A>>,
    steps: u64,
}

impl<A: Scalar> Optimizer<A> for Probe<A> {
    fn check(&self, _: &Step<'_, A>) -> Result<()> {
        Ok(())
    }

    fn apply(&mut self, step: Step<'_, A>) -> Result<Report> {
        self.seen = step.grads().map(|(info, grad)| grad.to_array(info.shape())).collect();
        self.steps += 1;
        Ok(Report::new(1.0, true))
    }

    fn learning_rate(&self) -> f64 {
        1.0
    }

    fn steps(&self) -> u64 {
        self.steps
    }

    fn layout(&self) -> Option<&std::sync::Arc<gradus::params::Layout>> {
        None
    }

    fn write_state(&self, _: &mut StateWriter<'_>) {}

    fn read_state<'s>(&'s mut self, _: &mut StateReader<'_>) -> Result<Commit<'s>> {
        Ok(Commit::nothing())
    }
}
