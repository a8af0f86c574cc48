//! Clipping, as functions and as adaptors: PyTorch's and optax's numbers, and the laws.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod edges;
mod factors;
mod golden;
mod laws;
mod qk_clip;

use gradus::adaptor::Transform;
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

    fn conclude(&mut self, result: Result<Report>) -> Result<Report> {
        result
    }

    fn replace_learning_rate(&mut self, _: gradus::Hyper) {}

    fn part(&self, _: std::any::TypeId) -> Option<&dyn std::any::Any> {
        None
    }

    fn part_mut(&mut self, _: std::any::TypeId) -> Option<&mut dyn std::any::Any> {
        None
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

/// A way of clipping, whatever its policy is called by.
pub(crate) trait Clipping<A: Element>: Transform<A> + Clone {
    fn policy(self, policy: NonFinite) -> Self;
}

macro_rules! clipping {
    ($($clipping:ty)*) => {
        $(
            impl<A: Element> Clipping<A> for $clipping {
                fn policy(self, policy: NonFinite) -> Self {
                    self.non_finite(policy)
                }
            }
        )*
    };
}

clipping!(gradus::clip::Norm gradus::clip::Value gradus::clip::Adaptive);
