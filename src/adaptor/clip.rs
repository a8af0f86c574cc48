//! Clipping on the way in.

use std::sync::Arc;

use super::{NonFinite, Verdict, around, count_inner, skipped};
use crate::clip::{Adaptive, Clipper, Norm};
use crate::error::Result;
use crate::params::{Element, Layout};
use crate::schedule::Hyper;
use crate::state::{Commit, StateReader, StateWriter};
use crate::step::{Optimizer, Report, Step};

/// Clips gradients before the optimizer inside sees them: made by [`OptimizerExt::clip_global_norm`](crate::OptimizerExt::clip_global_norm) and its siblings.
///
/// Costs one read of the gradients, for the norm; the sweep applies the factor. The report's
/// [`grad_norm`](Report::grad_norm) is the norm before clipping.
///
/// ```
/// use gradus::prelude::*;
/// use ndarray::array;
///
/// let mut opt = Sgd::new(1.0).clip_global_norm(1.0).exact();
/// let mut w = array![0.0, 0.0];
/// let report = opt.step(&mut w, &array![30.0, -40.0])?;
/// assert_eq!(report.grad_norm, Some(50.0));
/// assert_eq!(w, array![-0.6, 0.8]);
/// # Ok::<(), gradus::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Clip<O, C> {
    inner: O,
    clipper: C,
    non_finite: NonFinite,
    /// The parameters of a step that was skipped before the optimizer inside knew them.
    layout: Option<Arc<Layout>>,
}

around!(Clip<O, C>);

impl<O, C> Clip<O, C> {
    pub(crate) fn new(inner: O, clipper: C) -> Self {
        Self { inner, clipper, non_finite: NonFinite::Error, layout: None }
    }

    /// What happens when the norm is NaN or infinite; an error unless this is called.
    pub fn non_finite(mut self, policy: NonFinite) -> Self {
        self.non_finite = policy;
        self
    }

    fn with(self, change: impl FnOnce(C) -> C) -> Self {
        Self { clipper: change(self.clipper), ..self }
    }
}

impl<O> Clip<O, Norm> {
    /// Takes the p-norm, 1 ≤ p ≤ ∞ (`f64::INFINITY`), instead of the Euclidean.
    pub fn p(self, p: f64) -> Self {
        self.with(|norm| norm.p(p))
    }

    /// Leaves norms up to the maximum alone and takes no ε: `g·c/‖g‖` if ‖g‖ > c.
    pub fn exact(self) -> Self {
        self.with(Norm::exact)
    }
}

impl<O> Clip<O, Adaptive> {
    /// The least parameter norm that a unit is taken to have, 1e-3 unless this is called.
    pub fn eps(self, eps: impl Into<Hyper>) -> Self {
        self.with(|adaptive| adaptive.eps(eps))
    }
}

impl<A: Element, O: Optimizer<A>, C: Clipper> Optimizer<A> for Clip<O, C> {
    fn check(&self, step: &Step<'_, A>) -> Result<()> {
        Layout::ensure_known(self.layout(), step.layout())?;
        let (norm, found) = self.clipper.measure(step, self.inner.steps())?;
        match self.non_finite.judge(norm.is_finite(), step)? {
            Verdict::Go => {
                let mut step = step.preview();
                self.clipper.mark(found, &mut step);
                self.inner.check(&step)
            }
            Verdict::Skip => Ok(()),
        }
    }

    fn apply(&mut self, mut step: Step<'_, A>) -> Result<Report> {
        step.ensure_writable()?;
        Layout::ensure_known(self.layout(), step.layout())?;
        let (norm, found) = self.clipper.measure(&step, self.inner.steps())?;
        match self.non_finite.judge(norm.is_finite(), &step)? {
            Verdict::Skip => {
                self.layout.get_or_insert_with(|| Arc::clone(step.layout()));
                return Ok(skipped(self.inner.learning_rate(), Some(norm)));
            }
            Verdict::Go => self.clipper.mark(found, &mut step),
        }
        Ok(Report { grad_norm: Some(norm), ..self.inner.apply(step)? })
    }

    count_inner!();

    fn layout(&self) -> Option<&Arc<Layout>> {
        self.inner.layout().or(self.layout.as_ref())
    }

    fn write_state(&self, state: &mut StateWriter<'_>) {
        self.inner.write_state(state);
    }

    fn read_state<'s>(&'s mut self, state: &mut StateReader<'_>) -> Result<Commit<'s>> {
        let read = state.layout().cloned();
        let Self { inner, layout, .. } = self;
        Ok(inner.read_state(state)?.and(Commit::new(move || *layout = read)))
    }
}
