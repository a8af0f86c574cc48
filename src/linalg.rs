//! The way to faer: products in the numbers' own type, decompositions in f64.

use std::ops::Range;

use faer::linalg::matmul::matmul;
use faer::linalg::matmul::triangular::{self, BlockStructure};
use faer::linalg::solvers::DenseSolveCore;
use faer::{Accum, MatMut, MatRef, Par, Side};
use ndarray::{Array1, Array2, ArrayRef2, ArrayView2};

use crate::product::{TILE, mirror};
use crate::scalar::Scalar;
use crate::threads;

/// Products of fewer multiplications are not worth sharing.
const SERIAL: usize = 1 << 20;

/// Numbers that faer multiplies. `c` holds the rows asked for, row by row.
pub trait Real: Sized {
    /// `c ← a·b`, these rows of it.
    #[doc(hidden)]
    fn multiply(a: &ArrayView2<'_, Self>, b: &ArrayView2<'_, Self>, rows: Range<usize>, c: &mut [Self]);

    /// `c ← α·a·aᵀ + c`, these rows of it up to the diagonal.
    #[doc(hidden)]
    fn add_gram(alpha: Self, a: &ArrayView2<'_, Self>, rows: Range<usize>, c: &mut [Self]);
}

/// The matrix in faer's terms, if its elements lie without gaps.
fn dense<'a, T>(view: &ArrayView2<'a, T>) -> Option<MatRef<'a, T>> {
    let (rows, columns) = view.dim();
    match view.to_slice() {
        Some(slice) => Some(MatRef::from_row_major_slice(slice, rows, columns)),
        None => view.reversed_axes().to_slice().map(|slice| MatRef::from_column_major_slice(slice, rows, columns)),
    }
}

macro_rules! real {
    ($($real:ident)*) => {
        $(
            impl Real for $real {
                fn multiply(a: &ArrayView2<'_, Self>, b: &ArrayView2<'_, Self>, rows: Range<usize>, c: &mut [Self]) {
                    let c = MatMut::from_row_major_slice_mut(c, rows.len(), b.ncols());
                    let (Some(a), Some(b)) = (dense(a), dense(b)) else { unreachable!("both are dense") };
                    matmul(c, Accum::Replace, a.subrows(rows.start, rows.len()), b, 1.0, Par::Seq);
                }

                fn add_gram(alpha: Self, a: &ArrayView2<'_, Self>, rows: Range<usize>, c: &mut [Self]) {
                    let Some(a) = dense(a) else { unreachable!("it is dense") };
                    let c = MatMut::from_row_major_slice_mut(c, rows.len(), a.nrows());
                    let (left, right) = c.split_at_col_mut(rows.start);
                    let (above, own) = (a.subrows(0, rows.start), a.subrows(rows.start, rows.len()));
                    matmul(left, Accum::Add, own, above.transpose(), alpha, Par::Seq);
                    let (square, whole) = (right.subcols_mut(0, rows.len()), BlockStructure::Rectangular);
                    let lower = BlockStructure::TriangularLower;
                    triangular::matmul(square, lower, Accum::Add, own, whole, own.transpose(), whole, alpha, Par::Seq);
                }
            }
        )*
    };
}

real!(f32 f64);

/// A copy without gaps of a matrix that has some.
fn filled<'a, A: Scalar>(view: ArrayView2<'a, A>) -> ndarray::CowArray<'a, A, ndarray::Ix2> {
    match dense(&view).is_some() {
        true => view.into(),
        false => view.to_owned().into(),
    }
}

/// `a·b`, its rows shared between the threads.
pub(crate) fn multiplied<A: Scalar>(a: &ArrayRef2<A>, b: &ArrayRef2<A>) -> Array2<A> {
    let (a, b) = (filled(a.view()), filled(b.view()));
    let mut c = Array2::zeros((a.nrows(), b.ncols()));
    let (rows, parts) = (a.nrows(), if a.len() * b.ncols() < SERIAL { 1 } else { threads::count() });
    let ends: Vec<usize> = (1..parts).map(|part| rows * part / parts / TILE * TILE).chain([rows]).collect();
    if let Some(c) = c.as_slice_mut() {
        let mut tasks = tasks(&ends, b.ncols(), c);
        threads::for_each(&mut tasks, &|(rows, c)| A::multiply(&a.view(), &b.view(), rows.clone(), c));
    }
    c
}

/// `c ← c + a·aᵀ` for a symmetric c.
pub(crate) fn add_gram<A: Scalar>(a: ArrayView2<'_, A>, c: &mut Array2<A>) {
    blend_gram(a, A::one(), A::one(), c);
}

/// `c ← α·a·aᵀ + β·c` for a symmetric c in row-major order: half the arithmetic of a product.
pub(crate) fn blend_gram<A: Scalar>(a: ArrayView2<'_, A>, alpha: A, beta: A, c: &mut Array2<A>) {
    if beta != A::one() {
        c.mapv_inplace(|c| c * beta);
    }
    let (a, rows) = (filled(a), a.nrows());
    let parts = if a.len() * rows < SERIAL { 1 } else { threads::count() };
    // The rows get longer: as many elements for each part.
    let end = |part: usize| (rows as f64 * (part as f64 / parts as f64).sqrt()) as usize / TILE * TILE;
    let ends: Vec<usize> = (1..parts).map(end).chain([rows]).collect();
    if let Some(c) = c.as_slice_mut() {
        let mut tasks = tasks(&ends, rows, c);
        threads::for_each(&mut tasks, &|(rows, c)| A::add_gram(alpha, &a.view(), rows.clone(), c));
    }
    mirror(c.view_mut());
}

/// The rows up to each end, with their part of a matrix of so many columns.
fn tasks<'c, A>(ends: &[usize], columns: usize, c: &'c mut [A]) -> Vec<(Range<usize>, &'c mut [A])> {
    let (mut start, mut rest, mut tasks) = (0, c, Vec::with_capacity(ends.len()));
    for &end in ends {
        let (part, others) = rest.split_at_mut((end - start) * columns);
        tasks.push((start..end, part));
        (start, rest) = (end, others);
    }
    tasks
}

/// The elements in f64, row by row.
fn double<A: Scalar>(matrix: &ArrayRef2<A>) -> Vec<f64> {
    matrix.iter().map(|x| x.as_f64()).collect()
}

/// A symmetric matrix in faer's terms: its rows are its columns.
fn symmetric_of(elements: &[f64], side: usize) -> MatRef<'_, f64> {
    MatRef::from_column_major_slice(elements, side, side)
}

/// Row by row, in tiles that fit into the cache: faer's matrices lie column by column.
fn single<A: Scalar>(matrix: MatRef<'_, f64>) -> Array2<A> {
    let (rows, columns) = (matrix.nrows(), matrix.ncols());
    let mut elements = vec![A::zero(); rows * columns];
    for row_tile in (0..rows).step_by(TILE) {
        for column_tile in (0..columns).step_by(TILE) {
            for column in column_tile..columns.min(column_tile + TILE) {
                for row in row_tile..rows.min(row_tile + TILE) {
                    elements[row * columns + column] = A::from_f64(matrix[(row, column)]);
                }
            }
        }
    }
    Array2::from_shape_vec((rows, columns), elements).unwrap_or_default()
}

/// The eigenvalues of a symmetric matrix, ascending, and its eigenvectors as columns; `None` if the iteration fails.
pub(crate) fn eigen<A: Scalar>(symmetric: &ArrayRef2<A>) -> Option<(Array1<f64>, Array2<f64>)> {
    let elements = double(symmetric);
    let eigen = symmetric_of(&elements, symmetric.nrows()).self_adjoint_eigen(Side::Lower).ok()?;
    let values = Array1::from_shape_fn(symmetric.nrows(), |at| eigen.S()[at]);
    let finite = values.iter().all(|value| value.is_finite());
    finite.then(|| (values, single(eigen.U())))
}

/// `(symmetric + shift·I)⁻¹`, if that is positive definite.
pub(crate) fn shifted_inverse<A: Scalar>(symmetric: &ArrayRef2<A>, shift: f64) -> Option<Array2<A>> {
    let (mut shifted, side) = (double(symmetric), symmetric.nrows());
    shifted.iter_mut().step_by(side + 1).for_each(|x| *x += shift);
    let inverse = single(symmetric_of(&shifted, side).llt(Side::Lower).ok()?.inverse().as_ref());
    inverse.iter().all(|x: &A| x.is_finite()).then_some(inverse)
}

/// `(symmetric + shift·I)^exponent` for one whose eigenvalues are at least 0 but for rounding; `None` if they cannot be found or
/// the power is not finite.
pub(crate) fn shifted_power<A: Scalar>(symmetric: &ArrayRef2<A>, shift: f64, exponent: f64) -> Option<Array2<A>> {
    let (values, basis) = eigen(symmetric)?;
    let powers = values.mapv(|value| (value.max(0.0) + shift).powf(exponent));
    let power = multiplied(&(&basis * &powers), &basis.t()).mapv(A::from_f64);
    power.iter().all(|x| x.is_finite()).then_some(power)
}

/// An orthonormal basis of the columns, of a square matrix: Q of its QR decomposition.
pub(crate) fn orthonormal(matrix: &ArrayRef2<f64>) -> Array2<f64> {
    let elements = double(matrix);
    single(MatRef::from_row_major_slice(&elements, matrix.nrows(), matrix.ncols()).qr().compute_thin_Q().as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wave(shape: (usize, usize), phase: f64) -> Array2<f64> {
        Array2::from_shape_fn(shape, |(i, j)| ((i * 37 + j * 11) as f64 * 0.1 + phase).sin())
    }

    fn close(found: &Array2<f64>, expected: &Array2<f64>) -> bool {
        found.dim() == expected.dim() && found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-11)
    }

    #[test]
    fn products_in_any_layout() {
        let (a, b) = (wave((131, 60), 0.0), wave((60, 117), 1.0));
        let expected = a.dot(&b);
        let (a_columns, b_columns) = (a.t().to_owned(), b.t().to_owned());
        assert!(close(&multiplied(&a, &b), &expected));
        assert!(close(&multiplied(&a_columns.t(), &b_columns.t()), &expected));
        let wide = wave((131, 120), 0.0);
        let every = wide.view().slice_axis_move(ndarray::Axis(1), ndarray::Slice::new(0, None, 2));
        assert!(close(&multiplied(&every, &b), &every.dot(&b)));
        assert!(close(&multiplied(&wave((0, 3), 0.0), &wave((3, 2), 0.0)), &Array2::zeros((0, 2))));
    }

    #[test]
    #[cfg(feature = "rayon")]
    fn threads_do_not_change_the_bits() {
        let (a, b) = (wave((301, 130), 0.0), wave((130, 97), 1.0));
        let on = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let mut c = Array2::ones((301, 301));
                add_gram(a.view(), &mut c);
                (multiplied(&a, &b), c)
            })
        };
        let expected = on(1);
        assert!(close(&expected.1, &(a.dot(&a.t()) + 1.0)) && expected.1 == expected.1.t());
        assert!((2..5).all(|threads| on(threads) == expected));
    }

    #[test]
    fn decompositions_compose_again() {
        let a = wave((40, 60), 0.3);
        let mut symmetric = Array2::zeros((40, 40));
        add_gram(a.view(), &mut symmetric);
        let (values, vectors) = eigen(&symmetric).unwrap();
        assert!(close(&(&vectors * &values).dot(&vectors.t()), &symmetric));
        let inverse = shifted_inverse(&symmetric, 0.5).unwrap();
        assert!(close(&inverse.dot(&(&symmetric + &(0.5 * Array2::<f64>::eye(40)))), &Array2::eye(40)));
        let root = shifted_power(&symmetric, 0.5, -0.25).unwrap();
        let fourth = root.dot(&root).dot(&root).dot(&root);
        assert!(close(&fourth, &inverse));
        assert_eq!(shifted_power(&Array2::<f64>::zeros((2, 2)), 0.0, -0.25), None);
        let q = orthonormal(&wave((40, 40), 2.0));
        assert!(close(&q.t().dot(&q), &Array2::eye(40)));
        assert_eq!(shifted_inverse(&-Array2::<f64>::eye(3), 0.5), None);
    }
}
