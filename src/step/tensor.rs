//! One tensor of a step.

use ndarray::{ArrayD, ArrayViewMutD};

use super::{Follower, Grad};
use crate::params::{Element, TensorInfo, Values, ValuesMut};
use crate::step::follower::follow;

/// How a group changes a hyper-parameter of one tensor: replaced by `value` if there is one, then times `scale`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Adjust {
    /// Takes the place of the optimizer's own value.
    pub value: Option<f64>,
    /// Multiplies whichever value holds.
    pub scale: f64,
}

impl Default for Adjust {
    fn default() -> Self {
        Self { value: None, scale: 1.0 }
    }
}

impl Adjust {
    /// The value that holds for the tensor, given the optimizer's own.
    pub fn apply(&self, own: f64) -> f64 {
        self.value.unwrap_or(own) * self.scale
    }
}

/// One tensor of a step: the parameter to move and the gradient to move it by.
#[derive(Debug)]
pub struct Tensor<'a, A> {
    pub(crate) index: usize,
    pub(crate) param: ValuesMut<'a, A>,
    /// The gradient; `None` leaves the parameter, its state and its step count untouched.
    pub grad: Option<Grad<'a, A>>,
    /// A group's change to the learning rate.
    pub learning_rate: Adjust,
    /// A group's change to the weight decay.
    pub weight_decay: Adjust,
    /// What follows the parameter, while its new values are in the cache.
    pub followers: Vec<Follower<'a, A>>,
    pub(crate) frozen: bool,
}

impl<'a, A: Element> Tensor<'a, A> {
    pub(crate) fn new(index: usize, param: ValuesMut<'a, A>) -> Self {
        Self {
            index,
            param,
            grad: None,
            learning_rate: Adjust::default(),
            weight_decay: Adjust::default(),
            followers: Vec::new(),
            frozen: false,
        }
    }

    /// Whether a group changes anything for this tensor.
    pub(crate) fn is_adjusted(&self) -> bool {
        self.learning_rate != Adjust::default() || self.weight_decay != Adjust::default()
    }

    /// The tensor's position in the [layout](crate::Step::layout).
    pub fn index(&self) -> usize {
        self.index
    }

    /// The parameter, to be read.
    pub fn param(&self) -> Values<'_, A> {
        self.param.as_values()
    }

    /// Moves the parameter as a whole, with its [followers](Self::followers): for optimizers that work on tensors
    /// instead of elements.
    ///
    /// `update` gets the parameter as a writable view and a copy of the gradient after scaling and limiting. Without a
    /// gradient nothing happens, and `false` is returned. `info` is the tensor's entry in the layout.
    pub fn update(&mut self, info: &TensorInfo, update: impl FnOnce(ArrayViewMutD<'_, A>, ArrayD<A>)) -> bool {
        let Some(grad) = &self.grad else { return false };
        let grad = grad.to_array(info.shape());
        update(self.param.view_mut(info.shape()), grad);
        follow(&mut self.followers, &self.param.as_values(), info.shape());
        true
    }

    /// The same tensor, borrowed from this one, with what follows it or without.
    pub(crate) fn lend(&mut self, with_followers: bool) -> Tensor<'_, A> {
        let followers =
            if with_followers { self.followers.iter_mut().map(Follower::lend).collect() } else { Vec::new() };
        Tensor {
            grad: self.grad.as_ref().map(Grad::reborrow),
            learning_rate: self.learning_rate,
            weight_decay: self.weight_decay,
            frozen: self.frozen,
            followers,
            ..Tensor::new(self.index, self.param.reborrow())
        }
    }

    /// Keeps the parameter as it is, whatever gradients were gathered for it before.
    pub fn freeze(&mut self) {
        self.grad = None;
        self.frozen = true;
    }
}
