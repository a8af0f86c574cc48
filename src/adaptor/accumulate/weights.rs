//! The weights of the micro-batches in a sum.

use crate::error::Result;
use crate::state::{StateReader, StateWriter};
use crate::step::batch::Batch;

/// The weights of the micro-batches in a sum, as multiples of the first that is not 0: so equal weights are factors of 1.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Weights {
    /// The first weight that is not 0; `None` if all were 0.
    unit: Option<f64>,
    /// The sum, in units.
    total: f64,
    is_weighted: bool,
}

/// The names of a sum's weights in a state: they are there unless all weights are 1.
const WEIGHT_UNIT: &str = "unit";
const WEIGHT_TOTAL: &str = "weight";

impl Weights {
    /// The factor of a micro-batch that is added.
    pub(super) fn factor(self, batch: Batch) -> f64 {
        match self.unit {
            _ if batch.weight == 0.0 => 0.0,
            Some(unit) => batch.weight / unit,
            None => 1.0,
        }
    }

    /// These and another.
    pub(super) fn and(self, batch: Batch) -> Self {
        Self {
            unit: self.unit.or((batch.weight > 0.0).then_some(batch.weight)),
            total: self.total + self.factor(batch),
            is_weighted: self.is_weighted || batch.is_weighted,
        }
    }

    /// The factor that makes of the sum a sum of gradients times their weights.
    pub(super) fn unit(self) -> f64 {
        self.unit.unwrap_or(1.0)
    }

    /// The factor that makes the sum a mean.
    pub(super) fn mean(self) -> f64 {
        if self.are_zero() { 1.0 } else { 1.0 / self.total }
    }

    pub(super) fn are_zero(self) -> bool {
        self.total == 0.0
    }

    /// All micro-batches as one.
    pub(super) fn combined(self) -> Batch {
        Batch { weight: self.unit() * self.total, is_weighted: self.is_weighted, is_last: false }
    }

    pub(super) fn write(self, node: &mut StateWriter<'_>) {
        if self.is_weighted || self.unit.is_some_and(|unit| unit != 1.0) {
            node.value(WEIGHT_UNIT, self.unit.unwrap_or(0.0));
            node.value(WEIGHT_TOTAL, self.total);
        }
    }

    /// Reads the weights of `gathered` micro-batches.
    pub(super) fn read(node: &StateReader<'_>, gathered: u64) -> Result<Self> {
        if !node.has(WEIGHT_UNIT) && !node.has(WEIGHT_TOTAL) {
            let unit = (gathered > 0).then_some(1.0);
            return Ok(Self { unit, total: gathered as f64, is_weighted: false });
        }
        let is_weight = |weight: &f64| weight.is_finite() && *weight >= 0.0;
        let unit: f64 = node.value_where(WEIGHT_UNIT, "a finite number ≥ 0", is_weight)?;
        let total = node.value_where(WEIGHT_TOTAL, "a finite number ≥ 0", is_weight)?;
        Ok(Self { unit: (unit > 0.0).then_some(unit), total, is_weighted: true })
    }
}
