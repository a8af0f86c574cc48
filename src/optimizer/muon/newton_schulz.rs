//! Newton–Schulz iterations.

use std::mem::swap;

use ndarray::{Array2, ArrayView2, ArrayViewMut2, ArrayViewMut3, Axis};

use super::coefficients::MuonCoefficients;
use crate::kernel::product::{gram, multiply};
use crate::kernel::squares::norm;
use crate::kernel::threads;
use crate::params::Scalar;

/// The usual number of iterations.
pub(super) const ITERATIONS: usize = 5;

/// Makes all singular values of a matrix about 1, by five Newton–Schulz iterations. [`Muon`](crate::Muon) applies it to the momentum.
///
/// Singular values of at least 0.002 of the Frobenius norm become 0.68 to 1.21. A matrix of zeros is unchanged.
///
/// ```
/// let x = gradus::optimizer::newton_schulz(ndarray::array![[3.0, 0.0, 0.0], [0.0, -0.1, 0.0]].view());
/// assert!((x[[0, 0]] - 1.0_f64).abs() < 0.33 && (x[[1, 1]] + 1.0).abs() < 0.33);
/// ```
pub fn newton_schulz<A: Scalar>(matrix: ArrayView2<'_, A>) -> Array2<A> {
    let triples = MuonCoefficients::Jordan.triples().take(ITERATIONS);
    NewtonSchulz::new(matrix.dim()).of(matrix, triples, f64::MIN_POSITIVE).as_standard_layout().into_owned()
}

/// The memory of the iterations, for matrices of one shape.
struct NewtonSchulz<A> {
    x: Array2<A>,
    next: Array2<A>,
    square: Array2<A>,
    polynomial: Array2<A>,
}

impl<A: Scalar> NewtonSchulz<A> {
    fn new((rows, columns): (usize, usize)) -> Self {
        let (short, long) = (rows.min(columns), rows.max(columns));
        let [x, next] = [(); 2].map(|()| Array2::zeros((short, long)));
        let [square, polynomial] = [(); 2].map(|()| Array2::zeros((short, short)));
        Self { x, next, square, polynomial }
    }

    /// The iterations of a matrix divided by its norm, but by at least ε: one round per triple.
    fn of(
        &mut self,
        matrix: ArrayView2<'_, A>,
        triples: impl Iterator<Item = [f64; 3]>,
        eps: f64,
    ) -> ArrayView2<'_, A> {
        let Self { x, next, square, polynomial } = self;
        let tall = matrix.nrows() > matrix.ncols();
        let wide = if tall { matrix.reversed_axes() } else { matrix };
        let norm = norm(&wide).max(eps);
        // Divided in f64: the norm of tiny numbers has no reciprocal in f32.
        x.zip_mut_with(&wide, |x, m| *x = A::from_f64(m.as_f64() / norm));
        for triple in triples {
            let [a, b, c] = triple.map(A::from_f64);
            gram((A::one(), x.view()), A::zero(), square.view_mut());
            polynomial.assign(square);
            gram((c, square.view()), b, polynomial.view_mut());
            next.assign(x);
            multiply((A::one(), polynomial.view(), x.view()), a, next.view_mut());
            swap(x, next);
        }
        if tall { x.t() } else { x.view() }
    }
}

/// The blocks of a matrix that lies row by row. They have at least one element.
pub(super) fn blocks_of<A>(matrix: ArrayViewMut2<'_, A>, (rows, columns): (usize, usize)) -> ArrayViewMut3<'_, A> {
    let count = matrix.len() / (rows * columns);
    let Ok(blocks) = matrix.into_shape_with_order((count, rows, columns)) else {
        unreachable!("the blocks fill the matrix")
    };
    blocks
}

/// Replaces each block of a matrix that lies row by row by its orthogonal matrix, times the scale.
pub(super) fn orthogonalize<A: Scalar, T: Iterator<Item = [f64; 3]>>(
    matrix: ArrayViewMut2<'_, A>,
    (rows, columns): (usize, usize),
    triples: &(impl Fn() -> T + Sync),
    eps: f64,
    scale: f64,
) {
    if matrix.is_empty() {
        return;
    }
    let elements = matrix.len();
    let mut blocks = blocks_of(matrix, (rows, columns));
    let (count, scale) = (blocks.len_of(Axis(0)), A::from_f64(scale));
    let mut parts: Vec<_> = blocks.axis_chunks_iter_mut(Axis(0), count.div_ceil(threads::count())).collect();
    threads::for_each_tensor(elements, &mut parts, &|part| {
        let mut iterations = NewtonSchulz::new((rows, columns));
        for mut block in part.outer_iter_mut() {
            let x = iterations.of(block.view(), triples(), eps);
            block.zip_mut_with(&x, |to, x| *to = *x * scale);
        }
    });
}
