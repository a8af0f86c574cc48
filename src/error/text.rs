//! Paths, numbers and lists as error messages show them.

use std::fmt;

use crate::kernel::level::Level;

/// A path as it is shown: the root's empty path gets a name.
pub(crate) struct Name<'a>(pub(crate) &'a str);

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            "" => f.write_str("(root)"),
            path => write!(f, "\"{path}\""),
        }
    }
}

/// SIMD levels by name.
pub(super) struct Levels<'a>(pub(super) &'a [Level]);

impl fmt::Display for Levels<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.0.iter().map(|level| level.name()).collect();
        f.write_str(&names.join(", "))
    }
}

/// At most eight paths: enough to see what they look like.
pub(super) struct List<'a>(pub(super) &'a [String]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 8;
        for (i, path) in self.0.iter().take(SHOWN).enumerate() {
            write!(f, "{}{}", if i == 0 { "" } else { ", " }, Name(path))?;
        }
        match self.0.len().checked_sub(SHOWN) {
            None | Some(0) => Ok(()),
            Some(more) => write!(f, " and {more} more"),
        }
    }
}

/// A number, with an exponent if it has many zeros.
pub(super) struct Number(pub(super) f64);

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(value) = *self;
        match value == 0.0 || (1e-5..1e16).contains(&value.abs()) {
            true => write!(f, "{value}"),
            false => write!(f, "{value:e}"),
        }
    }
}

/// The group that a value is from.
pub(super) fn of_group(pattern: &Option<String>) -> String {
    pattern.as_ref().map_or_else(String::new, |pattern| format!(" in the group {pattern:?}"))
}

/// How a tensor differs in two trees.
pub(super) fn difference(first: &Option<Vec<usize>>, second: &Option<Vec<usize>>) -> String {
    match (first, second) {
        (Some(first), Some(second)) => format!("has shape {first:?} in the first tree and {second:?} in the second"),
        (Some(_), None) => "is only in the first tree".into(),
        _ => "is only in the second tree".into(),
    }
}

/// The hint for a name that may have been meant.
pub(super) fn meant(similar: &[String]) -> String {
    similar.first().map_or_else(String::new, |name| format!(" (did you mean {name:?}?)"))
}

/// The hint for a pattern that is the name of a subtree.
pub(super) fn subtree(pattern: &str, paths: &[String]) -> String {
    let below = |path: &String| path.strip_prefix(pattern).is_some_and(|rest| rest.starts_with('.'));
    match paths.iter().any(below) {
        true => format!(" (for the whole subtree, write \"{pattern}.**\")"),
        false => String::new(),
    }
}

/// The hint for an adaptor inside `sharded`.
pub(super) fn instead(name: &str) -> String {
    match name {
        "sharded" => "write one `sharded`, over the group of all ranks".into(),
        _ => format!("write it after: `.sharded(group).{name}(…)`"),
    }
}

/// The value to which an element type rounds a number.
pub(super) fn rounded(value: f64) -> &'static str {
    match value.abs() {
        small if small < 1.0 => "0",
        large if large >= 1.0 => "infinite",
        _ => "NaN",
    }
}

pub(super) fn at_index(index: &[usize]) -> String {
    if index.is_empty() { String::new() } else { format!(" at index {index:?}") }
}

pub(super) fn at_tensor(path: &Option<String>) -> String {
    path.as_ref().map(|path| format!(" for {}", Name(path))).unwrap_or_default()
}

/// The hyper-parameter that a schedule was given for.
pub(super) fn of_setter(name: &Option<&str>) -> String {
    name.map(|name| format!("{name}: ")).unwrap_or_default()
}

/// The rows that a query weight must have, or with the rows of its heads a key weight.
pub(super) fn of_heads(heads: usize, head_rows: Option<usize>) -> String {
    match head_rows {
        None => format!("a multiple of {heads}"),
        Some(rows) => format!("{rows} times the number of key heads, which divides {heads}"),
    }
}

/// The hint for a name that may be misspelled.
pub(super) fn similar_names(names: &[String]) -> String {
    if names.is_empty() { String::new() } else { format!("; similar names are {}", List(names)) }
}
