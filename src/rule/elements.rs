//! What a rule measures of a tensor before it moves.

use std::fmt;

use pulp::Arch;

use super::pieces::{Pieces, STRETCH, Unmoved, range_of, stretches};
use super::prelude::Prelude;
use super::slots::{AT_ONCE, Slots};
use crate::kernel::tree;
use crate::params::Scalar;
use crate::step::grad::BLOCK;

/// Whose sums a [`Rule`](super::Rule) needs before a tensor moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measures {
    /// Those of each tensor by itself.
    Tensor,
    /// Those of all tensors of the step together.
    Step,
}

/// The most sums over a tensor that a rule can [measure](super::Rule::measure).
pub const MAX_SUMS: usize = 3;

/// The most numbers that a rule can remember of all tensors together.
pub const MAX_TOTALS: usize = 4;

/// All elements of one tensor before it moves: parameters, gradients and state slots.
pub struct Elements<'s, A> {
    pub(super) arch: Arch,
    pub(super) prelude: Prelude<A>,
    pub(super) tensor: Unmoved<'s, A>,
    pub(super) slot_count: usize,
}

impl<A: Scalar> Elements<'_, A> {
    /// Sums up `terms(coefficients, param, grad, [slots])` over all elements. `grad` has scale, limit and coupled weight decay applied.
    ///
    /// The sums are in `f64`, and have the same bits for any number of threads, SIMD width and memory layout. In `terms`, use only
    /// `+ − × ÷ √` and comparisons, as in [`Lanes::each`](super::Lanes::each).
    ///
    /// # Panics
    /// If the number of slots differs from that of [`Rule::slots`](super::Rule::slots).
    pub fn sum<C: Copy + Sync, S: Slots<A>, const N: usize>(
        self,
        coefficients: C,
        terms: impl Fn(&C, A, A, S) -> [f64; N] + Copy + Sync,
    ) -> [f64; N] {
        assert_eq!(S::COUNT, self.slot_count, "the rule's function has another number of slots than the rule");
        let Self { arch, prelude, tensor, .. } = &self;
        let leaf = |pieces: Pieces<'_, A>, start: usize, length: usize| {
            let (mut sums, mut seen) = ([[0.0; AT_ONCE]; N], [A::zero(); STRETCH]);
            for range in stretches(start, length) {
                let (param, grad, slots) = range_of(pieces, range);
                let (grad, of_all) = (prelude.seen(*arch, param, grad, &mut seen), &mut sums);
                arch.dispatch(
                    #[inline(always)]
                    move || {
                        // What is moved makes this a closure that is called once: `dispatch` would not inline another.
                        let (terms, of_all) = (terms, of_all);
                        S::sum_each(param, grad, slots, of_all, |param, grad, slots| {
                            terms(&coefficients, param, grad, slots)
                        });
                    },
                );
            }
            sums.map(|lanes| lanes.iter().sum())
        };
        let plus = |left: [f64; N], right: [f64; N]| std::array::from_fn(|at| left[at] + right[at]);
        let of_block = |start: usize, length: usize| {
            tensor.read(start, length, |pieces| {
                tree::reduce((0, length), BLOCK, &|at: usize, length: usize| leaf(pieces, at, length), &plus)
            })
        };
        tree::reduce((0, tensor.elements()), tensor.block(), &of_block, &plus)
    }
}

impl<A: Scalar> fmt::Debug for Elements<'_, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Elements").field("len", &self.tensor.elements()).finish_non_exhaustive()
    }
}
