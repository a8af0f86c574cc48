//! Steps before their gradients are known.

use crate::params::Element;
use crate::step::{Adjust, Grad, Preview, Step, norm};

/// A step whose gradients nobody knows yet, to ask the optimizer inside about: zero where there will be one.
///
/// What it refuses about the gradients themselves it will refuse on all ranks, as all give it the same.
pub(super) fn ahead<'s, A: Element>(step: &'s Step<'_, A>) -> Preview<'s, A> {
    let mut preview = step.preview();
    preview.iter_mut().filter_map(|(_, tensor)| tensor.grad.as_mut()).for_each(|grad| *grad = Grad::zero());
    preview
}

/// The step of an optimizer for which every tensor that is not frozen will have a gradient, and which no group outside speaks to.
pub(super) fn ahead_for_all<'s, A: Element>(step: &'s Step<'_, A>) -> Preview<'s, A> {
    let mut preview = step.preview();
    for (_, tensor) in preview.iter_mut() {
        tensor.grad = (!tensor.frozen).then(Grad::zero);
        (tensor.learning_rate, tensor.weight_decay) = (Adjust::default(), Adjust::default());
    }
    preview
}

/// Whether the gradients of a step are finite.
pub(super) fn are_finite<A: Element>(step: &Step<'_, A>) -> bool {
    norm::all_finite(&step.grads().collect::<Vec<_>>())
}
