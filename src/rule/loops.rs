//! The loops over slots in full, in 16, in 8 and in 4 bits.

use pulp::Arch;

use super::coded::{CodedMut, PackedMut};
use super::precision::Rounding;
use super::prelude::Prelude;
use super::slots::Slots;
use super::stored::MAX_SLOTS;
use crate::kernel::four_bits::{CodeRounding, SMALL_GROUP};
use crate::kernel::narrow::{GROUP, Reader, narrow_group, nearest_bf16, random, stochastic_bf16, widen_bf16};
use crate::params::Scalar;

/// Parameters, and gradients that the rule sees.
pub(super) type Pair<'p, A> = (&'p mut [A], &'p [A]);

/// Elements whose gradients are changed together, before the rule sees them.
const PIECE: usize = 256;

/// Calls `update` with pieces of a block and where they begin: with all of it if the rule sees the gradients as they are.
#[inline(never)]
pub(super) fn in_pieces<A: Scalar>(
    (arch, prelude): (Arch, &Prelude<A>),
    (param, grad): Pair<'_, A>,
    update: &mut dyn FnMut(usize, Pair<'_, A>),
) {
    if prelude.leaves_grad() {
        return update(0, (param, grad));
    }
    let mut seen = [A::zero(); PIECE];
    for (number, (param, grad)) in param.chunks_mut(PIECE).zip(grad.chunks(PIECE)).enumerate() {
        let grad = prelude.seen(arch, param, grad, &mut seen);
        update(number * PIECE, (param, grad));
    }
}

/// Applies the update to slots that are stored in full.
#[inline(always)]
pub(super) fn full<A: Scalar, S: Slots<A>>(
    arch: Arch,
    streams: bool,
    elements: Pair<'_, A>,
    slots: [&mut [A]; MAX_SLOTS],
    update: impl Fn(A, A, S) -> (A, S) + Copy,
) {
    // A function each, so that the short loop does not save what the other needs.
    match streams {
        true => full_as::<true, A, S>(arch, elements, slots, update),
        false => full_as::<false, A, S>(arch, elements, slots, update),
    }
}

#[inline(always)]
fn full_as<const STREAMS: bool, A: Scalar, S: Slots<A>>(
    arch: Arch,
    (param, grad): Pair<'_, A>,
    slots: [&mut [A]; MAX_SLOTS],
    update: impl Fn(A, A, S) -> (A, S) + Copy,
) {
    arch.dispatch(
        #[inline(always)]
        move || {
            // What is moved makes this a closure that is called once: `dispatch` would not inline another.
            let update = update;
            S::for_each(STREAMS, param, grad, slots, (|value| value, |value, _| value), 0, update);
        },
    );
}

/// Applies the update to slots in 16 bits. They are as much arithmetic as memory: the short loop is as fast at every size.
#[inline(always)]
pub(super) fn sixteen<A: Scalar, S: Slots<A>>(
    arch: Arch,
    (param, grad): Pair<'_, A>,
    slots: [&mut [u16]; MAX_SLOTS],
    (seed, rounding): (u32, Rounding),
    update: impl Fn(A, A, S) -> (A, S) + Copy,
) {
    match rounding {
        Rounding::Nearest => arch.dispatch(
            #[inline(always)]
            move || {
                let update = update;
                S::for_each(false, param, grad, slots, (widen_bf16, |value, _| nearest_bf16(value)), 0, update);
            },
        ),
        Rounding::Stochastic => arch.dispatch(
            #[inline(always)]
            move || {
                let update = update;
                S::for_each(false, param, grad, slots, (widen_bf16, stochastic_bf16), random(seed), update);
            },
        ),
    }
}

/// The values of some elements, each slot from the beginning of a cache line, and the gradients that the rule sees.
#[repr(align(64))]
struct Wide<A, const N: usize> {
    slots: [[A; N]; MAX_SLOTS],
    grads: [A; N],
}

impl<A: Scalar, const N: usize> Wide<A, N> {
    fn zeros() -> Self {
        Self { slots: [[A::zero(); N]; MAX_SLOTS], grads: [A::zero(); N] }
    }
}

/// Applies the update to slots in 8 bits. Not inlined: its memory for a group would be a part of every loop's stack.
#[inline(never)]
pub(super) fn coded<A: Scalar, S: Slots<A>>(
    (arch, prelude): (Arch, &Prelude<A>),
    (param, grad): Pair<'_, A>,
    slots: [CodedMut<'_>; MAX_SLOTS],
    seed: u32,
    update: impl Fn(A, A, S) -> (A, S) + Copy,
) {
    let mut memory = Wide::<A, GROUP>::zeros();
    let (memory, prelude) = (&mut memory, *prelude);
    arch.dispatch(
        #[inline(always)]
        move || {
            let (update, mut slots) = (update, slots);
            let Wide { slots: wide, grads } = memory;
            let groups = param.chunks_mut(GROUP).zip(grad.chunks(GROUP)).enumerate();
            for (number, (param, grad)) in groups {
                let start = number * GROUP;
                let readers = slots.each_ref().map(|slot| match slot.scales.get(number) {
                    Some(scale) => Reader::new(*scale),
                    None => Reader::new(0.0),
                });
                let grad = prelude.seen(arch, param, grad, grads);
                let codes = slots.each_ref().map(|slot| slot.codes.get(start..start + param.len()).unwrap_or_default());
                S::widen_each(param, grad, codes, wide, readers, update);
                let seed = seed.wrapping_add(start as u32);
                for (slot, (wide, stored)) in wide.iter().zip(&mut slots).take(S::COUNT).enumerate() {
                    let codes = &mut stored.codes[start..start + param.len()];
                    let seed = seed ^ ((slot as u32) << 30);
                    stored.scales[number] = narrow_group(&wide[..param.len()], codes, seed);
                }
            }
        },
    );
}

/// Elements of slots in 4 bits that are updated together: enough to share three calls.
const PACKED: usize = 4 * SMALL_GROUP;

/// What updates some elements whose slots are stored in full.
type UpdateFull<'u, A> = &'u dyn Fn(Pair<'_, A>, [&mut [A]; MAX_SLOTS]);

/// Applies an update to `count` slots in 4 bits, by the loop for slots that are stored in full. It does not know the rule: most of its time goes into
/// widening and narrowing, which need not be compiled for each.
#[inline(never)]
pub(super) fn packed<A: Scalar>(
    (arch, prelude): (Arch, &Prelude<A>),
    (param, grad): Pair<'_, A>,
    (mut slots, count): ([PackedMut<'_>; MAX_SLOTS], usize),
    (seed, rounding): (u32, Rounding),
    update: UpdateFull<'_, A>,
) {
    let mut wide = Wide::<A, PACKED>::zeros();
    for (number, (param, grad)) in param.chunks_mut(PACKED).zip(grad.chunks(PACKED)).enumerate() {
        let (start, length) = (number * PACKED, param.len());
        let grad = prelude.seen(arch, param, grad, &mut wide.grads);
        for (wide, slot) in wide.slots.iter_mut().zip(&mut slots).take(count) {
            let PackedMut { codes, scales, map } = slot.range(start, length);
            map.widen(arch, codes, scales, &mut wide[..length]);
        }
        update((param, grad), wide.slots.each_mut().map(|wide| &mut wide[..length]));
        for (at, (wide, slot)) in wide.slots.iter().zip(&mut slots).take(count).enumerate() {
            let PackedMut { codes, scales, map } = slot.range(start, length);
            let rounding = match rounding {
                Rounding::Nearest => CodeRounding::Nearest,
                Rounding::Stochastic => CodeRounding::Stochastic { seed: seed.wrapping_add(start as u32), slot: at },
            };
            map.narrow(arch, &wide[..length], (codes, scales), rounding);
        }
    }
}
