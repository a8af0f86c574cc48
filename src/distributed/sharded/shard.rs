//! A rank's shard of the parameters, and the way into and out of the buffers that ranks exchange.

use std::mem::take;
use std::ops::Range;
use std::sync::Arc;

use super::cut::{Cut, How, Piece};
use crate::distributed::{Collective, RankGroup};
use crate::error::Result;
use crate::kernel::blocks;
use crate::params::{Element, Layout, Order, TensorInfo, Values, ValuesMut};
use crate::step::share::Share;
use crate::step::{Grad, Step, Tensor};

/// What one rank has of the parameters.
#[derive(Debug)]
pub(super) struct Shard {
    pub(super) cut: Cut,
    pub(super) rank: usize,
    /// The parameters as the optimizer inside sees them.
    pub(super) layout: Arc<Layout>,
}

impl Shard {
    pub(super) fn new(whole: &Arc<Layout>, group: &impl RankGroup, how: How) -> Self {
        let (cut, rank) = (Cut::new(whole, group.size(), how), group.rank());
        Self { layout: cut.layout(rank), cut, rank }
    }

    /// The step of this rank's share: on `params`, by `grads` where the whole step has a gradient.
    pub(super) fn step<'s, A: Element>(
        &self,
        whole: &'s Step<'_, A>,
        params: &'s mut [A],
        grads: &'s [A],
        share: Share<'s>,
    ) -> Step<'s, A> {
        let (mut rest, mut begun) = (params, 0);
        let tensors = whole.iter().map(|(_, tensor)| {
            let place = self.place(tensor.index()).unwrap_or(begun..begun);
            let (_, from) = take(&mut rest).split_at_mut(place.start - begun);
            let (param, later) = from.split_at_mut(place.len());
            (rest, begun) = (later, place.end);
            let grad = |_: &Grad<'_, A>| Grad::new(Values::Contiguous(&grads[place], Order::C));
            Tensor {
                grad: tensor.grad.as_ref().map(grad),
                learning_rate: tensor.learning_rate,
                weight_decay: tensor.weight_decay,
                replaced: tensor.replaced.clone(),
                frozen: tensor.frozen,
                clipped: tensor.clipped,
                ..Tensor::new(tensor.index(), ValuesMut::Contiguous(param, Order::C))
            }
        });
        let tensors = tensors.collect();
        let mut part = Step::from_parts(Arc::clone(&self.layout), tensors, share);
        part.set_batch(whole.batch());
        part.set_sight(whole.sight());
        part
    }

    /// Where in the share a tensor's part is, if there is one.
    fn place(&self, tensor: usize) -> Option<Range<usize>> {
        let piece = self.cut.piece(tensor, self.rank)?;
        Some(piece.at..piece.at + piece.elements.len())
    }

    /// Copies this rank's share of the parameters.
    pub(super) fn read_params<A: Element>(&self, step: &Step<'_, A>, share: &mut [A]) {
        for (info, tensor) in step.iter() {
            let Some(piece) = self.cut.piece(tensor.index(), self.rank) else { continue };
            let out = &mut share[piece.at..piece.at + piece.elements.len()];
            Grad::new(tensor.param()).read_raw(info.shape(), Order::C, piece.elements.start, out);
        }
    }

    /// Copies all gradients, or zeros where there is none, into the ranks' parts of a buffer.
    pub(super) fn pack_grads<A: Element>(&self, step: &Step<'_, A>, all: &mut [A]) {
        if step.len() < self.cut.whole().len() {
            all.fill(A::zero());
        }
        for (info, tensor) in step.iter() {
            for piece in self.cut.pieces(tensor.index()) {
                let out = &mut all[self.within(piece)];
                match &tensor.grad {
                    Some(grad) => grad.read(info.shape(), Order::C, piece.elements.start, out),
                    None => out.fill(A::zero()),
                }
            }
        }
    }

    /// Copies the ranks' parts of a buffer into a parameter.
    pub(super) fn unpack_params<A: Element>(&self, info: &TensorInfo, tensor: &mut Tensor<'_, A>, all: &[A]) {
        for piece in self.cut.pieces(tensor.index()) {
            write(&mut tensor.param, info.shape(), piece.elements.start, &all[self.within(piece)]);
        }
    }

    /// Where a piece is in a buffer of all ranks' parts.
    fn within(&self, piece: &Piece) -> Range<usize> {
        let begin = piece.rank * self.cut.part() + piece.at;
        begin..begin + piece.elements.len()
    }
}

/// Writes elements `start …` of a tensor in row-major order.
fn write<A: Element>(param: &mut ValuesMut<'_, A>, shape: &[usize], start: usize, values: &[A]) {
    match param.in_order(shape, Order::C) {
        Ok(slice) => slice[start..start + values.len()].copy_from_slice(values),
        Err(mut view) => blocks::update(&mut view, start, values, |to, from| *to = *from),
    }
}

/// What ranks exchange, kept from step to step.
#[derive(Debug, Clone)]
pub(super) struct Buffers<A> {
    /// Of every rank a part, all of the same length: first gradients, then parameters.
    pub(super) all: Vec<A>,
    pub(super) grads: Vec<A>,
    pub(super) params: Vec<A>,
}

impl<A> Default for Buffers<A> {
    fn default() -> Self {
        Self { all: Vec::new(), grads: Vec::new(), params: Vec::new() }
    }
}

impl<A: Element> Buffers<A> {
    /// Makes room for the parts of so many ranks.
    pub(super) fn fit(&mut self, ranks: usize, part: usize) {
        self.all.resize(ranks * part, A::zero());
        self.grads.resize(part, A::zero());
        self.params.resize(part, A::zero());
    }

    /// The mean gradients of this rank's shard.
    pub(super) fn reduce(&mut self, group: &impl Collective<A>) -> Result<()> {
        group.reduce_scatter(&self.all, &mut self.grads)?;
        let ranks = A::from_f64(group.size() as f64);
        self.grads.iter_mut().for_each(|grad| *grad /= ranks);
        Ok(())
    }

    /// The parameters of all ranks, of which each says in the last place whether it has stepped. Returns how many have not.
    pub(super) fn gather(&mut self, group: &impl Collective<A>, has_stepped: bool) -> Result<usize> {
        let part = self.params.len();
        let word = if has_stepped { A::zero() } else { A::one() };
        self.params.iter_mut().skip(part - 1).for_each(|last| *last = word);
        group.all_gather(&self.params, &mut self.all)?;
        Ok(self.all.chunks(part).filter(|part| part.last() != Some(&A::zero())).count())
    }
}
