//! 16-bit parameters.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use ndarray::{ArrayD, IxDyn, ShapeBuilder};

use super::around;
use crate::error::Result;
use crate::follower::Follower;
use crate::grad::{BLOCK, Grad};
use crate::optimizer::Optimizer;
use crate::params::{Layout, Order, Values, ValuesMut, blocks};
use crate::scalar::Element;
use crate::step::{Report, Step, Tensor};

/// Steps parameters of 16 bits, `half::bf16` or `half::f16`, through f32 copies: made by
/// [`Optimizer::master_weights`].
///
/// Most steps are smaller than the spacing of 16-bit numbers and would round to nothing. So an f32 copy of every
/// parameter, its master weight, takes the step of the optimizer inside, and the parameter is the copy rounded to
/// nearest. Gradients are widened and parameters narrowed block by block in the cache. The master weights are made from
/// the parameters at the first step and hold from then on: what is written to the parameters in between is overwritten.
///
/// Everything inside is in f32: clipping, sums of micro-batches, averages. So give `master_weights` last. f16 needs a
/// scaled loss; [`unscale`](Optimizer::unscale) divides the gradients again.
///
/// # State
/// One f32 per parameter, and that of the optimizer inside.
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
/// P. Micikevicius et al., *Mixed Precision Training* (2017), arXiv:1710.03740, section 3.1.
#[derive(Clone)]
pub struct MasterWeights<O, H> {
    inner: O,
    layout: Option<Arc<Layout>>,
    masters: Vec<(Vec<f32>, Order)>,
    element: PhantomData<fn() -> H>,
}

around!(MasterWeights<O, H>);

impl<O, H> MasterWeights<O, H> {
    pub(crate) fn new(inner: O) -> Self {
        Self { inner, layout: None, masters: Vec::new(), element: PhantomData }
    }

    /// The master weight of the tensor at `path`, once there has been a step.
    pub fn master(&self, path: &str) -> Option<ArrayD<f32>> {
        let layout = self.layout.as_ref()?;
        let at = layout.position(path)?;
        let (values, order) = self.masters.get(at)?;
        let shape = IxDyn(layout.tensors()[at].shape()).set_f(*order == Order::F);
        ArrayD::from_shape_vec(shape, values.clone()).ok()
    }

    fn check_own<B: Element>(&self, step: &Step<'_, B>) -> Result<()> {
        Layout::ensure_known(self.layout.as_ref(), step.layout())
    }
}

/// A parameter's values in f32, in the order in which they lie.
fn widened<H: Element>(param: &ValuesMut<'_, H>, shape: &[usize]) -> (Vec<f32>, Order) {
    let values = param.as_values();
    let order = if matches!(values, Values::Contiguous(_, Order::F)) { Order::F } else { Order::C };
    let view = values.view(shape);
    let view = if order == Order::F { view.reversed_axes() } else { view };
    (view.iter().map(|value| value.as_f64() as f32).collect(), order)
}

/// One tensor of the step inside.
fn inside<'s, H: Element>(
    index: usize,
    master: &'s mut [f32],
    order: Order,
    grad: Option<&'s Grad<'_, H>>,
) -> Tensor<'s, f32> {
    let mut tensor = Tensor::new(index, ValuesMut::Contiguous(master, order));
    tensor.grad = grad.map(Grad::widened);
    tensor
}

impl<H: Element, O: Optimizer<f32>> Optimizer<H> for MasterWeights<O, H> {
    fn check(&self, step: &Step<'_, H>) -> Result<()> {
        self.check_own(step)?;
        let mut masters: Vec<_> = step.iter().map(|(info, tensor)| widened(&tensor.param, info.shape())).collect();
        let tensors = step.iter().zip(&mut masters).map(|((_, tensor), (master, order))| {
            let mut inner = inside(tensor.index(), master, *order, tensor.grad.as_ref());
            (inner.learning_rate, inner.weight_decay) = (tensor.learning_rate, tensor.weight_decay);
            inner
        });
        self.inner.check(&Step::from_parts(Arc::clone(step.layout()), tensors.collect()))
    }

    fn apply(&mut self, mut step: Step<'_, H>) -> Result<Report> {
        self.check_own(&step)?;
        let first = self.masters.is_empty();
        if first {
            self.layout = Some(Arc::clone(step.layout()));
            self.masters.resize_with(step.layout().len(), || (Vec::new(), Order::C));
        }
        let layout = Arc::clone(step.layout());
        let mut masters = self.masters.iter_mut();
        let (mut tensors, mut next) = (Vec::with_capacity(step.len()), 0);
        for (info, tensor) in step.iter_mut() {
            let Some(master) = masters.nth(tensor.index() - next) else { break };
            next = tensor.index() + 1;
            if master.0.len() != info.elements() {
                *master = widened(&tensor.param, info.shape());
            }
            let Tensor { index, param, grad, learning_rate, weight_decay, .. } = tensor;
            let mut inner = inside(*index, &mut master.0, master.1, grad.as_ref());
            (inner.learning_rate, inner.weight_decay) = (*learning_rate, *weight_decay);
            inner.followers.push(Follower::copy(param.reborrow()));
            tensors.push(inner);
        }
        let result = self.inner.apply(Step::from_parts(layout, tensors));
        if first && result.is_err() {
            self.layout = None;
            self.masters.clear();
        }
        let report = result?;
        if report.moved {
            step.iter_mut().filter(|(_, tensor)| tensor.grad.is_some()).for_each(|(info, tensor)| {
                follow(tensor, info.shape());
            });
        }
        Ok(report)
    }

    fn learning_rate(&self) -> f64 {
        self.inner.learning_rate()
    }

    fn steps(&self) -> u64 {
        self.inner.steps()
    }

    fn layout(&self) -> Option<&Arc<Layout>> {
        self.layout.as_ref()
    }
}

/// What follows the 16-bit parameter itself, in a pass of its own.
fn follow<H: Element>(tensor: &mut Tensor<'_, H>, shape: &[usize]) {
    let Tensor { param, followers, .. } = tensor;
    let view = param.as_values();
    let view = view.view(shape);
    let mut buffer = [H::zero(); BLOCK];
    for follower in followers {
        let mut following = follower.in_order(shape, Order::C);
        for start in (0..view.len()).step_by(BLOCK) {
            let block = &mut buffer[..BLOCK.min(view.len() - start)];
            blocks::read(&view, start, block);
            following.follow(pulp::Arch::new(), start, block);
        }
    }
}

impl<O: fmt::Debug, H> fmt::Debug for MasterWeights<O, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MasterWeights").field("inner", &self.inner).finish_non_exhaustive()
    }
}
