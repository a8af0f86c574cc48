//! An end of runs that skip every step.

use std::fmt;
use std::sync::Arc;

use super::Adaptor;
use crate::error::{Error, Result, StepError};
use crate::params::{Element, Layout};
use crate::state::{Commit, StateReader, StateWriter};
use crate::step::memo::Note;
use crate::step::{Optimizer, Report, Step};

/// Returns an error if more than a number of steps in a row are skipped. Created by [`GuardExt::max_skipped`](crate::GuardExt::max_skipped).
///
/// Without it, a run whose gradients stay NaN skips every step, and nobody notices. It counts the steps that the adaptors inside skip:
/// [`Report::skipped`](crate::Report::skipped). Every other call sets the count back to 0.
///
/// ```
/// use gradus::prelude::*;
/// use ndarray::array;
///
/// let mut opt = Sgd::new(1.0).skip_nonfinite().max_skipped(2);
/// let mut w = array![0.0];
/// for _ in 0..2 {
///     assert!(opt.step(&mut w, &array![f64::NAN])?.skipped);
/// }
/// let error = opt.step(&mut w, &array![f64::NAN]).unwrap_err();
/// assert_eq!(error.to_string(), "3 steps in a row are skipped, and max_skipped allows 2");
/// assert!(opt.step(&mut w, &array![1.0])?.moved);
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// # State
/// The number of steps in a row that were skipped.
///
/// # Order in the chain
/// Write it directly after the adaptor that skips, such as [`skip_nonfinite`](crate::GuardExt::skip_nonfinite),
/// [`loss_scaling`](crate::GuardExt::loss_scaling), [`skip_spikes`](crate::GuardExt::skip_spikes), clipping with the policy
/// [`NonFinite::Skip`](super::NonFinite::Skip), `data_parallel` or `sharded`. With `accumulate` between the two, a call that only gathers sets the
/// count back.
///
/// # Errors
/// [`StepError::TooManySkipped`], and nothing has changed: the next call may have a better gradient. If several ranks skip the step together, they find
/// out while they exchange gradients; the error then comes one call later, at the start of the call and on all ranks. To go on after it, call
/// [`reset`](MaxSkipped::reset).
///
/// # Conventions
/// optax's `apply_if_finite(opt, max_consecutive_errors)` counts in the same way, but *applies* the update that exceeds the limit, NaN included.
#[doc(alias = "apply_if_finite")]
#[must_use = "an adaptor does nothing until it is around an optimizer"]
#[derive(Clone)]
pub struct MaxSkipped {
    most: u64,
    in_a_row: u64,
}

impl MaxSkipped {
    /// Allows this number of skipped steps in a row. With 0, the first one is an error.
    pub fn new(most: u64) -> Self {
        Self { most, in_a_row: 0 }
    }

    /// The number of steps that were skipped since the last one that was not.
    pub fn in_a_row(&self) -> u64 {
        self.in_a_row
    }

    /// Sets that number to 0.
    pub fn reset(&mut self) {
        self.in_a_row = 0;
    }

    /// Returns an error if this step would be skipped, and is one too many.
    fn ensure_few<A: Element>(&self, step: &Step<'_, A>, inner: &dyn Optimizer<A>) -> Result<()> {
        if self.in_a_row < self.most {
            return Ok(());
        }
        let is_over = self.in_a_row > self.most;
        let next = || {
            let preview = step.preview_to_note();
            inner.check(&preview)?;
            Ok(preview.take_notes().iter().any(|(_, note)| *note == Note::Skipped))
        };
        if is_over || next()? {
            let skipped = if is_over { self.in_a_row } else { self.in_a_row.saturating_add(1) };
            return Err(Error::Step(StepError::TooManySkipped { skipped, allowed: self.most }));
        }
        Ok(())
    }
}

impl<A: Element> Adaptor<A> for MaxSkipped {
    fn check(&self, step: &Step<'_, A>, inner: &dyn Optimizer<A>) -> Result<()> {
        self.ensure_few(step, inner)?;
        inner.check(step)
    }

    fn apply(&mut self, step: Step<'_, A>, inner: &mut dyn Optimizer<A>) -> Result<Report> {
        self.ensure_few(&step, inner)?;
        let only_flushes = step.only_flushes();
        let report = inner.apply(step)?;
        self.in_a_row = match report.skipped {
            true => self.in_a_row.saturating_add(1),
            // A flush that had nothing to do says nothing about gradients.
            false if only_flushes && !report.moved => self.in_a_row,
            false => 0,
        };
        Ok(report)
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
        state.node("max_skipped").value("in_a_row", self.in_a_row);
    }

    fn read_state<'s>(&'s mut self, state: &mut StateReader<'_>) -> Result<Commit<'s>> {
        let count = state.node("max_skipped")?.value("in_a_row", "a count")?;
        Ok(Commit::new(move || self.in_a_row = count))
    }
}

impl fmt::Debug for MaxSkipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "max_skipped({})", self.most)
    }
}
