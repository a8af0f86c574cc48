//! How large a tree is, and what an optimizer does with each tensor.

use std::fmt;

use crate::error::{Name, Result};
use crate::params::{Element, Layout, Params, TensorInfo, for_each};
use crate::step::Step;
use crate::step::memo::Note;

/// The size of a tree: the result of [`count`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Count {
    /// The number of tensors.
    pub tensors: usize,
    /// The number of elements of all tensors: the number of parameters of a model.
    pub elements: usize,
    /// The bytes of all elements.
    pub bytes: usize,
}

impl Count {
    fn add(&mut self, elements: usize, bytes: usize) {
        self.tensors += 1;
        self.elements += elements;
        self.bytes += bytes;
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |count: usize, what| format!("{} {what}{}", grouped(count), if count == 1 { "" } else { "s" });
        let Self { tensors, elements, bytes } = *self;
        write!(f, "{}, {}, {}", of(tensors, "tensor"), of(elements, "element"), of(bytes, "byte"))
    }
}

/// The number of tensors, elements and bytes. An empty `Option` is no tensor.
///
/// ```
/// use ndarray::Array2;
///
/// let count = gradus::tree::count(&(Array2::<f32>::zeros((128, 64)), vec![0.0_f32; 128]));
/// assert_eq!((count.tensors, count.elements, count.bytes), (2, 8320, 33_280));
/// assert_eq!(count.to_string(), "2 tensors, 8,320 elements, 33,280 bytes");
/// ```
#[doc(alias("numel", "num_parameters"))]
pub fn count<T: Params + ?Sized>(tree: &T) -> Count {
    let mut count = Count::default();
    for_each(tree, |_, shape, values| {
        if values.is_some() {
            let elements = shape.iter().product();
            count.add(elements, elements * size_of::<T::Elem>());
        }
    });
    count
}

/// A table of the tensors of a tree: the result of [`summary`] and of [`OptimizerExt::summary`](crate::OptimizerExt::summary).
///
/// [`Display`](fmt::Display) writes the table. What is inside `sharded` is not looked into.
///
/// # Example
/// ```
/// use std::collections::BTreeMap;
///
/// use gradus::prelude::*;
/// use ndarray::{ArrayD, IxDyn};
///
/// let model: BTreeMap<_, ArrayD<f32>> = [("body.weight", vec![64, 128]), ("head.weight", vec![10, 64]), ("head.bias", vec![10])]
///     .map(|(name, shape)| (name, ArrayD::zeros(IxDyn(&shape))))
///     .into();
/// let opt = AdamW::new(1e-3).group("**.bias", Group::no_decay()).freeze("body.**");
/// let summary = opt.summary(&model)?;
/// assert_eq!((summary.count().elements, summary.trained().elements), (8842, 650));
/// println!("{summary}");
/// # let expected = "\
/// # tensor       shape      elements   bytes  frozen  group
/// # body.weight  [64, 128]     8,192  32,768  frozen
/// # head.bias    [10]             10      40          **.bias
/// # head.weight  [10, 64]        640   2,560
/// # 3 tensors                  8,842  35,368
/// # 2 trained                    650   2,600";
/// # assert_eq!(summary.to_string(), expected);
/// # Ok::<(), gradus::Error>(())
/// ```
/// ```text
/// tensor       shape      elements   bytes  frozen  group
/// body.weight  [64, 128]     8,192  32,768  frozen
/// head.bias    [10]             10      40          **.bias
/// head.weight  [10, 64]        640   2,560
/// 3 tensors                  8,842  35,368
/// 2 trained                    650   2,600
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    tensors: Vec<TensorSummary>,
}

/// One row of a [`Summary`].
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct TensorSummary {
    /// The path. It is empty if the tree is a single tensor.
    pub path: String,
    /// The shape.
    pub shape: Vec<usize>,
    /// The number of elements.
    pub elements: usize,
    /// The bytes of the elements.
    pub bytes: usize,
    /// Whether the optimizer does not move it, because it is [frozen](crate::OptimizerExt::freeze).
    pub frozen: bool,
    /// The [groups](crate::OptimizerExt::group) and [routes](crate::OptimizerExt::route) that it is in, by their patterns, the outermost first; and
    /// its factor of [`layerwise_decay`](crate::OptimizerExt::layerwise_decay).
    pub groups: Vec<String>,
}

impl Summary {
    /// The tensors of a step, with what has been noted of them.
    pub(crate) fn noted<A: Element>(step: &Step<'_, A>) -> Self {
        let mut summary = Self::of(step.layout(), size_of::<A>());
        for (at, note) in step.take_notes() {
            let Some(tensor) = summary.tensors.get_mut(at) else { continue };
            match note {
                Note::Skipped | Note::Part(_) | Note::Branch { .. } | Note::BranchesEnd => {} // of no tensor
                Note::Frozen => tensor.frozen = true,
                Note::Group(group) if tensor.groups.contains(&group) => {} // of a chain that checks twice
                Note::Group(group) => tensor.groups.push(group),
            }
        }
        summary
    }

    /// The tensors of a layout.
    fn of(layout: &Layout, bytes_of_element: usize) -> Self {
        let tensor = |info: &TensorInfo| TensorSummary {
            path: info.path().into(),
            shape: info.shape().to_vec(),
            elements: info.elements(),
            bytes: info.elements() * bytes_of_element,
            frozen: false,
            groups: Vec::new(),
        };
        Self { tensors: layout.tensors().iter().map(tensor).collect() }
    }

    /// The tensors, in the order of the tree.
    pub fn tensors(&self) -> &[TensorSummary] {
        &self.tensors
    }

    /// The size of the tree.
    pub fn count(&self) -> Count {
        self.count_of(|_| true)
    }

    /// The size of the tensors that are not frozen.
    pub fn trained(&self) -> Count {
        self.count_of(|tensor| !tensor.frozen)
    }

    fn count_of(&self, chosen: impl Fn(&TensorSummary) -> bool) -> Count {
        let mut count = Count::default();
        self.tensors.iter().filter(|tensor| chosen(tensor)).for_each(|tensor| count.add(tensor.elements, tensor.bytes));
        count
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rows = vec![["tensor", "shape", "elements", "bytes", "frozen", "group"].map(String::from)];
        rows.extend(self.tensors.iter().map(|tensor| {
            let path = if tensor.path.is_empty() { Name("").to_string() } else { tensor.path.clone() };
            let frozen = if tensor.frozen { "frozen" } else { "" };
            let (elements, bytes) = (grouped(tensor.elements), grouped(tensor.bytes));
            [path, format!("{:?}", tensor.shape), elements, bytes, frozen.into(), tensor.groups.join(", ")]
        }));
        let count = self.count();
        let total = format!("{} tensors", grouped(count.tensors));
        rows.push([total, String::new(), grouped(count.elements), grouped(count.bytes), String::new(), String::new()]);
        if self.tensors.iter().any(|tensor| tensor.frozen) {
            let trained = self.trained();
            let total = format!("{} trained", grouped(trained.tensors));
            let [elements, bytes] = [trained.elements, trained.bytes].map(grouped);
            rows.push([total, String::new(), elements, bytes, String::new(), String::new()]);
        }
        let width = |column: usize, rows: &[[String; 6]]| rows.iter().map(|row| row[column].chars().count()).max();
        // A column with nothing but a title is left out.
        let columns = (0..6).filter(|column| width(*column, &rows[1..]) > Some(0));
        let columns: Vec<_> = columns.map(|column| (column, width(column, &rows).unwrap_or(0))).collect();
        for (number, row) in rows.iter().enumerate() {
            let mut line = String::new();
            for &(column, width) in &columns {
                let text = &row[column];
                let is_number = (2..4).contains(&column);
                line += &if is_number { format!("{text:>width$}  ") } else { format!("{text:<width$}  ") };
            }
            write!(f, "{}{}", if number > 0 { "\n" } else { "" }, line.trim_end())?;
        }
        Ok(())
    }
}

/// A count with a comma after every three digits.
fn grouped(count: usize) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A table of the tensors of a tree. [`OptimizerExt::summary`](crate::OptimizerExt::summary) also has what an optimizer does with each.
///
/// # Errors
/// [`StepError::DuplicatePath`](crate::error::StepError::DuplicatePath).
///
/// # Example
/// ```
/// use std::collections::BTreeMap;
///
/// use ndarray::{ArrayD, IxDyn};
///
/// let model: BTreeMap<_, ArrayD<f32>> = [("head.weight", vec![10, 128]), ("head.bias", vec![10])]
///     .map(|(name, shape)| (name, ArrayD::zeros(IxDyn(&shape))))
///     .into();
/// println!("{}", gradus::tree::summary(&model)?);
/// # let expected = "\
/// # tensor       shape      elements  bytes
/// # head.bias    [10]             10     40
/// # head.weight  [10, 128]     1,280  5,120
/// # 2 tensors                  1,290  5,160";
/// # assert_eq!(gradus::tree::summary(&model)?.to_string(), expected);
/// # Ok::<(), gradus::Error>(())
/// ```
/// ```text
/// tensor       shape      elements  bytes
/// head.bias    [10]             10     40
/// head.weight  [10, 128]     1,280  5,120
/// 2 tensors                  1,290  5,160
/// ```
pub fn summary<T: Params + ?Sized>(tree: &T) -> Result<Summary> {
    Ok(Summary::of(&Layout::of(tree)?, size_of::<T::Elem>()))
}
