//! One side's factor of Kron's preconditioner.

use std::mem::swap;

use ndarray::{Array2, ArrayRef2, ArrayView1, ArrayView2};

use crate::kernel::decomposition::solved_transposed;
use crate::kernel::product::faer::{blend_gram, multiplied, multiply};
use crate::kernel::squares::{squares_of, sum_of_squares};
use crate::params::Scalar;
use crate::step::norm;

/// The smallest divisor: that of the authors.
const LEAST_DIVISOR: f64 = 1.175_494_350_822_287_5e-38;

/// The side that a factor multiplies.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Rows,
    Columns,
}

/// A factor Q of P = QᵀQ: upper triangular, or the row of a diagonal.
pub(super) struct Factor<'s, A> {
    pub(super) at: Side,
    pub(super) diagonal: bool,
    pub(super) values: &'s mut Array2<A>,
}

impl<A: Scalar> Factor<'_, A> {
    /// Q = scale·I.
    pub(super) fn begin(&mut self, scale: f64) {
        let scale = A::from_f64(scale);
        if self.diagonal {
            self.values.fill(scale);
        } else {
            self.values.fill(A::zero());
            self.values.diag_mut().fill(scale);
        }
    }

    /// M ← QM or, for columns, MQᵀ. With `transposed` Qᵀ takes the place of Q. `room` is for a product.
    pub(super) fn apply(&self, transposed: bool, matrix: &mut Array2<A>, room: &mut Array2<A>) {
        if self.diagonal {
            return self.scale(matrix, |x, q| x * q);
        }
        match (self.at, transposed) {
            (Side::Rows, false) => multiply(self.values, matrix, room),
            (Side::Rows, true) => multiply(&self.values.t(), matrix, room),
            (Side::Columns, false) => multiply(matrix, &self.values.t(), room),
            (Side::Columns, true) => multiply(matrix, self.values, room),
        }
        swap(matrix, room);
    }

    /// M ← Q⁻ᵀM or, for columns, MQ⁻¹.
    pub(super) fn solve(&self, matrix: &mut Array2<A>) {
        match self.at {
            _ if self.diagonal => self.scale(matrix, |x, q| x / q),
            Side::Rows => *matrix = solved_transposed(self.values, matrix),
            Side::Columns => {
                let solved = solved_transposed(self.values, &matrix.t());
                *matrix = solved.t().as_standard_layout().into_owned();
            }
        }
    }

    /// Combines each element of a matrix with the diagonal's element of its row or column.
    fn scale(&self, matrix: &mut Array2<A>, combine: impl Fn(A, A) -> A) {
        let diagonal = self.values.row(0);
        match self.at {
            Side::Rows => {
                for (mut row, q) in matrix.rows_mut().into_iter().zip(diagonal) {
                    row.mapv_inplace(|x| combine(x, *q));
                }
            }
            Side::Columns => {
                for mut row in matrix.rows_mut() {
                    row.zip_mut_with(&diagonal, |x, q| *x = combine(*x, *q));
                }
            }
        }
    }

    /// Q ← Q − η·triu(AAᵀ − BBᵀ)/‖AAᵀ + BBᵀ‖·Q, for columns with AᵀA and BᵀB. A change that is not finite is left out.
    pub(super) fn learn(&mut self, a: &ArrayRef2<A>, b: &ArrayRef2<A>, rate: f64) {
        let [a, b] = [a, b].map(|matrix| if self.at == Side::Rows { matrix.view() } else { matrix.t() });
        if self.diagonal {
            return self.learn_diagonal(a, b, rate);
        }
        let [mut a, b] = [a, b].map(|matrix| {
            let mut gram = Array2::zeros(self.values.dim());
            blend_gram(matrix, A::one(), A::zero(), &mut gram);
            gram
        });
        let scale = rate / (norm_bound(&(&a + &b)) + LEAST_DIVISOR);
        for (((row, column), a), b) in a.indexed_iter_mut().zip(&b) {
            *a = if row > column { A::zero() } else { A::from_f64((*a - *b).as_f64() * scale) };
        }
        let change = multiplied(&a, self.values);
        if change.as_slice().is_some_and(norm::finite) {
            *self.values -= &change;
        }
    }

    /// The same for a diagonal factor. Each of its elements belongs to a row of A and B.
    fn learn_diagonal(&mut self, a: ArrayView2<'_, A>, b: ArrayView2<'_, A>, rate: f64) {
        let squares =
            |matrix: ArrayView2<'_, A>| matrix.rows().into_iter().map(|row| squares_of(&row)).collect::<Vec<f64>>();
        let (a, b) = (squares(a), squares(b));
        let largest = a.iter().zip(&b).map(|(a, b)| a + b).fold(0.0, f64::max) + LEAST_DIVISOR;
        if a.iter().chain(&b).all(|x| x.is_finite()) {
            for (q, (a, b)) in self.values.iter_mut().zip(a.iter().zip(&b)) {
                *q = A::from_f64(q.as_f64() - rate * (a - b) / largest * q.as_f64());
            }
        }
    }

    /// The largest element.
    pub(super) fn largest(&self) -> f64 {
        self.values.iter().fold(0.0, |largest, x| x.as_f64().abs().max(largest))
    }
}

/// A lower bound of the spectral norm of a symmetric matrix, close to it: ‖S·Sx‖/‖Sx‖ for the longest row x.
fn norm_bound<A: Scalar>(symmetric: &ArrayRef2<A>) -> f64 {
    let largest = symmetric.iter().fold(0.0, |largest, x| x.as_f64().abs().max(largest));
    if largest == 0.0 {
        return 0.0;
    }
    let times = |vector: &[f64]| -> Vec<f64> {
        let product = |row: ArrayView1<'_, A>| row.iter().zip(vector).map(|(a, b)| a.as_f64() / largest * b).sum();
        symmetric.rows().into_iter().map(product).collect()
    };
    let rows = symmetric.rows().into_iter().map(|row| row.iter().map(|x| x.as_f64() / largest).collect::<Vec<_>>());
    let longest =
        rows.map(|row| (sum_of_squares(&row), row)).fold((0.0, vec![]), |a, b| if b.0 > a.0 { b } else { a }).1;
    let image = times(&longest);
    let length = sum_of_squares(&image).sqrt();
    let direction: Vec<f64> = image.iter().map(|x| x / length).collect();
    largest * sum_of_squares(&times(&direction)).sqrt()
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    /// Of a diagonal matrix, and of one of rank 1, it is the norm.
    #[test]
    fn the_bound_is_close_to_the_norm() {
        assert_eq!(norm_bound(&array![[3.0, 0.0], [0.0, -4.0]]), 4.0);
        assert!((norm_bound(&array![[1.0_f64, 2.0], [2.0, 4.0]]) - 5.0).abs() < 1e-15);
        assert_eq!(norm_bound(&Array2::<f32>::zeros((2, 2))), 0.0);
        let bound = norm_bound(&array![[2.0_f64, 1.0], [1.0, 2.0]]);
        assert!((2.9..=3.0).contains(&bound), "{bound}");
    }
}
