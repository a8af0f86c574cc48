//! Products of parts of matrices, in the numbers' own type.

use std::ops::Range;

use faer::linalg::matmul::matmul;
use faer::linalg::matmul::triangular::{self, BlockStructure};
use faer::{Accum, MatMut, MatRef, Par};
use ndarray::ArrayView2;

/// Numbers that faer multiplies. `c` holds the rows asked for, row by row.
#[allow(unnameable_types, reason = "a bound of a sealed trait")]
pub trait Real: Sized {
    /// `c ← a·b`, these rows of it.
    #[doc(hidden)]
    fn multiply(a: &ArrayView2<'_, Self>, b: &ArrayView2<'_, Self>, rows: Range<usize>, c: &mut [Self]);

    /// `c ← α·a·bᵀ + β·c`, these rows of it up to the diagonal. With β = 0 it does not matter what c was.
    #[doc(hidden)]
    fn blend_lower(
        product: (Self, &ArrayView2<'_, Self>, &ArrayView2<'_, Self>),
        beta: Self,
        rows: Range<usize>,
        c: &mut [Self],
    );
}

/// The matrix in faer's terms, if its elements lie without gaps.
pub(super) fn dense<'a, T>(view: &ArrayView2<'a, T>) -> Option<MatRef<'a, T>> {
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

                fn blend_lower(
                    (alpha, a, b): (Self, &ArrayView2<'_, Self>, &ArrayView2<'_, Self>),
                    beta: Self,
                    rows: Range<usize>,
                    c: &mut [Self],
                ) {
                    let (Some(a), Some(b)) = (dense(a), dense(b)) else { unreachable!("both are dense") };
                    if beta != 0.0 && beta != 1.0 {
                        for (row, c) in rows.clone().zip(c.chunks_mut(b.nrows())) {
                            c[..=row].iter_mut().for_each(|c| *c *= beta);
                        }
                    }
                    let accum = if beta == 0.0 { Accum::Replace } else { Accum::Add };
                    let c = MatMut::from_row_major_slice_mut(c, rows.len(), b.nrows());
                    let (left, right) = c.split_at_col_mut(rows.start);
                    let own = a.subrows(rows.start, rows.len());
                    let (above, beside) = (b.subrows(0, rows.start), b.subrows(rows.start, rows.len()));
                    matmul(left, accum, own, above.transpose(), alpha, Par::Seq);
                    let (square, whole) = (right.subcols_mut(0, rows.len()), BlockStructure::Rectangular);
                    let lower = BlockStructure::TriangularLower;
                    triangular::matmul(square, lower, accum, own, whole, beside.transpose(), whole, alpha, Par::Seq);
                }
            }
        )*
    };
}

real!(f32 f64);
