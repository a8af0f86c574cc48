//! One tensor of a step.

use ndarray::{ArrayD, ArrayViewMutD};

use super::projection::Projections;
use super::{Follower, Grad, Replaced};
use crate::params::{Element, TensorInfo, Values, ValuesMut};
use crate::step::follower::follow;

/// How a group changes a hyper-parameter of one tensor: it replaces the optimizer's value by `value`, if there is one, and then multiplies
/// by `scale`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Adjust {
    /// The value that replaces the optimizer's own.
    pub value: Option<f64>,
    /// The factor, 1 by default.
    pub scale: f64,
}

impl Default for Adjust {
    fn default() -> Self {
        Self { value: None, scale: 1.0 }
    }
}

impl Adjust {
    /// The value for the tensor. `own` is the optimizer's own value.
    pub fn apply(&self, own: f64) -> f64 {
        self.value.unwrap_or(own) * self.scale
    }
}

/// One tensor of a [`Step`](crate::Step): the parameter, its gradient, and what adaptors have set for it.
#[derive(Debug)]
pub struct Tensor<'a, A> {
    pub(crate) index: usize,
    pub(crate) param: ValuesMut<'a, A>,
    /// The gradient. If it is `None`, the parameter, its state and its step count stay unchanged.
    pub grad: Option<Grad<'a, A>>,
    /// How a group changes the learning rate of this tensor.
    pub learning_rate: Adjust,
    /// How a group changes the weight decay of this tensor.
    pub weight_decay: Adjust,
    /// The other hyper-parameters that groups replace for this tensor.
    pub(crate) replaced: Replaced,
    /// Values that are updated from the new parameter in the same pass over memory, such as running averages.
    pub followers: Vec<Follower<'a, A>>,
    /// The sets that the parameter is projected onto.
    pub(crate) projections: Projections<'a, A>,
    pub(crate) frozen: bool,
    /// Whether an adaptor has made the gradient shorter by clipping.
    pub(crate) clipped: bool,
}

impl<'a, A: Element> Tensor<'a, A> {
    pub(crate) fn new(index: usize, param: ValuesMut<'a, A>) -> Self {
        Self {
            index,
            param,
            grad: None,
            learning_rate: Adjust::default(),
            weight_decay: Adjust::default(),
            replaced: Replaced::default(),
            followers: Vec::new(),
            projections: Projections::default(),
            frozen: false,
            clipped: false,
        }
    }

    /// Whether a group changes the learning rate or the weight decay of this tensor.
    pub(crate) fn is_adjusted(&self) -> bool {
        self.learning_rate != Adjust::default() || self.weight_decay != Adjust::default()
    }

    /// The tensor's position in the [layout](crate::Step::layout).
    pub fn index(&self) -> usize {
        self.index
    }

    /// The parameter, for reading.
    pub fn param(&self) -> Values<'_, A> {
        self.param.as_values()
    }

    /// Moves the parameter, for optimizers that work on whole tensors. It also updates the [followers](Self::followers).
    ///
    /// `info` is the tensor's entry in the layout. `update` gets the parameter as a writable view, and a copy of the gradient with scale
    /// and limit applied. If the tensor has no gradient, `update` is not called, and the result is `false`. The parameter is then projected, if an
    /// adaptor [projects](crate::OptimizerExt::project) it.
    pub fn update(&mut self, info: &TensorInfo, update: impl FnOnce(ArrayViewMutD<'_, A>, ArrayD<A>)) -> bool {
        let Some(grad) = &self.grad else { return false };
        let grad = grad.to_array(info.shape());
        update(self.param.view_mut(info.shape()), grad);
        self.let_follow(info);
        true
    }

    /// Projects the whole parameter, which somebody else than the sweep has moved, and lets the followers follow.
    pub(crate) fn let_follow(&mut self, info: &TensorInfo) {
        self.project(info);
        follow(&mut self.followers, &self.param.as_values(), info.shape());
    }

    /// Projects the parameter onto its sets: after it has moved, and before it is followed.
    pub(crate) fn project(&mut self, info: &TensorInfo) {
        if !self.projections.is_empty() {
            let rows = self.grad.as_ref().and_then(Grad::rows).map(|(rows, _)| rows);
            self.projections.project(&mut self.param, info.shape(), rows);
        }
    }

    /// The same tensor, borrowed from this one, with what follows it or without.
    pub(crate) fn lend(&mut self, with_followers: bool) -> Tensor<'_, A> {
        let followers =
            if with_followers { self.followers.iter_mut().map(Follower::lend).collect() } else { Vec::new() };
        Tensor {
            grad: self.grad.as_ref().map(Grad::reborrow),
            learning_rate: self.learning_rate,
            weight_decay: self.weight_decay,
            replaced: self.replaced.clone(),
            frozen: self.frozen,
            clipped: self.clipped,
            followers,
            projections: self.projections.clone(),
            ..Tensor::new(self.index, self.param.reborrow())
        }
    }

    /// Keeps the parameter unchanged, even if an `accumulate` inside has already summed gradients for it.
    pub fn freeze(&mut self) {
        self.grad = None;
        self.frozen = true;
    }
}

#[cfg(feature = "half")]
impl<'a> Tensor<'a, f32> {
    /// The tensor of a step in f32 inside of one in another element type: with its gradient, what its group changes, its position, and whether it is
    /// frozen and clipped.
    pub(crate) fn inside<H: Element>(
        param: ValuesMut<'a, f32>,
        grad: Option<&'a Grad<'_, H>>,
        ([learning_rate, weight_decay], replaced): ([Adjust; 2], Replaced),
        (index, [frozen, clipped]): (usize, [bool; 2]),
    ) -> Self {
        let grad = grad.map(Grad::widened);
        Self { grad, learning_rate, weight_decay, replaced, frozen, clipped, ..Self::new(index, param) }
    }
}
