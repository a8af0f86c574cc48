//! Errors of configuration files.

use super::text::meant;

/// What is wrong in a configuration, and where: `optimizer.beta1 (line 3): …`.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{}: {problem}", place(.path, *.line))]
pub struct ConfigError {
    /// The place in the document: keys and indices joined by dots, such as `then.0.clip_global_norm.max_norm`. Empty for the whole document.
    pub path: String,
    /// The line; the first is 1. Only TOML that was read by [`Config::from_toml`](crate::config::Config::from_toml), and JSON that cannot be parsed, have one.
    pub line: Option<usize>,
    /// What is wrong.
    pub problem: Box<ConfigProblem>,
}

impl ConfigError {
    /// A problem at a place.
    pub fn new(path: impl Into<String>, line: Option<usize>, problem: ConfigProblem) -> Self {
        Self { path: path.into(), line, problem: Box::new(problem) }
    }
}

/// The place of an error, as its sentence begins.
pub(super) fn place(path: &str, line: Option<usize>) -> String {
    match (path, line) {
        ("", None) => "the configuration".to_owned(),
        ("", Some(line)) => format!("line {line}"),
        (path, None) => path.to_owned(),
        (path, Some(line)) => format!("{path} (line {line})"),
    }
}

/// Why a configuration is not accepted.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ConfigProblem {
    /// The text is not TOML or JSON, or a type that was read from it does not accept it.
    #[error("{reason}")]
    Unreadable {
        /// The reader's message.
        reason: String,
    },

    /// A key is not a setting.
    #[error("{owner} has no setting {key:?}{}; it has {}", meant(.similar), .known.join(", "))]
    UnknownKey {
        /// The key.
        key: String,
        /// The optimizer, schedule or adaptor, such as `"AdamW"`.
        owner: String,
        /// The most similar keys, at most three.
        similar: Vec<String>,
        /// All keys.
        known: Vec<String>,
    },

    /// A required setting is missing.
    #[error("{owner} needs the setting {key:?}")]
    MissingKey {
        /// The key.
        key: String,
        /// The optimizer, schedule or adaptor, such as `"Momentum"`.
        owner: String,
    },

    /// A value is of another kind.
    #[error("found {found}; it must be {accepted}")]
    WrongKind {
        /// What is there.
        found: String,
        /// What is accepted, in words.
        accepted: String,
    },

    /// Nothing has this name.
    #[error("there is no {kind} {name:?}{}; there are {}", meant(.similar), .known.join(", "))]
    UnknownName {
        /// What was looked for: `"optimizer"`, `"schedule"`, `"combinator"`, `"adaptor"` or `"choice"`.
        kind: &'static str,
        /// The name.
        name: String,
        /// The most similar names, at most three.
        similar: Vec<String>,
        /// All names.
        known: Vec<String>,
    },

    /// It exists, but cannot be described in a file.
    #[error("{name} cannot be set in a file: {instead}")]
    OnlyInCode {
        /// What was named.
        name: String,
        /// Why, and what to do instead.
        instead: String,
    },
}
