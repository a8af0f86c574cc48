//! The first of two passes: the directions of a tensor that is to be measured before it moves.

use pulp::Arch;

use super::Rule;
use super::lanes::{Lanes, Measuring, Quantity};
use super::measured::{Gathered, Measured, Scales, Sums};
use super::options::Options;
use super::quantities::SecondMoment;
use super::stored::{MAX_SLOTS, Stored};
use super::sweep::Shared;
use crate::kernel::tree;
use crate::params::{Order, Scalar, Values};
use crate::step::grad::{BLOCK, WIDE_BLOCK, read};

/// Elements whose directions are computed together, and then added up while they are in the cache.
const STRETCH: usize = 512;

/// Parameter, gradient and slots, row by row.
type Pieces<'p, A> = (&'p [A], &'p [A], [&'p [A]; MAX_SLOTS]);

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
        let elements = self.shape.iter().product();
        let leaf = |(param, grad, slots): Pieces<'_, A>, start: usize, length: usize, scales: Scales| {
            let (mut gathered, mut out) = (Gathered::new(options.wanted(), scales), [A::zero(); STRETCH]);
            for start in (start..start + length).step_by(STRETCH).map(|at| at..(at + STRETCH).min(start + length)) {
                let (param, grad, out) = (&param[start.clone()], &grad[start.clone()], &mut out[..start.len()]);
                let slots = slots.map(|slot| slot.get(start.clone()).unwrap_or_default());
                let measure = |quantity: Quantity, out: &mut [A]| {
                    let mut measuring = Measuring { param, slots, quantity, out };
                    let slot_count = rule.slots().len();
                    rule.sweep(
                        self.coefficients,
                        Lanes::measuring((arch, self.prelude), grad, slot_count, &mut measuring),
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
        let by_rows = (param.as_slice(Order::C), self.grad.as_slice(Order::C), stored.in_full());
        if let ((Some(param), Some(grad), Some(slots)), Order::C) = (by_rows, self.order) {
            return Measured::of::<A>((elements, BLOCK), &|start, length, scales| {
                leaf((param, grad, slots), start, length, scales)
            });
        }
        // What lies in another order or in fewer bits is copied first.
        Measured::of::<A>((elements, WIDE_BLOCK), &|start, length, scales| {
            self.scratch.with((2 + MAX_SLOTS) * length, |memory| {
                let mut pieces = memory.chunks_exact_mut(length.max(1));
                let mut piece = || pieces.next().unwrap_or_default();
                let (param_copy, grad_copy) = (piece(), piece());
                read(param, self.shape, Order::C, start, param_copy);
                self.grad.read_raw(self.shape, Order::C, start, grad_copy);
                let mut slots: [&[A]; MAX_SLOTS] = [&[]; MAX_SLOTS];
                for (slot, values) in slots.iter_mut().enumerate().take(rule.slots().len()) {
                    let copy = piece();
                    stored.read_wide(slot, (self.shape, self.order), start, copy);
                    *values = copy;
                }
                let leaf = |at: usize, length: usize| leaf((param_copy, grad_copy, slots), at, length, scales);
                tree::reduce((0, length), BLOCK, &leaf, &Sums::plus)
            })
        })
    }
}
