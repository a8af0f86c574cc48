//! Which setting an error of the library is about.

use crate::error::{ArgumentError, Error, StepError};

/// The setting that an error is about; `None` for an error that depends on the tensors.
pub(crate) fn named(error: &Error) -> Option<&str> {
    match error {
        Error::Step(StepError::HyperParameter { name, .. }) => Some(name),
        Error::Step(StepError::UnknownHyperParameter { name, .. } | StepError::NotInGroup { name, .. }) => Some(name),
        Error::Step(StepError::Schedule { argument, .. }) => Some(argument),
        Error::Step(StepError::OptionNotPossible { option, .. }) => Some(option),
        Error::Step(StepError::PatternSyntax { .. }) => Some("pattern"),
        Error::Argument(
            ArgumentError::Range { argument, .. }
            | ArgumentError::Zero { argument }
            | ArgumentError::Empty { argument }
            | ArgumentError::NotFinite { argument, .. },
        ) => Some(argument),
        _ => None,
    }
}
