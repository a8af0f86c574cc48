//! Dynamic loss scaling.

use std::fmt;
use std::ops::Bound::Excluded;
use std::sync::Arc;

use super::{Adapted, Adaptor, Outcome, adapted};
use crate::error::{Result, ensure_count};
use crate::params::{Element, Layout};
use crate::schedule::Hyper;
use crate::state::{Commit, StateReader, StateWriter};
use crate::step::{Optimizer, Report, Step};

/// Divides gradients by the factor of the loss, and finds that factor while training: dynamic loss scaling. Created by
/// [`GuardExt::loss_scaling`](crate::GuardExt::loss_scaling).
///
/// Small f16 gradients underflow. Multiply the loss by [`loss_scale`](crate::StepExt::loss_scale) before the backward pass, and pass the
/// gradients of that loss to `step`, which divides them again. If a gradient is infinite or NaN, the scale was too large: the step is skipped,
/// and the scale is halved. After 2,000 steps without that, it is doubled.
///
/// ```
/// use gradus::prelude::*;
/// use ndarray::array;
///
/// let mut opt = Sgd::new(1.0).clip_global_norm(9.0).loss_scaling().boxed();
/// let (mut w, scale) = (array![0.0], opt.loss_scale());
/// opt.step(&mut w, &array![2.0 * scale])?;
/// assert_eq!((w[0], scale), (-2.0, 65536.0));
/// assert!(opt.step(&mut w, &array![f64::INFINITY])?.skipped);
/// assert_eq!((w[0], opt.loss_scale()), (-2.0, 32768.0));
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// # Update rule
/// ```text
/// if every element of g is finite:   g ← g/S, and the step of the optimizer inside along g
///                                    n ← n + 1;  if n = growth_interval: S ← S·growth_factor, n ← 0
/// else:                              no step;  S ← S·backoff_factor, n ← 0
/// ```
/// S stays between the smallest normal number and the largest number of f32.
///
/// # Hyper-parameters
/// | name | default | range | meaning | unit |
/// |---|---|---|---|---|
/// | [`initial_scale`](Adapted::initial_scale) | 65,536 | normal numbers of f32 > 0 | S before the first step | |
/// | [`growth_factor`](Adapted::growth_factor) | 2 | ≥ 1 | the factor after `growth_interval` good steps | |
/// | [`backoff_factor`](Adapted::backoff_factor) | 0.5 | 0 < x < 1 | the factor after a step that was skipped | |
/// | [`growth_interval`](Adapted::growth_interval) | 2,000 | ≥ 1 | good steps between two growths | steps |
///
/// # State
/// S, n and the number of skipped steps.
///
/// # Order in the chain
/// Write it after clipping, so that clipping sees the divided gradients. Write it before [`accumulate`](crate::OptimizerExt::accumulate): the scale
/// then stays the same for all micro-batches of a step, and a bad one skips the whole step. After `accumulate`, it skips single micro-batches.
/// With ranks, write it before `data_parallel`, with the policy [`NonFinite::Allow`](super::NonFinite::Allow) there: all ranks then have the same scale.
/// With [`max_skipped`](crate::GuardExt::max_skipped) after it, a run whose gradients stay infinite ends with an error.
///
/// # Conventions
/// PyTorch's `GradScaler`, with its defaults. `unscale_` is not needed, because adaptors before `loss_scaling` see the divided gradients. PyTorch's S
/// may become 0.
///
/// # Errors
/// [`StepError::HyperParameter`](crate::error::StepError::HyperParameter) for a factor or a scale outside its range, and
/// [`ArgumentError::Zero`](crate::error::ArgumentError::Zero) for an interval of 0.
///
/// # References
/// P. Micikevicius et al., *Mixed Precision Training* (2017), [arXiv:1710.03740](https://arxiv.org/abs/1710.03740), section 3.2.
#[doc(alias("GradScaler", "DynamicLossScale", "dynamic loss scaling"))]
#[must_use = "an adaptor does nothing until it is around an optimizer"]
#[derive(Clone)]
pub struct LossScaling {
    scale: f64,
    growth: f64,
    backoff: f64,
    interval: u64,
    /// Good steps since the scale has changed.
    good: u64,
    skipped: u64,
    /// The parameters of a step that was skipped before the optimizer inside knew them.
    layout: Option<Arc<Layout>>,
}

/// The scales that are numbers of f32, and whose inverse is one.
const LOSS_SCALES: std::ops::RangeInclusive<f64> = f32::MIN_POSITIVE as f64..=f32::MAX as f64;

const A_SCALE: &str = "a normal number of f32 > 0";

impl LossScaling {
    /// Starts with PyTorch's defaults.
    pub fn new() -> Self {
        let (scale, growth, backoff, interval) = (65_536.0, 2.0, 0.5, 2000);
        Self { scale, growth, backoff, interval, good: 0, skipped: 0, layout: None }
    }

    /// The factor to multiply the loss of the next step by.
    pub fn loss_scale(&self) -> f64 {
        self.scale
    }

    /// The number of skipped steps.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    fn judge<A: Element>(&self, step: &mut Step<'_, A>) -> Result<Outcome> {
        ensure_count("growth_interval", self.interval)?;
        let at = step.number();
        Hyper::from(self.growth).within("growth_factor", 1.0.., at)?;
        Hyper::from(self.backoff).within("backoff_factor", (Excluded(0.0), Excluded(1.0)), at)?;
        let scale = Hyper::from(self.scale).within("initial_scale", LOSS_SCALES, at);
        scale.map_err(|error| error.accepting(A_SCALE))?;
        let own = if step.are_finite() { 0.0 } else { f64::NAN };
        if !step.share().norm(own, f64::INFINITY)?.is_finite() {
            return Ok(Outcome::skip());
        }
        step.grads_mut().for_each(|(_, grad)| grad.scale_by(1.0 / self.scale));
        Ok(Outcome::pass())
    }

    /// What the scale becomes after a step.
    fn update(&mut self, is_skipped: bool) {
        if is_skipped {
            self.scale = (self.scale * self.backoff).max(*LOSS_SCALES.start());
            (self.good, self.skipped) = (0, self.skipped.saturating_add(1));
            return;
        }
        self.good += 1;
        if self.good >= self.interval {
            let grown = self.scale * self.growth;
            (self.good, self.scale) = (0, if grown <= *LOSS_SCALES.end() { grown } else { self.scale });
        }
    }
}

impl Default for LossScaling {
    fn default() -> Self {
        Self::new()
    }
}

impl<O> Adapted<O, LossScaling> {
    /// Sets the scale of the first step. In a running optimizer it is the scale of the next step.
    pub fn initial_scale(self, scale: f64) -> Self {
        self.with(|own| LossScaling { scale, ..own })
    }

    /// Sets the factor after `growth_interval` good steps.
    pub fn growth_factor(self, growth: f64) -> Self {
        self.with(|own| LossScaling { growth, ..own })
    }

    /// Sets the factor after a step that was skipped.
    pub fn backoff_factor(self, backoff: f64) -> Self {
        self.with(|own| LossScaling { backoff, ..own })
    }

    /// Sets the number of good steps between two growths.
    pub fn growth_interval(self, interval: u64) -> Self {
        self.with(|own| LossScaling { interval, ..own })
    }
}

impl<A: Element> Adaptor<A> for LossScaling {
    fn check(&self, step: &Step<'_, A>, inner: &dyn Optimizer<A>) -> Result<()> {
        adapted::check(step, inner, |step| self.judge(step))
    }

    fn apply(&mut self, step: Step<'_, A>, inner: &mut dyn Optimizer<A>) -> Result<Report> {
        let (layout, only_flushes) = (Arc::clone(step.layout()), step.only_flushes());
        let (report, outcome) = adapted::apply(step, inner, |step| self.judge(step))?;
        if !only_flushes {
            self.update(outcome.skip);
        }
        if outcome.skip {
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
        let mut node = state.node("loss_scaling");
        node.value("scale", self.scale);
        node.value("good", self.good);
        node.value("skipped", self.skipped);
    }

    fn read_state<'s>(&'s mut self, state: &mut StateReader<'_>) -> Result<Commit<'s>> {
        let node = state.node("loss_scaling")?;
        let scale = node.value_where("scale", A_SCALE, |scale| LOSS_SCALES.contains(scale))?;
        let good = node.value("good", "a count")?;
        let skipped = node.value("skipped", "a count")?;
        let layout = state.layout().cloned();
        Ok(Commit::new(move || (self.scale, self.good, self.skipped, self.layout) = (scale, good, skipped, layout)))
    }
}

impl fmt::Debug for LossScaling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("loss_scaling()")?;
        if self.growth != 2.0 {
            write!(f, ".growth_factor({})", self.growth)?;
        }
        if self.backoff != 0.5 {
            write!(f, ".backoff_factor({})", self.backoff)?;
        }
        if self.interval == 2000 { Ok(()) } else { write!(f, ".growth_interval({})", self.interval) }
    }
}
