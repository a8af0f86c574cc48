//! The settings of one optimizer, schedule or adaptor in a document.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::{Value as Json, json};

use super::item::{Content, Item};
use super::reader::{ItemReader, join};
use super::refusal::named;
use super::shape::{self, Field};
use crate::error::{ConfigError, ConfigProblem, Error, Result, nearest};
use crate::schedule::{Hyper, Plateau, Schedule};

/// Makes a schedule of its settings.
pub(crate) type MakeSchedule = Arc<dyn Fn(&mut Settings<'_>) -> Result<Box<dyn Schedule>> + Send + Sync>;

/// Makes a schedule of another one and the combinator's settings.
pub(crate) type Combine = fn(Box<dyn Schedule>, &mut Settings<'_>) -> Result<Box<dyn Schedule>>;

/// The schedules that a document may name, and the plateaus among those that it has named.
pub(crate) struct Schedules<'r> {
    pub(crate) all: &'r BTreeMap<String, MakeSchedule>,
    pub(crate) combinators: &'r [(&'static str, Combine)],
    pub(crate) plateaus: RefCell<Vec<(String, Plateau)>>,
}

/// The settings of one optimizer, schedule or adaptor: the argument of what is registered in a [`Registry`](super::Registry).
///
/// Ask for each setting once, by its key. A key that you do not ask for is an error that lists the keys you did ask for. If the value in the document
/// is not a table, it is that of the first key asked for: `clip_global_norm = 1.0` is `clip_global_norm = { max_norm = 1.0 }`. Two values of an
/// adaptor are special: `true` is a table without keys, and `false` leaves the adaptor out.
///
/// The function is also called without a document: for the [schema](super::Registry::schema), and before the real call in
/// [`build`](super::Registry::build). Every setting has then some value, and optional ones are absent. The function must have no side effects, and ask
/// for all its keys then: see [`is_schema`](Self::is_schema).
pub struct Settings<'s> {
    source: Source<'s>,
    pub(super) owner: String,
    pub(super) asked: Vec<Field>,
    /// Whether any other key is a hyper-parameter.
    open: bool,
    /// All that will be asked for.
    known: Vec<String>,
}

enum Source<'s> {
    Document { item: &'s Item, line: Option<usize>, path: String, schedules: &'s Schedules<'s>, others: Vec<&'s str> },
    Schema,
}

/// What is accepted where there is nothing to set.
const NO_SETTING: &str = "true or false";

/// A table without settings.
static EMPTY: Item = Item { line: None, content: Content::Table(Vec::new()) };

/// The schema of a hyper-parameter.
fn hyper_shape() -> Json {
    json!({"$ref": "#/$defs/hyper"})
}

impl fmt::Debug for Settings<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let asked: Vec<_> = self.asked.iter().map(|field| &field.key).collect();
        f.debug_struct("Settings").field("of", &self.owner).field("path", &self.path()).field("asked", &asked).finish()
    }
}

impl<'s> Settings<'s> {
    /// Those of what is called `owner`; keys in `others` are read elsewhere.
    pub(crate) fn new(
        (item, path): (&'s Item, String),
        owner: &str,
        schedules: &'s Schedules<'s>,
        others: Vec<&'s str>,
    ) -> Self {
        let line = item.line;
        let item = if item.content == Content::Flag(true) { &EMPTY } else { item };
        let source = Source::Document { item, line, path, schedules, others };
        Self { source, owner: owner.to_owned(), asked: Vec::new(), open: false, known: Vec::new() }
    }

    /// Settings without a document, which note what is asked for.
    pub(crate) fn schema() -> Self {
        Self { source: Source::Schema, owner: String::new(), asked: Vec::new(), open: false, known: Vec::new() }
    }

    /// All that a function asks for, and whether it takes any other hyper-parameter.
    pub(crate) fn known(make: impl FnOnce(&mut Self) -> Result<()>) -> (Vec<String>, bool) {
        let mut settings = Self::schema();
        // What it asks for before an error is known, too.
        _ = make(&mut settings);
        (settings.asked.into_iter().map(|field| field.key).collect(), settings.open)
    }

    pub(crate) fn with_known(self, (known, open): (Vec<String>, bool)) -> Self {
        Self { known, open, ..self }
    }

    /// The path of these settings in the document, such as `optimizer` or `then.0.ema`; empty without a document.
    pub fn path(&self) -> &str {
        match &self.source {
            Source::Document { path, .. } => path,
            Source::Schema => "",
        }
    }

    /// A hyper-parameter that has to be there: a number or a schedule.
    ///
    /// # Errors
    /// [`Error::Config`] if it is not there, or is something else.
    pub fn hyper(&mut self, key: &str) -> Result<Hyper> {
        let found = self.optional_item(key, hyper_shape(), true);
        match found {
            Some((item, path)) => self.schedules()?.hyper(item, &path),
            None if self.is_schema() => Ok(Hyper::from(1.0)),
            None => Err(self.missing(key)),
        }
    }

    /// A hyper-parameter that has a default.
    ///
    /// # Errors
    /// [`Error::Config`] if it is neither a number nor a schedule.
    pub fn optional_hyper(&mut self, key: &str) -> Result<Option<Hyper>> {
        let found = self.optional_item(key, hyper_shape(), false);
        found.map(|(item, path)| self.schedules()?.hyper(item, &path)).transpose()
    }

    /// A schedule that has to be there; a number is the constant schedule.
    ///
    /// # Errors
    /// [`Error::Config`] if it is not there, or is something else.
    pub fn schedule(&mut self, key: &str) -> Result<Box<dyn Schedule>> {
        let found = self.optional_item(key, hyper_shape(), true);
        match found {
            Some((item, path)) => self.schedules()?.schedule(item, &path),
            None if self.is_schema() => Ok(Box::new(1.0)),
            None => Err(self.missing(key)),
        }
    }

    /// A setting of any type that has to be there: `f64`, `u64`, `bool`, `String`, [`Pattern`](crate::Pattern), or your own.
    ///
    /// A count may be written `1e4`, and an infinite number `"inf"`.
    ///
    /// # Errors
    /// [`Error::Config`] if it is not there, or is something else.
    pub fn get<T: DeserializeOwned>(&mut self, key: &str) -> Result<T> {
        if self.is_schema() {
            let (shape, value) = shape::of::<T>();
            _ = self.optional_item(key, shape, true);
            return value.map_err(|fault| Error::Config(fault.of("")));
        }
        match self.optional_item(key, Json::Null, true) {
            Some((item, path)) => self.deserialized(item, path),
            None => Err(self.missing(key)),
        }
    }

    /// A setting of any type that has a default.
    ///
    /// # Errors
    /// [`Error::Config`] if it is something else.
    pub fn optional<T: DeserializeOwned>(&mut self, key: &str) -> Result<Option<T>> {
        let shape = if self.is_schema() { shape::of::<T>().0 } else { Json::Null };
        self.optional_item(key, shape, false).map(|(item, path)| self.deserialized(item, path)).transpose()
    }

    /// Returns an error if there is a value for something that cannot be set in a file; `instead` says why and what to do.
    pub(crate) fn only_in_code(&self, key: &str, instead: &str) -> Result<()> {
        let Source::Document { item, path, .. } = &self.source else { return Ok(()) };
        let Some(found) = item.get(key) else { return Ok(()) };
        let problem = ConfigProblem::OnlyInCode { name: key.to_owned(), instead: instead.to_owned() };
        Err(Error::Config(ConfigError::new(join(path, key), found.line, problem)))
    }

    /// All settings at once, as a struct that serde can read.
    ///
    /// # Errors
    /// [`Error::Config`] with the key that is missing or wrong.
    pub fn read<T: DeserializeOwned>(&mut self) -> Result<T> {
        let fields = shape::fields_of::<T>();
        let Source::Document { item, line, path, others, .. } = &self.source else {
            self.asked.extend(fields);
            return shape::of::<T>().1.map_err(|fault| Error::Config(fault.of("")));
        };
        let is_own = |key: &str| !others.contains(&key) || fields.iter().any(|field| field.key == key);
        let entries = item.table().ok_or_else(|| self.wrong_kind("a table"))?;
        let own = entries.iter().filter(|(key, _)| is_own(key)).cloned().collect();
        let own = Item { line: *line, content: Content::Table(own) };
        let read =
            T::deserialize(ItemReader::new(&own, path.clone())).map_err(|fault| Error::Config(fault.of(&self.owner)));
        self.asked.extend(fields);
        read
    }

    /// All settings that have not been asked for, as hyper-parameters.
    ///
    /// # Errors
    /// [`Error::Config`] if one is neither a number nor a schedule.
    pub fn other_hypers(&mut self) -> Result<Vec<(String, Hyper)>> {
        self.open = true;
        let others: Vec<_> = self.unasked().map(|(key, _)| key.clone()).collect();
        let hyper = |key: String| Ok(self.optional_hyper(&key)?.map(|hyper| (key, hyper)));
        others.into_iter().map(hyper).filter_map(Result::transpose).collect()
    }

    /// Whether there is no document, and the keys that are asked for are only noted. A function that needs one of two settings asks for both first, and
    /// returns anything if this is `true`.
    pub fn is_schema(&self) -> bool {
        matches!(self.source, Source::Schema)
    }

    /// The item of a key, and its path.
    pub(crate) fn optional_item(&mut self, key: &str, shape: Json, required: bool) -> Option<(&'s Item, String)> {
        let is_first = self.asked.is_empty();
        match self.asked.iter_mut().find(|field| field.key == key) {
            Some(field) => field.required |= required,
            None => self.asked.push(Field { key: key.to_owned(), shape, required }),
        }
        let Source::Document { item, path, .. } = &self.source else { return None };
        match item.table() {
            Some(_) => item.get(key).map(|found| (found, join(path, key))),
            None => is_first.then(|| (*item, path.clone())),
        }
    }

    /// The item of a key that has to be there, and its path.
    pub(crate) fn item(&mut self, key: &str) -> Result<(&'s Item, String)> {
        self.optional_item(key, Json::Bool(true), true).ok_or_else(|| self.missing(key))
    }

    fn schedules(&self) -> Result<&'s Schedules<'s>> {
        match &self.source {
            Source::Document { schedules, .. } => Ok(schedules),
            Source::Schema => Err(self.missing("schedule")),
        }
    }

    pub(super) fn deserialized<T: DeserializeOwned>(&self, item: &Item, path: String) -> Result<T> {
        let read = T::deserialize(ItemReader::new(item, path.clone()));
        read.map_err(|fault| Error::Config(fault.at(&path, item.line).of(&self.owner)))
    }

    /// Remembers a plateau, so that its metric can be observed.
    pub(crate) fn keep(&self, plateau: &Plateau) {
        if let Source::Document { path, schedules, .. } = &self.source {
            schedules.plateaus.borrow_mut().push((path.clone(), plateau.clone()));
        }
    }

    /// The entries that were not asked for.
    fn unasked(&self) -> impl Iterator<Item = &'s (String, Item)> + use<'_, 's> {
        let (entries, others) = match &self.source {
            Source::Document { item, others, .. } => (item.table().unwrap_or_default(), others.as_slice()),
            Source::Schema => (&[][..], &[][..]),
        };
        let is_asked = |key: &str| self.asked.iter().any(|field| field.key == key);
        entries.iter().filter(move |(key, _)| !is_asked(key) && !others.contains(&key.as_str()))
    }

    /// Returns an error if there is more than what was asked for.
    pub(crate) fn finish(&self) -> Result<()> {
        let Some((key, item)) = self.unasked().next() else { return self.ensure_used() };
        let known: Vec<String> = self.asked.iter().map(|field| field.key.clone()).collect();
        if !known.is_empty() {
            return Err(self.unknown(key, item, &known));
        }
        Err(item.wrong_with(&join(self.path(), key), format!("the setting {key:?}"), NO_SETTING))
    }

    /// Returns an error if there is a value where nothing was asked for.
    fn ensure_used(&self) -> Result<()> {
        match &self.source {
            Source::Document { item, .. } if item.table().is_none() && self.asked.is_empty() => {
                Err(self.wrong_kind(NO_SETTING))
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn into_fields(self) -> (Vec<Field>, bool) {
        (self.asked, self.open)
    }

    /// The error that a key is not there, or that another is in its place.
    pub(crate) fn missing(&self, key: &str) -> Error {
        let is_closed = !self.known.is_empty() && !self.open;
        let own = [key.to_owned()];
        let known = if self.known.is_empty() { &own } else { self.known.as_slice() };
        let is_meant = |(other, _): &&(String, Item)| match is_closed {
            true => !known.contains(other),
            false => !nearest(other, [key].into_iter()).is_empty(),
        };
        match self.unasked().find(is_meant) {
            Some((other, item)) => self.unknown(other, item, known),
            None => self.error(ConfigProblem::MissingKey { key: key.to_owned(), owner: self.owner.clone() }),
        }
    }

    fn unknown(&self, key: &str, item: &Item, known: &[String]) -> Error {
        let similar = nearest(key, known.iter().map(String::as_str));
        let (owner, known) = (self.owner.clone(), known.to_vec());
        let problem = ConfigProblem::UnknownKey { key: key.to_owned(), owner, similar, known };
        Error::Config(ConfigError::new(join(self.path(), key), item.line, problem))
    }

    pub(crate) fn wrong_kind(&self, accepted: &str) -> Error {
        let found = match &self.source {
            Source::Document { item, .. } => item.content.to_string(),
            Source::Schema => String::new(),
        };
        self.error(ConfigProblem::WrongKind { found, accepted: accepted.to_owned() })
    }

    /// An error at the place of these settings.
    pub(crate) fn error(&self, problem: ConfigProblem) -> Error {
        let line = match &self.source {
            Source::Document { line, .. } => *line,
            Source::Schema => None,
        };
        Error::Config(ConfigError::new(self.path().to_owned(), line, problem))
    }

    /// The error of what these settings are of, with the place of the key that it names.
    pub(crate) fn refused(&self, error: Error) -> Error {
        if matches!(error, Error::Config(_) | Error::Setting { .. }) {
            return error;
        }
        let (path, reason) = (self.path().to_owned(), Box::new(error));
        let Source::Document { item, line, .. } = &self.source else {
            return Error::Setting { path, line: None, reason };
        };
        match named(&reason).and_then(|name| item.find(name)) {
            Some((below, own)) => Error::Setting { path: join(&path, &below), line: own.or(*line), reason },
            None => Error::Setting { path, line: *line, reason },
        }
    }
}

/// Nothing of this kind has this name.
pub(crate) fn unknown_name<'n>(
    kind: &'static str,
    name: &str,
    known: impl Iterator<Item = &'n str> + Clone,
) -> ConfigProblem {
    let similar = nearest(name, known.clone());
    ConfigProblem::UnknownName { kind, name: name.to_owned(), similar, known: known.map(str::to_owned).collect() }
}
