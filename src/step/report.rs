//! The result of a step.

use std::sync::Arc;

/// The result of a step: learning rate, gradient norm, whether parameters moved, and whether to stop.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// The learning rate of this step, without the changes of groups.
    pub learning_rate: f64,
    /// The norm of all gradients before clipping, if an adaptor computed it. To compute it without clipping, add
    /// `clip_global_norm(f64::INFINITY)`.
    pub grad_norm: Option<f64>,
    /// Whether the step was taken. It is `false` if the gradients were only accumulated, if the step was skipped, and if no tensor had a
    /// gradient.
    pub moved: bool,
    /// Whether an adaptor left the step out because of its gradients, as [`skip_nonfinite`](crate::GuardExt::skip_nonfinite) does.
    pub skipped: bool,
    /// The reason to stop, if a rule applies: see [`OptimizerExt::stop`](crate::OptimizerExt::stop). The step is taken all the same.
    pub stop: Option<StopReason>,
    /// What a monitor has measured.
    pub(crate) tensors: Option<Arc<[TensorReport]>>,
}

/// One tensor in one step: what a [`Monitor`](crate::adaptor::Monitor) has measured. All norms are Euclidean, in `f64`.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq)]
pub struct TensorReport {
    /// The tensor's path.
    pub path: String,
    /// The norm of the gradient as the monitor gets it. It is 0 if the call had no gradient for the tensor, as in
    /// [`flush`](crate::StepExt::flush).
    pub grad_norm: f64,
    /// The norm of the gradient as the optimizer uses it: after clipping, scaling, averaging and the like. It is `None` if the optimizer is from
    /// another crate, and inside `sharded` if it has only a part of the tensor.
    pub used_grad_norm: Option<f64>,
    /// Whether an adaptor has clipped this gradient. With [`accumulate`](crate::OptimizerExt::accumulate), micro-batches before the last one do not
    /// count.
    pub clipped: bool,
    /// The norm of the parameter before the step.
    pub param_norm: f64,
    /// The norm of the change: of the parameter after the step minus the parameter before it.
    pub update_norm: f64,
    /// The learning rate of this tensor, with the changes of groups. It is `None` if the optimizer is from another crate.
    pub learning_rate: Option<f64>,
}

impl TensorReport {
    /// The norm of the change over the norm of the parameter. A common rule of thumb is 1e-3 for the weights of a network. It is infinite for a
    /// parameter of zeros that moves, and NaN if it does not move.
    pub fn ratio(&self) -> f64 {
        self.update_norm / self.param_norm
    }
}

/// The criterion of a [`Stop`](crate::adaptor::Stop) that applies.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    /// The norm of the gradients is at most `grad_norm`.
    GradNorm,
    /// The loss has changed by at most the fraction `relative_change`.
    LossChange,
    /// The loss has not fallen in `patience` calls.
    Patience,
}

impl Report {
    /// The norms and the learning rate of each tensor, if a [`Monitor`](crate::adaptor::Monitor) has measured this step. Only
    /// tensors that were stepped or moved are listed.
    pub fn tensors(&self) -> Option<&[TensorReport]> {
        self.tensors.as_deref()
    }

    /// Creates a report without a norm.
    pub fn new(learning_rate: f64, moved: bool) -> Self {
        Self { learning_rate, grad_norm: None, moved, skipped: false, stop: None, tensors: None }
    }

    /// Creates the report of a step that is left out.
    pub fn of_skipped(learning_rate: f64) -> Self {
        Self { skipped: true, ..Self::new(learning_rate, false) }
    }
}
