//! Parameters in training that are swapped for what is to be evaluated.

use std::collections::BTreeSet;

use crate::error::{Error, Result, StepError};
use crate::params::{Owned, Scalar, TensorInfo};
use crate::state::{StateReader, StateWriter};
use crate::step::PerTensor;

/// The parameters in training, while their averages are where they belong.
#[derive(Debug, Clone)]
pub(super) struct Evaluated<A> {
    pub(super) trained: PerTensor<Owned<A>>,
    pub(super) swapped: bool,
}

impl<A> Default for Evaluated<A> {
    fn default() -> Self {
        Self { trained: PerTensor::new(), swapped: false }
    }
}

impl<A: Scalar> Evaluated<A> {
    /// Returns an error while the averages are swapped in.
    #[inline]
    pub(super) fn ensure_in_training(&self) -> Result<()> {
        if self.swapped { Err(Error::Step(StepError::Swapped)) } else { Ok(()) }
    }

    pub(super) fn write_state(&self, node: &mut StateWriter<'_>) {
        if self.swapped {
            let mut node = node.node("evaluated");
            node.value("swapped", true);
            self.trained.write_copies(&mut node, "trained");
        }
    }

    /// Reads what [`write_state`](Self::write_state) wrote: the parameters of exactly those tensors that have taken steps.
    pub(super) fn read_state<'i>(
        node: &mut StateReader<'_>,
        stepped: impl Iterator<Item = &'i TensorInfo>,
    ) -> Result<Self> {
        let node = node.branch("evaluated");
        if !node.has("swapped") {
            return Ok(Self::default());
        }
        let swapped = node.value_where("swapped", "true", |swapped| *swapped)?;
        let stepped: BTreeSet<&str> = stepped.map(TensorInfo::path).collect();
        let trained = PerTensor::read_state(&node, |info| {
            if info.elements() == 0 || !stepped.contains(info.path()) {
                return Ok(None);
            }
            Owned::read(&node, "trained", info)?.map_or_else(|| Err(node.missing("trained", info)), |own| Ok(Some(own)))
        })?;
        Ok(Self { trained, swapped })
    }
}
