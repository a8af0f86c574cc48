//! Patterns: the choice of tensors that an adaptor applies to.

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

use crate::error::{Error, Result, StepError};
use crate::params::{Layout, TensorInfo};

/// Chooses tensors by path, or by path and shape. The argument of [`group`](crate::OptimizerExt::group),
/// [`freeze`](crate::OptimizerExt::freeze) and [`route`](crate::OptimizerExt::route).
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
/// A list of globs, `["**.bias", "**.*norm*.**"]`, matches a path if one of its globs does. Braces are short for a list: `{a,b}.{c,d}` is
/// `["a.c", "a.d", "b.c", "b.d"]`. Braces cannot be nested, and the list may have up to 1,024 globs.
///
/// A closure `|path: &str, shape: &[usize]| shape.len() < 2` can choose in any other way. Write the types of its arguments.
///
/// The path of a tree that is a single tensor is empty: `""` and `**` match it, `*` does not.
///
/// A pattern that matches no tensor is an error at the first step, so that a misspelled name is noticed. Every glob of a list, including
/// each glob that braces stand for, must match a tensor. An invalid glob is also reported at the first step; [`matches`](Self::matches)
/// returns `false` for it.
#[derive(Clone)]
pub struct Pattern(Kind);

#[derive(Clone)]
enum Kind {
    Globs(Vec<Glob>),
    Closure(Arc<Closure>),
}

/// A glob as it was given, and those without braces that it stands for, or why it cannot be read.
#[derive(Clone)]
struct Glob {
    text: String,
    plain: Result<Vec<String>, &'static str>,
}

impl Glob {
    fn new(text: impl Into<String>) -> Self {
        let text = text.into();
        Self { plain: expand(&text), text }
    }

    fn plain(&self) -> Result<&[String]> {
        match &self.plain {
            Ok(globs) => Ok(globs),
            Err(reason) => Err(Error::Step(StepError::PatternSyntax { pattern: self.text.clone(), reason })),
        }
    }
}

/// Decides by path and shape.
type Closure = dyn Fn(&str, &[usize]) -> bool + Send + Sync;

impl From<&str> for Pattern {
    fn from(glob: &str) -> Self {
        Self(Kind::Globs(vec![Glob::new(glob)]))
    }
}

impl From<String> for Pattern {
    fn from(glob: String) -> Self {
        Self(Kind::Globs(vec![Glob::new(glob)]))
    }
}

impl<const N: usize> From<[&str; N]> for Pattern {
    fn from(globs: [&str; N]) -> Self {
        Self(Kind::Globs(globs.map(Glob::new).into()))
    }
}

impl From<&[&str]> for Pattern {
    fn from(globs: &[&str]) -> Self {
        Self(Kind::Globs(globs.iter().copied().map(Glob::new).collect()))
    }
}

impl From<Vec<String>> for Pattern {
    fn from(globs: Vec<String>) -> Self {
        Self(Kind::Globs(globs.into_iter().map(Glob::new).collect()))
    }
}

impl<F: Fn(&str, &[usize]) -> bool + Send + Sync + 'static> From<F> for Pattern {
    fn from(closure: F) -> Self {
        Self(Kind::Closure(Arc::new(closure)))
    }
}

impl Pattern {
    /// Whether the pattern matches a tensor of this path and shape.
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
            Kind::Globs(globs) => globs.iter().flat_map(|glob| &glob.plain).flatten().any(|glob| matches(glob, path)),
            Kind::Closure(closure) => closure(path, shape),
        }
    }

    /// Which tensors of a layout are chosen.
    pub(crate) fn select(&self, layout: &Layout) -> Result<Vec<bool>> {
        let mut chosen = vec![false; layout.len()];
        // One glob after the other: a misspelt one among others would pass silently.
        let mut choose = |pattern: &str, matches: &dyn Fn(&TensorInfo) -> bool| {
            let mut unmatched = true;
            for (chosen, _) in chosen.iter_mut().zip(layout.tensors()).filter(|(_, tensor)| matches(tensor)) {
                (*chosen, unmatched) = (true, false);
            }
            let paths = || layout.paths().map(String::from).collect();
            if unmatched {
                Err(Error::Step(StepError::PatternUnmatched { pattern: pattern.into(), paths: paths() }))
            } else {
                Ok(())
            }
        };
        match &self.0 {
            Kind::Globs(globs) if !globs.is_empty() => {
                for glob in globs {
                    glob.plain()?.iter().try_for_each(|glob| choose(glob, &|tensor| matches(glob, tensor.path())))?;
                }
            }
            _ => choose(&format!("{self:?}"), &|tensor| self.chooses(tensor))?,
        }
        Ok(chosen)
    }

    /// The globs as they were given, if it is no closure.
    pub(crate) fn globs(&self) -> Option<Vec<&str>> {
        match &self.0 {
            Kind::Globs(globs) => Some(globs.iter().map(|glob| glob.text.as_str()).collect()),
            Kind::Closure(_) => None,
        }
    }

    /// For each glob a path that it matches.
    #[cfg(feature = "config")]
    pub(crate) fn examples(&self) -> impl Iterator<Item = String> {
        let globs = match &self.0 {
            Kind::Globs(globs) => globs.as_slice(),
            Kind::Closure(_) => &[],
        };
        let plain = globs.iter().flat_map(|glob| glob.plain.iter().flatten());
        plain.map(|glob| glob.replace("**", "x").replace(['*', '?'], "x"))
    }

    fn chooses(&self, tensor: &TensorInfo) -> bool {
        self.matches(tensor.path(), tensor.whole_shape())
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Globs(globs) => {
                f.write_str(&globs.iter().map(|glob| glob.text.as_str()).collect::<Vec<_>>().join(" "))
            }
            Kind::Closure(_) => f.write_str("a closure"),
        }
    }
}

/// A glob, or a list of them.
#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for Pattern {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Globs;

        impl<'de> serde::de::Visitor<'de> for Globs {
            type Value = Pattern;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a pattern: a text such as \"**.bias\", or a list of them")
            }

            fn visit_str<E>(self, glob: &str) -> Result<Pattern, E> {
                Ok(Pattern::from(glob))
            }

            fn visit_seq<S: serde::de::SeqAccess<'de>>(self, mut list: S) -> Result<Pattern, S::Error> {
                let mut globs: Vec<String> = Vec::new();
                while let Some(glob) = list.next_element()? {
                    globs.push(glob);
                }
                Ok(Pattern::from(globs))
            }
        }

        deserializer.deserialize_any(Globs)
    }
}

/// A pattern with the tensors it chose from the layout last seen.
#[derive(Debug, Clone)]
pub(crate) struct Selection {
    pattern: Pattern,
    chosen: RefCell<Option<Chosen>>,
}

/// A layout, and whether each of its tensors is chosen.
type Chosen = (Arc<Layout>, Arc<[bool]>);

impl Selection {
    pub(crate) fn new(pattern: impl Into<Pattern>) -> Self {
        Self { pattern: pattern.into(), chosen: RefCell::default() }
    }

    /// What chooses.
    pub(crate) fn pattern(&self) -> &Pattern {
        &self.pattern
    }

    /// Whether each tensor of this layout is chosen; found out once for each layout.
    pub(crate) fn choose(&self, layout: &Arc<Layout>) -> Result<Arc<[bool]>> {
        let mut known = self.chosen.borrow_mut();
        if let Some((_, chosen)) = known.as_ref().filter(|(known, _)| Arc::ptr_eq(known, layout)) {
            return Ok(Arc::clone(chosen));
        }
        let chosen: Arc<[bool]> = self.pattern.select(layout)?.into();
        *known = Some((Arc::clone(layout), Arc::clone(&chosen)));
        Ok(chosen)
    }

    /// The path of the first tensor chosen.
    pub(crate) fn first(&self, layout: &Layout) -> Option<String> {
        layout.tensors().iter().find(|tensor| self.pattern.chooses(tensor)).map(|tensor| tensor.path().into())
    }
}

/// The globs without braces that a glob stands for; bounded, as every pair of braces multiplies them.
fn expand(glob: &str) -> Result<Vec<String>, &'static str> {
    const MOST: usize = 1024;
    let mut globs = vec![String::new()];
    let mut rest = glob;
    while let Some((before, braced)) = rest.find(['{', '}']).map(|at| rest.split_at(at)) {
        let braced = braced.strip_prefix('{').ok_or("a closing brace without an opening one")?;
        let end = braced.find(['{', '}']).ok_or("an opening brace without a closing one")?;
        let (choices, closed) = braced.split_at(end);
        rest = closed.strip_prefix('}').ok_or("braces do not nest")?;
        let choices = choices.split(',');
        if globs.len() * choices.clone().count() > MOST {
            return Err("the braces stand for more than 1,024 globs");
        }
        let longer = |start: String| choices.clone().map(move |choice| format!("{start}{before}{choice}"));
        globs = globs.into_iter().flat_map(longer).collect();
    }
    globs.iter_mut().for_each(|glob| glob.push_str(rest));
    Ok(globs)
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
    fn braces_are_short_for_a_list() {
        assert_eq!(expand("{a,b}.x.{,c}d").unwrap(), ["a.x.d", "a.x.cd", "b.x.d", "b.x.cd"]);
        assert_eq!(expand("{a}").unwrap(), ["a"]);
    }

    #[test]
    fn braces_that_mean_nothing_are_refused() {
        for glob in ["a{b", "a}b", "{a{b}}", "a{b}}"] {
            assert!(matches!(Glob::new(glob).plain(), Err(Error::Step(StepError::PatternSyntax { .. }))), "{glob}");
            assert!(!Pattern::from(glob).matches(glob, &[]), "{glob}");
        }
    }

    #[test]
    fn many_braces_take_neither_memory_nor_time() {
        assert_eq!(expand(&"{a,b}".repeat(10)).map(|globs| globs.len()), Ok(1024));
        let hostile = "{a,b}".repeat(100);
        let message = Glob::new(&*hostile).plain().unwrap_err().to_string();
        assert!(message.ends_with("the braces stand for more than 1,024 globs"), "{message}");
        assert!(!Pattern::from(hostile).matches("a", &[]));
    }

    #[test]
    fn every_alternative_must_match() {
        let layout = Layout::new(["0.weight", "1.weight", "1.bias"].map(|path| TensorInfo::new(path, &[])).into());
        let select = |pattern: Pattern| pattern.select(layout.as_ref().unwrap());
        assert_eq!(select("{0,1}.weight".into()), Ok(vec![true, true, false]));
        assert_eq!(select(["1.{weight,bias}", "0.*"].into()), Ok(vec![true; 3]));
        for (pattern, unmatched) in [("{0,typo}.weight", "typo.weight"), ("{0,1}.{weight,bias}", "0.bias")] {
            match select(pattern.into()) {
                Err(Error::Step(StepError::PatternUnmatched { pattern, .. })) => assert_eq!(pattern, unmatched),
                other => panic!("{other:?}"),
            }
        }
        assert!(select(Vec::new().into()).is_err());
    }
}
