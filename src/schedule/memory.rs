//! The state of schedules that depend on more than the step.

use std::collections::BTreeMap;
use std::fmt;

use crate::state::Commit;

/// A schedule with state of its own, as [`Plateau`](super::Plateau) has it.
///
/// The optimizer saves this state together with its own. Clones of the schedule should share the state, because the optimizer owns one of
/// them.
pub trait Remember: Send + Sync {
    /// The key of the state, in lower case: `plateau`.
    fn key(&self) -> &'static str;

    /// The state as text.
    fn save(&self) -> String;

    /// Reads what [`save`](Self::save) wrote, and returns the change that restores it: `None` if the text is not such a state.
    /// Nothing changes before the [`Commit`] is made.
    fn load(&self, saved: &str) -> Option<Commit<'static>>;
}

/// The state of a schedule: the result of [`Schedule::memory`](super::Schedule::memory).
///
/// | schedule | result |
/// |---|---|
/// | a function of the step | `Memory::none()` |
/// | made of one other | `self.inner.memory()` |
/// | made of two others | `self.first.memory().and(self.next.memory())` |
/// | with state of its own | `Memory::of(self)` |
#[must_use = "return it from `memory`"]
#[derive(Default)]
pub struct Memory<'m>(Vec<&'m dyn Remember>);

impl<'m> Memory<'m> {
    /// The schedule depends on nothing but the step.
    pub fn none() -> Self {
        Self::default()
    }

    /// The schedule's own state.
    pub fn of(own: &'m dyn Remember) -> Self {
        Self(vec![own])
    }

    /// Adds the state of another schedule.
    pub fn and(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// Each state with its key below `name`; the second of a kind is `name/kind#2`.
    pub(super) fn keys(self, name: &str) -> impl Iterator<Item = (String, &'m dyn Remember)> {
        let mut counts = BTreeMap::new();
        self.0.into_iter().map(move |own| {
            let count = counts.entry(own.key()).or_insert(0);
            *count += 1;
            match *count {
                1 => (format!("{name}/{}", own.key()), own),
                number => (format!("{name}/{}#{number}", own.key()), own),
            }
        })
    }
}

impl fmt::Debug for Memory<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|own| own.key())).finish()
    }
}
