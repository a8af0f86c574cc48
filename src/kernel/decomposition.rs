//! Decompositions of symmetric matrices and bases, by faer in f64.

use faer::diag::DiagMut;
use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::cholesky::llt::factor::{cholesky_in_place, cholesky_in_place_scratch};
use faer::linalg::evd::{ComputeEigenvectors, self_adjoint_evd, self_adjoint_evd_scratch};
use faer::linalg::householder;
use faer::linalg::matmul::triangular::{self, BlockStructure};
use faer::linalg::qr::no_pivoting::factor as qr;
use faer::linalg::triangular_inverse::invert_lower_triangular;
use faer::linalg::triangular_solve::solve_lower_triangular_in_place;
use faer::{Accum, Conj, Mat, MatMut, MatRef, Par};
use ndarray::{Array1, Array2, ArrayRef2, Axis};

use crate::kernel::product::faer::blend_lower;
use crate::kernel::product::{LINE, mirror};
use crate::params::Scalar;
use crate::step::norm;

/// The elements in f64, row by row.
fn double<A: Scalar>(matrix: &ArrayRef2<A>) -> Vec<f64> {
    match matrix.as_slice() {
        Some(elements) => elements.iter().map(|x| x.as_f64()).collect(),
        None => matrix.iter().map(|x| x.as_f64()).collect(),
    }
}

/// A square matrix whose columns lie one after the other, row by row and in another type.
fn by_rows<A: Scalar>(columns: &[f64], side: usize) -> Array2<A> {
    let mut rows = vec![A::zero(); side * side];
    for top in (0..side).step_by(LINE) {
        let height = LINE.min(side - top);
        for left in (0..side).step_by(LINE) {
            let width = LINE.min(side - left);
            let mut tile = [[A::zero(); LINE]; LINE];
            for column in 0..width {
                let line = &columns[(left + column) * side + top..][..height];
                line.iter().zip(&mut tile).for_each(|(from, tile)| tile[column] = A::from_f64(*from));
            }
            for (row, tile) in tile.iter().enumerate().take(height) {
                rows[(top + row) * side + left..][..width].copy_from_slice(&tile[..width]);
            }
        }
    }
    Array2::from_shape_vec((side, side), rows).unwrap_or_default()
}

/// The eigenvalues of a symmetric matrix, ascending, and its eigenvectors, which lie one after the other; `None` if the iteration
/// fails.
fn vectors_of<A: Scalar>(symmetric: &ArrayRef2<A>) -> Option<(Array1<f64>, Vec<f64>)> {
    let side = symmetric.nrows();
    if side == 0 {
        return Some((Array1::zeros(0), Vec::new()));
    }
    let (elements, mut values, mut vectors) = (double(symmetric), vec![0.0; side], vec![0.0; side * side]);
    let mut room =
        MemBuffer::new(self_adjoint_evd_scratch::<f64>(side, ComputeEigenvectors::Yes, Par::Seq, Default::default()));
    self_adjoint_evd(
        // Its rows are its columns.
        MatRef::from_column_major_slice(&elements, side, side),
        DiagMut::from_slice_mut(&mut values),
        Some(MatMut::from_column_major_slice_mut(&mut vectors, side, side)),
        Par::Seq,
        MemStack::new(&mut room),
        Default::default(),
    )
    .ok()?;
    norm::finite(&values).then(|| (values.into(), vectors))
}

/// The eigenvalues of a symmetric matrix, ascending, and its eigenvectors as columns; `None` if the iteration fails.
pub(crate) fn eigen<A: Scalar>(symmetric: &ArrayRef2<A>) -> Option<(Array1<f64>, Array2<A>)> {
    let (values, vectors) = vectors_of(symmetric)?;
    Some((values, by_rows(&vectors, symmetric.nrows())))
}

/// `(symmetric + shift·I)⁻¹`, if that is positive definite.
pub(crate) fn shifted_inverse<A: Scalar>(symmetric: &ArrayRef2<A>, shift: f64) -> Option<Array2<A>> {
    let (mut elements, side) = (double(symmetric), symmetric.nrows());
    elements.iter_mut().step_by(side + 1).for_each(|x| *x += shift);
    let mut room = MemBuffer::new(cholesky_in_place_scratch::<f64>(side, Par::Seq, Default::default()));
    // Its rows are its columns.
    let mut factor = MatMut::from_column_major_slice_mut(&mut elements, side, side);
    let stack = MemStack::new(&mut room);
    cholesky_in_place(factor.as_mut(), Default::default(), Par::Seq, stack, Default::default()).ok()?;
    let mut root = Mat::zeros(side, side);
    invert_lower_triangular(root.as_mut(), factor.as_ref(), Par::Seq);
    // L⁻ᵀL⁻¹ up to the diagonal takes the place of L.
    let (lower, upper) = (BlockStructure::TriangularLower, BlockStructure::TriangularUpper);
    let product = MatMut::from_row_major_slice_mut(&mut elements, side, side);
    let (left, right) = (root.transpose(), root.as_ref());
    triangular::matmul(product, lower, Accum::Replace, left, upper, right, lower, 1.0, Par::Seq);
    let mut inverse = Array2::zeros((side, side));
    for ((row, mut to), from) in inverse.rows_mut().into_iter().enumerate().zip(elements.chunks(side.max(1))) {
        to.iter_mut().zip(&from[..=row]).for_each(|(to, from)| *to = A::from_f64(*from));
    }
    mirror(inverse.view_mut());
    inverse.as_slice().is_some_and(norm::finite).then_some(inverse)
}

/// `(symmetric + shift·I)^exponent` for one whose eigenvalues are at least 0 but for rounding; `None` if they cannot be found or
/// the power is not finite.
pub(crate) fn shifted_power<A: Scalar>(symmetric: &ArrayRef2<A>, shift: f64, exponent: f64) -> Option<Array2<A>> {
    let (values, vectors) = vectors_of(symmetric)?;
    let vectors = Array2::from_shape_vec(symmetric.dim(), vectors).ok()?.reversed_axes();
    let mut scaled = vectors.clone();
    for (mut vector, value) in scaled.axis_iter_mut(Axis(1)).zip(&values) {
        vector *= (value.max(0.0) + shift).powf(exponent);
    }
    let mut power = Array2::zeros(symmetric.dim());
    blend_lower((1.0, scaled.view(), vectors.view()), 0.0, &mut power);
    mirror(power.view_mut());
    let power = power.mapv(A::from_f64);
    power.as_slice().is_some_and(norm::finite).then_some(power)
}

/// `Q⁻ᵀX` for an upper triangular Q without zeros on its diagonal.
pub(crate) fn solved_transposed<A: Scalar>(upper: &ArrayRef2<A>, matrix: &ArrayRef2<A>) -> Array2<A> {
    let ((rows, columns), upper) = (matrix.dim(), double(upper));
    let mut elements = double(matrix);
    // The rows of Q are the columns of its transpose.
    let lower = MatRef::from_column_major_slice(&upper, rows, rows);
    solve_lower_triangular_in_place(lower, MatMut::from_row_major_slice_mut(&mut elements, rows, columns), Par::Seq);
    let elements = elements.into_iter().map(A::from_f64).collect();
    Array2::from_shape_vec((rows, columns), elements).unwrap_or_default()
}

/// An orthonormal basis of the columns, taken in this order, of a square matrix: Q of its QR decomposition.
pub(crate) fn orthonormal<A: Scalar>(matrix: &ArrayRef2<A>, order: &[usize]) -> Array2<A> {
    let side = matrix.nrows();
    let mut elements = vec![0.0; side * side];
    // Several rows at once, which are whole cache lines of the columns.
    for (at, rows) in matrix.axis_chunks_iter(Axis(0), LINE).enumerate() {
        for (column, from) in elements.chunks_mut(side).zip(order) {
            column[at * LINE..].iter_mut().zip(rows.column(*from)).for_each(|(to, from)| *to = from.as_f64());
        }
    }
    let block = qr::recommended_block_size::<f64>(side, side);
    let mut coefficients = Mat::zeros(block, side);
    let mut reflections = MatMut::from_column_major_slice_mut(&mut elements, side, side);
    let mut room_for_qr =
        MemBuffer::new(qr::qr_in_place_scratch::<f64>(side, side, block, Par::Seq, Default::default()));
    let stack = MemStack::new(&mut room_for_qr);
    qr::qr_in_place(reflections.as_mut(), coefficients.as_mut(), Par::Seq, stack, Default::default());
    let mut basis = vec![0.0; side * side];
    basis.iter_mut().step_by(side + 1).for_each(|x| *x = 1.0);
    let mut room_for_basis = MemBuffer::new(
        householder::apply_block_householder_sequence_on_the_left_in_place_scratch::<f64>(side, block, side),
    );
    householder::apply_block_householder_sequence_on_the_left_in_place_with_conj(
        reflections.as_ref(),
        coefficients.as_ref(),
        Conj::No,
        MatMut::from_column_major_slice_mut(&mut basis, side, side),
        Par::Seq,
        MemStack::new(&mut room_for_basis),
    );
    by_rows(&basis, side)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::product::faer::tests::{close, wave};

    #[test]
    fn decompositions_compose_again() {
        let a = wave((40, 60), 0.3);
        let symmetric = a.dot(&a.t());
        let (values, vectors) = eigen(&symmetric).unwrap();
        assert!(close(&(&vectors * &values).dot(&vectors.t()), &symmetric));
        let inverse = shifted_inverse(&symmetric, 0.5).unwrap();
        assert!(close(&inverse.dot(&(&symmetric + &(0.5 * Array2::<f64>::eye(40)))), &Array2::eye(40)));
        let root = shifted_power(&symmetric, 0.5, -0.25).unwrap();
        let fourth = root.dot(&root).dot(&root).dot(&root);
        assert!(close(&fourth, &inverse));
        assert_eq!(shifted_power(&Array2::<f64>::zeros((2, 2)), 0.0, -0.25), None);
        let order: Vec<usize> = (0..40).rev().collect();
        let (matrix, reversed) = (wave((40, 40), 2.0), wave((40, 40), 2.0).select(Axis(1), &order));
        let q = orthonormal(&matrix, &order);
        assert!(close(&q, &orthonormal(&reversed, &(0..40).collect::<Vec<_>>())));
        assert!(close(&q.t().dot(&q), &Array2::eye(40)));
        assert_eq!(shifted_inverse(&-Array2::<f64>::eye(3), 0.5), None);
        let upper = Array2::from_shape_fn((40, 40), |(i, j)| if i > j { 0.0 } else { matrix[[i, j]] });
        let upper = upper + 4.0 * Array2::<f64>::eye(40);
        let lying = wave((30, 40), 1.0);
        assert!(close(&upper.t().dot(&solved_transposed(&upper, &lying.t())), &lying.t().to_owned()));
    }
}
