//! A gradient of some rows of a tensor.

use std::borrow::Cow;
use std::sync::Arc;

use super::{Gathered, Grad, Source, Touched};
use crate::error::{Error, Result, StepError};
use crate::params::{Element, Order, SortedRows, TensorInfo, Values};
use crate::step::memo::SourceId;

/// What to do where a matrix optimizer cannot use rows.
pub(crate) const ELEMENTWISE: &str = "pass a dense gradient, or route the tensor to an element-wise optimizer";

/// Returns an error unless rows with values of this shape are the gradient of some rows of a tensor.
pub(crate) fn ensure_rows(info: &TensorInfo, rows: &[usize], shape: &[usize]) -> Result<()> {
    let path = info.path().to_owned();
    let (Some((count, parameter)), Some((values, gradient))) = (info.shape().split_first(), shape.split_first()) else {
        let (parameter, gradient) = (info.shape().to_vec(), shape.to_vec());
        return Err(Error::Step(StepError::ShapeMismatch { path, parameter, gradient }));
    };
    let outside = || rows.iter().enumerate().find(|(_, row)| *row >= count);
    Err(Error::Step(if parameter != gradient {
        StepError::RowShape { path, parameter: parameter.to_vec(), gradient: gradient.to_vec() }
    } else if rows.len() != *values {
        StepError::RowCount { path, indices: rows.len(), values: *values }
    } else if let Some((place, row)) = outside() {
        StepError::RowOutOfRange { path, place, row: *row, rows: *count }
    } else {
        return Ok(());
    }))
}

impl<A: Element> Gathered<'_, A> {
    /// The row at this place of the list.
    fn row(&self, at: usize) -> &[A] {
        let (place, given) = (self.places[at] * self.width, self.values.len());
        match place.checked_sub(given) {
            Some(place) => &self.sums[place..place + self.width],
            None => &self.values[place..place + self.width],
        }
    }

    /// Elements in row-major order, if they lie in one row.
    pub(super) fn piece(&self, start: usize, length: usize) -> Option<&[A]> {
        let (at, offset) = (start.checked_div(self.width)?, start % self.width);
        if at < self.places.len() { self.row(at).get(offset..offset + length) } else { None }
    }

    /// Reads elements `start …` in this order.
    pub(super) fn read(&self, shape: &[usize], order: Order, start: usize, out: &mut [A]) {
        let mut done = 0;
        while done < out.len() {
            let (at, length) = match order {
                Order::C => (start + done, self.width - (start + done) % self.width),
                Order::F => (row_major_place(start + done, shape), 1),
            };
            let length = length.min(out.len() - done);
            let offset = at % self.width;
            let row = self.row(at / self.width);
            out[done..done + length].copy_from_slice(&row[offset..offset + length]);
            done += length;
        }
    }
}

/// The place in row-major order of the element that is at `at` in column-major order.
fn row_major_place(mut at: usize, shape: &[usize]) -> usize {
    let (mut place, mut size) = (0, shape.iter().product::<usize>());
    for length in shape {
        size /= length;
        place += at % length * size;
        at /= length;
    }
    place
}

impl<'a, A: Element> Touched<'a, A> {
    /// What [fits](ensure_rows) the tensor: sorted, and with the sums of rows that occur several times.
    pub(super) fn of(info: &TensorInfo, rows: &'a [usize], values: Values<'a, A>, id: SourceId) -> Self {
        if rows.is_sorted_by(|left, right| left < right) {
            return Self::sorted(info, Cow::Borrowed(rows), Grad::of(values, id));
        }
        let shape = shape_of(info, rows.len());
        let mut sorted = SortedRows::of(rows, &values, &shape);
        let grad = match values {
            // Not copied: what has just been computed is in the cache, and memory for a copy would not be.
            Values::Contiguous(values, Order::C) => {
                let rows = std::mem::take(&mut sorted.rows);
                let width = shape[1..].iter().product();
                let SortedRows { places, sums, .. } = sorted;
                let grad = Source::Gathered(Arc::new(Gathered { values, places, sums, width }), id).into();
                return Self::sorted(info, Cow::Owned(rows), grad);
            }
            values => Grad::owned(sorted.values(&values, &shape), id),
        };
        Self::sorted(info, Cow::Owned(sorted.rows), grad)
    }

    /// These rows of a tensor.
    pub(super) fn sorted(info: &TensorInfo, rows: Cow<'a, [usize]>, grad: Grad<'a, A>) -> Self {
        let info = TensorInfo::new(info.path(), &shape_of(info, rows.len()));
        Self { rows, info, grad }
    }

    /// The same rows, with the gradient that `borrow` makes of theirs.
    pub(super) fn reborrow<'s, B>(&'s self, borrow: impl FnOnce(&'s Grad<'a, A>) -> Grad<'s, B>) -> Touched<'s, B> {
        Touched { rows: Cow::Borrowed(&self.rows), info: self.info.clone(), grad: borrow(&self.grad) }
    }

    /// The same gradient for the tensor that consists of these rows, which include its own.
    pub(super) fn within(&self, rows: &[usize]) -> Touched<'_, A> {
        let places = self.rows.iter().map(|row| rows.partition_point(|other| other < row)).collect();
        Touched { rows: Cow::Owned(places), ..self.reborrow(Grad::reborrow) }
    }

    /// Reads elements `start …` of the whole tensor in this order, with zeros in the other rows.
    pub(super) fn read(&self, shape: &[usize], order: Order, start: usize, out: &mut [A]) {
        out.fill(A::zero());
        let (Some(count), end) = (shape.first(), start + out.len()) else { return };
        if out.is_empty() || self.rows.is_empty() {
            return;
        }
        // In C order a row is a run of elements; in F order the rows take turns.
        let (run, turns) = match order {
            Order::C => (shape[1..].iter().product(), 0..1),
            Order::F => (1, start / count..end.div_ceil(*count)),
        };
        for turn in turns {
            let (from, own) = (turn * count * run, turn * self.rows.len() * run);
            let first = self.rows.partition_point(|row| from + (row + 1) * run <= start);
            for (at, row) in self.rows.iter().enumerate().skip(first) {
                let begin = from + row * run;
                let range = begin.max(start)..(begin + run).min(end);
                if range.is_empty() {
                    break;
                }
                let place = own + at * run + (range.start - begin);
                self.grad.read(self.info.shape(), order, place, &mut out[range.start - start..range.end - start]);
            }
        }
    }
}

impl<'a, A: Element> Grad<'a, A> {
    /// The gradient of a tensor from a walk through a gradient tree: of rows that [fit](ensure_rows).
    #[cold]
    #[inline(never)]
    pub(crate) fn of_walked_rows(
        info: &TensorInfo,
        (rows, values): (&'a [usize], Values<'a, A>),
        id: SourceId,
    ) -> Self {
        Source::Rows(Box::new(Touched::of(info, rows, values, id))).into()
    }

    /// The gradient of increasing rows of a tensor, given that of the tensor that consists of them alone.
    pub(crate) fn of_rows(info: &TensorInfo, rows: Cow<'a, [usize]>, grad: Self) -> Self {
        Source::Rows(Box::new(Touched::sorted(info, rows, grad))).into()
    }

    /// A gradient of rows as that of the tensor that consists of these rows, which include its own.
    pub(crate) fn within(&self, rows: &[usize]) -> Grad<'_, A> {
        match &self.source {
            Source::Rows(touched) => Source::Rows(Box::new(touched.within(rows))).into(),
            _ => self.reborrow(),
        }
    }

    /// The rows that have a gradient, if it is one of [`Rows`](crate::Rows): their increasing indices along the tensor's first axis, and the
    /// gradient of the tensor that consists of these rows alone. It is `None` for a gradient of the whole tensor.
    ///
    /// The methods that read a gradient read zeros for all other rows.
    pub fn rows(&self) -> Option<(&[usize], &Self)> {
        match &self.source {
            Source::Rows(touched) => Some((&touched.rows, &touched.grad)),
            _ => None,
        }
    }

    /// The gradient without rows that have none, and path and shape of what has one; `info` is the tensor's.
    pub(crate) fn compact<'s>(&'s self, info: &'s TensorInfo) -> (&'s TensorInfo, &'s Self) {
        match &self.source {
            Source::Rows(touched) => (&touched.info, &touched.grad),
            _ => (info, self),
        }
    }

    /// [`compact`](Self::compact), to be changed.
    pub(crate) fn compact_mut<'s>(&'s mut self, info: &'s TensorInfo) -> (&'s TensorInfo, &'s mut Self) {
        match self.source {
            Source::Rows(ref mut touched) => (&touched.info, &mut touched.grad),
            _ => (info, self),
        }
    }

    /// Returns an error if it is a gradient of rows, which `name` cannot use.
    pub(crate) fn ensure_dense(&self, info: &TensorInfo, name: &'static str, instead: &'static str) -> Result<()> {
        match self.rows() {
            Some(_) => Err(Error::Step(StepError::RowsUnusable { name, path: info.path().into(), instead })),
            None => Ok(()),
        }
    }
}

/// Rows that lie one after the other, each with its place among all.
pub(crate) fn runs(rows: &[usize]) -> impl Iterator<Item = (usize, &[usize])> {
    rows.chunk_by(|row, next| row + 1 == *next).scan(0, |at, run| {
        let first = *at;
        *at += run.len();
        Some((first, run))
    })
}

/// The rows of both lists, each of which is increasing.
pub(crate) fn union(left: &[usize], right: &[usize]) -> Vec<usize> {
    let mut rows = [left, right].concat();
    rows.sort_unstable();
    rows.dedup();
    rows
}

/// The shape of so many rows of a tensor.
pub(crate) fn shape_of(info: &TensorInfo, rows: usize) -> Vec<usize> {
    let mut shape = info.shape().to_vec();
    shape.first_mut().into_iter().for_each(|first| *first = rows);
    shape
}
