//! The floor: loops that move the bytes of a step and compute nothing.

use std::ops::{Deref, DerefMut};

use gradus::simd::{self, Level};
use pulp::Arch;
use rayon::prelude::*;

/// Numbers that begin a cache line: stores that cross from one into the next cost a multiple.
pub(crate) struct Lines {
    memory: Vec<f32>,
    first: usize,
}

impl Lines {
    pub(crate) fn new(numbers: impl Fn(usize) -> f32, elements: usize) -> Self {
        let mut memory = vec![0.0; elements + 16];
        let first = memory.as_ptr().align_offset(64);
        (0..elements).for_each(|i| memory[first + i] = numbers(i));
        memory.truncate(first + elements);
        Self { memory, first }
    }

    pub(crate) fn zeros(elements: usize) -> Self {
        let memory = vec![0.0; elements + 16]; // fresh zero pages, as the library's own slots are
        let first = memory.as_ptr().align_offset(64);
        Self { memory, first }
    }
}

impl Deref for Lines {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.memory[self.first..]
    }
}

impl DerefMut for Lines {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.memory[self.first..]
    }
}

/// The instructions with which steps are taken.
pub(crate) fn arch() -> Arch {
    match simd::level() {
        Level::Baseline => Some(Arch::Scalar),
        #[cfg(target_arch = "x86_64")]
        Level::V3 => pulp::x86::V3::try_new().map(Arch::V3),
        #[cfg(target_arch = "x86_64")]
        Level::V4 => pulp::x86::V4::try_new().map(Arch::V4),
        _ => Some(Arch::new()),
    }
    .expect("a level in use is available")
}

/// Elements of one share of a parallel floor.
pub(crate) const SHARE: usize = 64 * 1024;

/// Reads parameter, gradient and slots and writes parameter and slots, in registers as wide as the step's and on as many
/// threads.
pub(crate) fn move_bytes(param: &mut [f32], grad: &[f32], slots: &mut [Lines]) {
    match slots {
        [] => shares(param, grad, []),
        [a] => shares(param, grad, [a]),
        [a, b] => shares(param, grad, [a, b]),
        [a, b, c] => shares(param, grad, [a, b, c]),
        [a, b, c, d, ..] => shares(param, grad, [a, b, c, d]),
    }
}

/// Elements that are read before the first of them is written, as in a step.
pub(crate) const TOGETHER: usize = 64;

#[inline(always)]
fn of_one_share<const N: usize>(param: &mut [f32], grad: &[f32], slots: [&mut [f32]; N]) {
    let ((params, param), (grads, grad)) = (param.as_chunks_mut::<TOGETHER>(), grad.as_chunks::<TOGETHER>());
    let mut slots = slots.map(|slot| slot.as_chunks_mut::<TOGETHER>());
    for (number, (params, grads)) in params.iter_mut().zip(grads).enumerate() {
        let (old, grads) = (*params, *grads);
        let old_slots: [_; N] = std::array::from_fn(|slot| slots[slot].0[number]);
        for (slot, old) in slots.iter_mut().zip(old_slots) {
            slot.0[number] = old.map(flip);
        }
        *params = std::array::from_fn(|i| mix(old[i], grads[i]));
    }
    slots.iter_mut().flat_map(|slot| slot.1.iter_mut()).for_each(|x| *x = flip(*x));
    param.iter_mut().zip(grad).for_each(|(p, g)| *p = mix(*p, *g));
}

#[inline(always)]
fn flip(x: f32) -> f32 {
    f32::from_bits(x.to_bits() ^ 1)
}

#[inline(always)]
fn mix(x: f32, y: f32) -> f32 {
    f32::from_bits(x.to_bits() ^ (y.to_bits() & 1))
}

fn shares<const N: usize>(param: &mut [f32], grad: &[f32], slots: [&mut Lines; N]) {
    let arch = arch();
    let run = move |p: &mut [f32], g: &[f32], s: [&mut [f32]; N]| {
        arch.dispatch(
            #[inline(always)]
            move || of_one_share(p, g, s),
        )
    };
    if param.len() <= SHARE {
        return run(param, grad, slots.map(|slot| &mut slot[..]));
    }
    let mut chunks = slots.map(|slot| slot.chunks_mut(SHARE));
    let parts: Vec<_> = param
        .chunks_mut(SHARE)
        .zip(grad.chunks(SHARE))
        .map(|(p, g)| (p, g, chunks.each_mut().map(|chunk| chunk.next().unwrap_or_default())))
        .collect();
    parts.into_par_iter().for_each(|(p, g, s)| run(p, g, s));
}
