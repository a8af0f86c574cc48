//! Steps left out because their gradient is much larger than usual.

use std::fmt;
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::Arc;

use super::{Adapted, Adaptor, Outcome, adapted};
use crate::error::Result;
use crate::params::{Element, Layout};
use crate::schedule::Hyper;
use crate::state::{Commit, StateReader, StateWriter};
use crate::step::{Optimizer, Report, Step};

/// Skips a step whose gradient norm is much larger than those of the steps before it. Created by
/// [`GuardExt::skip_spikes`](crate::GuardExt::skip_spikes).
///
/// ```
/// use gradus::prelude::*;
/// use ndarray::array;
///
/// let mut opt = Sgd::new(1.0).skip_spikes(4.0).warmup(2);
/// let mut w = array![0.0];
/// for grad in [1.0, 3.0, 9.0, 7.0] {
///     opt.step(&mut w, &array![grad])?; // the mean of 1 and 3 is about 2, so 9 is a spike and 7 is not
/// }
/// assert_eq!((w, opt.skipped()), (array![-11.0], 1));
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// # Update rule
/// ```text
/// n ← ‖g‖                                                     of all gradients together
/// skip the step if n > k·m̂, or n is not finite                m̂ = m/w
///      with z_score(true): if n > m̂ + k·s                     s² = q/w − m̂²
/// else the step of the optimizer inside, and
///      m ← β·m + (1 − β)·n;  q ← β·q + (1 − β)·n²;  w ← β·w + (1 − β)
/// ```
/// Skipped norms do not enter the mean. In the first steps, up to `warmup`, only a norm that is not finite skips the step.
///
/// # Hyper-parameters
/// | name | default | range | meaning | unit |
/// |---|---|---|---|---|
/// | `threshold` k | – | > 0 | the factor of the mean, or the number of standard deviations | |
/// | [`decay`](Adapted::decay) β | 0.99 | 0 ≤ β < 1 | the share of the mean that is kept per step | |
/// | [`warmup`](Adapted::warmup) | 100 | any | steps before the first skip | steps |
/// | [`z_score`](Adapted::z_score) | no | | whether k counts standard deviations above the mean | |
///
/// # State
/// m, q, w, the number of steps in them, and the number of skipped steps.
///
/// # Order in the chain
/// Write it after clipping in the chain: it then sees the norm before clipping. If gradients become larger for good, every step is skipped; end such
/// a run with [`max_skipped`](crate::GuardExt::max_skipped) after it. With ranks, write it before `data_parallel` or `sharded`, so that all
/// ranks skip the same steps.
///
/// # Errors
/// [`StepError::HyperParameter`](crate::error::StepError::HyperParameter) for a threshold or a decay outside its range.
///
/// # References
/// The z-score is that of A. Kumar, L. Owen, N. R. Chowdhury and F. Güra, *ZClip: Adaptive Spike Mitigation for LLM Pre-Training* (2025),
/// [arXiv:2504.02507](https://arxiv.org/abs/2504.02507), eq. 3 to 5; ZClip clips where this skips. Skipping by standard deviations is also in Team
/// OLMo, *2 OLMo 2 Furious* (2024), [arXiv:2501.00656](https://arxiv.org/abs/2501.00656).
#[doc(alias("ZClip", "SkipStep", "spike"))]
#[must_use = "an adaptor does nothing until it is around an optimizer"]
#[derive(Clone)]
pub struct SkipSpikes {
    threshold: Hyper,
    decay: Hyper,
    warmup: u64,
    z_score: bool,
    usual: Usual,
    skipped: u64,
    /// The parameters of a step that was skipped before the optimizer inside knew them.
    layout: Option<Arc<Layout>>,
}

/// The norms of the steps that were taken.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Usual {
    mean: f64,
    square: f64,
    /// The sum of the weights in both.
    weight: f64,
    steps: u64,
}

/// How much larger than their mean norms may be that count as equal to it, as a share of the mean.
const EQUAL_NORMS: f64 = 1e-9;

impl Usual {
    fn and(self, norm: f64, decay: f64) -> Self {
        let rest = 1.0 - decay;
        Self {
            mean: decay * self.mean + rest * norm,
            square: decay * self.square + rest * norm * norm,
            weight: decay * self.weight + rest,
            steps: self.steps.saturating_add(1),
        }
    }

    /// The largest norm that is no spike.
    fn largest(self, threshold: f64, z_score: bool) -> f64 {
        let mean = self.mean / self.weight;
        let deviation = (self.square / self.weight - mean * mean).max(0.0).sqrt();
        // Equal norms have a deviation of 0, and a mean that is rounded.
        if z_score { mean + (threshold * deviation).max(EQUAL_NORMS * mean) } else { threshold * mean }
    }
}

impl SkipSpikes {
    /// Skips a step if its norm is more than `threshold` times the mean of those before: a number or a schedule.
    pub fn new(threshold: impl Into<Hyper>) -> Self {
        let (threshold, decay) = (threshold.into(), 0.99.into());
        Self { threshold, decay, warmup: 100, z_score: false, usual: Usual::default(), skipped: 0, layout: None }
    }

    /// The number of skipped steps.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// The mean norm of the steps that were taken; `None` before the first.
    pub fn mean_norm(&self) -> Option<f64> {
        (self.usual.steps > 0).then(|| self.usual.mean / self.usual.weight)
    }

    /// Whether the step is a spike, and what is usual after it.
    fn judge<A: Element>(&self, step: &Step<'_, A>) -> Result<(Outcome, Usual)> {
        let at = step.number();
        let threshold = self.threshold.within("threshold", (Excluded(0.0), Unbounded), at)?;
        let decay = self.decay.within("decay", 0.0..1.0, at)?;
        if step.only_flushes() {
            return Ok((Outcome::pass(), self.usual));
        }
        let norm = step.grad_norm(2.0)?;
        let is_usual = self.usual.steps < self.warmup.max(1) || norm <= self.usual.largest(threshold, self.z_score);
        if norm.is_finite() && is_usual {
            return Ok((Outcome::pass().with_norm(norm), self.usual.and(norm, decay)));
        }
        Ok((Outcome::skip().with_norm(norm), self.usual))
    }
}

impl<O> Adapted<O, SkipSpikes> {
    /// Sets the share of the mean that is kept per step.
    pub fn decay(self, decay: impl Into<Hyper>) -> Self {
        self.with(|own| SkipSpikes { decay: decay.into(), ..own })
    }

    /// Sets the number of steps before the first skip.
    pub fn warmup(self, steps: u64) -> Self {
        self.with(|own| SkipSpikes { warmup: steps, ..own })
    }

    /// Whether the threshold counts standard deviations above the mean, instead of multiples of the mean.
    pub fn z_score(self, z_score: bool) -> Self {
        self.with(|own| SkipSpikes { z_score, ..own })
    }
}

impl<A: Element> Adaptor<A> for SkipSpikes {
    fn check(&self, step: &Step<'_, A>, inner: &dyn Optimizer<A>) -> Result<()> {
        adapted::check(step, inner, |step| Ok(self.judge(step)?.0))
    }

    fn apply(&mut self, step: Step<'_, A>, inner: &mut dyn Optimizer<A>) -> Result<Report> {
        let (layout, mut after) = (Arc::clone(step.layout()), self.usual);
        let (report, outcome) = adapted::apply(step, inner, |step| {
            let (outcome, usual) = self.judge(step)?;
            after = usual;
            Ok(outcome)
        })?;
        self.usual = after;
        if outcome.skip {
            self.skipped = self.skipped.saturating_add(1);
            self.layout.get_or_insert(layout);
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
        self.layout.as_ref()
    }

    fn write_state(&self, state: &mut StateWriter<'_>) {
        let mut node = state.node("skip_spikes");
        self.threshold.write_state("threshold", &mut node);
        self.decay.write_state("decay", &mut node);
        let Usual { mean, square, weight, steps } = self.usual;
        [("mean", mean), ("square", square), ("weight", weight)].iter().for_each(|(name, own)| node.value(name, own));
        node.value("steps", steps);
        node.value("skipped", self.skipped);
    }

    fn read_state<'s>(&'s mut self, state: &mut StateReader<'_>) -> Result<Commit<'s>> {
        let node = state.node("skip_spikes")?;
        let hypers = self.threshold.read_state("threshold", &node)?.and(self.decay.read_state("decay", &node)?);
        let number = |name| node.value_where(name, "a number ≥ 0", |number: &f64| *number >= 0.0);
        let (mean, square, weight) = (number("mean")?, number("square")?, number("weight")?);
        let usual = Usual { mean, square, weight, steps: node.value("steps", "a count")? };
        let skipped = node.value("skipped", "a count")?;
        let layout = state.layout().cloned();
        Ok(hypers.and(Commit::new(move || (self.usual, self.skipped, self.layout) = (usual, skipped, layout))))
    }
}

impl fmt::Debug for SkipSpikes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "skip_spikes({:?})", self.threshold)?;
        if self.z_score { f.write_str(".z_score(true)") } else { Ok(()) }
    }
}
