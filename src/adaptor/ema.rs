//! A running average of the parameters.

use std::fmt;
use std::sync::Arc;

use super::averages::{Averages, Buffers, shows_averages};
use super::{Adapted, Adaptor};
use crate::error::Result;
use crate::params::{Element, Layout, ParamsMut};
use crate::schedule::Hyper;
use crate::state::{Commit, StateReader, StateWriter};
use crate::step::{Optimizer, Report, Step};

/// Keeps an exponential moving average of the parameters. Created by [`OptimizerExt::ema`](crate::OptimizerExt::ema).
///
/// # Update rule
/// ```text
/// average ← average + w(θ − average)        θ after the step; first step: average = θ
///
/// w = 1 − d                                 d the decay of this step, d₀ … those of the steps averaged so far
/// w = 1 − min(d, (1 + t)/(10 + t))          warmup: t steps were averaged before this one
/// w = (1 − d)/(1 − d₀d₁…d)                  debiased
/// ```
/// θ is the parameter after the step, and d₀ … d are the decays of all steps averaged so far. The average is updated in the pass that moves
/// the parameters, so it needs no pass of its own. If a tensor has no gradient, its average does not change, unless
/// [`buffers`](Adapted::buffers) is set. A call that only accumulates or that is skipped is not a step.
///
/// The average is mixed into the parameters in two lines: `opt.read(&mut average)?` and `tree::lerp(&mut params, &average, 0.1)?`, with
/// [`tree::lerp`](crate::tree::lerp).
///
/// If the average is not the last adaptor in the chain, or the chain is in a box, use [`find_mut`](crate::OptimizerExt::find_mut):
/// `opt.find_mut::<Ema<f32>>()`.
///
/// # Hyper-parameters
/// | name | default | range | meaning |
/// |---|---|---|---|
/// | `decay` d | – | 0 ≤ d ≤ 1 | the fraction of the average that is kept per step; it averages over about 1/(1 − d) steps |
/// | [`warmup`](Adapted::warmup) | no | | a smaller decay in the first steps |
/// | [`debiased`](Adapted::debiased) | no | | an average that starts at zero, with bias correction |
/// | `buffers` | [`Buffers::Stay`] | | what the average of a tensor does in a step that does not move it |
///
/// A [`PowerEma`](super::PowerEma) as the decay gives an average over a fixed fraction of the run, whose length can be chosen after training.
///
/// # State
/// One element per parameter (4 bytes in f32), the number of averaged steps, and the product of their decays. Decay, warm-up and bias
/// correction are not part of the state: they may differ after loading.
///
/// # Conventions
/// - Default: PyTorch's `AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(d))`, which also starts with the parameters after the first
///   step. It is also optax's `ema(d, debias=False)` of the parameters, if that average starts with the parameters.
/// - `debiased(true)`: optax's `ema(d)` of the parameters. Its average m starts at zero and is corrected to m/(1 − dᵗ); the weight w above
///   gives the same numbers.
/// - `warmup(true)`: TensorFlow's `ExponentialMovingAverage` with `num_updates` = t, except that it starts with the parameters *before* the
///   first step.
///
/// # Errors
/// A step while the averages are [swapped in](Ema::swap) returns [`StepError::Swapped`](crate::error::StepError::Swapped).
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
#[must_use = "an adaptor does nothing until it is around an optimizer"]
#[derive(Clone)]
pub struct Ema<A> {
    decay: Hyper,
    warmup: bool,
    debiased: bool,
    buffers: Buffers,
    averages: Averages<A>,
    /// How many steps have been averaged.
    averaged: u64,
    /// The product of their decays.
    product: f64,
}

shows_averages!(Ema, "the averages");

impl<A> Ema<A> {
    /// An average with this decay: a number or a schedule.
    pub fn new(decay: impl Into<Hyper>) -> Self {
        let (averages, buffers) = (Averages::default(), Buffers::default());
        Self { decay: decay.into(), warmup: false, debiased: false, buffers, averages, averaged: 0, product: 1.0 }
    }
}

impl<O, A> Adapted<O, Ema<A>> {
    /// Whether to limit the decay to (1 + t)/(10 + t), where t is the number of steps averaged before. The average then follows the first
    /// steps faster.
    pub fn warmup(mut self, warmup: bool) -> Self {
        self.warmup = warmup;
        self
    }

    /// Whether the average starts at zero with bias correction, instead of starting with the parameters after the first step.
    pub fn debiased(mut self, debiased: bool) -> Self {
        self.debiased = debiased;
        self
    }

    /// What the average of a tensor does in a step that does not move it, such as a running mean whose gradient is `None`.
    ///
    /// ```
    /// use gradus::{adaptor::Buffers, prelude::*};
    /// use ndarray::array;
    ///
    /// let mut opt = Sgd::new(1.0).ema(0.5).buffers(Buffers::Copy);
    /// let mut model = (array![4.0], array![10.0]); // a weight, and a running mean
    /// opt.step(&mut model, &(array![1.0], None::<ndarray::Array1<f64>>))?;
    /// model.1[0] = 20.0; // the next forward pass
    /// opt.step(&mut model, &(array![1.0], None::<ndarray::Array1<f64>>))?;
    /// opt.swap(&mut model)?;
    /// assert_eq!(model, (array![2.5], array![20.0]));
    /// # Ok::<(), gradus::Error>(())
    /// ```
    #[doc(alias = "use_buffers")]
    pub fn buffers(mut self, buffers: Buffers) -> Self {
        self.buffers = buffers;
        self
    }
}

impl<A: Element> Ema<A> {
    /// The decay of the step of this number, if it and the step are in order.
    fn check_own(&self, step: &Step<'_, A>, number: u64) -> Result<f64> {
        let decay = self.decay.within("decay", 0.0..=1.0, number)?;
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

impl<A: Element> Adaptor<A> for Ema<A> {
    fn check(&self, step: &Step<'_, A>, inner: &dyn Optimizer<A>) -> Result<()> {
        self.check_own(step, inner.steps())?;
        inner.check(step)
    }

    fn apply(&mut self, step: Step<'_, A>, inner: &mut dyn Optimizer<A>) -> Result<Report> {
        let decay = self.check_own(&step, inner.steps())?;
        let product = self.product * decay;
        let weight = self.weight(decay, product);
        let report = self.averages.follow(inner, step, (weight, self.buffers))?;
        if report.moved {
            (self.averaged, self.product) = (self.averaged.saturating_add(1), product);
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
        let mut node = state.node("ema");
        node.value("averaged", self.averaged);
        node.value("product", self.product);
        self.decay.write_state("decay", &mut node);
        self.averages.write_state(&mut node);
    }

    fn read_state<'s>(&'s mut self, state: &mut StateReader<'_>) -> Result<Commit<'s>> {
        let node = state.node("ema")?;
        let count = node.value("averaged", "a count")?;
        let decays = node.value_where("product", "a number from 0 to 1", |product| (0.0..=1.0).contains(product))?;
        let decay = self.decay.read_state("decay", &node)?;
        let read = Averages::read_state(&node)?;
        let Self { averages, averaged, product, .. } = self;
        Ok(Commit::new(move || (*averages, *averaged, *product) = (read, count, decays)).and(decay))
    }
}

impl<A> fmt::Debug for Ema<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ema({:?})", self.decay)?;
        let options = [("warmup", self.warmup), ("debiased", self.debiased)];
        options.iter().filter(|(_, on)| *on).try_for_each(|(name, _)| write!(f, ".{name}(true)"))?;
        if self.buffers == Buffers::Stay { Ok(()) } else { write!(f, ".buffers({:?})", self.buffers) }
    }
}
