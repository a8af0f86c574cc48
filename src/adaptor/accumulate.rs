//! Large batches from small ones.

use std::sync::Arc;

use super::{around, count_inner, skipped};
use crate::error::{Error, Result, StepError, ensure_count};
use crate::params::{Element, Layout, Owned};
use crate::state::{Commit, StateReader, StateWriter};
use crate::step::{Grad, Optimizer, Report, Step};

/// Gathers the gradients of several micro-batches into one step: made by [`OptimizerExt::accumulate`](crate::OptimizerExt::accumulate).
///
/// Of every k calls of `step`, the first k − 1 add to a sum and report `moved: false`; the k-th moves the parameters
/// by the mean of all k, or by their sum with [`sum`](Accumulate::sum). With equal parts of a batch and a mean loss
/// this is the step on the whole batch. A tensor without gradient in some of the calls counts as zero there; one
/// without gradient in all of them is not moved.
///
/// Every call is checked by the optimizer inside before anything is added, so that a bad micro-batch can be left
/// out; [`skip_nonfinite`](crate::OptimizerExt::skip_nonfinite) *after* `accumulate` leaves it out by itself. If it is the mean
/// that is refused, because a sum overflowed, say, or because several ranks inside look at gradients only together, the
/// earlier micro-batches stay: [`discard`](Accumulate::discard) begins anew. A tensor that is frozen meanwhile does not
/// move, and what was gathered for it is forgotten.
///
/// The sum takes one element per parameter (4 bytes in f32); the last micro-batch is added in the sweep that moves the
/// parameters. Gradients of 16 bits are not summed, [`StepError::SumOfHalves`]: write `accumulate` before
/// [`master_weights`](crate::OptimizerExt::master_weights).
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
#[derive(Debug, Clone)]
pub struct Accumulate<O, A> {
    inner: O,
    every: u64,
    sum: bool,
    gathered: u64,
    layout: Option<Arc<Layout>>,
    sums: Vec<Sum<A>>,
}

/// The sum of one tensor's gradients, in the order of the first.
#[derive(Debug, Clone)]
struct Sum<A> {
    values: Owned<A>,
    /// Whether there has been a gradient since the last step.
    begun: bool,
}

impl<A> Sum<A> {
    /// The sum that has been gathered, or none yet.
    fn of(values: Option<Owned<A>>) -> Self {
        Self { begun: values.is_some(), values: values.unwrap_or_default() }
    }
}

around!(Accumulate<O, A>);

impl<O, A> Accumulate<O, A> {
    pub(crate) fn new(inner: O, every: u64) -> Self {
        Self { inner, every, sum: false, gathered: 0, layout: None, sums: Vec::new() }
    }

    /// Takes the sum of the gradients instead of their mean.
    pub fn sum(mut self) -> Self {
        self.sum = true;
        self
    }

    /// How many gradients the sum holds.
    pub fn gathered(&self) -> u64 {
        self.gathered
    }

    /// Forgets what has been gathered since the last step.
    pub fn discard(&mut self) {
        self.gathered = 0;
        self.sums.iter_mut().for_each(|sum| sum.begun = false);
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
        Layout::ensure_known(self.layout.as_ref(), step.layout())
    }
}

impl<A: Element, O: Optimizer<A>> Accumulate<O, A> {
    fn add(&mut self, step: &Step<'_, A>) {
        for (info, tensor) in step.iter() {
            let Some(sum) = self.sums.get_mut(tensor.index()) else { break };
            if tensor.frozen {
                sum.begun = false;
            }
            let Some(grad) = &tensor.grad else { continue };
            if sum.values.is_empty() {
                sum.values = Owned::zeros(info.elements(), grad.order(), 0);
            }
            let order = sum.values.order();
            match sum.begun {
                true => grad.add_to(info.shape(), order, sum.values.as_mut_slice()),
                false => grad.read(info.shape(), order, 0, sum.values.as_mut_slice()),
            }
            sum.begun = true;
        }
    }
}

/// Adds the sums, where there are any yet, to the last micro-batch.
fn combine<'a, A: Element>(sums: &'a [Sum<A>], scale: f64, step: &mut Step<'a, A>) {
    for (_, tensor) in step.iter_mut().filter(|(_, tensor)| !tensor.frozen) {
        if let Some(sum) = sums.get(tensor.index()).filter(|sum| sum.begun) {
            let values = sum.values.as_values();
            tensor.grad = Some(match tensor.grad.take() {
                Some(grad) => grad.plus(values),
                None => Grad::new(values),
            });
        }
        if let Some(grad) = &mut tensor.grad {
            grad.scale_by(scale);
        }
    }
}

impl<A: Element, O: Optimizer<A>> Optimizer<A> for Accumulate<O, A> {
    fn check(&self, step: &Step<'_, A>) -> Result<()> {
        self.check_own(step)?;
        self.inner.check(step)?;
        if self.gathered + 1 < self.every {
            return Ok(());
        }
        let mut step = step.preview();
        combine(&self.sums, self.scale(), &mut step);
        self.inner.check(&step)
    }

    fn apply(&mut self, step: Step<'_, A>) -> Result<Report> {
        step.ensure_writable()?;
        self.check_own(&step)?;
        self.inner.check(&step)?;
        let first = self.layout.is_none();
        let layout = self.layout.get_or_insert_with(|| Arc::clone(step.layout()));
        self.sums.resize_with(layout.len(), || Sum::of(None));
        if self.gathered + 1 < self.every {
            self.add(&step);
            self.gathered += 1;
            return Ok(skipped(self.inner.learning_rate(), None));
        }
        // From here on the step may borrow from the sums: a shorter lifetime than the caller's.
        let mut step: Step<'_, A> = step;
        combine(&self.sums, self.scale(), &mut step);
        let result = self.inner.apply(step);
        if first && result.is_err() {
            self.layout = None; // a step that was refused must not decide which parameters these are
            self.sums.clear();
        }
        let report = result?;
        self.discard();
        Ok(report)
    }

    count_inner!();

    fn layout(&self) -> Option<&Arc<Layout>> {
        self.layout.as_ref().or(self.inner.layout())
    }

    fn write_state(&self, state: &mut StateWriter<'_>) {
        let mut node = state.node("accumulate");
        node.value("gathered", self.gathered);
        let tensors = self.layout.iter().flat_map(|layout| layout.tensors()).zip(&self.sums);
        tensors.filter(|(_, sum)| sum.begun).for_each(|(info, sum)| sum.values.write(&mut node, "sum", info));
        self.inner.write_state(state);
    }

    fn read_state<'s>(&'s mut self, state: &mut StateReader<'_>) -> Result<Commit<'s>> {
        let node = state.node("accumulate")?;
        let room = |gathered: &u64| *gathered == 0 || *gathered < self.every;
        let count = node.value_where("gathered", "less than the micro-batches of a step", room)?;
        let sum = |info| Ok(Sum::of(Owned::read(&node, "sum", info)?));
        let read = node.tensors().iter().map(sum).collect::<Result<Vec<_>>>()?;
        let known = node.layout().cloned();
        let Self { inner, gathered, sums, layout, .. } = self;
        let own = Commit::new(move || (*gathered, *sums, *layout) = (count, read, known));
        Ok(inner.read_state(state)?.and(own))
    }
}
