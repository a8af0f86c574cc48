//! What the optimizer inside asks of the other ranks.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use crate::clip::norm_of_norms;
use crate::distributed::RankGroup;
use crate::distributed::joint::norms;
use crate::error::{Error, Result};
use crate::step::share::Larger;

/// The way from one rank's share of a step to the others.
pub(super) struct Across<'g, G> {
    group: &'g G,
    /// Why a call failed, or that another rank refuses. Nothing is asked of the group after that: the other ranks may be elsewhere.
    failed: Mutex<Option<Error>>,
}

impl<'g, G: RankGroup> Across<'g, G> {
    pub(super) fn new(group: &'g G) -> Self {
        Self { group, failed: Mutex::new(None) }
    }

    /// Returns an error if a call has failed.
    pub(super) fn ensure_sound(&self) -> Result<()> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).clone().map_or(Ok(()), Err)
    }
}

impl<G: RankGroup> Across<'_, G> {
    /// The numbers of all ranks.
    fn of_all(&self, own: f64) -> Result<Vec<f64>> {
        if self.group.size() == 1 {
            return Ok(vec![own]);
        }
        self.ensure_sound()?;
        norms(self.group, own).inspect_err(|error| {
            *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.clone());
        })
    }
}

impl<G: RankGroup> Larger for Across<'_, G> {
    fn norm(&self, own: f64, p: f64) -> Result<f64> {
        if self.group.size() == 1 { Ok(own) } else { Ok(norm_of_norms(&self.of_all(own)?, p)) }
    }

    fn sum(&self, own: f64) -> Result<f64> {
        Ok(self.of_all(own)?.into_iter().sum())
    }
}

impl<G: RankGroup> fmt::Debug for Across<'_, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Across({} ranks)", self.group.size())
    }
}
