//! Parameters that do not move.

use std::borrow::Cow;
use std::sync::Arc;

use super::{around, ask_inner};
use crate::error::Result;
use crate::optimizer::Optimizer;
use crate::params::Layout;
use crate::pattern::Pattern;
use crate::scalar::Element;
use crate::state::{Commit, StateReader, StateWriter};
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
    /// The layout, once there has been a step.
    layout: Option<Arc<Layout>>,
    /// Which of its tensors are frozen.
    frozen: Vec<bool>,
    /// What was asked for before that, in the order given; kept for a state from before the first step.
    waiting: Vec<(Pattern, bool)>,
}

around!(Freeze<O>);

impl<O> Freeze<O> {
    pub(crate) fn new(inner: O, pattern: impl Into<Pattern>) -> Self {
        Self { inner, layout: None, frozen: Vec::new(), waiting: vec![(pattern.into(), true)] }
    }

    /// Lets the tensors that the pattern chooses move again, from the next step on.
    ///
    /// # Errors
    /// [`Error::PatternUnmatched`](crate::Error::PatternUnmatched) and
    /// [`Error::PatternSyntax`](crate::Error::PatternSyntax); nothing has changed then. Before the first step the tensors
    /// are not known: then that step tells, and every attempt at it, until
    /// [`unfreeze_all`](Self::unfreeze_all) takes the wrong pattern back.
    pub fn unfreeze(&mut self, pattern: impl Into<Pattern>) -> Result<()> {
        self.change(pattern.into(), false)
    }

    /// Freezes the tensors that the pattern chooses, from the next step on.
    ///
    /// # Errors
    /// Those of [`unfreeze`](Self::unfreeze).
    pub fn refreeze(&mut self, pattern: impl Into<Pattern>) -> Result<()> {
        self.change(pattern.into(), true)
    }

    /// Lets every tensor move again, and forgets all patterns that still wait for the first step.
    pub fn unfreeze_all(&mut self) {
        self.waiting.clear();
        self.frozen.fill(false);
    }

    fn change(&mut self, pattern: Pattern, freeze: bool) -> Result<()> {
        match &self.layout {
            Some(layout) => return turn(&mut self.frozen, &pattern, freeze, layout),
            None => self.waiting.push((pattern, freeze)),
        }
        Ok(())
    }

    /// Which tensors of a step are frozen.
    fn frozen(&self, layout: &Arc<Layout>) -> Result<Cow<'_, [bool]>> {
        Layout::ensure_known(self.layout.as_ref(), layout)?;
        if self.layout.is_some() {
            return Ok(Cow::Borrowed(&self.frozen));
        }
        let mut frozen = vec![false; layout.len()];
        self.waiting.iter().try_for_each(|(pattern, freeze)| turn(&mut frozen, pattern, *freeze, layout))?;
        Ok(Cow::Owned(frozen))
    }
}

/// Freezes, or not, what the pattern chooses.
fn turn(frozen: &mut [bool], pattern: &Pattern, freeze: bool, layout: &Layout) -> Result<()> {
    let chosen = pattern.select(layout)?;
    frozen.iter_mut().zip(chosen).filter(|(_, chosen)| *chosen).for_each(|(frozen, _)| *frozen = freeze);
    Ok(())
}

/// Takes the gradients of frozen tensors away.
fn hide<A: Element>(frozen: &[bool], step: &mut Step<'_, A>) {
    step.iter_mut().filter(|(_, tensor)| frozen[tensor.index()]).for_each(|(_, tensor)| tensor.freeze());
}

impl<A: Element, O: Optimizer<A>> Optimizer<A> for Freeze<O> {
    fn check(&self, step: &Step<'_, A>) -> Result<()> {
        let frozen = self.frozen(step.layout())?;
        let mut step = step.preview();
        hide(&frozen, &mut step);
        self.inner.check(&step)
    }

    fn apply(&mut self, mut step: Step<'_, A>) -> Result<Report> {
        let layout = Arc::clone(step.layout());
        let frozen = self.frozen(&layout)?;
        hide(&frozen, &mut step);
        let fresh = if let Cow::Owned(frozen) = frozen { Some(frozen) } else { None };
        let report = self.inner.apply(step)?;
        // Not before: a step that was refused must not decide which parameters these are.
        if let Some(fresh) = fresh {
            self.frozen = fresh;
        }
        self.layout = Some(layout);
        Ok(report)
    }

    ask_inner!();

    fn write_state(&self, state: &mut StateWriter<'_>) {
        let mut node = state.node("freeze");
        node.value("known", self.layout.is_some());
        let tensors = self.layout.iter().flat_map(|layout| layout.tensors()).zip(&self.frozen);
        tensors.filter(|(_, frozen)| **frozen).for_each(|(info, _)| node.count("frozen", info, 1));
        self.inner.write_state(state);
    }

    fn read_state<'s>(&'s mut self, state: &mut StateReader<'_>) -> Result<Commit<'s>> {
        let node = state.node("freeze")?;
        let known = if node.value("known", "true or false")? { node.layout().cloned() } else { None };
        let is_frozen = |info| Ok(node.count("frozen", info)?.is_some());
        let read = node.tensors().iter().map(is_frozen).collect::<Result<Vec<_>>>()?;
        let Self { inner, frozen, layout, .. } = self;
        Ok(inner.read_state(state)?.and(Commit::new(move || (*frozen, *layout) = (read, known))))
    }
}
