//! Names of modules, matched as peft matches them.

use regex_lite::Regex;
use serde_json::{Value, json};

use crate::error::{Error, Result, StateError};

/// The file of the settings.
pub(super) const CONFIG: &str = "adapter_config.json";

/// A choice of modules by name: the setting `target_modules` of `peft`.
///
/// | choice | modules |
/// |---|---|
/// | `Names` | those whose name is in the list, or ends with a dot and a name of the list |
/// | `Regex` | those whose whole name the regular expression matches |
/// | `AllLinear` | all linear layers: `"all-linear"` in `peft` |
///
/// Arrays and `Vec`s of names are converted. Regular expressions have the syntax of the crate
/// [`regex-lite`](https://docs.rs/regex-lite/latest/regex_lite/#syntax), which is that of Python's `re` without look-around, back-references and Unicode
/// classes. They take linear time.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Targets {
    /// Names, or ends of names.
    Names(Vec<String>),
    /// A regular expression for the whole name.
    Regex(String),
    /// All linear layers.
    AllLinear,
}

impl Targets {
    /// The modules whose whole name this regular expression matches.
    pub fn regex(pattern: impl Into<String>) -> Self {
        Self::Regex(pattern.into())
    }

    /// Whether this is a choice of a module.
    pub(super) fn chooses(&self, key: &'static str, module: &str) -> Result<bool> {
        match self {
            Self::Names(names) => Ok(names.iter().any(|name| is_end_of(name, module))),
            Self::Regex(pattern) => Ok(compile(key, pattern, format!("^(?:{pattern})$"))?.is_match(module)),
            Self::AllLinear => Ok(true),
        }
    }

    /// From the value of a setting; `None` for a value that is no choice.
    pub(super) fn read(value: &Value) -> Option<Self> {
        match value {
            Value::String(text) if text.eq_ignore_ascii_case(ALL_LINEAR) => Some(Self::AllLinear),
            Value::String(pattern) => Some(Self::Regex(pattern.clone())),
            Value::Array(_) => list_of_names(value).map(Self::Names),
            _ => None,
        }
    }

    pub(super) fn write(&self) -> Value {
        match self {
            Self::Names(names) => json!(names),
            Self::Regex(pattern) => json!(pattern),
            Self::AllLinear => json!(ALL_LINEAR),
        }
    }
}

impl<const N: usize> From<[&str; N]> for Targets {
    fn from(names: [&str; N]) -> Self {
        Self::Names(names.map(String::from).into())
    }
}

impl From<&[&str]> for Targets {
    fn from(names: &[&str]) -> Self {
        Self::Names(names.iter().copied().map(String::from).collect())
    }
}

impl From<Vec<String>> for Targets {
    fn from(names: Vec<String>) -> Self {
        Self::Names(names)
    }
}

const ALL_LINEAR: &str = "all-linear";

/// The names in a list, or the only one.
pub(super) fn list_of_names(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::Null => Some(Vec::new()),
        Value::String(name) => Some(vec![name.clone()]),
        Value::Array(list) => list.iter().map(|name| name.as_str().map(String::from)).collect(),
        _ => None,
    }
}

/// Whether the name is the module's, or its end after a dot.
fn is_end_of(name: &str, module: &str) -> bool {
    module.strip_suffix(name).is_some_and(|before| before.is_empty() || before.ends_with('.'))
}

/// The value of the first pattern that matches the module: `(.*\.)?(pattern)$`.
pub(super) fn first_match<'p, T>(
    key: &'static str,
    patterns: &'p [(String, T)],
    module: &str,
) -> Result<Option<&'p T>> {
    for (pattern, value) in patterns {
        let matches = match matches_plain(pattern, module) {
            Some(matches) => matches,
            None => compile(key, pattern, format!(r"^(?:.*\.)?(?:{pattern})$"))?.is_match(module),
        };
        if matches {
            return Ok(Some(value));
        }
    }
    Ok(None)
}

/// What [`first_match`] finds out for a pattern that is a name, in which a dot stands for any character. Files of some initializations
/// have such a pattern for each module, and regular expressions would be compiled for each pair of them.
fn matches_plain(pattern: &str, module: &str) -> Option<bool> {
    let is_plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    if !is_plain(pattern) || !is_plain(module) {
        return None;
    }
    let Some((before, end)) = module.len().checked_sub(pattern.len()).map(|at| module.split_at(at)) else {
        return Some(false);
    };
    let same = pattern.bytes().zip(end.bytes()).all(|(expected, found)| expected == b'.' || expected == found);
    Some(same && (before.is_empty() || before.ends_with('.')))
}

/// The number of the layer that a module is in: that of the first list whose name is among `lists`, or of the first list.
pub(super) fn layer_of(lists: &[String], module: &str) -> Result<Option<u64>> {
    const KEY: &str = "layers_pattern";
    let number = |list: &str| {
        let found = compile(KEY, list, format!(r"^.*?\.(?:{list})\.(\d+)\."))?.captures(module);
        Ok(found.and_then(|found| found.get(1)?.as_str().parse().ok()))
    };
    if lists.is_empty() {
        return number(r"[^.]*");
    }
    for list in lists {
        if let Some(layer) = number(list)? {
            return Ok(Some(layer));
        }
    }
    Ok(None)
}

/// Whether a tensor belongs to a module that is saved whole: one whose name ends with a name of the list.
pub(super) fn is_in_module(names: &[String], tensor: &str) -> bool {
    let ends = tensor.match_indices('.').map(|(at, _)| at);
    ends.filter_map(|end| tensor.get(..end)).any(|module| names.iter().any(|name| module.ends_with(name.as_str())))
}

/// Whether a module is saved whole, or is inside one that is. Such a module has no adapter.
pub(super) fn is_saved_whole(names: &[String], module: &str) -> bool {
    let has = |name: &String| {
        let segments = |text: &str| text.split('.').map(String::from).collect::<Vec<_>>();
        let (name, module) = (segments(name), segments(module));
        !name.is_empty() && module.windows(name.len()).any(|part| part == name)
    };
    names.iter().any(has)
}

/// A regular expression, or an error that names the setting.
fn compile(key: &'static str, pattern: &str, whole: String) -> Result<Regex> {
    Regex::new(&whole).map_err(|_| {
        Error::State(StateError::EntryValue {
            key: format!("{}/{key}", CONFIG),
            value: pattern.into(),
            accepted: "a regular expression without look-around and back-references",
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_a_list_is_an_end_after_a_dot() {
        let targets = Targets::from(["q_proj", "mlp.up"]);
        for (module, expected) in [
            ("q_proj", true),
            ("layers.0.q_proj", true),
            ("layers.0.xq_proj", false),
            ("layers.0.mlp.up", true),
            ("layers.0.up", false),
            ("layers.0.q_proj.inner", false),
        ] {
            assert_eq!(targets.chooses("target_modules", module), Ok(expected), "{module}");
        }
    }

    #[test]
    fn a_regular_expression_matches_the_whole_name() {
        let targets = Targets::regex(r".*\.(q|v)_proj|head");
        for (module, expected) in [
            ("layers.0.q_proj", true),
            ("layers.0.q_proj.inner", false),
            ("q_proj", false),
            ("head", true),
            ("layers.head", false),
        ] {
            assert_eq!(targets.chooses("target_modules", module), Ok(expected), "{module}");
        }
        let error = Targets::regex("(?!vision).*").chooses("target_modules", "a").unwrap_err().to_string();
        assert_eq!(
            error,
            "entry \"adapter_config.json/target_modules\" is \"(?!vision).*\"; it must be a regular expression without look-around and back-references"
        );
    }

    #[test]
    fn plain_patterns_match_as_their_regular_expressions() {
        let names = ["a.q", "b.a.q", "ba.q", "a_q", "x.a_q", "q", "aq", "a.qq", ""];
        for pattern in ["a.q", "q", "a.qq", "", "a-q"] {
            let regex = Regex::new(&format!(r"^(?:.*\.)?(?:{pattern})$")).unwrap();
            for name in names {
                assert_eq!(matches_plain(pattern, name), Some(regex.is_match(name)), "{pattern} on {name}");
            }
        }
        assert_eq!(matches_plain("^a.q", "a.q"), None);
        let patterns = [("^q".to_owned(), 1), ("q".to_owned(), 2)];
        assert_eq!(first_match("rank_pattern", &patterns, "q"), Ok(Some(&1)));
        assert_eq!(first_match("rank_pattern", &patterns, "a.q"), Ok(Some(&2))); // `^` does not match after a dot
        assert_eq!(first_match("rank_pattern", &patterns, "aq"), Ok(None));
    }

    #[test]
    fn layers_by_the_first_number() {
        let layer =
            |lists: &[&str], module| layer_of(&lists.iter().copied().map(String::from).collect::<Vec<_>>(), module);
        assert_eq!(layer(&[], "model.layers.3.experts.1.up"), Ok(Some(3)));
        assert_eq!(layer(&["experts"], "model.layers.3.experts.1.up"), Ok(Some(1)));
        assert_eq!(layer(&["h"], "model.layers.3.up"), Ok(None));
        assert_eq!(layer(&[], "head"), Ok(None));
    }

    #[test]
    fn tensors_of_modules_that_are_saved() {
        let names = ["classifier".to_owned()];
        assert!(is_in_module(&names, "classifier.dense.weight"));
        assert!(is_in_module(&names, "model.my_classifier.bias")); // the end of a name, also within a word
        assert!(!is_in_module(&names, "dense.weight"));
        assert!(is_saved_whole(&names, "model.classifier.dense") && !is_saved_whole(&names, "model.my_classifier"));
    }
}
