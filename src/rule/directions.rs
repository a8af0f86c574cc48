//! The first of two passes: the directions of a tensor that is to be measured before it moves.

use pulp::Arch;

use super::Rule;
use super::lanes::{Lanes, Measuring, Quantity};
use super::measured::{Gathered, Measured, Scales, Sums};
use super::options::Options;
use super::pieces::{Pieces, STRETCH, Unmoved, range_of, stretches};
use super::quantities::SecondMoment;
use super::stored::Stored;
use super::sweep::Shared;
use crate::kernel::tree;
use crate::params::{Scalar, Values};
use crate::step::grad::BLOCK;

impl<A: Scalar, C: Copy + Sync> Shared<'_, A, C> {
    /// Measures the direction that the rule would give to this parameter. Nothing is changed.
    ///
    /// The sums go through the elements in row-major order, however they lie in memory, so that their bits are the same.
    pub(super) fn measure<R: Rule<A, Coefficients = C>>(
        &self,
        rule: &R,
        arch: Arch,
        param: &Values<'_, A>,
        stored: &Stored<A>,
        (options, moment): (Options, Option<SecondMoment>),
    ) -> Measured {
        let leaf = |pieces: Pieces<'_, A>, start: usize, length: usize, scales: Scales| {
            let (mut gathered, mut memory) = (Gathered::new(options.wanted(), scales), [[A::zero(); STRETCH]; 2]);
            let [out, seen] = &mut memory;
            for range in stretches(start, length) {
                let out = &mut out[..range.len()];
                let (param, grad, slots) = range_of(pieces, range);
                let grad = self.prelude.seen(arch, param, grad, seen);
                let measure = |quantity: Quantity, out: &mut [A]| {
                    let mut measuring = Measuring { param, slots, quantity, out };
                    let slot_count = rule.slots().len();
                    rule.sweep(
                        self.coefficients,
                        Lanes::measuring((arch, self.prelude.shrink), grad, slot_count, &mut measuring),
                    );
                };
                if options.cautious || options.norms() {
                    measure(Quantity::Direction { agreeing: options.cautious }, &mut *out);
                    gathered.add(param, out);
                }
                if let Some(moment) = moment {
                    measure(Quantity::Relative(moment), &mut *out);
                    gathered.add_relative(out);
                }
            }
            gathered.sums()
        };
        let tensor =
            Unmoved::new(self.scratch, (param, self.grad, Some(stored)), (self.shape, self.order, rule.slots().len()));
        Measured::of::<A>((tensor.elements(), tensor.block()), &|start, length, scales| {
            tensor.read(start, length, |pieces| {
                let leaf = |at: usize, length: usize| leaf(pieces, at, length, scales);
                tree::reduce((0, length), BLOCK, &leaf, &Sums::plus)
            })
        })
    }
}
