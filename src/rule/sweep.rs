//! The way over memory: every tensor of a step, in blocks, in one parallel region.

use std::mem::take;

use ndarray::{ArrayViewMutD, Axis};
use pulp::Arch;

use super::Rule;
use super::lanes::{Lanes, MAX_SLOTS, Prelude};
use crate::grad::{BLOCK, Grad};
use crate::params::{Order, ValuesMut};
use crate::scalar::Scalar;
use crate::threads;

/// Below this many elements a step is too short to share.
const SERIAL: usize = 32 * 1024;

/// What all blocks of a tensor share.
#[derive(Clone, Copy)]
pub(super) struct Shared<'s, A, C> {
    pub(super) coefficients: C,
    pub(super) prelude: Prelude<A>,
    pub(super) grad: &'s Grad<'s, A>,
    pub(super) shape: &'s [usize],
    /// The order in which the slots lie in memory; blocks follow it.
    pub(super) order: Order,
}

/// A part of one tensor: elements `start …` in the order of its slots.
pub(super) struct Part<'s, A, C> {
    shared: Shared<'s, A, C>,
    param: Param<'s, A>,
    start: usize,
    slots: [&'s mut [A]; MAX_SLOTS],
}

enum Param<'s, A> {
    Slice(&'s mut [A]),
    /// With axes turned so that row-major order is the order of the slots.
    View(ArrayViewMutD<'s, A>),
}

impl<'s, A: Scalar, C: Copy> Part<'s, A, C> {
    pub(super) fn whole(
        shared: Shared<'s, A, C>,
        param: &'s mut ValuesMut<'_, A>,
        slots: [&'s mut [A]; MAX_SLOTS],
    ) -> Self {
        let param = match param.in_order(shared.shape, shared.order) {
            Ok(slice) => Param::Slice(slice),
            Err(view) => Param::View(view),
        };
        Self { shared, param, start: 0, slots }
    }

    fn len(&self) -> usize {
        match &self.param {
            Param::Slice(slice) => slice.len(),
            Param::View(view) => view.len(),
        }
    }

    /// Two parts of roughly equal length; `self` must have two elements.
    fn halve(self) -> (Self, Self) {
        let Self { shared, param, start, slots } = self;
        let (left, right) = match param {
            Param::Slice(slice) => {
                let (left, right) = slice.split_at_mut(slice.len() / 2);
                (Param::Slice(left), Param::Slice(right))
            }
            Param::View(view) => {
                let axis = view.shape().iter().position(|&length| length > 1).unwrap_or(0);
                let middle = view.shape()[axis] / 2;
                let (left, right) = view.split_at(Axis(axis), middle);
                (Param::View(left), Param::View(right))
            }
        };
        let mut left = Self { shared, param: left, start, slots: Default::default() };
        let mut right = Self { shared, param: right, start: start + left.len(), slots: Default::default() };
        for ((slot, left_slot), right_slot) in slots.into_iter().zip(&mut left.slots).zip(&mut right.slots) {
            if !slot.is_empty() {
                (*left_slot, *right_slot) = slot.split_at_mut(right.start - start);
            }
        }
        (left, right)
    }

    fn run<R: Rule<A, Coefficients = C>>(self, rule: &R, arch: Arch) {
        let slot_count = rule.slots().len();
        let Self { shared, param, start, slots } = self;
        let sweep = |param: &mut [A], grad: &[A], slots: [&mut [A]; MAX_SLOTS]| {
            let lanes = Lanes { arch, prelude: shared.prelude, param, grad, slots, slot_count };
            rule.sweep(shared.coefficients, lanes);
        };
        match (param, shared.grad.as_slice(shared.order)) {
            (Param::Slice(param), Some(grad)) => sweep(param, &grad[start..start + param.len()], slots),
            (Param::Slice(param), None) => {
                let mut slots = slots.map(|slot| slot.chunks_mut(BLOCK));
                let mut buffer = [A::zero(); BLOCK];
                for (block, param) in param.chunks_mut(BLOCK).enumerate() {
                    let grad = &mut buffer[..param.len()];
                    shared.grad.read_raw(shared.shape, shared.order, start + block * BLOCK, grad);
                    let slots = slots.each_mut().map(|slot| slot.next().unwrap_or_default());
                    sweep(param, grad, slots);
                }
            }
            (Param::View(view), _) if view.len() > BLOCK => {
                let part = Part { shared, param: Param::View(view), start, slots };
                let (left, right) = part.halve();
                left.run(rule, arch);
                right.run(rule, arch);
            }
            (Param::View(mut view), _) => {
                let (mut param, mut grad) = ([A::zero(); BLOCK], [A::zero(); BLOCK]);
                let (param, grad) = (&mut param[..view.len()], &mut grad[..view.len()]);
                param.iter_mut().zip(&view).for_each(|(out, value)| *out = *value);
                shared.grad.read_raw(shared.shape, shared.order, start, grad);
                sweep(param, grad, slots);
                view.iter_mut().zip(param).for_each(|(out, value)| *out = *value);
            }
        }
    }
}

/// Applies a rule to the tensors of a step: at once if there is little to do or one thread to do it, else when all are
/// known, in one parallel region.
pub(super) struct Sweep<'s, A: Scalar, R: Rule<A>> {
    rule: &'s R,
    arch: Arch,
    share: bool,
    waiting: Vec<Option<Part<'s, A, R::Coefficients>>>,
}

impl<'s, A: Scalar, R: Rule<A>> Sweep<'s, A, R> {
    /// For a step of at most so many elements.
    pub(super) fn new(rule: &'s R, arch: Arch, elements: usize) -> Self {
        Self { rule, arch, share: elements > SERIAL && threads::count() > 1, waiting: Vec::new() }
    }

    pub(super) fn tensor(&mut self, part: Part<'s, A, R::Coefficients>) {
        match self.share {
            true => self.waiting.push(Some(part)),
            false => part.run(self.rule, self.arch),
        }
    }

    pub(super) fn finish(mut self) {
        let total: usize = self.waiting.iter().flatten().map(Part::len).sum();
        let grain = (total / (8 * threads::count())).max(SERIAL / 2);
        in_parallel(self.rule, self.arch, &mut self.waiting, total, grain);
    }
}

/// Halves the work, between tensors or within one, until a share is no longer than `grain`.
fn in_parallel<A: Scalar, R: Rule<A>>(
    rule: &R,
    arch: Arch,
    parts: &mut [Option<Part<'_, A, R::Coefficients>>],
    total: usize,
    grain: usize,
) {
    if total <= grain {
        return parts.iter_mut().filter_map(take).for_each(|part| part.run(rule, arch));
    }
    if let [part] = parts {
        if let Some(part) = take(part) {
            let (left, right) = part.halve();
            let (left_len, right_len) = (left.len(), right.len());
            threads::join(
                || in_parallel(rule, arch, &mut [Some(left)], left_len, grain),
                || in_parallel(rule, arch, &mut [Some(right)], right_len, grain),
            );
        }
        return;
    }
    let mut left_total = 0;
    let cut = parts.iter().flatten().position(|part| {
        left_total += part.len();
        2 * left_total >= total
    });
    let cut = cut.map_or(parts.len() / 2, |cut| (cut + 1).min(parts.len() - 1));
    let (left, right) = parts.split_at_mut(cut);
    let left_total = left.iter().flatten().map(Part::len).sum();
    threads::join(
        || in_parallel(rule, arch, left, left_total, grain),
        || in_parallel(rule, arch, right, total - left_total, grain),
    );
}
