//! Stochastic weight averaging.

use std::fmt;
use std::sync::Arc;

use super::averages::{Averages, Buffers, shows_averages};
use super::{Adapted, Adaptor};
use crate::error::{Error, Result, StateError, ensure_count};
use crate::params::{Element, Layout, ParamsMut};
use crate::state::{Commit, StateReader, StateWriter};
use crate::step::{Optimizer, Report, Step};

/// Keeps the mean of the parameters after chosen steps (stochastic weight averaging). Created by
/// [`OptimizerExt::swa`](crate::OptimizerExt::swa).
///
/// # Update rule
/// ```text
/// after step number start, start + every, start + 2·every, …   (the first step is number 1)
///     average ← average + (θ − average)/(n + 1),  n ← n + 1     (n = 0: average = θ)
/// ```
/// The average is updated in the pass that moves the parameters. If a tensor has no gradient in such a step, its average does not change,
/// unless [`buffers`](Adapted::buffers) is set. A call that only accumulates or that is skipped is not a step.
///
/// # Hyper-parameters
/// | name | default | range | meaning | unit |
/// |---|---|---|---|---|
/// | `start` | – | any | the first step that is averaged; with 0, the first one is step `every` | steps |
/// | `every` | – | ≥ 1 | the number of steps from one average to the next | steps |
///
/// # State
/// One element per parameter (4 bytes in f32), `start`, `every`, and the number of averaged steps. After the first average, `start` and
/// `every` must not change: a state with other values is rejected with [`StateError::SettingChanged`].
///
/// # Conventions
/// PyTorch's `AveragedModel(model)`, if `update_parameters` is called after those steps. Give the optimizer a learning rate that is high or
/// cyclic at the end. If the model has batch normalization, compute its statistics again for the averages.
///
/// # Errors
/// [`StepError::HyperParameter`](crate::error::StepError::HyperParameter) if `every` is 0. A step while the averages are [swapped
/// in](Swa::swap) returns [`StepError::Swapped`](crate::error::StepError::Swapped).
///
/// # Example
/// ```
/// use gradus::prelude::*;
/// use ndarray::array;
///
/// let mut opt = Sgd::new(1.0).swa(2, 2);
/// let mut w = array![0.0];
/// (0..4).try_for_each(|_| opt.step(&mut w, &array![1.0]).map(drop))?; // −1, −2, −3, −4
/// let mut average = w.clone();
/// opt.read(&mut average)?;
/// assert_eq!(average, array![-3.0]);
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// # References
/// P. Izmailov et al., *Averaging Weights Leads to Wider Optima and Better Generalization* (2018), [arXiv:1803.05407](https://arxiv.org/abs/1803.05407),
/// algorithm 1.
#[doc(alias("AveragedModel", "SWALR"))]
#[derive(Clone)]
pub struct Swa<A> {
    start: u64,
    every: u64,
    buffers: Buffers,
    averages: Averages<A>,
    averaged: u64,
}

shows_averages!(Swa, "the averages");

impl<A> Swa<A> {
    /// Averages the parameters after step `start`, and then every `every` steps.
    pub fn new(start: u64, every: u64) -> Self {
        Self { start, every, buffers: Buffers::default(), averages: Averages::default(), averaged: 0 }
    }

    /// The number of averaged steps.
    pub fn averaged(&self) -> u64 {
        self.averaged
    }
}

impl<O, A> Adapted<O, Swa<A>> {
    /// What the average of a tensor does in an averaged step that does not move it, such as a running mean whose gradient is `None`.
    #[doc(alias = "use_buffers")]
    pub fn buffers(mut self, buffers: Buffers) -> Self {
        self.buffers = buffers;
        self
    }
}

impl<A: Element> Swa<A> {
    fn check_own(&self, step: &Step<'_, A>) -> Result<()> {
        ensure_count("every", self.every)?;
        self.averages.check(step)
    }

    /// Whether the parameters count after a step that follows on so many.
    fn is_due(&self, steps: u64) -> bool {
        // At the end of its counter the optimizer inside refuses.
        let number = steps.checked_add(1);
        number.and_then(|number| number.checked_sub(self.start)).is_some_and(|since| since.is_multiple_of(self.every))
    }
}

impl<A: Element> Adaptor<A> for Swa<A> {
    fn check(&self, step: &Step<'_, A>, inner: &dyn Optimizer<A>) -> Result<()> {
        self.check_own(step)?;
        inner.check(step)
    }

    fn apply(&mut self, step: Step<'_, A>, inner: &mut dyn Optimizer<A>) -> Result<Report> {
        self.check_own(&step)?;
        if !self.is_due(inner.steps()) {
            return inner.apply(step);
        }
        let averaged = self.averaged.saturating_add(1);
        let report = self.averages.follow(inner, step, (1.0 / averaged as f64, self.buffers))?;
        if report.moved {
            self.averaged = averaged;
        }
        Ok(report)
    }

    fn describe(&self) -> String {
        format!("{self:?}")
    }

    fn moves_parameters(&self) -> bool {
        false
    }

    fn layout(&self) -> Option<&Arc<Layout>> {
        self.averages.layout()
    }

    fn write_state(&self, state: &mut StateWriter<'_>) {
        let mut node = state.node("swa");
        node.value("averaged", self.averaged);
        node.value("start", self.start);
        node.value("every", self.every);
        self.averages.write_state(&mut node);
    }

    fn read_state<'s>(&'s mut self, state: &mut StateReader<'_>) -> Result<Commit<'s>> {
        let node = state.node("swa")?;
        let (count, read) = (node.value("averaged", "a count")?, Averages::read_state(&node)?);
        for (name, own) in [("start", self.start), ("every", self.every)] {
            let saved: u64 = node.value(name, "a count")?;
            if count > 0 && saved != own {
                return Err(Error::State(StateError::SettingChanged {
                    saved: format!("swa {name} {saved}"),
                    given: format!("swa {name} {own}"),
                    reason: format!("it averages {count} steps already"),
                }));
            }
        }
        Ok(Commit::new(move || (self.averages, self.averaged) = (read, count)))
    }
}

impl<A> fmt::Debug for Swa<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "swa({}, {})", self.start, self.every)?;
        if self.buffers == Buffers::Stay { Ok(()) } else { write!(f, ".buffers({:?})", self.buffers) }
    }
}
