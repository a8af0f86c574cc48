//! Parameters in training that are swapped for what is to be evaluated.

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
            self.trained.write(&mut node, "trained");
        }
    }

    /// Reads what [`write_state`](Self::write_state) wrote. There must be parameters of the tensors that have taken steps.
    pub(super) fn read_state<'i>(
        node: &mut StateReader<'_>,
        mut stepped: impl Iterator<Item = &'i TensorInfo>,
    ) -> Result<Self> {
        let node = node.branch("evaluated");
        if !node.has("swapped") {
            return Ok(Self::default());
        }
        let swapped = node.value_where("swapped", "true", |swapped| *swapped)?;
        let trained = PerTensor::<Owned<A>>::read(&node, "trained")?;
        let missing = |info: &&TensorInfo| info.elements() > 0 && trained.get(info.path()).is_none();
        match stepped.find(missing) {
            Some(info) => Err(node.missing("trained", info)),
            None => Ok(Self { trained, swapped }),
        }
    }
}
