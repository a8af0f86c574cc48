//! Errors of K-FAC's layers.

use super::text::{List, Name};

/// Why taps, layers and gradients do not fit together.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum CurvatureError {
    /// The tree has no weight for the name of a layer.
    #[error("there is no weight {}; the tensors are {}", List(.sought), List(.paths))]
    NoWeight {
        /// The paths that were tried.
        sought: Vec<String>,
        /// The paths of the tree.
        paths: Vec<String>,
    },

    /// A tensor with fewer than two axes was named as the weight of a layer.
    #[error("{} has shape {shape:?}, which is not the shape of a weight; name the layer or its weight", Name(.path))]
    NotAWeight {
        /// The tensor.
        path: String,
        /// Its shape.
        shape: Vec<usize>,
    },

    /// A layer was observed under two names.
    #[error("already observed as layer {}; use one name for both taps and call `discard`", Name(.other))]
    SameLayer {
        /// The other name.
        other: String,
    },

    /// The gradient of a layer is a multiple of the mean gradient of the observed examples.
    #[error(
        "the gradient is {ratio} times the mean over the {examples} observed examples: output_grad was divided by the batch \
         size, the gradient is a sum, or the tap lacks its positions"
    )]
    NotTheMean {
        /// How many times too large the gradient is.
        ratio: f64,
        /// The number of examples.
        examples: usize,
    },
}
