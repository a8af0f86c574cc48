//! Adam's moments in the eigenbasis.

use ndarray::Array2;

use super::{SoapRule, SoapValues};
use crate::kernel::adam::adam;
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
        moments: [&mut Array2<A>; 2],
    ) -> f64 {
        let &SoapValues { beta1, beta2, eps, momentum_decay, .. } = values;
        let corrected = |bias: f64| if self.correct_bias { bias } else { 1.0 };
        let root = corrected(at.bias_correction(beta2)).sqrt();
        let ahead = self.nesterov.then(|| look_ahead(beta1, Some(momentum_decay), at, self.correct_bias));
        let correction = if self.nesterov { root } else { root / corrected(at.bias_correction(beta1)) };
        adam([beta1, beta2, eps, correction], ahead, grad, moments);
        correction
    }
}
