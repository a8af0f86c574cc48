//! Sums over the elements of two trees: in `f64`, over fixed blocks, so that the bits depend on neither threads nor layout.

use pulp::NullaryFnOnce;

use super::pairs::{Paired, Pairs};
use crate::kernel::{simd, tree};
use crate::params::{Element, Order, Values};
use crate::step::grad::{BLOCK, WIDE_BLOCK, read, with_buffer};
use crate::step::norm::{Kind, LANES, Term, across, max, norm_by};

/// Σ a·b.
pub(super) fn dot<A: Element>(pairs: &Pairs<'_, Values<'_, A>, A>) -> f64 {
    over_tensors(
        &pairs.tensors,
        &pairs.shapes,
        |a, b| simd::arch().dispatch(Products { a, b }),
        |left, right| left + right,
    )
}

/// The Euclidean norm of a − b.
pub(super) fn distance<A: Element>(pairs: &Pairs<'_, Values<'_, A>, A>) -> f64 {
    norm_by(2.0, |term| {
        let block = |a: &[A], b: &[A]| simd::arch().dispatch(Differences { term, a, b });
        over_tensors(&pairs.tensors, &pairs.shapes, block, |left, right| term.combine(left, right))
    })
}

/// A block of two tensors.
struct Products<'v, A> {
    a: &'v [A],
    b: &'v [A],
}

/// A block of two tensors, and what is reduced of their difference.
struct Differences<'v, A> {
    term: Term,
    a: &'v [A],
    b: &'v [A],
}

impl<A: Element> NullaryFnOnce for Products<'_, A> {
    type Output = f64;

    #[inline(always)]
    fn call(self) -> f64 {
        fold(self.a, self.b, |a, b| a * b, |sum, term| sum + term)
    }
}

impl<A: Element> NullaryFnOnce for Differences<'_, A> {
    type Output = f64;

    #[inline(always)]
    fn call(self) -> f64 {
        let Self { term: Term { kind, factor }, a, b } = self;
        match kind {
            Kind::Max => fold(a, b, |a, b| ((a - b) * factor).abs(), max),
            _ => fold(a, b, |a, b| ((a - b) * factor) * ((a - b) * factor), |sum, term| sum + term),
        }
    }
}

/// Folds what `term` makes of two elements.
#[inline(always)]
fn fold<A: Element>(a: &[A], b: &[A], term: impl Fn(f64, f64) -> f64, combine: impl Fn(f64, f64) -> f64) -> f64 {
    let mut lanes = [0.0; LANES];
    let (a, b) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest = a.remainder().iter().zip(b.remainder());
    for (a, b) in a.zip(b) {
        for (lane, (a, b)) in lanes.iter_mut().zip(a.iter().zip(b)) {
            *lane = combine(*lane, term(a.as_f64(), b.as_f64()));
        }
    }
    for (lane, (a, b)) in lanes.iter_mut().zip(rest) {
        *lane = combine(*lane, term(a.as_f64(), b.as_f64()));
    }
    across(lanes, combine)
}

/// Reduces blocks of two elements each, tensor after tensor, in a tree that halves the list.
fn over_tensors<A: Element>(
    tensors: &[Paired<'_, Values<'_, A>, A>],
    shapes: &[usize],
    block: impl Fn(&[A], &[A]) -> f64 + Copy + Sync,
    combine: impl Fn(f64, f64) -> f64 + Copy + Sync,
) -> f64 {
    match tensors {
        [] => 0.0,
        [tensor] => over_elements(tensor, &shapes[tensor.shape.clone()], block, combine),
        _ => {
            let (left, right) = tensors.split_at(tensors.len() / 2);
            let elements = if tensors.len() > 8 { tensors.iter().map(|tensor| tensor.elements).sum() } else { 0 };
            let over = |tensors| over_tensors(tensors, shapes, block, combine);
            let (left, right) = tree::join(elements, || over(left), || over(right));
            combine(left, right)
        }
    }
}

/// [`over_tensors`] of one tensor, in row-major order.
fn over_elements<A: Element>(
    tensor: &Paired<'_, Values<'_, A>, A>,
    shape: &[usize],
    block: impl Fn(&[A], &[A]) -> f64 + Copy + Sync,
    combine: impl Fn(f64, f64) -> f64 + Copy + Sync,
) -> f64 {
    let Some(other) = &tensor.other else { return 0.0 };
    let of_slices = |a: &[A], b: &[A]| {
        let leaf = |start: usize, length: usize| block(&a[start..start + length], &b[start..start + length]);
        tree::reduce((0, a.len()), BLOCK, &leaf, &combine)
    };
    if let (Some(a), Some(b)) = (tensor.own.as_slice(Order::C), other.as_final_slice(Order::C)) {
        return of_slices(a, b);
    }
    let leaf = |start: usize, length: usize| {
        with_buffer(length, |a| {
            with_buffer(length, |b| {
                read(&tensor.own, shape, Order::C, start, a);
                other.read(shape, Order::C, start, b);
                of_slices(a, b)
            })
        })
    };
    tree::reduce((0, tensor.elements), WIDE_BLOCK, &leaf, &combine)
}
