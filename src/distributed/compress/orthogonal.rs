//! Orthonormal columns, and products with them that come to the same bits on every processor.

use ndarray::{ArrayView2, ArrayViewMut2};

use crate::params::Element;

/// What remains of a column after the others are taken out of it is taken for rounding below this share.
const VANISHED: f64 = 1e-6;

/// A number in −1 … 1 that depends on nothing but its two arguments (splitmix64).
pub(super) fn random(stream: u64, index: u64) -> f64 {
    let mut z = (stream << 32).wrapping_add(index).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^= z >> 31;
    (z >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
}

/// Makes the columns orthonormal, in f64 and in a fixed order. There are at most as many as rows.
///
/// One that lies in the span of those before it becomes another direction. Columns that are not finite stay so.
pub(super) fn orthonormalise<A: Element>(mut matrix: ArrayViewMut2<'_, A>, seed: u64) {
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

/// The product of the m × r matrix `left` and the transpose of the n × r matrix `right`, row by row.
///
/// All ranks must come to the same bits, so this is no general product, whose order of sums depends on the processor.
pub(super) fn low_rank<A: Element>(left: ArrayView2<'_, A>, right: ArrayView2<'_, A>, out: &mut [A]) {
    let across = right.t();
    let across = across.as_standard_layout();
    for (row, out) in left.rows().into_iter().zip(out.chunks_mut(right.nrows().max(1))) {
        out.fill(A::zero());
        for (factor, along) in row.iter().zip(across.rows()) {
            out.iter_mut().zip(along).for_each(|(out, along)| *out += *factor * *along);
        }
    }
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
    fn what_is_not_finite_does_not_hide() {
        let mut matrix = Array2::<f32>::ones((5, 2));
        matrix[[3, 1]] = f32::INFINITY;
        orthonormalise(matrix.view_mut(), 0);
        assert!(matrix.iter().all(|x| x.is_nan()));
    }
}
