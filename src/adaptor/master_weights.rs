//! 16-bit parameters.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use ndarray::ArrayD;

use super::{around, count_inner};
use crate::error::Result;
use crate::params::{Element, Layout, Owned, ValuesMut};
use crate::state::{Commit, StateReader, StateWriter};
use crate::step::follower::Follower;
use crate::step::memo::Note;
use crate::step::{Optimizer, PerTensor, Report, Step, Tensor};

/// Steps parameters of 16 bits, `half::bf16` or `half::f16`, with f32 copies. Created by
/// [`OptimizerExt::master_weights`](crate::OptimizerExt::master_weights).
///
/// Most steps are smaller than the spacing of 16-bit numbers and would be lost in rounding. So `master_weights` keeps an f32 copy of every
/// parameter, its master weight. The optimizer inside steps the copy, and the parameter is the copy rounded to nearest. Gradients are
/// converted block by block in the cache.
///
/// The master weights are copied from the parameters at the first step. Later changes that you write to the parameters are overwritten. If
/// a master weight exceeds 65,504, the f16 parameter becomes infinite without an error.
///
/// [`kahan`](crate::OptimizerExt::kahan) and [`stochastic_rounding`](crate::OptimizerExt::stochastic_rounding) do without copies.
///
/// **Order.** Everything written before `master_weights` works in f32: clipping, accumulation, averages. So write `master_weights` last.
/// [`accumulate`](crate::OptimizerExt::accumulate) after it is an error, because gradients of 16 bits are not summed. An average that is to
/// be swapped into the parameters must have their type: `….master_weights().ema(decay)` keeps it in 16 bits.
///
/// **Loss scaling.** With f16, multiply the loss by a factor, and divide the gradients by it with
/// [`unscale`](crate::GuardExt::unscale). The [guide](crate::guide::training#parameters-of-16-bits) has a complete chain.
///
/// # State
/// One f32 per parameter, and the state of the optimizer inside.
///
/// # Example
/// ```
/// use gradus::prelude::*;
/// use half::bf16;
/// use ndarray::Array1;
///
/// let mut opt = Sgd::new(1e-3).master_weights();
/// let mut w = Array1::from_elem(8, bf16::ONE);
/// for _ in 0..100 {
///     opt.step(&mut w, &Array1::from_elem(8, bf16::ONE))?; // 1 − 0.001 is 1 in bf16
/// }
/// assert!((w[0].to_f32() - 0.9).abs() < 4e-3);
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// # References
/// P. Micikevicius et al., *Mixed Precision Training* (2017), [arXiv:1710.03740](https://arxiv.org/abs/1710.03740), section 3.1.
#[must_use = "an optimizer moves nothing until `step` is called"]
#[derive(Clone)]
pub struct MasterWeights<O, H> {
    inner: O,
    masters: PerTensor<Owned<f32>>,
    element: PhantomData<fn() -> H>,
}

around!(MasterWeights<O, H>);

impl<O, H> MasterWeights<O, H> {
    pub(crate) fn new(inner: O) -> Self {
        Self { inner, masters: PerTensor::new(), element: PhantomData }
    }

    /// The master weight of the tensor at `path`; `None` before the first step.
    pub fn master(&self, path: &str) -> Option<ArrayD<f32>> {
        let shape = self.masters.layout().and_then(|layout| Some(layout.tensors()[layout.position(path)?].shape()))?;
        Some(self.masters.get(path)?.to_array(shape))
    }
}

impl<H: Element, O: Optimizer<f32>> Optimizer<H> for MasterWeights<O, H> {
    fn check(&self, step: &Step<'_, H>) -> Result<()> {
        step.note_whole(|| Note::Part("master_weights()".into()));
        self.masters.ensure_known(step)?;
        // Before a tensor's first step its master weights would be these.
        let missing = step.iter().filter(|(_, tensor)| self.masters.at(tensor.index()).is_none());
        let fresh: Vec<Owned<f32>> = missing.map(|(info, tensor)| Owned::copy(&tensor.param(), info.shape())).collect();
        let mut fresh = fresh.iter();
        let tensors = step.iter().filter_map(|(_, tensor)| {
            let master = self.masters.at(tensor.index()).or_else(|| fresh.next())?;
            let param = ValuesMut::preview(master.as_values());
            let changes = ([tensor.learning_rate, tensor.weight_decay], tensor.replaced.clone());
            Some(Tensor::inside(param, tensor.grad.as_ref(), changes, (tensor.index(), [tensor.frozen, false])))
        });
        self.inner.check(&Step::in_context(step.context_of_check(), tensors.collect()))
    }

    fn apply(&mut self, mut step: Step<'_, H>) -> Result<Report> {
        step.ensure_writable()?;
        self.masters.ensure_known(&step)?;
        let made = self.masters.begin(&step, |info, tensor| Owned::copy(&tensor.param(), info.shape()));
        let context = step.context();
        let (mut pairs, mut copies) = (Vec::with_capacity(step.len()), Vec::with_capacity(step.len()));
        for (_, tensor, master) in step.zip_mut(self.masters.all_mut()) {
            let Some(master) = master else { break };
            let changes = ([tensor.learning_rate, tensor.weight_decay], tensor.replaced.clone());
            let place = (tensor.index(), [tensor.frozen, tensor.clipped]);
            pairs.push(Tensor::inside(master.as_values_mut(), tensor.grad.as_ref(), changes, place));
            copies.push(Follower::copy(tensor.param.reborrow()));
        }
        let tensors = pairs.into_iter().zip(&mut copies).map(|(mut tensor, copy)| {
            tensor.followers.push(copy.lend());
            tensor
        });
        let result = self.inner.apply(Step::in_context(context, tensors.collect()));
        // What the optimizer inside has moved: not what is frozen there, but also what it had gathered a gradient for before.
        let moved: Vec<_> = copies.iter().map(Follower::has_followed).collect();
        drop(copies);
        let report = self.masters.settle(made, result)?;
        for ((info, tensor), _) in step.iter_mut().zip(moved).filter(|(_, moved)| *moved) {
            tensor.let_follow(info);
        }
        Ok(report)
    }

    fn conclude(&mut self, result: Result<Report>) -> Result<Report> {
        self.inner.conclude(result)
    }

    count_inner!();

    fn layout(&self) -> Option<&Arc<Layout>> {
        self.masters.layout()
    }

    fn write_state(&self, state: &mut StateWriter<'_>) {
        let mut node = state.node("master_weights");
        node.value("dtype", H::DTYPE);
        self.masters.write_copies(&mut node, "master");
        self.inner.write_state(state);
    }

    fn read_state<'s>(&'s mut self, state: &mut StateReader<'_>) -> Result<Commit<'s>> {
        let node = state.node("master_weights")?;
        node.value_where("dtype", H::DTYPE, |dtype: &String| dtype == H::DTYPE)?;
        let read = PerTensor::read(&node, "master")?;
        let Self { inner, masters, .. } = self;
        Ok(inner.read_state(state)?.and(Commit::new(move || *masters = read)))
    }
}

impl<O: fmt::Debug, H> fmt::Debug for MasterWeights<O, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MasterWeights").field("inner", &self.inner).finish_non_exhaustive()
    }
}
