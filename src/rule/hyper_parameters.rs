//! The hyper-parameters and options of a rule, declared in one place.

use std::fmt;

use crate::error::{Error, Result, ensure_count};
use crate::params::Element;
use crate::schedule::Hyper;
use crate::schedule::line::{Line, short};
use crate::step::Replaced;

/// The hyper-parameters and options of a rule. The macro [`hyper_parameters!`](crate::hyper_parameters!) implements it.
///
/// If you implement it yourself, return every hyper-parameter from [`hyper_parameters`](Self::hyper_parameters): only the state of these
/// schedules is saved.
pub trait HyperParameters: Send + Sync {
    /// The checked values of one step. The macro generates this struct.
    type Values: Send + Sync;

    /// The name that `Debug` shows, such as `AdamW`.
    fn title(&self) -> &'static str;

    /// The values at a step, for a rule that computes in `A`. The first step is 0.
    ///
    /// # Errors
    /// [`HyperParameter`](crate::error::StepError::HyperParameter) if a value is out of range: see
    /// [`Hyper::within_as`](crate::Hyper::within_as).
    fn values<A: Element>(&self, step: u64) -> Result<Self::Values> {
        self.values_with::<A>(step, &Replaced::default())
    }

    /// [`values`](Self::values) for a tensor for which groups replace some hyper-parameters.
    ///
    /// # Errors
    /// Those of [`values`](Self::values).
    fn values_with<A: Element>(&self, step: u64, replaced: &Replaced) -> Result<Self::Values>;

    /// The name and the value of every hyper-parameter that has one. The state of their schedules is saved under these names. A group can
    /// [change](crate::adaptor::Group::set) them.
    fn hyper_parameters(&self) -> Vec<(&'static str, &Hyper)>;

    /// The names of the hyper-parameters that may have no value.
    fn optional(&self) -> &'static [&'static str];

    /// The names of the options, which all tensors share.
    fn options(&self) -> &'static [&'static str];

    /// The settings that differ from the default, as `Debug` shows them.
    fn changed(&self) -> Vec<(&'static str, String)>;
}

/// Returns an error unless the option is at least `least`.
#[doc(hidden)]
pub fn ensure_at_least(name: &'static str, value: u64, least: u64) -> Result<()> {
    match value >= least {
        true => Ok(()),
        false if least == 1 => ensure_count(name, value),
        false => Err(Error::argument(name, value as f64, format!("at least {least}"))),
    }
}

/// `name` and `value` as `Debug` shows them, unless the default looks the same.
#[doc(hidden)]
pub fn if_changed<T: fmt::Debug>(name: &'static str, value: &T, default: &T) -> Option<(&'static str, String)> {
    let [value, default] = [value, default].map(short);
    (value != default).then_some((name, value))
}

/// A rule in one line.
#[doc(hidden)]
pub fn write_settings(f: &mut fmt::Formatter<'_>, rule: &impl HyperParameters) -> fmt::Result {
    let line = rule.changed().iter().fold(Line::new(rule.title()), |line, (name, value)| line.text(name, value));
    write!(f, "{line}")
}

/// Declares a rule: its hyper-parameters and options, each with name, default, range and documentation in one place.
///
/// ```
/// gradus::hyper_parameters! {
///     /// A rule with everything that can be declared.
///     pub struct Everything => EverythingValues {
///         /// The momentum μ, 0 ≤ μ < 1.
///         momentum: 0.9, 0.0..1.0;
///         /// The ε ≥ 0 that keeps a division finite.
///         eps / set_eps: 1e-8, 0.0..;
///     }
///     optional {
///         /// The decay of a second average; without it there is none.
///         beta: 0.0..1.0;
///     }
///     options {
///         /// Takes the sign.
///         sign: bool = false;
///         /// Steps between averages.
///         every: u64 = 10, at least 1;
///     }
/// }
///
/// let mut rule = Everything::default().momentum(0.5).sign(true);
/// rule.set_eps(1e-6);
/// assert_eq!(format!("{rule:?}"), "Everything(momentum: 0.5, eps: 1e-6, sign: true)");
/// ```
/// The macro generates:
/// - the struct, with a private [`Hyper`](crate::Hyper) or `Option<Hyper>` per hyper-parameter, and a field per option;
/// - `Clone`, `Default`, a `Debug` that shows the settings that differ from the default, and [`HyperParameters`](crate::rule::HyperParameters);
/// - the struct `EverythingValues` with the checked values at one step, an `f64` or `Option<f64>` per hyper-parameter;
/// - a setter per name, which takes and returns the rule; for a second name after `/`, also one with `&mut self`, which you can call through
///   [`Elementwise::rule_mut`](crate::rule::Elementwise::rule_mut).
///
/// `named …` before `=>` sets another name for `Debug`.
/// `from` after the name of an option, as in `list from: Vec<f64> = vec![]`, lets its setter take whatever becomes that type with `into`.
#[macro_export]
macro_rules! hyper_parameters {
    // An optimizer of this crate has the setters, too.
    (
        $(#[$meta:meta])*
        $vis:vis struct $rule:ident $(<const $flag:ident: $kind:ty>)? $(named $title:expr)? => $values:ident for $driver:ident
        $($body:tt)*
    ) => {
        $crate::hyper_parameters! {
            $(#[$meta])* $vis struct $rule $(<const $flag: $kind>)? $(named $title)? => $values $($body)*
        }
        $crate::hyper_parameters! { @driver $driver $rule [$($flag: $kind)?] $($body)* }
        $crate::rule::configured! { $rule [$($flag: $kind)?] $($body)* }
    };
    (
        $(#[$meta:meta])*
        $vis:vis struct $rule:ident $(<const $flag:ident: $kind:ty>)? $(named $title:expr)? => $values:ident {
            $($(#[$doc:meta])* $name:ident $(/ $set:ident)?: $default:expr, $range:expr;)*
        }
        $(optional {
            $($(#[$optional_doc:meta])* $optional:ident $(/ $optional_set:ident)?: $optional_range:expr;)*
        })?
        $(options {
            $($(#[$option_doc:meta])* $option:ident $($from:ident)?: $type:ty = $off:expr $(, at least $least:expr)?;)*
        })?
    ) => {
        $(#[$meta])*
        #[must_use = "a rule moves nothing until it is in an optimizer"]
        #[derive(Clone)]
        $vis struct $rule $(<const $flag: $kind>)? {
            $($(#[$doc])* $name: $crate::Hyper,)*
            $($($(#[$optional_doc])* $optional: ::core::option::Option<$crate::Hyper>,)*)?
            $($($(#[$option_doc])* $option: $type,)*)?
        }

        impl $(<const $flag: $kind>)? ::core::default::Default for $rule $(<$flag>)? {
            fn default() -> Self {
                Self {
                    $($name: $crate::Hyper::from($default),)*
                    $($($optional: ::core::option::Option::None,)*)?
                    $($($option: $off,)*)?
                }
            }
        }

        #[allow(dead_code, unreachable_pub, reason = "a rule may be private, and have setters that its crate does not use")]
        impl $(<const $flag: $kind>)? $rule $(<$flag>)? {
            $crate::hyper_parameters! {
                @setters []
                { $($(#[$doc])* $name $(/ $set)?;)* }
                { $($($(#[$optional_doc])* $optional $(/ $optional_set)?;)*)? }
                { $($($(#[$option_doc])* $option $($from)?: $type;)*)? }
            }
        }

        #[doc = concat!("The hyper-parameters of [`", stringify!($rule), "`] at one step.")]
        #[derive(Debug, Clone, Copy)]
        $vis struct $values {
            $($(#[$doc])* $vis $name: f64,)*
            $($($(#[$optional_doc])* $vis $optional: ::core::option::Option<f64>,)*)?
        }

        impl $(<const $flag: $kind>)? $crate::rule::HyperParameters for $rule $(<$flag>)? {
            type Values = $values;

            fn title(&self) -> &'static str {
                let titles = [$($title,)? stringify!($rule).trim_end_matches("Rule")];
                titles[0]
            }

            #[inline]
            fn values_with<A: $crate::Element>(&self, step: u64, replaced: &$crate::Replaced) -> $crate::Result<$values> {
                let _ = (step, replaced);
                $($($($crate::rule::ensure_at_least(stringify!($option), self.$option as u64, $least)?;)?)*)?
                ::core::result::Result::Ok($values {
                    $($name: replaced.get(stringify!($name)).unwrap_or(&self.$name)
                        .within_as::<A>(stringify!($name), $range, step)?,)*
                    $($($optional: match replaced.get(stringify!($optional)).or(self.$optional.as_ref()) {
                        ::core::option::Option::Some(hyper) => {
                            ::core::option::Option::Some(hyper.within_as::<A>(stringify!($optional), $optional_range, step)?)
                        }
                        ::core::option::Option::None => ::core::option::Option::None,
                    },)*)?
                })
            }

            fn hyper_parameters(&self) -> ::std::vec::Vec<(&'static str, &$crate::Hyper)> {
                let all: &[(&'static str, ::core::option::Option<&$crate::Hyper>)] = &[
                    $((stringify!($name), ::core::option::Option::Some(&self.$name)),)*
                    $($((stringify!($optional), self.$optional.as_ref()),)*)?
                ];
                all.iter().filter_map(|(name, hyper)| ::core::option::Option::Some((*name, (*hyper)?))).collect()
            }

            fn optional(&self) -> &'static [&'static str] {
                &[$($(stringify!($optional)),*)?]
            }

            fn options(&self) -> &'static [&'static str] {
                &[$($(stringify!($option)),*)?]
            }

            fn changed(&self) -> ::std::vec::Vec<(&'static str, ::std::string::String)> {
                let default = &Self::default();
                let all: &[::core::option::Option<(&'static str, ::std::string::String)>] = &[
                    $($crate::rule::if_changed(stringify!($name), &self.$name, &default.$name),)*
                    $($($crate::rule::if_changed(stringify!($optional), &self.$optional, &default.$optional),)*)?
                    $($($crate::rule::if_changed(stringify!($option), &self.$option, &default.$option),)*)?
                ];
                _ = default;
                all.iter().flatten().cloned().collect()
            }
        }

        impl $(<const $flag: $kind>)? ::core::fmt::Debug for $rule $(<$flag>)? {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                $crate::rule::write_settings(f, self)
            }
        }
    };
    (@driver $driver:ident $rule:ident [$($flag:ident: $kind:ty)?]
        {
            $($(#[$doc:meta])* $name:ident $(/ $set:ident)?: $default:expr, $range:expr;)*
        }
        $(optional {
            $($(#[$optional_doc:meta])* $optional:ident $(/ $optional_set:ident)?: $optional_range:expr;)*
        })?
        $(options {
            $($(#[$option_doc:meta])* $option:ident $($from:ident)?: $type:ty = $off:expr $(, at least $least:expr)?;)*
        })?
    ) => {
        impl<$(const $flag: $kind,)? A: $crate::Scalar> $driver<$rule $(<$flag>)?, A> {
            $crate::hyper_parameters! {
                @setters [rule]
                { $($(#[$doc])* $name $(/ $set)?;)* }
                { $($($(#[$optional_doc])* $optional $(/ $optional_set)?;)*)? }
                { $($($(#[$option_doc])* $option $($from)?: $type;)*)? }
            }
        }
    };
    // The path is that from `self` to the rule, `wrap` makes what the field holds of a `Hyper`.
    (@setters $path:tt { $($always:tt)* } { $($optional:tt)* } { $($options:tt)* }) => {
        $crate::hyper_parameters! { @hyper $path [::core::convert::identity] $($always)* }
        $crate::hyper_parameters! { @hyper $path [::core::option::Option::Some] $($optional)* }
        $crate::hyper_parameters! { @option $path $($options)* }
    };
    (@hyper $path:tt $wrap:tt) => {};
    (@hyper $path:tt $wrap:tt $(#[$doc:meta])* $name:ident $(/ $set:ident)?; $($rest:tt)*) => {
        $crate::hyper_parameters! { @builder $path $wrap $name $(#[$doc])* }
        $($crate::hyper_parameters! { @set $path $wrap $name $set })?
        $crate::hyper_parameters! { @hyper $path $wrap $($rest)* }
    };
    (@builder [$($path:ident)?] [$($wrap:tt)*] $name:ident $(#[$doc:meta])*) => {
        $(#[$doc])*
        ///
        /// A number, a schedule or a closure.
        pub fn $name(mut self, $name: impl ::core::convert::Into<$crate::Hyper>) -> Self {
            self$(.$path)?.$name = $($wrap)*($name.into());
            self
        }
    };
    (@set [$($path:ident)?] [$($wrap:tt)*] $name:ident $set:ident) => {
        #[doc = concat!("Changes [`", stringify!($name), "`](Self::", stringify!($name), ") from the next step on.")]
        pub fn $set(&mut self, $name: impl ::core::convert::Into<$crate::Hyper>) {
            self$(.$path)?.$name = $($wrap)*($name.into());
        }
    };
    (@option $path:tt) => {};
    (@option [$($path:ident)?] $(#[$doc:meta])* $name:ident from: $type:ty; $($rest:tt)*) => {
        $(#[$doc])*
        pub fn $name(mut self, $name: impl ::core::convert::Into<$type>) -> Self {
            self$(.$path)?.$name = $name.into();
            self
        }

        $crate::hyper_parameters! { @option [$($path)?] $($rest)* }
    };
    (@option [$($path:ident)?] $(#[$doc:meta])* $name:ident: $type:ty; $($rest:tt)*) => {
        $(#[$doc])*
        pub fn $name(mut self, $name: $type) -> Self {
            self$(.$path)?.$name = $name;
            self
        }

        $crate::hyper_parameters! { @option [$($path)?] $($rest)* }
    };
}

/// The settings of a rule of this crate in a configuration: each name is a key.
#[cfg(feature = "config")]
macro_rules! configured {
    ($rule:ident [$($flag:ident: $kind:ty)?]
        {
            $($(#[$doc:meta])* $name:ident $(/ $set:ident)?: $default:expr, $range:expr;)*
        }
        $(optional {
            $($(#[$optional_doc:meta])* $optional:ident $(/ $optional_set:ident)?: $optional_range:expr;)*
        })?
        $(options {
            $($(#[$option_doc:meta])* $option:ident $($from:ident)?: $type:ty = $off:expr $(, at least $least:expr)?;)*
        })?
    ) => {
        impl $(<const $flag: $kind>)? $crate::rule::Configured for $rule $(<$flag>)? {
            fn configure(&mut self, settings: &mut $crate::config::settings::Settings<'_>) -> $crate::Result<()> {
                let _ = &settings;
                $(
                    if let Some(hyper) = settings.optional_hyper(stringify!($name))? {
                        self.$name = hyper;
                    }
                )*
                $($(
                    if let Some(hyper) = settings.optional_hyper(stringify!($optional))? {
                        self.$optional = Some(hyper);
                    }
                )*)?
                $($(
                    if let Some(option) = settings.optional(stringify!($option))? {
                        self.$option = option;
                    }
                )*)?
                Ok(())
            }
        }
    };
}

#[cfg(not(feature = "config"))]
macro_rules! configured {
    ($($rule:tt)*) => {};
}

pub(crate) use configured;

/// A rule whose settings a configuration can have.
#[cfg(feature = "config")]
pub(crate) trait Configured {
    fn configure(&mut self, settings: &mut crate::config::settings::Settings<'_>) -> Result<()>;
}
