//! Parameters that begin as those of rank 0.

use crate::distributed::group::Collective;
use crate::distributed::packed::{self, pack_params, put_params};
use crate::error::Result;
use crate::params::Element;
use crate::step::Step;
use crate::step::follower::catch_up;

/// A rank's parameters before it received those of rank 0, and which tensors differed. Empty if there is one rank.
#[derive(Debug)]
pub(super) struct Beginning<A> {
    own: Vec<A>,
    others: Vec<bool>,
}

impl<A: Element> Beginning<A> {
    /// Takes the parameters of rank 0, of all tensors of the step. On an error nothing has changed.
    pub(super) fn receive(group: &impl Collective<A>, step: &mut Step<'_, A>, bucket: usize) -> Result<Self> {
        if group.size() == 1 {
            return Ok(Self { own: Vec::new(), others: Vec::new() });
        }
        let own = pack_params(step);
        let mut received = own.clone();
        received.chunks_mut(bucket).try_for_each(|bucket| group.broadcast(bucket, 0))?;
        put_params(step, &received);
        let places = packed::places(step.layout(), step, |_| true);
        let others = places.iter().map(|place| own[place.range()] != received[place.range()]).collect();
        Ok(Self { own, others })
    }

    /// After a step that was taken, brings the followers that no sweep has reached to what was received. After another, puts back what
    /// there was before.
    pub(super) fn settle(self, step: &mut Step<'_, A>, is_taken: bool) {
        if self.own.is_empty() {
            return;
        }
        if !is_taken {
            return put_params(step, &self.own);
        }
        for ((info, tensor), is_other) in step.iter_mut().zip(self.others) {
            if is_other {
                catch_up(&mut tensor.followers, &tensor.param.as_values(), info.shape());
            }
        }
    }
}
