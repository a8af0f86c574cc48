//! Errors, grouped by the call that returns them.
//!
//! | variant of [`Error`] | returned by |
//! |---|---|
//! | [`Step`](Error::Step) | [`step`](crate::Optimizer::step) and swapping averages: invalid hyper-parameters, groups, trees, gradients, chains |
//! | [`Argument`](Error::Argument) | a function whose argument is out of range; `step`, if a count such as `accumulate(0)` is |
//! | [`Curvature`](Error::Curvature) | `observe` and `step` of [K-FAC](crate::curvature) |
//! | [`Loss`](Error::Loss) | the gradient [`check`](crate::check) |
//! | [`State`](Error::State) | loading the state of an optimizer, or parameters |
//! | [`File`](Error::File) | reading and writing files |
//! | [`Ranks`](Error::Ranks) | everything that exchanges messages between ranks |
//! | [`Federated`](Error::Federated) | federated rounds |
//! | [`Config`](Error::Config) | reading a configuration file, and building what it describes |
//! | [`Setting`](Error::Setting) | building an optimizer from a configuration: the error of one of its values |
//! | [`Layer`](Error::Layer) | `observe` and `step` of K-FAC: the error of one layer |
//! | [`RefusedTooLate`](Error::RefusedTooLate) | `step`, if an optimizer from another crate accepts a step in `check` and rejects it in `apply` |
//! | [`Other`](Error::Other) | code outside this crate |
//!
//! ```
//! use gradus::{Error, error::StepError, prelude::*};
//! use ndarray::array;
//!
//! let (mut opt, mut w) = (Sgd::new(0.1).check_finite(), array![1.0]);
//! match opt.step(&mut w, &array![f64::NAN]) {
//!     Ok(report) => println!("learning rate {}", report.learning_rate),
//!     Err(Error::Step(StepError::NonFiniteGradient { path, .. })) => println!("skipped: NaN in {path}"),
//!     Err(error) => return Err(error),
//! }
//! # Ok::<(), gradus::Error>(())
//! ```

mod argument;
mod config;
mod count;
mod curvature;
mod federated;
mod file;
mod loss;
mod ranks;
mod similar;
mod state;
mod step;
mod text;

use std::fmt;

pub(crate) use argument::AT_LEAST_1;
pub use argument::ArgumentError;
pub use config::{ConfigError, ConfigProblem};
pub(crate) use count::ensure_count;
pub use curvature::CurvatureError;
pub use federated::FederatedError;
pub use file::FileError;
pub use loss::LossError;
pub use ranks::RankError;
#[cfg(feature = "config")]
pub(crate) use similar::nearest;
pub(crate) use similar::similar_to;
pub use state::StateError;
pub use step::StepError;
pub(crate) use text::Name;

/// The result of every fallible call of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The problem, where it is, and often what is accepted. The [module](self) says which call returns which variant.
///
/// A call that returns an error has changed nothing: parameters, gradients, optimizer state and counters are bit for bit
/// what they were before. The only exception is [`RefusedTooLate`](Error::RefusedTooLate). The fields hold the data;
/// [`Display`](std::fmt::Display) makes the sentence. The path of a tree that is a single tensor is the empty string,
/// shown as `(root)`.
///
/// `{:?}` is the sentence too, so `fn main() -> gradus::Result<()>` and `unwrap` print it. `{:#?}` shows the variant and its fields:
///
/// ```
/// use gradus::{Error, error::StepError};
///
/// let error = Error::Step(StepError::Swapped);
/// assert_eq!(format!("{error:?}"), error.to_string());
/// assert_eq!(format!("{error:#?}"), "Step(\n    Swapped,\n)");
/// ```
#[non_exhaustive]
#[derive(Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// A step cannot be taken.
    #[error(transparent)]
    Step(StepError),

    /// An argument is out of range or has the wrong shape.
    #[error(transparent)]
    Argument(ArgumentError),

    /// Taps, layers and gradients do not fit together.
    #[error(transparent)]
    Curvature(CurvatureError),

    /// The loss cannot be compared with its gradients.
    #[error(transparent)]
    Loss(LossError),

    /// Saved parameters or a saved state do not fit what they are loaded into.
    #[error(transparent)]
    State(StateError),

    /// A file cannot be read or written.
    #[error(transparent)]
    File(FileError),

    /// Ranks cannot work together.
    #[error(transparent)]
    Ranks(RankError),

    /// A federated round cannot continue.
    #[error(transparent)]
    Federated(FederatedError),

    /// A configuration cannot be read, or what it describes cannot be built.
    #[error(transparent)]
    Config(ConfigError),

    /// A setting of a configuration is out of range, or does not fit the others.
    #[error("{}: {reason}", config::place(.path, *.line))]
    Setting {
        /// The place in the document, such as `optimizer.beta1`: see [`ConfigError::path`].
        path: String,
        /// The line, the first is 1, if it is known.
        line: Option<usize>,
        /// The error of the optimizer, adaptor or schedule.
        #[source]
        reason: Box<Self>,
    },

    /// A layer or its tap is invalid.
    #[error("layer {}: {reason}", Name(.layer))]
    Layer {
        /// The layer's name, as it was given.
        layer: String,
        /// What is wrong with it.
        #[source]
        reason: Box<Self>,
    },

    /// An optimizer accepted a step in `check` and rejected it in `apply`, after other optimizers had taken theirs.
    ///
    /// Or a round could not be undone, because an optimizer could not load its own state.
    ///
    /// This is the only error that leaves a change: other tensors have moved, or that state.
    #[error(
        "other tensors have already moved: {reason} (an optimizer must reject in `check` every step that it would reject in `apply`)"
    )]
    RefusedTooLate {
        /// The optimizer's error.
        #[source]
        reason: Box<Self>,
    },

    /// An error of an optimizer or adaptor from another crate.
    #[error("{0}")]
    Other(String),
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !f.alternate() {
            return fmt::Display::fmt(self, f);
        }
        match self {
            Self::Step(error) => f.debug_tuple("Step").field(error).finish(),
            Self::Argument(error) => f.debug_tuple("Argument").field(error).finish(),
            Self::Curvature(error) => f.debug_tuple("Curvature").field(error).finish(),
            Self::Loss(error) => f.debug_tuple("Loss").field(error).finish(),
            Self::State(error) => f.debug_tuple("State").field(error).finish(),
            Self::File(error) => f.debug_tuple("File").field(error).finish(),
            Self::Ranks(error) => f.debug_tuple("Ranks").field(error).finish(),
            Self::Federated(error) => f.debug_tuple("Federated").field(error).finish(),
            Self::Config(error) => f.debug_tuple("Config").field(error).finish(),
            Self::Setting { path, line, reason } => {
                f.debug_struct("Setting").field("path", path).field("line", line).field("reason", reason).finish()
            }
            Self::Layer { layer, reason } => {
                f.debug_struct("Layer").field("layer", layer).field("reason", reason).finish()
            }
            Self::RefusedTooLate { reason } => f.debug_struct("RefusedTooLate").field("reason", reason).finish(),
            Self::Other(text) => f.debug_tuple("Other").field(text).finish(),
        }
    }
}

impl Error {
    /// An [`ArgumentError::Range`].
    pub(crate) fn argument(argument: &'static str, value: f64, accepted: impl Into<String>) -> Self {
        Self::Argument(ArgumentError::Range { argument, value, accepted: accepted.into() })
    }

    /// The reason alone, for a step that was fully undone.
    #[cfg(feature = "distributed")]
    pub(crate) fn taken_back(self) -> Self {
        match self {
            Self::RefusedTooLate { reason } => *reason,
            other => other,
        }
    }

    /// The same error of a schedule, with the hyper-parameter that the schedule was given for.
    pub(crate) fn of_setter(self, setter: &'static str) -> Self {
        match self {
            Self::Step(StepError::Schedule { name: None, schedule, argument, value, accepted }) => {
                Self::Step(StepError::Schedule { name: Some(setter), schedule, argument, value, accepted })
            }
            other => other,
        }
    }

    /// The same error of a hyper-parameter, with the group that it is from and a tensor of the group.
    pub(crate) fn in_group(self, path: Option<String>, pattern: String) -> Self {
        match self {
            Self::Step(StepError::HyperParameter { name, value, step, accepted, .. }) => {
                Self::Step(StepError::HyperParameter { name, value, step, path, pattern: Some(pattern), accepted })
            }
            other => other,
        }
    }

    /// The same error with other words for the accepted values, where a range in numbers would mislead.
    pub(crate) fn accepting(self, accepted: &str) -> Self {
        match self {
            Self::Step(StepError::HyperParameter { name, value, step, path, pattern, .. }) => {
                Self::Step(StepError::HyperParameter { name, value, step, path, pattern, accepted: accepted.into() })
            }
            other => other,
        }
    }
}
