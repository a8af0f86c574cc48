//! Means over two axes that are not the last two: where the means of each element are.

use crate::kernel::tree;
use crate::params::{Order, Scalar};
use crate::step::Grad;
use crate::step::grad::{WIDE_BLOCK, with_buffer};

/// Elements that are summed up by one thread.
const SPREAD_LEAF: usize = 64 * 1024;

/// A tensor whose rows and columns are any two axes. There is a mean of a row for each index of all axes but that of the columns, and the other way round.
#[derive(Debug, Clone)]
pub(super) struct Spread {
    shape: Vec<usize>,
    /// The axes of rows and columns.
    axes: (usize, usize),
    /// How far apart the means of the rows are along each axis, and those of the columns.
    row_strides: Vec<usize>,
    column_strides: Vec<usize>,
}

/// Elements along the last axis, in a block, and where the means of the first of them are.
struct Run {
    at: usize,
    length: usize,
    row: usize,
    column: usize,
}

/// The strides of a tensor of this shape, in which the axis `without` has the length 1.
fn strides(shape: &[usize], without: usize) -> Vec<usize> {
    let mut next = 1;
    let stride = |(axis, side): (usize, &usize)| {
        let stride = if axis == without { 0 } else { next };
        next *= if axis == without { 1 } else { *side };
        stride
    };
    let mut strides: Vec<_> = shape.iter().enumerate().rev().map(stride).collect();
    strides.reverse();
    strides
}

impl Spread {
    /// `None` if these are the last two axes, in this order.
    pub(super) fn new(shape: &[usize], axes: (usize, usize)) -> Option<Self> {
        let is_last = (axes.0 + 2, axes.1 + 1) == (shape.len(), shape.len());
        let spread = || Self {
            shape: shape.to_vec(),
            axes,
            row_strides: strides(shape, axes.1),
            column_strides: strides(shape, axes.0),
        };
        (!is_last).then(spread)
    }

    /// How many elements a mean of a row, and of a column, is over.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.shape[self.axes.1], self.shape[self.axes.0])
    }

    /// The numbers of means of rows and of columns.
    fn lengths(&self) -> (usize, usize) {
        let elements: usize = self.shape.iter().product();
        let (per_row, per_column) = self.counts();
        (elements / per_row, elements / per_column)
    }

    /// How far apart the means of neighbors along the last axis are.
    fn steps(&self) -> (usize, usize) {
        let last = self.shape.len() - 1;
        (self.row_strides[last], self.column_strides[last])
    }

    /// The runs of a block.
    fn runs(&self, start: usize, length: usize) -> impl Iterator<Item = Run> {
        let mut at = 0;
        std::iter::from_fn(move || {
            let (mut rest, mut row, mut column) = (start + at, 0, 0);
            let mut left = 0;
            for (axis, side) in self.shape.iter().enumerate().rev() {
                let index = rest % side;
                rest /= side;
                row += index * self.row_strides[axis];
                column += index * self.column_strides[axis];
                if axis == self.shape.len() - 1 {
                    left = side - index;
                }
            }
            let run = Run { at, length: left.min(length - at), row, column };
            at += run.length;
            (run.length > 0).then_some(run)
        })
    }

    /// The sums of squares of a gradient for each row and each column.
    pub(super) fn sums<A: Scalar>(&self, grad: &Grad<'_, A>) -> (Vec<f64>, Vec<f64>) {
        self.sums_of(grad, 0, self.shape.iter().product())
    }

    /// How many elements are summed up by one thread. Every part has its own sums for all rows and columns, so it has at least as many elements.
    fn leaf(&self) -> usize {
        let (rows, columns) = self.lengths();
        SPREAD_LEAF.max(rows + columns)
    }

    /// Those of a range of elements, in a tree that depends only on its length and the shape.
    fn sums_of<A: Scalar>(&self, grad: &Grad<'_, A>, start: usize, length: usize) -> (Vec<f64>, Vec<f64>) {
        let leaf = self.leaf();
        if length > leaf {
            let middle = length.div_ceil(leaf).next_power_of_two() / 2 * leaf;
            let left = || self.sums_of(grad, start, middle);
            let (mut sums, others) = tree::join(length, left, || self.sums_of(grad, start + middle, length - middle));
            let add =
                |sums: &mut [f64], others: &[f64]| sums.iter_mut().zip(others).for_each(|(sum, other)| *sum += other);
            add(&mut sums.0, &others.0);
            add(&mut sums.1, &others.1);
            return sums;
        }
        let (row_step, column_step) = self.steps();
        let lengths = self.lengths();
        let (mut rows, mut columns) = (vec![0.0; lengths.0], vec![0.0; lengths.1]);
        with_buffer(WIDE_BLOCK.min(length), |grads| {
            for block in (start..start + length).step_by(WIDE_BLOCK) {
                let grads = &mut grads[..WIDE_BLOCK.min(start + length - block)];
                grad.read(&self.shape, Order::C, block, grads);
                for Run { at, length, row, column } in self.runs(block, grads.len()) {
                    for (nth, grad) in grads[at..at + length].iter().enumerate() {
                        let square = grad.as_f64() * grad.as_f64();
                        rows[row + nth * row_step] += square;
                        columns[column + nth * column_step] += square;
                    }
                }
            }
        });
        (rows, columns)
    }

    /// Divides the mean of each matrix's rows, at least `least`, by each of them.
    pub(super) fn relative<A: Scalar>(&self, rows: &[A], least: f64) -> Vec<f64> {
        let (stride, side) = (self.row_strides[self.axes.0], self.shape[self.axes.0]);
        let first = |row: usize| row - row / stride % side * stride;
        let mut sums = vec![0.0; rows.len()];
        rows.iter().enumerate().for_each(|(row, mean)| sums[first(row)] += mean.as_f64());
        let ratio = |(row, mean): (usize, &A)| (sums[first(row)] / side as f64).max(least) / mean.as_f64();
        rows.iter().enumerate().map(ratio).collect()
    }

    /// Multiplies a block of gradients by the factors of their rows and columns, at most `most`.
    pub(super) fn multiply<A: Scalar>(&self, (rows, columns): (&[A], &[A]), most: A, start: usize, grads: &mut [A]) {
        let (row_step, column_step) = self.steps();
        for Run { at, length, row, column } in self.runs(start, grads.len()) {
            for (nth, grad) in grads[at..at + length].iter_mut().enumerate() {
                let factor = rows[row + nth * row_step] * columns[column + nth * column_step];
                *grad *= if factor > most { most } else { factor };
            }
        }
    }
}
