//! Schedules: a hyper-parameter as a function of the step.
//!
//! Every hyper-parameter takes a number, a schedule of this module or a closure. The optimizer evaluates it at its own step counter. You
//! never step a scheduler, and to resume a schedule is to resume one integer.
//!
//! ```
//! use gradus::{Adam, Optimizer, schedule::{Cosine, ScheduleExt}};
//! use ndarray::array;
//!
//! let mut optimizer = Adam::new(Cosine::new(1e-3, 9_500).warmup_from(0.5, 500)).weight_decay(0.01);
//! let (mut weights, gradients) = (array![1.0_f32, 2.0], array![0.1_f32, -0.1]);
//! let report = optimizer.step(&mut weights, &gradients)?;
//! assert_eq!(report.learning_rate, 0.5e-3);
//! # Ok::<(), gradus::Error>(())
//! ```
//!
//! You can also evaluate a schedule yourself:
//!
//! ```
//! use gradus::schedule::{Cosine, Schedule, ScheduleExt};
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
//! - **The first step is step 0.** The optimizer uses `at(t)` for the step after `t` steps. PyTorch, Hugging Face and optax count the same way.
//! - **The end value is at step `steps`**, not at `steps − 1`. A run of exactly `steps` steps therefore ends just before the end value.
//!   PyTorch, Hugging Face and optax do the same. The exception is [`OneCycle`], as in PyTorch.
//! - **After its end, a schedule keeps its end value.** PyTorch's `CosineAnnealingLR` and Hugging Face's
//!   `get_cosine_schedule_with_warmup` rise again instead, and PyTorch's `OneCycleLR` raises an error.
//! - **A part of 0 steps is skipped.** A warm-up before a schedule of 0 steps rises to that schedule's first value, so
//!   `Cosine::new(lr, n - w).warmup(w)` is right for `w = n` too. If `w` may exceed `n`, write `n.saturating_sub(w)`.
//! - **Later parts count from 0.** The schedule after a [`warmup`](ScheduleExt::warmup) or a [`then`](ScheduleExt::then) starts at its own step 0,
//!   and its length does not include the earlier part.
//! - **A schedule can have any value.** The optimizer checks at every step that the value is in the hyper-parameter's range, for example not
//!   negative. [`check`](Schedule::check) reports invalid arguments of the schedule itself, before a step changes anything. If `check`
//!   returns an error, the value of `at` is unspecified, but `at` does not panic.
//!
//! # Names in other libraries
//! | PyTorch | here |
//! |---|---|
//! | `StepLR`, `MultiStepLR`, `ExponentialLR` | [`Step`], [`MultiStep`], [`Exponential`] |
//! | `ConstantLR`, `LinearLR`, `PolynomialLR` | [`PiecewiseConstant`], [`Linear`], [`Polynomial`] |
//! | `CosineAnnealingLR`, `CosineAnnealingWarmRestarts` | [`Cosine`], [`CosineRestarts`] |
//! | `OneCycleLR`, `CyclicLR` | [`OneCycle`], [`Cyclic`] |
//! | `ReduceLROnPlateau` | [`Plateau`] |
//! | `SequentialLR`, `ChainedScheduler`, `LambdaLR` | [`then`](ScheduleExt::then), [`times`](ScheduleExt::times), a closure |
//!
//! `ChainedScheduler` is a product only if all of its schedulers multiply the learning rate: `StepLR`, `MultiStepLR`, `ExponentialLR`,
//! `ConstantLR`, `LinearLR`, `PolynomialLR`, `MultiplicativeLR`, and `CosineAnnealingLR` with `eta_min=0`. With another `eta_min`,
//! `CosineAnnealingLR` pulls the current learning rate towards `eta_min`, which no schedule here does. The other schedulers (`LambdaLR`,
//! `CosineAnnealingWarmRestarts`, `OneCycleLR`, `CyclicLR`) overwrite the learning rate.
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
//! | `cosine_decay_schedule`, `warmup_cosine_decay_schedule` | [`Cosine`], with [`warmup_from`](ScheduleExt::warmup_from) |
//! | `exponential_decay`; its `end_value` and `transition_begin` | [`Exponential`], [`Step`]; [`clamp`](ScheduleExt::clamp) and [`delay`](ScheduleExt::delay) |
//! | `piecewise_constant_schedule` | [`PiecewiseConstant`] |
//! | `piecewise_interpolate_schedule`, `linear_onecycle_schedule`, `cosine_onecycle_schedule` | [`PiecewiseLinear`], [`PiecewiseCosine`] |
//! | `join_schedules`, `sgdr_schedule` | [`then`](ScheduleExt::then) |
//!
//! # Configuration files
//! With the feature `serde` a schedule can be read from a configuration file and written to one. The keys are the names of the constructor's
//! arguments and of the setters. Arguments with a default are optional, and an unknown key is an error. A count may be written as `1e4`, and
//! infinity as `"inf"`, because JSON has no number for it. Reading a file does not check ranges; [`check`](Schedule::check) and
//! the first step do.
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
//! | schedule | keys |
//! |---|---|
//! | combinators of one schedule | `inner`, and their arguments: `start_factor`, `steps`, `factor`, `min`, `max`, `steps_per_epoch` |
//! | [`then`](ScheduleExt::then), [`times`](ScheduleExt::times) | `first`, `at`, `next`; `left`, `right` |
//! | [`Cyclic`] | `height` for its modes: `"Same"`, `"Halved"` (triangular2) or `{"Power": gamma}` (exp_range) |
//! | [`PiecewiseConstant`], [`PiecewiseLinear`], [`PiecewiseCosine`] | `start`, and `points`, a list of `[step, value]` |
//! | [`Plateau`] | `threshold` for both of its thresholds: `{"Relative": 1e-4}` or `{"Absolute": 0.1}` |

mod anneal;
pub mod combinators;
mod cosine;
mod cyclic;
mod exponential;
mod ext;
mod half_life;
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
mod rex;
mod step;
mod warmup_stable_decay;

pub use anneal::Anneal;
pub use cosine::{Cosine, CosineRestarts};
pub use cyclic::Cyclic;
pub use exponential::Exponential;
pub use ext::ScheduleExt;
pub use half_life::HalfLife;
pub use hyper::Hyper;
pub use inverse_sqrt::InverseSqrt;
pub use linear::Linear;
pub use memory::{Memory, Remember};
pub use noam::Noam;
pub use one_cycle::OneCycle;
pub use piecewise::{PiecewiseConstant, PiecewiseCosine, PiecewiseLinear};
pub use plateau::{Plateau, PlateauState};
pub use polynomial::Polynomial;
pub use rex::Rex;
pub use step::{MultiStep, Step};
pub use warmup_stable_decay::WarmupStableDecay;

use std::fmt;

use crate::error::Result;

/// A hyper-parameter as a function of the step.
///
/// The schedules of this module, `f64` (the constant schedule) and closures `|step: u64| …` implement it. For a schedule of your own,
/// implement [`at`](Self::at), [`check`](Self::check) and [`memory`](Self::memory). The methods that combine schedules are those of
/// [`ScheduleExt`].
#[doc(alias("LRScheduler", "lr_scheduler", "LambdaLR"))]
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a number, a schedule or a closure that a hyper-parameter takes",
    label = "not an `f64`, a schedule or a closure `|step: u64| -> f64`",
    note = "write an integer with a decimal point, `1.0`; convert other numbers with `f64::from(x)`"
)]
#[must_use = "a schedule does nothing until an optimizer has it"]
pub trait Schedule: Send + Sync {
    /// The value at a step; the first is 0. It depends on the step and state alone.
    fn at(&self, step: u64) -> f64;

    /// The value that the schedule starts from. A [`warmup`](ScheduleExt::warmup) before it rises to this value, and a
    /// [`delay`](ScheduleExt::delay) holds it.
    ///
    /// This is `at(0)` unless a part of the schedule has 0 steps. For example, `Cosine::new(1.0, 0)` has ended at step 0, so `at(0)` is 0, but
    /// its first value is 1. A schedule made of others returns the first value of the first one.
    fn first_value(&self) -> f64 {
        self.at(0)
    }

    /// Returns an error unless the arguments of the schedule, and of the schedules that it is made of, are valid.
    ///
    /// # Errors
    /// [`StepError::Schedule`](crate::error::StepError::Schedule) with the schedule, the argument, its value and what is accepted.
    fn check(&self) -> Result<()>;

    /// The state of the schedule and of those that it is made of: [`Memory::none`] for a function of the step.
    ///
    /// An optimizer saves this state under the name of the hyper-parameter. Numbers and closures have no state. If a closure uses a
    /// [`Plateau`], the plateau's state is not saved.
    fn memory(&self) -> Memory<'_>;

    /// Writes the schedule in short form for `Debug`; the default is the name of its type.
    ///
    /// # Errors
    /// Those of the formatter.
    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = std::any::type_name::<Self>();
        let name = name.split('<').next().unwrap_or(name);
        f.write_str(name.rsplit("::").next().unwrap_or(name))
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
