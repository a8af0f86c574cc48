//! Matrix products, their rows shared between the threads.
//!
//! Every element is summed in the same order whatever the number of threads, so the bits do not depend on it.

#[cfg(feature = "second-order")]
pub(crate) mod faer;
#[cfg(feature = "second-order")]
mod real;

use ndarray::linalg::general_mat_mul;
use ndarray::{ArrayView2, ArrayViewMut2, Axis};

use crate::kernel::threads;
use crate::params::Scalar;

#[cfg(feature = "second-order")]
pub(crate) use real::Real;

/// Products of fewer multiplications are not worth sharing.
pub(super) const SERIAL_PRODUCT: usize = 1 << 20;

/// Rows are divided at multiples of this, which are whole tiles of every kernel.
pub(crate) const ROW_TILE: usize = 48;

/// Symmetric products of fewer rows are computed as a whole.
const WHOLE: usize = 96;

/// `c ← α·a·b + β·c`.
pub(crate) fn multiply<A: Scalar>(
    (alpha, a, b): (A, ArrayView2<'_, A>, ArrayView2<'_, A>),
    beta: A,
    c: ArrayViewMut2<'_, A>,
) {
    share((alpha, a, b), beta, c, threads::count());
}

fn share<A: Scalar>(
    (alpha, a, b): (A, ArrayView2<'_, A>, ArrayView2<'_, A>),
    beta: A,
    mut c: ArrayViewMut2<'_, A>,
    parts: usize,
) {
    let (rows, work) = (a.nrows(), a.len() * b.ncols());
    if parts < 2 || work < SERIAL_PRODUCT || rows < 2 * ROW_TILE {
        return general_mat_mul(alpha, &a, &b, beta, &mut c);
    }
    let at = (rows / ROW_TILE).div_ceil(2) * ROW_TILE;
    let ((a, below), (c, c_below)) = (a.split_at(Axis(0), at), c.split_at(Axis(0), at));
    let half = parts.div_ceil(2);
    threads::join(|| share((alpha, a, b), beta, c, half), || share((alpha, below, b), beta, c_below, parts - half));
}

/// `c ← α·a·aᵀ + β·c` for a symmetric c: half the arithmetic of [`multiply`].
pub(crate) fn gram<A: Scalar>((alpha, a): (A, ArrayView2<'_, A>), beta: A, mut c: ArrayViewMut2<'_, A>) {
    lower_gram((alpha, a), beta, c.view_mut());
    mirror(c);
}

/// The blocks of [`gram`] on the diagonal and below it.
fn lower_gram<A: Scalar>((alpha, a): (A, ArrayView2<'_, A>), beta: A, mut c: ArrayViewMut2<'_, A>) {
    let rows = a.nrows();
    if rows < WHOLE {
        return general_mat_mul(alpha, &a, &a.t(), beta, &mut c);
    }
    let at = (rows / ROW_TILE).div_ceil(2) * ROW_TILE;
    let (upper, lower) = a.split_at(Axis(0), at);
    let (top, bottom) = c.split_at(Axis(0), at);
    let (top_left, _) = top.split_at(Axis(1), at);
    let (bottom_left, bottom_right) = bottom.split_at(Axis(1), at);
    let diagonal = || {
        threads::join(|| lower_gram((alpha, upper), beta, top_left), || lower_gram((alpha, lower), beta, bottom_right));
    };
    let below = || multiply((alpha, lower, upper.t()), beta, bottom_left);
    threads::join(diagonal, below);
}

/// Rows and columns of the tiles in which [`mirror`] copies: whole cache lines, in one direction and the other.
pub(crate) const LINE: usize = 16;

/// Copies what is below the diagonal above it.
pub(crate) fn mirror<A: Scalar>(mut c: ArrayViewMut2<'_, A>) {
    let rows = c.nrows();
    let Some(all) = c.as_slice_mut() else { return };
    for top in (0..rows).step_by(LINE) {
        let height = LINE.min(rows - top);
        for left in (0..top).step_by(LINE) {
            let mut tile = [[A::zero(); LINE]; LINE];
            for (row, tile) in tile.iter_mut().enumerate().take(height) {
                tile.copy_from_slice(&all[(top + row) * rows + left..][..LINE]);
            }
            for column in 0..LINE {
                let line = &mut all[(left + column) * rows + top..][..height];
                let put = |(to, tile): (&mut A, &[A; LINE])| *to = tile[column];
                // Unrolled where there is a whole line.
                match line.first_chunk_mut::<LINE>() {
                    Some(line) => line.iter_mut().zip(&tile).for_each(put),
                    None => line.iter_mut().zip(&tile).for_each(put),
                }
            }
        }
        for row in top..top + height {
            for column in row + 1..top + height {
                all[row * rows + column] = all[column * rows + row];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;

    use super::*;

    fn wave(shape: (usize, usize)) -> Array2<f32> {
        Array2::from_shape_fn(shape, |(i, j)| ((i * 37 + j * 11) as f32 * 0.1).sin())
    }

    #[cfg(feature = "rayon")]
    fn with_threads<T: Send>(threads: usize, run: impl FnOnce() -> T + Send) -> T {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(run)
    }

    #[cfg(not(feature = "rayon"))]
    fn with_threads<T: Send>(_: usize, run: impl FnOnce() -> T + Send) -> T {
        run()
    }

    #[test]
    fn threads_do_not_change_the_bits() {
        for (rows, inner, columns) in [(300, 71, 129), (97, 200, 64), (1, 9, 5), (0, 3, 3)] {
            let (a, b) = (wave((rows, inner)), wave((inner, columns)));
            let expected = a.dot(&b);
            for threads in [1, 2, 3, 5] {
                let mut found = Array2::from_elem((rows, columns), 1.0);
                with_threads(threads, || multiply((1.0, a.view(), b.view()), 0.0, found.view_mut()));
                assert_eq!(found, expected, "{rows} × {inner} × {columns} on {threads}");
            }
        }
    }

    #[test]
    fn a_symmetric_product_is_the_product() {
        for rows in [0, 1, 95, 96, 97, 150, 433] {
            let a = wave((rows, 61));
            let expected = 0.5 * a.dot(&a.t()) + 2.0;
            for threads in [1, 2, 4] {
                let mut c = Array2::from_elem((rows, rows), 1.0);
                with_threads(threads, || gram((0.5, a.view()), 2.0, c.view_mut()));
                assert!((&c - &expected).iter().all(|difference| difference.abs() < 1e-4), "{rows} rows");
                assert_eq!(c, c.t(), "{rows} rows");
            }
        }
    }
}
