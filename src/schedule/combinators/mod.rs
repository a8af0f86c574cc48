//! Schedules made from schedules: the types that the methods of [`ScheduleExt`](super::ScheduleExt) return.

mod clamp;
mod cycle;
mod delay;
mod per_epoch;
mod scale;
mod then;
mod times;
mod warmup;

pub use clamp::Clamp;
pub use cycle::Cycle;
pub use delay::Delay;
pub use per_epoch::PerEpoch;
pub use scale::Scale;
pub use then::Then;
pub use times::Times;
pub use warmup::Warmup;

/// The struct of a combinator, with its serde data and `Debug`, which is the description. A schedule in it may be a number, which
/// `number::inner` finds out from the type: so the bounds are not those that serde infers.
macro_rules! combinator {
    ($(#[$doc:meta])* pub struct $name:ident<S> $fields:tt) => {
        combinator! {
            $(#[$doc])* $name<S> $fields
            "S: serde::Serialize + 'static",
            "S: serde::Deserialize<'de> + 'static"
        }
    };
    ($(#[$doc:meta])* pub struct $name:ident<S, T> $fields:tt) => {
        combinator! {
            $(#[$doc])* $name<S, T> $fields
            "S: serde::Serialize + 'static, T: serde::Serialize + 'static",
            "S: serde::Deserialize<'de> + 'static, T: serde::Deserialize<'de> + 'static"
        }
    };
    (
        $(#[$doc:meta])* $name:ident<$($inner:ident),+> { $(#[$serde:meta] $field:ident: $type:ty,)+ }
        $serialize:literal, $deserialize:literal
    ) => {
        $(#[$doc])*
        #[must_use = "a schedule does nothing until an optimizer has it"]
        #[derive(Clone)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
        #[cfg_attr(feature = "serde", serde(deny_unknown_fields, bound(serialize = $serialize, deserialize = $deserialize)))]
        pub struct $name<$($inner),+> {
            $(
                #[cfg_attr(feature = "serde", $serde)]
                pub(in crate::schedule) $field: $type,
            )+
        }

        impl<$($inner: Schedule),+> fmt::Debug for $name<$($inner),+> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.describe(f)
            }
        }
    };
}

use combinator;
