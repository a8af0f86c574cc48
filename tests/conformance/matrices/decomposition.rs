//! Decompositions by faer, for update rules.

use faer::{Mat, Side};
use ndarray::Array2;

pub(crate) fn faer(matrix: &Array2<f64>) -> Mat<f64> {
    Mat::from_fn(matrix.nrows(), matrix.ncols(), |i, j| matrix[[i, j]])
}

pub(crate) fn ndarray(matrix: faer::MatRef<'_, f64>) -> Array2<f64> {
    Array2::from_shape_fn((matrix.nrows(), matrix.ncols()), |(i, j)| matrix[(i, j)])
}

/// (matrix + shift·I)^exponent of a symmetric matrix.
pub(super) fn power(matrix: &Array2<f64>, shift: f64, exponent: f64) -> Array2<f64> {
    let eigen = faer(matrix).self_adjoint_eigen(Side::Lower).unwrap();
    let mut scaled = ndarray(eigen.U());
    for (at, mut column) in scaled.columns_mut().into_iter().enumerate() {
        column *= (eigen.S()[at].max(0.0) + shift).powf(exponent);
    }
    scaled.dot(&ndarray(eigen.U()).t())
}
