//! Which setting an error of the library is about.

use crate::error::{ArgumentError, ConfigError, ConfigProblem, Error, StepError, nearest};

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

/// The error, but the key that nothing is called may also be one of these.
pub(crate) fn or_similar(mut error: Error, others: impl Iterator<Item = &'static str>) -> Error {
    if let Error::Config(ConfigError { problem, .. }) = &mut error
        && let ConfigProblem::UnknownKey { key, similar, known, .. } = &mut **problem
    {
        let mut names: Vec<&str> = known.iter().map(String::as_str).collect();
        others.for_each(|name| names.push(name));
        *similar = nearest(key, names.into_iter());
    }
    error
}
