//! Adam's moments of a whole matrix.

use ndarray::Array2;

use super::simd;
use crate::params::Scalar;

/// Averages the gradient and its squares, and puts the direction in its place: `scale·m/(√v + ε)`, or 0 where that divides by 0. With `ahead`, two weights
/// of m and of the gradient, their sum stands for m.
pub(crate) fn adam<A: Scalar>(
    [beta1, beta2, eps, scale]: [f64; 4],
    ahead: Option<[f64; 2]>,
    grad: &mut Array2<A>,
    [mean, square]: [&mut Array2<A>; 2],
) {
    let [b1, r1, b2, r2, eps, scale] = [beta1, 1.0 - beta1, beta2, 1.0 - beta2, eps, scale].map(A::from_f64);
    let ahead = ahead.map(|weights| weights.map(A::from_f64));
    let (Some(grad), Some(mean), Some(square)) = (grad.as_slice_mut(), mean.as_slice_mut(), square.as_slice_mut())
    else {
        unreachable!("products and slots lie row by row")
    };
    let elements = grad.iter_mut().zip(mean).zip(square);
    let divided = move |mean: A, square: A| {
        let root = square.sqrt() + eps;
        if root > A::zero() { scale * (mean / root) } else { A::zero() }
    };
    simd::arch().dispatch(
        #[inline(always)]
        move || match ahead {
            None => {
                for ((d, m), v) in elements {
                    *m = b1 * *m + r1 * *d;
                    *v = b2 * *v + r2 * (*d * *d);
                    *d = divided(*m, *v);
                }
            }
            Some([ahead, now]) => {
                for ((d, m), v) in elements {
                    *m = b1 * *m + r1 * *d;
                    *v = b2 * *v + r2 * (*d * *d);
                    *d = divided(ahead * *m + now * *d, *v);
                }
            }
        },
    );
}
