//! Parameters that begin as those of rank 0.

use super::group::Collective;
use super::packed::{self, Place};
use crate::error::Result;
use crate::grad::Grad;
use crate::params::Layout;
use crate::scalar::Element;
use crate::step::{Preview, Step};

/// The parameters that a rank had before it got those of rank 0.
#[derive(Debug)]
pub(super) struct Beginning<A> {
    own: Vec<A>,
}

impl<A: Element> Beginning<A> {
    /// Takes the parameters of rank 0, of all tensors of the step. On an error nothing has changed.
    pub(super) fn receive(group: &impl Collective<A>, step: &mut Step<'_, A>, bucket: usize) -> Result<Self> {
        if group.size() == 1 {
            return Ok(Self { own: Vec::new() });
        }
        let own = copy(step);
        let mut received = own.clone();
        received.chunks_mut(bucket).try_for_each(|bucket| group.broadcast(bucket, 0))?;
        put(step, &received);
        Ok(Self { own })
    }

    /// Puts back what there was before.
    pub(super) fn undo(&self, step: &mut Step<'_, A>) {
        if !self.own.is_empty() {
            put(step, &self.own);
        }
    }
}

/// The parameters of a step, packed.
pub(super) fn copy<A: Element>(step: &Step<'_, A>) -> Vec<A> {
    let places = all(step.layout(), step);
    let mut values = vec![A::zero(); packed::elements(&places)];
    for ((info, tensor), place) in step.iter().zip(&places) {
        packed::read(tensor.param(), info, &mut values[place.range()]);
    }
    values
}

/// Writes packed parameters.
pub(super) fn put<A: Element>(step: &mut Step<'_, A>, values: &[A]) {
    let layout = std::sync::Arc::clone(step.layout());
    let places = all(&layout, step);
    for ((info, tensor), place) in step.iter_mut().zip(&places) {
        packed::write(&values[place.range()], info, &mut tensor.param);
    }
}

fn all<'l, A: Element>(layout: &'l Layout, step: &Step<'_, A>) -> Vec<Place<'l>> {
    packed::places(layout, step, |_| true)
}

/// A step whose gradients nobody knows yet, to ask the optimizer inside about: zero where there will be one.
///
/// What it refuses about the gradients themselves it will refuse on all ranks, as all give it the same.
pub(super) fn ahead<'s, A: Element>(step: &'s Step<'_, A>) -> Preview<'s, A> {
    let mut preview = step.preview();
    preview.iter_mut().filter_map(|(_, tensor)| tensor.grad.as_mut()).for_each(|grad| *grad = Grad::zero());
    preview
}
