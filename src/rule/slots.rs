//! The state of one element, and the loops over elements with so many slots.

use super::stored::MAX_SLOTS;
use crate::kernel::narrow::{GOLDEN, GROUP, Reader};
use crate::kernel::simd::padded;
use crate::params::Scalar;

/// Elements that are read before the first of them is written, in memory that is not in the cache: four cache lines of `f32`. With 256
/// bits, a loop element by element reaches three quarters of the bandwidth there; in the cache it is 5 % faster. A loop over smaller blocks is
/// unrolled and then not turned into SIMD.
const TOGETHER: usize = 64;

/// Elements summed side by side, the same on every machine.
pub(super) const AT_ONCE: usize = 8;

/// The state of one element: an array with one value per slot.
///
/// The trait is sealed. It is implemented for `[A; 0]` to `[A; 4]`.
pub trait Slots<A>: sealed::Sealed + Sized {
    /// The number of values.
    const COUNT: usize;

    /// Updates every element, whose slots' form is to be widened and narrowed. `random` is the first element's random bits, 32 for all
    /// its slots. A step that `streams` does not fit into the cache.
    #[doc(hidden)]
    fn for_each<T: Copy>(
        streams: bool,
        param: &mut [A],
        grad: &[A],
        slots: [&mut [T]; MAX_SLOTS],
        form: (impl Fn(T) -> A, impl Fn(A, u32) -> T),
        random: u32,
        update: impl Fn(A, A, Self) -> (A, Self),
    );

    /// Widens one group's codes and updates every element; the slots' new values go to `wide`.
    #[doc(hidden)]
    fn widen_each(
        param: &mut [A],
        grad: &[A],
        codes: [&[u8]; MAX_SLOTS],
        wide: &mut [[A; GROUP]; MAX_SLOTS],
        readers: [Reader; MAX_SLOTS],
        update: impl Fn(A, A, Self) -> (A, Self),
    );

    /// Computes a number of every element.
    #[doc(hidden)]
    fn read_each(param: &[A], grad: &[A], slots: [&[A]; MAX_SLOTS], out: &mut [A], number: impl Fn(A, A, Self) -> A);

    /// Adds terms of every element to sums, of which each has [`AT_ONCE`] parts side by side. All numbers but the last of elements that are added must be
    /// multiples of that.
    #[doc(hidden)]
    fn sum_each<const N: usize>(
        param: &[A],
        grad: &[A],
        slots: [&[A]; MAX_SLOTS],
        sums: &mut [[f64; AT_ONCE]; N],
        terms: impl Fn(A, A, Self) -> [f64; N],
    );

    /// The value of a slot; 0 of one that is not there.
    #[doc(hidden)]
    fn get(&self, slot: usize) -> A;
}

#[allow(unnameable_types, reason = "sealed")]
mod sealed {
    pub trait Sealed {}
}

/// One nest of zipped slices per number of slots: the form that the compiler turns into SIMD without bounds checks.
macro_rules! slots {
    ($count:literal: $($slot:ident $new:ident $number:literal $shift:literal),*; $($unused:ident)*) => {
        impl<A: Scalar> sealed::Sealed for [A; $count] {}

        impl<A: Scalar> Slots<A> for [A; $count] {
            const COUNT: usize = $count;

            #[inline(always)]
            fn for_each<T: Copy>(
                streams: bool,
                param: &mut [A],
                grad: &[A],
                [$($slot,)* $($unused),*]: [&mut [T]; MAX_SLOTS],
                (widen, narrow): (impl Fn(T) -> A, impl Fn(A, u32) -> T),
                mut random: u32,
                update: impl Fn(A, A, Self) -> (A, Self),
            ) {
                $(let _ = $unused;)*
                let _ = (&widen, &narrow); // not used where there are no slots
                let together = if streams { param.len() - param.len() % TOGETHER } else { 0 };
                let ((params, param), (grads, grad)) = (param.split_at_mut(together), grad.split_at(together));
                let all = params.as_chunks_mut::<TOGETHER>().0.iter_mut().zip(grads.as_chunks::<TOGETHER>().0);
                $(let ($new, $slot) = $slot.split_at_mut(together);)*
                $(let all = all.zip($new.as_chunks_mut::<TOGETHER>().0);)*
                for slots!(@nest (params, grads) $($new)*) in all {
                    let (mut param, grad) = (*params, *grads);
                    $(let mut $slot = *$new;)*
                    slots!(@each param grad widen narrow random update; $($slot $new $shift),*);
                    *params = param;
                    $(*$new = $slot;)*
                }
                slots!(@each param grad widen narrow random update; $($slot $new $shift),*);
            }

            #[inline(always)]
            fn widen_each(
                param: &mut [A],
                grad: &[A],
                [$($slot,)* $($unused),*]: [&[u8]; MAX_SLOTS],
                [$($new,)* ..]: &mut [[A; GROUP]; MAX_SLOTS],
                readers: [Reader; MAX_SLOTS],
                update: impl Fn(A, A, Self) -> (A, Self),
            ) {
                $(let _ = $unused;)*
                let elements = param.iter_mut().zip(grad);
                $(let elements = elements.zip($slot.iter().zip($new.iter_mut()));)*
                for slots!(@nest (param, grad) $($slot)*) in elements {
                    let (new, slots) = update(*param, *grad, [$(readers[$number].widen(*$slot.0)),*]);
                    *param = new;
                    let [$($new),*] = slots;
                    $(*$slot.1 = $new;)*
                }
                let _ = readers;
            }

            #[inline(always)]
            fn read_each(
                param: &[A],
                grad: &[A],
                [$($slot,)* $($unused),*]: [&[A]; MAX_SLOTS],
                out: &mut [A],
                number: impl Fn(A, A, Self) -> A,
            ) {
                $(let _ = $unused;)*
                let elements = out.iter_mut().zip(param.iter().zip(grad));
                $(let elements = elements.zip($slot);)*
                for slots!(@nest (out, (param, grad)) $($slot)*) in elements {
                    *out = number(*param, *grad, [$(*$slot),*]);
                }
            }

            #[inline(always)]
            fn sum_each<const N: usize>(
                param: &[A],
                grad: &[A],
                [$($slot,)* $($unused),*]: [&[A]; MAX_SLOTS],
                sums: &mut [[f64; AT_ONCE]; N],
                terms: impl Fn(A, A, Self) -> [f64; N],
            ) {
                $(let _ = $unused;)*
                let mut lanes = *sums;
                let mut add = |lane: usize, terms: [f64; N]| {
                    lanes.iter_mut().zip(terms).for_each(|(sum, term)| sum[lane] += term);
                };
                let ((params, param), (grads, grad)) = (param.as_chunks::<AT_ONCE>(), grad.as_chunks::<AT_ONCE>());
                $(let ($new, $slot) = $slot.as_chunks::<AT_ONCE>();)*
                let all = params.iter().zip(grads);
                $(let all = all.zip($new);)*
                for slots!(@nest (params, grads) $($new)*) in all {
                    for lane in 0..AT_ONCE {
                        add(lane, terms(params[lane], grads[lane], [$($new[lane]),*]));
                    }
                }
                let rest = param.len();
                let (param, grad): ([A; AT_ONCE], [A; AT_ONCE]) = (padded(param), padded(grad));
                $(let $slot: [A; AT_ONCE] = padded($slot);)*
                for lane in 0..AT_ONCE {
                    let terms = terms(param[lane], grad[lane], [$($slot[lane]),*]);
                    add(lane, terms.map(|term| if lane < rest { term } else { 0.0 }));
                }
                *sums = lanes;
            }

            #[inline(always)]
            fn get(&self, slot: usize) -> A {
                // By choice, not by index, so that the values stay in registers.
                self.iter().enumerate().fold(A::zero(), |found, (at, value)| if at == slot { *value } else { found })
            }
        }
    };
    (@each $param:ident $grad:ident $widen:ident $narrow:ident $random:ident $update:ident;
        $($slot:ident $new:ident $shift:literal),*) => {
        let elements = $param.iter_mut().zip(&$grad[..]);
        $(let elements = elements.zip(&mut $slot[..]);)*
        for slots!(@nest (param, grad) $($slot)*) in elements {
            let (new, slots) = $update(*param, *grad, [$($widen(*$slot)),*]);
            *param = new;
            let [$($new),*] = slots;
            $(*$slot = $narrow($new, $random.rotate_left($shift) & 0xffff);)*
            $random = $random.wrapping_add(GOLDEN);
        }
    };
    (@nest $inner:tt) => { $inner };
    (@nest $inner:tt $slot:ident $($rest:ident)*) => { slots!(@nest ($inner, $slot) $($rest)*) };
}

slots!(0: ; a b c d);
slots!(1: a new_a 0 0; b c d);
slots!(2: a new_a 0 0, b new_b 1 16; c d);
slots!(3: a new_a 0 0, b new_b 1 16, c new_c 2 8; d);
slots!(4: a new_a 0 0, b new_b 1 16, c new_c 2 8, d new_d 3 24;);
