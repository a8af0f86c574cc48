//! Shows the tensors of a step to a monitor outside.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::sight::{Seen, Sight, Used};
use super::{Grad, Step, Tensor, norm};
use crate::params::{Element, TensorInfo};

impl<'a> Sight<'a> {
    /// Looks at what is inside of a step.
    pub(crate) fn of<A: Element>(step: &Step<'_, A>, is_swept: bool, outer: Option<&'a Sight<'a>>) -> Self {
        let length = step.layout().len();
        let mut given = vec![None; length];
        for (_, tensor) in step.iter() {
            given[tensor.index()] = tensor.grad.as_ref().map(Grad::described);
        }
        Self { given, seen: Mutex::new(vec![None; length]), is_swept, outer }
    }

    fn seen(&self) -> MutexGuard<'_, Vec<Option<Seen>>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What has been seen, by tensor position.
    pub(crate) fn take(&self) -> Vec<Option<Seen>> {
        std::mem::take(&mut self.seen())
    }

    fn see<A: Element>(&self, step: &Step<'_, A>, learning_rate: &dyn Fn(&Tensor<'_, A>) -> f64) {
        if let Some(outer) = self.outer {
            outer.see(step, learning_rate);
        }
        let mut all = self.seen();
        for (info, tensor) in step.iter() {
            let (Some(grad), Some(seen)) = (&tensor.grad, all.get_mut(tensor.index())) else { continue };
            let clipped = tensor.clipped || is_limited(info, grad);
            let given = self.given.get(tensor.index()).and_then(Option::as_ref);
            let factor = given.and_then(|given| grad.described().factor_of(given));
            let used = if step.is_cut() {
                Used::Part
            } else if self.is_swept && grad.limit() == f64::INFINITY {
                Used::OfSwept(grad.scale().abs())
            } else if factor.is_some() {
                Used::OfGiven
            } else {
                Used::Norm(norm::norm(&[(info, grad)], 2.0))
            };
            *seen = Some(Seen { learning_rate: learning_rate(tensor), used, factor, clipped });
        }
    }
}

/// Whether a limit of the elements changes one of them.
fn is_limited<A: Element>(info: &TensorInfo, grad: &Grad<'_, A>) -> bool {
    let (info, grad) = grad.compact(info);
    grad.unlimited().is_some_and(|(grad, limit)| norm::norm(&[(info, &grad)], f64::INFINITY) > limit)
}

impl<'a, A: Element> Step<'a, A> {
    /// The sight of a monitor outside, for the steps inside.
    pub(crate) fn sight(&self) -> Option<&'a Sight<'a>> {
        self.context.sight
    }

    /// Shows this step, or one made of it, to a monitor outside.
    pub(crate) fn set_sight(&mut self, sight: Option<&'a Sight<'a>>) {
        self.context.sight = sight;
    }

    /// Shows each tensor that is stepped, with its learning rate, to every monitor outside.
    #[inline]
    pub(crate) fn show(&self, learning_rate: impl Fn(&Tensor<'_, A>) -> f64) {
        if let Some(sight) = self.context.sight {
            sight.see(self, &learning_rate);
        }
    }
}
