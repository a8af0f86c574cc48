//! Schedules made from schedules: what the provided methods of [`Schedule`] return.

use std::fmt;

use super::anneal::{clamp, finite, mix, product, progress, require};
use super::line::short;
#[cfg(feature = "serde")]
use super::number;
use super::{Memory, Schedule};
use crate::error::{AT_LEAST_1, Result};

/// A linear rise to a schedule's first value, then the schedule: see [`Schedule::warmup`].
#[derive(Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(
    feature = "serde",
    serde(
        deny_unknown_fields,
        bound(serialize = "S: serde::Serialize + 'static", deserialize = "S: serde::Deserialize<'de> + 'static")
    )
)]
pub struct Warmup<S> {
    #[cfg_attr(feature = "serde", serde(with = "number::inner"))]
    pub(super) inner: S,
    #[cfg_attr(feature = "serde", serde(default, with = "number"))]
    pub(super) start_factor: f64,
    #[cfg_attr(feature = "serde", serde(deserialize_with = "number::count"))]
    pub(super) steps: u64,
}

impl<S: Schedule> Warmup<S> {
    /// The value at a step of the warm-up.
    fn on_the_way(&self, step: u64) -> f64 {
        product(self.inner.first_value(), mix(self.start_factor, 1.0, progress(step, self.steps)))
    }
}

impl<S: Schedule> Schedule for Warmup<S> {
    fn at(&self, step: u64) -> f64 {
        match step.checked_sub(self.steps) {
            Some(step) => self.inner.at(step),
            None => self.on_the_way(step),
        }
    }

    fn first_value(&self) -> f64 {
        if self.steps == 0 { self.inner.first_value() } else { self.on_the_way(0) }
    }

    fn check(&self) -> Result<()> {
        finite("Warmup", "start_factor", self.start_factor)?;
        self.inner.check()
    }

    fn memory(&self) -> Memory<'_> {
        self.inner.memory()
    }

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { inner, start_factor, steps } = self;
        inner.describe(f)?;
        match *start_factor {
            0.0 => write!(f, ".warmup({steps})"),
            start_factor => write!(f, ".warmup_from({}, {steps})", short(start_factor)),
        }
    }
}

/// One schedule, then another: see [`Schedule::then`].
#[derive(Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(
    feature = "serde",
    serde(
        deny_unknown_fields,
        bound(
            serialize = "S: serde::Serialize + 'static, T: serde::Serialize + 'static",
            deserialize = "S: serde::Deserialize<'de> + 'static, T: serde::Deserialize<'de> + 'static"
        )
    )
)]
pub struct Then<S, T> {
    #[cfg_attr(feature = "serde", serde(with = "number::inner"))]
    pub(super) first: S,
    #[cfg_attr(feature = "serde", serde(deserialize_with = "number::count"))]
    pub(super) at: u64,
    #[cfg_attr(feature = "serde", serde(with = "number::inner"))]
    pub(super) next: T,
}

impl<S: Schedule, T: Schedule> Schedule for Then<S, T> {
    fn at(&self, step: u64) -> f64 {
        match step.checked_sub(self.at) {
            Some(step) => self.next.at(step),
            None => self.first.at(step),
        }
    }

    fn first_value(&self) -> f64 {
        self.first.first_value()
    }

    /// What is never reached may be what could not be: a period of no steps, say.
    fn check(&self) -> Result<()> {
        if self.at > 0 {
            self.first.check()?;
        }
        self.next.check()
    }

    fn memory(&self) -> Memory<'_> {
        self.first.memory().and(self.next.memory())
    }

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.first.describe(f)?;
        write!(f, ".then({}, ", self.at)?;
        self.next.describe(f)?;
        f.write_str(")")
    }
}

/// A schedule times a number: see [`Schedule::scale`].
#[derive(Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(
    feature = "serde",
    serde(
        deny_unknown_fields,
        bound(serialize = "S: serde::Serialize + 'static", deserialize = "S: serde::Deserialize<'de> + 'static")
    )
)]
pub struct Scale<S> {
    #[cfg_attr(feature = "serde", serde(with = "number::inner"))]
    pub(super) inner: S,
    #[cfg_attr(feature = "serde", serde(with = "number"))]
    pub(super) factor: f64,
}

impl<S: Schedule> Schedule for Scale<S> {
    fn at(&self, step: u64) -> f64 {
        product(self.inner.at(step), self.factor)
    }

    fn first_value(&self) -> f64 {
        product(self.inner.first_value(), self.factor)
    }

    fn check(&self) -> Result<()> {
        finite("Scale", "factor", self.factor)?;
        self.inner.check()
    }

    fn memory(&self) -> Memory<'_> {
        self.inner.memory()
    }

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.describe(f)?;
        write!(f, ".scale({})", short(self.factor))
    }
}

/// The product of two schedules: see [`Schedule::times`].
#[derive(Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(
    feature = "serde",
    serde(
        deny_unknown_fields,
        bound(
            serialize = "S: serde::Serialize + 'static, T: serde::Serialize + 'static",
            deserialize = "S: serde::Deserialize<'de> + 'static, T: serde::Deserialize<'de> + 'static"
        )
    )
)]
pub struct Times<S, T> {
    #[cfg_attr(feature = "serde", serde(with = "number::inner"))]
    pub(super) left: S,
    #[cfg_attr(feature = "serde", serde(with = "number::inner"))]
    pub(super) right: T,
}

impl<S: Schedule, T: Schedule> Schedule for Times<S, T> {
    fn at(&self, step: u64) -> f64 {
        product(self.left.at(step), self.right.at(step))
    }

    fn first_value(&self) -> f64 {
        product(self.left.first_value(), self.right.first_value())
    }

    fn check(&self) -> Result<()> {
        self.left.check()?;
        self.right.check()
    }

    fn memory(&self) -> Memory<'_> {
        self.left.memory().and(self.right.memory())
    }

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.left.describe(f)?;
        f.write_str(".times(")?;
        self.right.describe(f)?;
        f.write_str(")")
    }
}

/// A schedule kept within bounds: see [`Schedule::clamp`].
#[derive(Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(
    feature = "serde",
    serde(
        deny_unknown_fields,
        bound(serialize = "S: serde::Serialize + 'static", deserialize = "S: serde::Deserialize<'de> + 'static")
    )
)]
pub struct Clamp<S> {
    #[cfg_attr(feature = "serde", serde(with = "number::inner"))]
    pub(super) inner: S,
    #[cfg_attr(feature = "serde", serde(default = "no_min", with = "number"))]
    pub(super) min: f64,
    #[cfg_attr(feature = "serde", serde(default = "no_max", with = "number"))]
    pub(super) max: f64,
}

#[cfg(feature = "serde")]
fn no_min() -> f64 {
    f64::NEG_INFINITY
}

#[cfg(feature = "serde")]
fn no_max() -> f64 {
    f64::INFINITY
}

impl<S: Schedule> Schedule for Clamp<S> {
    fn at(&self, step: u64) -> f64 {
        clamp(self.inner.at(step), self.min, self.max)
    }

    fn first_value(&self) -> f64 {
        clamp(self.inner.first_value(), self.min, self.max)
    }

    fn check(&self) -> Result<()> {
        require(!self.max.is_nan(), "Clamp", "max", self.max, "a number, or infinity for none")?;
        require(self.min <= self.max, "Clamp", "min", self.min, "a number, at most the max")?;
        self.inner.check()
    }

    fn memory(&self) -> Memory<'_> {
        self.inner.memory()
    }

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.describe(f)?;
        write!(f, ".clamp({}, {})", short(self.min), short(self.max))
    }
}

/// A schedule that starts later: see [`Schedule::delay`].
#[derive(Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(
    feature = "serde",
    serde(
        deny_unknown_fields,
        bound(serialize = "S: serde::Serialize + 'static", deserialize = "S: serde::Deserialize<'de> + 'static")
    )
)]
pub struct Delay<S> {
    #[cfg_attr(feature = "serde", serde(with = "number::inner"))]
    pub(super) inner: S,
    #[cfg_attr(feature = "serde", serde(deserialize_with = "number::count"))]
    pub(super) steps: u64,
}

impl<S: Schedule> Schedule for Delay<S> {
    fn at(&self, step: u64) -> f64 {
        match step.checked_sub(self.steps) {
            Some(step) => self.inner.at(step),
            None => self.inner.first_value(),
        }
    }

    fn first_value(&self) -> f64 {
        self.inner.first_value()
    }

    fn check(&self) -> Result<()> {
        self.inner.check()
    }

    fn memory(&self) -> Memory<'_> {
        self.inner.memory()
    }

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.describe(f)?;
        write!(f, ".delay({})", self.steps)
    }
}

/// A schedule that repeats: see [`Schedule::cycle`].
#[derive(Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(
    feature = "serde",
    serde(
        deny_unknown_fields,
        bound(serialize = "S: serde::Serialize + 'static", deserialize = "S: serde::Deserialize<'de> + 'static")
    )
)]
pub struct Cycle<S> {
    #[cfg_attr(feature = "serde", serde(with = "number::inner"))]
    pub(super) inner: S,
    #[cfg_attr(feature = "serde", serde(deserialize_with = "number::count"))]
    pub(super) steps: u64,
}

impl<S: Schedule> Schedule for Cycle<S> {
    fn at(&self, step: u64) -> f64 {
        self.inner.at(step.checked_rem(self.steps).unwrap_or(0))
    }

    fn first_value(&self) -> f64 {
        self.inner.first_value()
    }

    fn check(&self) -> Result<()> {
        require(self.steps > 0, "Cycle", "steps", self.steps as f64, AT_LEAST_1)?;
        self.inner.check()
    }

    fn memory(&self) -> Memory<'_> {
        self.inner.memory()
    }

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.describe(f)?;
        write!(f, ".cycle({})", self.steps)
    }
}

/// A schedule that counts epochs: see [`Schedule::per_epoch`].
#[derive(Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(
    feature = "serde",
    serde(
        deny_unknown_fields,
        bound(serialize = "S: serde::Serialize + 'static", deserialize = "S: serde::Deserialize<'de> + 'static")
    )
)]
pub struct PerEpoch<S> {
    #[cfg_attr(feature = "serde", serde(with = "number::inner"))]
    pub(super) inner: S,
    #[cfg_attr(feature = "serde", serde(deserialize_with = "number::count"))]
    pub(super) steps_per_epoch: u64,
}

impl<S: Schedule> Schedule for PerEpoch<S> {
    fn at(&self, step: u64) -> f64 {
        self.inner.at(step.checked_div(self.steps_per_epoch).unwrap_or(0))
    }

    fn first_value(&self) -> f64 {
        self.inner.first_value()
    }

    fn check(&self) -> Result<()> {
        let steps = self.steps_per_epoch;
        require(steps > 0, "PerEpoch", "steps_per_epoch", steps as f64, AT_LEAST_1)?;
        self.inner.check()
    }

    fn memory(&self) -> Memory<'_> {
        self.inner.memory()
    }

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.describe(f)?;
        write!(f, ".per_epoch({})", self.steps_per_epoch)
    }
}

/// `Debug` is the description.
macro_rules! debug {
    ($($name:ident<$($inner:ident),*>)*) => {
        $(
            impl<$($inner: Schedule),*> fmt::Debug for $name<$($inner),*> {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    self.describe(f)
                }
            }
        )*
    };
}

debug!(Warmup<S> Then<S, T> Scale<S> Times<S, T> Clamp<S> Delay<S> Cycle<S> PerEpoch<S>);

#[cfg(test)]
mod tests {
    use crate::schedule::{Cosine, Hyper, Linear, PiecewiseLinear, Plateau, Schedule};

    /// A schedule that shows which step it was asked for.
    fn own_step(step: u64) -> f64 {
        step as f64
    }

    #[test]
    fn warmup_rises_to_the_first_value_and_then_begins() {
        let schedule = Linear::new(4.0, 0.0, 4).warmup(2);
        assert_eq!([0, 1, 2, 3, 6, 7].map(|t| schedule.at(t)), [0.0, 2.0, 4.0, 3.0, 0.0, 0.0]);
        assert_eq!([0, 1].map(|t| Linear::new(4.0, 0.0, 4).warmup(0).at(t)), [4.0, 3.0]);
    }

    #[test]
    fn warmup_from_a_factor() {
        assert_eq!([0, 1, 2, 3, 4].map(|t| 2.0_f64.warmup_from(0.5, 2).at(t)), [1.0, 1.5, 2.0, 2.0, 2.0]);
        // The convention (t + 1) / n, here with n = 4.
        let schedule = 1.0_f64.warmup_from(1.0 / 4.0, 3);
        assert_eq!([0, 1, 2, 3, 4].map(|t| schedule.at(t)), [0.25, 0.5, 0.75, 1.0, 1.0]);
    }

    #[test]
    fn steps_as_the_inner_schedule_sees_them() {
        let seen = |schedule: &dyn Schedule| [0, 1, 4, 5, 6, 11].map(|t| schedule.at(t));
        assert_eq!(seen(&own_step.then(5, own_step)), [0.0, 1.0, 4.0, 0.0, 1.0, 6.0]);
        assert_eq!(seen(&own_step.delay(5)), [0.0, 0.0, 0.0, 0.0, 1.0, 6.0]);
        assert_eq!(seen(&own_step.cycle(5)), [0.0, 1.0, 4.0, 0.0, 1.0, 1.0]);
        assert_eq!(seen(&own_step.per_epoch(5)), [0.0, 0.0, 0.0, 1.0, 1.0, 2.0]);
        assert_eq!(seen(&own_step.then(0, 7.0)), [7.0; 6]);
    }

    #[test]
    fn values_as_they_are_changed() {
        let seen = |schedule: &dyn Schedule| [0, 1, 4, 5].map(|t| schedule.at(t));
        assert_eq!(seen(&own_step.scale(0.5)), [0.0, 0.5, 2.0, 2.5]);
        assert_eq!(seen(&own_step.times(own_step)), [0.0, 1.0, 16.0, 25.0]);
        assert_eq!(seen(&own_step.clamp(1.5, 4.5)), [1.5, 1.5, 4.0, 4.5]);
        assert_eq!(seen(&own_step.clamp(2.0, f64::INFINITY)), [2.0, 2.0, 4.0, 5.0]);
    }

    #[test]
    fn nan_passes_a_clamp_so_that_the_step_can_report_it() {
        assert!((|_: u64| f64::NAN).clamp(0.0, 1.0).at(0).is_nan());
    }

    #[test]
    fn one_line_as_a_person_writes_it() {
        let cosine = Cosine::new(1e-3, 9_500).floor(1e-5).warmup(500).clamp(1e-5, f64::INFINITY);
        assert_eq!(format!("{cosine:?}"), "Cosine(peak: 0.001, steps: 9500, floor: 1e-5).warmup(500).clamp(1e-5, inf)");
        let joined = 0.5.warmup_from(0.1, 3).then(10, own_step.times(2.0)).delay(1).cycle(20).scale(3.0).per_epoch(4);
        let text = "0.5.warmup_from(0.1, 3).then(10, closure.times(2)).delay(1).cycle(20).scale(3).per_epoch(4)";
        assert_eq!(format!("{joined:?}"), text);
        assert_eq!(format!("{:?}", Hyper::from(Plateau::new(0.1).maximize())), "Plateau(start: 0.1, maximize: true)");
        let points = PiecewiseLinear::new(0.0, [(100, 1.0)]);
        assert_eq!(format!("{points:?}"), "PiecewiseLinear(start: 0, points: [(100, 1.0)])");
    }

    #[test]
    fn every_combinator_passes_on_what_is_wrong_inside() {
        let wrong = || Cosine::new(f64::NAN, 10);
        let combined: [Box<dyn Schedule>; 11] = [
            Box::new(wrong().warmup(3)),
            Box::new(wrong().then(3, 1.0)),
            Box::new(1.0.then(3, wrong())),
            Box::new(wrong().scale(2.0)),
            Box::new(wrong().times(1.0)),
            Box::new(1.0.times(wrong())),
            Box::new(wrong().clamp(0.0, 1.0)),
            Box::new(wrong().delay(3)),
            Box::new(wrong().cycle(3)),
            Box::new(wrong().per_epoch(3)),
            Box::new(Box::new(wrong()) as Box<dyn Schedule>),
        ];
        for schedule in combined {
            let error = schedule.check().unwrap_err().to_string();
            assert_eq!(error, "Cosine: peak is NaN; it must be a finite number");
        }
    }
}
