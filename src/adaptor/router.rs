//! Different optimizers for different tensors.

use std::any::{Any, TypeId};
use std::fmt;
use std::sync::Arc;

use super::accumulate::pass_on;
use crate::error::{Error, Name, Result, StateError};
use crate::params::pattern::{Pattern, Selection};
use crate::params::{Element, Layout};
use crate::schedule::Hyper;
use crate::state::{Commit, StateReader, StateWriter};
use crate::step::batch::JoinsRanks;
use crate::step::memo::Note;
use crate::step::moves::Sweeps;
use crate::step::{Optimizer, Report, Step};

/// Gives each tensor to one of several optimizers, its branches. Created by [`OptimizerExt::route`](crate::OptimizerExt::route).
///
/// If several patterns match a tensor, the last one wins. Unmatched tensors go to the base optimizer, on which the first `route` was
/// called.
///
/// **Learning rate.** The router's [`learning_rate`](Optimizer::learning_rate) and [`steps`](Optimizer::steps), and the learning rate in
/// the report, are those of the base optimizer. [`set_learning_rate`](crate::OptimizerExt::set_learning_rate) changes only the base
/// optimizer, because the branches usually need other rates; reach these with [`optimizers_mut`](Self::optimizers_mut).
///
/// **Errors.** Every branch checks the step before any branch moves. If one returns an error, nothing moves. If an optimizer of your own
/// accepts a step in [`check`](Optimizer::check) and then returns an error from [`apply`](Optimizer::apply), the branches before it have
/// already moved; the router returns [`Error::RefusedTooLate`].
///
/// **Skipped steps.** If a branch skips or accumulates, the other branches still move, and the report has `moved: true`. To skip all
/// branches together, write `skip_nonfinite` after `route`.
///
/// **Clipping.** `clip_global_norm` after `route` uses the norm of all gradients. Before `route`, or in the optimizer of a branch, it uses
/// the norm of that branch. The router's own report has no `grad_norm`; add `clip_global_norm(f64::INFINITY)` after `route` to get one.
///
/// # State
/// The state of each optimizer, and which tensor belongs to which optimizer. A state with other routes is rejected with
/// [`StateError::SettingChanged`], unless the patterns match the same tensors.
///
/// ```
/// use gradus::prelude::*;
/// use ndarray::array;
///
/// let mut opt = Sgd::new(1.0).route("1", Adam::new(0.1));
/// let mut w = (array![0.0], array![0.0]);
/// opt.step(&mut w, &(array![2.0], array![2.0]))?;
/// assert_eq!(w.0, array![-2.0]);
/// assert!((w.1[0] + 0.1_f64).abs() < 1e-6);
/// # Ok::<(), gradus::Error>(())
/// ```
#[must_use = "an optimizer moves nothing until `step` is called"]
pub struct Router<A> {
    rest: Box<dyn Optimizer<A>>,
    routes: Vec<(Selection, Box<dyn Optimizer<A>>)>,
    /// The layout, once there has been a step.
    layout: Option<Arc<Layout>>,
}

impl<A: Element> Router<A> {
    pub(crate) fn new(rest: impl Optimizer<A> + 'static) -> Self {
        Self { rest: Box::new(rest), routes: Vec::new(), layout: None }
    }

    /// Gives the tensors that the pattern matches to `optimizer`.
    pub fn route(mut self, pattern: impl Into<Pattern>, optimizer: impl Optimizer<A> + 'static) -> Self {
        self.routes.push((Selection::new(pattern), Box::new(optimizer)));
        self
    }

    /// [`route`](Self::route) in place.
    #[cfg(feature = "config")]
    pub(crate) fn add(&mut self, pattern: Pattern, optimizer: Box<dyn Optimizer<A>>) {
        self.routes.push((Selection::new(pattern), optimizer));
    }

    /// The optimizers: the base optimizer, then those of the routes in the order of the calls.
    pub fn optimizers_mut(&mut self) -> impl Iterator<Item = &mut (dyn Optimizer<A> + 'static)> {
        std::iter::once(&mut *self.rest).chain(self.routes.iter_mut().map(|(_, optimizer)| &mut **optimizer))
    }

    /// Which optimizer each tensor goes to, and how many there are.
    fn branches(&self, layout: &Arc<Layout>) -> Result<(Vec<usize>, usize)> {
        let mut branches = vec![0; layout.len()];
        for (number, (selection, _)) in self.routes.iter().enumerate() {
            let chosen = selection.choose(layout)?;
            branches.iter_mut().zip(&*chosen).filter(|(_, chosen)| **chosen).for_each(|(at, _)| *at = number + 1);
        }
        Ok((branches, self.routes.len() + 1))
    }

    /// The patterns, in words.
    fn describe(&self) -> String {
        let patterns: Vec<_> =
            self.routes.iter().map(|(selection, _)| format!("\"{:?}\"", selection.pattern())).collect();
        format!("route {}", patterns.join(", "))
    }

    /// An optimizer of [`optimizers`](Self::optimizers), in words.
    fn describe_branch(&self, number: usize) -> String {
        match number.checked_sub(1).and_then(|route| self.routes.get(route)) {
            Some((selection, _)) => format!("route {:?}", selection.pattern()),
            None => "all other tensors".into(),
        }
    }

    /// The number of each tensor's optimizer, that of the rest being 0. A pattern that chooses nothing is an error of the next step.
    fn numbers(&self, layout: &Layout) -> Vec<usize> {
        let mut numbers = vec![0; layout.len()];
        for (number, (selection, _)) in (1..).zip(&self.routes) {
            let chosen = selection.pattern().select(layout).unwrap_or_default();
            numbers.iter_mut().zip(chosen).filter(|(_, chosen)| *chosen).for_each(|(own, _)| *own = number);
        }
        numbers
    }

    /// A state's layout if its tensors went to the same optimizers; none if there has been no step.
    fn ensure_same_routes(&self, node: &StateReader<'_>) -> Result<Option<Arc<Layout>>> {
        let saved = node.value("given", "patterns")?;
        let known = node.value("known", "true or false")?;
        let tensors = node.tensors().iter().map(|info| (info, node.text_of("to", info).unwrap_or("0")));
        let tensors: Vec<_> = tensors.collect();
        let Some(layout) = node.layout().filter(|_| known) else { return Ok(None) };
        let mut pairs = tensors.into_iter().zip(self.numbers(layout));
        match pairs.find(|((_, saved), own)| **saved != own.to_string()) {
            None => Ok(Some(Arc::clone(layout))),
            Some(((info, _), _)) => {
                let reason = format!("they differ in {}", Name(info.path()));
                Err(Error::State(StateError::SettingChanged { saved, given: self.describe(), reason }))
            }
        }
    }

    /// The optimizers, in the order of [`optimizers_mut`](Self::optimizers_mut).
    fn optimizers(&self) -> impl Iterator<Item = &(dyn Optimizer<A> + 'static)> {
        std::iter::once(&*self.rest).chain(self.routes.iter().map(|(_, optimizer)| &**optimizer))
    }
}

/// Gives a part the number that its optimizer counts, and returns an error if that refuses it.
fn ask<A: Element>(optimizer: &dyn Optimizer<A>, part: &mut Step<'_, A>) -> Result<()> {
    part.set_number(optimizer.steps());
    optimizer.check(part)
}

impl<A: Element> Optimizer<A> for Router<A> {
    fn check(&self, step: &Step<'_, A>) -> Result<()> {
        let (branches, count) = self.branches(step.layout())?;
        let route = |at: usize| branches[at].checked_sub(1).and_then(|route| self.routes.get(route));
        step.note(step.iter().filter_map(|(_, tensor)| {
            let (selection, _) = route(tensor.index())?;
            Some((tensor.index(), Note::Group(format!("route {:?}", selection.pattern()))))
        }));
        let mut parts = step.preview().split(count, |_, tensor| branches[tensor.index()]);
        for (number, (optimizer, part)) in self.optimizers().zip(&mut parts).enumerate() {
            step.note_whole(|| Note::Branch { text: self.describe_branch(number), number });
            ask(optimizer, part)?;
        }
        step.note_whole(|| Note::BranchesEnd);
        Ok(())
    }

    fn apply(&mut self, step: Step<'_, A>) -> Result<Report> {
        step.ensure_writable()?;
        let layout = Arc::clone(step.layout());
        let (branches, count) = self.branches(&layout)?;
        let only_flushes = step.only_flushes();
        let mut parts = step.split(count, |_, tensor| branches[tensor.index()]);
        self.optimizers().zip(&mut parts).try_for_each(|(optimizer, part)| ask(optimizer, part))?;
        let mut reports = Vec::with_capacity(parts.len());
        for (optimizer, part) in self.optimizers_mut().zip(parts) {
            let result = match only_flushes {
                true => pass_on(part, optimizer),
                false => optimizer.apply(part),
            };
            match result {
                Ok(report) => reports.push(report),
                Err(reason) if reports.is_empty() => return Err(reason),
                Err(reason) => return Err(Error::RefusedTooLate { reason: Box::new(reason) }),
            }
        }
        self.layout = Some(layout);
        let moved = reports.iter().any(|report| report.moved);
        let skipped = !moved && reports.iter().any(|report| report.skipped);
        let stop = reports.iter().find_map(|report| report.stop);
        let tensors = reports.iter().any(|report| report.tensors.is_some());
        let tensors = tensors.then(|| reports.iter().filter_map(Report::tensors).flatten().cloned().collect());
        Ok(Report { skipped, stop, tensors, ..Report::new(reports[0].learning_rate, moved) })
    }

    fn conclude(&mut self, result: Result<Report>) -> Result<Report> {
        self.optimizers_mut().fold(result, |result, optimizer| optimizer.conclude(result))
    }

    fn learning_rate(&self) -> f64 {
        self.rest.learning_rate()
    }

    fn replace_learning_rate(&mut self, learning_rate: Hyper) {
        self.rest.replace_learning_rate(learning_rate);
    }

    fn part(&self, of: TypeId) -> Option<&dyn Any> {
        if of == TypeId::of::<Self>() {
            return Some(self);
        }
        // Other branches need not join the ranks that one joins, nor move as it does.
        let is_of_one = of == TypeId::of::<JoinsRanks>() || of == TypeId::of::<Sweeps>();
        let mut optimizers = self.optimizers().filter(|_| !is_of_one);
        optimizers.find_map(|optimizer| optimizer.part(of))
    }

    fn part_mut(&mut self, of: TypeId) -> Option<&mut dyn Any> {
        match of == TypeId::of::<Self>() {
            true => Some(self),
            false => self.optimizers_mut().find_map(|optimizer| optimizer.part_mut(of)),
        }
    }

    fn steps(&self) -> u64 {
        self.rest.steps()
    }

    fn layout(&self) -> Option<&Arc<Layout>> {
        self.layout.as_ref().or(self.rest.layout())
    }

    fn write_state(&self, state: &mut StateWriter<'_>) {
        let mut node = state.node("routes");
        node.value("given", self.describe());
        node.value("known", self.layout.is_some());
        if let Some(layout) = &self.layout {
            let numbers = layout.tensors().iter().zip(self.numbers(layout)).filter(|(_, number)| *number > 0);
            numbers.for_each(|(info, number)| node.value(&format!("to/{}", info.path()), number));
        }
        self.rest.write_state(&mut state.node("rest"));
        self.routes.iter().for_each(|(_, optimizer)| optimizer.write_state(&mut state.node("route")));
    }

    fn read_state<'s>(&'s mut self, state: &mut StateReader<'_>) -> Result<Commit<'s>> {
        let known = self.ensure_same_routes(&state.node("routes")?)?;
        let Self { rest, routes, layout } = self;
        let mut commit = Commit::new(move || *layout = known).and(rest.read_state(&mut state.branch("rest"))?);
        for (_, optimizer) in routes {
            commit = commit.and(optimizer.read_state(&mut state.branch("route"))?);
        }
        Ok(commit)
    }
}

impl<A> fmt::Debug for Router<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let routes: Vec<_> = self.routes.iter().map(|(selection, _)| selection).collect();
        f.debug_struct("Router").field("routes", &routes).finish_non_exhaustive()
    }
}
