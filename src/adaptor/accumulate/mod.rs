//! Gradient accumulation: large batches from small ones.

mod calls;
mod sum;
mod weights;

use std::any::TypeId;
use std::fmt;
use std::sync::Arc;

use super::sam::Pass;
use super::{Adapted, Adaptor, Sam};
use crate::error::{Error, Result, StepError, ensure_count};
use crate::params::{Element, Layout};
use crate::schedule::Hyper;
use crate::state::{Commit, StateReader, StateWriter};
use crate::step::batch::{Batch, JoinsRanks};
use crate::step::memo::{SourceId, new_ids};
use crate::step::{Grad, Optimizer, PerTensor, Report, Step, find};
use sum::Sum;
use weights::Weights;

pub(crate) use calls::flush;

/// Sums the gradients of several micro-batches and takes one step with their mean. Created by
/// [`OptimizerExt::accumulate`](crate::OptimizerExt::accumulate) and [`OptimizerExt::accumulate_by`](crate::OptimizerExt::accumulate_by).
///
/// Of every k calls of `step`, the first k − 1 add to a sum and report `moved: false`. The k-th call moves the parameters by the mean of
/// all k gradients, or by their sum with [`sum(true)`](Adapted::sum). A tensor without a gradient in some calls has gradient 0 in them. A
/// tensor without a gradient in all k calls is not moved.
///
/// ```
/// use gradus::prelude::*;
/// use ndarray::array;
///
/// let mut opt = Sgd::new(1.0).accumulate(2);
/// let mut w = array![0.0];
/// assert!(!opt.step(&mut w, &array![1.0])?.moved);
/// assert!(opt.step(&mut w, &array![3.0])?.moved);
/// assert_eq!(w, array![-2.0]);
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// # Update rule
/// ```text
/// calls 1 … k − 1:  s ← s + wᵢ·gᵢ
/// call k:           g ← (s + wₖ·gₖ)/(w₁ + … + wₖ)      with sum(true): s + wₖ·gₖ
///                   the step of the optimizer inside along g;  s ← 0
/// flush:            g ← s/(w₁ + … + wⱼ)                if j < k micro-batches are in the sum; with sum(true): s
/// ```
/// The weight wᵢ is 1 with [`step`](Optimizer::step), and given with [`step_weighted`](crate::StepExt::step_weighted). If every gradient is the
/// mean over wᵢ samples, the step is the one on the whole batch, whatever the sizes of the micro-batches. Weights are stored as multiples of
/// the first one of a window, so equal weights give the same bits as no weights.
///
/// **End of an epoch.** [`flush`](crate::StepExt::flush) takes the step with the micro-batches that are in the sum.
///
/// **Weight 0.** A micro-batch of weight 0 counts as a call, and adds nothing. If all weights of a window are 0, the step is skipped.
///
/// **Changing k.** [`accumulate_by`](crate::OptimizerExt::accumulate_by) takes a schedule. It is evaluated at the number of steps taken, and its
/// integer part is k.
///
/// **Errors.** The optimizer inside checks every micro-batch before it is added. If it returns an error, the sum is unchanged, and you can
/// continue with another micro-batch; [`skip_nonfinite`](crate::GuardExt::skip_nonfinite) *after* `accumulate` does this for NaN. If
/// the mean itself is rejected, for example because the sum overflowed, the sum is kept. Call [`discard`](Accumulate::discard) to start over.
///
/// **Clipping.** `accumulate(k)` after clipping in the chain, as in `opt.clip_global_norm(1.0).accumulate(k)`, clips the mean: **what you
/// want**. `opt.accumulate(k).clip_global_norm(1.0)` clips every micro-batch, and
/// [`describe`](crate::StepExt::describe) warns about it.
///
/// **Sharpness-aware minimization.** Write `accumulate` before [`sam`](crate::OptimizerExt::sam): every micro-batch then has its own
/// perturbation, and is one call of `step_with`. After `sam` there is one perturbation for all micro-batches: make k calls of `ascend`, and
/// then k calls of `step` with the same micro-batches. [`retreat`](crate::OptimizerExt::retreat) discards the gradients of `step`, and keeps
/// those of `ascend`.
///
/// **Ranks.** With `data_parallel` or `sharded` inside, the mean is over the micro-batches of all ranks, with their weights. Every rank must
/// call [`flush`](crate::StepExt::flush) after the same number of steps. A rank may then have fewer micro-batches than others, or none.
///
/// **Frozen tensors.** If a tensor is frozen between two calls, its sum is discarded, and it does not move.
///
/// **Cost.** The sum takes one element per parameter (4 bytes in f32). The last micro-batch is added in the pass that moves the parameters.
///
/// **Rows.** The sum of gradients of [`Rows`](crate::Rows) has the rows that any of them has, and takes memory for these alone. Together with
/// a dense gradient of the same tensor it becomes dense.
///
/// **16 bits.** Gradients of 16 bits are not summed: [`StepError::SumOfHalves`](crate::error::StepError::SumOfHalves). Write `accumulate`
/// before [`master_weights`](crate::OptimizerExt::master_weights), [`stochastic_rounding`](crate::OptimizerExt::stochastic_rounding) or
/// [`kahan`](crate::OptimizerExt::kahan); gradients are f32 there.
///
/// # Conventions
/// optax's `MultiSteps` with `every_k_schedule`: the mean, and k as a function of the steps taken. It has neither weights nor `flush`.
#[must_use = "an adaptor does nothing until it is around an optimizer"]
#[derive(Clone)]
pub struct Accumulate<A> {
    every: Every,
    sum: bool,
    gathered: u64,
    weights: Weights,
    /// Which gradients of a `sam` inside the sum has.
    pass: Option<Pass>,
    sums: PerTensor<Sum<A>>,
    /// Stands for the sums as they are.
    id: SourceId,
    /// Whether this call is a `flush`.
    is_flushing: bool,
}

/// How many micro-batches make a step.
#[derive(Clone)]
enum Every {
    Number(u64),
    Schedule(Hyper),
}

/// The name of [`Accumulate::pass`] in a state.
const PASS: &str = "pass";

impl<O, A> Adapted<O, Accumulate<A>> {
    /// Whether the step uses the sum of the gradients instead of their mean.
    pub fn sum(mut self, sum: bool) -> Self {
        self.sum = sum;
        self
    }
}

impl<A> Accumulate<A> {
    /// Takes one step every `every` calls.
    pub fn new(every: u64) -> Self {
        Self::with(Every::Number(every))
    }

    /// Takes one step per window. The number of calls in a window is the value of a schedule at the number of steps taken.
    pub fn by(every: impl Into<Hyper>) -> Self {
        Self::with(Every::Schedule(every.into()))
    }

    fn with(every: Every) -> Self {
        let (weights, sums, id) = (Weights::default(), PerTensor::new(), new_ids(1));
        Self { every, sum: false, gathered: 0, weights, pass: None, sums, id, is_flushing: false }
    }

    /// The number of gradients in the sum.
    pub fn gathered(&self) -> u64 {
        self.gathered
    }

    /// Which gradients of a `sam` inside the sum has; `None` if there are none, or no `sam`.
    pub(crate) fn pass(&self) -> Option<Pass> {
        self.pass
    }

    /// Discards the gradients that were summed since the last step.
    pub fn discard(&mut self) {
        (self.gathered, self.weights, self.pass) = (0, Weights::default(), None);
        self.sums.all_mut().flatten().for_each(|sum| sum.begun = false);
    }

    /// The number of micro-batches of the step after `steps` steps.
    fn window(&self, steps: u64) -> Result<u64> {
        match &self.every {
            Every::Number(every) => ensure_count("accumulate", *every).map(|()| *every),
            Every::Schedule(every) => Ok(every.within("every", 1.0.., steps)? as u64),
        }
    }

    /// Whether this call takes the step. Returns an error if the adaptor cannot take part in it.
    fn is_last<B: Element>(&self, step: &Step<'_, B>, steps: u64) -> Result<bool> {
        let every = self.window(steps)?;
        if every > 1 && size_of::<B>() < size_of::<f32>() {
            return Err(Error::Step(StepError::SumOfHalves { dtype: B::DTYPE, every }));
        }
        self.sums.ensure_known(step)?;
        let factor = self.weights.factor(step.batch());
        for (info, grad) in step.grads().filter(|_| factor != 1.0) {
            let mut weighted = grad.reborrow();
            weighted.scale_by(factor);
            weighted.ensure_kept(info)?;
        }
        Ok(step.batch().is_last || self.gathered + 1 >= every)
    }
}

/// Whether something in a chain gathers gradients.
fn gathers<A: Element>(chain: &(impl Optimizer<A> + ?Sized)) -> bool {
    // Inside of 16 bits, gradients are f32.
    let types = [TypeId::of::<Accumulate<A>>(), TypeId::of::<Accumulate<f32>>()];
    types.into_iter().any(|own| chain.part(own).is_some())
}

/// Passes on a step that only flushes, if something inside has gathered gradients.
pub(super) fn pass_on<A: Element>(step: Step<'_, A>, inner: &mut (impl Optimizer<A> + ?Sized)) -> Result<Report> {
    if gathers(inner) { inner.apply(step) } else { Ok(Report::new(inner.learning_rate(), false)) }
}

/// Whether all ranks of a group must take part in a step of this optimizer.
fn joins_ranks<A: Element>(inner: &(impl Optimizer<A> + ?Sized)) -> bool {
    inner.part(TypeId::of::<JoinsRanks>()).is_some()
}

/// The gradient of a rank that has none.
fn zero<'s, A: Element>() -> Option<Grad<'s, A>> {
    #[cfg(feature = "distributed")]
    return Some(Grad::zero());
    #[cfg(not(feature = "distributed"))]
    None
}

impl<A: Element> Accumulate<A> {
    fn add(&mut self, step: &Step<'_, A>) {
        self.id = new_ids(1);
        let factor = self.weights.factor(step.batch());
        for (info, tensor, sum) in step.zip(self.sums.all_mut()) {
            let Some(sum) = sum else { continue };
            if tensor.frozen {
                sum.begun = false;
            }
            let Some(grad) = &tensor.grad else { continue };
            let mut weighted = grad.reborrow();
            weighted.scale_by(factor);
            sum.add(info, &weighted);
        }
        (self.gathered, self.weights) = (self.gathered + 1, self.weights.and(step.batch()));
    }

    /// Adds the sums, where there are any yet, to the last micro-batch. Returns whether there is anything to step along: `joins` says whether
    /// other ranks may have a gradient where this one has none.
    fn combine<'s>(&'s self, step: &mut Step<'s, A>, joins: bool) -> bool {
        let (batch, factor) = (step.batch(), self.weights.factor(step.batch()));
        let has_none = step.only_flushes() && self.gathered == 0;
        let weights = self.weights.and(batch);
        for (info, tensor) in step.iter_mut().filter(|(_, tensor)| !tensor.frozen) {
            if let Some(grad) = &mut tensor.grad {
                grad.scale_by(factor);
            }
            if let Some(sum) = self.sums.at(tensor.index()).filter(|sum| sum.begun) {
                tensor.grad = Some(sum.plus(info, tensor.grad.take(), self.id));
            }
            if has_none && joins {
                tensor.grad = zero();
            }
            if let Some(grad) = &mut tensor.grad {
                grad.scale_by(if self.sum { weights.unit() } else { weights.mean() });
            }
        }
        let combined = if self.sum { Batch::EQUAL } else { weights.combined() };
        step.set_batch(Batch {
            is_last: batch.is_last,
            is_weighted: combined.is_weighted || batch.is_last,
            ..combined
        });
        joins || !weights.are_zero()
    }
}

impl<A: Element> Adaptor<A> for Accumulate<A> {
    fn check(&self, step: &Step<'_, A>, inner: &dyn Optimizer<A>) -> Result<()> {
        let (is_last, joins) = (self.is_last(step, inner.steps())?, joins_ranks(inner));
        if step.only_flushes() && self.gathered == 0 && !joins {
            return if gathers(inner) { inner.check(step) } else { Ok(()) };
        }
        if !step.only_flushes() {
            inner.check(step)?;
        }
        if !is_last || step.is_noted() {
            return Ok(());
        }
        let mut step = step.preview();
        if self.combine(&mut step, joins) { inner.check(&step) } else { Ok(()) }
    }

    fn apply(&mut self, step: Step<'_, A>, inner: &mut dyn Optimizer<A>) -> Result<Report> {
        self.is_flushing = step.batch().is_last;
        let (is_last, joins) = (self.is_last(&step, inner.steps())?, joins_ranks(inner));
        if step.only_flushes() && self.gathered == 0 && !joins {
            return pass_on(step, inner);
        }
        if !step.only_flushes() {
            inner.check(&step)?;
        }
        let made = self.sums.begin(&step, |_, _| Sum::default());
        let waits = Report::new(inner.learning_rate(), false);
        if !is_last {
            self.add(&step);
            self.pass = find::<Sam<A>, A>(inner).map(Sam::pass);
            return self.sums.settle(made, Ok(waits));
        }
        // From here on the step borrows from the sums: a shorter lifetime than the caller's.
        let mut step: Step<'_, A> = step;
        let result = match self.combine(&mut step, joins) {
            true => inner.apply(step),
            false => {
                drop(step);
                Ok(waits)
            }
        };
        let report = self.sums.settle(made, result)?;
        self.discard();
        Ok(report)
    }

    fn conclude(&mut self, result: Result<Report>, inner: &mut dyn Optimizer<A>) -> Result<Report> {
        // An error has changed nothing, so this still is about the call that has failed.
        let every = self.window(inner.steps()).unwrap_or(1);
        let is_last = std::mem::take(&mut self.is_flushing) || self.gathered + 1 >= every;
        if result.is_err() && !is_last { result } else { inner.conclude(result) }
    }

    fn describe(&self) -> String {
        format!("{self:?}")
    }

    fn moves_parameters(&self) -> bool {
        false
    }

    fn layout(&self) -> Option<&Arc<Layout>> {
        self.sums.layout()
    }

    fn write_state(&self, state: &mut StateWriter<'_>) {
        let mut node = state.node("accumulate");
        if let Every::Schedule(every) = &self.every {
            every.write_state("every", &mut node);
        }
        node.value("gathered", self.gathered);
        self.weights.write(&mut node);
        if let Some(pass) = self.pass {
            node.value(PASS, pass);
        }
        let begun = self.sums.iter().filter(|(_, sum)| sum.begun);
        begun.for_each(|(info, sum)| sum.write(&mut node, info));
    }

    fn read_state<'s>(&'s mut self, state: &mut StateReader<'_>) -> Result<Commit<'s>> {
        let node = state.node("accumulate")?;
        let (most, hyper) = match &self.every {
            Every::Number(every) => (*every, Commit::nothing()),
            Every::Schedule(every) => (u64::MAX, every.read_state("every", &node)?),
        };
        let room = |gathered: &u64| *gathered == 0 || *gathered < most;
        let count = node.value_where("gathered", "less than the micro-batches of a step", room)?;
        let weights = Weights::read(&node, count)?;
        let pass = if node.has(PASS) { Some(node.value(PASS, "first or second")?) } else { None };
        let read = PerTensor::read_state(&node, |info| Ok(Some(Sum::read(&node, info)?)))?;
        let own = Commit::new(move || {
            (self.gathered, self.weights, self.pass) = (count, weights, pass);
            (self.sums, self.id) = (read, new_ids(1));
        });
        Ok(own.and(hyper))
    }
}

impl<A> fmt::Debug for Accumulate<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.every {
            Every::Number(every) => write!(f, "accumulate({every})")?,
            Every::Schedule(every) => write!(f, "accumulate_by({every:?})")?,
        }
        if self.sum { f.write_str(".sum(true)") } else { Ok(()) }
    }
}
