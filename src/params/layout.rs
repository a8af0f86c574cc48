//! The paths and shapes of a tree, apart from its values.

use std::fmt;
use std::sync::Arc;

use super::{Params, for_each};
use crate::error::{ArgumentError, Error, Name, Result, StepError};

/// The paths and shapes of a tree's tensors, in the order of the tree.
///
/// An optimizer keeps the layout of the parameters in its first step. Its state belongs to these paths, and a later step with another
/// layout is an error.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Layout {
    tensors: Vec<TensorInfo>,
    elements: usize,
    /// The tensors' positions in the order of their paths.
    by_path: Vec<usize>,
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
    /// The layout of a tree. An empty `Option` in it is not a tensor.
    ///
    /// # Errors
    /// Those of [`new`](Self::new).
    pub fn of<T: Params + ?Sized>(tree: &T) -> Result<Self> {
        let mut tensors = Vec::new();
        for_each(tree, |path, shape, values| {
            if values.is_some() {
                tensors.push(TensorInfo::new(path.to_string(), shape));
            }
        });
        Self::new(tensors)
    }

    /// Creates a layout of these tensors.
    ///
    /// # Errors
    /// [`StepError::DuplicatePath`] if two tensors have the same path; [`ArgumentError::TooLarge`] if the total number of elements exceeds
    /// `usize::MAX`.
    pub fn new(tensors: Vec<TensorInfo>) -> Result<Self> {
        let elements = tensors.iter().try_fold(0_usize, |sum, tensor| sum.checked_add(tensor.checked_elements()?));
        let elements = elements.ok_or(Error::Argument(ArgumentError::TooLarge { argument: "the tree" }))?;
        let by_path = sorted_by_path(&tensors);
        let path = |at: usize| tensors[at].path();
        let twice = by_path.windows(2).filter(|pair| path(pair[0]) == path(pair[1])).map(|pair| pair[1]);
        match twice.min() {
            Some(twice) => Err(Error::Step(StepError::DuplicatePath { path: path(twice).into() })),
            None => Ok(Self { elements, by_path, tensors }),
        }
    }

    /// A layout of tensors that are parts of those of another layout, and so have paths of their own.
    #[cfg(feature = "distributed")]
    pub(crate) fn of_distinct(tensors: Vec<TensorInfo>) -> Self {
        let elements = tensors.iter().map(TensorInfo::elements).sum();
        Self { elements, by_path: sorted_by_path(&tensors), tensors }
    }

    /// The layout of the tensors that these are parts of, if they are.
    pub(crate) fn whole(&self) -> Result<Self> {
        let whole = |info: &TensorInfo| TensorInfo::new(info.path(), info.whole_shape());
        Self::new(self.tensors.iter().map(whole).collect())
    }

    /// The number of tensors.
    pub fn len(&self) -> usize {
        self.tensors.len()
    }

    /// Whether the layout has no tensors.
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }

    /// The number of elements of all tensors: the number of parameters of a model.
    pub fn elements(&self) -> usize {
        self.elements
    }

    /// The tensors, in the order of the tree.
    #[inline]
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// The paths of the tensors, in the order of the tree.
    pub fn paths(&self) -> impl ExactSizeIterator<Item = &str> {
        self.tensors.iter().map(TensorInfo::path)
    }

    /// The position of the tensor with this path, in time logarithmic in the number of tensors.
    pub fn position(&self, path: &str) -> Option<usize> {
        let at = self.by_path.binary_search_by(|at| self.tensors[*at].path().cmp(path)).ok()?;
        self.by_path.get(at).copied()
    }

    /// The positions of all tensors whose path begins with `prefix`.
    pub(crate) fn positions_below(&self, prefix: &str) -> impl Iterator<Item = usize> {
        let path = move |at: usize| self.tensors[at].path();
        let first = self.by_path.partition_point(|at| path(*at) < prefix);
        self.by_path[first..].iter().copied().take_while(move |at| path(*at).starts_with(prefix))
    }

    /// Nothing if a step is on the parameters known, or on the first ones; else the first difference.
    pub(crate) fn ensure_known(known: Option<&Arc<Self>>, found: &Arc<Self>) -> Result<()> {
        match known {
            Some(known) if !Arc::ptr_eq(known, found) => known.ensure_same(found),
            _ => Ok(()),
        }
    }

    /// Whether `other` has the same tensors, in whatever order.
    pub(crate) fn has_tensors_of(&self, other: &Self) -> bool {
        let pairs = self.by_path.iter().zip(&other.by_path);
        self.len() == other.len() && pairs.into_iter().all(|(own, at)| self.tensors[*own] == other.tensors[*at])
    }

    /// Returns an error if a tensor has another shape in `other`; it names the first.
    #[cfg(feature = "checkpoint")]
    pub(crate) fn ensure_shapes_of(&self, other: &Self) -> Result<()> {
        let pairs = self.tensors.iter().filter_map(|own| Some((own, other.tensors.get(other.position(&own.path)?)?)));
        match pairs.into_iter().find(|(own, other)| own.shape != other.shape) {
            Some((own, other)) => {
                Err(Error::Step(StepError::ParametersChanged { expected: own.to_string(), found: other.to_string() }))
            }
            None => Ok(()),
        }
    }

    /// Nothing if `other` is the same layout, else the first difference.
    pub(crate) fn ensure_same(&self, other: &Self) -> Result<()> {
        if self == other {
            return Ok(());
        }
        let at = self.tensors.iter().zip(&other.tensors).take_while(|(own, other)| own == other).count();
        let describe = |layout: &Self| match layout.tensors.get(at) {
            Some(tensor) => tensor.to_string(),
            None => "no more tensors".into(),
        };
        Err(Error::Step(StepError::ParametersChanged { expected: describe(self), found: describe(other) }))
    }
}

impl TensorInfo {
    /// Creates an entry with this path and shape.
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
        product(self.whole_shape())
    }

    /// Where in that tensor the part begins, in row-major order.
    pub(crate) fn start(&self) -> usize {
        self.part.as_ref().map_or(0, |part| part.start)
    }

    /// Whether all elements are on other ranks.
    pub(crate) fn is_elsewhere(&self) -> bool {
        self.part.is_some() && self.elements() == 0
    }

    /// The dotted path. It is empty if the tree is a single tensor.
    #[inline]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The shape. It is empty for a 0-dimensional array.
    #[inline]
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Whether this is the shape. Slices are compared by a call, which takes longer than these few numbers.
    #[inline]
    pub(crate) fn has_shape(&self, shape: &[usize]) -> bool {
        self.shape.len() == shape.len() && self.shape.iter().zip(shape).all(|(own, other)| own == other)
    }

    /// The number of elements. For a shape with more than `usize::MAX` elements, which no array has, it is `usize::MAX`.
    #[inline]
    pub fn elements(&self) -> usize {
        product(&self.shape)
    }

    /// The number of elements, if it is a number.
    fn checked_elements(&self) -> Option<usize> {
        self.shape.iter().try_fold(1_usize, |product, length| product.checked_mul(*length))
    }
}

impl fmt::Display for TensorInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of shape {:?}", Name(&self.path), self.shape)
    }
}

fn product(shape: &[usize]) -> usize {
    shape.iter().fold(1, |product, length| product.saturating_mul(*length))
}

/// The positions of tensors in the order of their paths, of equal ones in the order of the walk.
fn sorted_by_path(tensors: &[TensorInfo]) -> Vec<usize> {
    let mut by_path: Vec<usize> = (0..tensors.len()).collect();
    by_path.sort_by_key(|at| tensors[*at].path());
    by_path
}
