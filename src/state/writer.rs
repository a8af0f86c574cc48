//! Writing a state dictionary.

use std::collections::BTreeMap;

use ndarray::Array2;

use super::data::Data;
use super::resized::Resized;
use super::{KEPT_NORM, NUMBER, StateDict, StateTensor};
#[cfg(feature = "distributed")]
use crate::error::{Error, Result, StateError};
use crate::params::{Element, Order, TensorInfo};

/// The slot of MADGRAD that begins as the parameter.
const AS_THE_PARAMETER: &str = "x0";

/// The slot of Rprop that begins as the learning rate. New rows would not move if it began with zeros.
const AS_THE_RATE: &str = "step_size";

/// Writes the state of one part of an optimizer: the argument of [`Optimizer::write_state`](crate::Optimizer::write_state).
#[derive(Debug)]
pub struct StateWriter<'w> {
    dict: &'w mut StateDict,
    prefix: String,
    /// How many nodes of a name this level has.
    nodes: BTreeMap<String, usize>,
    /// Whether only numbers that are not finite are kept: the first of each tensor.
    only_non_finite: bool,
    /// The parameter whose rows have changed since the state was made.
    resized: Option<&'w Resized>,
}

/// Returns an error if a number of the state that `write` writes is not finite. It holds one tensor of the state at a time.
#[cfg(feature = "distributed")]
pub(crate) fn ensure_finite(write: impl FnOnce(&mut StateWriter<'_>)) -> Result<()> {
    let mut found = StateDict::default();
    write(&mut StateWriter { only_non_finite: true, ..StateWriter::new(&mut found) });
    match found.tensors.into_iter().find_map(|(key, number)| Some((key, number.data.first_non_finite()?))) {
        Some((key, value)) => {
            Err(Error::State(StateError::EntryValue { key, value: value.to_string(), accepted: "finite" }))
        }
        None => Ok(()),
    }
}

impl<'w> StateWriter<'w> {
    pub(crate) fn new(dict: &'w mut StateDict) -> Self {
        Self { dict, prefix: String::new(), nodes: BTreeMap::new(), only_non_finite: false, resized: None }
    }

    /// One that writes the state of other rows of a parameter.
    pub(crate) fn of_resized(dict: &'w mut StateDict, resized: &'w Resized) -> Self {
        Self { resized: Some(resized), ..Self::new(dict) }
    }

    /// Creates a node for a part of the chain, with the name of its algorithm. A second node of the same name becomes `name#2`.
    pub fn node(&mut self, name: &str) -> StateWriter<'_> {
        let prefix = numbered(&self.prefix, &mut self.nodes, name);
        let Self { only_non_finite, resized, .. } = *self;
        StateWriter { dict: self.dict, prefix, nodes: BTreeMap::new(), only_non_finite, resized }
    }

    /// [`node`](Self::node) for a part that may have nothing to write: then there is no node.
    pub fn node_if_any(&mut self, name: &str, write: impl FnOnce(&mut StateWriter<'_>)) {
        let entries = self.dict.texts.len() + self.dict.tensors.len();
        write(&mut self.node(name));
        if self.dict.texts.len() + self.dict.tensors.len() == entries {
            self.nodes.entry(name.to_owned()).and_modify(|count| *count -= 1);
        }
    }

    /// Writes a counter or another value that is not a tensor.
    pub fn value(&mut self, name: &str, value: impl ToString) {
        self.dict.texts.insert(format!("{}{name}", self.prefix), value.to_string());
    }

    /// Writes a count for one tensor of the parameters.
    pub fn count(&mut self, name: &str, info: &TensorInfo, count: u64) {
        self.insert(name, info.path(), &[], Data::U64(vec![count]));
    }

    /// Writes a number that belongs to one tensor of the parameters.
    pub(crate) fn number(&mut self, name: &str, info: &TensorInfo, number: f64) {
        self.insert(&format!("{name}{NUMBER}"), info.path(), &[], Data::F64(vec![number]));
    }

    /// Writes a tensor, with the shape of one of the parameters, in row-major order.
    ///
    /// If the number of `values` differs from the shape's number of elements, the entry cannot be loaded. If the parameter is
    /// [resized](crate::OptimizerExt::resize), the rows that stay keep their values, and new rows get zeros.
    pub fn tensor<A: Element>(&mut self, name: &str, info: &TensorInfo, values: impl IntoIterator<Item = A>) {
        self.elements(name, info, values.into_iter().collect(), |_| A::zero(), A::pack);
    }

    /// [`tensor`](Self::tensor) for values that begin as the parameters, such as averages: new rows get those of the parameter.
    pub(crate) fn copy<A: Element>(&mut self, name: &str, info: &TensorInfo, values: Vec<A>) {
        self.elements(name, info, values, A::from_f64, A::pack);
    }

    /// [`tensor`](Self::tensor) for a slot of a rule, of which two do not begin with zeros.
    pub(crate) fn slot<A: Element>(&mut self, name: &str, info: &TensorInfo, values: Vec<A>) {
        match name {
            AS_THE_PARAMETER => self.copy(name, info, values),
            AS_THE_RATE if self.has_new_rows(info) => self.insert(name, info.path(), info.shape(), A::pack(values)),
            _ => self.tensor(name, info, values),
        }
    }

    /// Writes a value for each element of a parameter, in row-major order. A new row's begin as `fresh` of the parameter's.
    pub(crate) fn elements<T: Copy>(
        &mut self,
        name: &str,
        info: &TensorInfo,
        values: Vec<T>,
        fresh: impl Fn(f64) -> T,
        pack: impl FnOnce(Vec<T>) -> Data,
    ) {
        let (path, shape) = (info.path(), info.shape());
        match self.resized.filter(|resized| resized.path == path) {
            None => self.put(name, path, shape, pack(values)),
            Some(resized) if *resized.before == *shape => {
                self.put(name, path, &resized.now, pack(resized.take(&values, fresh)));
            }
            Some(_) => self.insert(name, path, shape, pack(values)),
        }
    }

    /// Whether the parameter is resized and has new rows.
    fn has_new_rows(&self, info: &TensorInfo) -> bool {
        self.resized.is_some_and(|resized| resized.path == info.path() && resized.rows.contains(&None))
    }

    /// Rejects that a parameter is resized, whichever it is, because this part of the state cannot follow.
    #[cfg(any(feature = "distributed", feature = "second-order"))]
    pub(crate) fn refuse_resizing(&mut self, instead: &'static str) {
        self.resized.into_iter().for_each(|resized| resized.refuse_for(self.prefix.clone(), instead));
    }

    /// Remembers that what belongs to a parameter does not lie row by row.
    pub(crate) fn order(&mut self, info: &TensorInfo, order: Order) {
        if order == Order::F {
            self.value(&format!("order/{}", info.path()), "F");
        }
    }

    /// Writes the norm that a parameter with elements keeps. Only the rank that has the parameter knows it, so it is no
    /// [`number`](Self::number), which all ranks have.
    pub(crate) fn norm(&mut self, info: &TensorInfo, norm: Option<f64>) {
        if let Some(norm) = norm.filter(|_| info.elements() > 0) {
            self.insert(KEPT_NORM, info.path(), &[], Data::F64(vec![norm]));
        }
    }

    /// Writes a matrix with a shape of its own, row-major.
    pub(crate) fn matrix<A: Element>(&mut self, name: &str, path: &str, matrix: &Array2<A>) {
        let (rows, columns) = matrix.dim();
        self.insert(name, path, &[rows, columns], A::pack(matrix.iter().copied().collect()));
    }

    /// Writes what has a shape of its own. It cannot follow if the parameter is resized, unless it is one number.
    pub(crate) fn insert(&mut self, name: &str, path: &str, shape: &[usize], data: Data) {
        if let Some(resized) = self.resized.filter(|resized| resized.path == path && !shape.is_empty()) {
            resized.refuse(format!("{}{name}/{path}", self.prefix), &data);
        }
        self.put(name, path, shape, data);
    }

    fn put(&mut self, name: &str, path: &str, shape: &[usize], data: Data) {
        let tensor = match self.only_non_finite {
            false => StateTensor { shape: shape.into(), data },
            true => match data.first_non_finite() {
                Some(number) => StateTensor { shape: [].into(), data: Data::F64(vec![number]) },
                None => return,
            },
        };
        self.dict.tensors.insert(format!("{}{name}/{path}", self.prefix), tensor);
    }
}

/// The prefix of the next node of this name.
pub(super) fn numbered(prefix: &str, nodes: &mut BTreeMap<String, usize>, name: &str) -> String {
    let count = nodes.entry(name.to_owned()).or_default();
    *count += 1;
    if *count == 1 { format!("{prefix}{name}/") } else { format!("{prefix}{name}#{count}/") }
}
