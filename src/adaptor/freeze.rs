//! Parameters that do not move.

use super::{around, ask_inner};
use crate::error::Result;
use crate::optimizer::Optimizer;
use crate::pattern::{Pattern, Selection};
use crate::scalar::Element;
use crate::step::{Report, Step};

/// Keeps chosen parameters as they are: made by [`Optimizer::freeze`].
///
/// A frozen tensor has no state and costs no pass; clipping inside does not see its gradient. After
/// [`unfreeze`](Freeze::unfreeze) it begins with fresh state, at its own step 1, or goes on where it was frozen.
///
/// Write `freeze` last in a chain: so it is what `requires_grad = False` is elsewhere. A clip or a look for NaN outside it,
/// given later, still counts the gradients of frozen tensors. To reach `unfreeze` inside other adaptors, go through their
/// `inner_mut`; a boxed optimizer is frozen around the box.
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
/// opt.unfreeze("**")?;
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
    /// # Errors
    /// [`Error::PatternUnmatched`](crate::Error::PatternUnmatched) and
    /// [`Error::PatternSyntax`](crate::Error::PatternSyntax); nothing has changed then. Before the first step the tensors
    /// are not known, and that step tells.
    pub fn unfreeze(&mut self, pattern: impl Into<Pattern>) -> Result<()> {
        self.change(pattern, false)
    }

    /// Freezes the tensors that the pattern chooses, from the next step on.
    ///
    /// # Errors
    /// Those of [`unfreeze`](Self::unfreeze).
    pub fn refreeze(&mut self, pattern: impl Into<Pattern>) -> Result<()> {
        self.change(pattern, true)
    }

    fn change(&mut self, pattern: impl Into<Pattern>, freeze: bool) -> Result<()> {
        let selection = Selection::new(pattern);
        if let Some(layout) = self.changes.iter().find_map(|(selection, _)| selection.layout()) {
            selection.peek(layout)?;
        }
        self.changes.push((selection, freeze));
        Ok(())
    }

    /// Takes the gradients of frozen tensors away.
    fn hide<A: Element>(&self, step: &mut Step<'_, A>) -> Result<()> {
        let mut frozen = vec![false; step.layout().len()];
        for (selection, freeze) in &self.changes {
            let chosen = selection.peek(step.layout())?;
            frozen.iter_mut().zip(&*chosen).filter(|(_, chosen)| **chosen).for_each(|(frozen, _)| *frozen = *freeze);
        }
        for (_, tensor) in step.iter_mut() {
            if frozen[tensor.index()] {
                tensor.freeze();
            }
        }
        Ok(())
    }
}

impl<A: Element, O: Optimizer<A>> Optimizer<A> for Freeze<O> {
    fn check(&self, step: &Step<'_, A>) -> Result<()> {
        let mut step = step.preview();
        self.hide(&mut step)?;
        self.inner.check(&step)
    }

    fn apply(&mut self, mut step: Step<'_, A>) -> Result<Report> {
        for (selection, _) in &mut self.changes {
            selection.choose(step.layout())?;
        }
        self.hide(&mut step)?;
        self.inner.apply(step)
    }

    ask_inner!();
}
