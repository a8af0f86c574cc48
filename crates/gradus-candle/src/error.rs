//! The errors between candle and gradus.

use candle_core::DeviceLocation;

/// A result with this crate's error.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of this crate. On an error, variables and optimizer are unchanged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A variable or gradient has another element type than asked for.
    #[error("{what} {path:?} is of {found}, not of {expected}")]
    Dtype {
        /// The variable's name.
        path: String,
        /// `"variable"` or `"gradient"`.
        what: &'static str,
        /// candle's name of its element type.
        found: &'static str,
        /// candle's name of the element type asked for.
        expected: &'static str,
    },

    /// A variable or gradient is not in the CPU's memory.
    #[error("{what} {path:?} is on {device:?}; gradus steps what is on the CPU")]
    NotOnCpu {
        /// The variable's name.
        path: String,
        /// `"variable"` or `"gradient"`.
        what: &'static str,
        /// Its device.
        device: DeviceLocation,
    },

    /// A map has no variables.
    #[error("the map holds no variables; make the model first")]
    NoVariables,

    /// Two variables have the same name.
    #[error("two variables have the name {path:?}")]
    DuplicateName {
        /// The name.
        path: String,
    },

    /// One variable was given under two names.
    #[error("{path:?} and {first:?} are one variable; name it once")]
    SameVariable {
        /// The second name.
        path: String,
        /// The first.
        first: String,
    },

    /// A variable is empty because it is lent out.
    #[error("variable {path:?} is lent already; drop the other `Lent` first")]
    Lent {
        /// The variable's name.
        path: String,
    },

    /// A gradient shares the memory of a variable, and it cannot be read while the variable is written.
    #[error("gradient {path:?} lies in a variable's own memory; give a copy, `Tensor::copy`")]
    GradientIsVariable {
        /// The name of the variable that the gradient is for.
        path: String,
    },

    /// An error of gradus.
    #[error(transparent)]
    Gradus(#[from] gradus::Error),

    /// An error of candle.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}
