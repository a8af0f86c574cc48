//! The first of two passes: the directions of a tensor that is to be measured before it moves.

use pulp::Arch;

use super::Rule;
use super::lanes::{Goal, Lanes};
use super::measured::Measured;
use super::options::Options;
use super::stored::{MAX_SLOTS, Stored, StoredMut};
use super::sweep::Shared;
use crate::params::{Order, Scalar, Values};
use crate::step::grad::{BLOCK, WIDE_BLOCK, read};

impl<A: Scalar, C: Copy + Sync> Shared<'_, A, C> {
    /// Measures the direction that the rule would give to this parameter. Nothing is changed: the rule gets copies.
    ///
    /// The sums go through the elements in row-major order, however they lie in memory, so that their bits are the same.
    pub(super) fn measure<R: Rule<A, Coefficients = C>>(
        &self,
        rule: &R,
        arch: Arch,
        param: &Values<'_, A>,
        stored: &Stored<A>,
        options: Options,
    ) -> Measured {
        let (slot_count, agreeing) = (rule.slots().len(), options.cautious);
        let elements = self.shape.iter().product();
        // What lies in another order is read in larger blocks.
        let is_in_order = [param.order(), self.grad.order(), self.order].iter().all(|order| *order == Order::C);
        let block = if is_in_order { BLOCK } else { WIDE_BLOCK };
        Measured::of((elements, block), options.trust_ratio, &|start, length, then| {
            self.scratch.with((3 + MAX_SLOTS) * length, |memory| {
                let mut pieces = memory.chunks_exact_mut(length.max(1));
                let mut piece = || pieces.next().unwrap_or_default();
                let (before, direction, grad) = (piece(), piece(), piece());
                let mut slots: [&mut [A]; MAX_SLOTS] = std::array::from_fn(|_| piece());
                let range = start..start + length;
                let before = match param.as_slice(Order::C) {
                    Some(param) => &param[range.clone()],
                    None => {
                        read(param, self.shape, Order::C, start, before);
                        before
                    }
                };
                direction.copy_from_slice(before);
                let grad = match self.grad.as_slice(Order::C) {
                    Some(values) => &values[range],
                    None => {
                        self.grad.read_raw(self.shape, Order::C, start, grad);
                        grad
                    }
                };
                for (slot, values) in slots.iter_mut().enumerate().take(slot_count) {
                    stored.read_wide(slot, (self.shape, self.order), start, values);
                }
                let (prelude, goal, slots) = (self.prelude, Goal::Direction { agreeing }, StoredMut::Full(slots));
                let lanes =
                    Lanes { arch, prelude, goal, param: direction, grad, slots, seed: 0, slot_count, streams: false };
                rule.sweep(self.coefficients, lanes);
                then(before, direction);
            });
        })
    }
}
