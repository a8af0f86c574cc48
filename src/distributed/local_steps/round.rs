//! A round: ranks bring together what they have trained on their own.

use std::sync::Arc;

use super::LocalSteps;
use crate::distributed::agreement::{Word, agree};
use crate::distributed::description::agree_about;
use crate::distributed::group::Collective;
use crate::distributed::packed::{self, Packed, Place};
use crate::distributed::traffic::{BUCKET_BYTES, bucket_elements};
use crate::error::{Error, Result};
use crate::params::{Element, Order, Values};
use crate::step::follower::follow;
use crate::step::{Grad, Optimizer, Report, Step, Tensor};

impl<A: Element, O: Optimizer<A>, U: Optimizer<A>, G: Collective<A>> LocalSteps<O, U, G, A> {
    /// The last step before a round and the round: all of it or nothing.
    pub(super) fn round(&mut self, step: &mut Step<'_, A>) -> Result<Report> {
        let (state, params, moved) = (self.inner.state_dict(), packed::pack_params(step), self.moved.clone());
        let result = self.try_round(step);
        if result.is_err() {
            self.moved = moved;
            packed::put_params(step, &params);
            // What an optimizer has written it reads.
            _ = self.inner.load_state_dict(&state);
        }
        result
    }

    fn try_round(&mut self, step: &mut Step<'_, A>) -> Result<Report> {
        let layout = Arc::clone(step.layout());
        // What follows the parameters is to follow them to the anchor, not to where they are in between.
        // Whatever is refused from here on, all that has moved is put back.
        let stepped = self.step_inside(step, false);
        let own = stepped.map_err(Error::taken_back).and_then(|report| self.measure(step).map(|()| report));
        let word = own.as_ref().map(|_| Word::Go).map_err(Error::clone);
        agree_about(&self.group, word, |text| text.write_str("the change since the last round"))?;

        let moved = self.moved_anywhere(step)?;
        let takes_part = |tensor: &Tensor<'_, A>| !tensor.frozen && moved[tensor.index()];
        let places = packed::places(&layout, step, takes_part);
        self.subtract(step, &places, takes_part);
        let change = &mut self.change[..packed::elements(&places)];
        packed::mean(&self.group, change, bucket_elements::<A>(BUCKET_BYTES))?;
        packed::ensure_finite(&places, change, Packed::Params)?;
        let (outer, anchors) = (self.outer.state_dict(), self.anchors.clone());
        let outside = self
            .step_outside(step, &places, takes_part)
            .map_err(Error::taken_back)
            .and_then(|_| self.ensure_finite(&places));
        // An outer optimizer may refuse on one rank alone.
        if let Err(error) = agree(&self.group, outside.map(|()| Word::Go), 0, Vec::new) {
            self.anchors = anchors;
            _ = self.outer.load_state_dict(&outer);
            return Err(error);
        }
        for (info, tensor) in step.iter_mut().filter(|(_, tensor)| takes_part(tensor)) {
            self.moved[tensor.index()] = false;
            packed::write(self.anchors[tensor.index()].as_mut_slice(), info, &mut tensor.param);
            follow(&mut tensor.followers, &tensor.param.as_values(), info.shape());
        }
        self.traffic.add((packed::elements(&places) * size_of::<A>()) as u64);
        let own = own?;
        Ok(Report { moved: own.moved || packed::elements(&places) > 0, ..own })
    }

    /// Returns an error unless this rank's parameters are finite.
    fn measure(&mut self, step: &Step<'_, A>) -> Result<()> {
        let places = packed::places(step.layout(), step, |tensor| !tensor.frozen);
        let packed = packed::room(&mut self.change, packed::elements(&places));
        let tensors = step.iter().filter(|(_, tensor)| !tensor.frozen);
        for ((info, tensor), place) in tensors.zip(&places) {
            packed::read(tensor.param(), info, &mut packed[place.range()]);
        }
        packed::ensure_finite(&places, packed, Packed::Params)
    }

    /// Which tensors of the layout an optimizer inside has moved since the last round, on this rank or another.
    fn moved_anywhere(&self, step: &Step<'_, A>) -> Result<Vec<bool>> {
        let own: Vec<u8> = step.iter().map(|(_, tensor)| self.moved[tensor.index()].into()).collect();
        let mut all = vec![0; own.len() * self.group.size()];
        self.group.all_gather_bytes(&own, &mut all)?;
        let mut moved = vec![false; step.layout().len()];
        for (at, (_, tensor)) in step.iter().enumerate() {
            moved[tensor.index()] = all.chunks(own.len()).any(|rank| rank[at] != 0);
        }
        Ok(moved)
    }

    /// Δ of this rank, of the tensors that take part.
    fn subtract(&mut self, step: &Step<'_, A>, places: &[Place<'_>], takes_part: impl Fn(&Tensor<'_, A>) -> bool) {
        let change = &mut self.change;
        for ((info, tensor), place) in step.iter().filter(|(_, tensor)| takes_part(tensor)).zip(places) {
            let change = &mut change[place.range()];
            packed::read(tensor.param(), info, change);
            let anchor = self.anchors[place.index()].as_mut_slice();
            change.iter_mut().zip(anchor).for_each(|(change, anchor)| *change = *anchor - *change);
        }
    }

    /// Returns an error unless the outer optimizer has left finite anchors and has a finite state.
    fn ensure_finite(&mut self, places: &[Place<'_>]) -> Result<()> {
        for place in places {
            let anchor = self.anchors[place.index()].as_mut_slice();
            packed::ensure_finite(&place.alone(), anchor, Packed::Params)?;
        }
        self.outer.state_dict().ensure_finite()
    }

    /// The outer optimizer's step of the anchors along Δ.
    fn step_outside(
        &mut self,
        step: &Step<'_, A>,
        places: &[Place<'_>],
        takes_part: impl Fn(&Tensor<'_, A>) -> bool,
    ) -> Result<Report> {
        let mut places = places.iter();
        let (mut tensors, change) = (Vec::with_capacity(step.len()), &self.change);
        for (_, tensor, anchor) in step.zip(&mut self.anchors) {
            let place = if takes_part(tensor) { places.next() } else { None };
            let grad = place.map(|place| Grad::new(Values::Contiguous(&change[place.range()], Order::C)));
            let outer = Tensor::new(tensor.index(), anchor.as_values_mut());
            tensors.push(Tensor { grad, frozen: tensor.frozen, ..outer });
        }
        self.outer.apply(Step::from_parts(Arc::clone(step.layout()), tensors, step.ranks()))
    }
}
