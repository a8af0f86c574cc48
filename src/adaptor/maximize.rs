//! Ascent instead of descent.

use super::{around, ask_inner, state_of_inner};
use crate::error::Result;
use crate::params::Element;
use crate::step::{Optimizer, Report, Step};

/// Climbs the objective instead of descending it: made by [`OptimizerExt::maximize`](crate::OptimizerExt::maximize). The gradient changes its sign;
/// weight decay still pulls towards zero.
///
/// ```
/// use gradus::prelude::*;
/// use ndarray::array;
///
/// let mut opt = Sgd::new(0.5).maximize();
/// let mut w = array![0.0];
/// opt.step(&mut w, &array![1.0])?;
/// assert_eq!(w, array![0.5]);
/// # Ok::<(), gradus::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Maximize<O> {
    inner: O,
}

around!(Maximize<O>);

impl<O> Maximize<O> {
    pub(crate) fn new(inner: O) -> Self {
        Self { inner }
    }
}

fn negate<A: Element>(step: &mut Step<'_, A>) {
    step.iter_mut().filter_map(|(_, tensor)| tensor.grad.as_mut()).for_each(|grad| grad.scale_by(-1.0));
}

impl<A: Element, O: Optimizer<A>> Optimizer<A> for Maximize<O> {
    fn check(&self, step: &Step<'_, A>) -> Result<()> {
        let mut step = step.preview();
        negate(&mut step);
        self.inner.check(&step)
    }

    fn apply(&mut self, mut step: Step<'_, A>) -> Result<Report> {
        negate(&mut step);
        self.inner.apply(step)
    }

    ask_inner!();
    state_of_inner!();
}
