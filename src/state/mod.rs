//! State dictionaries: the state of an optimizer, by name.

pub(crate) mod data;
#[cfg(any(feature = "distributed", feature = "half"))]
pub(crate) mod digest;
mod reader;
pub(crate) mod resized;
mod writer;

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use ndarray::{ArrayD, ArrayView, Dimension, IxDyn};

use crate::error::{Error, Result, StateError};
use crate::params::{Element, Layout};
#[cfg(feature = "checkpoint")]
use crate::params::{TensorInfo, ValuesMut};
use data::Data;

pub(crate) use reader::load;
pub use reader::{Commit, StateReader};
pub use writer::StateWriter;
#[cfg(feature = "distributed")]
pub(crate) use writer::ensure_finite;

/// Ends the names of numbers that belong to a tensor as a whole.
pub(crate) const NUMBER: &str = ".number";

/// The name of the norms that parameters keep.
pub(crate) const KEPT_NORM: &str = "norm";

/// The state of an optimizer and its adaptors, by name. Created by [`Optimizer::state_dict`](crate::Optimizer::state_dict).
///
/// Every optimizer or adaptor that has state has a node with its name, such as `adam` or `ema`; a second one of the same name is `adam#2`.
/// The branches of a router are nodes around nodes, such as `rest/adam` and `route.1/momentum`. A node contains counters, such as
/// `adam/steps`, and tensors by the parameter's path, such as `adam/exp_avg/hidden.weight`. Adaptors without state, such as clipping, have no
/// node; you can add or remove them between saving and loading.
///
/// Tensors have their parameter's shape, in row-major order. State in 8 bits is stored as codes in the order of memory, with one scale per 256
/// codes, `adam/exp_avg.scales/hidden.weight`. State in 4 bits has two codes per byte, the first in the upper bits, and one scale per 128 codes.
///
/// ```
/// use gradus::prelude::*;
/// use ndarray::array;
///
/// let mut opt = Adam::new(0.1).clip_global_norm(1.0);
/// let mut w = array![1.0];
/// opt.step(&mut w, &array![0.5])?;
/// let state = opt.state_dict();
/// assert_eq!(state.text("adam/steps"), Some("1"));
/// assert_eq!(state.tensor("adam/exp_avg/"), opt.inner().slot("", "exp_avg"));
///
/// let mut resumed: Adam<f64> = Adam::new(0.1);
/// resumed.load_state_dict(&state)?;
/// assert_eq!(resumed.steps(), 1);
/// # Ok::<(), gradus::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Default)]
pub struct StateDict {
    pub(crate) layout: Option<Arc<Layout>>,
    pub(crate) texts: BTreeMap<String, String>,
    pub(crate) tensors: BTreeMap<String, StateTensor>,
}

/// One tensor of a [`StateDict`], in row-major order.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct StateTensor {
    pub(crate) shape: Box<[usize]>,
    pub(crate) data: Data,
}

impl StateTensor {
    /// Returns an error unless the tensor has this type and shape, and the number of elements of its shape.
    pub(crate) fn ensure(&self, key: &str, shape: &[usize], dtype: &'static str) -> Result<()> {
        if self.data.dtype() != dtype {
            return Err(Error::State(StateError::EntryType {
                key: key.into(),
                expected: dtype,
                found: self.data.dtype(),
            }));
        }
        let elements = shape.iter().try_fold(1_usize, |product, length| product.checked_mul(*length));
        if *self.shape != *shape || Some(self.data.len()) != elements {
            let found = self.shape.to_vec();
            return Err(Error::State(StateError::EntryShape { key: key.into(), expected: shape.into(), found }));
        }
        Ok(())
    }

    /// The numbers, if they have this type.
    pub(crate) fn to_array<A: Element>(&self) -> Option<ArrayD<A>> {
        ArrayD::from_shape_vec(IxDyn(&self.shape), A::unpack(&self.data)?).ok()
    }

    /// Writes the numbers into a tensor that they have been checked for.
    #[cfg(feature = "checkpoint")]
    pub(crate) fn write_to<A: Element>(&self, info: &TensorInfo, mut values: ValuesMut<'_, A>) {
        let saved = A::unpack(&self.data).unwrap_or_default();
        values.view_mut(info.shape()).iter_mut().zip(saved).for_each(|(to, from)| *to = from);
    }

    /// Rounds floating-point numbers to the nearest of this type.
    #[cfg(feature = "checkpoint")]
    pub(crate) fn cast<A: Element>(&mut self) {
        if let Some(values) = self.data.to_f64().filter(|_| self.data.dtype() != A::DTYPE) {
            self.data = A::pack(values.into_iter().map(A::from_f64).collect());
        }
    }
}

impl StateDict {
    /// Creates a dictionary without entries, for parameters of this layout.
    pub fn new(layout: Option<Arc<Layout>>) -> Self {
        Self { layout, ..Self::default() }
    }

    /// The paths and shapes of the parameters that the state belongs to; `None` before the first step.
    pub fn layout(&self) -> Option<&Arc<Layout>> {
        self.layout.as_ref()
    }

    /// The names of all entries: counters first, then tensors.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.texts.keys().chain(self.tensors.keys()).map(String::as_str)
    }

    /// Whether there is an entry whose name starts with this.
    pub(crate) fn has_below(&self, prefix: &str) -> bool {
        fn first<'d, T>(map: &'d BTreeMap<String, T>, prefix: &str) -> Option<&'d String> {
            map.range::<str, _>((Bound::Included(prefix), Bound::Unbounded)).next().map(|(key, _)| key)
        }
        let found = [first(&self.texts, prefix), first(&self.tensors, prefix)];
        found.into_iter().flatten().any(|key| key.starts_with(prefix))
    }

    /// A counter or another entry that is not a tensor, as text.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.texts.get(key).map(String::as_str)
    }

    /// The tensor of this name, if it exists and has this type.
    pub fn tensor<A: Element>(&self, key: &str) -> Option<ArrayD<A>> {
        self.tensors.get(key)?.to_array()
    }

    /// Sets a counter or another entry that is not a tensor.
    pub fn insert_text(&mut self, key: impl Into<String>, value: impl ToString) {
        self.texts.insert(key.into(), value.to_string());
    }

    /// Sets a tensor.
    pub fn insert_tensor<A: Element, D: Dimension>(&mut self, key: impl Into<String>, values: ArrayView<'_, A, D>) {
        let data = A::pack(values.iter().copied().collect());
        self.tensors.insert(key.into(), StateTensor { shape: values.shape().into(), data });
    }

    /// Removes an entry, and returns whether it existed.
    pub fn remove(&mut self, key: &str) -> bool {
        self.texts.remove(key).is_some() | self.tensors.remove(key).is_some()
    }

    /// The bytes of all tensors.
    pub fn bytes(&self) -> usize {
        self.tensors.values().map(|tensor| tensor.data.bytes()).sum()
    }
}
