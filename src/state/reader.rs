//! Reading a state dictionary: everything is read and checked before anything changes.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use ndarray::Array2;

use super::data::{Data, Stored};
use super::writer::numbered;
use super::{KEPT_NORM, NUMBER, StateDict};
use crate::error::{Error, Result, StateError};
use crate::params::{Element, Layout, Order, TensorInfo};

/// Reads the saved state of each part of an optimizer: the argument of [`Optimizer::read_state`](crate::Optimizer::read_state).
///
/// After all parts have read their state, an entry that was not read is an error.
#[derive(Debug)]
pub struct StateReader<'r> {
    dict: &'r StateDict,
    layout: Option<&'r Arc<Layout>>,
    read: &'r RefCell<BTreeSet<&'r str>>,
    prefix: String,
    nodes: BTreeMap<String, usize>,
}

/// The second half of loading a state: it changes the optimizer, after everything has been read and checked.
///
/// It cannot fail, so a chain of adaptors or a router changes all of its parts or none.
#[must_use = "nothing has been loaded before `make` is called"]
pub struct Commit<'c>(Vec<Box<dyn FnOnce() + 'c>>);

impl<'c> Commit<'c> {
    /// Creates a commit from a function.
    pub fn new(change: impl FnOnce() + 'c) -> Self {
        Self(vec![Box::new(change)])
    }

    /// Creates a commit that does nothing, for an optimizer without state.
    pub fn nothing() -> Self {
        Self(Vec::new())
    }

    /// Combines two commits.
    pub fn and(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// Changes the optimizer.
    pub fn make(self) {
        self.0.into_iter().for_each(|change| change());
    }
}

impl fmt::Debug for Commit<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Commit({} parts)", self.0.len())
    }
}

/// Reads a whole dictionary, with the tensors of this layout, for what has the layout `own` already, and makes the change.
/// What `read` leaves is an error.
pub(crate) fn load<'c>(
    dict: &StateDict,
    layout: Option<&Arc<Layout>>,
    own: Option<Arc<Layout>>,
    read: impl FnOnce(&mut StateReader<'_>) -> Result<Commit<'c>>,
) -> Result<()> {
    if let (Some(own), Some(found)) = (own, layout) {
        own.ensure_same(found)?;
    }
    let seen = RefCell::default();
    let commit = read(&mut StateReader { dict, layout, read: &seen, prefix: String::new(), nodes: BTreeMap::new() })?;
    let seen = seen.borrow();
    match dict.keys().find(|key| !seen.contains(key)) {
        Some(key) => Err(Error::State(StateError::UnexpectedEntry { key: key.into(), into: "optimizer" })),
        None => {
            commit.make();
            Ok(())
        }
    }
}

impl<'r> StateReader<'r> {
    /// Reads the next node of this name, as written by [`StateWriter::node`](super::StateWriter::node).
    ///
    /// # Errors
    /// [`StateError::WrongAlgorithm`] if the state belongs to another optimizer.
    pub fn node(&mut self, name: &str) -> Result<Self> {
        let node = self.branch(name);
        if !self.dict.has_below(&node.prefix) {
            let names = self.dict.keys().filter_map(|key| key.strip_prefix(&self.prefix)?.split('/').next());
            let found: BTreeSet<String> = names.map(str::to_owned).collect();
            let expected = node.prefix.trim_end_matches('/').to_owned();
            return Err(Error::State(StateError::WrongAlgorithm { expected, found: found.into_iter().collect() }));
        }
        Ok(node)
    }

    /// [`node`](Self::node) for a part of a chain with nodes of its own, which may have written nothing.
    pub(crate) fn branch(&mut self, name: &str) -> Self {
        let prefix = numbered(&self.prefix, &mut self.nodes, name);
        Self { dict: self.dict, layout: self.layout, read: self.read, prefix, nodes: BTreeMap::new() }
    }

    /// Reads what [`StateWriter::node_if_any`](super::StateWriter::node_if_any) wrote. It is no error if the node is not there and `read`
    /// reads nothing.
    ///
    /// # Errors
    /// Those of `read`.
    pub fn node_if_any<T>(&mut self, name: &str, read: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let (known, entries) = (self.nodes.clone(), self.read.borrow().len());
        let prefix = numbered(&self.prefix, &mut self.nodes, name);
        let Self { dict, layout, read: seen, .. } = *self;
        let result = read(&mut Self { dict, layout, read: seen, prefix, nodes: BTreeMap::new() })?;
        if self.read.borrow().len() == entries {
            self.nodes = known;
        }
        Ok(result)
    }

    /// Whether the next node of this name is there.
    #[cfg(feature = "distributed")]
    pub(crate) fn has_node(&self, name: &str) -> bool {
        let prefix = numbered(&self.prefix, &mut self.nodes.clone(), name);
        self.dict.has_below(&prefix)
    }

    /// The whole dictionary, of which this reads a part.
    #[cfg(feature = "distributed")]
    pub(crate) fn dict(&self) -> &'r StateDict {
        self.dict
    }

    /// Has `read` go on here, but with the tensors of this layout and the entries of another dictionary. What is read there
    /// counts as read, and so does what that has no longer, or nothing of.
    #[cfg(feature = "distributed")]
    pub(crate) fn with<T>(
        &mut self,
        dict: &StateDict,
        layout: Option<&Arc<Layout>>,
        read: impl FnOnce(&mut StateReader<'_>) -> Result<T>,
    ) -> Result<T> {
        let seen = RefCell::default();
        let (prefix, nodes) = (self.prefix.clone(), std::mem::take(&mut self.nodes));
        let mut reader = StateReader { dict, layout, read: &seen, prefix, nodes };
        let result = read(&mut reader)?;
        self.nodes = reader.nodes;
        let (seen, left) = (seen.borrow(), dict.keys().collect::<BTreeSet<_>>());
        let length = |dict: &StateDict, key: &str| dict.tensors.get(key).map_or(0, |entry| entry.data.len());
        let gone = |key: &str| !left.contains(key) || length(dict, key) == 0 && length(self.dict, key) > 0;
        self.read.borrow_mut().extend(self.dict.keys().filter(|key| seen.contains(key) || gone(key)));
        Ok(result)
    }

    /// The layout of the parameters that the state belongs to; `None` if it was saved before the first step.
    pub fn layout(&self) -> Option<&'r Arc<Layout>> {
        self.layout
    }

    /// The tensors of that layout.
    pub(crate) fn tensors(&self) -> &'r [TensorInfo] {
        self.layout().map_or(&[], |layout| layout.tensors())
    }

    /// How many tensors the whole dictionary has.
    pub(crate) fn tensors_of_all(&self) -> usize {
        self.dict.tensors.len()
    }

    /// Reads a value that is not a tensor. `accepted` describes valid values, for the error message.
    ///
    /// # Errors
    /// [`StateError::MissingEntry`], [`StateError::EntryValue`].
    pub fn value<T: FromStr>(&self, name: &str, accepted: &'static str) -> Result<T> {
        self.value_where(name, accepted, |_| true)
    }

    /// Reads a value that is not a tensor. `holds` returns whether it is valid; `accepted` describes valid values, for the error message.
    ///
    /// # Errors
    /// [`StateError::MissingEntry`], [`StateError::EntryValue`].
    pub fn value_where<T: FromStr>(
        &self,
        name: &str,
        accepted: &'static str,
        holds: impl FnOnce(&T) -> bool,
    ) -> Result<T> {
        let key = format!("{}{name}", self.prefix);
        let Some(text) = self.text(&key) else { return Err(Self::without(key)) };
        match text.parse().ok().filter(holds) {
            Some(value) => Ok(value),
            None => Err(Error::State(StateError::EntryValue { key, value: text.into(), accepted })),
        }
    }

    fn text(&self, key: &str) -> Option<&'r str> {
        let (key, text) = self.dict.texts.get_key_value(key)?;
        self.read.borrow_mut().insert(key);
        Some(text)
    }

    /// Reads a text that belongs to one tensor of the parameters, if it is there.
    pub(crate) fn text_of(&self, name: &str, info: &TensorInfo) -> Option<&'r str> {
        self.text(&format!("{}{name}/{}", self.prefix, info.path()))
    }

    /// Reads a count that belongs to one tensor of the parameters, if it is there.
    ///
    /// # Errors
    /// [`StateError::EntryShape`], [`StateError::EntryType`].
    pub fn count(&self, name: &str, info: &TensorInfo) -> Result<Option<u64>> {
        Ok(self.numbers::<u64>(name, info.path(), &[], "u64")?.and_then(|count| count.first().copied()))
    }

    /// Reads a number that belongs to one tensor of the parameters.
    ///
    /// # Errors
    /// [`StateError::MissingEntry`], [`StateError::EntryValue`], [`StateError::EntryShape`], [`StateError::EntryType`].
    pub(crate) fn number(&self, name: &str, info: &TensorInfo) -> Result<f64> {
        self.amount(&format!("{name}{NUMBER}"), info)
    }

    /// Reads the norm that a parameter keeps; there is none without elements.
    ///
    /// # Errors
    /// Those of [`number`](Self::number).
    pub(crate) fn norm(&self, info: &TensorInfo) -> Result<Option<f64>> {
        if info.elements() > 0 { self.amount(KEPT_NORM, info).map(Some) } else { Ok(None) }
    }

    fn amount(&self, name: &str, info: &TensorInfo) -> Result<f64> {
        let numbers = self.numbers::<f64>(name, info.path(), &[], f64::DTYPE)?;
        let number = numbers.and_then(|number| number.first().copied()).ok_or_else(|| self.missing(name, info))?;
        match number.is_finite() && number >= 0.0 {
            true => Ok(number),
            false => {
                let key = format!("{}{name}/{}", self.prefix, info.path());
                let (value, accepted) = (number.to_string(), "a finite number ≥ 0");
                Err(Error::State(StateError::EntryValue { key, value, accepted }))
            }
        }
    }

    /// Reads increasing indices of rows of one tensor of the parameters, if they are there.
    pub(crate) fn rows(&self, name: &str, info: &TensorInfo) -> Result<Option<Vec<usize>>> {
        let key = format!("{}{name}/{}", self.prefix, info.path());
        let Some(count) = self.dict.tensors.get(&key).map(|entry| entry.data.len()) else { return Ok(None) };
        let Some(rows) = self.numbers::<u64>(name, info.path(), &[count], "u64")? else { return Ok(None) };
        let end = info.shape().first().map_or(0, |rows| *rows as u64);
        match rows
            .iter()
            .enumerate()
            .find(|(at, row)| **row >= end || at.checked_sub(1).is_some_and(|before| rows[before] >= **row))
        {
            Some((_, row)) => {
                let accepted = "increasing, and less than the number of rows";
                Err(Error::State(StateError::EntryValue { key, value: row.to_string(), accepted }))
            }
            None => Ok(Some(rows.into_iter().map(|row| row as usize).collect())),
        }
    }

    /// Reads a tensor of a parameter's shape, in row-major order, if it is there.
    ///
    /// # Errors
    /// [`StateError::EntryShape`], [`StateError::EntryType`].
    pub fn tensor<A: Element>(&self, name: &str, info: &TensorInfo) -> Result<Option<Vec<A>>> {
        self.numbers(name, info.path(), info.shape(), A::DTYPE)
    }

    /// The order that [`StateWriter::order`](super::StateWriter::order) remembered.
    pub(crate) fn order(&self, info: &TensorInfo) -> Result<Order> {
        let key = format!("{}order/{}", self.prefix, info.path());
        match self.text(&key) {
            None => Ok(Order::C),
            Some("F") => Ok(Order::F),
            Some(other) => Err(Error::State(StateError::EntryValue { key, value: other.into(), accepted: "F" })),
        }
    }

    /// Whether there is a value of this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.dict.texts.contains_key(&format!("{}{name}", self.prefix))
    }

    /// The paths and shapes of the tensors of this name, whatever the layout.
    pub(crate) fn infos(&self, name: &str) -> Vec<TensorInfo> {
        let prefix = format!("{}{name}/", self.prefix);
        let tensors = self.dict.tensors.iter();
        tensors.filter_map(|(key, entry)| Some(TensorInfo::new(key.strip_prefix(&prefix)?, &entry.shape))).collect()
    }

    /// What values there are of a kind, by what stands behind it.
    pub(crate) fn names(&self, kind: &str) -> Vec<&'r str> {
        let prefix = format!("{}{kind}/", self.prefix);
        self.dict.texts.keys().filter_map(|key| key.strip_prefix(&prefix)).collect()
    }

    /// The rows of a matrix, if it is there.
    #[cfg(feature = "second-order")]
    pub(crate) fn rows_of(&self, kind: &str, path: &str) -> Option<usize> {
        self.dict.tensors.get(&format!("{}{kind}/{path}", self.prefix))?.shape.first().copied()
    }

    /// Reads numbers of a type and a shape, if there are any of this name.
    pub(crate) fn numbers<T: Stored>(
        &self,
        name: &str,
        path: &str,
        shape: &[usize],
        expected: &'static str,
    ) -> Result<Option<Vec<T>>> {
        self.data(name, path, shape, expected).map(|data| T::unpack(data?))
    }

    /// Reads a matrix with a shape of its own, if it is there.
    pub(crate) fn matrix<A: Element>(
        &self,
        name: &str,
        path: &str,
        shape: (usize, usize),
    ) -> Result<Option<Array2<A>>> {
        let values = self.numbers::<A>(name, path, &[shape.0, shape.1], A::DTYPE)?;
        Ok(values.and_then(|values| Array2::from_shape_vec(shape, values).ok()))
    }

    /// The data of this name, if there are any.
    pub(crate) fn data(
        &self,
        name: &str,
        path: &str,
        shape: &[usize],
        expected: &'static str,
    ) -> Result<Option<&'r Data>> {
        let key = format!("{}{name}/{path}", self.prefix);
        let Some((key, tensor)) = self.dict.tensors.get_key_value(&key) else { return Ok(None) };
        tensor.ensure(key, shape, expected)?;
        self.read.borrow_mut().insert(key);
        Ok(Some(&tensor.data))
    }

    /// The error of an entry of one tensor that is not there.
    pub(crate) fn missing(&self, name: &str, info: &TensorInfo) -> Error {
        self.absent(name, info.path())
    }

    /// The error of an entry that is not there.
    pub(crate) fn absent(&self, name: &str, path: &str) -> Error {
        Self::without(format!("{}{name}/{path}", self.prefix))
    }

    fn without(key: String) -> Error {
        Error::State(StateError::MissingEntry { key, similar: Vec::new() })
    }
}
