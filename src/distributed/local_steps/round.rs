//! A step of one rank alone, and a round: ranks bring together what they have trained on their own.

use std::sync::Arc;

use super::{Anchor, LocalSteps};
use crate::distributed::group::Collective;
use crate::distributed::joint::{Before, Joint, Vote, ensure_finite, ensure_finite_params};
use crate::distributed::packed::{self, Place};
use crate::distributed::traffic::{BUCKET_BYTES, bucket_elements};
use crate::error::{Error, Result, StepError};
use crate::params::{Element, Order, Owned, TensorInfo, Values};
use crate::step::{Grad, Optimizer, PerTensor, Report, Step, Tensor};

impl<A: Element> Anchor<A> {
    /// An anchor begins as the parameter.
    fn of(info: &TensorInfo, tensor: &Tensor<'_, A>) -> Self {
        let mut values = Owned::zeros(info.elements(), Order::C, 0);
        packed::read(tensor.param(), info, values.as_mut_slice());
        Self { values, moved: false }
    }
}

impl<A: Element, O: Optimizer<A>, U: Optimizer<A>, G: Collective<A>> LocalSteps<O, U, G, A> {
    /// A step of the optimizer inside that no other rank hears of.
    pub(super) fn step_alone(&mut self, step: &mut Step<'_, A>) -> Result<Report> {
        let made = self.anchors.begin(step, Anchor::of);
        let result = self.step_inside(step.lend(true));
        let (report, moved) = self.anchors.settle(made, result)?;
        let mut moved = moved.into_iter();
        self.anchors.each(step, |_, _, anchor| anchor.moved |= moved.next() == Some(true));
        Ok(report)
    }

    /// The step of the optimizer inside, and which tensors it has moved of those that it has not since the last round.
    fn step_inside(&mut self, step: Step<'_, A>) -> Result<(Report, Vec<bool>)> {
        // A tensor without elements has nothing to bring to a round.
        let is_unmoved = |anchor: &Anchor<A>| !anchor.moved && !anchor.values.is_empty();
        let watched = step.iter().map(|(_, tensor)| self.anchors.at(tensor.index()).is_some_and(is_unmoved));
        let watched: Vec<_> = watched.collect();
        step.watched(watched, |step| self.inner.apply(step))
    }

    /// The last step before a round, and the round: all of it or nothing.
    pub(super) fn round(&mut self, joint: &Joint<G>, step: &mut Step<'_, A>) -> Result<Report> {
        let (made, before) = (self.anchors.begin(step, Anchor::of), Before::of(&self.inner, step));
        let result = self.try_round(joint, step).map_err(|error| before.restore(&mut self.inner, step, error));
        self.anchors.settle(made, result)
    }

    fn try_round(&mut self, joint: &Joint<G>, step: &mut Step<'_, A>) -> Result<Report> {
        // What follows the parameters is to follow them to the anchor, not to where they are in between.
        let stepped = self.step_inside(step.lend(false));
        let own = stepped.and_then(|stepped| ensure_finite_params(step).map(|()| stepped)).map_err(Error::taken_back);
        let vote = Vote::about(vec!["the change since the last round".to_owned()]);
        joint.confirm(own.as_ref().map(|_| vote).map_err(Error::clone))?;
        let (report, mut moved) = own?;
        for ((_, _, anchor), moved) in step.zip(self.anchors.all_mut()).zip(&mut moved) {
            *moved |= anchor.is_some_and(|anchor| anchor.moved);
        }
        let layout = Arc::clone(step.layout());
        let places = Place::of(&layout, meet(joint.group(), step, &moved)?);
        self.subtract(step, &places);
        let change = &mut self.change[..packed::elements(&places)];
        let bytes = packed::mean(joint.group(), change, bucket_elements::<A>(BUCKET_BYTES))?;
        if let Some((path, index, value)) = packed::non_finite(&places, change) {
            return Err(Error::Step(StepError::NonFiniteParameter { path, index, value }));
        }
        let mut outside = outside(step, &mut self.anchors, &places, change);
        let before = Before::of(&self.outer, &outside);
        let own = self.outer.apply(outside.lend(true)).and_then(|_| ensure_finite(&self.outer, &outside));
        // An outer optimizer may refuse on one rank alone.
        if let Err(error) = joint.confirm(own.map(|()| Vote::default()).map_err(Error::taken_back)) {
            return Err(before.restore(&mut self.outer, &mut outside, error));
        }
        drop(outside);

        let (mut moved, mut taking_part) = (moved.into_iter(), places.iter().peekable());
        self.anchors.each(step, |info, tensor, anchor| {
            anchor.moved = moved.next() == Some(true);
            if taking_part.next_if(|place| place.index() == tensor.index()).is_some() {
                anchor.moved = false;
                packed::write(anchor.values.as_mut_slice(), info, &mut tensor.param);
                tensor.let_follow(info);
                if !tensor.projections.is_empty() {
                    packed::read(tensor.param(), info, anchor.values.as_mut_slice());
                }
            }
        });
        self.traffic.add(bytes);
        Ok(Report { moved: report.moved || !places.is_empty(), ..report })
    }

    /// Δ of this rank, of the tensors that take part.
    fn subtract(&mut self, step: &Step<'_, A>, places: &[Place<'_>]) {
        let change = packed::room(&mut self.change, packed::elements(places));
        let mut places = places.iter().peekable();
        for (info, tensor) in step.iter() {
            let Some(place) = places.next_if(|place| place.index() == tensor.index()) else { continue };
            let Some(anchor) = self.anchors.at(tensor.index()) else { continue };
            let change = &mut change[place.range()];
            packed::read(tensor.param(), info, change);
            change.iter_mut().zip(anchor.values.as_slice()).for_each(|(change, anchor)| *change = *anchor - *change);
        }
    }
}

/// The positions of the tensors that take part: those that an optimizer inside has moved since the last round, on this rank or another, and
/// that are not frozen.
fn meet<A: Element>(group: &impl Collective<A>, step: &Step<'_, A>, moved: &[bool]) -> Result<Vec<usize>> {
    let own: Vec<u8> = moved.iter().map(|moved| u8::from(*moved)).collect();
    let mut all = vec![0; own.len() * group.size()];
    group.all_gather_bytes(&own, &mut all)?;
    let anywhere = |at: usize| all.iter().skip(at).step_by(own.len()).any(|moved| *moved != 0);
    let take_part = step.iter().enumerate().filter(|(at, (_, tensor))| !tensor.frozen && anywhere(*at));
    Ok(take_part.map(|(_, (_, tensor))| tensor.index()).collect())
}

/// The outer optimizer's step of the anchors along Δ.
fn outside<'s, A: Element>(
    step: &Step<'s, A>,
    anchors: &'s mut PerTensor<Anchor<A>>,
    places: &[Place<'_>],
    change: &'s [A],
) -> Step<'s, A> {
    let mut places = places.iter().peekable();
    let tensors = step.zip(anchors.all_mut()).filter_map(|(_, tensor, anchor)| {
        let place = places.next_if(|place| place.index() == tensor.index());
        let grad = place.map(|place| Grad::new(Values::Contiguous(&change[place.range()], Order::C)));
        let outer = Tensor::new(tensor.index(), anchor?.values.as_values_mut());
        Some(Tensor { grad, frozen: tensor.frozen, ..outer })
    });
    let tensors = tensors.collect();
    Step::from_parts(Arc::clone(step.layout()), tensors, step.share())
}
