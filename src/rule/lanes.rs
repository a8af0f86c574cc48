//! The loop: one block of one tensor, with the SIMD instructions the machine has.

use std::fmt;

use pulp::Arch;

use super::loops::{coded, full, in_pieces, packed, sixteen};
use super::prelude::Prelude;
use super::quantities::SecondMoment;
use super::slots::Slots;
use super::stored::{MAX_SLOTS, StoredMut, range_of_all};
use crate::params::{Element, Scalar};

/// How a direction moves a parameter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Goal<A> {
    /// `θ ← θ − step_size·direction`.
    Move { step_size: A },
    /// `θ ← scale·(θ − step_size·direction)`, if `agreeing` only where the direction [agrees](agreeing) with the gradient, and with θ multiplied by `shrink`
    /// first where the direction agrees with it.
    MoveSelected { step_size: A, shrink: A, scale: A, agreeing: bool },
}

/// A block of which a number of every element is wanted.
pub(super) struct Measuring<'s, A> {
    pub(super) param: &'s [A],
    pub(super) slots: [&'s [A]; MAX_SLOTS],
    pub(super) quantity: Quantity,
    pub(super) out: &'s mut [A],
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Quantity {
    /// The direction; if `agreeing`, 0 where the gradient does not [agree](agreeing).
    Direction { agreeing: bool },
    /// The squared gradient, relative to its average.
    Relative(SecondMoment),
}

/// Whether both have the same sign, and neither is 0.
#[inline(always)]
pub(super) fn agree<A: Element>(one: A, other: A) -> bool {
    // Not by the product, which may vanish.
    let zero = A::zero();
    (one > zero && other > zero) || (one < zero && other < zero)
}

/// The direction of an element whose gradient agrees with it, and 0 for the others.
#[inline(always)]
pub(super) fn agreeing<A: Element>(direction: A, grad: A) -> A {
    if agree(direction, grad) { direction } else { A::zero() }
}

/// One block of a tensor: parameters, gradients and state slots of equal length, side by side.
pub struct Lanes<'s, A> {
    pub(super) arch: Arch,
    pub(super) prelude: Prelude<A>,
    pub(super) grad: &'s [A],
    pub(super) slot_count: usize,
    pub(super) goal: Goal<A>,
    pub(super) param: &'s mut [A],
    pub(super) slots: StoredMut<'s, A>,
    /// For the random bits of the first element.
    pub(super) seed: u32,
    /// Whether the step is too large for the cache.
    pub(super) streams: bool,
    /// If there, nothing moves: the directions are measured. It has parameter and slots; those above are empty. (Not two variants of an
    /// `enum`: a step of few elements would take 5 % longer for the copy.)
    pub(super) measuring: Option<&'s mut Measuring<'s, A>>,
}

impl<'s, A: Scalar> Lanes<'s, A> {
    /// A block whose directions are measured, with gradients as the rule sees them.
    pub(super) fn measuring(
        (arch, shrink): (Arch, A),
        grad: &'s [A],
        slot_count: usize,
        measuring: &'s mut Measuring<'s, A>,
    ) -> Self {
        let (goal, slots) =
            (Goal::Move { step_size: A::zero() }, StoredMut::Full([&mut [], &mut [], &mut [], &mut []]));
        let (prelude, measuring) = (Prelude { shrink, ..Prelude::none() }, Some(measuring));
        Self { arch, prelude, grad, slot_count, goal, param: &mut [], slots, seed: 0, streams: false, measuring }
    }

    /// Computes `rule(coefficients, param, grad, [slots]) -> (direction, [slots])` for every element and moves the parameter: `θ ← θ −
    /// step_size · direction`, with the step size of [`Rule::coefficients`](super::Rule::coefficients).
    ///
    /// `param` is the parameter after decoupled weight decay, and `grad` the gradient with scale, limit and coupled weight decay applied.
    /// The result of `rule` must depend only on its arguments.
    ///
    /// The loop is compiled for the machine's SIMD width. In `rule`, use only `+ − × ÷ √` and comparisons: `mul_add` and functions of the math
    /// library are slow there, and give other bits on other machines. Pass numbers as coefficients instead of capturing them, so that the
    /// compiler can keep them in registers.
    ///
    /// # Panics
    /// If the number of slots differs from that of [`Rule::slots`](super::Rule::slots).
    pub fn each<C: Copy, S: Slots<A>>(self, coefficients: C, rule: impl Fn(&C, A, A, S) -> (A, S) + Copy) {
        assert_eq!(S::COUNT, self.slot_count, "the rule's function has another number of slots than the rule");
        let Self { arch, prelude, grad, goal, param, slots, seed, streams, measuring, .. } = self;
        if let Some(measuring) = measuring {
            return measure((arch, prelude.shrink), grad, measuring, coefficients, rule);
        }
        let before = prelude.shrink;
        match (goal, slots) {
            // What is often done has a loop of its own: the gradient first, in pieces, would take a quarter longer.
            (Goal::Move { step_size }, StoredMut::Full(slots)) if !prelude.leaves_grad() => {
                full(arch, streams, (param, grad), slots, move |param, grad, slots| {
                    let (param, grad) = prelude.apply(param, grad);
                    let (direction, slots) = rule(&coefficients, param, grad, slots);
                    (param - step_size * direction, slots)
                });
            }
            // One multiplication less is felt where there are few.
            (Goal::Move { step_size }, StoredMut::Full(slots)) if S::COUNT < 2 && before == A::one() => {
                full(arch, streams, (param, grad), slots, move |param, grad, slots| {
                    let (direction, slots) = rule(&coefficients, param, grad, slots);
                    (param - step_size * direction, slots)
                });
            }
            (Goal::Move { step_size }, slots) => {
                Block { arch, prelude, param, grad, seed, streams }.each(slots, move |param, grad, slots| {
                    // By 1 without decay, which changes no bit.
                    let param = param * before;
                    let (direction, slots) = rule(&coefficients, param, grad, slots);
                    (param - step_size * direction, slots)
                });
            }
            (Goal::MoveSelected { step_size, shrink, scale, agreeing: only }, slots) => {
                Block { arch, prelude, param, grad, seed, streams }.each(slots, move |param, grad, slots| {
                    let param = param * before;
                    let (direction, slots) = rule(&coefficients, param, grad, slots);
                    let direction = if only { agreeing(direction, grad) } else { direction };
                    let param = if agree(direction, param) { param * shrink } else { param };
                    (scale * (param - step_size * direction), slots)
                })
            }
        }
    }
}

/// A block whose parameters move, but for its slots.
struct Block<'s, A> {
    arch: Arch,
    prelude: Prelude<A>,
    param: &'s mut [A],
    grad: &'s [A],
    seed: u32,
    streams: bool,
}

impl<A: Scalar> Block<'_, A> {
    /// Applies the update to slots of any precision. A loop is compiled for every rule, goal and precision: what they share is in functions
    /// that know none of these.
    #[inline(always)]
    fn each<S: Slots<A>>(self, slots: StoredMut<'_, A>, update: impl Fn(A, A, S) -> (A, S) + Copy) {
        let Self { arch, prelude, param, grad, seed, streams } = self;
        match slots {
            StoredMut::Full(slots) if prelude.leaves_grad() => full(arch, streams, (param, grad), slots, update),
            StoredMut::Full(mut slots) => {
                in_pieces((arch, &prelude), (param, grad), &mut |at, (param, grad)| {
                    let slots = range_of_all(&mut slots, at, grad.len());
                    full(arch, streams, (param, grad), slots, update);
                });
            }
            StoredMut::Bf16(mut slots, rounding) => {
                in_pieces((arch, &prelude), (param, grad), &mut |at, (param, grad)| {
                    let slots = range_of_all(&mut slots, at, grad.len());
                    sixteen(arch, (param, grad), slots, (seed.wrapping_add(at as u32), rounding), update);
                });
            }
            StoredMut::Blockwise8(slots) => coded((arch, &prelude), (param, grad), *slots, seed, update),
            StoredMut::Blockwise4(slots, rounding) => {
                let how = (seed, rounding);
                packed((arch, &prelude), (param, grad), (*slots, S::COUNT), how, &|elements, slots| {
                    full(arch, false, elements, slots, update);
                });
            }
        }
    }
}

/// Computes a number of every element of a block.
fn measure<A: Scalar, C: Copy, S: Slots<A>>(
    (arch, shrink): (Arch, A),
    grad: &[A],
    measuring: &mut Measuring<'_, A>,
    coefficients: C,
    rule: impl Fn(&C, A, A, S) -> (A, S) + Copy,
) {
    let Measuring { param, slots, ref mut out, quantity } = *measuring;
    match quantity {
        Quantity::Direction { agreeing: only } => arch.dispatch(
            #[inline(always)]
            move || {
                // What is moved makes this a closure that is called once: `dispatch` would not inline another.
                let (rule, out) = (rule, out);
                S::read_each(param, grad, slots, out, |param, grad, slots| {
                    let (direction, _) = rule(&coefficients, param * shrink, grad, slots);
                    if only { agreeing(direction, grad) } else { direction }
                });
            },
        ),
        Quantity::Relative(SecondMoment { slot, scale, eps }) => arch.dispatch(
            #[inline(always)]
            move || {
                let (rule, out) = (rule, out);
                let [scale, least] = [scale, eps * eps].map(A::from_f64);
                S::read_each(param, grad, slots, out, |param, grad, slots| {
                    let (_, slots) = rule(&coefficients, param * shrink, grad, slots);
                    let moment = scale * slots.get(slot);
                    let moment = if moment > least { moment } else { least };
                    if moment > A::zero() { grad * grad / moment } else { A::zero() }
                });
            },
        ),
    }
}

impl<A: Scalar> fmt::Debug for Lanes<'_, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lanes").field("len", &self.grad.len()).finish_non_exhaustive()
    }
}
