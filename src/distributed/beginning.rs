//! Parameters that begin as those of rank 0.

use super::group::Collective;
use super::packed::{pack_params, put_params};
use crate::error::Result;
use crate::scalar::Element;
use crate::step::Step;

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
        let own = pack_params(step);
        let mut received = own.clone();
        received.chunks_mut(bucket).try_for_each(|bucket| group.broadcast(bucket, 0))?;
        put_params(step, &received);
        Ok(Self { own })
    }

    /// Puts back what there was before.
    pub(super) fn undo(&self, step: &mut Step<'_, A>) {
        if !self.own.is_empty() {
            put_params(step, &self.own);
        }
    }
}
