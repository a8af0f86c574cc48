//! The loops over slots that are stored in full, in 8 bits and in 4 bits.

use pulp::Arch;

use super::coded::{CodedMut, PackedMut};
use super::precision::Rounding;
use super::slots::Slots;
use super::stored::MAX_SLOTS;
use crate::kernel::four_bits::{CodeRounding, SMALL_GROUP};
use crate::kernel::narrow::{GROUP, Reader, narrow_group};
use crate::params::Scalar;

/// Applies the update to slots that are stored in full.
#[inline(always)]
pub(super) fn full<const STREAMS: bool, A: Scalar, S: Slots<A>>(
    arch: Arch,
    param: &mut [A],
    grad: &[A],
    slots: [&mut [A]; MAX_SLOTS],
    update: impl Fn(A, A, S) -> (A, S) + Copy,
) {
    arch.dispatch(
        #[inline(always)]
        move || {
            let update = update;
            S::for_each(STREAMS, param, grad, slots, (|value| value, |value, _| value), 0, update);
        },
    );
}

/// The values of some elements, each slot from the beginning of a cache line.
#[repr(align(64))]
struct Wide<A, const N: usize>([[A; N]; MAX_SLOTS]);

/// Applies the update to slots in 8 bits. Not inlined: its memory for a group would be a part of every loop's stack.
#[inline(never)]
pub(super) fn coded<A: Scalar, S: Slots<A>>(
    arch: Arch,
    param: &mut [A],
    grad: &[A],
    slots: [CodedMut<'_>; MAX_SLOTS],
    seed: u32,
    update: impl Fn(A, A, S) -> (A, S) + Copy,
) {
    arch.dispatch(
        #[inline(always)]
        move || {
            // What is moved makes this a closure that is called once: `dispatch` would not inline another.
            let (update, mut slots) = (update, slots);
            let mut wide = Wide([[A::zero(); GROUP]; MAX_SLOTS]);
            let wide = &mut wide.0;
            let groups = param.chunks_mut(GROUP).zip(grad.chunks(GROUP)).enumerate();
            for (number, (param, grad)) in groups {
                let start = number * GROUP;
                let readers = slots.each_ref().map(|slot| match slot.scales.get(number) {
                    Some(scale) => Reader::new(*scale),
                    None => Reader::new(0.0),
                });
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
const PIECE: usize = 4 * SMALL_GROUP;

/// Applies the update to slots in 4 bits, by the loop for slots that are stored in full.
#[inline(never)]
pub(super) fn packed<A: Scalar, S: Slots<A>>(
    arch: Arch,
    param: &mut [A],
    grad: &[A],
    mut slots: [PackedMut<'_>; MAX_SLOTS],
    (seed, rounding): (u32, Rounding),
    update: impl Fn(A, A, S) -> (A, S) + Copy,
) {
    let mut wide = Wide([[A::zero(); PIECE]; MAX_SLOTS]);
    for (number, (param, grad)) in param.chunks_mut(PIECE).zip(grad.chunks(PIECE)).enumerate() {
        let (start, length) = (number * PIECE, param.len());
        for (wide, slot) in wide.0.iter_mut().zip(&mut slots).take(S::COUNT) {
            let PackedMut { codes, scales, map } = slot.range(start, length);
            map.widen(arch, codes, scales, &mut wide[..length]);
        }
        full::<false, A, S>(arch, param, grad, wide.0.each_mut().map(|wide| &mut wide[..length]), update);
        for (at, (wide, slot)) in wide.0.iter().zip(&mut slots).take(S::COUNT).enumerate() {
            let PackedMut { codes, scales, map } = slot.range(start, length);
            let rounding = match rounding {
                Rounding::Nearest => CodeRounding::Nearest,
                Rounding::Stochastic => CodeRounding::Stochastic { seed: seed.wrapping_add(start as u32), slot: at },
            };
            map.narrow(arch, &wide[..length], (codes, scales), rounding);
        }
    }
}
