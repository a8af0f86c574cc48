//! A tensor that is measured before it moves: parameter, gradient and slots in row-major order, however they lie in memory.

use std::ops::Range;

use super::scratch::Scratch;
use super::stored::{MAX_SLOTS, Stored};
use crate::params::{Order, Scalar, Values};
use crate::step::grad::{BLOCK, Grad, WIDE_BLOCK, read};

/// Some elements of parameter, gradient as it is without its description, and slots.
pub(super) type Pieces<'p, A> = (&'p [A], &'p [A], [&'p [A]; MAX_SLOTS]);

/// Elements that are read once more, for something else, while they are in the cache.
pub(super) const STRETCH: usize = 512;

/// So many elements, a stretch at a time.
pub(super) fn stretches(start: usize, length: usize) -> impl Iterator<Item = Range<usize>> {
    (start..start + length).step_by(STRETCH).map(move |at| at..(at + STRETCH).min(start + length))
}

/// A range of the elements.
#[inline(always)]
pub(super) fn range_of<'p, A>((param, grad, slots): Pieces<'p, A>, range: Range<usize>) -> Pieces<'p, A> {
    let slots = slots.map(|slot| slot.get(range.clone()).unwrap_or_default());
    (&param[range.clone()], &grad[range], slots)
}

/// A tensor to be read block by block.
pub(super) struct Unmoved<'s, A> {
    scratch: &'s Scratch<A>,
    grad: &'s Grad<'s, A>,
    param: &'s Values<'s, A>,
    /// `None` before the first step: all slots are 0.
    stored: Option<&'s Stored<A>>,
    shape: &'s [usize],
    order: Order,
    slots: usize,
    /// All of it, if it lies row by row.
    as_it_lies: Option<Pieces<'s, A>>,
}

impl<'s, A: Scalar> Unmoved<'s, A> {
    /// A tensor with so many slots, which lie in this order.
    pub(super) fn new(
        scratch: &'s Scratch<A>,
        (param, grad, stored): (&'s Values<'s, A>, &'s Grad<'s, A>, Option<&'s Stored<A>>),
        (shape, order, slots): (&'s [usize], Order, usize),
    ) -> Self {
        let in_full = stored.and_then(Stored::in_full).filter(|_| order == Order::C);
        let as_it_lies = match (param.as_slice(Order::C), grad.as_slice(Order::C), in_full) {
            (Some(param), Some(grad), Some(slots)) => Some((param, grad, slots)),
            _ => None,
        };
        Self { scratch, grad, param, stored, shape, order, slots, as_it_lies }
    }

    pub(super) fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// The most elements to read at once: what has to be copied is copied in larger blocks.
    pub(super) fn block(&self) -> usize {
        if self.as_it_lies.is_some() { BLOCK } else { WIDE_BLOCK }
    }

    /// Calls `with` with a block.
    pub(super) fn read<T>(&self, start: usize, length: usize, with: impl FnOnce(Pieces<'_, A>) -> T) -> T {
        if let Some(pieces) = self.as_it_lies {
            return with(range_of(pieces, start..start + length));
        }
        self.scratch.with((2 + MAX_SLOTS) * length, |memory| {
            let mut pieces = memory.chunks_exact_mut(length.max(1));
            let mut piece = || pieces.next().unwrap_or_default();
            let (param, grad) = (piece(), piece());
            read(self.param, self.shape, Order::C, start, param);
            self.grad.read_raw(self.shape, Order::C, start, grad);
            let mut slots: [&[A]; MAX_SLOTS] = [&[]; MAX_SLOTS];
            for (slot, values) in slots.iter_mut().enumerate().take(self.slots) {
                let copy = piece();
                match self.stored {
                    Some(stored) => stored.read_wide(slot, (self.shape, self.order), start, copy),
                    None => copy.fill(A::zero()),
                }
                *values = copy;
            }
            with((param, grad, slots))
        })
    }
}
