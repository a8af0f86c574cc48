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

/// Updates Adam's moments, and returns m/(√v + ε), without bias correction.
fn adam<A: Scalar>(
    [beta1, beta2, eps]: [f64; 3],
    low: &Array2<A>,
    mean: &mut Array2<A>,
    square: &mut Array2<A>,
) -> Array2<A> {
    let [b1, r1, b2, r2, eps] = [beta1, 1.0 - beta1, beta2, 1.0 - beta2, eps].map(A::from_f64);
    let mut direction = low.clone();
    for ((d, m), v) in direction.iter_mut().zip(mean).zip(square) {
        *m = b1 * *m + r1 * *d;
        *v = b2 * *v + r2 * (*d * *d);
        let root = v.sqrt() + eps;
        *d = if root > A::zero() { *m / root } else { A::zero() };
    }
    direction
}
