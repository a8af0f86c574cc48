//! Optimizers whose state is in a subspace of the gradients: GaLore and APOLLO.

mod apollo;
#[cfg(feature = "second-order")]
mod galore;
mod random;

pub use apollo::{Apollo, ApolloMini, ApolloRule, ApolloValues};
#[cfg(feature = "second-order")]
pub use galore::{GaLore, GaLoreRule, GaLoreValues};

use ndarray::{Array2, ArrayView2};

use crate::kernel::product::multiply;
use crate::params::Scalar;
use crate::rule::MatrixSlot;

/// The shorter side of a matrix, which the projection makes shorter still, and the longer one.
fn sides((rows, columns): (usize, usize)) -> (usize, usize) {
    (rows.min(columns), rows.max(columns))
}

/// Rows and columns of a gradient in the subspace.
fn projected((rows, columns): (usize, usize), rank: usize) -> (usize, usize) {
    if rows >= columns { (rows, rank.min(columns)) } else { (rank.min(rows), columns) }
}

/// The moments in the subspace.
fn moments(shape: (usize, usize), rank: usize) -> [MatrixSlot; 2] {
    ["exp_avg", "exp_avg_sq"].map(|name| MatrixSlot::new(name, projected(shape, rank)))
}

/// A gradient in the subspace: `gP`, or `Pᵀg` if it has more columns than rows. The columns of P, which are as long as the shorter side, span it.
fn project<A: Scalar>(grad: ArrayView2<'_, A>, projection: ArrayView2<'_, A>) -> Array2<A> {
    let mut low = Array2::zeros(projected(grad.dim(), projection.ncols()));
    let (one, zero) = (A::one(), A::zero());
    match grad.nrows() >= grad.ncols() {
        true => multiply((one, grad, projection), zero, low.view_mut()),
        false => multiply((one, projection.t(), grad), zero, low.view_mut()),
    }
    low
}
