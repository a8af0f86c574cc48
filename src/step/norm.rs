//! Reductions over gradients: in `f64`, over fixed blocks, so that the bits depend on neither threads nor layout.

use pulp::NullaryFnOnce;

use crate::error::{Error, Result, StepError};
use crate::kernel::simd::{self, padded};
use crate::kernel::squares::{LEAST_SUM, near_one};
use crate::kernel::tree;
use crate::params::{Element, Order, TensorInfo, Values};
use crate::step::Tensor;
use crate::step::grad::{BLOCK, Grad, WIDE_BLOCK, with_buffer};

/// Elements summed side by side, the same on every machine.
pub(super) const LANES: usize = 16;

/// A gradient with the shape it has.
pub(crate) type Named<'s, 'a, A> = (&'s TensorInfo, &'s Grad<'a, A>);

/// The p-norm of all elements of these gradients, 1 ≤ p ≤ ∞.
///
/// Infinite or NaN if an element is, and infinite if the norm exceeds the range of `f64`. Nothing in between
/// overflows or underflows.
pub(crate) fn norm<A: Element>(grads: &[Named<'_, '_, A>], p: f64) -> f64 {
    norm_by(p, |term| over_tensors(grads, term))
}

/// The Euclidean norm of `length` elements of one dense gradient from element `start`, in row-major order.
pub(crate) fn norm_of_range<A: Element>(named: Named<'_, '_, A>, start: usize, length: usize) -> f64 {
    norm_by(2.0, |term| Range { named, start, length }.reduce(term))
}

/// The Euclidean norm of these numbers.
#[cfg(feature = "lora")]
pub(crate) fn euclidean(values: &[f64]) -> f64 {
    norm_by(2.0, |term| over_blocks(values, term))
}

/// Whether every element is finite.
pub(crate) fn all_finite<A: Element>(grads: &[Named<'_, '_, A>]) -> bool {
    over_tensors(grads, Term { kind: Kind::NonFinite, factor: 1.0 }) == 0.0
}

/// Whether every one of these is finite.
pub(crate) fn finite<A: Element>(values: &[A]) -> bool {
    Term { kind: Kind::NonFinite, factor: 1.0 }.block(values) == 0.0
}

/// The largest norm of a gradient whose squares are added up over many steps: the sums stay finite.
pub(crate) fn largest_of_squares<A: Element>() -> f64 {
    A::max_value().as_f64().sqrt() * 1e-3
}

/// Returns an error unless every element of these gradients is finite.
pub(crate) fn ensure_finite<A: Element>(grads: &[Named<'_, '_, A>]) -> Result<()> {
    if all_finite(grads) { Ok(()) } else { Err(non_finite(grads)) }
}

/// The path, index and value of a tensor's first element that is not finite.
pub(crate) fn non_finite_value<A: Element>(
    info: &TensorInfo,
    values: &Values<'_, A>,
) -> Option<(String, Vec<usize>, f64)> {
    if values.as_slice(Order::C).is_some_and(finite) {
        return None;
    }
    let view = values.view(info.shape());
    let (at, value) = view.iter().enumerate().find(|(_, value)| !value.is_finite())?;
    Some((info.path().to_owned(), unravel(at, info.shape()), value.as_f64()))
}

/// The error of the first parameter of these tensors that is not finite.
pub(crate) fn non_finite_param<'s, 'a: 's, A: Element>(
    mut tensors: impl Iterator<Item = (&'s TensorInfo, &'s Tensor<'a, A>)>,
) -> Option<Error> {
    let (path, index, value) = tensors.find_map(|(info, tensor)| non_finite_value(info, &tensor.param()))?;
    Some(Error::Step(StepError::NonFiniteParameter { path, index, value }))
}

/// Why the norm of these gradients is not finite.
pub(crate) fn non_finite<A: Element>(grads: &[Named<'_, '_, A>]) -> Error {
    let mut largest = ("", 0.0);
    let mut buffer = [A::zero(); BLOCK];
    for (whole, grad) in grads {
        let rows = grad.rows().map(|(rows, _)| rows);
        let (info, grad) = grad.compact(whole);
        let elements = info.elements();
        for start in (0..elements).step_by(BLOCK) {
            let block = &mut buffer[..BLOCK.min(elements - start)];
            grad.read_source(info.shape(), Order::C, start, block);
            for (offset, value) in block.iter().enumerate() {
                let value = value.as_f64();
                if !value.is_finite() {
                    let mut index = unravel(start + offset, info.shape());
                    if let (Some(rows), Some(row)) = (rows, index.first_mut()) {
                        *row = rows[*row];
                    }
                    return Error::Step(StepError::NonFiniteGradient { path: info.path().into(), index, value });
                }
                if value.abs() > largest.1 {
                    largest = (info.path(), value.abs());
                }
            }
        }
    }
    Error::Step(StepError::NormOverflow { path: largest.0.into() })
}

/// The index of an element in row-major order.
pub(crate) fn unravel(mut element: usize, shape: &[usize]) -> Vec<usize> {
    let mut index: Vec<_> = shape
        .iter()
        .rev()
        .map(|length| {
            let at = element % length;
            element /= length;
            at
        })
        .collect();
    index.reverse();
    index
}

/// A norm from its reductions: once plainly; where that over- or underflowed, once more with all elements brought
/// near 1 by a power of two or, before they are raised to a power, to at most 1.
pub(super) fn norm_by(p: f64, reduce: impl Fn(Term) -> f64) -> f64 {
    let largest = || reduce(Term { kind: Kind::Max, factor: 1.0 });
    if p == f64::INFINITY {
        return largest();
    }
    let kind = match p {
        1.0 => Kind::Sum,
        2.0 => Kind::Squares,
        p => Kind::Powers(p),
    };
    let root = |sum: f64| match p {
        1.0 => sum,
        2.0 => sum.sqrt(),
        p => sum.powf(1.0 / p),
    };
    let plain = reduce(Term { kind, factor: 1.0 });
    if plain.is_finite() && plain > LEAST_SUM {
        return root(plain);
    }
    let largest = largest();
    if largest == 0.0 || !largest.is_finite() {
        return largest;
    }
    let factor = match kind {
        Kind::Powers(_) => (1.0 / largest).min(2.0_f64.powi(1000)),
        _ => near_one(largest),
    };
    // Subnormal elements stay small, and their powers may still vanish; the norm is never below the largest.
    (root(reduce(Term { kind, factor })) / factor).max(largest)
}

/// What is reduced: a function of `factor` times the element.
#[derive(Clone, Copy)]
pub(super) struct Term {
    pub(super) kind: Kind,
    pub(super) factor: f64,
}

#[derive(Clone, Copy)]
pub(super) enum Kind {
    Sum,
    Squares,
    Powers(f64),
    Max,
    NonFinite,
}

impl Term {
    pub(super) fn combine(self, left: f64, right: f64) -> f64 {
        match self.kind {
            Kind::Max | Kind::NonFinite => max(left, right),
            _ => left + right,
        }
    }

    fn block<A: Element>(self, values: &[A]) -> f64 {
        simd::arch().dispatch(Block { term: self, values })
    }
}

/// A block to reduce. A type of its own, because a closure that could be called twice would not be inlined into the code
/// for wider registers.
struct Block<'v, A> {
    term: Term,
    values: &'v [A],
}

impl<A: Element> NullaryFnOnce for Block<'_, A> {
    type Output = f64;

    #[inline(always)]
    fn call(self) -> f64 {
        let Self { term: Term { kind, factor }, values } = self;
        let element = |value: A| value.as_f64() * factor;
        let add = |sum: f64, term: f64| sum + term;
        match kind {
            Kind::Sum => fold(values, |value| element(value).abs(), add),
            Kind::Squares => fold(values, |value| element(value) * element(value), add),
            Kind::Powers(p) => fold(values, |value| element(value).abs().powf(p), add),
            Kind::Max => fold(values, |value| element(value).abs(), max),
            // 0·x is 0, or NaN if x is not finite.
            Kind::NonFinite => fold(values, |value| value * A::zero(), |sum, term| sum + term).as_f64(),
        }
    }
}

/// The larger; NaN if either is.
#[inline(always)]
pub(super) fn max(left: f64, right: f64) -> f64 {
    if right <= left || left.is_nan() { left } else { right }
}

/// Folds a block into [`LANES`] lanes side by side and those, in halves, into one.
#[inline(always)]
fn fold<A: Element, T: Element>(values: &[A], term: impl Fn(A) -> T, combine: impl Fn(T, T) -> T) -> T {
    let mut lanes = [T::zero(); LANES];
    let chunks = values.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane = combine(*lane, term(*value));
        }
    }
    if !rest.is_empty() {
        for (lane, value) in lanes.iter_mut().zip(padded::<A, LANES>(rest)) {
            *lane = combine(*lane, term(value));
        }
    }
    across(lanes, combine)
}

/// Combines the lanes, in halves.
#[inline(always)]
pub(super) fn across<T: Copy>(mut lanes: [T; LANES], combine: impl Fn(T, T) -> T) -> T {
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            lanes[lane] = combine(lanes[lane], lanes[lane + half]);
        }
        half /= 2;
    }
    lanes[0]
}

/// Reduces tensor after tensor, in a tree that halves the list. Of a gradient of rows, only these.
fn over_tensors<A: Element>(grads: &[Named<'_, '_, A>], term: Term) -> f64 {
    match grads {
        [] => 0.0,
        &[(info, grad)] => {
            let named = grad.compact(info);
            Range { named, start: 0, length: named.0.elements() }.reduce(term)
        }
        _ => {
            let (left, right) = grads.split_at(grads.len() / 2);
            let elements = if grads.len() > 8 { grads.iter().map(elements).sum() } else { 0 };
            let (left, right) = tree::join(elements, || over_tensors(left, term), || over_tensors(right, term));
            term.combine(left, right)
        }
    }
}

/// The number of elements that have a gradient.
pub(crate) fn elements<A: Element>((info, grad): &Named<'_, '_, A>) -> usize {
    grad.compact(info).0.elements()
}

/// A range of one gradient's elements in row-major order.
struct Range<'s, 'a, A> {
    named: Named<'s, 'a, A>,
    start: usize,
    length: usize,
}

impl<A: Element> Range<'_, '_, A> {
    fn reduce(&self, term: Term) -> f64 {
        let grad = self.named.1;
        // Without a limit, the scale is left to the term, which multiplies in f64 and needs no copy.
        let (scale, limit) = grad.scale_and_limit();
        let linear = limit.is_infinite() || matches!(term.kind, Kind::NonFinite);
        let term = if linear { Term { factor: term.factor * scale, ..term } } else { term };
        match grad.source_as_slice(Order::C).filter(|_| linear) {
            Some(values) => over_blocks(&values[self.start..self.start + self.length], term),
            None => self.read(linear, term),
        }
    }

    /// [`over_blocks`] of elements that first have to be read.
    fn read(&self, linear: bool, term: Term) -> f64 {
        let (info, grad) = self.named;
        let leaf = |start: usize, length: usize| {
            with_buffer(length, |block| {
                match linear {
                    true => grad.read_source(info.shape(), Order::C, start, block),
                    false => grad.read(info.shape(), Order::C, start, block),
                }
                over_blocks(block, term)
            })
        };
        tree::reduce((self.start, self.length), WIDE_BLOCK, &leaf, &|left, right| term.combine(left, right))
    }
}

/// Reduces values block by block, in a tree.
fn over_blocks<A: Element>(values: &[A], term: Term) -> f64 {
    let leaf = |start: usize, length: usize| term.block(&values[start..start + length]);
    tree::reduce((0, values.len()), BLOCK, &leaf, &|left, right| term.combine(left, right))
}

#[cfg(test)]
mod tests {
    use ndarray::{Array1, Array2, ArrayView2, Axis, Slice, array};

    use super::*;
    use crate::params::Values;

    fn norm_of(array: ArrayView2<'_, f64>, p: f64) -> f64 {
        let info = TensorInfo::new("", array.shape());
        norm(&[(&info, &Grad::new(Values::new(array)))], p)
    }

    #[test]
    fn norms_by_hand() {
        let array = array![[3.0, -4.0], [0.0, 12.0]];
        assert_eq!(norm_of(array.view(), 1.0), 19.0);
        assert_eq!(norm_of(array.view(), 2.0), 13.0);
        assert_eq!(norm_of(array.view(), f64::INFINITY), 12.0);
        assert!((norm_of(array.view(), 3.0) - 1819.0_f64.cbrt()).abs() < 1e-12);
        assert_eq!(norm_of(Array2::zeros((0, 3)).view(), 2.0), 0.0);
        assert_eq!(norm_of(Array2::zeros((2, 3)).view(), 2.0), 0.0);
    }

    #[test]
    fn squares_beyond_the_range_of_f64_do_not_matter() {
        for scale in [1e300, 1e-300, 1e-160, 1e160, 5e-324 * 1e8] {
            let array = array![[3.0, -4.0], [0.0, 12.0]] * scale;
            let norm = norm_of(array.view(), 2.0);
            assert!((norm / scale / 13.0 - 1.0).abs() < 1e-7, "{scale}: {norm}");
        }
        assert_eq!(norm_of(array![[f64::MAX, f64::MAX]].view(), 2.0), f64::INFINITY);
    }

    #[test]
    fn the_layout_does_not_change_the_bits() {
        let array = Array2::from_shape_fn((73, 211), |(i, j)| ((i * 211 + j) as f64 * 0.7).sin());
        let fortran = array.t().to_owned();
        let mut wide = Array2::zeros((73, 422));
        let every_second = Slice::new(0, None, 2);
        wide.slice_axis_mut(Axis(1), every_second).assign(&array);
        let expected = norm_of(array.view(), 2.0);
        assert_eq!(norm_of(fortran.t(), 2.0), expected);
        assert_eq!(norm_of(wide.slice_axis(Axis(1), every_second), 2.0), expected);
        let naive = array.iter().map(|x| x * x).sum::<f64>().sqrt();
        assert!((expected / naive - 1.0).abs() < 1e-13);
    }

    #[test]
    fn the_number_of_threads_does_not_change_the_bits() {
        let array = Array1::from_shape_fn(1_000_003, |i| (i as f32 * 0.37).cos()).into_shape_with_order((1, 1_000_003));
        let info = TensorInfo::new("", &[1, 1_000_003]);
        let array = array.unwrap();
        let grad = Grad::new(Values::new(array.view()));
        let named = [(&info, &grad), (&info, &grad)];
        let expected = norm(&named, 2.0);
        #[cfg(feature = "rayon")]
        for threads in [1, 2, 4] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            assert_eq!(pool.install(|| norm(&named, 2.0)).to_bits(), expected.to_bits());
        }
        let naive = array.iter().map(|&x| 2.0 * f64::from(x).powi(2)).sum::<f64>().sqrt();
        assert!((expected / naive - 1.0).abs() < 1e-12);
    }

    #[test]
    fn the_first_offender_is_named() {
        let array = array![[1.0, 2.0], [f64::NEG_INFINITY, f64::NAN]];
        let (ok, bad) = (TensorInfo::new("ok", &[2, 2]), TensorInfo::new("bad", &[2, 2]));
        let fine = array![[1.0, 2.0], [3.0, 4.0]];
        let (fine, grad) = (Grad::new(Values::new(fine.view())), Grad::new(Values::new(array.view())));
        let named = [(&ok, &fine), (&bad, &grad)];
        assert!(!all_finite(&named) && all_finite(&named[..1]));
        assert!(norm(&named, 2.0).is_nan() && norm(&named, f64::INFINITY).is_nan());
        let expected = Error::Step(StepError::NonFiniteGradient {
            path: "bad".into(),
            index: vec![1, 0],
            value: f64::NEG_INFINITY,
        });
        assert_eq!(non_finite(&named), expected);
    }
}
