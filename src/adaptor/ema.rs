//! A running average of the parameters.

use std::sync::Arc;

use super::around;
use crate::error::Result;
use crate::follower::Follower;
use crate::hyper::Hyper;
use crate::optimizer::Optimizer;
use crate::params::{Layout, Owned, ParamsMut, for_each_mut};
use crate::scalar::Element;
use crate::state::{Commit, StateReader, StateWriter};
use crate::step::{Report, Step};

/// Keeps an exponential moving average of the parameters: made by [`Optimizer::ema`].
///
/// # Update rule
/// ```text
/// average ← average + (1 − d)(θ − average)        (first step: average = θ)
/// ```
/// with θ after the step. The average is brought up to date in the sweep that moves the parameters, block by block while
/// they are in the cache, and costs no pass of its own. A tensor without gradient keeps its average.
/// Calls that only accumulate or are skipped are no steps.
///
/// # Hyper-parameters
/// | name | default | range | meaning |
/// |---|---|---|---|
/// | `decay` d | – | 0 ≤ d ≤ 1 | share of the average kept a step; it averages over about 1/(1 − d) steps |
///
/// # State
/// One element per parameter (4 bytes in f32).
///
/// # Conventions
/// `torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(d))`, which also begins with the
/// parameters after the first step, and `optax.ema` of the parameters without debiasing.
///
/// # Example
/// ```
/// use gradus::prelude::*;
/// use ndarray::array;
///
/// let mut opt = Sgd::new(1.0).ema(0.5);
/// let mut w = array![4.0];
/// opt.step(&mut w, &array![2.0])?; // w = 2, its average too
/// opt.step(&mut w, &array![2.0])?; // w = 0
/// let mut average = w.clone();
/// opt.read(&mut average)?;
/// assert_eq!(average, array![1.0]);
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// # References
/// B. T. Polyak and A. B. Juditsky, *Acceleration of stochastic approximation by averaging*, SIAM J. Control Optim. 30
/// (1992).
#[derive(Debug, Clone)]
pub struct Ema<O, A> {
    inner: O,
    decay: Hyper,
    layout: Option<Arc<Layout>>,
    /// Of the tensors that steps have held; empty for the others.
    averages: Vec<Owned<A>>,
    /// Whether there has been a step since the averages were made.
    begun: bool,
}

around!(Ema<O, A>);

impl<O, A> Ema<O, A> {
    pub(crate) fn new(inner: O, decay: impl Into<Hyper>) -> Self {
        Self { inner, decay: decay.into(), layout: None, averages: Vec::new(), begun: false }
    }
}

impl<A: Element, O: Optimizer<A>> Ema<O, A> {
    /// Writes the averages into a tree of the parameters' layout. Tensors without an average are left as they are: all
    /// of them before the first step, and those that a [`route`](Optimizer::route) gives to another optimizer.
    ///
    /// # Errors
    /// [`Error::ParametersChanged`](crate::Error::ParametersChanged) if the tree is another.
    pub fn read(&self, tree: &mut dyn ParamsMut<Elem = A>) -> Result<()> {
        let Some(layout) = &self.layout else { return Ok(()) };
        layout.ensure_same(&Layout::of(&*tree)?)?;
        let mut averages = self.averages.iter();
        for_each_mut(tree, |_, shape, values| {
            let Some(mut values) = values else { return };
            if let Some(average) = averages.next().filter(|average| !average.is_empty()) {
                values.view_mut(shape).assign(&average.as_values().view(shape));
            }
        });
        Ok(())
    }
}

impl<A: Element, O: Optimizer<A>> Ema<O, A> {
    /// The decay of this step, if it and the step are in order.
    fn check_own(&self, step: &Step<'_, A>) -> Result<f64> {
        let decay = self.decay.within("decay", 0.0..=1.0, self.inner.steps())?;
        Layout::ensure_known(self.layout.as_ref(), step.layout())?;
        Ok(decay)
    }
}

impl<A: Element, O: Optimizer<A>> Optimizer<A> for Ema<O, A> {
    fn check(&self, step: &Step<'_, A>) -> Result<()> {
        self.check_own(step)?;
        self.inner.check(step)
    }

    fn apply(&mut self, step: Step<'_, A>) -> Result<Report> {
        let decay = self.check_own(&step)?;
        let weight = if self.begun { 1.0 - decay } else { 1.0 };
        let first = self.averages.is_empty();
        if first {
            self.layout = Some(Arc::clone(step.layout()));
            self.averages.resize_with(step.layout().len(), Owned::default);
        }
        let mut step: Step<'_, A> = step; // a shorter lifetime: from here on it borrows from the averages
        let mut averages = self.averages.iter_mut();
        let mut next = 0;
        for (info, tensor) in step.iter_mut() {
            let Some(average) = averages.nth(tensor.index() - next) else { break };
            next = tensor.index() + 1;
            if average.is_empty() {
                *average = Owned::copy(&tensor.param(), info.shape());
            }
            tensor.followers.push(Follower::average_in(average.as_values_mut(), weight));
        }
        let report = self.inner.apply(step);
        match &report {
            Ok(report) => self.begun |= report.moved,
            Err(_) if first => (self.layout, self.averages) = (None, Vec::new()),
            Err(_) => {}
        }
        report
    }

    fn learning_rate(&self) -> f64 {
        self.inner.learning_rate()
    }

    fn steps(&self) -> u64 {
        self.inner.steps()
    }

    fn layout(&self) -> Option<&Arc<Layout>> {
        self.layout.as_ref().or(self.inner.layout())
    }

    fn write_state(&self, state: &mut StateWriter<'_>) {
        let mut node = state.node("ema");
        node.value("begun", self.begun);
        self.decay.write_state(&mut node);
        Owned::write_all(&self.averages, self.layout.as_deref(), &mut node, "average");
        self.inner.write_state(state);
    }

    fn read_state<'s>(&'s mut self, state: &mut StateReader<'_>) -> Result<Commit<'s>> {
        let mut node = state.node("ema")?;
        let has_begun = node.value("begun", "true or false")?;
        let decay = self.decay.read_state(&mut node)?;
        let (read, known) = (Owned::read_all(&node, "average")?, node.layout().cloned());
        let Self { inner, averages, layout, begun, .. } = self;
        let own = Commit::new(move || (*averages, *layout, *begun) = (read, known, has_begun));
        Ok(inner.read_state(state)?.and(own).and(decay))
    }
}
