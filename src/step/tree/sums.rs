//! Sums over the elements of two trees: in `f64`, over fixed blocks, so that the bits depend on neither threads nor layout.

use super::pairs::{Paired, Pairs};
use crate::kernel::{simd, tree};
use crate::params::{Element, Order, Values};
use crate::step::grad::{BLOCK, WIDE_BLOCK, read, with_buffer};
use crate::step::norm::{Term, norm_by, over_blocks};

/// Σ a·b.
pub(super) fn dot<A: Element>(pairs: &Pairs<'_, Values<'_, A>, A>) -> f64 {
    over_tensors(&pairs.tensors, &pairs.shapes, Term::TOTAL, |a, b| a * b)
}

/// The Euclidean norm of a − b.
pub(super) fn distance<A: Element>(pairs: &Pairs<'_, Values<'_, A>, A>) -> f64 {
    norm_by(2.0, |term| over_tensors(&pairs.tensors, &pairs.shapes, term, |a, b| a - b))
}

/// Reduces what `of` makes of two elements, tensor after tensor, in a tree that halves the list.
fn over_tensors<A: Element>(
    tensors: &[Paired<'_, Values<'_, A>, A>],
    shapes: &[usize],
    term: Term,
    of: impl Fn(f64, f64) -> f64 + Copy + Sync,
) -> f64 {
    match tensors {
        [] => 0.0,
        [tensor] => over_elements(tensor, &shapes[tensor.shape.clone()], term, of),
        _ => {
            let (left, right) = tensors.split_at(tensors.len() / 2);
            let elements = if tensors.len() > 8 { tensors.iter().map(|tensor| tensor.elements).sum() } else { 0 };
            let over = |tensors| over_tensors(tensors, shapes, term, of);
            let (left, right) = tree::join(elements, || over(left), || over(right));
            term.combine(left, right)
        }
    }
}

/// [`over_tensors`] of one tensor, in row-major order.
fn over_elements<A: Element>(
    tensor: &Paired<'_, Values<'_, A>, A>,
    shape: &[usize],
    term: Term,
    of: impl Fn(f64, f64) -> f64 + Copy + Sync,
) -> f64 {
    let Some(other) = &tensor.other else { return 0.0 };
    let slices = (tensor.own.as_slice(Order::C), other.as_final_slice(Order::C));
    let combine = |left, right| term.combine(left, right);
    if let (Some(own), Some(other)) = slices {
        let leaf = |start: usize, length: usize| {
            of_slices(&own[start..start + length], &other[start..start + length], term, of)
        };
        return tree::reduce((0, tensor.elements), BLOCK, &leaf, &combine);
    }
    let leaf = |start: usize, length: usize| {
        with_buffer(length, |a| {
            with_buffer(length, |b| {
                read(&tensor.own, shape, Order::C, start, a);
                other.read(shape, Order::C, start, b);
                let leaf = |start: usize, length: usize| {
                    of_slices(&a[start..start + length], &b[start..start + length], term, of)
                };
                tree::reduce((0, length), BLOCK, &leaf, &combine)
            })
        })
    };
    tree::reduce((0, tensor.elements), WIDE_BLOCK, &leaf, &combine)
}

/// [`over_elements`] of a block.
fn of_slices<A: Element>(a: &[A], b: &[A], term: Term, of: impl Fn(f64, f64) -> f64 + Copy) -> f64 {
    with_buffer(a.len(), |made: &mut [f64]| {
        let target = &mut *made;
        simd::arch().dispatch(
            #[inline(always)]
            move || {
                let target = target; // what is moved makes this a closure that is called once
                let pairs = a.iter().zip(b);
                target.iter_mut().zip(pairs).for_each(|(made, (a, b))| *made = of(a.as_f64(), b.as_f64()));
            },
        );
        over_blocks(made, term)
    })
}
