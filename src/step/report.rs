//! The result of a step.

/// The result of a step: learning rate, gradient norm, whether parameters moved, and whether to stop.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq)]
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
    /// Creates a report without a norm.
    pub fn new(learning_rate: f64, moved: bool) -> Self {
        Self { learning_rate, grad_norm: None, moved, skipped: false, stop: None }
    }

    /// Creates the report of a step that is left out.
    pub fn of_skipped(learning_rate: f64) -> Self {
        Self { skipped: true, ..Self::new(learning_rate, false) }
    }
}
