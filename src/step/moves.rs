//! How far a parameter moves: sums of squares of its values before the move and of their changes, in `f64` over fixed blocks.

use pulp::{Arch, NullaryFnOnce};

use super::follower::{Follow, FollowPart, Follower, Following};
use super::grad::{BLOCK, read, with_buffer};
use crate::kernel::squares::{LEAST_SUM, near_one};
use crate::kernel::{simd, tree};
use crate::params::{Element, Order, Values};

/// The type for which [`part`](crate::Optimizer::part) finds an optimizer whose every move is a sweep, so that followers can
/// compare. An adaptor that moves parameters itself does not pass it on.
pub(crate) struct Sweeps;

/// Numbers added side by side, the same on every machine: few enough for the registers of any.
const ADDED_AT_ONCE: usize = 32;

/// The number of squares that are added in the element type before their sum is added in `f64`. Rounding changes a norm by less than 3e-7 in `f32`.
const RUN: usize = 8;

/// Sums of squares in `f32` that are smaller have lost digits to underflow.
const LEAST_SUM_OF_F32: f64 = 1e-27;

/// Sums of the squares of a block, or of several: of the values before, of the changes, and of the gradient as it is swept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MoveSums([Scaled; 3]);

/// The sum of the squares of numbers that were multiplied by a factor.
#[derive(Debug, Clone, Copy)]
struct Scaled {
    sum: f64,
    factor: f64,
}

impl Scaled {
    fn plus(self, other: Self) -> Self {
        if self.factor == other.factor {
            return Self { sum: self.sum + other.sum, factor: self.factor };
        }
        let factor = self.factor.min(other.factor);
        let sum = |part: Self| part.sum * (factor / part.factor) * (factor / part.factor);
        Self { sum: sum(self) + sum(other), factor }
    }

    fn norm(self) -> f64 {
        self.sum.sqrt() / self.factor
    }

    /// The squares of the numbers that `value` makes of each pair.
    #[inline(always)]
    fn of<A: Element>(arch: Arch, pairs: [&[A]; 2], value: impl Value) -> Self {
        if size_of::<A>() >= size_of::<f32>() {
            let sum = arch.dispatch(Squares { pairs, value });
            let is_wide = size_of::<A>() >= size_of::<f64>();
            if sum.is_finite() && sum > (if is_wide { LEAST_SUM } else { LEAST_SUM_OF_F32 }) {
                return Self { sum, factor: 1.0 };
            }
        }
        let values = || pairs[0].iter().zip(pairs[1]).map(|(left, right)| value.of(left.as_f64(), right.as_f64()));
        let factor = near_one(values().fold(0.0, |most: f64, x| most.max(x.abs())));
        Self { sum: values().map(|x| (factor * x) * (factor * x)).sum(), factor }
    }
}

impl MoveSums {
    /// Sums that have not been computed.
    const UNKNOWN: Self = Self([Scaled { sum: f64::NAN, factor: 1.0 }; 3]);

    fn plus(self, other: Self) -> Self {
        Self(std::array::from_fn(|at| self.0[at].plus(other.0[at])))
    }

    /// Those of one block.
    fn of<A: Element>(arch: Arch, before: &[A], after: &[A]) -> Self {
        let [.., no_gradient] = Self::UNKNOWN.0;
        Self([Scaled::of(arch, [before; 2], First), Scaled::of(arch, [after, before], Difference), no_gradient])
    }

    /// Sums that have not been computed, for a tensor with this number of elements.
    pub(crate) fn unknown(elements: usize) -> impl Iterator<Item = Self> {
        std::iter::repeat_n(Self::UNKNOWN, Self::blocks(elements))
    }

    /// The number of blocks of a tensor with this number of elements.
    pub(crate) fn blocks(elements: usize) -> usize {
        elements.div_ceil(BLOCK)
    }

    fn norms(self) -> [f64; 3] {
        self.0.map(Scaled::norm)
    }

    /// The norms of the parameter before the move, of the change, and of the gradient as it was swept.
    pub(crate) fn norms_of(blocks: &[Self]) -> [f64; 3] {
        match blocks {
            [] => [0.0; 3],
            [block] => block.norms(),
            _ => tree::reduce((0, blocks.len()), 1, &|at, _| blocks[at], &Self::plus).norms(),
        }
    }

    /// The norms of a whole tensor of this shape before a move, and of its change.
    pub(crate) fn compare<A: Element>(shape: &[usize], before: &Values<'_, A>, after: &Values<'_, A>) -> [f64; 2] {
        let (arch, order) = (simd::arch(), after.order());
        let leaf = |start: usize, length: usize| {
            let range = start..start + length;
            if let (Some(before), Some(after)) = (before.as_slice(order), after.as_slice(order)) {
                return Self::of(arch, &before[range.clone()], &after[range]);
            }
            with_buffer(2 * BLOCK, |buffer| {
                let (old, new) = buffer.split_at_mut(BLOCK);
                read(before, shape, order, start, &mut old[..length]);
                read(after, shape, order, start, &mut new[..length]);
                Self::of(arch, &old[..length], &new[..length])
            })
        };
        let [param, change, _] = tree::reduce((0, shape.iter().product()), BLOCK, &leaf, &Self::plus).norms();
        [param, change]
    }
}

/// A number made of two.
trait Value: Copy {
    fn of<T: Element>(self, left: T, right: T) -> T;
}

#[derive(Clone, Copy)]
struct First;

impl Value for First {
    #[inline(always)]
    fn of<T: Element>(self, left: T, _: T) -> T {
        left
    }
}

#[derive(Clone, Copy)]
struct Difference;

impl Value for Difference {
    #[inline(always)]
    fn of<T: Element>(self, left: T, right: T) -> T {
        left - right
    }
}

/// The squares of what is made of two slices of one length, added.
struct Squares<'v, A, V> {
    pairs: [&'v [A]; 2],
    value: V,
}

impl<A: Element, V: Value> NullaryFnOnce for Squares<'_, A, V> {
    type Output = f64;

    #[inline(always)]
    fn call(self) -> f64 {
        let Self { pairs: [left, right], value } = self;
        let mut sums = [0.0; ADDED_AT_ONCE];
        for (left, right) in left.chunks(ADDED_AT_ONCE * RUN).zip(right.chunks(ADDED_AT_ONCE * RUN)) {
            let mut lanes = [A::zero(); ADDED_AT_ONCE];
            let mut add = |left: &[A; ADDED_AT_ONCE], right: &[A; ADDED_AT_ONCE]| {
                for lane in 0..ADDED_AT_ONCE {
                    let value = value.of(left[lane], right[lane]);
                    lanes[lane] += value * value;
                }
            };
            let ((left, left_rest), (right, right_rest)) =
                (left.as_chunks::<ADDED_AT_ONCE>(), right.as_chunks::<ADDED_AT_ONCE>());
            left.iter().zip(right).for_each(|(left, right)| add(left, right));
            if !left_rest.is_empty() {
                add(&simd::padded(left_rest), &simd::padded(right_rest));
            }
            sums.iter_mut().zip(lanes).for_each(|(sum, lane)| *sum += lane.as_f64());
        }
        sums.iter().sum()
    }
}

/// Finds the sums of a parameter while it is swept.
pub(crate) fn comparing<A: Element>(blocks: &mut [MoveSums]) -> Follower<'_, A> {
    Follower::of_copy(Comparing { blocks })
}

/// Sums that are found while the parameter is swept.
struct Comparing<'a> {
    blocks: &'a mut [MoveSums],
}

impl<A: Element> Follow<A> for Comparing<'_> {
    fn in_order(&mut self, _: &[usize], _: Order) -> Following<'_, A> {
        Box::new(Comparing { blocks: &mut *self.blocks })
    }
}

impl<A: Element> FollowPart<A> for Comparing<'_> {
    /// Only when the values before are known, too.
    fn follow(&mut self, _: Arch, _: usize, _: &[A]) {}

    fn compares(&self) -> bool {
        true
    }

    fn precede(&mut self, arch: Arch, start: usize, before: &[A], grad: &[A]) {
        if let Some(MoveSums([param, _, gradient])) = self.blocks.get_mut(start / BLOCK) {
            (*param, *gradient) = (Scaled::of(arch, [before; 2], First), Scaled::of(arch, [grad; 2], First));
        }
    }

    fn compare(&mut self, arch: Arch, start: usize, before: &[A], after: &[A]) {
        if let Some(MoveSums([_, change, _])) = self.blocks.get_mut(start / BLOCK) {
            *change = Scaled::of(arch, [after, before], Difference);
        }
    }

    fn is_divisible(&self) -> bool {
        true
    }

    fn split_at<'s>(self: Box<Self>, at: usize) -> (Following<'s, A>, Following<'s, A>)
    where
        Self: 's,
    {
        let (left, right) = self.blocks.split_at_mut(at / BLOCK);
        (Box::new(Comparing { blocks: left }), Box::new(Comparing { blocks: right }))
    }
}
