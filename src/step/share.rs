//! The larger step that a step may be a share of.

use std::fmt;

use crate::error::{Error, RankError, Result};

/// How much of a larger step one of its shares sees by itself. Each extent includes the ones before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Extent {
    /// Some elements of each tensor.
    #[cfg(feature = "distributed")]
    Elements,
    /// Whole tensors, but not all of them.
    Tensors,
    /// All tensors, but only a part of the data that their gradients come from.
    Parameters,
    /// Everything: the step is no share.
    All,
}

/// The larger step, as one of its shares sees it.
pub(crate) trait Larger: fmt::Debug + Sync {
    /// The p-norm of all shares together; `own` is the norm of this share. Every share must call it and gets the same bits.
    fn norm(&self, own: f64, p: f64) -> Result<f64>;

    /// The sum of a number over all shares; `own` is that of this share. Every share must call it and gets the same bits.
    fn sum(&self, own: f64) -> Result<f64>;
}

/// Which share of a larger step a step is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Share<'a> {
    /// What the share sees by itself.
    pub(crate) extent: Extent,
    /// The larger step; without one, norms are those of the share.
    pub(crate) larger: Option<&'a dyn Larger>,
    /// Whether an adaptor outside may skip the step without the other ranks.
    #[cfg(feature = "distributed")]
    pub(crate) skips_alone: bool,
}

impl Share<'_> {
    /// All of a step.
    pub(crate) const ALL: Self = Self {
        extent: Extent::All,
        larger: None,
        #[cfg(feature = "distributed")]
        skips_alone: false,
    };

    /// This share, limited to an extent, for a step inside.
    #[cfg(feature = "distributed")]
    pub(crate) fn at_most(self, extent: Extent) -> Self {
        Self { extent: self.extent.min(extent), ..self }
    }

    /// Returns an error unless the share sees as much as the optimizer or adaptor of this name needs.
    pub(crate) fn ensure(self, needed: Extent, name: &'static str) -> Result<()> {
        if self.extent >= needed {
            return Ok(());
        }
        Err(Error::Ranks(match (self.extent, needed) {
            (Extent::Parameters, _) => RankError::DataOfAllRanks { name },
            (_, Extent::Tensors) => RankError::CutTensors { name },
            _ => RankError::NotShardable { name },
        }))
    }

    /// The p-norm of the larger step, where `own` is the norm of this share.
    pub(crate) fn norm(self, own: f64, p: f64) -> Result<f64> {
        self.larger.map_or(Ok(own), |larger| larger.norm(own, p))
    }

    /// The sum over the larger step, where `own` is the sum over this share.
    pub(crate) fn sum(self, own: f64) -> Result<f64> {
        self.larger.map_or(Ok(own), |larger| larger.sum(own))
    }
}
