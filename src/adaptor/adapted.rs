//! The trait of adaptors with state, and the optimizer that an adaptor and an inner optimizer make together.

use std::any::{Any, TypeId};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use super::{Outcome, around};
use crate::error::Result;
use crate::params::{Element, Layout};
use crate::schedule::Hyper;
use crate::state::{Commit, StateReader, StateWriter};
use crate::step::memo::Note;
use crate::step::moves::Sweeps;
use crate::step::{Optimizer, Report, Step};

/// An adaptor that has state, or that does not call the optimizer inside exactly once per step. For all others, implement
/// [`Transform`](super::Transform), which is less to write.
///
/// An adaptor does not contain the optimizer inside: it gets it as an argument. [`Adapted`] combines the two and is an optimizer.
pub trait Adaptor<A: Element>: Send + Sized + 'static {
    /// Returns an error if [`apply`](Self::apply) would. It changes nothing. If the adaptor only changes the step, call the function
    /// [`check`].
    ///
    /// # Errors
    /// Those of `apply`.
    fn check(&self, step: &Step<'_, A>, inner: &dyn Optimizer<A>) -> Result<()>;

    /// Takes the step with the optimizer inside. If `inner` returns an error, the adaptor must be unchanged, too. If the adaptor only
    /// changes the step, call the function [`apply`].
    ///
    /// # Errors
    /// The adaptor's own, and those of the optimizer inside.
    fn apply(&mut self, step: Step<'_, A>, inner: &mut dyn Optimizer<A>) -> Result<Report>;

    /// Receives the result of a call, and passes it to the optimizer inside: see [`Optimizer::conclude`]. An adaptor that skips the
    /// optimizer inside in some calls returns the errors of those calls itself.
    ///
    /// # Errors
    /// That of `result`, and those of the optimizer inside.
    fn conclude(&mut self, result: Result<Report>, inner: &mut dyn Optimizer<A>) -> Result<Report> {
        inner.conclude(result)
    }

    /// The adaptor as the call that creates it, such as `accumulate(4)`, for [`describe`](crate::StepExt::describe). Without an implementation
    /// of your own it is the name of the type.
    fn describe(&self) -> String {
        short_name::<Self>()
    }

    /// Whether the adaptor moves parameters itself. A [`Monitor`](super::Monitor) around one that does not measures a step while it is taken, and
    /// around another one with a copy of the parameters.
    fn moves_parameters(&self) -> bool {
        true
    }

    /// The layout of the parameters that the adaptor has state for, or `None`.
    fn layout(&self) -> Option<&Arc<Layout>>;

    /// Writes the state of the adaptor and its hyper-parameters into one node: entries with one name.
    fn write_state(&self, state: &mut StateWriter<'_>);

    /// Reads what [`write_state`](Self::write_state) wrote. The adaptor changes only when the returned [`Commit`] is made.
    ///
    /// # Errors
    /// Those of [`StateReader`].
    fn read_state<'s>(&'s mut self, state: &mut StateReader<'_>) -> Result<Commit<'s>>;

    /// The value that [`find`](crate::OptimizerExt::find) returns for its type: the adaptor itself by default.
    fn part(&self) -> &dyn Any {
        self
    }

    /// [`part`](Self::part), mutable.
    fn part_mut(&mut self) -> &mut dyn Any {
        self
    }
}

/// The name of a type without the names of its modules.
pub(super) fn short_name<T: ?Sized>() -> String {
    let name = std::any::type_name::<T>();
    let end = name.find('<').unwrap_or(name.len());
    name[name[..end].rfind("::").map_or(0, |at| at + 2)..].to_owned()
}

/// An [`Adaptor::check`] for adaptors that only change the step: makes a preview of the step, changes it with `describe`, and calls `check`
/// of the optimizer inside.
///
/// # Errors
/// Those of `describe` and of the optimizer inside.
pub fn check<'s, A: Element>(
    step: &'s Step<'_, A>,
    inner: &dyn Optimizer<A>,
    describe: impl FnOnce(&mut Step<'s, A>) -> Result<Outcome>,
) -> Result<()> {
    let mut preview = step.preview();
    preview.set_number(inner.steps());
    let outcome = describe(&mut preview)?;
    preview.note(preview.iter().filter(|(_, tensor)| tensor.frozen).map(|(_, tensor)| (tensor.index(), Note::Frozen)));
    if outcome.skip {
        preview.note_whole(|| Note::Skipped);
        return Ok(());
    }
    inner.check(&preview)
}

/// An [`Adaptor::apply`] for adaptors that only change the step: changes the step with `describe`, and calls `apply` of the optimizer
/// inside. On an error, nothing has changed.
///
/// # Errors
/// Those of `describe` and of the optimizer inside.
pub fn apply<'s, A: Element>(
    mut step: Step<'s, A>,
    inner: &mut dyn Optimizer<A>,
    describe: impl FnOnce(&mut Step<'s, A>) -> Result<Outcome>,
) -> Result<(Report, Outcome)> {
    step.set_number(inner.steps());
    let only_flushes = step.only_flushes();
    let outcome = describe(&mut step)?;
    let report = if outcome.skip { Report::of_skipped(inner.learning_rate()) } else { inner.apply(step)? };
    let own_norm = outcome.grad_norm.filter(|_| !only_flushes); // that of no gradients
    Ok((Report { grad_norm: own_norm.or(report.grad_norm), ..report }, outcome))
}

/// An optimizer with an adaptor around it: the result of most methods of [`OptimizerExt`](crate::OptimizerExt).
///
/// It has the adaptor's own methods. For example, `opt.swap(&mut params)` works if the adaptor is an average.
#[must_use = "an optimizer moves nothing until `step` is called"]
#[derive(Clone)]
pub struct Adapted<O, P> {
    inner: O,
    adaptor: P,
}

around!(Adapted<O, P>);

impl<O, P> Adapted<O, P> {
    /// Adds an adaptor to an optimizer.
    pub fn new(inner: O, adaptor: P) -> Self {
        Self { inner, adaptor }
    }

    /// Changes the adaptor as its own setters do.
    pub(crate) fn with(self, change: impl FnOnce(P) -> P) -> Self {
        Self { adaptor: change(self.adaptor), ..self }
    }
}

impl<O, P> Deref for Adapted<O, P> {
    type Target = P;

    fn deref(&self) -> &P {
        &self.adaptor
    }
}

impl<O, P> DerefMut for Adapted<O, P> {
    fn deref_mut(&mut self) -> &mut P {
        &mut self.adaptor
    }
}

impl<A: Element, O: Optimizer<A>, P: Adaptor<A>> Optimizer<A> for Adapted<O, P> {
    fn check(&self, step: &Step<'_, A>) -> Result<()> {
        Layout::ensure_known(self.layout(), step.layout())?;
        step.note_whole(|| Note::Part(self.adaptor.describe()));
        self.adaptor.check(step, &self.inner)
    }

    fn apply(&mut self, step: Step<'_, A>) -> Result<Report> {
        step.ensure_writable()?;
        Layout::ensure_known(self.layout(), step.layout())?;
        self.adaptor.apply(step, &mut self.inner)
    }

    fn conclude(&mut self, result: Result<Report>) -> Result<Report> {
        self.adaptor.conclude(result, &mut self.inner)
    }

    fn learning_rate(&self) -> f64 {
        self.inner.learning_rate()
    }

    fn replace_learning_rate(&mut self, learning_rate: Hyper) {
        self.inner.replace_learning_rate(learning_rate);
    }

    fn part(&self, of: TypeId) -> Option<&dyn Any> {
        if of == TypeId::of::<Sweeps>() && self.adaptor.moves_parameters() {
            return None;
        }
        Some(self.adaptor.part()).filter(|part| (**part).type_id() == of).or_else(|| self.inner.part(of))
    }

    fn part_mut(&mut self, of: TypeId) -> Option<&mut dyn Any> {
        if (*self.adaptor.part()).type_id() == of { Some(self.adaptor.part_mut()) } else { self.inner.part_mut(of) }
    }

    fn steps(&self) -> u64 {
        self.inner.steps()
    }

    fn layout(&self) -> Option<&Arc<Layout>> {
        self.adaptor.layout().or_else(|| self.inner.layout())
    }

    fn write_state(&self, state: &mut StateWriter<'_>) {
        self.adaptor.write_state(state);
        self.inner.write_state(state);
    }

    fn read_state<'s>(&'s mut self, state: &mut StateReader<'_>) -> Result<Commit<'s>> {
        let Self { inner, adaptor } = self;
        let own = adaptor.read_state(state)?;
        Ok(inner.read_state(state)?.and(own))
    }
}

impl<O: fmt::Debug, P: fmt::Debug> fmt::Debug for Adapted<O, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}.{:?}", self.inner, self.adaptor)
    }
}
