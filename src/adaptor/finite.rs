//! Errors and skipped steps for gradients that are not finite.

use std::fmt;
use std::sync::Arc;

use super::{Adaptor, NonFinite, Outcome, adapted};
use crate::error::Result;
use crate::params::{Element, Layout};
use crate::state::{Commit, StateReader, StateWriter};
use crate::step::{Optimizer, Report, Step};

/// Looks for NaN and infinities in the gradients, and returns an error or skips the step. Created by
/// [`GuardExt::check_finite`](crate::GuardExt::check_finite) and
/// [`GuardExt::skip_nonfinite`](crate::GuardExt::skip_nonfinite). It costs one read of the gradients.
///
/// ```
/// use gradus::prelude::*;
/// use ndarray::array;
///
/// let mut opt = Sgd::new(1.0).skip_nonfinite();
/// let mut w = array![0.0];
/// let report = opt.step(&mut w, &array![f64::NAN])?;
/// assert!(!report.moved && opt.skipped() == 1 && opt.steps() == 0);
///
/// let error = Sgd::new(1.0).check_finite().step(&mut w, &array![f64::NAN]).unwrap_err();
/// assert_eq!(error.to_string(), "gradient (root) is NaN at index [0]");
/// # Ok::<(), gradus::Error>(())
/// ```
#[derive(Clone)]
pub struct Finite {
    policy: NonFinite,
    skipped: u64,
    /// The parameters of a step that was skipped before the optimizer inside knew them.
    layout: Option<Arc<Layout>>,
}

impl Finite {
    /// Applies this policy.
    pub fn new(policy: NonFinite) -> Self {
        Self { policy, skipped: 0, layout: None }
    }

    /// The number of skipped steps.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    fn judge<A: Element>(&self, step: &Step<'_, A>) -> Result<Outcome> {
        let own = if step.are_finite() { 0.0 } else { f64::NAN };
        let largest = step.share().norm(own, f64::INFINITY)?;
        Ok(Outcome { grad_norm: None, ..self.policy.outcome(largest, step)? })
    }
}

impl<A: Element> Adaptor<A> for Finite {
    fn check(&self, step: &Step<'_, A>, inner: &dyn Optimizer<A>) -> Result<()> {
        adapted::check(step, inner, |step| self.judge(step))
    }

    fn apply(&mut self, step: Step<'_, A>, inner: &mut dyn Optimizer<A>) -> Result<Report> {
        let layout = Arc::clone(step.layout());
        let (report, outcome) = adapted::apply(step, inner, |step| self.judge(step))?;
        if outcome.skip {
            self.skipped = self.skipped.saturating_add(1);
            self.layout.get_or_insert(layout);
        }
        Ok(report)
    }

    fn describe(&self) -> String {
        format!("{self:?}")
    }

    fn moves_parameters(&self) -> bool {
        false
    }

    fn layout(&self) -> Option<&Arc<Layout>> {
        self.layout.as_ref()
    }

    fn write_state(&self, state: &mut StateWriter<'_>) {
        if self.policy == NonFinite::Skip {
            state.node("skip_nonfinite").value("skipped", self.skipped);
        }
    }

    fn read_state<'s>(&'s mut self, state: &mut StateReader<'_>) -> Result<Commit<'s>> {
        let count = match self.policy {
            NonFinite::Skip => state.node("skip_nonfinite")?.value("skipped", "a count")?,
            _ => self.skipped,
        };
        let read = state.layout().cloned();
        Ok(Commit::new(move || (self.skipped, self.layout) = (count, read)))
    }
}

impl fmt::Debug for Finite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.policy == NonFinite::Skip { "skip_nonfinite()" } else { "check_finite()" })
    }
}
