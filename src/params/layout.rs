//! The paths and shapes of a tree, apart from its values.

use std::collections::HashSet;
use std::sync::Arc;

use super::{Params, for_each};
use crate::error::{Error, Name, Result};

/// The paths and shapes of a tree's tensors, in the order of its walk.
///
/// An optimizer remembers the layout of the parameters it has stepped. State belongs to these names: a step on
/// parameters with another layout is an error.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Layout {
    tensors: Vec<TensorInfo>,
    elements: usize,
}

/// The path and shape of one tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    path: Box<str>,
    shape: Box<[usize]>,
    part: Option<Box<Part>>,
}

/// Of what a tensor is a part, if the whole is divided between ranks.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Part {
    whole: Box<[usize]>,
    /// The part's first element in the whole, in row-major order.
    start: usize,
}

impl Layout {
    /// The layout of a tree; an empty `Option` holds no tensor.
    ///
    /// # Errors
    /// [`Error::DuplicatePath`].
    pub fn of<T: Params + ?Sized>(tree: &T) -> Result<Self> {
        let mut tensors = Vec::new();
        for_each(tree, |path, shape, values| {
            if values.is_some() {
                tensors.push(TensorInfo::new(path.to_string(), shape));
            }
        });
        Self::new(tensors)
    }

    /// A layout of these tensors.
    ///
    /// # Errors
    /// [`Error::DuplicatePath`].
    pub fn new(tensors: Vec<TensorInfo>) -> Result<Self> {
        let mut seen = HashSet::with_capacity(tensors.len());
        match tensors.iter().find(|tensor| !seen.insert(tensor.path())) {
            Some(twice) => Err(Error::DuplicatePath { path: twice.path().into() }),
            None => Ok(Self { elements: tensors.iter().map(TensorInfo::elements).sum(), tensors }),
        }
    }

    /// A layout of tensors that are known to have paths of their own.
    #[cfg(feature = "distributed")]
    pub(crate) fn of_distinct(tensors: Vec<TensorInfo>) -> Self {
        Self { elements: tensors.iter().map(TensorInfo::elements).sum(), tensors }
    }

    /// The number of tensors.
    pub fn len(&self) -> usize {
        self.tensors.len()
    }

    /// Whether there is no tensor.
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }

    /// The number of elements of all tensors together: "the number of parameters" of a model.
    pub fn elements(&self) -> usize {
        self.elements
    }

    /// The tensors, in the order of the walk.
    #[inline]
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// The tensors' paths, in the order of the walk.
    pub fn paths(&self) -> impl ExactSizeIterator<Item = &str> {
        self.tensors.iter().map(TensorInfo::path)
    }

    /// The position of a path in the walk.
    pub fn position(&self, path: &str) -> Option<usize> {
        self.tensors.iter().position(|tensor| tensor.path() == path)
    }

    /// Nothing if a step is on the parameters known, or on the first ones; else the first difference.
    pub(crate) fn ensure_known(known: Option<&Arc<Self>>, found: &Arc<Self>) -> Result<()> {
        match known {
            Some(known) if !Arc::ptr_eq(known, found) => known.ensure_same(found),
            _ => Ok(()),
        }
    }

    /// Whether `other` has the same tensors, in whatever order.
    #[cfg(feature = "checkpoint")]
    pub(crate) fn has_tensors_of(&self, other: &Self) -> bool {
        fn sorted(layout: &Layout) -> Vec<&TensorInfo> {
            let mut tensors: Vec<_> = layout.tensors.iter().collect();
            tensors.sort_by_key(|tensor| tensor.path());
            tensors
        }
        sorted(self) == sorted(other)
    }

    /// Nothing if `other` is the same layout, else the first difference.
    pub(crate) fn ensure_same(&self, other: &Self) -> Result<()> {
        if self == other {
            return Ok(());
        }
        let at = self.tensors.iter().zip(&other.tensors).take_while(|(own, other)| own == other).count();
        let describe = |layout: &Self| match layout.tensors.get(at) {
            Some(tensor) => format!("{} of shape {:?}", Name(&tensor.path), tensor.shape),
            None => "no more tensors".into(),
        };
        Err(Error::ParametersChanged { expected: describe(self), found: describe(other) })
    }
}

impl TensorInfo {
    /// A tensor of this path and shape.
    pub fn new(path: impl Into<String>, shape: &[usize]) -> Self {
        Self { path: path.into().into_boxed_str(), shape: shape.into(), part: None }
    }

    /// These elements, in row-major order, of another tensor.
    #[cfg(feature = "distributed")]
    pub(crate) fn part_of(&self, elements: std::ops::Range<usize>) -> Self {
        let part = Part { whole: self.shape.clone(), start: elements.start };
        Self { path: self.path.clone(), shape: [elements.len()].into(), part: Some(Box::new(part)) }
    }

    /// The shape of the tensor that this is a part of, or its own.
    pub(crate) fn whole_shape(&self) -> &[usize] {
        self.part.as_ref().map_or(&self.shape, |part| &part.whole)
    }

    /// The number of elements of the tensor that this is a part of.
    pub(crate) fn whole_elements(&self) -> usize {
        self.whole_shape().iter().product()
    }

    /// Where in that tensor the part begins, in row-major order.
    pub(crate) fn start(&self) -> usize {
        self.part.as_ref().map_or(0, |part| part.start)
    }

    /// Whether all elements are on other ranks.
    pub(crate) fn is_elsewhere(&self) -> bool {
        self.part.is_some() && self.elements() == 0
    }

    /// The dotted path; empty for a tree that is a single tensor.
    #[inline]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The shape; empty for a tensor of dimension 0.
    #[inline]
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The number of elements.
    #[inline]
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}
