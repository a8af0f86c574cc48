//! Means of rows and columns, and the directions that are made of them: in blocks, without a copy of a tensor.

use pulp::{Arch, NullaryFnOnce};

use super::factor::Moments;
use super::spread::Spread;
use crate::kernel::simd::padded;
use crate::kernel::{simd, tree};
use crate::params::{Order, Scalar};
use crate::step::Grad;
use crate::step::grad::{WIDE_BLOCK, with_buffer};

/// A tensor as lines, the runs of elements along the last axis. Without factors every element is a line.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Lines {
    pub(super) count: usize,
    pub(super) length: usize,
    /// How many lines one matrix has.
    pub(super) per_matrix: usize,
    pub(super) is_factored: bool,
}

/// A run of elements of one line, in a block.
struct Piece {
    /// Where it begins in the block.
    at: usize,
    length: usize,
    line: usize,
    column: usize,
}

impl Lines {
    pub(super) fn new(shape: &[usize], is_factored: bool) -> Self {
        let elements = shape.iter().product();
        match shape {
            [.., rows, columns] if is_factored => {
                Self { count: elements / (*columns).max(1), length: *columns, per_matrix: *rows, is_factored }
            }
            _ => Self { count: elements, length: 1, per_matrix: elements, is_factored: false },
        }
    }

    /// The first of the column means of a line's matrix.
    fn columns_of(self, line: usize) -> usize {
        line / self.per_matrix * self.length
    }

    /// The lines that a block has a part of.
    fn pieces(self, start: usize, length: usize) -> impl Iterator<Item = Piece> {
        let (mut at, mut line, mut column) = (0, start / self.length, start % self.length);
        std::iter::from_fn(move || {
            let piece = Piece { at, length: (self.length - column).min(length - at), line, column };
            (at, line, column) = (at + piece.length, line + 1, 0);
            (piece.length > 0).then_some(piece)
        })
    }
}

/// Sums of squares of one gradient, for each line and each column.
#[derive(Debug)]
pub(super) struct SquareSums {
    lines: Vec<f64>,
    columns: Vec<f64>,
}

impl SquareSums {
    /// The sums of a tensor with elements.
    pub(super) fn of<A: Scalar>(grad: &Grad<'_, A>, shape: &[usize], lines: Lines, spread: Option<&Spread>) -> Self {
        if let Some(spread) = spread {
            let (lines, columns) = spread.sums(grad);
            return Self { lines, columns };
        }
        let mut of_lines = vec![0.0; lines.count];
        let columns = Summing { grad, shape, lines }.sum(0, &mut of_lines);
        Self { lines: of_lines, columns }
    }

    /// The Euclidean norm of the gradient.
    pub(super) fn norm(&self) -> f64 {
        self.lines.iter().sum::<f64>().sqrt()
    }
}

/// Elements that are summed up by one thread, unless lines are long.
const LEAF: usize = 64 * 1024;

/// Lines that are summed up by one thread, at least: every leaf has sums of its own for the columns.
const LEAF_LINES: usize = 16;

struct Summing<'s, 'a, A> {
    grad: &'s Grad<'a, A>,
    shape: &'s [usize],
    lines: Lines,
}

impl<A: Scalar> Summing<'_, '_, A> {
    /// Sums up the lines from `first`, in a tree that depends only on their number. Returns the sums of the columns of all matrices that
    /// these lines are a part of.
    fn sum(&self, first: usize, of_lines: &mut [f64]) -> Vec<f64> {
        let Lines { length, per_matrix, is_factored, .. } = self.lines;
        let leaf = (LEAF / length).max(LEAF_LINES);
        let count = of_lines.len();
        if count <= leaf {
            return self.leaf(first, of_lines);
        }
        let middle = count.div_ceil(leaf).next_power_of_two() / 2 * leaf;
        let (left, right) = of_lines.split_at_mut(middle);
        let (mut sums, others) =
            tree::join(count * length, || self.sum(first, left), || self.sum(first + middle, right));
        // The matrix that both have lines of.
        let is_cut = is_factored && !(first + middle).is_multiple_of(per_matrix);
        let (shared, others) = others.split_at(if is_cut { length } else { 0 });
        let last = sums.len() - shared.len();
        sums[last..].iter_mut().zip(shared).for_each(|(sum, other)| *sum += other);
        sums.extend(others);
        sums
    }

    fn leaf(&self, first: usize, of_lines: &mut [f64]) -> Vec<f64> {
        let Lines { length, per_matrix, is_factored, .. } = self.lines;
        let last = first + of_lines.len() - 1;
        let matrices = if is_factored { last / per_matrix - first / per_matrix + 1 } else { 0 };
        let mut columns = vec![0.0; matrices * length];
        let (arch, end) = (simd::arch(), (last + 1) * length);
        for start in (first * length..end).step_by(WIDE_BLOCK) {
            let range = start..end.min(start + WIDE_BLOCK);
            let mut add = |grads: &[A]| {
                let (of_lines, columns) = (&mut *of_lines, &mut columns[..]);
                arch.dispatch(AddSquares { grads, lines: self.lines, start, first, of_lines, columns });
            };
            match self.grad.as_final_slice(Order::C) {
                Some(grads) => add(&grads[range]),
                None => with_buffer(range.len(), |grads| {
                    self.grad.read(self.shape, Order::C, start, grads);
                    add(grads);
                }),
            }
        }
        columns
    }
}

/// Squares summed side by side, the same on every machine.
const SIDE_BY_SIDE: usize = 8;

/// Adds the squares of a block to the sums of its lines and columns.
struct AddSquares<'s, A> {
    grads: &'s [A],
    lines: Lines,
    start: usize,
    /// The line that the sums begin with.
    first: usize,
    of_lines: &'s mut [f64],
    columns: &'s mut [f64],
}

impl<A: Scalar> NullaryFnOnce for AddSquares<'_, A> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self { grads, lines, start, first, of_lines, columns } = self;
        let square = |grad: A| grad.as_f64() * grad.as_f64();
        if !lines.is_factored {
            let sums = of_lines[start - first..].iter_mut().zip(grads);
            return sums.for_each(|(sum, grad)| *sum = square(*grad));
        }
        for Piece { at, length, line, column } in lines.pieces(start, grads.len()) {
            let begin = lines.columns_of(line) - lines.columns_of(first) + column;
            let (columns, grads) = (&mut columns[begin..begin + length], &grads[at..at + length]);
            let mut lanes = [0.0; SIDE_BY_SIDE];
            let (column_chunks, column_rest) = columns.as_chunks_mut::<SIDE_BY_SIDE>();
            let (grad_chunks, grad_rest) = grads.as_chunks::<SIDE_BY_SIDE>();
            for (columns, grads) in column_chunks.iter_mut().zip(grad_chunks) {
                for lane in 0..SIDE_BY_SIDE {
                    let square = square(grads[lane]);
                    columns[lane] += square;
                    lanes[lane] += square;
                }
            }
            let squares = padded::<A, SIDE_BY_SIDE>(grad_rest).map(square);
            lanes.iter_mut().zip(squares).for_each(|(lane, square)| *lane += square);
            column_rest.iter_mut().zip(squares).for_each(|(column, square)| *column += square);
            of_lines[line - first] += lanes.iter().sum::<f64>();
        }
    }
}

/// What each element of a gradient is multiplied by: 1/max(√v, least), as a product of two.
pub(super) struct Factors<A> {
    lines: Lines,
    spread: Option<Spread>,
    rows: Vec<A>,
    columns: Vec<A>,
    most: A,
}

impl<A: Scalar> Factors<A> {
    /// Updates the means, and makes the factors of them. Without factors there are no columns, and `rows` has an element for each of the tensor's.
    pub(super) fn update(
        (lines, spread): (Lines, Option<Spread>),
        moments: &Moments,
        sums: SquareSums,
        rows: &mut [A],
        columns: &mut [A],
    ) -> Self {
        let average = |means: &mut [A], sums: Vec<f64>, count: usize| {
            for (mean, sum) in means.iter_mut().zip(sums) {
                let old = mean.as_f64();
                *mean = A::from_f64(old + moments.fresh * (sum / count as f64 + moments.added - old));
            }
        };
        let (per_row, per_column) = spread.as_ref().map_or((lines.length, lines.per_matrix), Spread::counts);
        average(rows, sums.lines, per_row);
        average(columns, sums.columns, per_column);
        let factor = |mean: f64, of: &A| A::from_f64((mean / of.as_f64()).sqrt());
        let by_row = |rows: &[A]| {
            let mean = rows.iter().map(|row| row.as_f64()).sum::<f64>() / rows.len() as f64;
            let mean = if lines.is_factored { mean.max(moments.least) } else { 1.0 };
            rows.iter().map(|row| factor(mean, row)).collect::<Vec<_>>()
        };
        let of_rows = match &spread {
            Some(spread) => {
                spread.relative(rows, moments.least).into_iter().map(|ratio| A::from_f64(ratio.sqrt())).collect()
            }
            None => rows.chunks(lines.per_matrix).flat_map(by_row).collect(),
        };
        Self {
            lines,
            spread,
            rows: of_rows,
            columns: columns.iter().map(|column| factor(1.0, column)).collect(),
            // A number, so that gradients of 0 do not become NaN.
            most: A::from_f64((1.0 / moments.least).min(A::max_value().as_f64())),
        }
    }

    /// Makes directions of gradients, from element `start` in row-major order.
    pub(super) fn apply(&self, arch: Arch, start: usize, grads: &mut [A]) {
        match &self.spread {
            Some(spread) => spread.multiply((&self.rows, &self.columns), self.most, start, grads),
            None => arch.dispatch(Multiply { factors: self, start, grads }),
        }
    }
}

struct Multiply<'s, A> {
    factors: &'s Factors<A>,
    start: usize,
    grads: &'s mut [A],
}

impl<A: Scalar> NullaryFnOnce for Multiply<'_, A> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self { factors: Factors { lines, rows, columns, most, .. }, start, grads } = self;
        // NaN stays NaN.
        let at_most = |factor: A| if factor > *most { *most } else { factor };
        if !lines.is_factored {
            let pairs = grads.iter_mut().zip(&rows[start..]);
            return pairs.for_each(|(grad, row)| *grad *= at_most(*row));
        }
        for Piece { at, length, line, column } in lines.pieces(start, grads.len()) {
            let (row, columns) = (rows[line], &columns[lines.columns_of(line) + column..][..length]);
            let pairs = grads[at..at + length].iter_mut().zip(columns);
            pairs.for_each(|(grad, column)| *grad *= at_most(row * *column));
        }
    }
}
