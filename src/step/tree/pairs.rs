//! The tensors of two trees, matched by path.

use std::ops::Range;

use crate::error::{ArgumentError, Error, Result, StepError};
use crate::params::{Element, Params, ParamsMut, Path, TensorInfo, Values, ValuesMut, for_each, for_each_mut};
use crate::step::Grad;
use crate::step::grad::rows::ensure_rows;
use crate::step::memo::new_ids;

/// The tensors of the first tree, each with that of the second tree.
pub(super) struct Pairs<'a, V, A> {
    /// The shapes of all tensors, one after the other.
    pub(super) shapes: Vec<usize>,
    pub(super) tensors: Vec<Paired<'a, V, A>>,
}

/// One tensor.
pub(super) struct Paired<'a, V, A> {
    /// Where the shape is among those of all tensors.
    pub(super) shape: Range<usize>,
    pub(super) elements: usize,
    /// The values in the first tree.
    pub(super) own: V,
    /// Those in the second tree, if there is one.
    pub(super) other: Option<Grad<'a, A>>,
}

/// The tensors of a tree that is read. Few allocations: their paths are in one string.
struct Walked<'a, A> {
    paths: String,
    shapes: Vec<usize>,
    tensors: Vec<Walk<'a, A>>,
}

struct Walk<'a, A> {
    path: Range<usize>,
    shape: Range<usize>,
    /// None if a tensor of the first tree has been found to be the same.
    values: Option<Values<'a, A>>,
}

/// What a function does with [`Rows`](crate::Rows) in its second tree.
#[derive(Clone, Copy)]
pub(super) enum InRows {
    /// Reads zeros in the other rows.
    Zeros,
    /// The function of this name returns an error.
    Refused(&'static str),
}

impl<'a, A: Element> Walked<'a, A> {
    fn of(tree: &'a (impl Params<Elem = A> + ?Sized)) -> Self {
        let mut walked = Self { paths: String::new(), shapes: Vec::new(), tensors: Vec::new() };
        for_each(tree, |path, shape, values| {
            if values.is_some() {
                let (path_start, shape_start) = (walked.paths.len(), walked.shapes.len());
                _ = path.write_to(&mut walked.paths); // a `String` takes all
                walked.shapes.extend_from_slice(shape);
                let (path, shape) = (path_start..walked.paths.len(), shape_start..walked.shapes.len());
                walked.tensors.push(Walk { path, shape, values });
            }
        });
        walked
    }

    fn path(&self, at: usize) -> &str {
        self.tensors.get(at).map_or("", |tensor| &self.paths[tensor.path.clone()])
    }

    fn shape(&self, at: usize) -> &[usize] {
        &self.shapes[self.tensors[at].shape.clone()]
    }

    /// The positions in the order of the paths.
    fn by_path(&self) -> Vec<usize> {
        let mut by_path: Vec<usize> = (0..self.tensors.len()).collect();
        by_path.sort_by_key(|at| self.path(*at));
        by_path
    }
}

/// Pairs the tensors of the first tree, which `walk` shows, with those of the second.
///
/// # Errors
/// [`ArgumentError::Trees`] with the first tensor that differs.
pub(super) fn pair<'a, A: Element, V>(
    walk: impl FnOnce(&mut dyn FnMut(&Path<'_>, &[usize], Option<V>)),
    second: &'a (impl Params<Elem = A> + ?Sized),
    rows: InRows,
) -> Result<Pairs<'a, V, A>> {
    let mut others = Walked::of(second);
    let first_id = new_ids(others.tensors.len());
    let (mut pairs, mut error, mut by_path) = (Pairs::new(others.tensors.len()), None, None);
    walk(&mut |path, shape, own| {
        let (Some(own), None) = (own, &error) else { return };
        // Most trees have one order.
        let mut at = Some(pairs.tensors.len());
        if !at.is_some_and(|at| at < others.tensors.len() && path.is(others.path(at))) {
            let by_path = by_path.get_or_insert_with(|| others.by_path());
            let name = path.to_string();
            let found = by_path.binary_search_by(|at| others.path(*at).cmp(&name));
            at = found.ok().and_then(|found| by_path.get(found).copied());
        }
        match take(&mut others, at, (path, shape), rows) {
            Ok(values) => {
                let id = first_id + pairs.tensors.len() as u64;
                let other = match values {
                    Values::Rows(rows) => Grad::of_walked_rows(&TensorInfo::new(path.to_string(), shape), *rows, id),
                    values => Grad::of(values, id),
                };
                pairs.push(shape, own, Some(other));
            }
            Err(found) => error = Some(found),
        }
    });
    if let Some(error) = error {
        return Err(error);
    }
    match others.tensors.iter().position(|tensor| tensor.values.is_some()) {
        Some(at) => Err(Error::Argument(ArgumentError::Trees {
            path: others.path(at).into(),
            first: None,
            second: Some(others.shape(at).to_vec()),
        })),
        None => Ok(pairs),
    }
}

/// The values of the tensor that is at `at` in the second tree, if it fits that of the first.
fn take<'a, A: Element>(
    others: &mut Walked<'a, A>,
    at: Option<usize>,
    (path, shape): (&Path<'_>, &[usize]),
    rows: InRows,
) -> Result<Values<'a, A>> {
    let differ = |second: Option<&[usize]>| {
        let (path, second) = (path.to_string(), second.map(<[usize]>::to_vec));
        Err(Error::Argument(ArgumentError::Trees { path, first: Some(shape.to_vec()), second }))
    };
    let Some(at) = at else { return differ(None) };
    let Some(values) = others.tensors[at].values.take() else {
        return Err(Error::Step(StepError::DuplicatePath { path: path.to_string() }));
    };
    match (&values, rows) {
        (Values::Rows(_), InRows::Refused(name)) => Err(refused(name, path, "make it dense with `Rows::to_dense`")),
        (Values::Rows(rows), InRows::Zeros) => {
            ensure_rows(&TensorInfo::new(path.to_string(), shape), rows.0, others.shape(at)).map(|()| values)
        }
        _ if others.shape(at) == shape => Ok(values),
        _ => differ(Some(others.shape(at))),
    }
}

fn refused(name: &'static str, path: &Path<'_>, instead: &'static str) -> Error {
    Error::Step(StepError::RowsUnusable { name, path: path.to_string(), instead })
}

/// What is called with each tensor that is read.
type Visit<'v, 'a, A> = &'v mut dyn FnMut(&Path<'_>, &[usize], Option<Values<'a, A>>);

/// Pairs the tensors of two trees that are read. The second may have [`Rows`](crate::Rows).
pub(super) fn pair_to_read<'a, A: Element>(
    name: &'static str,
    first: &'a (impl Params<Elem = A> + ?Sized),
    second: &'a (impl Params<Elem = A> + ?Sized),
) -> Result<Pairs<'a, Values<'a, A>, A>> {
    let mut error = None;
    let instead = "pass it as the second tree, or make it dense with `Rows::to_dense`";
    let walk = |visit: Visit<'_, 'a, A>| {
        for_each(first, |path, shape, values| match values {
            Some(Values::Rows(_)) => _ = error.get_or_insert_with(|| refused(name, path, instead)),
            values => visit(path, shape, values),
        });
    };
    let pairs = pair(walk, second, InRows::Zeros);
    error.map_or(pairs, Err)
}

impl<'a, V, A> Pairs<'a, V, A> {
    fn new(tensors: usize) -> Self {
        Self { shapes: Vec::with_capacity(2 * tensors), tensors: Vec::with_capacity(tensors) }
    }

    fn push(&mut self, shape: &[usize], own: V, other: Option<Grad<'a, A>>) {
        let start = self.shapes.len();
        self.shapes.extend_from_slice(shape);
        let elements = shape.iter().product();
        self.tensors.push(Paired { shape: start..self.shapes.len(), elements, own, other });
    }
}

/// The tensors of one tree, to be changed.
pub(super) fn alone<'a, T: ParamsMut + ?Sized>(tree: &'a mut T) -> Pairs<'a, ValuesMut<'a, T::Elem>, T::Elem> {
    let mut pairs = Pairs::new(0);
    for_each_mut(tree, |_, shape, values| {
        if let Some(values) = values {
            pairs.push(shape, values, None);
        }
    });
    pairs
}
