//! What can go wrong between burn and gradus.

use std::fmt;

use burn::tensor::{DType, Device};

/// The result of what may fail here.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong between burn and gradus. On an error, module and optimizer are as they were.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A parameter or gradient has another element type than asked for.
    #[error("{what} {} is of {found:?}, not of {expected:?}", Name(.path))]
    Dtype {
        /// The parameter's path.
        path: String,
        /// `"parameter"` or `"gradient"`.
        what: &'static str,
        /// Its element type.
        found: DType,
        /// The element type asked for.
        expected: DType,
    },

    /// A parameter or gradient lives on another backend than flex.
    #[error("{what} {} is on {device:?}; gradus steps what is on burn's flex backend, `Device::flex()`", Name(.path))]
    NotFlex {
        /// The parameter's path.
        path: String,
        /// `"parameter"` or `"gradient"`.
        what: &'static str,
        /// Where it is.
        device: Box<Device>,
    },

    /// A parameter is the result of a computation that autodiff recorded, and not a tensor of its own.
    #[error("parameter {} is computed from other tensors; `detach` it before it becomes one", Name(.path))]
    Computed {
        /// The parameter's path.
        path: String,
    },

    /// A parameter is empty, because what it holds is lent: to a clone of the module, which shares its running statistics.
    #[error("parameter {} is empty, as it is lent; drop its `Lent` first", Name(.path))]
    Lent {
        /// The parameter's path.
        path: String,
    },

    /// Some gradients belong to none of the module's parameters: it is not the module they were taken for, or a parameter has got
    /// a new id since.
    #[error("{count} of the gradients belong to no parameter of the module")]
    UnexpectedGradients {
        /// How many there are; burn does not say which.
        count: usize,
    },

    /// What gradus found.
    #[error(transparent)]
    Gradus(#[from] gradus::Error),
}

/// The path for a sentence, as gradus writes it: that of a module that is a single parameter is empty.
struct Name<'p>(&'p str);

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            "" => f.write_str("(root)"),
            path => write!(f, "{path:?}"),
        }
    }
}
