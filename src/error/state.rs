//! Errors of loading.

use super::text::{Name, similar_names};

/// Why saved parameters or a saved state do not fit what they are loaded into.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum StateError {
    /// The state is that of another optimizer.
    #[error("expected the state of {expected}, found {}", if .found.is_empty() { "an empty state".into() } else { format!("that of {}", .found.join(", ")) })]
    WrongAlgorithm {
        /// The node of the optimizer, such as `"adam"`.
        expected: String,
        /// The nodes of the state.
        found: Vec<String>,
    },

    /// An entry is missing.
    #[error("entry {} is missing{}", Name(.key), similar_names(.similar))]
    MissingEntry {
        /// The entry's name.
        key: String,
        /// Similar names among the entries of a file that belong to no parameter.
        similar: Vec<String>,
    },

    /// The optimizer or model has no place for an entry.
    #[error("unexpected entry {}: the {into} it is loaded into does not have it", Name(.key))]
    UnexpectedEntry {
        /// The entry's name.
        key: String,
        /// What it is loaded into, such as `"optimizer"`, `"model"` or `"adapter"`.
        into: &'static str,
    },

    /// A saved tensor has the wrong shape.
    #[error("entry {} has shape {found:?} where {expected:?} is needed", Name(.key))]
    EntryShape {
        /// The entry's name.
        key: String,
        /// The shape that it must have.
        expected: Vec<usize>,
        /// The shape that it has.
        found: Vec<usize>,
    },

    /// A saved tensor has the wrong element type.
    #[error("entry {} holds {found} where {expected} is needed", Name(.key))]
    EntryType {
        /// The entry's name.
        key: String,
        /// The type that it must have.
        expected: &'static str,
        /// The type that it has.
        found: &'static str,
    },

    /// A saved value is out of range, or cannot be read.
    #[error("entry {} is {value:?}; it must be {accepted}", Name(.key))]
    EntryValue {
        /// The entry's name.
        key: String,
        /// Its value, as text.
        value: String,
        /// The accepted values, in words.
        accepted: &'static str,
    },

    /// A setting that the state depends on differs from the saved one.
    #[error("the state was saved with {saved} and is loaded with {given}: {reason}")]
    SettingChanged {
        /// The setting when the state was saved.
        saved: String,
        /// The setting now.
        given: String,
        /// Why the state does not fit.
        reason: String,
    },

    /// The state of a parameter cannot follow a change of its rows.
    #[error("entry {} cannot follow a change of the parameter's rows; {instead}", Name(.key))]
    NotResizable {
        /// The entry's name, or that of the part of the chain.
        key: String,
        /// What to do instead.
        instead: &'static str,
    },

    /// The state of one rank is missing.
    #[error("the state of rank {rank} is missing: {found} states were given, and those of all {size} ranks are needed")]
    MissingRank {
        /// The first rank that is missing.
        rank: usize,
        /// The number of ranks.
        size: usize,
        /// The number of states.
        found: usize,
    },
}
