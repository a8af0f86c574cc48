//! The way to faer: products in the numbers' own type, decompositions in f64.

use faer::linalg::matmul::matmul;
use faer::linalg::solvers::DenseSolveCore;
use faer::{Accum, Mat, MatMut, MatRef, Par, Side};
use ndarray::{Array1, Array2, ArrayRef2, ArrayView2, ArrayViewMut2};

use crate::product;
use crate::scalar::Scalar;

/// Numbers that faer multiplies.
pub trait Real: Sized {
    /// `c ← α·a·b + c` on one thread, c row by row without gaps.
    #[doc(hidden)]
    fn multiply(alpha: Self, a: &ArrayView2<'_, Self>, b: &ArrayView2<'_, Self>, c: &mut [Self]);
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
                fn multiply(alpha: Self, a: &ArrayView2<'_, Self>, b: &ArrayView2<'_, Self>, c: &mut [Self]) {
                    let (left, right) = (a.as_standard_layout(), b.as_standard_layout());
                    let (left, right) = (left.view(), right.view());
                    let c = MatMut::from_row_major_slice_mut(c, a.nrows(), b.ncols());
                    // A copy is dense.
                    let (Some(a), Some(b)) = (dense(a).or(dense(&left)), dense(b).or(dense(&right))) else { return };
                    matmul(c, Accum::Add, a, b, alpha, Par::Seq);
                }
            }
        )*
    };
}

real!(f32 f64);

/// faer's product, a [`product::Kernel`].
fn faer<A: Scalar>(alpha: A, a: &ArrayView2<'_, A>, b: &ArrayView2<'_, A>, beta: A, c: &mut ArrayViewMut2<'_, A>) {
    match c.as_slice_mut() {
        Some(c) => {
            c.iter_mut().for_each(|c| *c = if beta == A::zero() { beta } else { *c * beta });
            A::multiply(alpha, a, b, c);
        }
        // A part of a larger matrix: faer takes slices, so it goes by a copy.
        None => {
            let mut part = Array2::zeros(c.dim());
            faer(alpha, a, b, A::zero(), &mut part.view_mut());
            c.zip_mut_with(&part, |c, part| *c = if beta == A::zero() { *part } else { *c * beta + *part });
        }
    }
}

/// `a·b`.
pub(crate) fn multiplied<A: Scalar>(a: &ArrayRef2<A>, b: &ArrayRef2<A>) -> Array2<A> {
    let mut c = Array2::zeros((a.nrows(), b.ncols()));
    product::multiply(faer, (A::one(), a.view(), b.view()), A::zero(), c.view_mut());
    c
}

/// `c ← c + a·aᵀ` for a symmetric c.
pub(crate) fn add_gram<A: Scalar>(a: ArrayView2<'_, A>, c: &mut Array2<A>) {
    blend_gram(a, A::one(), A::one(), c);
}

/// `c ← α·a·aᵀ + β·c` for a symmetric c.
pub(crate) fn blend_gram<A: Scalar>(a: ArrayView2<'_, A>, alpha: A, beta: A, c: &mut Array2<A>) {
    product::gram(faer, (alpha, a), beta, c.view_mut());
}

fn double<A: Scalar>(matrix: &ArrayRef2<A>) -> Mat<f64> {
    Mat::from_fn(matrix.nrows(), matrix.ncols(), |row, column| matrix[[row, column]].as_f64())
}

fn single<A: Scalar>(matrix: MatRef<'_, f64>) -> Array2<A> {
    Array2::from_shape_fn((matrix.nrows(), matrix.ncols()), |at| A::from_f64(matrix[at]))
}

/// The eigenvalues of a symmetric matrix, ascending, and its eigenvectors as columns; `None` if the iteration fails.
pub(crate) fn eigen<A: Scalar>(symmetric: &ArrayRef2<A>) -> Option<(Array1<f64>, Array2<f64>)> {
    let eigen = double(symmetric).self_adjoint_eigen(Side::Lower).ok()?;
    let values = Array1::from_shape_fn(symmetric.nrows(), |at| eigen.S()[at]);
    let finite = values.iter().all(|value| value.is_finite());
    finite.then(|| (values, single(eigen.U())))
}

/// `(symmetric + shift·I)⁻¹`, if that is positive definite.
pub(crate) fn shifted_inverse<A: Scalar>(symmetric: &ArrayRef2<A>, shift: f64) -> Option<Array2<A>> {
    let mut shifted = double(symmetric);
    (0..symmetric.nrows()).for_each(|at| shifted[(at, at)] += shift);
    let inverse = single(shifted.llt(Side::Lower).ok()?.inverse().as_ref());
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
    single(double(matrix).qr().compute_thin_Q().as_ref())
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
