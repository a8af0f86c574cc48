//! The sides of a matrix: second moments of the gradient, and their eigenvectors.

use std::mem::swap;

use ndarray::{Array2, ArrayRef2, ArrayView2, Axis};

use crate::kernel::decomposition::{eigen, orthonormal};
use crate::kernel::product::faer::{blend_gram, multiplied, multiply};
use crate::kernel::squares::squares_of;
use crate::params::Scalar;

/// What is remembered of a side that is rotated.
pub(super) struct Side<'s, A> {
    /// The second moment of the gradient.
    pub(super) moment: &'s mut Array2<A>,
    /// Its eigenvectors, as columns.
    pub(super) basis: &'s mut Array2<A>,
}

/// Rows and columns, if they are rotated.
pub(super) type Sides<'s, A> = [Option<Side<'s, A>>; 2];

/// The slots of the sides that are rotated.
pub(super) fn sides<A>(has: [bool; 2], slots: &mut [Array2<A>]) -> Sides<'_, A> {
    let mut pairs = slots.chunks_exact_mut(2);
    has.map(|has| match if has { pairs.next() } else { None } {
        Some([moment, basis]) => Some(Side { moment, basis }),
        _ => None,
    })
}

/// M ← PᵀMQ, the bases of the sides that are rotated, with room for a product.
pub(super) fn turn<A: Scalar>(
    matrix: &mut Array2<A>,
    room: &mut Array2<A>,
    [left, right]: [Option<ArrayView2<'_, A>>; 2],
) {
    if let Some(left) = left {
        multiply(&left.t(), matrix, room);
        swap(matrix, room);
    }
    if let Some(right) = right {
        multiply(matrix, &right, room);
        swap(matrix, room);
    }
}

/// Rotates a matrix into the bases.
pub(super) fn bases<'s, A: Scalar>(sides: &'s Sides<'_, A>) -> [Option<ArrayView2<'s, A>>; 2] {
    sides.each_ref().map(|side| side.as_ref().map(|side| side.basis.view()))
}

/// Rotates a matrix back from the bases.
pub(super) fn back<'s, A: Scalar>(sides: &'s Sides<'_, A>) -> [Option<ArrayView2<'s, A>>; 2] {
    sides.each_ref().map(|side| side.as_ref().map(|side| side.basis.t()))
}

/// M ← (1 − w)M + w·ggᵀ for both sides.
pub(super) fn add<A: Scalar>(grad: &ArrayRef2<A>, weight: f64, sides: &mut Sides<'_, A>) {
    for (along, side) in [grad.view(), grad.t()].into_iter().zip(sides) {
        if let Some(side) = side {
            blend_gram(along, A::from_f64(weight), A::from_f64(1.0 - weight), side.moment);
        }
    }
}

/// M ← (1 − w)M + w·g S⁻¹ gᵀ/n for both sides. S is the other side's moment, its eigenvalues taken in its basis and at least `least`, and n its length.
/// If only one side is rotated, S⁻¹/n is left out.
pub(super) fn add_whitened<A: Scalar>(grad: &ArrayRef2<A>, weight: f64, least: f64, sides: &mut Sides<'_, A>) {
    let [Some(left), Some(right)] = sides else { return add(grad, weight, sides) };
    let across = |side: &Side<'_, A>, grad: ArrayView2<'_, A>| {
        let (values, length) =
            (eigenvalues(&multiplied(side.moment, side.basis), side.basis), side.basis.nrows() as f64);
        let mut whitened = multiplied(&grad, side.basis);
        let factors: Vec<_> = values.iter().map(|value| (value.as_f64().max(least) * length).sqrt().recip()).collect();
        for mut row in whitened.rows_mut() {
            // Only with ε = 0 can an eigenvalue be 0; its direction is left out.
            let finite = factors.iter().map(|factor| if factor.is_finite() { *factor } else { 0.0 });
            row.iter_mut().zip(finite).for_each(|(x, factor)| *x = A::from_f64(x.as_f64() * factor));
        }
        whitened
    };
    let whitened = [across(right, grad.view()), across(left, grad.t())];
    for (whitened, side) in whitened.iter().zip([left, right]) {
        // No element is larger than the trace.
        let trace = squares_of(whitened);
        if A::from_f64(trace).is_finite() {
            blend_gram(whitened.view(), A::from_f64(weight), A::from_f64(1.0 - weight), side.moment);
        }
    }
}

/// The first basis: eigenvectors, by falling eigenvalue.
pub(super) fn begin<A: Scalar>(side: &mut Side<'_, A>) {
    match eigen(&**side.moment) {
        Some((_, mut vectors)) => {
            vectors.invert_axis(Axis(1));
            side.basis.assign(&vectors);
        }
        None => side.basis.diag_mut().fill(A::one()),
    }
}

/// diag(QᵀMQ), given MQ: how much of the moment M is along each column of Q.
fn eigenvalues<A: Scalar>(moved: &ArrayRef2<A>, basis: &ArrayRef2<A>) -> Vec<A> {
    let mut values = vec![A::zero(); moved.ncols()];
    for (basis, moved) in basis.rows().into_iter().zip(moved.rows()) {
        let products = basis.iter().zip(moved).map(|(basis, moved)| *basis * *moved);
        values.iter_mut().zip(products).for_each(|(sum, product)| *sum += product);
    }
    values
}

/// One power iteration: the bases of both sides, and the moments in them.
pub(super) fn iterate<A: Scalar>(
    sides: &mut Sides<'_, A>,
    mean: &mut Array2<A>,
    square: &mut Array2<A>,
    room: &mut Array2<A>,
) {
    turn(mean, room, back(sides));
    for (axis, side) in [Axis(0), Axis(1)].into_iter().zip(sides.iter_mut()) {
        let Some(side) = side else { continue };
        let moved = multiplied(side.moment, side.basis);
        let estimate = eigenvalues(&moved, side.basis);
        let mut order: Vec<usize> = (0..estimate.len()).collect();
        order.sort_by(|a, b| estimate[*b].as_f64().total_cmp(&estimate[*a].as_f64()));
        *square = reordered(square, axis, &order);
        *side.basis = orthonormal(&moved, &order);
    }
    turn(mean, room, bases(sides));
}

/// Rows or columns in another order; columns row by row, as they lie in memory.
fn reordered<A: Scalar>(matrix: &Array2<A>, axis: Axis, order: &[usize]) -> Array2<A> {
    if axis == Axis(0) {
        return matrix.select(axis, order);
    }
    let mut result = Array2::zeros(matrix.dim());
    for (mut to, from) in result.rows_mut().into_iter().zip(matrix.rows()) {
        to.iter_mut().zip(order).for_each(|(to, at)| *to = from[*at]);
    }
    result
}
