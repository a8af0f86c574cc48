//! What tensors of a step have in common.

use super::{At, MAX_NUMBERS, Rule};
use crate::params::Scalar;

/// What the rule makes of a tensor's step.
#[derive(Clone, Copy)]
pub(super) struct Now<C> {
    /// Its numbers are those of the last step.
    pub(super) before: At,
    pub(super) numbers: [f64; MAX_NUMBERS],
    pub(super) step_size: f64,
    pub(super) coefficients: C,
}

impl<C> Now<C> {
    #[inline(always)]
    pub(super) fn of<A: Scalar, R: Rule<A, Coefficients = C>>(rule: &R, values: &R::Values, before: At) -> Self {
        let mut at = before;
        // A rule that measures may have more numbers, and has learned them before.
        let count = rule.numbers().len().min(MAX_NUMBERS);
        rule.remember(values, &before, &mut at.numbers[..count]);
        let (step_size, coefficients) = rule.coefficients(values, &at);
        Self { before, numbers: at.numbers, step_size, coefficients }
    }
}
