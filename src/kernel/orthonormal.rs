//! Orthonormal columns, without a library.

use ndarray::{Array2, ArrayView2, ArrayViewMut2, Axis};

use super::product::multiply;
use super::split_mix::signed;
use crate::params::{Element, Scalar};

/// What remains of a column after the others are taken out of it is taken for rounding below this share.
const VANISHED: f64 = 1e-6;

/// A number in −1 … 1 that depends on nothing but its two arguments.
pub(crate) fn random(stream: u64, index: u64) -> f64 {
    signed(stream.rotate_left(32).wrapping_add(index))
}

/// Makes the columns orthonormal, in f64 and in a fixed order. There are at most as many as rows.
///
/// One that lies in the span of those before it becomes another direction. Columns that are not finite stay so.
pub(crate) fn orthonormalise<A: Element>(mut matrix: ArrayViewMut2<'_, A>, seed: u64) {
    if matrix.iter().any(|value| !value.is_finite()) {
        return matrix.fill(A::nan());
    }
    let mut columns: Vec<Vec<f64>> = Vec::with_capacity(matrix.ncols());
    for (number, mut column) in matrix.columns_mut().into_iter().enumerate() {
        let mut own: Vec<f64> = column.iter().map(|value| value.as_f64()).collect();
        // In the worst case all directions tried lie in the span: with as many as rows at the latest one does not.
        for attempt in 0..=own.len() as u64 {
            if normalize(&mut own) && project(&columns, &mut own) {
                break;
            }
            let stream = seed.wrapping_add(0x5eed + number as u64);
            let direction = |row: usize| random(stream, (attempt << 24) + row as u64);
            own.iter_mut().enumerate().for_each(|(row, value)| *value = direction(row));
        }
        column.iter_mut().zip(&own).for_each(|(value, own)| *value = A::from_f64(*own));
        columns.push(own);
    }
}

/// Brings a column to length 1, if it has one.
fn normalize(column: &mut [f64]) -> bool {
    // Squares of what is near 1 neither overflow nor vanish.
    let largest = column.iter().fold(0.0_f64, |largest, value| largest.max(value.abs()));
    if largest < f64::MIN_POSITIVE {
        return false;
    }
    column.iter_mut().for_each(|value| *value /= largest);
    let length = column.iter().map(|value| value * value).sum::<f64>().sqrt();
    column.iter_mut().for_each(|value| *value /= length);
    true
}

/// Takes the other columns out of one of length 1, twice: what the first time leaves of them is rounding.
///
/// `false` if hardly anything remains.
fn project(others: &[Vec<f64>], column: &mut [f64]) -> bool {
    for _ in 0..2 {
        for other in others {
            let along: f64 = column.iter().zip(other).map(|(a, b)| a * b).sum();
            column.iter_mut().zip(other).for_each(|(value, other)| *value -= along * other);
        }
        if column.iter().map(|value| value * value).sum::<f64>().sqrt() < VANISHED {
            return false;
        }
        normalize(column);
    }
    true
}

/// Columns that [`orthonormal_columns`] takes at once.
const COLUMNS_AT_ONCE: usize = 32;

/// An orthonormal basis of the columns, taken in their order: Q of the QR decomposition with a positive diagonal of R. There are at most as
/// many columns as rows. A column that depends linearly on those before it becomes another direction.
///
/// Most of the work are products of matrices, in f64.
pub(crate) fn orthonormal_columns<A: Scalar>(matrix: ArrayView2<'_, A>) -> Array2<f64> {
    let mut basis = matrix.mapv(|x| x.as_f64());
    let columns = basis.ncols();
    for start in (0..columns).step_by(COLUMNS_AT_ONCE) {
        let (before, rest) = basis.view_mut().split_at(Axis(1), start);
        let (mut block, _) = rest.split_at(Axis(1), COLUMNS_AT_ONCE.min(columns - start));
        // What the first time leaves of the columns before is rounding, and a new direction was chosen without them.
        for pass in 0..if start == 0 { 1 } else { 3 } {
            if start > 0 {
                let mut along = Array2::zeros((start, block.ncols()));
                multiply((1.0, before.t(), block.view()), 0.0, along.view_mut());
                multiply((-1.0, before.view(), along.view()), 1.0, block.view_mut());
            }
            orthonormalise(block.view_mut(), (start + pass) as u64);
        }
    }
    basis
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;

    use super::*;

    /// f64 rounds each of some hundred products.
    const ROUNDING: f64 = 1e-14;

    fn assert_orthonormal(q: &Array2<f64>) {
        let gram = q.t().dot(q) - Array2::<f64>::eye(q.ncols());
        assert!(gram.iter().all(|x| x.abs() < ROUNDING), "{gram}");
    }

    #[test]
    fn columns_are_orthonormal_however_they_began() {
        let wave = Array2::from_shape_fn((50, 4), |(i, j)| random(j as u64, i as u64));
        let mut alike = wave.clone();
        for j in 1..4 {
            alike.column_mut(j).assign(&(&wave.column(0) + 1e-9 * &wave.column(j)));
        }
        for mut matrix in [&wave * 1e-200, &wave * 1e200, alike, Array2::zeros((50, 4)), Array2::ones((4, 4))] {
            let first = matrix.column(0).to_owned();
            orthonormalise(matrix.view_mut(), 0);
            assert_orthonormal(&matrix);
            let along: f64 = first.iter().zip(matrix.column(0)).map(|(a, b)| a * b).sum();
            assert!(along == 0.0 || (along / first.iter().fold(0.0_f64, |n, x| n.hypot(*x)) - 1.0).abs() < ROUNDING);
        }
    }

    #[test]
    fn the_span_stays() {
        let wave = Array2::from_shape_fn((30, 3), |(i, j)| random(j as u64, i as u64));
        let mut q = wave.clone();
        orthonormalise(q.view_mut(), 0);
        let rest = &wave - &q.dot(&q.t().dot(&wave));
        assert!(rest.iter().all(|x| x.abs() < ROUNDING));
    }

    #[test]
    fn many_columns_are_orthonormal_and_keep_their_span() {
        for (rows, columns) in [(0, 0), (1, 1), (90, 32), (90, 33), (90, 90)] {
            let wave = Array2::from_shape_fn((rows, columns), |(i, j)| random(j as u64, i as u64));
            let q = orthonormal_columns(wave.view());
            assert_orthonormal(&q);
            // R has nothing below its diagonal, which is positive.
            for ((i, j), x) in q.t().dot(&wave).indexed_iter() {
                assert!(if i > j { x.abs() < 1e-12 } else { i < j || *x > 0.0 }, "{i}, {j}: {x}");
            }
            // Of rank 3, and nothing at all.
            let low = Array2::from_shape_fn((rows, columns), |(i, j)| random(j as u64 % 3, i as u64));
            assert_orthonormal(&orthonormal_columns(low.view()));
            assert_orthonormal(&orthonormal_columns(Array2::<f32>::zeros((rows, columns)).view()));
        }
    }

    #[test]
    fn what_is_not_finite_does_not_hide() {
        let mut matrix = Array2::<f32>::ones((5, 2));
        matrix[[3, 1]] = f32::INFINITY;
        orthonormalise(matrix.view_mut(), 0);
        assert!(matrix.iter().all(|x| x.is_nan()));
    }
}
