//! Errors of the gradient check.

use super::text::Name;

/// Why the loss cannot be compared with its gradients.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum LossError {
    /// The loss is NaN or an infinity after a small change of one element of the parameters.
    #[error("the loss is {value} after a small change of parameter {} at index {index:?}; it must be finite", Name(.path))]
    NonFiniteLoss {
        /// The parameter's path.
        path: String,
        /// The element that was changed.
        index: Vec<usize>,
        /// The loss.
        value: f64,
    },

    /// Two evaluations of the loss at the same parameters differ.
    #[error("the loss is not deterministic: {first}, then {second} at the same parameters")]
    LossChanged {
        /// The first value.
        first: f64,
        /// The second value.
        second: f64,
    },
}
