//! Parameters that begin as those of rank 0.

use std::sync::Arc;

use super::agreement::{Word, refuse};
use super::description::{agree_about, describe_tensors};
use super::group::Collective;
use super::packed::{pack_params, put_params};
use crate::error::Result;
use crate::params::{Element, Layout, ParamsMut};
use crate::step::Step;
use crate::step::follower::catch_up;

/// Gives all ranks the parameters of rank 0, if all ask for it and are `ready`. On an error nothing has changed.
pub(super) fn broadcast<A: Element>(
    group: &impl Collective<A>,
    params: &mut dyn ParamsMut<Elem = A>,
    known: Option<&Arc<Layout>>,
    bucket: usize,
    ready: impl FnOnce(&Step<'_, A>) -> Result<()>,
) -> Result<Arc<Layout>> {
    let mut step = Step::of_params(params, known).map_err(|error| refuse(group, error))?;
    agree_about(group, ready(&step).map(|()| Word::Go), |text| {
        writeln!(text, "a broadcast in buckets of {bucket} elements")?;
        describe_tensors(&step, text, |_| "to receive")
    })?;
    Beginning::receive(group, &mut step, bucket)?;
    Ok(Arc::clone(step.layout()))
}

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

    /// After a step that was taken, brings the followers that no sweep has reached to what was received; after another, puts back what
    /// there was before.
    pub(super) fn settle(&self, step: &mut Step<'_, A>, is_taken: bool) {
        if self.own.is_empty() {
            return;
        }
        if !is_taken {
            return put_params(step, &self.own);
        }
        for (info, tensor) in step.iter_mut() {
            catch_up(&mut tensor.followers, &tensor.param.as_values(), info.shape());
        }
    }
}
