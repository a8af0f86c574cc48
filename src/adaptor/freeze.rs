//! Parameters that do not move.

use super::{around, ask_inner};
use crate::error::Result;
use crate::optimizer::Optimizer;
use crate::pattern::{Pattern, Selection};
use crate::scalar::Scalar;
use crate::step::{Report, Step};

/// Keeps chosen parameters as they are: made by [`Optimizer::freeze`].
///
/// A frozen tensor has no state and costs no pass; clipping inside does not see its gradient. After
/// [`unfreeze`](Freeze::unfreeze) it begins with fresh state, at its own step 1, or goes on where it was frozen.
///
/// ```
/// use gradus::prelude::*;
/// use ndarray::array;
///
/// let mut opt = Sgd::new(1.0).freeze("0");
/// let mut w = (array![0.0], array![0.0]);
/// let grads = (array![1.0], array![1.0]);
/// opt.step(&mut w, &grads)?;
/// assert_eq!(w, (array![0.0], array![-1.0]));
/// opt.unfreeze("**");
/// opt.step(&mut w, &grads)?;
/// assert_eq!(w, (array![-1.0], array![-2.0]));
/// # Ok::<(), gradus::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Freeze<O> {
    inner: O,
    /// In the order given: the last that matches a tensor decides.
    changes: Vec<(Selection, bool)>,
}

around!(Freeze<O>);

impl<O> Freeze<O> {
    pub(crate) fn new(inner: O, pattern: impl Into<Pattern>) -> Self {
        Self { inner, changes: vec![(Selection::new(pattern), true)] }
    }

    /// Lets the tensors that the pattern chooses move again, from the next step on.
    ///
    /// A pattern without match is an error at that step.
    pub fn unfreeze(&mut self, pattern: impl Into<Pattern>) -> &mut Self {
        self.changes.push((Selection::new(pattern), false));
        self
    }

    /// Freezes the tensors that the pattern chooses, from the next step on.
    ///
    /// A pattern without match is an error at that step.
    pub fn refreeze(&mut self, pattern: impl Into<Pattern>) -> &mut Self {
        self.changes.push((Selection::new(pattern), true));
        self
    }
}

impl<A: Scalar, O: Optimizer<A>> Optimizer<A> for Freeze<O> {
    fn check(&self, step: &Step<'_, A>) -> Result<()> {
        self.changes.iter().try_for_each(|(selection, _)| selection.check(step.layout()))?;
        self.inner.check(step)
    }

    fn apply(&mut self, mut step: Step<'_, A>) -> Result<Report> {
        let mut frozen = vec![false; step.layout().len()];
        for (selection, freeze) in &mut self.changes {
            let chosen = selection.choose(step.layout())?;
            frozen.iter_mut().zip(chosen).filter(|(_, chosen)| **chosen).for_each(|(frozen, _)| *frozen = *freeze);
        }
        for (_, tensor) in step.iter_mut() {
            if frozen[tensor.index()] {
                tensor.grad = None;
            }
        }
        self.inner.apply(step)
    }

    ask_inner!();
}
