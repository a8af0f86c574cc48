//! Hyper-parameters that groups replace for one tensor.

use std::fmt;
use std::sync::Arc;

use crate::error::{Error, Result, StepError, similar_to};
use crate::params::TensorInfo;
use crate::schedule::Hyper;

/// The hyper-parameters of a rule that groups replace for one tensor, by name. Learning rate and weight decay have an
/// [`Adjust`](crate::Adjust) instead.
#[derive(Clone, Default)]
pub struct Replaced(Option<Arc<Vec<Replacement>>>);

#[derive(Clone)]
struct Replacement {
    name: Arc<str>,
    hyper: Hyper,
    /// The pattern of the group.
    pattern: Arc<str>,
}

impl Replaced {
    /// The replacements of one group.
    pub(crate) fn new(pattern: &str, own: &[(Arc<str>, Hyper)]) -> Self {
        let pattern: Arc<str> = pattern.into();
        let replacement = |(name, hyper): &(Arc<str>, Hyper)| {
            let (name, hyper) = (name.clone(), hyper.clone());
            Replacement { name, hyper, pattern: pattern.clone() }
        };
        Self((!own.is_empty()).then(|| Arc::new(own.iter().map(replacement).collect())))
    }

    /// The value of this name, if a group replaces it.
    #[inline]
    pub fn get(&self, name: &str) -> Option<&Hyper> {
        if self.is_empty() { None } else { self.find(name) }
    }

    fn find(&self, name: &str) -> Option<&Hyper> {
        self.iter().find(|own| *own.name == *name).map(|own| &own.hyper)
    }

    /// Whether no group replaces anything.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// These, and those of a group inside for the other names.
    pub(crate) fn over(&self, inner: &Self) -> Self {
        let (Some(own), Some(others)) = (&self.0, &inner.0) else {
            return if self.is_empty() { inner.clone() } else { self.clone() };
        };
        let others = others.iter().filter(|other| self.get(&other.name).is_none());
        Self(Some(Arc::new(own.iter().chain(others).cloned().collect())))
    }

    /// The replacements at a step, in words.
    #[cfg(feature = "distributed")]
    pub(crate) fn describe(&self, step: u64) -> String {
        self.iter().map(|own| format!(", {} {}", own.name, own.hyper.at(step))).collect()
    }

    /// Returns an error unless all names are those of hyper-parameters. `fixed` are names with the reason why a group cannot change them.
    pub(crate) fn ensure_known(
        &self,
        optimizer: &'static str,
        known: &[&'static str],
        mut fixed: impl Iterator<Item = (&'static str, &'static str)>,
    ) -> Result<()> {
        let Some(unknown) = self.iter().find(|own| !known.contains(&&*own.name)) else { return Ok(()) };
        let (name, pattern) = (unknown.name.to_string(), unknown.pattern.to_string());
        Err(Error::Step(match fixed.find(|(fixed, _)| *fixed == name) {
            Some((_, reason)) => StepError::NotInGroup { name, optimizer, pattern, reason },
            None => {
                let similar = similar_to(&name, known.iter().copied());
                StepError::UnknownHyperParameter { name, optimizer, pattern, similar, known: known.to_vec() }
            }
        }))
    }

    /// Returns an error with this reason if a group replaces anything.
    pub(crate) fn ensure_empty(&self, optimizer: &'static str, reason: &'static str) -> Result<()> {
        let Some(Replacement { name, pattern, .. }) = self.iter().next() else { return Ok(()) };
        let (name, pattern) = (name.to_string(), pattern.to_string());
        Err(Error::Step(StepError::NotInGroup { name, optimizer, pattern, reason }))
    }

    /// The same error, with tensor and pattern if it is about a replacement.
    pub(crate) fn blame(&self, error: Error, info: &TensorInfo) -> Error {
        let Error::Step(StepError::HyperParameter { name, .. }) = &error else { return error };
        let group = self.iter().find(|own| *own.name == **name).map(|own| own.pattern.to_string());
        match group {
            Some(pattern) => error.in_group(Some(info.path().into()), pattern),
            None => error,
        }
    }

    fn iter(&self) -> impl Iterator<Item = &Replacement> {
        self.0.iter().flat_map(|all| all.iter())
    }
}

/// The same schedules for the same names.
impl PartialEq for Replaced {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (None, None) => true,
            (Some(own), Some(others)) => Arc::ptr_eq(own, others) || own == others,
            _ => false,
        }
    }
}

impl PartialEq for Replacement {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && self.hyper.is(&other.hyper)
    }
}

impl fmt::Debug for Replaced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter().map(|own| (&own.name, &own.hyper))).finish()
    }
}
