//! What happens to a gradient and its parameter before the rule sees them.

use pulp::Arch;

use crate::params::Scalar;
use crate::step::grad::{Grad, transform};

/// What happens to every element before the rule sees it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Prelude<A> {
    /// The gradient's scale and limit.
    pub(super) scale: A,
    pub(super) limit: A,
    /// λ of coupled weight decay.
    pub(super) coupled: A,
    /// 1 − ηλ of decoupled weight decay.
    pub(super) shrink: A,
}

impl<A: Scalar> Prelude<A> {
    /// Nothing happens.
    pub(super) fn none() -> Self {
        Self { scale: A::one(), limit: A::infinity(), coupled: A::zero(), shrink: A::one() }
    }

    /// What a gradient's description and coupled weight decay say, times a ratio; nothing happens to the parameter.
    #[inline(always)]
    pub(super) fn of(grad: &Grad<'_, A>, ratio: f64, coupled: f64) -> Self {
        Self {
            scale: A::from_f64(grad.scale() * ratio),
            limit: A::from_f64(grad.limit() * ratio),
            coupled: A::from_f64((coupled * ratio).min(A::max_value().as_f64())),
            shrink: A::one(),
        }
    }

    /// Whether the rule sees the gradient as it is.
    pub(super) fn leaves_grad(&self) -> bool {
        self.scale == A::one() && self.limit == A::infinity() && self.coupled == A::zero()
    }

    /// The gradients that the rule sees.
    pub(super) fn seen<'g>(&self, arch: Arch, param: &[A], grad: &'g [A], out: &'g mut [A]) -> &'g [A] {
        if self.leaves_grad() {
            return grad;
        }
        let prelude = *self;
        let out = &mut out[..grad.len()];
        let seen = &mut *out;
        arch.dispatch(
            #[inline(always)]
            move || {
                let seen = seen; // what is moved makes this a closure that is called once
                let elements = seen.iter_mut().zip(param.iter().zip(grad));
                elements.for_each(|(seen, (param, grad))| *seen = prelude.apply(*param, *grad).1);
            },
        );
        out
    }

    #[inline(always)]
    pub(super) fn apply(&self, param: A, grad: A) -> (A, A) {
        let grad = transform(grad, self.scale, self.limit);
        // Without decay an infinite parameter is none of the gradient's business.
        let decayed = if self.coupled == A::zero() { grad } else { grad + self.coupled * param };
        (param * self.shrink, decayed)
    }
}
