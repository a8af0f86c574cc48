//! Patterns: which tensors an adaptor speaks of.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::params::{Layout, TensorInfo};

/// Chooses tensors by path, or by path and shape.
///
/// A string is a glob over the dotted path:
///
/// | glob | matches |
/// |---|---|
/// | `head.bias` | this one path |
/// | `*` inside a segment | any characters but a dot: `layers.*.bias`, `*norm*` |
/// | `**` as a segment | any number of segments, also none: `**.bias`, `encoder.**` |
/// | `?` | one character but a dot |
/// | `{a,b}` | either: `**.{bias,gain}` |
///
/// A list of globs, `["**.bias", "**.*norm*.**"]`, matches what any of them does. A closure
/// `|path: &str, shape: &[usize]| shape.len() < 2` decides for itself; its types have to be written.
///
/// A pattern that matches no tensor is an error at the first step, so that a misspelt name does not pass silently; of a
/// list every glob must match.
#[derive(Clone)]
pub struct Pattern(Kind);

#[derive(Clone)]
enum Kind {
    Globs(Vec<String>),
    Closure(Arc<Closure>),
}

/// Decides by path and shape.
type Closure = dyn Fn(&str, &[usize]) -> bool + Send + Sync;

impl From<&str> for Pattern {
    fn from(glob: &str) -> Self {
        Self(Kind::Globs(vec![glob.into()]))
    }
}

impl From<String> for Pattern {
    fn from(glob: String) -> Self {
        Self(Kind::Globs(vec![glob]))
    }
}

impl<const N: usize> From<[&str; N]> for Pattern {
    fn from(globs: [&str; N]) -> Self {
        Self(Kind::Globs(globs.map(String::from).into()))
    }
}

impl From<&[&str]> for Pattern {
    fn from(globs: &[&str]) -> Self {
        Self(Kind::Globs(globs.iter().copied().map(String::from).collect()))
    }
}

impl From<Vec<String>> for Pattern {
    fn from(globs: Vec<String>) -> Self {
        Self(Kind::Globs(globs))
    }
}

impl<F: Fn(&str, &[usize]) -> bool + Send + Sync + 'static> From<F> for Pattern {
    fn from(closure: F) -> Self {
        Self(Kind::Closure(Arc::new(closure)))
    }
}

impl Pattern {
    /// Whether the pattern chooses a tensor of this path and shape.
    ///
    /// ```
    /// use gradus::Pattern;
    ///
    /// let norms_and_biases = Pattern::from(["**.bias", "**.*norm*.**"]);
    /// assert!(norms_and_biases.matches("layers.0.bias", &[8]));
    /// assert!(norms_and_biases.matches("layers.0.layer_norm.gain", &[8]));
    /// assert!(!norms_and_biases.matches("layers.0.weight", &[8, 8]));
    /// ```
    pub fn matches(&self, path: &str, shape: &[usize]) -> bool {
        match &self.0 {
            Kind::Globs(globs) => globs.iter().any(|glob| expand(glob).iter().any(|glob| matches(glob, path))),
            Kind::Closure(closure) => closure(path, shape),
        }
    }

    /// Which tensors of a layout are chosen.
    pub(crate) fn select(&self, layout: &Layout) -> Result<Vec<bool>> {
        if let Kind::Globs(globs) = &self.0 {
            globs.iter().try_for_each(|glob| check(glob))?;
        }
        let of = |pattern: &Self| -> Result<Vec<bool>> {
            let chosen: Vec<_> = layout.tensors().iter().map(|tensor| pattern.chooses(tensor)).collect();
            if chosen.contains(&true) {
                return Ok(chosen);
            }
            let paths = layout.paths().map(String::from).collect();
            Err(Error::PatternUnmatched { pattern: format!("{pattern:?}"), paths })
        };
        if let Kind::Globs(globs) = &self.0 {
            // Each by itself: a misspelt one among others would pass silently.
            globs.iter().try_for_each(|glob| of(&Self::from(glob.as_str())).map(drop))?;
        }
        of(self)
    }

    fn chooses(&self, tensor: &TensorInfo) -> bool {
        self.matches(tensor.path(), tensor.shape())
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Globs(globs) => f.write_str(&globs.join(" ")),
            Kind::Closure(_) => f.write_str("a closure"),
        }
    }
}

/// A pattern with the tensors it chose from the layout last seen.
#[derive(Debug, Clone)]
pub(crate) struct Selection {
    pattern: Pattern,
    chosen: Option<(Arc<Layout>, Vec<bool>)>,
}

impl Selection {
    pub(crate) fn new(pattern: impl Into<Pattern>) -> Self {
        Self { pattern: pattern.into(), chosen: None }
    }

    /// Makes the choice for this layout.
    pub(crate) fn choose(&mut self, layout: &Arc<Layout>) -> Result<&[bool]> {
        let chosen = match self.chosen.take() {
            Some((known, chosen)) if Arc::ptr_eq(&known, layout) => chosen,
            _ => self.pattern.select(layout)?,
        };
        Ok(&self.chosen.insert((Arc::clone(layout), chosen)).1)
    }

    /// The path of the first tensor chosen.
    pub(crate) fn first(&self, layout: &Layout) -> Option<String> {
        layout.tensors().iter().find(|tensor| self.pattern.chooses(tensor)).map(|tensor| tensor.path().into())
    }

    /// The layout of the last choice.
    pub(crate) fn layout(&self) -> Option<&Arc<Layout>> {
        self.chosen.as_ref().map(|(layout, _)| layout)
    }

    /// The choice for this layout, not kept if it is a new one.
    pub(crate) fn peek(&self, layout: &Arc<Layout>) -> Result<Cow<'_, [bool]>> {
        match &self.chosen {
            Some((known, chosen)) if Arc::ptr_eq(known, layout) => Ok(Cow::Borrowed(chosen)),
            _ => self.pattern.select(layout).map(Cow::Owned),
        }
    }
}

/// Refuses globs that cannot mean anything.
fn check(glob: &str) -> Result<()> {
    let mut open = false;
    let mut reason = None;
    for character in glob.chars() {
        match (character, open) {
            ('{', true) => reason = reason.or(Some("braces do not nest")),
            ('{', false) => open = true,
            ('}', false) => reason = reason.or(Some("a closing brace without an opening one")),
            ('}', true) => open = false,
            _ => {}
        }
    }
    if open {
        reason = reason.or(Some("an opening brace without a closing one"));
    }
    match reason {
        Some(reason) => Err(Error::PatternSyntax { pattern: glob.into(), reason }),
        None => Ok(()),
    }
}

/// The globs without braces that a glob stands for.
fn expand(glob: &str) -> Vec<String> {
    let parts = glob.split_once('{').and_then(|(before, rest)| Some((before, rest.split_once('}')?)));
    match parts {
        None => vec![glob.into()],
        Some((before, (choices, after))) => choices
            .split(',')
            .flat_map(|choice| expand(after).into_iter().map(move |after| format!("{before}{choice}{after}")))
            .collect(),
    }
}

/// Whether a glob without braces matches a whole path.
fn matches(glob: &str, path: &str) -> bool {
    let segments = |text: &str| match text {
        "" => Vec::new(),
        text => text.split('.').map(str::to_owned).collect(),
    };
    matches_list(
        &segments(glob),
        &segments(path),
        |glob| glob == "**",
        |glob, segment| {
            let characters = |text: &str| text.chars().collect::<Vec<_>>();
            matches_list(&characters(glob), &characters(segment), |&c| c == '*', |&glob, &c| glob == '?' || glob == c)
        },
    )
}

/// Matches item by item; an item of `pattern` that is `any` matches any number of items.
fn matches_list<T>(pattern: &[T], items: &[T], any: impl Fn(&T) -> bool, one: impl Fn(&T, &T) -> bool) -> bool {
    let (mut at, mut item) = (0, 0);
    let mut retry = None;
    while item < items.len() {
        match pattern.get(at) {
            Some(part) if any(part) => {
                retry = Some((at, item));
                at += 1;
            }
            Some(part) if one(part, &items[item]) => {
                at += 1;
                item += 1;
            }
            _ => match retry {
                Some((any_at, matched)) => {
                    retry = Some((any_at, matched + 1));
                    at = any_at + 1;
                    item = matched + 1;
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(any)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs() {
        for (glob, path, expected) in [
            ("head.bias", "head.bias", true),
            ("head.bias", "head.biases", false),
            ("*.bias", "head.bias", true),
            ("*.bias", "layers.0.bias", false),
            ("*", "bias", true),
            ("*", "head.bias", false),
            ("**", "", true),
            ("**", "layers.0.bias", true),
            ("**.bias", "bias", true),
            ("**.bias", "layers.0.bias", true),
            ("**.bias", "layers.0.weight", false),
            ("layers.**.weight", "layers.weight", true),
            ("layers.**.weight", "layers.0.attention.weight", true),
            ("layers.**.weight", "layers.0.attention.bias", false),
            ("**.a.**.b", "a.x.a.b.c.b", true),
            ("**.*norm*.**", "layers.0.layer_norm.gain", true),
            ("layers.?.bias", "layers.3.bias", true),
            ("layers.?.bias", "layers.12.bias", false),
            ("layers.{0,12}.{weight,bias}", "layers.12.bias", true),
            ("layers.{0,12}.{weight,bias}", "layers.1.bias", false),
            ("l*e*", "le", true),
            ("l*e*x", "layer", false),
            ("", "", true),
            ("", "a", false),
        ] {
            assert_eq!(Pattern::from(glob).matches(path, &[]), expected, "{glob} on {path}");
        }
    }

    #[test]
    fn unbalanced_braces_are_refused() {
        for glob in ["a{b", "a}b", "{a{b}}"] {
            assert!(matches!(check(glob), Err(Error::PatternSyntax { .. })), "{glob}");
        }
        assert!(check("{a,b}.{c}").is_ok());
    }
}
