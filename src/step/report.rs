//! What a step did.

/// What a step did.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Report {
    /// The learning rate of this step, before any group's change to it.
    pub learning_rate: f64,
    /// The norm of the gradients before clipping, where an adaptor computed one; `clip_global_norm(f64::INFINITY)` only
    /// computes it.
    pub grad_norm: Option<f64>,
    /// Whether the step was taken: `false` while gradients accumulate, when the step was skipped, and when no
    /// tensor had a gradient.
    pub moved: bool,
}

impl Report {
    /// A report without a norm.
    pub fn new(learning_rate: f64, moved: bool) -> Self {
        Self { learning_rate, grad_norm: None, moved }
    }
}
