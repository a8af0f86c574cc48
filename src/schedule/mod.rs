//! Schedules: a hyper-parameter as a pure function of the step.
//!
//! Wherever a hyper-parameter is set, a number, a schedule of this module or a closure will do. The optimizer evaluates
//! it at its own step counter, so there is nothing to call once a step, and resuming is resuming one integer.
//!
//! ```
//! use gradus::{Adam, Optimizer, schedule::{Cosine, Schedule}};
//! use ndarray::array;
//!
//! let mut optimizer = Adam::new(Cosine::new(1e-3, 9_500).warmup_from(0.5, 500)).weight_decay(0.01);
//! let (mut weights, gradients) = (array![1.0_f32, 2.0], array![0.1_f32, -0.1]);
//! let report = optimizer.step(&mut weights, &gradients)?;
//! assert_eq!(report.learning_rate, 0.5e-3);
//! # Ok::<(), gradus::Error>(())
//! ```
//!
//! A schedule can also be asked by itself.
//!
//! ```
//! use gradus::schedule::{Cosine, Schedule};
//!
//! let schedule = Cosine::new(1e-3, 9_500).floor(1e-5).warmup(500);
//! assert_eq!(schedule.at(0), 0.0);
//! assert_eq!(schedule.at(500), 1e-3);
//! assert_eq!(schedule.at(10_000), 1e-5);
//!
//! let halves = |step: u64| 0.1 * 0.5_f64.powf(step as f64 / 1000.0);
//! assert_eq!(halves.at(1000), 0.05);
//! assert_eq!(halves.warmup(10).at(5), 0.05);
//! ```
//!
//! # Conventions
//! - **Step 0 is the first.** `at(t)` is in force for the optimizer step that `t` steps came before. PyTorch's
//!   schedulers, Hugging Face's and optax's count the same way.
//! - **The end value is at step `steps`**, not at `steps − 1`: in a run of exactly `steps` steps the last one is taken
//!   just before the end value. So it is in PyTorch, Hugging Face and optax too. The one exception is
//!   [`OneCycle`], as in PyTorch.
//! - **Beyond its end a schedule keeps its end value.** PyTorch's `CosineAnnealingLR` and Hugging Face's
//!   `get_cosine_schedule_with_warmup` rise again instead, and PyTorch's `OneCycleLR` raises an error.
//! - **A part of 0 steps is over at once.** A warm-up before it rises to the value that it would have begun with, so
//!   `Cosine::new(lr, n - w).warmup(w)` is right for `w = n`, too. Where `w` may exceed `n`, write `n.saturating_sub(w)`.
//! - **Combinators shift the step.** What follows a [`warmup`](Schedule::warmup) or comes
//!   [`then`](Schedule::then) begins at its own step 0; its length does not include what came before.
//! - **A schedule is any number.** Whether it may be negative, say, is checked by the optimizer's setter, at every step.
//!   What is wrong with the schedule itself, [`check`](Schedule::check) tells the optimizer, before a step changes
//!   anything. What `at` returns for arguments that `check` refuses is not specified, except that it does not panic.
//!
//! # Which one is it?
//! | PyTorch | here |
//! |---|---|
//! | `StepLR`, `MultiStepLR`, `ExponentialLR` | [`Step`], [`MultiStep`], [`Exponential`] |
//! | `ConstantLR`, `LinearLR`, `PolynomialLR` | [`PiecewiseConstant`], [`Linear`], [`Polynomial`] |
//! | `CosineAnnealingLR`, `CosineAnnealingWarmRestarts` | [`Cosine`], [`CosineRestarts`] |
//! | `OneCycleLR`, `CyclicLR` | [`OneCycle`], [`Cyclic`] |
//! | `ReduceLROnPlateau` | [`Plateau`] |
//! | `SequentialLR`, `ChainedScheduler`, `LambdaLR` | [`then`](Schedule::then), [`times`](Schedule::times), a closure |
//!
//! `ChainedScheduler` is a product only of schedulers that multiply what they find: `StepLR`, `MultiStepLR`,
//! `ExponentialLR`, `ConstantLR`, `LinearLR`, `PolynomialLR`, `MultiplicativeLR`, and `CosineAnnealingLR` with `eta_min=0`. With
//! another `eta_min` the recursion of `CosineAnnealingLR` pulls what it finds towards that, which no schedule here does;
//! the others (`LambdaLR`, `CosineAnnealingWarmRestarts`, `OneCycleLR`, `CyclicLR`) overwrite what came before.
//!
//! | Hugging Face `get_…_schedule…`, `n` training steps of which `w` warm up | here |
//! |---|---|
//! | `constant_…_with_warmup` | `lr.warmup(w)` |
//! | `linear_…_with_warmup` | `Linear::new(lr, 0.0, n - w).warmup(w)` |
//! | `cosine_…_with_warmup` | `Cosine::new(lr, n - w).warmup(w)`; its `num_cycles`: [`.waves(c)`](Cosine::waves) before the warm-up |
//! | `cosine_with_hard_restarts_…_with_warmup` | `Cosine::new(lr, n - w).cycles(num_cycles).warmup(w)` |
//! | `polynomial_decay_…_with_warmup` | `Polynomial::new(lr, n - w).power(p).floor(1e-7).warmup(w)` |
//! | `inverse_sqrt_…` | `InverseSqrt::new(lr, timescale).warmup(w)` |
//! | `wsd_…` | [`WarmupStableDecay`] |
//!
//! | optax | here |
//! |---|---|
//! | `constant_schedule`, `linear_schedule`, `polynomial_schedule` | a number, [`Linear`], [`Polynomial`] |
//! | `cosine_decay_schedule`, `warmup_cosine_decay_schedule` | [`Cosine`], with [`warmup_from`](Schedule::warmup_from) |
//! | `exponential_decay`; its `end_value` and `transition_begin` | [`Exponential`], [`Step`]; [`clamp`](Schedule::clamp) and [`delay`](Schedule::delay) |
//! | `piecewise_constant_schedule` | [`PiecewiseConstant`] |
//! | `piecewise_interpolate_schedule`, `linear_onecycle_schedule`, `cosine_onecycle_schedule` | [`PiecewiseLinear`], [`PiecewiseCosine`] |
//! | `join_schedules`, `sgdr_schedule` | [`then`](Schedule::then) |
//!
//! # In a file
//! With the feature `serde` a schedule is read from a configuration file and written to one. The keys are the names of the
//! arguments and of the methods that set them. What has a default may be left out; a key that the schedule does not have is an error
//! that names it. A count may be written `1e4`, and infinity is `"inf"`, as JSON has no number for it. Whether a value is in its
//! range is not looked at when it is read, but by [`check`](Schedule::check) and at the optimizer's first step.
//!
//! ```
//! # #[cfg(feature = "serde")] {
//! use gradus::schedule::{Cosine, Schedule, combinators::{Clamp, Warmup}};
//!
//! let text = r#"{"inner": {"inner": {"peak": 1e-3, "steps": 9.5e3}, "steps": 500}, "min": 1e-5}"#;
//! let schedule: Clamp<Warmup<Cosine>> = serde_json::from_str(text)?;
//! assert_eq!([0, 500, 20_000].map(|t| schedule.at(t)), [1e-5, 1e-3, 1e-5]);
//!
//! let error = serde_json::from_str::<Cosine>(r#"{"peak": 1e-3, "steps": 9500, "flor": 1e-5}"#).unwrap_err();
//! assert!(error.to_string().starts_with("unknown field `flor`, expected one of `peak`, `steps`, `floor`"));
//! # }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//! | what | keys |
//! |---|---|
//! | the combinators of one schedule | `inner`, beside their arguments: `start_factor`, `steps`, `factor`, `min`, `max`, `steps_per_epoch` |
//! | [`then`](Schedule::then), [`times`](Schedule::times) | `first`, `at`, `next`; `left`, `right` |
//! | [`Cyclic`] | `height` for its modes: `"Same"`, `"Halved"` (triangular2) or `{"Power": gamma}` (exp_range) |
//! | [`PiecewiseConstant`], [`PiecewiseLinear`], [`PiecewiseCosine`] | `start`, and `points`, a list of `[step, value]` |
//! | [`Plateau`] | `threshold` for both of its thresholds: `{"Relative": 1e-4}` or `{"Absolute": 0.1}` |

mod anneal;
pub mod combinators;
mod cosine;
mod cyclic;
mod exponential;
mod hyper;
mod inverse_sqrt;
pub(crate) mod line;
mod linear;
mod memory;
mod noam;
#[cfg(feature = "serde")]
mod number;
mod one_cycle;
mod piecewise;
mod plateau;
mod polynomial;
mod step;
mod warmup_stable_decay;

pub use anneal::Anneal;
pub use cosine::{Cosine, CosineRestarts};
pub use cyclic::Cyclic;
pub use exponential::Exponential;
pub use hyper::Hyper;
pub use inverse_sqrt::InverseSqrt;
pub use linear::Linear;
pub use memory::{Memory, Remember};
pub use noam::Noam;
pub use one_cycle::OneCycle;
pub use piecewise::{PiecewiseConstant, PiecewiseCosine, PiecewiseLinear};
pub use plateau::{Plateau, PlateauState};
pub use polynomial::Polynomial;
pub use step::{MultiStep, Step};
pub use warmup_stable_decay::WarmupStableDecay;

use std::fmt;

use crate::error::Result;
use combinators::{Clamp, Cycle, Delay, PerEpoch, Scale, Then, Times, Warmup};

/// A hyper-parameter as a pure function of the step.
///
/// Implemented by the schedules of this module, by `f64`, the constant schedule, and by closures `|step: u64| …`. To
/// write another, implement [`at`](Self::at), [`check`](Self::check) and [`memory`](Self::memory).
///
/// The other methods make a schedule from this one, numbers included: `0.1.warmup(10)`. Only `clamp` of a number is
/// `f64`'s own, whose result is a number: the same schedule, but it panics if `min > max`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a number, a schedule or a closure that a hyper-parameter takes",
    label = "not an `f64`, a schedule or a closure `|step: u64| -> f64`",
    note = "write an integer with a decimal point, `1.0`; convert other numbers with `f64::from(x)`"
)]
pub trait Schedule: Send + Sync {
    /// The value at a step; 0 is the first. The same step gives the same value, in whatever order it is asked for.
    fn at(&self, step: u64) -> f64;

    /// The value that the schedule sets out from: what a [`warmup`](Self::warmup) before it rises to and a
    /// [`delay`](Self::delay) holds.
    ///
    /// This is `at(0)` unless a part of the schedule has 0 steps. `Cosine::new(1.0, 0)` is 0 at step 0, where it is
    /// already over, but its first value is 1. So `Cosine::new(1.0, n - w).warmup(w)` is right for `w = n` too. A schedule that
    /// is made of others passes this on to the first of them.
    fn first_value(&self) -> f64 {
        self.at(0)
    }

    /// Returns an error unless the schedule's own arguments make sense, and those of the schedules that it is made of.
    ///
    /// # Errors
    /// [`StepError::Schedule`](crate::error::StepError::Schedule) with the schedule, the argument, its value and what is accepted.
    fn check(&self) -> Result<()>;

    /// The state of the schedule and of those that it is made of: [`Memory::none`] for a function of the step.
    ///
    /// An optimizer saves this state under the name of the hyper-parameter. Numbers and closures have none; a closure that asks a
    /// [`Plateau`] loses what that has seen when it is saved.
    fn memory(&self) -> Memory<'_>;

    /// Writes the schedule as a person would: the name of its type by default.
    ///
    /// # Errors
    /// Those of the formatter.
    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = std::any::type_name::<Self>();
        let name = name.split('<').next().unwrap_or(name);
        f.write_str(name.rsplit("::").next().unwrap_or(name))
    }

    /// Rises in a straight line from 0 to this schedule's first value in `steps` steps, then begins this schedule.
    ///
    /// ```text
    /// t < steps   at(t) = first · t / steps              first = inner's first value
    /// otherwise   at(t) = inner(t − steps)
    /// ```
    /// The value is 0 at step 0, so the first step moves nothing, and `inner(0)` at step `steps`. This is the convention
    /// of Hugging Face's `get_…_with_warmup` and of optax's `warmup_…_schedule` with `init_value=0`, but for the length:
    /// theirs includes the warm-up. `Cosine::new(lr, 10_000).warmup(500)` ends at step 10 500,
    /// `Cosine::new(lr, 9_500).warmup(500)` at step 10 000.
    ///
    /// PyTorch's `LinearLR` starts from a factor above 0, which is [`warmup_from`](Self::warmup_from). For a warm-up of
    /// `n` steps by `(t + 1) / n`, of which none is lost, write `.warmup_from(1.0 / n, n - 1)`. To warm up *during* the
    /// schedule rather than before it, as PyTorch's `ChainedScheduler` does, write `.times(Linear::new(0.0, 1.0, n))`.
    ///
    /// ```
    /// use gradus::schedule::{Linear, Schedule};
    ///
    /// let schedule = Linear::new(0.5, 0.0, 10).warmup(4);
    /// assert_eq!([0, 2, 4, 9, 14].map(|t| schedule.at(t)), [0.0, 0.25, 0.5, 0.25, 0.0]);
    /// ```
    ///
    /// P. Goyal et al., *Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour*, 2017, arXiv:1706.02677, sec. 2.2.
    fn warmup(self, steps: u64) -> Warmup<Self>
    where
        Self: Sized,
    {
        self.warmup_from(0.0, steps)
    }

    /// Rises in a straight line from a part of this schedule's first value in `steps` steps, then begins this schedule.
    ///
    /// ```text
    /// t < steps   at(t) = first · (start_factor + (1 − start_factor) · t / steps)       first = inner's first value
    /// otherwise   at(t) = inner(t − steps)
    /// ```
    /// PyTorch's `SequentialLR([LinearLR(start_factor, total_iters=steps), inner], [steps])`, and optax's
    /// `warmup_cosine_decay_schedule` with `init_value = start_factor · peak_value`.
    ///
    /// ```
    /// use gradus::schedule::Schedule;
    ///
    /// let schedule = 0.5.warmup_from(0.5, 10);
    /// assert_eq!([0, 5, 10, 11].map(|t| schedule.at(t)), [0.25, 0.375, 0.5, 0.5]);
    /// ```
    fn warmup_from(self, start_factor: f64, steps: u64) -> Warmup<Self>
    where
        Self: Sized,
    {
        Warmup { inner: self, start_factor, steps }
    }

    /// This schedule before step `at`, and `next`, from its own step 0, from there on.
    ///
    /// PyTorch's `SequentialLR([self, next], [at])` and optax's `join_schedules`.
    ///
    /// ```
    /// use gradus::schedule::{Linear, Schedule};
    ///
    /// let schedule = 0.5.then(100, Linear::new(0.5, 0.25, 10));
    /// assert_eq!([0, 99, 100, 105, 110].map(|t| schedule.at(t)), [0.5, 0.5, 0.5, 0.375, 0.25]);
    /// ```
    fn then<T: Schedule>(self, at: u64, next: T) -> Then<Self, T>
    where
        Self: Sized,
    {
        Then { first: self, at, next }
    }

    /// This schedule times a number.
    ///
    /// ```
    /// use gradus::schedule::{Noam, Schedule};
    ///
    /// assert_eq!(Noam::new(256, 16).scale(2.0).at(15), 1.0 / 32.0);
    /// ```
    fn scale(self, factor: f64) -> Scale<Self>
    where
        Self: Sized,
    {
        Scale { inner: self, factor }
    }

    /// The product of this schedule and another, both at the same step.
    ///
    /// ```
    /// use gradus::schedule::{Linear, Schedule, Step};
    ///
    /// let schedule = Step::new(1.0, 10, 0.5).times(Linear::new(0.0, 1.0, 20));
    /// assert_eq!([0, 5, 10, 20].map(|t| schedule.at(t)), [0.0, 0.25, 0.25, 0.25]);
    /// ```
    fn times<T: Schedule>(self, other: T) -> Times<Self, T>
    where
        Self: Sized,
    {
        Times { left: self, right: other }
    }

    /// This schedule, but never below `min` nor above `max`; infinities are no bound. NaN stays NaN.
    ///
    /// ```
    /// use gradus::schedule::{Exponential, Schedule};
    ///
    /// let schedule = Exponential::new(1.0, 0.5).clamp(0.2, f64::INFINITY);
    /// assert_eq!([0, 1, 2, 3, 4].map(|t| schedule.at(t)), [1.0, 0.5, 0.25, 0.2, 0.2]);
    /// ```
    fn clamp(self, min: f64, max: f64) -> Clamp<Self>
    where
        Self: Sized,
    {
        Clamp { inner: self, min, max }
    }

    /// Holds this schedule's first value for `steps` steps, then begins it. optax's `transition_begin`.
    ///
    /// ```
    /// use gradus::schedule::{Exponential, Schedule};
    ///
    /// let schedule = Exponential::new(1.0, 0.5).delay(10);
    /// assert_eq!([0, 10, 11, 12].map(|t| schedule.at(t)), [1.0, 1.0, 0.5, 0.25]);
    /// ```
    fn delay(self, steps: u64) -> Delay<Self>
    where
        Self: Sized,
    {
        Delay { inner: self, steps }
    }

    /// Begins this schedule again every `steps` steps, at least 1: steps 0 to `steps − 1`, over and over.
    ///
    /// ```
    /// use gradus::schedule::{Linear, Schedule};
    ///
    /// let schedule = Linear::new(1.0, 0.0, 4).cycle(4);
    /// assert_eq!([0, 1, 2, 3, 4, 5].map(|t| schedule.at(t)), [1.0, 0.75, 0.5, 0.25, 1.0, 0.75]);
    /// ```
    fn cycle(self, steps: u64) -> Cycle<Self>
    where
        Self: Sized,
    {
        Cycle { inner: self, steps }
    }

    /// Makes a schedule of epochs one of steps: it goes on by one every `steps_per_epoch` steps, at least 1.
    ///
    /// In PyTorch: calling `scheduler.step()` once an epoch.
    ///
    /// ```
    /// use gradus::schedule::{MultiStep, Schedule};
    ///
    /// let schedule = MultiStep::new(1.0, [30, 80], 0.5).per_epoch(391);
    /// assert_eq!([0, 30 * 391 - 1, 30 * 391, 80 * 391].map(|t| schedule.at(t)), [1.0, 1.0, 0.5, 0.25]);
    /// ```
    fn per_epoch(self, steps_per_epoch: u64) -> PerEpoch<Self>
    where
        Self: Sized,
    {
        PerEpoch { inner: self, steps_per_epoch }
    }
}

/// The rest of `impl Schedule` for a function of the step with a `Debug` of its own.
macro_rules! function_of_the_step {
    () => {
        fn memory(&self) -> $crate::schedule::Memory<'_> {
            $crate::schedule::Memory::none()
        }

        fn describe(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            std::fmt::Debug::fmt(self, f)
        }
    };
}

use function_of_the_step;

impl Schedule for f64 {
    fn at(&self, _: u64) -> f64 {
        *self
    }

    fn check(&self) -> Result<()> {
        Ok(())
    }

    fn memory(&self) -> Memory<'_> {
        Memory::none()
    }

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&line::short(self))
    }
}

#[diagnostic::do_not_recommend]
impl<F: Fn(u64) -> f64 + Send + Sync> Schedule for F {
    fn at(&self, step: u64) -> f64 {
        self(step)
    }

    fn check(&self) -> Result<()> {
        Ok(())
    }

    fn memory(&self) -> Memory<'_> {
        Memory::none()
    }

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("closure")
    }
}

impl Schedule for Box<dyn Schedule> {
    fn at(&self, step: u64) -> f64 {
        (**self).at(step)
    }

    fn first_value(&self) -> f64 {
        (**self).first_value()
    }

    fn check(&self) -> Result<()> {
        (**self).check()
    }

    fn memory(&self) -> Memory<'_> {
        (**self).memory()
    }

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).describe(f)
    }
}
