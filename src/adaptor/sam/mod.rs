//! Sharpness-aware minimization: SAM, ASAM and GSAM, with two gradients per step.

mod arithmetic;
mod calls;
mod gap;
mod starts;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::{Adapted, Adaptor, NonFinite};
use crate::error::{Error, Result, StepError};
use crate::params::{Element, Layout, ParamsMut};
use crate::schedule::Hyper;
use crate::state::{Commit, StateReader, StateWriter};
use crate::step::share::Extent;
use crate::step::{Optimizer, Report, Step, norm};
use arithmetic::{Climb, adaptive_norm};
use gap::Gap;
use starts::Starts;

pub use calls::SamReport;
pub(crate) use calls::{ascend, ascend_by, ensure_settled, retreat, step_with};

/// Steps along the gradient at the worst point in a ball around the parameters, which leads to flat minima (SAM). Created by
/// [`OptimizerExt::sam`](crate::OptimizerExt::sam).
///
/// A step needs two gradients. [`step_with`](crate::OptimizerExt::step_with) gets both from a closure:
///
/// ```
/// use gradus::prelude::*;
/// use ndarray::{Array1, array};
///
/// let mut opt = Momentum::new(0.1, 0.9).sam(0.05);
/// let mut w = array![2.0, 1.0];
/// let report = opt.step_with(&mut w, |w: &Array1<f64>| (w.dot(w), 2.0 * w))?; // the loss and its gradients
/// assert!(report.loss == 5.0 && report.perturbed_loss > Some(5.2));
/// # Ok::<(), gradus::Error>(())
/// ```
/// A loop that cannot pass a closure makes two calls: [`ascend`](crate::OptimizerExt::ascend) with the gradients at the parameters, and
/// then [`step`](Optimizer::step) with the gradients at the point where `ascend` has left the parameters.
///
/// ```
/// use gradus::prelude::*;
/// use ndarray::array;
///
/// let mut opt = Sgd::new(0.1).sam(0.5);
/// let mut w = array![1.0];
/// opt.ascend(&mut w, &array![2.0])?;
/// assert!((w[0] - 1.5_f64).abs() < 1e-9);
/// opt.step(&mut w, &array![3.0])?; // the gradient at 1.5
/// assert_eq!(w, array![0.7]); // 1 − 0.1 · 3
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// # Update rule
/// ```text
/// ascend:  θ₀ ← θ
///          θ ← θ + ρ·g/(‖g‖ + 1e-12)                  g: the gradient at θ₀, ‖g‖: the norm of all tensors together
///          θ ← θ + ρ·T²g/(‖Tg‖ + 1e-12)               ASAM: T = |θ₀| + η, element by element
/// step:    θ ← θ₀                                     bit for bit
///          the step of the optimizer inside along h   h: the gradient at the perturbed point
///          … or along h − α(g − ⟨g, h⟩/‖h‖²·h)        GSAM: without a share α of the part of g that is perpendicular to h
/// ```
///
/// # Hyper-parameters
/// | name | default | range | meaning |
/// |---|---|---|---|
/// | `rho` ρ | – | ρ ≥ 0 | the distance to the perturbed point; usual are 0.05 for SAM, and 0.5 for ASAM |
/// | [`adaptive`](Adapted::adaptive) η | no | η ≥ 0 | ASAM: a ball in which larger parameters move further; usual is 0.01 |
/// | [`surrogate_gap`](Adapted::surrogate_gap) α | no | 0 ≤ α ≤ 1 | GSAM: how strongly the difference of the two losses is reduced |
/// | [`non_finite`](Adapted::non_finite) | `Error` | | the policy for a gradient that is not finite |
///
/// Schedules are evaluated at the step counter of the optimizer inside. GSAM's authors let ρ fall with the learning rate.
///
/// # State
/// One element per parameter (4 bytes in f32), and a second one for GSAM. Both are saved only between `ascend` and `step`.
///
/// # Order in the chain
/// Adaptors after `sam` see both gradients, adaptors before `sam` only the second:
///
/// | | before `sam` | after `sam` |
/// |---|---|---|
/// | clipping, `centralize`, `unscale` | changes the second gradient: **what you want** for clipping | changes both |
/// | `freeze` | frozen tensors are perturbed | frozen tensors are not perturbed: **what you want** |
/// | `group` | the same | the same |
/// | `accumulate(k)` | a perturbation per micro-batch: **what you want** with `step_with` | one for all: k calls of `ascend`, then k calls of `step` with the same micro-batches; `step_with` is an error |
/// | `data_parallel` | a perturbation per rank, along its own gradient; see [`non_finite`](Adapted::non_finite) | one for all ranks, along the mean gradient |
/// | `sharded` | a perturbation per rank | rejected |
/// | averages, `lookahead`, `local_steps` | – | work; `ascend` is not a step for them |
/// | `route` | works | rejected, because the other branches would step twice |
/// | `master_weights` | works | rejected, because the perturbation would not reach the parameters |
/// | `skip_nonfinite` | skips for the second gradient | use [`non_finite`](Adapted::non_finite) instead |
///
/// A tensor without a gradient in `ascend` is not perturbed. Gradients of [`Rows`](crate::Rows) perturb these rows; GSAM rejects them.
///
/// # Conventions
/// The SAM, ASAM and GSAM of pytorch-optimizer, with two differences. Its `adaptive=True` is `adaptive(0.0)` here; η is from ASAM's authors,
/// who leave biases as they are (with T = 1). Its GSAM subtracts the perturbation again instead of restoring θ₀. optax's `sam` divides by
/// ‖g‖ alone, and ascends in every second call of `update`.
///
/// # Errors
/// - [`StepError::NotAscended`] for a `step` that no `ascend` precedes.
/// - [`StepError::AlreadyAscended`] for a second `ascend` before the `step`, and for a [`Checkpoint`](crate::checkpoint::Checkpoint) of the perturbed
///   parameters. A [`state_dict`](Optimizer::state_dict) between the calls has θ₀, and training can be resumed from it.
/// - [`StepError::CannotAscend`] if the chain has no `sam`, or has it where it cannot work.
///
/// A call that returns an error changes nothing: after an error of `step`, the parameters are still at the perturbed point. Call `step` with
/// other gradients, or [`retreat`](crate::OptimizerExt::retreat), which puts the parameters back. `step_with` does the latter by itself.
///
/// # References
/// P. Foret et al., *Sharpness-Aware Minimization for Efficiently Improving Generalization* (2020),
/// [arXiv:2010.01412](https://arxiv.org/abs/2010.01412), algorithm 1. J. Kwon et al., *ASAM* (2021),
/// [arXiv:2102.11600](https://arxiv.org/abs/2102.11600), algorithm 1. J. Zhuang et al., *Surrogate Gap Minimization Improves Sharpness-Aware
/// Training* (2022), [arXiv:2203.08065](https://arxiv.org/abs/2203.08065), algorithm 1.
#[doc(alias("ASAM", "GSAM", "sharpness"))]
#[must_use = "an adaptor does nothing until it is around an optimizer"]
#[derive(Clone)]
pub struct Sam<A> {
    rho: Hyper,
    adaptive: Option<Hyper>,
    non_finite: NonFinite,
    phase: Phase,
    starts: Starts<A>,
    gap: Option<Gap<A>>,
}

/// Where the parameters are, and which call is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// At the start: the next call is `ascend`.
    Start,
    /// At the start, in a call of `ascend`.
    Ascending,
    /// At the perturbed point: the next call is `step`.
    Ascended,
    /// At the start, as the first gradient was not finite: the next call is `step`, which is skipped too.
    Skipped,
}

/// Which of the two gradients of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pass {
    /// That of `ascend`.
    First,
    /// That of `step`.
    Second,
}

impl fmt::Display for Pass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::First => "first",
            Self::Second => "second",
        })
    }
}

impl FromStr for Pass {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        [Self::First, Self::Second].into_iter().find(|pass| pass.to_string() == text).ok_or(())
    }
}

impl<A> Sam<A> {
    /// Perturbs by `rho`: a number or a schedule.
    pub fn new(rho: impl Into<Hyper>) -> Self {
        Self {
            rho: rho.into(),
            adaptive: None,
            non_finite: NonFinite::Error,
            phase: Phase::Start,
            starts: Starts::default(),
            gap: None,
        }
    }

    /// Whether the parameters are at the perturbed point, so that the next call must be [`step`](Optimizer::step) or
    /// [`retreat`](crate::OptimizerExt::retreat). Do not evaluate or save the model then.
    pub fn has_ascended(&self) -> bool {
        self.phase == Phase::Ascended
    }

    /// Which gradient of a step this call or, between calls, the next has.
    pub(crate) fn pass(&self) -> Pass {
        match self.phase {
            Phase::Start | Phase::Ascending => Pass::First,
            Phase::Ascended | Phase::Skipped => Pass::Second,
        }
    }

    /// Whether a call of `ascend` is going on.
    #[cfg(feature = "distributed")]
    pub(crate) fn is_ascending(&self) -> bool {
        self.phase == Phase::Ascending
    }
}

impl<O, A> Adapted<O, Sam<A>> {
    /// ASAM: perturbs each element in proportion to (|θ| + η)². Usual is η = 0.01, with ρ = 0.5.
    pub fn adaptive(self, eta: impl Into<Hyper>) -> Self {
        self.with(|sam| Sam { adaptive: Some(eta.into()), ..sam })
    }

    /// GSAM: subtracts from the second gradient `alpha` times the part of the first that is perpendicular to it. It needs one more element
    /// per parameter.
    pub fn surrogate_gap(self, alpha: impl Into<Hyper>) -> Self {
        self.with(|sam| Sam { gap: Some(Gap::new(alpha.into())), ..sam })
    }

    /// Sets the policy for a gradient that is not finite.
    ///
    /// With [`NonFinite::Error`], the default, `ascend` returns an error for the first gradient, and with [`adaptive`](Self::adaptive) also for a
    /// parameter that is not finite. The second gradient goes to the optimizer inside as
    /// it is, as in any other step: add [`check_finite`](crate::GuardExt::check_finite). With [`NonFinite::Skip`], a step in which either is
    /// not finite is skipped; both calls return `Ok`. With [`NonFinite::Allow`], nothing is checked.
    ///
    /// `sam` after `data_parallel`, `sharded` or `local_steps` sees the gradients of one rank. It would skip a step on that rank alone, so
    /// [`NonFinite::Skip`] is an error there if there are several ranks. Use [`NonFinite::Allow`], and the policy `Skip` of `data_parallel` or
    /// `sharded`: the perturbed point of the rank is then not finite either, and all ranks skip the step.
    pub fn non_finite(self, policy: NonFinite) -> Self {
        self.with(|sam| Sam { non_finite: policy, ..sam })
    }
}

impl<A: Element> Sam<A> {
    /// Begins a call of `ascend`.
    fn arm(&mut self) -> Result<()> {
        match self.phase {
            Phase::Start | Phase::Ascending => self.phase = Phase::Ascending,
            Phase::Ascended | Phase::Skipped => return Err(Error::Step(StepError::AlreadyAscended)),
        }
        Ok(())
    }

    /// Ends a call of `ascend`. Returns whether the parameters are at the perturbed point.
    fn disarm(&mut self) -> bool {
        if self.phase == Phase::Ascending {
            self.phase = Phase::Start;
        }
        self.has_ascended()
    }

    /// Puts the parameters back.
    fn go_back(&mut self, params: &mut dyn ParamsMut<Elem = A>) -> Result<()> {
        if self.phase == Phase::Ascended {
            self.starts.write_to(params)?;
        }
        self.phase = Phase::Start;
        Ok(())
    }

    /// The ascent along the gradients of a step, or `None` to skip it, and the norm of the gradients.
    fn climb(&self, step: &Step<'_, A>, inner: &dyn Optimizer<A>) -> Result<(Option<Climb>, f64)> {
        let at = inner.steps();
        step.share().ensure(Extent::Parameters, "sam")?;
        self.starts.ensure_known(step)?;
        let rho = self.rho.within("rho", 0.0.., at)?;
        let eta = self.adaptive.as_ref().map(|eta| eta.within("eta", 0.0.., at)).transpose()?;
        if let Some(gap) = &self.gap {
            gap.check(step, at)?;
        }
        inner.check(step)?;
        let norm = step.grad_norm(2.0)?;
        if self.non_finite.outcome(norm, step)?.skip {
            return Ok((None, norm));
        }
        let Some(eta) = eta else { return Ok((Some(Climb::new(rho, None, norm, step)?), norm)) };
        let adaptive = adaptive_norm(step, eta)?;
        if self.non_finite == NonFinite::Error && !adaptive.is_finite() {
            norm::non_finite_param(step.iter().filter(|(_, tensor)| tensor.grad.is_some())).map_or(Ok(()), Err)?;
        }
        if self.non_finite.outcome(adaptive, step)?.skip {
            return Ok((None, norm));
        }
        Ok((Some(Climb::new(rho, Some(eta), adaptive, step)?), norm))
    }

    /// Whether a step only tells an `accumulate` inside to take its own step.
    fn passes(&self, step: &Step<'_, A>) -> Result<bool> {
        match self.phase {
            Phase::Ascended if step.only_flushes() => Err(Error::Step(StepError::AlreadyAscended)),
            _ => Ok(step.only_flushes()),
        }
    }

    fn ascend(&mut self, mut step: Step<'_, A>, inner: &dyn Optimizer<A>) -> Result<Report> {
        number(self.non_finite, &mut step, inner.steps());
        let (climb, norm) = self.climb(&step, inner)?;
        self.phase = match climb {
            Some(climb) => {
                self.starts.keep_and(&mut step, climb);
                if let Some(gap) = &mut self.gap {
                    gap.keep(&step);
                }
                Phase::Ascended
            }
            None => {
                self.starts.know(&step);
                Phase::Skipped
            }
        };
        let skipped = self.phase == Phase::Skipped;
        Ok(Report { grad_norm: Some(norm), skipped, ..Report::new(inner.learning_rate(), false) })
    }

    /// Describes the step of the optimizer inside. Returns whether it is skipped.
    fn describe<'s>(
        (gap, starts, non_finite): (&'s Option<Gap<A>>, &Starts<A>, NonFinite),
        step: &mut Step<'s, A>,
        at: u64,
    ) -> Result<bool> {
        number(non_finite, step, at);
        starts.ensure_all_in(step)?;
        if non_finite == NonFinite::Skip && !step.are_finite() {
            return Ok(true);
        }
        gap.as_ref().map_or(Ok(()), |gap| gap.decompose(step, at))?;
        Ok(false)
    }
}

/// Sets the number of a step, and says whether a rank may skip it alone.
fn number<A: Element>(policy: NonFinite, step: &mut Step<'_, A>, at: u64) {
    step.set_number(at);
    #[cfg(feature = "distributed")]
    if policy == NonFinite::Skip {
        step.skip_alone();
    }
    #[cfg(not(feature = "distributed"))]
    let _ = policy;
}

impl<A: Element> Adaptor<A> for Sam<A> {
    fn check(&self, step: &Step<'_, A>, inner: &dyn Optimizer<A>) -> Result<()> {
        let mut preview = step.preview();
        number(self.non_finite, &mut preview, inner.steps());
        match self.phase {
            Phase::Start if step.is_noted() => inner.check(&preview),
            _ if self.passes(step)? => inner.check(&preview),
            Phase::Start => Err(Error::Step(StepError::NotAscended)),
            Phase::Ascending => self.climb(&preview, inner).map(drop),
            Phase::Skipped => Ok(()),
            Phase::Ascended => {
                let skips = Self::describe((&self.gap, &self.starts, self.non_finite), &mut preview, inner.steps())?;
                if skips { Ok(()) } else { inner.check(&preview) }
            }
        }
    }

    fn apply(&mut self, step: Step<'_, A>, inner: &mut dyn Optimizer<A>) -> Result<Report> {
        if self.passes(&step)? {
            return inner.apply(step);
        }
        match self.phase {
            Phase::Start => return Err(Error::Step(StepError::NotAscended)),
            Phase::Ascending => return self.ascend(step, inner),
            Phase::Ascended | Phase::Skipped => {}
        }
        let skipped = Report::of_skipped(inner.learning_rate());
        let Self { phase, starts, gap, non_finite, .. } = self;
        if *phase == Phase::Skipped {
            *phase = Phase::Start;
            return Ok(skipped);
        }
        // From here on the step borrows from the first gradients: a shorter lifetime than the caller's.
        let mut step: Step<'_, A> = step;
        let skips = Self::describe((gap, starts, *non_finite), &mut step, inner.steps())?;
        starts.exchange(&mut step);
        let result = if skips { Ok(skipped) } else { inner.apply(step.lend(true)) };
        match &result {
            Ok(_) => {
                starts.release();
                *phase = Phase::Start;
            }
            Err(_) => starts.exchange(&mut step),
        }
        result
    }

    fn describe(&self) -> String {
        format!("{self:?}")
    }

    fn moves_parameters(&self) -> bool {
        false
    }

    fn layout(&self) -> Option<&Arc<Layout>> {
        self.starts.layout()
    }

    fn write_state(&self, state: &mut StateWriter<'_>) {
        let mut node = state.node("sam");
        self.rho.write_state("rho", &mut node);
        if let Some(eta) = &self.adaptive {
            eta.write_state("eta", &mut node);
        }
        node.value("ascended", self.has_ascended());
        node.value("skipped", self.phase == Phase::Skipped);
        if let Some(gap) = &self.gap {
            gap.write_state(&mut node, self.has_ascended());
        }
        self.starts.write_state(&mut node);
    }

    fn read_state<'s>(&'s mut self, state: &mut StateReader<'_>) -> Result<Commit<'s>> {
        let node = state.node("sam")?;
        let Self { rho, adaptive, phase, starts, gap, .. } = self;
        let mut hypers = rho.read_state("rho", &node)?;
        if let Some(eta) = adaptive {
            hypers = hypers.and(eta.read_state("eta", &node)?);
        }
        let ascended: bool = node.value("ascended", "true or false")?;
        let skipped = node.value("skipped", "true or false")?;
        if let Some(gap) = gap {
            hypers = hypers.and(gap.read_state(&node)?);
        }
        let read = Starts::read_state(&node)?;
        let at = match (ascended, skipped) {
            (true, _) => Phase::Ascended,
            (false, true) => Phase::Skipped,
            (false, false) => Phase::Start,
        };
        Ok(Commit::new(move || (*phase, *starts) = (at, read)).and(hypers))
    }
}

impl<A> fmt::Debug for Sam<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sam({:?})", self.rho)?;
        if let Some(eta) = &self.adaptive {
            write!(f, ".adaptive({eta:?})")?;
        }
        if let Some(gap) = &self.gap {
            write!(f, ".surrogate_gap({gap:?})")?;
        }
        if self.non_finite == NonFinite::Error { Ok(()) } else { write!(f, ".non_finite({:?})", self.non_finite) }
    }
}
