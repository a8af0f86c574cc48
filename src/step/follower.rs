//! Values that are updated from a parameter's new values, in the pass that writes them.

use std::{fmt, slice};

use ndarray::{ArrayViewMut, Dimension};
use pulp::Arch;

use crate::kernel::simd;
use crate::params::{Element, Order, Values, ValuesMut};
use crate::step::grad::rows::runs;
use crate::step::grad::{WIDE_BLOCK, read, with_buffer};
use crate::step::target::Target;

/// Values that follow a parameter: whenever an optimizer writes a block of the parameter, it updates the same block of the follower.
///
/// The block is in the cache at that time, so no second pass over the parameters is needed. An adaptor adds followers to
/// [`Tensor::followers`](crate::Tensor::followers).
pub struct Follower<'a, A> {
    follow: Box<dyn Follow<A> + 'a>,
    /// Whether it has been in a sweep.
    has_followed: bool,
    /// Whether it stays where it is if the parameter does.
    is_copy: bool,
}

impl<'a, A: Element> Follower<'a, A> {
    fn new(follow: impl Follow<A> + 'a) -> Self {
        Self { follow: Box::new(follow), has_followed: false, is_copy: false }
    }

    /// Does nothing but to know whether the parameter has been moved.
    pub(crate) fn watch() -> Self {
        Self { is_copy: true, ..Self::new(Watch) }
    }

    /// One that stays where it is if the parameter does.
    pub(super) fn of_copy(follow: impl Follow<A> + 'a) -> Self {
        Self { is_copy: true, ..Self::new(follow) }
    }

    /// Whether the parameter has been moved.
    pub(crate) fn has_followed(&self) -> bool {
        self.has_followed
    }

    /// The same follower, lent to a step inside.
    pub(crate) fn lend(&mut self) -> Follower<'_, A> {
        let is_copy = self.is_copy;
        Follower { is_copy, ..Follower::new(self) }
    }

    /// A running average of the parameter: `average ← average + weight · (param − average)`.
    ///
    /// `average` has the shape of the parameter. Any memory layout works; the parameter's own layout is the fastest.
    pub fn average<D: Dimension>(average: ArrayViewMut<'a, A, D>, weight: f64) -> Self {
        Self::average_in(ValuesMut::new(average), weight)
    }

    /// [`average`](Self::average) in values that need no view.
    pub(crate) fn average_in(values: ValuesMut<'a, A>, weight: f64) -> Self {
        if size_of::<A>() < size_of::<f32>() {
            // In 16 bits the weight may be 0, and the difference infinite.
            let update = move |average: &mut A, param: &A| {
                let from = average.as_f64();
                *average = A::from_f64(from + weight * (param.as_f64() - from));
            };
            return Self::new(Whole { values, update });
        }
        let weight = A::from_f64(weight);
        let update = move |average: &mut A, param: &A| *average = *average + weight * (*param - *average);
        Self::new(Whole { values, update })
    }

    /// A copy in another element type.
    #[cfg(feature = "half")]
    pub(crate) fn copy<B: Element>(copy: ValuesMut<'a, B>) -> Self {
        let update = |copy: &mut B, param: &A| *copy = B::from_f64(param.as_f64());
        Self { is_copy: true, ..Self::new(Whole { values: copy, update }) }
    }

    /// The follower with its elements in this order.
    pub(crate) fn in_order(&mut self, shape: &[usize], order: Order) -> Following<'_, A> {
        self.has_followed = true;
        self.follow.in_order(shape, order)
    }
}

impl<A: Element> Follow<A> for &mut Follower<'_, A> {
    fn in_order(&mut self, shape: &[usize], order: Order) -> Following<'_, A> {
        Follower::in_order(self, shape, order)
    }
}

impl<A> fmt::Debug for Follower<'_, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Follower")
    }
}

/// Lets followers follow a whole parameter that somebody else than the sweep has moved.
pub(crate) fn follow<A: Element>(followers: &mut [Follower<'_, A>], values: &Values<'_, A>, shape: &[usize]) {
    if followers.is_empty() {
        return;
    }
    let arch = simd::arch();
    let order = values.order();
    let mut following: Vec<_> = followers.iter_mut().map(|follower| follower.in_order(shape, order)).collect();
    if let Some(values) = values.as_slice(order) {
        return following.iter_mut().for_each(|following| following.follow(arch, 0, values));
    }
    let elements = shape.iter().product();
    with_buffer(elements, |buffer| {
        for start in (0..elements).step_by(WIDE_BLOCK) {
            let block = &mut buffer[..WIDE_BLOCK.min(elements - start)];
            read(values, shape, order, start, block);
            following.iter_mut().for_each(|following| following.follow(arch, start, block));
        }
    });
}

/// Lets followers follow a parameter of which somebody else than the sweep has moved only these rows. An average moves in all rows.
pub(crate) fn follow_rows<A: Element>(
    followers: &mut [Follower<'_, A>],
    values: &Values<'_, A>,
    shape: &[usize],
    rows: &[usize],
) {
    let (arch, width) = (simd::arch(), shape.iter().skip(1).product::<usize>());
    for follower in followers {
        if !follower.is_copy {
            follow(slice::from_mut(follower), values, shape);
            continue;
        }
        let mut following = follower.in_order(shape, Order::C);
        with_buffer(rows.len() * width, |buffer| {
            for (_, run) in runs(rows) {
                let (start, end) = (run[0] * width, (run[0] + run.len()) * width);
                for start in (start..end).step_by(WIDE_BLOCK) {
                    let block = &mut buffer[..WIDE_BLOCK.min(end - start)];
                    read(values, shape, Order::C, start, block);
                    following.follow(arch, start, block);
                }
            }
        });
    }
}

/// Lets those follow that have not been in a sweep.
#[cfg(feature = "distributed")]
pub(crate) fn catch_up<A: Element>(followers: &mut Vec<Follower<'_, A>>, values: &Values<'_, A>, shape: &[usize]) {
    followers.retain(|follower| !follower.has_followed);
    follow(followers, values, shape);
}

/// A follower, or a part of one, in the order of a sweep.
pub(crate) type Following<'a, A> = Box<dyn FollowPart<A> + 'a>;

pub(super) trait Follow<A>: Send {
    fn in_order(&mut self, shape: &[usize], order: Order) -> Following<'_, A>;
}

/// The values that follow, of whatever element type, and how one follows.
struct Whole<'a, B, F> {
    values: ValuesMut<'a, B>,
    update: F,
}

impl<A: Element, B: Element, F: Fn(&mut B, &A) + Copy + Send> Follow<A> for Whole<'_, B, F> {
    fn in_order(&mut self, shape: &[usize], order: Order) -> Following<'_, A> {
        Box::new(Part { target: Target::of(&mut self.values, shape, order), update: self.update })
    }
}

/// Nothing that follows.
struct Watch;

impl<A> Follow<A> for Watch {
    fn in_order(&mut self, _: &[usize], _: Order) -> Following<'_, A> {
        Box::new(Watch)
    }
}

impl<A> FollowPart<A> for Watch {
    fn follow(&mut self, _: Arch, _: usize, _: &[A]) {}

    fn is_divisible(&self) -> bool {
        true
    }

    fn split_at<'s>(self: Box<Self>, _: usize) -> (Following<'s, A>, Following<'s, A>)
    where
        Self: 's,
    {
        (Box::new(Watch), Box::new(Watch))
    }
}

pub(crate) trait FollowPart<A>: Send {
    /// Follows to the new values of the elements from `start`.
    fn follow(&mut self, arch: Arch, start: usize, params: &[A]);

    /// Whether a sweep is to call [`precede`](Self::precede) and [`compare`](Self::compare), too.
    fn compares(&self) -> bool {
        false
    }

    /// One block before a sweep: the values of the elements from `start`, and their gradient before the scale.
    fn precede(&mut self, arch: Arch, start: usize, before: &[A], grad: &[A]) {
        let _ = (arch, start, before, grad);
    }

    /// The same block before and after the sweep.
    fn compare(&mut self, arch: Arch, start: usize, before: &[A], after: &[A]) {
        let _ = (arch, start, before, after);
    }

    /// Whether the follower can be divided anywhere.
    fn is_divisible(&self) -> bool;

    /// The first `at` elements and the others, if [divisible](Self::is_divisible); else both nothing.
    fn split_at<'s>(self: Box<Self>, at: usize) -> (Following<'s, A>, Following<'s, A>)
    where
        Self: 's;
}

struct Part<'a, B, F> {
    target: Target<'a, B>,
    update: F,
}

impl<A: Element, B: Element, F: Fn(&mut B, &A) + Copy + Send> FollowPart<A> for Part<'_, B, F> {
    fn follow(&mut self, arch: Arch, start: usize, params: &[A]) {
        self.target.update(arch, start, params, self.update);
    }

    fn is_divisible(&self) -> bool {
        matches!(self.target, Target::Slice(_))
    }

    fn split_at<'s>(self: Box<Self>, at: usize) -> (Following<'s, A>, Following<'s, A>)
    where
        Self: 's,
    {
        let Self { target, update } = *self;
        let (left, right) = match target {
            Target::Slice(values) => values.split_at_mut(at),
            Target::View(_) => Default::default(),
        };
        let [left, right] = [left, right].map(|values| Box::new(Part { target: Target::Slice(values), update }));
        (left, right)
    }
}
