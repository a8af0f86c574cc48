//! The methods that make schedules from schedules.

use super::Schedule;
use super::combinators::{Clamp, Cycle, Delay, PerEpoch, Scale, Then, Times, Warmup};

/// The methods that make a new schedule from another. Every [`Schedule`] has them, numbers and closures too: `0.1.warmup(10)`.
///
/// The exception is `clamp` of a number, which is `f64`'s own method: it returns a number, and panics if `min > max`.
pub trait ScheduleExt: Schedule + Sized {
    /// Rises linearly from 0 to this schedule's first value in `steps` steps, then starts this schedule.
    ///
    /// ```text
    /// t < steps   at(t) = first · t / steps              first = inner's first value
    /// otherwise   at(t) = inner(t − steps)
    /// ```
    /// The value is 0 at step 0, so the first step does not change the parameters, and `inner(0)` at step `steps`. Hugging Face's
    /// `get_…_with_warmup` and optax's `warmup_…_schedule` with `init_value=0` do the same, except that their length includes the warm-up:
    /// `Cosine::new(lr, 10_000).warmup(500)` ends at step 10,500, and `Cosine::new(lr, 9_500).warmup(500)` at step 10,000.
    ///
    /// PyTorch's `LinearLR` starts from a factor above 0; use [`warmup_from`](Self::warmup_from). For a warm-up of `n` steps by `(t + 1) / n`,
    /// which has no step with value 0, write `.warmup_from(1.0 / n, n - 1)`. To warm up *during* the schedule instead of before it, as
    /// PyTorch's `ChainedScheduler` does, write `.times(Linear::new(0.0, 1.0, n))`.
    ///
    /// ```
    /// use gradus::schedule::{Linear, Schedule, ScheduleExt};
    ///
    /// let schedule = Linear::new(0.5, 0.0, 10).warmup(4);
    /// assert_eq!([0, 2, 4, 9, 14].map(|t| schedule.at(t)), [0.0, 0.25, 0.5, 0.25, 0.0]);
    /// ```
    ///
    /// P. Goyal et al., *Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour*, 2017, [arXiv:1706.02677](https://arxiv.org/abs/1706.02677), sec. 2.2.
    fn warmup(self, steps: u64) -> Warmup<Self> {
        self.warmup_from(0.0, steps)
    }

    /// Rises linearly from a fraction of this schedule's first value to all of it in `steps` steps, then starts this schedule.
    ///
    /// ```text
    /// t < steps   at(t) = first · (start_factor + (1 − start_factor) · t / steps)       first = inner's first value
    /// otherwise   at(t) = inner(t − steps)
    /// ```
    /// PyTorch: `SequentialLR([LinearLR(start_factor, total_iters=steps), inner], [steps])`; optax:
    /// `warmup_cosine_decay_schedule` with `init_value = start_factor · peak_value`.
    ///
    /// ```
    /// use gradus::schedule::{Schedule, ScheduleExt};
    ///
    /// let schedule = 0.5.warmup_from(0.5, 10);
    /// assert_eq!([0, 5, 10, 11].map(|t| schedule.at(t)), [0.25, 0.375, 0.5, 0.5]);
    /// ```
    fn warmup_from(self, start_factor: f64, steps: u64) -> Warmup<Self> {
        Warmup { inner: self, start_factor, steps }
    }

    /// This schedule before step `at`, and `next` from step `at` on. `next` starts at its own step 0.
    ///
    /// PyTorch: `SequentialLR([self, next], [at])`; optax: `join_schedules`.
    ///
    /// ```
    /// use gradus::schedule::{Linear, Schedule, ScheduleExt};
    ///
    /// let schedule = 0.5.then(100, Linear::new(0.5, 0.25, 10));
    /// assert_eq!([0, 99, 100, 105, 110].map(|t| schedule.at(t)), [0.5, 0.5, 0.5, 0.375, 0.25]);
    /// ```
    #[doc(alias("SequentialLR", "join_schedules"))]
    fn then<T: Schedule>(self, at: u64, next: T) -> Then<Self, T> {
        Then { first: self, at, next }
    }

    /// This schedule times a number.
    ///
    /// ```
    /// use gradus::schedule::{Noam, Schedule, ScheduleExt};
    ///
    /// assert_eq!(Noam::new(256, 16).scale(2.0).at(15), 1.0 / 32.0);
    /// ```
    fn scale(self, factor: f64) -> Scale<Self> {
        Scale { inner: self, factor }
    }

    /// The product of this schedule and another, both at the same step.
    ///
    /// ```
    /// use gradus::schedule::{Linear, Schedule, ScheduleExt, Step};
    ///
    /// let schedule = Step::new(1.0, 10, 0.5).times(Linear::new(0.0, 1.0, 20));
    /// assert_eq!([0, 5, 10, 20].map(|t| schedule.at(t)), [0.0, 0.25, 0.25, 0.25]);
    /// ```
    #[doc(alias("ChainedScheduler", "MultiplicativeLR"))]
    fn times<T: Schedule>(self, other: T) -> Times<Self, T> {
        Times { left: self, right: other }
    }

    /// This schedule, limited to `min` … `max`. Infinite bounds do nothing; NaN stays NaN.
    ///
    /// ```
    /// use gradus::schedule::{Exponential, Schedule, ScheduleExt};
    ///
    /// let schedule = Exponential::new(1.0, 0.5).clamp(0.2, f64::INFINITY);
    /// assert_eq!([0, 1, 2, 3, 4].map(|t| schedule.at(t)), [1.0, 0.5, 0.25, 0.2, 0.2]);
    /// ```
    fn clamp(self, min: f64, max: f64) -> Clamp<Self> {
        Clamp { inner: self, min, max }
    }

    /// Holds this schedule's first value for `steps` steps, then starts it. This is optax's `transition_begin`.
    ///
    /// ```
    /// use gradus::schedule::{Exponential, Schedule, ScheduleExt};
    ///
    /// let schedule = Exponential::new(1.0, 0.5).delay(10);
    /// assert_eq!([0, 10, 11, 12].map(|t| schedule.at(t)), [1.0, 1.0, 0.5, 0.25]);
    /// ```
    fn delay(self, steps: u64) -> Delay<Self> {
        Delay { inner: self, steps }
    }

    /// Repeats steps 0 to `steps − 1` of this schedule; `steps` is at least 1.
    ///
    /// ```
    /// use gradus::schedule::{Linear, Schedule, ScheduleExt};
    ///
    /// let schedule = Linear::new(1.0, 0.0, 4).cycle(4);
    /// assert_eq!([0, 1, 2, 3, 4, 5].map(|t| schedule.at(t)), [1.0, 0.75, 0.5, 0.25, 1.0, 0.75]);
    /// ```
    fn cycle(self, steps: u64) -> Cycle<Self> {
        Cycle { inner: self, steps }
    }

    /// Converts a schedule of epochs to one of steps: it advances by one every `steps_per_epoch` ≥ 1 steps.
    ///
    /// In PyTorch, this is calling `scheduler.step()` once per epoch.
    ///
    /// ```
    /// use gradus::schedule::{MultiStep, Schedule, ScheduleExt};
    ///
    /// let schedule = MultiStep::new(1.0, [30, 80], 0.5).per_epoch(391);
    /// assert_eq!([0, 30 * 391 - 1, 30 * 391, 80 * 391].map(|t| schedule.at(t)), [1.0, 1.0, 0.5, 0.25]);
    /// ```
    fn per_epoch(self, steps_per_epoch: u64) -> PerEpoch<Self> {
        PerEpoch { inner: self, steps_per_epoch }
    }
}

impl<S: Schedule> ScheduleExt for S {}

#[cfg(test)]
mod tests {
    use crate::schedule::{Cosine, Hyper, Linear, PiecewiseLinear, Plateau, Schedule, ScheduleExt};

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
        assert_eq!(
            format!("{:?}", Hyper::from(Plateau::new(0.1).maximize(true))),
            "Plateau(start: 0.1, maximize: true)"
        );
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
