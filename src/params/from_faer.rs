//! Matrices and vectors of faer as trees.

use faer::{Col, ColMut, ColRef, Mat, MatMut, MatRef, Row, RowMut, RowRef};
use faer_ext::IntoNdarray;
use ndarray::{ArrayView2, ArrayViewMut2, Axis};

use super::{Element, Params, ParamsMut, Visitor, VisitorMut};

/// A matrix as a view. faer's strides may be negative, which the conversion does not know.
fn view<A>(mut matrix: MatRef<'_, A>) -> ArrayView2<'_, A> {
    let reversed = [matrix.row_stride() < 0, matrix.col_stride() < 0];
    if reversed[0] {
        matrix = matrix.reverse_rows();
    }
    if reversed[1] {
        matrix = matrix.reverse_cols();
    }
    let mut view = matrix.into_ndarray();
    (0..2).filter(|axis| reversed[*axis]).for_each(|axis| view.invert_axis(Axis(axis)));
    view
}

/// [`view`], mutable.
fn view_mut<A>(mut matrix: MatMut<'_, A>) -> ArrayViewMut2<'_, A> {
    let reversed = [matrix.row_stride() < 0, matrix.col_stride() < 0];
    if reversed[0] {
        matrix = matrix.reverse_rows_mut();
    }
    if reversed[1] {
        matrix = matrix.reverse_cols_mut();
    }
    let mut view = matrix.into_ndarray();
    (0..2).filter(|axis| reversed[*axis]).for_each(|axis| view.invert_axis(Axis(axis)));
    view
}

macro_rules! read {
    ($($tree:ty $(, $as_matrix:ident, $axis:literal)?;)*) => {
        $(
            /// One tensor, in the memory of the matrix or vector: nothing is copied. The shape is `[rows, columns]` or `[elements]`.
            #[cfg_attr(docsrs, doc(cfg(feature = "faer")))]
            impl<A: Element> Params for $tree {
                type Elem = A;

                fn visit<'a>(&'a self, visitor: &mut Visitor<'_, 'a, A>) {
                    visitor.tensor(view(self.as_ref()$(.$as_matrix())?)$(.index_axis_move(Axis($axis), 0))?);
                }
            }
        )*
    };
}

macro_rules! write {
    ($($tree:ty $(, $as_matrix:ident, $axis:literal)?;)*) => {
        $(
            #[cfg_attr(docsrs, doc(cfg(feature = "faer")))]
            impl<A: Element> ParamsMut for $tree {
                fn visit_mut<'a>(&'a mut self, visitor: &mut VisitorMut<'_, 'a, A>) {
                    visitor.tensor(view_mut(self.as_mut()$(.$as_matrix())?)$(.index_axis_move(Axis($axis), 0))?);
                }
            }
        )*
    };
}

read! {
    Mat<A>;
    MatRef<'_, A>;
    MatMut<'_, A>;
    Col<A>, as_mat, 1;
    ColRef<'_, A>, as_mat, 1;
    ColMut<'_, A>, as_mat, 1;
    Row<A>, as_mat, 0;
    RowRef<'_, A>, as_mat, 0;
    RowMut<'_, A>, as_mat, 0;
}

write! {
    Mat<A>;
    MatMut<'_, A>;
    Col<A>, as_mat_mut, 1;
    ColMut<'_, A>, as_mat_mut, 1;
    Row<A>, as_mat_mut, 0;
    RowMut<'_, A>, as_mat_mut, 0;
}
