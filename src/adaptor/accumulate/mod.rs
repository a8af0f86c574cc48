//! Gradient accumulation: large batches from small ones.

mod sum;

use std::fmt;
use std::sync::Arc;

use super::sam::Pass;
use super::{Adapted, Adaptor, Sam};
use crate::error::{Error, Result, StepError, ensure_count};
use crate::params::{Element, Layout};
use crate::state::{Commit, StateReader, StateWriter};
use crate::step::memo::{SourceId, new_ids};
use crate::step::{Optimizer, PerTensor, Report, Step, find};
use sum::Sum;

/// Sums the gradients of several micro-batches and takes one step with their mean. Created by
/// [`OptimizerExt::accumulate`](crate::OptimizerExt::accumulate).
///
/// Of every k calls of `step`, the first k − 1 add to a sum and report `moved: false`. The k-th call moves the parameters by the mean of
/// all k gradients, or by their sum with [`sum(true)`](Adapted::sum). If the loss is a mean and the micro-batches have equal size, this is
/// the step on the whole batch. A tensor without a gradient in some calls has gradient 0 in them. A tensor without a gradient in all k
/// calls is not moved.
///
/// **Errors.** The optimizer inside checks every micro-batch before it is added. If it returns an error, the sum is unchanged, and you can
/// continue with another micro-batch; [`skip_nonfinite`](crate::OptimizerExt::skip_nonfinite) *after* `accumulate` does this for NaN. If
/// the mean itself is rejected, for example because the sum overflowed, the sum is kept. Call [`discard`](Accumulate::discard) to start over.
///
/// **Sharpness-aware minimization.** Write `accumulate` before [`sam`](crate::OptimizerExt::sam): every micro-batch then has its own
/// perturbation, and is one call of `step_with`. After `sam` there is one perturbation for all micro-batches: make k calls of `ascend`, and
/// then k calls of `step` with the same micro-batches. [`retreat`](crate::OptimizerExt::retreat) discards the gradients of `step`, and keeps
/// those of `ascend`.
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
#[must_use = "an adaptor does nothing until it is around an optimizer"]
#[derive(Clone)]
pub struct Accumulate<A> {
    every: u64,
    sum: bool,
    gathered: u64,
    /// Which gradients of a `sam` inside the sum has.
    pass: Option<Pass>,
    sums: PerTensor<Sum<A>>,
    /// Stands for the sums as they are.
    id: SourceId,
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
        Self { every, sum: false, gathered: 0, pass: None, sums: PerTensor::new(), id: new_ids(1) }
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
        (self.gathered, self.pass) = (0, None);
        self.sums.all_mut().flatten().for_each(|sum| sum.begun = false);
    }

    /// What the sum of all micro-batches is multiplied by.
    fn scale(&self) -> f64 {
        if self.sum { 1.0 } else { 1.0 / self.every as f64 }
    }

    fn check_own<B: Element>(&self, step: &Step<'_, B>) -> Result<()> {
        ensure_count("accumulate", self.every)?;
        if self.every > 1 && size_of::<B>() < size_of::<f32>() {
            return Err(Error::Step(StepError::SumOfHalves { dtype: B::DTYPE, every: self.every }));
        }
        self.sums.ensure_known(step)
    }
}

impl<A: Element> Accumulate<A> {
    fn add(&mut self, step: &Step<'_, A>) {
        self.id = new_ids(1);
        for (info, tensor, sum) in step.zip(self.sums.all_mut()) {
            let Some(sum) = sum else { continue };
            if tensor.frozen {
                sum.begun = false;
            }
            let Some(grad) = &tensor.grad else { continue };
            sum.add(info, grad);
        }
    }
}

impl<A: Element> Accumulate<A> {
    /// Adds the sums, where there are any yet, to the last micro-batch.
    fn combine<'s>(&'s self, step: &mut Step<'s, A>) {
        let scale = self.scale();
        for (info, tensor) in step.iter_mut().filter(|(_, tensor)| !tensor.frozen) {
            if let Some(sum) = self.sums.at(tensor.index()).filter(|sum| sum.begun) {
                tensor.grad = Some(sum.plus(info, tensor.grad.take(), self.id));
            }
            if let Some(grad) = &mut tensor.grad {
                grad.scale_by(scale);
            }
        }
    }

    /// Whether the next call takes the step.
    fn is_last(&self) -> bool {
        self.gathered + 1 >= self.every
    }
}

impl<A: Element> Adaptor<A> for Accumulate<A> {
    fn check(&self, step: &Step<'_, A>, inner: &dyn Optimizer<A>) -> Result<()> {
        self.check_own(step)?;
        inner.check(step)?;
        if !self.is_last() {
            return Ok(());
        }
        let mut step = step.preview();
        self.combine(&mut step);
        inner.check(&step)
    }

    fn apply(&mut self, step: Step<'_, A>, inner: &mut dyn Optimizer<A>) -> Result<Report> {
        self.check_own(&step)?;
        inner.check(&step)?;
        let made = self.sums.begin(&step, |_, _| Sum::default());
        if !self.is_last() {
            self.add(&step);
            self.gathered += 1;
            self.pass = find::<Sam<A>, A>(inner).map(Sam::pass);
            return self.sums.settle(made, Ok(Report::new(inner.learning_rate(), false)));
        }
        // From here on the step borrows from the sums: a shorter lifetime than the caller's.
        let mut step: Step<'_, A> = step;
        self.combine(&mut step);
        let result = inner.apply(step);
        let report = self.sums.settle(made, result)?;
        self.discard();
        Ok(report)
    }

    fn conclude(&mut self, result: Result<Report>, inner: &mut dyn Optimizer<A>) -> Result<Report> {
        // An error has changed nothing, so this still is about the call that has failed.
        if result.is_err() && !self.is_last() { result } else { inner.conclude(result) }
    }

    fn layout(&self) -> Option<&Arc<Layout>> {
        self.sums.layout()
    }

    fn write_state(&self, state: &mut StateWriter<'_>) {
        let mut node = state.node("accumulate");
        node.value("gathered", self.gathered);
        if let Some(pass) = self.pass {
            node.value(PASS, pass);
        }
        let begun = self.sums.iter().filter(|(_, sum)| sum.begun);
        begun.for_each(|(info, sum)| sum.write(&mut node, info));
    }

    fn read_state<'s>(&'s mut self, state: &mut StateReader<'_>) -> Result<Commit<'s>> {
        let node = state.node("accumulate")?;
        let room = |gathered: &u64| *gathered == 0 || *gathered < self.every;
        let count = node.value_where("gathered", "less than the micro-batches of a step", room)?;
        let pass = if node.has(PASS) { Some(node.value(PASS, "first or second")?) } else { None };
        let read = PerTensor::read_state(&node, |info| Ok(Some(Sum::read(&node, info)?)))?;
        Ok(Commit::new(move || {
            (self.gathered, self.pass) = (count, pass);
            (self.sums, self.id) = (read, new_ids(1));
        }))
    }
}

impl<A> fmt::Debug for Accumulate<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "accumulate({})", self.every)?;
        if self.sum { f.write_str(".sum(true)") } else { Ok(()) }
    }
}
