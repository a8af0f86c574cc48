//! Matrices and vectors of nalgebra as trees.

use nalgebra::storage::{IsContiguous, RawStorage, RawStorageMut};
use nalgebra::{Dim, Matrix};
use ndarray::{ArrayView, ArrayViewMut, IxDyn, ShapeBuilder};

use super::{Element, Params, ParamsMut, Visitor, VisitorMut};

/// A matrix of nalgebra, `DMatrix`, `SMatrix` and others, is one tensor with the shape `[rows, columns]`, and a vector, `DVector`,
/// `SVector`, `RowDVector`, one with the shape `[elements]`. A vector is a matrix whose type has one row or one column.
///
/// The memory is that of the matrix: column-major, and nothing is copied. Views of some rows of a matrix are not trees, because their memory
/// has gaps.
#[cfg_attr(docsrs, doc(cfg(feature = "nalgebra")))]
impl<A: Element, R: Dim, C: Dim, S: RawStorage<A, R, C> + IsContiguous> Params for Matrix<A, R, C, S> {
    type Elem = A;

    fn visit<'a>(&'a self, visitor: &mut Visitor<'_, 'a, A>) {
        let (dimensions, shape) = shape::<R, C>(self.shape());
        if let Ok(view) = ArrayView::from_shape(IxDyn(&shape[..dimensions]).f(), self.as_slice()) {
            visitor.tensor(view);
        }
    }
}

#[cfg_attr(docsrs, doc(cfg(feature = "nalgebra")))]
impl<A: Element, R: Dim, C: Dim, S: RawStorageMut<A, R, C> + IsContiguous> ParamsMut for Matrix<A, R, C, S> {
    fn visit_mut<'a>(&'a mut self, visitor: &mut VisitorMut<'_, 'a, A>) {
        let (dimensions, shape) = shape::<R, C>(self.shape());
        if let Ok(view) = ArrayViewMut::from_shape(IxDyn(&shape[..dimensions]).f(), self.as_mut_slice()) {
            visitor.tensor(view);
        }
    }
}

/// The number of dimensions, and the shape in as many of these numbers.
fn shape<R: Dim, C: Dim>((rows, columns): (usize, usize)) -> (usize, [usize; 2]) {
    match (R::try_to_usize(), C::try_to_usize()) {
        (_, Some(1)) => (1, [rows, 1]),
        (Some(1), _) => (1, [columns, 1]),
        _ => (2, [rows, columns]),
    }
}
