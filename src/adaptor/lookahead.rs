//! Slow weights that follow the fast ones from time to time.

use std::mem::take;
use std::sync::Arc;

use super::averages::{Averages, shows_averages};
use super::{around, count_inner, swa::at_least_one};
use crate::error::Result;
use crate::follower::follow;
use crate::hyper::Hyper;
use crate::optimizer::Optimizer;
use crate::params::{Layout, Owned, ParamsMut, TensorInfo};
use crate::scalar::Element;
use crate::state::{Commit, StateReader, StateWriter};
use crate::step::{Report, Step, Tensor};

/// Explores with fast weights and follows with slow ones: made by [`Optimizer::lookahead`].
///
/// # Update rule
/// ```text
/// θ ← the step of the optimizer inside           φ, the slow weights, begin as θ before the first step
/// every k-th step:   φ ← φ + α(θ − φ),  θ ← φ
/// ```
/// Calls that only accumulate or are skipped are no steps. The k-th step takes a second pass over the parameters, 16 bytes a
/// parameter in f32.
///
/// # Hyper-parameters
/// | name | default | range | meaning |
/// |---|---|---|---|
/// | `every` k | – | ≥ 1 | steps of the fast weights for one of the slow; the paper has 5 and 10 |
/// | `slow_step` α | – | 0 ≤ α ≤ 1 | how far the slow weights go; the paper has 0.5 and 0.8 |
///
/// # State
/// One element per parameter (4 bytes in f32). The state of the optimizer inside is kept when the fast weights are set back.
///
/// # Conventions
/// `optax.lookahead(optimizer, k, α)`, with `reset_state=False`; its initial slow weights are the parameters, too.
///
/// # Errors
/// [`Error::HyperParameter`](crate::Error::HyperParameter); a step while the slow weights are [swapped](Lookahead::swap) in is
/// [`Error::Swapped`](crate::Error::Swapped).
///
/// # Example
/// ```
/// use gradus::prelude::*;
/// use ndarray::array;
///
/// let mut opt = Sgd::new(1.0).lookahead(2, 0.5);
/// let mut w = array![0.0];
/// opt.step(&mut w, &array![1.0])?;
/// assert_eq!(w, array![-1.0]);
/// opt.step(&mut w, &array![1.0])?; // to −2, and half of the way back
/// assert_eq!(w, array![-1.0]);
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// # References
/// M. R. Zhang et al., *Lookahead Optimizer: k steps forward, 1 step back* (2019), arXiv:1907.08610, algorithm 1.
#[derive(Debug, Clone)]
pub struct Lookahead<O, A> {
    inner: O,
    every: u64,
    slow_step: Hyper,
    averages: Averages<A>,
}

around!(Lookahead<O, A>);
shows_averages!(Lookahead, "the slow weights");

impl<O, A> Lookahead<O, A> {
    pub(crate) fn new(inner: O, every: u64, slow_step: impl Into<Hyper>) -> Self {
        Self { inner, every, slow_step: slow_step.into(), averages: Averages::default() }
    }
}

impl<A: Element, O: Optimizer<A>> Lookahead<O, A> {
    /// The slow weights' step, if it and the optimizer's are in order.
    fn check_own(&self, step: &Step<'_, A>) -> Result<f64> {
        at_least_one("every", self.every)?;
        self.averages.check(step)?;
        self.slow_step.within("slow_step", 0.0..=1.0, self.inner.steps())
    }
}

/// φ ← φ + α(θ − φ), θ ← φ for one tensor.
fn synchronise<A: Element>(info: &TensorInfo, tensor: &mut Tensor<'_, A>, slow: &mut Owned<A>, slow_step: A) {
    let mut slow = slow.as_values_mut();
    let mut fast = tensor.param.view_mut(info.shape());
    ndarray::Zip::from(&mut slow.view_mut(info.shape())).and(&mut fast).for_each(|slow, fast| {
        // Where they are the same they stay so, infinities too.
        if *fast != *slow {
            *slow = *slow + slow_step * (*fast - *slow);
        }
        *fast = *slow;
    });
}

impl<A: Element, O: Optimizer<A>> Optimizer<A> for Lookahead<O, A> {
    fn check(&self, step: &Step<'_, A>) -> Result<()> {
        self.check_own(step)?;
        self.inner.check(step)
    }

    fn apply(&mut self, mut step: Step<'_, A>) -> Result<Report> {
        let slow_step = A::from_f64(self.check_own(&step)?);
        let first = self.averages.is_empty();
        self.averages.with_each(&mut step, |_, _, _| {}); // the slow weights begin as the parameters before the step
        if !(self.inner.steps() + 1).is_multiple_of(self.every) {
            let report = self.inner.apply(step);
            if first && report.is_err() {
                self.averages = Averages::default();
            }
            return report;
        }
        // What follows the parameters is to follow them to the slow weights, not to where they are in between.
        let followers: Vec<_> = step.iter_mut().map(|(_, tensor)| take(&mut tensor.followers)).collect();
        let (layout, ranks) = (Arc::clone(step.layout()), step.ranks());
        let tensors = step.iter_mut().map(|(_, tensor)| tensor.reborrow()).collect();
        let result = self.inner.apply(Step::from_parts(layout, tensors, ranks));
        if first && result.is_err() {
            self.averages = Averages::default();
        }
        let report = result?;
        let mut followers = followers.into_iter();
        self.averages.with_each(&mut step, |info, tensor, slow| {
            let mut followers = followers.next().unwrap_or_default();
            if report.moved && !tensor.frozen {
                synchronise(info, tensor, slow, slow_step);
                follow(&mut followers, &tensor.param.as_values(), info.shape());
            }
        });
        Ok(report)
    }

    count_inner!();

    fn layout(&self) -> Option<&Arc<Layout>> {
        self.averages.layout().or(self.inner.layout())
    }

    fn write_state(&self, state: &mut StateWriter<'_>) {
        let mut node = state.node("lookahead");
        self.slow_step.write_state(&mut node);
        self.averages.write_state(&mut node);
        self.inner.write_state(state);
    }

    fn read_state<'s>(&'s mut self, state: &mut StateReader<'_>) -> Result<Commit<'s>> {
        let mut node = state.node("lookahead")?;
        let slow_step = self.slow_step.read_state(&mut node)?;
        let read = Averages::read_state(&node)?;
        let Self { inner, averages, .. } = self;
        Ok(inner.read_state(state)?.and(Commit::new(move || *averages = read)).and(slow_step))
    }
}
