//! The loop: one block of one tensor, with the SIMD instructions the machine has.

use std::fmt;

use pulp::Arch;

use crate::grad::transform;
use crate::scalar::Scalar;

/// The largest number of state slots of a rule.
pub const MAX_SLOTS: usize = 4;

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
    fn is_none(&self) -> bool {
        let one = A::one();
        self.scale == one && self.limit == A::infinity() && self.coupled == A::zero() && self.shrink == one
    }

    #[inline(always)]
    fn apply(&self, param: A, grad: A) -> (A, A) {
        let grad = transform(grad, self.scale, self.limit);
        (param * self.shrink, grad + self.coupled * param)
    }
}

/// One block of a tensor: parameters, gradients and state slots of equal length, side by side.
pub struct Lanes<'s, A> {
    pub(super) arch: Arch,
    pub(super) prelude: Prelude<A>,
    pub(super) param: &'s mut [A],
    pub(super) grad: &'s [A],
    pub(super) slots: [&'s mut [A]; MAX_SLOTS],
    pub(super) slot_count: usize,
}

impl<'s, A: Scalar> Lanes<'s, A> {
    /// Applies `update(coefficients, param, grad, [slots]) -> (param, [slots])` to every element.
    ///
    /// The loop is compiled for the machine's SIMD width. Keep the update to `+ − × ÷ √` and selections: `mul_add`
    /// and functions of the mathematics library give other bits on other machines. Let it read its numbers from the
    /// coefficients instead of capturing them: only then can the compiler hold them in registers.
    ///
    /// # Panics
    /// If the number of slots is not that of [`Rule::slots`](super::Rule::slots).
    pub fn each<C: Copy, S: Slots<A>>(self, coefficients: C, update: impl Fn(&C, A, A, S) -> (A, S)) {
        assert_eq!(S::COUNT, self.slot_count, "the update's slots are not the rule's");
        let Self { arch, prelude, param, grad, slots, .. } = self;
        if prelude.is_none() {
            arch.dispatch(move || {
                let c = coefficients;
                S::for_each(param, grad, slots, |param, grad, slots| update(&c, param, grad, slots));
            });
        } else {
            arch.dispatch(move || {
                let c = coefficients;
                let prelude = prelude;
                S::for_each(param, grad, slots, |param, grad, slots| {
                    let (param, grad) = prelude.apply(param, grad);
                    update(&c, param, grad, slots)
                });
            });
        }
    }
}

impl<A: Scalar> fmt::Debug for Lanes<'_, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lanes").field("len", &self.param.len()).finish_non_exhaustive()
    }
}

/// The state of one element: an array of up to [`MAX_SLOTS`] values.
///
/// Sealed: implemented for `[A; 0]` to `[A; 4]`.
pub trait Slots<A>: sealed::Sealed + Sized {
    /// The number of values.
    const COUNT: usize;

    #[doc(hidden)]
    fn for_each(param: &mut [A], grad: &[A], slots: [&mut [A]; MAX_SLOTS], update: impl Fn(A, A, Self) -> (A, Self));
}

mod sealed {
    pub trait Sealed {}
}

/// One nest of zipped slices per number of slots: the form that the compiler turns into SIMD without bounds checks.
macro_rules! slots {
    ($count:literal: $($slot:ident)*; $($unused:ident)*) => {
        impl<A: Scalar> sealed::Sealed for [A; $count] {}

        impl<A: Scalar> Slots<A> for [A; $count] {
            const COUNT: usize = $count;

            #[inline(always)]
            fn for_each(
                param: &mut [A],
                grad: &[A],
                [$($slot,)* $($unused),*]: [&mut [A]; MAX_SLOTS],
                update: impl Fn(A, A, Self) -> (A, Self),
            ) {
                $(let _ = $unused;)*
                let elements = param.iter_mut().zip(grad);
                $(let elements = elements.zip($slot);)*
                for slots!(@nest (param, grad) $($slot)*) in elements {
                    let (new, slots) = update(*param, *grad, [$(*$slot),*]);
                    *param = new;
                    [$(*$slot),*] = slots;
                }
            }
        }
    };
    (@nest $inner:tt) => { $inner };
    (@nest $inner:tt $slot:ident $($rest:ident)*) => { slots!(@nest ($inner, $slot) $($rest)*) };
}

slots!(0: ; a b c d);
slots!(1: a; b c d);
slots!(2: a b; c d);
slots!(3: a b c; d);
slots!(4: a b c d;);
