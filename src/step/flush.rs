//! The micro-batch of a step, and the step after the last one.

use std::sync::Arc;

use super::batch::Batch;
use super::pairing::walk_params;
use super::{Context, Step};
use crate::error::Result;
use crate::params::{Element, Layout, ParamsMut};

impl<'a, A: Element> Step<'a, A> {
    /// The micro-batch that the gradients belong to.
    pub(crate) fn batch(&self) -> Batch {
        self.context.batch
    }

    /// Sets the micro-batch that the gradients belong to.
    pub(crate) fn set_batch(&mut self, batch: Batch) {
        self.context.batch = batch;
    }

    /// Whether the step has no gradients and only tells every `accumulate` to take its own step.
    pub(crate) fn only_flushes(&self) -> bool {
        self.context.batch.is_last && self.grads().next().is_none()
    }

    /// A step without gradients, in which every `accumulate` takes its own step.
    pub(crate) fn to_flush(
        params: &'a mut (dyn ParamsMut<Elem = A> + '_),
        (known, steps): (Option<&Arc<Layout>>, u64),
    ) -> Result<Self> {
        let (layout, tensors) = walk_params(params, known)?;
        Layout::ensure_known(known, &layout)?;
        let context = Context { batch: Batch::FLUSH, ..Context::new(layout, steps) };
        Ok(Self { context, tensors, is_as_paired: true })
    }
}
