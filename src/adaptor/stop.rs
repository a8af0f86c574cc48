//! A rule for when to stop training.

use std::fmt;
use std::sync::Arc;

use super::{Adapted, Adaptor};
use crate::error::{Error, Result, ensure_count};
use crate::params::{Element, Layout};
use crate::state::{Commit, StateReader, StateWriter};
use crate::step::{Optimizer, Report, Step, StopReason};

/// Reports when to stop: if the gradient is small, if the loss hardly changes, or if it has not fallen for some time. Created by
/// [`OptimizerExt::stop`](crate::OptimizerExt::stop).
///
/// Take steps with [`step_with_loss`](crate::StepExt::step_with_loss). The reason to stop is in the report, as
/// [`Report::stop`]. The step is taken all the same, so that the rule changes nothing else: for the parameters of the lowest loss, also use
/// [`keep_best`](crate::OptimizerExt::keep_best).
///
/// # Rule
/// With the loss L and the gradient g of the parameters before the step, and the loss L₋₁ of the call before:
/// ```text
/// GradNorm     ‖g‖₂ ≤ grad_norm                          all tensors together
/// LossChange   |L − L₋₁| ≤ relative_change·max(|L|, |L₋₁|)
/// Patience     L ≥ the lowest loss − min_delta           in `patience` calls in a row
/// ```
/// If several apply, the report has the first. A criterion that is not set does not apply. A loss that is NaN is not lower than another.
///
/// # Hyper-parameters
/// | name | default | range | meaning |
/// |---|---|---|---|
/// | [`grad_norm`](Adapted::grad_norm) | – | ≥ 0 | stops at a gradient of this norm |
/// | [`relative_change`](Adapted::relative_change) | – | ≥ 0 | stops if the loss changes by at most this fraction |
/// | [`patience`](Adapted::patience) | – | ≥ 1 | stops after this number of calls without a lower loss |
/// | [`min_delta`](Adapted::min_delta) | 0 | ≥ 0 | a loss is lower if it has fallen by more than this, for `patience` |
///
/// # State
/// The lowest loss, the last one, and the number of calls since the lowest one.
///
/// # Conventions
/// `patience` and `min_delta` are those of Keras's `EarlyStopping` and PyTorch Lightning's. `relative_change` is the `ftol` of scipy's solvers, which
/// also stop at an absolute change if the loss is below 1.
///
/// In a step without a loss, only `grad_norm` applies. The gradients are those that this adaptor sees: write it last for those that you pass.
/// `grad_norm` costs a read of the gradients. With [`accumulate`](crate::OptimizerExt::accumulate), write `stop` before it, and pass the loss of
/// the whole batch in the last call.
///
/// # Errors
/// [`ArgumentError::Range`](crate::error::ArgumentError::Range) and [`ArgumentError::Zero`](crate::error::ArgumentError::Zero) for the settings.
///
/// # Example
/// ```
/// use gradus::{StopReason, prelude::*};
///
/// let mut opt = Sgd::new(0.25).stop().relative_change(1e-6).patience(10);
/// let mut w = vec![4.0_f64];
/// let reason = loop {
///     let (loss, grads) = (w[0] * w[0] + 1.0, vec![2.0 * w[0]]);
///     if let Some(reason) = opt.step_with_loss(&mut w, &grads, loss)?.stop {
///         break reason;
///     }
/// };
/// assert!(reason == StopReason::LossChange && w[0] < 1e-3);
/// # Ok::<(), gradus::Error>(())
/// ```
#[doc(alias("EarlyStopping", "early stopping", "ftol", "gtol"))]
#[derive(Clone, PartialEq)]
pub struct Stop {
    grad_norm: Option<f64>,
    relative_change: Option<f64>,
    patience: Option<u64>,
    min_delta: f64,
    seen: Losses,
}

/// The losses so far.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Losses {
    lowest: f64,
    last: f64,
    /// Calls since the lowest.
    waited: u64,
}

impl Losses {
    const NONE: Self = Self { lowest: f64::INFINITY, last: f64::NAN, waited: 0 };

    /// The losses with one more; a loss is lower if it has fallen by more than this.
    fn with(self, loss: f64, min_delta: f64) -> Self {
        match loss < self.lowest - min_delta || (self.lowest == f64::INFINITY && loss < self.lowest) {
            true => Self { lowest: loss, last: loss, waited: 0 },
            false => Self { last: loss, waited: self.waited.saturating_add(1), ..self },
        }
    }
}

impl Default for Stop {
    fn default() -> Self {
        Self::new()
    }
}

impl Stop {
    /// A rule without criteria, which never stops.
    pub fn new() -> Self {
        Self { grad_norm: None, relative_change: None, patience: None, min_delta: 0.0, seen: Losses::NONE }
    }

    /// The number of steps in a row without a lower loss.
    pub fn waited(&self) -> u64 {
        self.seen.waited
    }

    fn check_own(&self) -> Result<()> {
        let given = [("grad_norm", self.grad_norm), ("relative_change", self.relative_change)];
        for (name, value) in given.into_iter().chain([("min_delta", Some(self.min_delta))]) {
            if let Some(value) = value.filter(|value| !(*value >= 0.0 && value.is_finite())) {
                return Err(Error::argument(name, value, "a finite number ≥ 0"));
            }
        }
        self.patience.map_or(Ok(()), |patience| ensure_count("patience", patience))
    }

    /// The first criterion that applies. `before` are the losses before this one, and `now` with it.
    fn reason(&self, norm: Option<f64>, before: Losses, now: Option<Losses>) -> Option<StopReason> {
        if self.grad_norm.zip(norm).is_some_and(|(most, norm)| norm <= most) {
            return Some(StopReason::GradNorm);
        }
        let now = now?;
        let is_near = |most: f64| (now.last - before.last).abs() <= most * now.last.abs().max(before.last.abs());
        if self.relative_change.is_some_and(is_near) {
            return Some(StopReason::LossChange);
        }
        self.patience.filter(|patience| now.waited >= *patience).map(|_| StopReason::Patience)
    }
}

impl<O> Adapted<O, Stop> {
    /// Stops if the norm of all gradients together is at most this.
    pub fn grad_norm(self, grad_norm: f64) -> Self {
        self.with(|stop| Stop { grad_norm: Some(grad_norm), ..stop })
    }

    /// Stops if the loss changes by at most this fraction of it between two steps.
    pub fn relative_change(self, relative_change: f64) -> Self {
        self.with(|stop| Stop { relative_change: Some(relative_change), ..stop })
    }

    /// Stops if the loss has not fallen below its lowest value in this number of steps in a row.
    pub fn patience(self, steps: u64) -> Self {
        self.with(|stop| Stop { patience: Some(steps), ..stop })
    }

    /// Sets by how much a loss must be lower to count, for [`patience`](Self::patience).
    pub fn min_delta(self, min_delta: f64) -> Self {
        self.with(|stop| Stop { min_delta, ..stop })
    }
}

impl<A: Element> Adaptor<A> for Stop {
    fn check(&self, step: &Step<'_, A>, inner: &dyn Optimizer<A>) -> Result<()> {
        self.check_own()?;
        inner.check(step)
    }

    fn apply(&mut self, step: Step<'_, A>, inner: &mut dyn Optimizer<A>) -> Result<Report> {
        self.check_own()?;
        let norm = if self.grad_norm.is_some() { Some(step.grad_norm(2.0)?) } else { None };
        let before = self.seen;
        let now = step.loss().map(|loss| before.with(loss, self.min_delta));
        let report = inner.apply(step)?;
        self.seen = now.unwrap_or(before);
        let stop = self.reason(norm, before, now).or(report.stop);
        Ok(Report { stop, grad_norm: norm.or(report.grad_norm), ..report })
    }

    fn describe(&self) -> String {
        format!("{self:?}")
    }

    fn moves_parameters(&self) -> bool {
        false
    }

    fn layout(&self) -> Option<&Arc<Layout>> {
        None
    }

    fn write_state(&self, state: &mut StateWriter<'_>) {
        let mut node = state.node("stop");
        node.value("lowest", self.seen.lowest);
        node.value("last", self.seen.last);
        node.value("waited", self.seen.waited);
    }

    fn read_state<'s>(&'s mut self, state: &mut StateReader<'_>) -> Result<Commit<'s>> {
        let node = state.node("stop")?;
        let lowest = node.value_where("lowest", "a number or infinity", |lowest: &f64| !lowest.is_nan())?;
        let read = Losses { lowest, last: node.value("last", "a number")?, waited: node.value("waited", "a count")? };
        Ok(Commit::new(move || self.seen = read))
    }
}

impl fmt::Debug for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("stop()")?;
        let given = [("grad_norm", self.grad_norm), ("relative_change", self.relative_change)];
        given
            .iter()
            .filter_map(|(name, value)| Some((name, (*value)?)))
            .try_for_each(|(n, v)| write!(f, ".{n}({v})"))?;
        self.patience.iter().try_for_each(|patience| write!(f, ".patience({patience})"))?;
        if self.min_delta == 0.0 { Ok(()) } else { write!(f, ".min_delta({})", self.min_delta) }
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use crate::error::{ArgumentError, Error};
    use crate::prelude::*;
    use crate::step::StopReason::{self, GradNorm, LossChange, Patience};

    /// The number of the call that stopped, and why.
    fn stops(mut opt: impl Optimizer<f64>, losses: &[f64], grads: &[f64]) -> Option<(usize, StopReason)> {
        let mut w = array![0.0];
        losses.iter().zip(grads).enumerate().find_map(|(call, (loss, grad))| {
            Some((call, opt.step_with_loss(&mut w, &array![*grad], *loss).unwrap().stop?))
        })
    }

    #[test]
    fn each_criterion() {
        let sgd = || Sgd::new(1.0);
        let (losses, grads) = ([4.0, 2.0, 1.5, 1.5, 1.75, 1.25, 1.25], [8.0, 4.0, 2.0, 1.0, 0.5, 0.25, 0.0]);
        assert_eq!(stops(sgd().stop(), &losses, &grads), None);
        assert_eq!(stops(sgd().stop().grad_norm(1.0), &losses, &grads), Some((3, GradNorm)));
        assert_eq!(stops(sgd().stop().grad_norm(0.0), &losses, &grads), Some((6, GradNorm)));
        assert_eq!(stops(sgd().stop().relative_change(0.0), &losses, &grads), Some((3, LossChange)));
        assert_eq!(stops(sgd().stop().relative_change(0.25), &losses, &grads), Some((2, LossChange))); // 0.5 of 2
        assert_eq!(stops(sgd().stop().relative_change(0.24), &losses, &grads), Some((3, LossChange)));
        assert_eq!(stops(sgd().stop().patience(1), &losses, &grads), Some((3, Patience)));
        assert_eq!(stops(sgd().stop().patience(2), &losses, &grads), Some((4, Patience)));
        assert_eq!(stops(sgd().stop().patience(3), &losses, &grads), None); // 1.25 is lower
        assert_eq!(stops(sgd().stop().patience(3).min_delta(0.25), &losses, &grads), Some((5, Patience)));
        assert_eq!(stops(sgd().stop().patience(3).min_delta(0.5), &losses, &grads), Some((4, Patience)));
        // The first of several, and the inner rule if the outer does not stop.
        assert_eq!(stops(sgd().stop().patience(1).grad_norm(1.0), &losses, &grads), Some((3, GradNorm)));
        assert_eq!(stops(sgd().stop().patience(1).stop().patience(9), &losses, &grads), Some((3, Patience)));
        let nothing = [f64::NAN; 3];
        assert_eq!(stops(sgd().stop().patience(3).relative_change(1.0), &nothing, &grads), Some((2, Patience)));
        assert_eq!(stops(sgd().stop().patience(2), &[f64::INFINITY, 1.0, 0.5], &grads), None);
    }

    #[test]
    fn the_step_is_the_same_and_has_a_norm() {
        let (mut opt, mut w) = (Sgd::new(0.5).stop().grad_norm(10.0), array![1.0, 2.0]);
        let report = opt.step(&mut w, &array![3.0, 4.0]).unwrap(); // without a loss
        assert_eq!((report.stop, report.grad_norm, report.moved), (Some(GradNorm), Some(5.0), true));
        assert_eq!(w, array![-0.5, 0.0]);
        assert_eq!(opt.waited(), 0);
    }

    #[test]
    fn an_error_counts_no_call() {
        let (mut opt, mut w) = (Sgd::new(0.5).check_finite().stop().patience(2), array![1.0]);
        opt.step_with_loss(&mut w, &array![0.0], 1.0).unwrap();
        opt.step_with_loss(&mut w, &array![0.0], 1.0).unwrap();
        let state = opt.state_dict();
        assert!(opt.step_with_loss(&mut w, &array![f64::NAN], 1.0).is_err());
        assert_eq!(opt.state_dict(), state);
        let mut resumed = Sgd::new(0.5).check_finite().stop().patience(2);
        resumed.load_state_dict(&state).unwrap();
        assert_eq!(resumed.step_with_loss(&mut w, &array![0.0], 1.0).unwrap().stop, Some(Patience));
    }

    #[test]
    fn settings_are_checked() {
        let error = |mut opt: Box<dyn Optimizer<f64>>| opt.step(&mut array![1.0], &array![1.0]).unwrap_err();
        for value in [-1.0, f64::NAN, f64::INFINITY] {
            for (opt, name) in [
                (Sgd::new(0.1).stop().grad_norm(value), "grad_norm"),
                (Sgd::new(0.1).stop().relative_change(value), "relative_change"),
                (Sgd::new(0.1).stop().min_delta(value), "min_delta"),
            ] {
                let error = error(Box::new(opt));
                let is_named =
                    matches!(&error, Error::Argument(ArgumentError::Range { argument, .. }) if *argument == name);
                assert!(is_named, "{error}");
            }
        }
        let zero = error(Box::new(Sgd::new(0.1).stop().patience(0)));
        assert_eq!(zero, Error::Argument(ArgumentError::Zero { argument: "patience" }));
        let opt = Sgd::<f64>::new(0.1).stop().patience(3).grad_norm(0.5).min_delta(0.25);
        assert_eq!(format!("{opt:?}"), "Sgd(learning_rate: 0.1).stop().grad_norm(0.5).patience(3).min_delta(0.25)");
    }
}
