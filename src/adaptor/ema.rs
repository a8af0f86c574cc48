//! A running average of the parameters.

use std::sync::Arc;

use super::averages::{Averages, shows_averages};
use super::{around, count_inner};
use crate::error::Result;
use crate::params::{Element, Layout, ParamsMut};
use crate::schedule::Hyper;
use crate::state::{Commit, StateReader, StateWriter};
use crate::step::{Optimizer, Report, Step};

/// Keeps an exponential moving average of the parameters: made by [`OptimizerExt::ema`](crate::OptimizerExt::ema).
///
/// # Update rule
/// ```text
/// average ← average + w(θ − average)        θ after the step; first step: average = θ
///
/// w = 1 − d                                 d the decay of this step, d₀ … those of the steps averaged so far
/// w = 1 − min(d, (1 + t)/(10 + t))          warmup: t steps were averaged before this one
/// w = (1 − d)/(1 − d₀d₁…d)                  debiased
/// ```
/// The average is brought up to date in the sweep that moves the parameters, block by block while they are in the cache, and
/// costs no pass of its own. A tensor without gradient keeps its average. Calls that only accumulate or are skipped are no
/// steps.
///
/// # Hyper-parameters
/// | name | default | range | meaning |
/// |---|---|---|---|
/// | `decay` d | – | 0 ≤ d ≤ 1 | share of the average kept a step; it averages over about 1/(1 − d) steps |
/// | [`warmup`](Ema::warmup) | no | | a shorter memory at first |
/// | [`debiased`](Ema::debiased) | no | | as if the average had begun at zero, with bias correction |
///
/// # State
/// One element per parameter (4 bytes in f32), how many steps have been averaged, and the product of their decays. Decay, warm-up
/// and correction are settings: they may be others after loading, and hold from then on.
///
/// # Conventions
/// Plain: `torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(d))`, which also begins with the
/// parameters after the first step, and `optax.ema(d, debias=False)` of the parameters begun with them. Debiased:
/// `optax.ema(d)` of the parameters, whose correction m/(1 − dᵗ) of an average m from zero is this weight. Warm-up:
/// TensorFlow's `ExponentialMovingAverage` with `num_updates` = t, which begins with the parameters *before* the first step.
///
/// # Errors
/// A step while the averages are [swapped](Ema::swap) in is [`StepError::Swapped`](crate::error::StepError::Swapped).
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
/// opt.swap(&mut w)?;
/// assert_eq!(w, array![1.0]); // the average, to be evaluated
/// opt.swap(&mut w)?;
/// assert_eq!(w, array![0.0]);
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// # References
/// B. T. Polyak and A. B. Juditsky, *Acceleration of stochastic approximation by averaging*, SIAM J. Control Optim. 30
/// (1992).
#[doc(alias = "AveragedModel")]
#[derive(Debug, Clone)]
pub struct Ema<O, A> {
    inner: O,
    decay: Hyper,
    warmup: bool,
    debiased: bool,
    averages: Averages<A>,
    /// How many steps have been averaged.
    averaged: u64,
    /// The product of their decays.
    product: f64,
}

around!(Ema<O, A>);
shows_averages!(Ema, "the averages");

impl<O, A> Ema<O, A> {
    pub(crate) fn new(inner: O, decay: impl Into<Hyper>) -> Self {
        let averages = Averages::default();
        Self { inner, decay: decay.into(), warmup: false, debiased: false, averages, averaged: 0, product: 1.0 }
    }

    /// Forgets faster at first: the decay is at most (1 + t)/(10 + t), with t the number of steps averaged before.
    pub fn warmup(mut self) -> Self {
        self.warmup = true;
        self
    }

    /// Weighs the first steps as those after them, not as all that came before.
    pub fn debiased(mut self) -> Self {
        self.debiased = true;
        self
    }
}

impl<A: Element, O: Optimizer<A>> Ema<O, A> {
    /// The decay of this step, if it and the step are in order.
    fn check_own(&self, step: &Step<'_, A>) -> Result<f64> {
        let decay = self.decay.within("decay", 0.0..=1.0, self.inner.steps())?;
        self.averages.check(step)?;
        let t = self.averaged as f64;
        Ok(if self.warmup { decay.min((1.0 + t) / (10.0 + t)) } else { decay })
    }

    /// The share of the new parameters in the average, if `product` is that of all decays.
    fn weight(&self, decay: f64, product: f64) -> f64 {
        match (self.averaged, self.debiased && product < 1.0) {
            (0, _) => 1.0,
            (_, true) => (1.0 - decay) / (1.0 - product),
            (_, false) => 1.0 - decay,
        }
    }
}

impl<A: Element, O: Optimizer<A>> Optimizer<A> for Ema<O, A> {
    fn check(&self, step: &Step<'_, A>) -> Result<()> {
        self.check_own(step)?;
        self.inner.check(step)
    }

    fn apply(&mut self, step: Step<'_, A>) -> Result<Report> {
        step.ensure_writable()?;
        let decay = self.check_own(&step)?;
        let product = self.product * decay;
        let weight = self.weight(decay, product);
        let report = self.averages.follow(&mut self.inner, step, weight)?;
        if report.moved {
            (self.averaged, self.product) = (self.averaged.saturating_add(1), product);
        }
        Ok(report)
    }

    count_inner!();

    fn layout(&self) -> Option<&Arc<Layout>> {
        self.averages.layout().or(self.inner.layout())
    }

    fn write_state(&self, state: &mut StateWriter<'_>) {
        let mut node = state.node("ema");
        node.value("averaged", self.averaged);
        node.value("product", self.product);
        self.decay.write_state("decay", &mut node);
        self.averages.write_state(&mut node);
        self.inner.write_state(state);
    }

    fn read_state<'s>(&'s mut self, state: &mut StateReader<'_>) -> Result<Commit<'s>> {
        let node = state.node("ema")?;
        let count = node.value("averaged", "a count")?;
        let decays = node.value_where("product", "a number from 0 to 1", |product| (0.0..=1.0).contains(product))?;
        let decay = self.decay.read_state("decay", &node)?;
        let read = Averages::read_state(&node)?;
        let Self { inner, averages, averaged, product, .. } = self;
        let own = Commit::new(move || (*averages, *averaged, *product) = (read, count, decays));
        Ok(inner.read_state(state)?.and(own).and(decay))
    }
}
