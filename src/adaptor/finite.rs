//! Refusing or skipping steps whose gradients are not finite.

use std::sync::Arc;

use super::{NonFinite, Verdict, around, count_inner, skipped};
use crate::error::Result;
use crate::params::{Element, Layout};
use crate::state::{Commit, StateReader, StateWriter};
use crate::step::{Optimizer, Report, Step, norm};

/// Looks for NaN and infinities before the optimizer inside sees the gradients: made by
/// [`OptimizerExt::check_finite`](crate::OptimizerExt::check_finite) and [`OptimizerExt::skip_nonfinite`](crate::OptimizerExt::skip_nonfinite). Costs one read of the gradients.
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
#[derive(Debug, Clone)]
pub struct Finite<O> {
    inner: O,
    policy: NonFinite,
    skipped: u64,
    /// The parameters of a step that was skipped before the optimizer inside knew them.
    layout: Option<Arc<Layout>>,
}

around!(Finite<O>);

impl<O> Finite<O> {
    pub(crate) fn new(inner: O, policy: NonFinite) -> Self {
        Self { inner, policy, skipped: 0, layout: None }
    }

    /// How many steps were skipped; it counts to `u64::MAX`.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    fn judge<A: Element>(&self, step: &Step<'_, A>) -> Result<Verdict>
    where
        O: Optimizer<A>,
    {
        Layout::ensure_known(self.layout(), step.layout())?;
        let finite = norm::all_finite(&step.grads().collect::<Vec<_>>());
        let largest = step.norm_of_all(if finite { 0.0 } else { f64::NAN }, f64::INFINITY)?;
        self.policy.judge(largest.is_finite(), step)
    }
}

impl<A: Element, O: Optimizer<A>> Optimizer<A> for Finite<O> {
    fn check(&self, step: &Step<'_, A>) -> Result<()> {
        match self.judge(step)? {
            Verdict::Go => self.inner.check(step),
            Verdict::Skip => Ok(()),
        }
    }

    fn apply(&mut self, step: Step<'_, A>) -> Result<Report> {
        step.ensure_writable()?;
        match self.judge(&step)? {
            Verdict::Go => self.inner.apply(step),
            Verdict::Skip => {
                self.skipped = self.skipped.saturating_add(1);
                self.layout.get_or_insert_with(|| Arc::clone(step.layout()));
                Ok(skipped(self.inner.learning_rate(), None))
            }
        }
    }

    count_inner!();

    fn layout(&self) -> Option<&Arc<Layout>> {
        self.inner.layout().or(self.layout.as_ref())
    }

    fn write_state(&self, state: &mut StateWriter<'_>) {
        if self.policy == NonFinite::Skip {
            state.node("skip_nonfinite").value("skipped", self.skipped);
        }
        self.inner.write_state(state);
    }

    fn read_state<'s>(&'s mut self, state: &mut StateReader<'_>) -> Result<Commit<'s>> {
        let count = match self.policy {
            NonFinite::Skip => state.node("skip_nonfinite")?.value("skipped", "a count")?,
            _ => self.skipped,
        };
        let read = state.layout().cloned();
        let Self { inner, skipped, layout, .. } = self;
        Ok(inner.read_state(state)?.and(Commit::new(move || (*skipped, *layout) = (count, read))))
    }
}
