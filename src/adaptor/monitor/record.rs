//! What a monitor has measured of a step.

use std::sync::Arc;

use crate::step::TensorReport;

/// A measured step.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// The number of steps taken before it.
    pub step: u64,
    /// The learning rate of the step, without the changes of groups.
    pub learning_rate: f64,
    /// The loss, if it was passed to [`step_with_loss`](crate::StepExt::step_with_loss).
    pub loss: Option<f64>,
    /// The tensors that have been stepped.
    pub tensors: Arc<[TensorReport]>,
}
