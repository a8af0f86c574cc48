//! Freezing: parameters that do not move.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use super::{Adapted, Adaptor, Outcome, adapted};
use crate::error::{Error, Name, Result, StateError};
use crate::params::{Element, Layout, Pattern};
use crate::state::{Commit, StateReader, StateWriter};
use crate::step::{Optimizer, Report, Step};

/// Keeps the parameters that a pattern matches unchanged. Created by [`OptimizerExt::freeze`](crate::OptimizerExt::freeze).
///
/// A frozen tensor has no state and takes no time. After [`unfreeze`](Freeze::unfreeze) it starts with fresh state, at its own step 1, or
/// with the state that it had when it was frozen.
///
/// Put `freeze` last in the chain; it then behaves like PyTorch's `requires_grad = False`. A clip or a check for NaN that is written after
/// `freeze` includes the gradients of frozen tensors. If `freeze` is not the last adaptor, or the chain is in a box, use
/// [`find_mut`](crate::OptimizerExt::find_mut): `opt.find_mut::<Freeze>()`.
///
/// # State
/// The state contains which tensors are frozen, and the patterns given to `freeze` and [`unfreeze_at`](Adapted::unfreeze_at). A state with
/// other settings is rejected with [`StateError::SettingChanged`], unless the patterns match the same tensors. Patterns of `unfreeze_at`
/// whose step is still to come may differ.
///
/// [`unfreeze`](Freeze::unfreeze), [`refreeze`](Freeze::refreeze) and [`unfreeze_all`](Freeze::unfreeze_all) before the first step are in
/// the state, too. A closure cannot be saved: if one of them was called with a closure, call it again before loading.
///
/// To resume with other tensors frozen, build the optimizer with the old `freeze`, load the state, and then call
/// [`unfreeze_all`](Freeze::unfreeze_all) and [`refreeze`](Freeze::refreeze). A state saved after that still needs an optimizer with the
/// old `freeze`; it restores which tensors are frozen.
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
#[derive(Clone)]
pub struct Freeze {
    /// What the adaptor was made with.
    given: Pattern,
    /// The layout, once there has been a step.
    layout: Option<Arc<Layout>>,
    /// Which of its tensors are frozen.
    frozen: Vec<bool>,
    /// Whether the first step begins with what the adaptor was made with, not with nothing frozen.
    holds: bool,
    /// What was asked for before that step, in the order given, and whether it was to freeze.
    waiting: Vec<(Pattern, bool)>,
    /// What is to be unfrozen later: from which step on, the first being 0.
    later: Vec<(u64, Pattern)>,
    /// How many of those, the earliest first, have been.
    thawed: usize,
}

impl Freeze {
    /// Freezes the tensors that the pattern matches.
    pub fn new(pattern: impl Into<Pattern>) -> Self {
        Self {
            given: pattern.into(),
            layout: None,
            frozen: Vec::new(),
            holds: true,
            waiting: Vec::new(),
            later: Vec::new(),
            thawed: 0,
        }
    }

    /// Unfreezes the tensors that the pattern matches, from the next step on.
    ///
    /// # Errors
    /// [`StepError::PatternUnmatched`](crate::error::StepError::PatternUnmatched) and
    /// [`StepError::PatternSyntax`](crate::error::StepError::PatternSyntax). Nothing changes then. Before the first step the pattern cannot
    /// be checked: a wrong one makes every step fail until [`unfreeze_all`](Self::unfreeze_all) is called.
    pub fn unfreeze(&mut self, pattern: impl Into<Pattern>) -> Result<()> {
        self.change(pattern.into(), false)
    }

    /// Freezes the tensors that the pattern matches, from the next step on.
    ///
    /// # Errors
    /// Those of [`unfreeze`](Self::unfreeze).
    pub fn refreeze(&mut self, pattern: impl Into<Pattern>) -> Result<()> {
        self.change(pattern.into(), true)
    }

    /// Unfreezes all tensors, and discards the patterns of calls before the first step.
    pub fn unfreeze_all(&mut self) {
        self.waiting.clear();
        self.holds = false;
        self.frozen.fill(false);
    }

    fn change(&mut self, pattern: Pattern, freeze: bool) -> Result<()> {
        match &self.layout {
            Some(layout) => return turn(&mut self.frozen, &pattern, freeze, layout),
            None => self.waiting.push((pattern, freeze)),
        }
        Ok(())
    }

    /// Which tensors are frozen in a step that comes after `steps`, and how many of those for later have been unfrozen then.
    fn frozen(&self, layout: &Arc<Layout>, steps: u64) -> Result<(Cow<'_, [bool]>, usize)> {
        Layout::ensure_known(self.layout.as_ref(), layout)?;
        let due = self.later.partition_point(|(at, _)| *at <= steps).max(self.thawed);
        if self.layout.is_some() && due == self.thawed {
            return Ok((Cow::Borrowed(&self.frozen), due));
        }
        let mut frozen = self.frozen.clone();
        if self.layout.is_none() {
            frozen = vec![false; layout.len()];
            if self.holds {
                turn(&mut frozen, &self.given, true, layout)?;
            }
            self.waiting.iter().try_for_each(|(pattern, freeze)| turn(&mut frozen, pattern, *freeze, layout))?;
            // A wrong pattern is to be known before its time has come.
            self.later.iter().try_for_each(|(_, pattern)| pattern.select(layout).map(drop))?;
        }
        let now = self.later[self.thawed..due].iter();
        now.map(|(_, pattern)| pattern).try_for_each(|pattern| turn(&mut frozen, pattern, false, layout))?;
        Ok((Cow::Owned(frozen), due))
    }
}

impl Freeze {
    /// What the adaptor was made with, in words.
    fn describe(&self) -> String {
        let later = self.later.iter().map(|(steps, pattern)| format!(", unfreeze_at {steps} \"{pattern:?}\""));
        format!("freeze \"{:?}\"{}", self.given, later.collect::<String>())
    }

    /// What that has meant for each tensor until the first `thawed` of those for later had been unfrozen: whether it was to be
    /// frozen, and the steps at which it was to move again. A pattern that chooses nothing was taken back.
    fn meant(&self, layout: &Layout, thawed: usize) -> Vec<String> {
        let mut meant = vec![String::new(); layout.len()];
        let mut add = |pattern: &Pattern, word: String| {
            let chosen = pattern.select(layout).unwrap_or_default();
            let meant = meant.iter_mut().zip(chosen).filter(|(_, chosen)| *chosen);
            meant.for_each(|(meant, _)| *meant = format!("{meant} {word}").trim_start().to_owned());
        };
        add(&self.given, "frozen".into());
        self.later.iter().take(thawed).for_each(|(steps, pattern)| add(pattern, steps.to_string()));
        meant
    }

    /// Writes what waits for the first step.
    fn write_waiting(&self, node: &mut StateWriter<'_>) {
        node.value("holds", self.holds);
        node.value("waiting", self.waiting.len());
        for (number, (pattern, freeze)) in self.waiting.iter().enumerate() {
            node.value(&format!("waiting.{number}"), word(*freeze));
            let globs = pattern.globs();
            let count = globs.as_ref().map_or(CLOSURE.into(), |globs| globs.len().to_string());
            node.value(&format!("waiting.{number}.globs"), count);
            for (at, glob) in globs.iter().flatten().enumerate() {
                node.value(&format!("waiting.{number}.{at}"), glob);
            }
        }
    }

    /// Reads it. A closure is in no state: in its place one has to wait here.
    fn read_waiting(&self, node: &StateReader<'_>) -> Result<(bool, Vec<(Pattern, bool)>)> {
        let (holds, count): (_, usize) = (node.value("holds", "true or false")?, node.value("waiting", "a count")?);
        let mut waiting = Vec::new();
        for number in 0..count {
            let is_word = |text: &String| [true, false].map(word).contains(&&**text);
            let asked: String = node.value_where(&format!("waiting.{number}"), "freeze or unfreeze", is_word)?;
            let freeze = asked == word(true);
            let is_count = |text: &String| text == CLOSURE || text.parse::<usize>().is_ok();
            let globs: String = node.value_where(&format!("waiting.{number}.globs"), "a count or closure", is_count)?;
            if let Ok(globs) = globs.parse::<usize>() {
                let mut texts = Vec::new();
                for at in 0..globs {
                    texts.push(node.value::<String>(&format!("waiting.{number}.{at}"), "a glob")?);
                }
                waiting.push((Pattern::from(texts), freeze));
                continue;
            }
            match self.waiting.get(number) {
                Some(own) if own.0.globs().is_none() && own.1 == freeze => waiting.push(own.clone()),
                own => {
                    return Err(Error::State(StateError::SettingChanged {
                        saved: format!("{asked} \"a closure\" before the first step"),
                        given: own.map_or("nothing like it".into(), |(own, how)| format!("{} \"{own:?}\"", word(*how))),
                        reason: "a closure is not in the state".into(),
                    }));
                }
            }
        }
        Ok((holds, waiting))
    }

    /// How many of those for later have been unfrozen, if a state's settings meant the same as these.
    fn thawed_in(&self, node: &StateReader<'_>) -> Result<usize> {
        let Some(layout) = node.layout() else { return Ok(0) };
        let saved: Vec<_> =
            layout.tensors().iter().map(|info| node.text_of("given", info).unwrap_or_default()).collect();
        let last = saved.iter().flat_map(|meant| meant.split(' ')).filter_map(|step| step.parse::<u64>().ok()).max();
        let thawed = self.later.partition_point(|(at, _)| Some(*at) <= last);
        let meant = self.meant(layout, thawed);
        match layout.tensors().iter().zip(saved.iter().zip(&meant)).find(|(_, (saved, own))| **saved != **own) {
            None => Ok(thawed),
            Some((info, _)) => Err(Error::State(StateError::SettingChanged {
                saved: node.value("given", "what was frozen")?,
                given: self.describe(),
                reason: format!("they differ in {}", Name(info.path())),
            })),
        }
    }
}

/// What a state has in the place of a closure.
const CLOSURE: &str = "closure";

/// What is asked for, as the state has it.
fn word(freeze: bool) -> &'static str {
    if freeze { "freeze" } else { "unfreeze" }
}

/// Freezes, or not, what the pattern chooses.
fn turn(frozen: &mut [bool], pattern: &Pattern, freeze: bool, layout: &Layout) -> Result<()> {
    let chosen = pattern.select(layout)?;
    frozen.iter_mut().zip(chosen).filter(|(_, chosen)| *chosen).for_each(|(frozen, _)| *frozen = freeze);
    Ok(())
}

/// Takes the gradients of frozen tensors away.
fn hide<A: Element>(frozen: &[bool], step: &mut Step<'_, A>) -> Outcome {
    step.zip_mut(frozen).filter(|(.., frozen)| **frozen).for_each(|(_, tensor, _)| tensor.freeze());
    Outcome::pass()
}

impl<A: Element> Adaptor<A> for Freeze {
    fn check(&self, step: &Step<'_, A>, inner: &dyn Optimizer<A>) -> Result<()> {
        adapted::check(step, inner, |step| Ok(hide(&self.frozen(step.layout(), step.number())?.0, step)))
    }

    fn apply(&mut self, step: Step<'_, A>, inner: &mut dyn Optimizer<A>) -> Result<Report> {
        let layout = Arc::clone(step.layout());
        let (frozen, thawed) = self.frozen(&layout, inner.steps())?;
        let (report, _) = adapted::apply(step, inner, |step| Ok(hide(&frozen, step)))?;
        let fresh = if let Cow::Owned(frozen) = frozen { Some(frozen) } else { None };
        // Not before: a step that was refused must not decide which parameters these are.
        if let Some(fresh) = fresh {
            self.frozen = fresh;
        }
        (self.layout, self.thawed) = (Some(layout), thawed);
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
        let mut node = state.node("freeze");
        node.value("known", self.layout.is_some());
        node.value("given", self.describe());
        if self.layout.is_none() {
            self.write_waiting(&mut node);
        }
        if let Some(layout) = &self.layout {
            let meant = self.meant(layout, self.thawed);
            let meant = layout.tensors().iter().zip(meant).filter(|(_, meant)| !meant.is_empty());
            meant.for_each(|(info, meant)| node.value(&format!("given/{}", info.path()), meant));
        }
        let tensors = self.layout.iter().flat_map(|layout| layout.tensors()).zip(&self.frozen);
        tensors.filter(|(_, frozen)| **frozen).for_each(|(info, _)| node.count("frozen", info, 1));
    }

    fn read_state<'s>(&'s mut self, state: &mut StateReader<'_>) -> Result<Commit<'s>> {
        let node = state.node("freeze")?;
        let known = if node.value("known", "true or false")? { node.layout().cloned() } else { None };
        _ = node.value::<String>("given", "what was frozen")?;
        let asked_for = if known.is_none() { Some(self.read_waiting(&node)?) } else { None };
        // Before the first step all patterns are still to be followed, those that are given here.
        let so_far = if known.is_some() { self.thawed_in(&node)? } else { 0 };
        let is_frozen = |info| Ok(node.count("frozen", info)?.is_some());
        let read = node.tensors().iter().map(is_frozen).collect::<Result<Vec<_>>>()?;
        let Self { frozen, layout, thawed, holds, waiting, .. } = self;
        Ok(Commit::new(move || {
            (*frozen, *layout, *thawed) = (read, known, so_far);
            if let Some(asked_for) = asked_for {
                (*holds, *waiting) = asked_for;
            }
        }))
    }
}

impl fmt::Debug for Freeze {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "freeze(\"{:?}\")", self.given)?;
        self.later.iter().try_for_each(|(steps, pattern)| write!(f, ".unfreeze_at({steps}, \"{pattern:?}\")"))
    }
}

impl<O> Adapted<O, Freeze> {
    /// Unfreezes the tensors that the pattern matches after `steps` steps, as if [`unfreeze`](Freeze::unfreeze) were called then. Several
    /// calls unfreeze layer by layer.
    ///
    /// ```
    /// use gradus::prelude::*;
    /// use ndarray::array;
    ///
    /// let mut opt = Sgd::new(1.0).freeze(["0", "1"]).unfreeze_at(1, "1").unfreeze_at(2, "0");
    /// let mut w = [array![0.0], array![0.0], array![0.0]];
    /// (0..3).try_for_each(|_| opt.step(&mut w, &[array![1.0], array![1.0], array![1.0]]).map(drop))?;
    /// assert_eq!(w, [array![-1.0], array![-2.0], array![-3.0]]);
    /// # Ok::<(), gradus::Error>(())
    /// ```
    pub fn unfreeze_at(mut self, steps: u64, pattern: impl Into<Pattern>) -> Self {
        let at = self.later.partition_point(|(other, _)| *other <= steps);
        self.later.insert(at, (steps, pattern.into()));
        self
    }
}
