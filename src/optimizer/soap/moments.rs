//! Adam's moments in the eigenbasis.

use ndarray::Array2;

use super::{SoapRule, SoapValues};
use crate::kernel::simd;
use crate::optimizer::nadam::look_ahead;
use crate::params::Scalar;
use crate::rule::At;

impl<const KL: bool> SoapRule<KL> {
    /// Puts Adam's direction in the place of the gradient, and updates the moments. Returns the factor that the direction was multiplied by.
    pub(super) fn adam<A: Scalar>(
        &self,
        values: &SoapValues,
        at: &At,
        grad: &mut Array2<A>,
        [mean, square]: [&mut Array2<A>; 2],
    ) -> f64 {
        let &SoapValues { beta1, beta2, eps, momentum_decay, .. } = values;
        let corrected = |bias: f64| if self.correct_bias { bias } else { 1.0 };
        let root = corrected(at.bias_correction(beta2)).sqrt();
        let ahead =
            self.nesterov.then(|| look_ahead(beta1, Some(momentum_decay), at, self.correct_bias).map(A::from_f64));
        let correction = if self.nesterov { root } else { root / corrected(at.bias_correction(beta1)) };
        let [b1, r1, b2, r2, eps, scale] = [beta1, 1.0 - beta1, beta2, 1.0 - beta2, eps, correction].map(A::from_f64);
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
        correction
    }
}
