//! What the optimizer inside asks of the other ranks.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use crate::clip::norm_of_norms;
use crate::distributed::RankGroup;
use crate::distributed::agreement::norms;
use crate::error::{Error, Result};
use crate::step::Ranks;

/// The way from one rank's share of a step to the others.
pub(super) struct Across<'g, G> {
    group: &'g G,
    are_tensors_cut: bool,
    /// Why a call failed, or that another rank refuses. Nothing is asked of the group after that: the other ranks may be elsewhere.
    failed: Mutex<Option<Error>>,
}

impl<'g, G: RankGroup> Across<'g, G> {
    pub(super) fn new(group: &'g G, are_tensors_cut: bool) -> Self {
        Self { group, are_tensors_cut, failed: Mutex::new(None) }
    }

    /// Returns an error if a call has failed.
    pub(super) fn ensure_sound(&self) -> Result<()> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).clone().map_or(Ok(()), Err)
    }
}

impl<G: RankGroup> Ranks for Across<'_, G> {
    fn are_tensors_cut(&self) -> bool {
        self.are_tensors_cut
    }

    fn has_all_tensors(&self) -> bool {
        false
    }

    fn norm(&self, own: f64, p: f64) -> Result<f64> {
        if self.group.size() == 1 {
            return Ok(own);
        }
        self.ensure_sound()?;
        let norms = norms(self.group, own).inspect_err(|error| {
            *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.clone());
        })?;
        Ok(norm_of_norms(&norms, p))
    }
}

/// One rank's share of a step that is only looked at: nobody is asked.
#[derive(Debug)]
pub(super) struct Apart {
    pub(super) are_tensors_cut: bool,
}

impl Ranks for Apart {
    fn are_tensors_cut(&self) -> bool {
        self.are_tensors_cut
    }

    fn has_all_tensors(&self) -> bool {
        false
    }

    fn norm(&self, own: f64, _: f64) -> Result<f64> {
        Ok(own)
    }
}

impl<G: RankGroup> fmt::Debug for Across<'_, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Across({} ranks)", self.group.size())
    }
}
