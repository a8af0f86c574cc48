//! Changing the elements of a tree, each with that of another tree or alone, on all threads.

use pulp::Arch;

use super::pairs::{Paired, Pairs};
use crate::kernel::simd;
use crate::kernel::threads::{self, Divisible};
use crate::params::{Element, Order, ValuesMut};
use crate::step::Grad;
use crate::step::grad::{BLOCK, WIDE_BLOCK, with_buffer};
use crate::step::target::Target;

/// A part of one tensor: elements `start …` in an order.
struct Part<'s, B, A> {
    target: Target<'s, B>,
    other: Option<&'s Grad<'s, A>>,
    shape: &'s [usize],
    order: Order,
    start: usize,
}

/// Updates every element of the first tree with that of the second, or with 0 if there is none.
pub(super) fn update_each<A: Element, B: Element>(
    pairs: &mut Pairs<'_, ValuesMut<'_, B>, A>,
    update: impl Fn(&mut B, &A) + Copy + Send + Sync,
) {
    let arch = simd::arch();
    let total = pairs.tensors.iter().map(|tensor| tensor.elements).sum();
    let shapes = &pairs.shapes[..];
    let parts = pairs.tensors.iter_mut().map(|Paired { shape, own, other, .. }| {
        let (shape, order) = (&shapes[shape.clone()], own.as_values().order());
        Part { target: Target::of(own, shape, order), other: other.as_ref(), shape, order, start: 0 }
    });
    if threads::are_worth(total) {
        threads::share(&mut parts.map(Some).collect::<Vec<_>>(), &|part: Part<'_, B, A>| part.run(arch, update));
    } else {
        parts.for_each(|part| part.run(arch, update));
    }
}

impl<A: Element, B: Element> Part<'_, B, A> {
    fn run(mut self, arch: Arch, update: impl Fn(&mut B, &A) + Copy) {
        let elements = self.len();
        let Some(other) = self.other else {
            return self.target.change(arch, |value| update(value, &A::zero()));
        };
        if let Some(other) = other.as_final_slice(self.order) {
            return self.target.update(arch, 0, &other[self.start..][..elements], update);
        }
        with_buffer(elements, |buffer| {
            for at in (0..elements).step_by(WIDE_BLOCK) {
                let block = &mut buffer[..WIDE_BLOCK.min(elements - at)];
                other.read(self.shape, self.order, self.start + at, block);
                self.target.update(arch, at, block, update);
            }
        });
    }
}

impl<A: Element, B: Element> Divisible for Part<'_, B, A> {
    fn len(&self) -> usize {
        self.target.len()
    }

    fn is_divisible(&self) -> bool {
        self.len() > BLOCK
    }

    fn halve(self) -> (Self, Self) {
        let Self { target, other, shape, order, start } = self;
        let (left, right) = target.halve();
        let middle = start + left.len();
        (Self { target: left, other, shape, order, start }, Self { target: right, other, shape, order, start: middle })
    }
}
