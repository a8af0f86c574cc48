//! Lookahead: slow weights that follow the parameters every few steps.

use std::fmt;
use std::iter::repeat_n;
use std::sync::Arc;

use super::Adaptor;
use super::averages::{Averages, shows_averages};
use crate::error::{Result, ensure_count};
use crate::params::{Element, Layout, Owned, ParamsMut, TensorInfo};
use crate::schedule::Hyper;
use crate::state::{Commit, StateReader, StateWriter};
use crate::step::{Optimizer, Report, Step, Tensor};

/// Every k steps, moves a second set of weights, the slow weights, a part of the way to the parameters, and resets the parameters to them.
/// Created by [`OptimizerExt::lookahead`](crate::OptimizerExt::lookahead).
///
/// # Update rule
/// ```text
/// θ ← the step of the optimizer inside           before the first step: φ = θ
/// every k-th step:   φ ← φ + α(θ − φ),  θ ← φ
/// ```
/// φ are the slow weights. If a tensor does not move in a k-th step, because it is frozen or has no gradient, it is not reset, and its slow
/// weights do not change. Both wait for the next k-th step that moves the tensor. If the k-th step moves nothing, for example because
/// L-BFGS has converged, nothing changes. A call that only accumulates or that is skipped is not a step.
///
/// The k-th step needs a second pass over the parameters: 16 bytes per parameter in f32.
///
/// # Hyper-parameters
/// | name | default | range | meaning |
/// |---|---|---|---|
/// | `every` k | – | ≥ 1 | the number of steps between resets; the paper uses 5 and 10 |
/// | `slow_step` α | – | 0 ≤ α ≤ 1 | the fraction of the way that the slow weights move; the paper uses 0.5 and 0.8 |
///
/// # State
/// One element per parameter (4 bytes in f32). A reset does not change the state of the optimizer inside. `every` and `slow_step` are not
/// part of the state: they may differ after loading.
///
/// # Conventions
/// optax's `lookahead(optimizer, k, α)` with `reset_state=False`. The slow weights start as the parameters there, too.
///
/// # Errors
/// [`StepError::HyperParameter`](crate::error::StepError::HyperParameter) for a value out of range. A step while the slow weights are
/// [swapped in](Lookahead::swap) returns [`StepError::Swapped`](crate::error::StepError::Swapped).
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
/// M. R. Zhang et al., *Lookahead Optimizer: k steps forward, 1 step back* (2019), [arXiv:1907.08610](https://arxiv.org/abs/1907.08610), algorithm 1.
#[derive(Clone)]
pub struct Lookahead<A> {
    every: u64,
    slow_step: Hyper,
    averages: Averages<A>,
}

shows_averages!(Lookahead, "the slow weights");

impl<A> Lookahead<A> {
    /// Moves the slow weights a fraction `slow_step` of the way to the parameters every `every` steps.
    pub fn new(every: u64, slow_step: impl Into<Hyper>) -> Self {
        Self { every, slow_step: slow_step.into(), averages: Averages::default() }
    }
}

impl<A: Element> Lookahead<A> {
    /// The slow weights' step after so many steps, if it and the optimizer's are in order.
    fn check_own(&self, step: &Step<'_, A>, at: u64) -> Result<f64> {
        ensure_count("every", self.every)?;
        self.averages.check(step)?;
        let (name, range) = ("slow_step", 0.0..=1.0);
        match are_halves::<A>() {
            true => self.slow_step.within(name, range, at), // computed with in `f64`
            false => self.slow_step.within_as::<A>(name, range, at),
        }
    }
}

/// Whether the elements are of 16 bits.
fn are_halves<A>() -> bool {
    size_of::<A>() < size_of::<f32>()
}

/// φ ← φ + α(θ − φ), θ ← φ for one tensor.
fn synchronize<A: Element>(info: &TensorInfo, tensor: &mut Tensor<'_, A>, slow: &mut Owned<A>, slow_step: f64) {
    let mut slow = slow.as_values_mut();
    let mut fast = tensor.param.view_mut(info.shape());
    let own = A::from_f64(slow_step);
    let halves = are_halves::<A>();
    ndarray::Zip::from(&mut slow.view_mut(info.shape())).and(&mut fast).for_each(|slow, fast| {
        // Where they are the same they stay so, infinities too.
        if *fast != *slow {
            *slow = match halves {
                true => A::from_f64(slow.as_f64() + slow_step * (fast.as_f64() - slow.as_f64())),
                false => *slow + own * (*fast - *slow),
            };
        }
        *fast = *slow;
    });
}

impl<A: Element> Adaptor<A> for Lookahead<A> {
    fn check(&self, step: &Step<'_, A>, inner: &dyn Optimizer<A>) -> Result<()> {
        self.check_own(step, inner.steps())?;
        inner.check(step)
    }

    fn apply(&mut self, mut step: Step<'_, A>, inner: &mut dyn Optimizer<A>) -> Result<Report> {
        let slow_step = self.check_own(&step, inner.steps())?;
        let made = self.averages.begin(&step); // the slow weights begin as the parameters before the step
        // At the end of its counter the optimizer inside refuses.
        if !inner.steps().checked_add(1).is_some_and(|number| number.is_multiple_of(self.every)) {
            let report = inner.apply(step);
            return self.averages.tensors.settle(made, report);
        }
        // What follows the parameters is to follow them to the slow weights, not to where they are in between.
        let tensors = step.len();
        let result = step.lend(false).watched(repeat_n(true, tensors), |step| inner.apply(step));
        let (report, moved) = self.averages.tensors.settle(made, result)?;
        if !report.moved {
            return Ok(report);
        }
        let mut moved = moved.into_iter();
        self.averages.tensors.each(&mut step, |info, tensor, slow| {
            // What has not been moved is left as it is: frozen, without gradient, or skipped.
            if moved.next() == Some(true) {
                synchronize(info, tensor, slow, slow_step);
                tensor.let_follow(info);
            }
        });
        Ok(report)
    }

    fn describe(&self) -> String {
        format!("{self:?}")
    }

    fn layout(&self) -> Option<&Arc<Layout>> {
        self.averages.layout()
    }

    fn write_state(&self, state: &mut StateWriter<'_>) {
        let mut node = state.node("lookahead");
        self.slow_step.write_state("slow_step", &mut node);
        self.averages.write_state(&mut node);
    }

    fn read_state<'s>(&'s mut self, state: &mut StateReader<'_>) -> Result<Commit<'s>> {
        let node = state.node("lookahead")?;
        let slow_step = self.slow_step.read_state("slow_step", &node)?;
        let read = Averages::read_state(&node)?;
        Ok(Commit::new(move || self.averages = read).and(slow_step))
    }
}

impl<A> fmt::Debug for Lookahead<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lookahead({}, {:?})", self.every, self.slow_step)
    }
}
