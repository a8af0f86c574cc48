//! The errors between burn and gradus.

use std::fmt;

use burn::tensor::{DType, Device};

/// A result with this crate's error.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of this crate. On an error, module and optimizer are unchanged.
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

    /// A parameter or gradient is on another backend than flex.
    #[error("{what} {} is on {device:?}; gradus steps what is on burn's flex backend, `Device::flex()`", Name(.path))]
    NotFlex {
        /// The parameter's path.
        path: String,
        /// `"parameter"` or `"gradient"`.
        what: &'static str,
        /// Its device.
        device: Box<Device>,
    },

    /// A parameter is the result of a computation that autodiff recorded, and not a tensor of its own.
    #[error("parameter {} is computed from other tensors; `detach` it before it becomes one", Name(.path))]
    Computed {
        /// The parameter's path.
        path: String,
    },

    /// A parameter is empty because it is lent out, possibly through a clone of the module, which shares its running statistics.
    #[error("parameter {} is empty because it is lent out; drop the `Lent` guard first", Name(.path))]
    Lent {
        /// The parameter's path.
        path: String,
    },

    /// Some gradients belong to no parameter of the module. Either they were computed for another module, or a parameter has a new id.
    #[error("{count} of the gradients belong to no parameter of the module")]
    UnexpectedGradients {
        /// The number of such gradients. Their names are not known.
        count: usize,
    },

    /// An error of gradus.
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
