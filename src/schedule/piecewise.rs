//! Values at given steps: constant in between, or joined by lines or half cosine waves.

use std::fmt;

use super::anneal::{Anneal, finite, progress, require};
use super::line::Line;
#[cfg(feature = "serde")]
use super::number;
use super::{Schedule, function_of_the_step};
use crate::error::Result;

/// The values from given steps on, the first one from step 0 on.
#[derive(Debug, Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
struct Points {
    #[cfg_attr(feature = "serde", serde(with = "number"))]
    start: f64,
    #[cfg_attr(feature = "serde", serde(with = "number::points"))]
    points: Vec<(u64, f64)>,
}

impl Points {
    fn new(start: f64, points: impl IntoIterator<Item = (u64, f64)>) -> Self {
        Self { start, points: points.into_iter().collect() }
    }

    /// The last point that is not later than the step, and the one that follows it.
    fn around(&self, step: u64) -> ((u64, f64), Option<(u64, f64)>) {
        let passed = self.points.partition_point(|(at, _)| *at <= step);
        let before = passed.checked_sub(1).and_then(|last| self.points.get(last));
        (before.copied().unwrap_or((0, self.start)), self.points.get(passed).copied())
    }

    /// The value on the way between the points around the step.
    fn between(&self, step: u64, shape: Anneal) -> f64 {
        match self.around(step) {
            ((since, from), Some((until, to))) => {
                // Saturating because `at` must not panic on the disorder that `check` reports.
                shape.between(from, to, progress(step.saturating_sub(since), until.saturating_sub(since)))
            }
            ((_, last), None) => last,
        }
    }

    fn check(&self, schedule: &'static str) -> Result<()> {
        finite(schedule, "start", self.start)?;
        let later = self.points.iter().skip(1).map(|(step, _)| *step);
        for ((before, _), step) in self.points.iter().zip(later) {
            require(*before < step, schedule, "step", step as f64, "later than the step before it")?;
        }
        self.points.iter().try_for_each(|(_, value)| finite(schedule, "value", *value))
    }
}

/// Holds each value until the next one's step.
///
/// # Formula
/// ```text
/// at(t) = the value of the last (step, value) with step ≤ t; start if there is none
/// ```
///
/// # Arguments
/// | name | range | meaning | unit |
/// |---|---|---|---|
/// | `start` | finite | the value before the first change | the hyper-parameter's |
/// | `changes` | any number, each later than the one before | the first step of a value, and the value | steps, the hyper-parameter's |
///
/// # Values
/// `start` at step 0, unless the first change is at 0. The last value stays.
///
/// # Conventions
/// optax's `piecewise_constant_schedule` takes the *factor* of each change instead of the value; the steps are the same. Keras'
/// `PiecewiseConstantDecay` changes one step later: at a boundary it still has the old value. PyTorch's `ConstantLR(factor, total_iters)` is
/// `PiecewiseConstant::new(lr * factor, [(total_iters, lr)])`. If all changes have the same factor, use [`MultiStep`](super::MultiStep).
///
/// # Errors
/// [`check`](Schedule::check) reports a number that is not finite, and a step that is not later than the one before.
///
/// # Example
/// ```
/// use gradus::schedule::{PiecewiseConstant, Schedule};
///
/// let schedule = PiecewiseConstant::new(0.1, [(100, 0.05), (300, 0.2)]);
/// assert_eq!([0, 99, 100, 299, 300, 9000].map(|t| schedule.at(t)), [0.1, 0.1, 0.05, 0.05, 0.2, 0.2]);
/// ```
#[doc(alias("ConstantLR", "piecewise_constant_schedule"))]
#[must_use = "a schedule does nothing until an optimizer has it"]
#[derive(Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct PiecewiseConstant(Points);

impl PiecewiseConstant {
    /// `start`, and from each given step on the value that belongs to it.
    pub fn new(start: f64, changes: impl IntoIterator<Item = (u64, f64)>) -> Self {
        Self(Points::new(start, changes))
    }
}

impl Schedule for PiecewiseConstant {
    fn at(&self, step: u64) -> f64 {
        let ((_, value), _) = self.0.around(step);
        value
    }

    fn check(&self) -> Result<()> {
        self.0.check("PiecewiseConstant")
    }

    function_of_the_step!();
}

/// Interpolates linearly between given points.
///
/// # Formula
/// ```text
/// between the points (a, v) and (b, w), a ≤ t < b:  at(t) = v + (w − v) · (t − a) / (b − a)
/// ```
/// The first point is `(0, start)`.
///
/// # Arguments
/// | name | range | meaning | unit |
/// |---|---|---|---|
/// | `start` | finite | the value at step 0 | the hyper-parameter's |
/// | `points` | any number, each later than the one before | a step, and the value there | steps, the hyper-parameter's |
///
/// # Values
/// `start` at step 0, unless the first point is at 0. The last value stays.
///
/// # Conventions
/// optax's `piecewise_interpolate_schedule("linear", …)` and `linear_onecycle_schedule` take the *factor* from each value to the next instead of
/// the value; the steps are the same. PyTorch has no counterpart.
///
/// # Errors
/// [`check`](Schedule::check) reports a number that is not finite, and a step that is not later than the one before.
///
/// # Example
/// ```
/// use gradus::schedule::{PiecewiseLinear, Schedule};
///
/// let schedule = PiecewiseLinear::new(0.0, [(100, 1.0), (300, 0.5)]);
/// assert_eq!([0, 50, 100, 200, 300, 9000].map(|t| schedule.at(t)), [0.0, 0.5, 1.0, 0.75, 0.5, 0.5]);
/// ```
#[must_use = "a schedule does nothing until an optimizer has it"]
#[derive(Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct PiecewiseLinear(Points);

impl PiecewiseLinear {
    /// `start` at step 0, and these values at these steps.
    pub fn new(start: f64, points: impl IntoIterator<Item = (u64, f64)>) -> Self {
        Self(Points::new(start, points))
    }
}

impl Schedule for PiecewiseLinear {
    fn at(&self, step: u64) -> f64 {
        self.0.between(step, Anneal::Linear)
    }

    fn first_value(&self) -> f64 {
        self.0.start
    }

    fn check(&self) -> Result<()> {
        self.0.check("PiecewiseLinear")
    }

    function_of_the_step!();
}

/// Interpolates between given points by half cosine waves, which are flat at every point.
///
/// # Formula
/// ```text
/// between the points (a, v) and (b, w), a ≤ t < b:  at(t) = v + (w − v) · (1 − cos(π (t − a) / (b − a))) / 2
/// ```
/// The first point is `(0, start)`.
///
/// # Arguments
/// Those of [`PiecewiseLinear`].
///
/// # Values
/// `start` at step 0, unless the first point is at 0. The last value stays.
///
/// # Conventions
/// optax's `piecewise_interpolate_schedule("cosine", …)` and `cosine_onecycle_schedule` take the *factor* from each value to the next instead of
/// the value; the steps are the same. Hugging Face's `get_cosine_schedule_with_warmup`, whose waves need not turn at whole steps, is
/// [`Cosine::waves`](super::Cosine::waves).
///
/// # Errors
/// [`check`](Schedule::check) reports a number that is not finite, and a step that is not later than the one before.
///
/// # Example
/// ```
/// use gradus::schedule::{PiecewiseCosine, Schedule};
///
/// let schedule = PiecewiseCosine::new(0.0, [(100, 1.0), (300, 0.5)]);
/// assert_eq!([0, 100, 200, 300, 9000].map(|t| schedule.at(t)), [0.0, 1.0, 0.75, 0.5, 0.5]);
/// assert!(schedule.at(25) < 0.25);
/// ```
#[must_use = "a schedule does nothing until an optimizer has it"]
#[derive(Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct PiecewiseCosine(Points);

impl PiecewiseCosine {
    /// `start` at step 0, and these values at these steps.
    pub fn new(start: f64, points: impl IntoIterator<Item = (u64, f64)>) -> Self {
        Self(Points::new(start, points))
    }
}

impl Schedule for PiecewiseCosine {
    fn at(&self, step: u64) -> f64 {
        self.0.between(step, Anneal::Cosine)
    }

    fn first_value(&self) -> f64 {
        self.0.start
    }

    fn check(&self) -> Result<()> {
        self.0.check("PiecewiseCosine")
    }

    function_of_the_step!();
}

/// `Debug` shows the points.
macro_rules! debug {
    ($($schedule:ident)*) => {
        $(
            impl fmt::Debug for $schedule {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    let Points { start, points } = &self.0;
                    write!(f, "{}", Line::new(stringify!($schedule)).field("start", start).field("points", points))
                }
            }
        )*
    };
}

debug!(PiecewiseConstant PiecewiseLinear PiecewiseCosine);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_points_the_start_stays() {
        assert_eq!(PiecewiseConstant::new(0.3, []).at(7), 0.3);
        assert_eq!(PiecewiseLinear::new(0.3, []).at(7), 0.3);
    }

    #[test]
    fn a_point_at_step_0_takes_the_place_of_the_start() {
        assert_eq!(PiecewiseConstant::new(0.3, [(0, 0.5)]).at(0), 0.5);
        assert_eq!([0, 1].map(|t| PiecewiseLinear::new(0.3, [(0, 0.5), (2, 1.5)]).at(t)), [0.5, 1.0]);
    }

    #[test]
    fn steps_that_are_out_of_order_neither_panic_nor_pass() {
        let disorder = PiecewiseLinear::new(0.0, [(5, 1.0), (3, 2.0), (9, 3.0)]);
        assert!(disorder.check().is_err());
        assert!((0..12).all(|t| disorder.at(t).is_finite()));
        assert!(PiecewiseConstant::new(0.0, [(3, 1.0), (3, 2.0)]).check().is_err());
    }
}
