//! One step of all ranks of a group: all of them take it, or none.
//!
//! [`Peers`] are the ranks. When they [`agree`](Peers::agree) on a step, there is a [`Joint`] step. Only a joint step gives access to the group:
//! the ranks exchange what they need, [`confirm`](Joint::confirm) what they have found out meanwhile, and [`take`](Joint::take) it. At the end
//! of every call, [`conclude`](Peers::conclude) tells the others of an error that came up before this rank met them.

mod agreement;
mod before;
mod beginning;
mod description;

use std::mem;
use std::sync::Arc;

use super::group::{Collective, RankGroup};
use crate::error::{Error, RankError, Result, StepError};
use crate::params::{Element, Layout, ParamsMut};
use crate::step::batch::Batch;
use crate::step::share::Extent;
use crate::step::{Grad, Preview, Report, Step, norm};
use agreement::{RankWeights, agree};
use beginning::Beginning;

pub(super) use agreement::{Vote, norms, skips};
pub(super) use before::ensure_finite_params;
pub(crate) use before::{Before, ensure_finite};
pub(super) use description::{describe_grads, describe_tensors, describe_values, end};

/// The ranks of a group that step together, as one of them sees the others.
#[derive(Debug, Clone)]
pub(super) struct Peers<G> {
    group: Arc<G>,
    /// Whether this rank has met the others in this call, so that all know how it ends.
    has_met: bool,
}

impl<G> Peers<G> {
    pub(super) fn new(group: G) -> Self {
        Self { group: Arc::new(group), has_met: false }
    }

    pub(super) fn group(&self) -> &G {
        &self.group
    }
}

impl<G: RankGroup> Peers<G> {
    /// Whether there is no other rank.
    pub(super) fn are_none(&self) -> bool {
        self.group.size() == 1
    }

    /// Returns an error if a step would not reach all ranks alike: if other ranks have the rest of it, because the group of the adaptor of this
    /// name would not reach them with its errors, or if an adaptor outside may skip it on this rank alone.
    pub(super) fn ensure_reached<A: Element>(&self, step: &Step<'_, A>, name: &'static str) -> Result<()> {
        let share = step.share();
        if share.extent < Extent::Parameters {
            return Err(Error::Ranks(RankError::InsideSharded { name }));
        }
        if share.skips_alone && !self.are_none() {
            return Err(Error::Step(StepError::CannotAscend {
                reason: "`sam` with `NonFinite::Skip` would skip a step on one rank alone, and the other ranks would wait; use \
                         `NonFinite::Allow` and the policy of `data_parallel` or `sharded`, or write `sam` before `local_steps`",
            }));
        }
        Ok(())
    }

    /// The lines that describe a step to the others, if there are any.
    pub(super) fn tell(&self, lines: impl FnOnce() -> Vec<String>) -> Vec<String> {
        if self.are_none() { Vec::new() } else { lines() }
    }

    /// The joint step, if all ranks take the same one; nothing if one of them skips it.
    ///
    /// # Errors
    /// This rank's own, or that of another rank, or that their steps differ.
    pub(super) fn agree(&mut self, own: Result<Vote>) -> Result<Option<Joint<G>>> {
        self.has_met = true;
        let weights = agree(&*self.group, own)?;
        Ok(weights.map(|weights| Joint { group: Arc::clone(&self.group), weights }))
    }

    /// The result of a call, of which the others are told if it is an error that they do not know. `is_awaited` says whether they wait.
    pub(super) fn conclude(&mut self, result: Result<Report>, is_awaited: bool) -> Result<Report> {
        let is_known = mem::take(&mut self.has_met);
        result.map_err(|error| if is_known || !is_awaited { error } else { self.refuse(error) })
    }

    /// Tells the others that this rank takes no step, and returns why.
    fn refuse(&self, own: Error) -> Error {
        agree(&*self.group, Err(own.clone())).err().unwrap_or(own)
    }

    /// Gives all ranks the parameters of rank 0, if all ask for it and are `ready`. On an error nothing has changed.
    pub(super) fn broadcast<A: Element>(
        &self,
        params: &mut dyn ParamsMut<Elem = A>,
        known: Option<&Arc<Layout>>,
        bucket: usize,
        ready: impl FnOnce(&Step<'_, A>) -> Result<()>,
    ) -> Result<Arc<Layout>>
    where
        G: Collective<A>,
    {
        let mut step = Step::of_params(params, known).map_err(|error| self.refuse(error))?;
        let about = || {
            let begin = format!("a broadcast in buckets of {bucket} elements");
            [begin].into_iter().chain(describe_tensors(&step, |_| "to receive")).collect()
        };
        agree(&*self.group, ready(&step).map(|()| Vote::about(about())))?;
        Beginning::receive(&*self.group, &mut step, bucket)?;
        Ok(Arc::clone(step.layout()))
    }
}

/// A step that all ranks have agreed on.
#[derive(Debug)]
pub(super) struct Joint<G> {
    group: Arc<G>,
    weights: RankWeights,
}

impl<G: RankGroup> Joint<G> {
    pub(super) fn group(&self) -> &G {
        &self.group
    }

    /// Gives this rank's gradients, as they are packed, their weight in the mean over all ranks, and the step that of all ranks' gradients.
    pub(super) fn weigh<A: Element>(&self, step: &mut Step<'_, A>, grads: &mut [A]) {
        let RankWeights { own, mean, are_given } = self.weights;
        if own != 1.0 {
            grads.iter_mut().for_each(|grad| *grad = A::from_f64(grad.as_f64() * own));
        }
        step.set_batch(Batch { weight: mean, is_weighted: are_given, ..step.batch() });
    }

    /// Whether all ranks go on, after something that one of them may have found alone. Where one skips the step, all do.
    ///
    /// # Errors
    /// Those of [`Peers::agree`].
    pub(super) fn confirm(&self, own: Result<Vote>) -> Result<bool> {
        agree(&*self.group, own).map(|weights| weights.is_some())
    }

    /// Calls `take` with the step. In a first step, `begin` is the number of elements of a bucket: the ranks first receive the parameters of
    /// rank 0 in such buckets, and keep them only if the step succeeds.
    pub(super) fn take<A: Element>(
        self,
        step: &mut Step<'_, A>,
        begin: Option<usize>,
        take: impl FnOnce(&Self, &mut Step<'_, A>) -> Result<Report>,
    ) -> Result<Report>
    where
        G: Collective<A>,
    {
        let Some(bucket) = begin else { return take(&self, step) };
        let beginning = Beginning::receive(self.group(), step, bucket)?;
        let result = take(&self, step);
        beginning.settle(step, result.is_ok());
        result
    }
}

/// A step whose gradients no rank knows yet, to ask the optimizer inside about: zero where there will be one.
///
/// What it refuses about the gradients themselves it will refuse on all ranks, as all give it the same.
pub(super) fn ahead<'s, A: Element>(step: &'s Step<'_, A>) -> Preview<'s, A> {
    let mut preview = step.preview();
    preview.grads_mut().for_each(|(info, grad)| *grad.compact_mut(info).1 = Grad::zero());
    preview
}

/// The error of the first gradient that is not finite.
pub(super) fn non_finite<A: Element>(step: &Step<'_, A>) -> Option<Error> {
    (!step.are_finite()).then(|| norm::non_finite(&step.grads().collect::<Vec<_>>()))
}
