//! State of optimizers and adaptors for each tensor.

use std::sync::Arc;

use super::{Step, Tensor};
use crate::error::Result;
use crate::params::{Element, Layout, Owned, TensorInfo};
use crate::state::{StateReader, StateWriter};

/// A value of type `T` for each tensor of the parameters: the state of an optimizer or adaptor, such as a sum, an average or a count.
///
/// It is empty before the first step. The first step sets its layout, and a later step with other parameters is an error. A step may
/// contain only some of the tensors, as it does inside a [`Router`](crate::adaptor::Router). The value of a tensor is made in the first
/// step that contains it.
///
/// In each step, make three calls:
///
/// 1. [`begin`](Self::begin) makes the values that are missing.
/// 2. [`each`](Self::each) calls a function with each tensor and its value.
/// 3. [`settle`](Self::settle) removes the values from `begin` if the optimizer inside returned an error.
///
/// ```
/// use gradus::{PerTensor, Result, Step};
/// use ndarray::array;
///
/// let mut calls: PerTensor<u64> = PerTensor::new();
/// let (mut w, grads) = ((array![1.0], array![2.0]), (array![0.5], array![0.5]));
/// for _ in 0..2 {
///     let mut step = Step::pair(&mut w, &grads, calls.layout())?;
///     let made = calls.begin(&step, |_, _| 0);
///     calls.each(&mut step, |_, _, calls| *calls += 1);
///     calls.settle(made, Ok(()))?; // here an adaptor has the result of the optimizer inside
/// }
/// assert_eq!(calls.get("1"), Some(&2));
/// # Ok::<(), gradus::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct PerTensor<T> {
    layout: Option<Arc<Layout>>,
    /// One for each tensor of the layout.
    tensors: Vec<Option<T>>,
    /// How many of these are `None`.
    missing: usize,
}

impl<T> Default for PerTensor<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> PerTensor<T> {
    /// Creates an empty one.
    pub const fn new() -> Self {
        Self { layout: None, tensors: Vec::new(), missing: 0 }
    }

    /// Creates one with no value for any tensor.
    pub(crate) fn of(layout: Arc<Layout>) -> Self {
        Self::from_fn(layout, |_, _| None)
    }

    /// Creates one with a value for the tensors for which `make` returns one; it gets the position, the path and the shape of each.
    pub(crate) fn from_fn(layout: Arc<Layout>, make: impl Fn(usize, &TensorInfo) -> Option<T>) -> Self {
        let tensors: Vec<_> = layout.tensors().iter().enumerate().map(|(at, info)| make(at, info)).collect();
        let missing = tensors.iter().filter(|own| own.is_none()).count();
        Self { layout: Some(layout), tensors, missing }
    }

    /// The layout of the parameters; `None` before the first step.
    pub fn layout(&self) -> Option<&Arc<Layout>> {
        self.layout.as_ref()
    }

    /// Returns an error if the step has other parameters than the steps before.
    ///
    /// # Errors
    /// [`StepError::ParametersChanged`](crate::error::StepError::ParametersChanged).
    pub fn ensure_known<A: Element>(&self, step: &Step<'_, A>) -> Result<()> {
        Layout::ensure_known(self.layout.as_ref(), step.layout())
    }

    /// The value of the tensor at this path.
    pub fn get(&self, path: &str) -> Option<&T> {
        self.entry(path).map(|(_, own)| own)
    }

    /// The value of the tensor at this path, with the path and shape of the tensor.
    pub fn entry(&self, path: &str) -> Option<(&TensorInfo, &T)> {
        let layout = self.layout.as_ref()?;
        let at = layout.position(path)?;
        Some((&layout.tensors()[at], self.at(at)?))
    }

    /// The value of the tensor at this position in the layout; see [`Tensor::index`].
    pub fn at(&self, index: usize) -> Option<&T> {
        self.tensors.get(index)?.as_ref()
    }

    /// The values, each with the path and shape of its tensor.
    pub fn iter(&self) -> impl Iterator<Item = (&TensorInfo, &T)> {
        let tensors = self.layout.iter().flat_map(|layout| layout.tensors()).zip(&self.tensors);
        tensors.filter_map(|(info, own)| Some((info, own.as_ref()?)))
    }

    /// An item for each tensor of the layout, in its order: its value or `None`.
    pub(crate) fn all(&self) -> impl Iterator<Item = Option<&T>> {
        self.tensors.iter().map(Option::as_ref)
    }

    /// An item for each tensor of the layout, in its order: its value, to be changed, or `None`.
    pub fn all_mut(&mut self) -> impl Iterator<Item = Option<&mut T>> {
        self.tensors.iter_mut().map(Option::as_mut)
    }

    /// Makes the values that are missing for the tensors of a step. In the first step it also sets the layout. If nothing is missing, it
    /// does not go through the tensors.
    #[inline]
    pub fn begin<A: Element>(&mut self, step: &Step<'_, A>, make: impl Fn(&TensorInfo, &Tensor<'_, A>) -> T) -> Made {
        if self.missing == 0 && self.layout.is_some() {
            return Made { is_first: false, tensors: Vec::new() };
        }
        self.make(step, make)
    }

    #[cold]
    fn make<A: Element>(&mut self, step: &Step<'_, A>, make: impl Fn(&TensorInfo, &Tensor<'_, A>) -> T) -> Made {
        let mut made = Made { is_first: self.layout.is_none(), tensors: Vec::new() };
        if made.is_first {
            *self = Self::of(Arc::clone(step.layout()));
        }
        for (info, tensor, own) in step.zip(&mut self.tensors) {
            if own.is_none() {
                *own = Some(make(info, tensor));
                made.tensors.push(tensor.index());
            }
        }
        self.missing -= made.tensors.len();
        made
    }

    /// Calls `f` with each tensor of the step and its value.
    pub fn each<'s, 'a, A: Element>(
        &'s mut self,
        step: &mut Step<'a, A>,
        mut f: impl FnMut(&TensorInfo, &mut Tensor<'a, A>, &'s mut T),
    ) {
        for (info, tensor, own) in step.zip_mut(&mut self.tensors) {
            if let Some(own) = own {
                f(info, tensor, own);
            }
        }
    }

    /// Ends a step: keeps the values that [`begin`](Self::begin) made if `result` is `Ok`, and removes them if it is an error. Returns
    /// `result`.
    ///
    /// # Errors
    /// The error in `result`.
    pub fn settle<R>(&mut self, made: Made, result: Result<R>) -> Result<R> {
        if result.is_err() {
            self.missing += made.tensors.len();
            for index in made.tensors {
                self.tensors.get_mut(index).into_iter().for_each(|own| *own = None);
            }
            if made.is_first {
                *self = Self::new();
            }
        }
        result
    }

    /// Saves the values: calls `write` for each tensor that has one.
    pub fn write_state(&self, node: &mut StateWriter<'_>, write: impl Fn(&mut StateWriter<'_>, &TensorInfo, &T)) {
        self.iter().for_each(|(info, own)| write(node, info, own));
    }

    /// Restores the values that [`write_state`](Self::write_state) saved: calls `read` for each tensor of the state's layout. `read`
    /// returns `None` if the state has no value for the tensor.
    ///
    /// # Errors
    /// Those of `read`.
    pub fn read_state(node: &StateReader<'_>, read: impl Fn(&TensorInfo) -> Result<Option<T>>) -> Result<Self> {
        let tensors = node.tensors().iter().map(read).collect::<Result<Vec<_>>>()?;
        let missing = tensors.iter().filter(|own| own.is_none()).count();
        Ok(Self { layout: node.layout().cloned(), tensors, missing })
    }
}

impl<A: Element> PerTensor<Owned<A>> {
    /// Writes the values under a name, except for tensors without elements.
    pub(crate) fn write(&self, node: &mut StateWriter<'_>, name: &str) {
        self.iter().filter(|(_, values)| !values.is_empty()).for_each(|(info, values)| values.write(node, name, info));
    }

    /// Writes values that begin as the parameters under a name, except for tensors without elements.
    pub(crate) fn write_copies(&self, node: &mut StateWriter<'_>, name: &str) {
        let tensors = self.iter().filter(|(_, values)| !values.is_empty());
        tensors.for_each(|(info, values)| values.write_copy(node, name, info));
    }

    /// Reads what [`write_copies`](Self::write_copies) wrote.
    pub(crate) fn read(node: &StateReader<'_>, name: &str) -> Result<Self> {
        Self::read_state(node, |info| Owned::read(node, name, info))
    }
}

/// The result of [`PerTensor::begin`], to be passed to [`PerTensor::settle`].
#[must_use = "pass it to `settle`: a rejected step must leave no values"]
#[derive(Debug)]
pub struct Made {
    is_first: bool,
    tensors: Vec<usize>,
}
