//! AdaHessian.

use crate::hyper_parameters;
use crate::params::Scalar;
use crate::rule::{At, Curved, Decay, Elementwise, Lanes, Rule};
use crate::schedule::Hyper;

/// AdaHessian: AdamW with the Hessian's diagonal in the place of the gradient in the second moment.
///
/// Before each step, or every few steps, pass an estimate of the Hessian's diagonal to [`curvature`](Elementwise::curvature). The
/// [guide](crate::guide::curvature#hessian-diagonal) has Hutchinson's estimate.
///
/// # Update rule
/// ```text
/// v ← β₂v + (1 − β₂)d²                     only in a step before which there was a diagonal d
/// m ← β₁m + (1 − β₁)∇J(θ)
/// m̂ ← m/(1 − β₁ᵗ)
/// v̂ ← v/(1 − β₂ᵗ)
/// θ ← θ(1 − ηλ)
/// θ ← θ − η·m̂/(√v̂ + ε)
/// ```
/// ∇J(θ) is the gradient before the decay. t is the number of steps in which the tensor had a gradient, starting at 1. The averages start from 0.
/// **Without a diagonal before the first step, v is 0 and the divisor ε: the steps are far too long.**
///
/// # Hyper-parameters
/// Each is set by the method of its name and takes a number, a [schedule](crate::schedule) or a closure.
///
/// | name | default | range | meaning |
/// |---|---|---|---|
/// | `learning_rate` η | – | η ≥ 0 | 1 is a Newton step of each element; the authors' default is 0.1 |
/// | `beta1` β₁ | 0.9 | 0 ≤ β₁ < 1 | fraction of m kept per step |
/// | `beta2` β₂ | 0.999 | 0 ≤ β₂ < 1 | fraction of v kept per diagonal |
/// | `eps` ε | 1e-16 | ε ≥ 0 | keeps the division finite, unit of the Hessian |
/// | `weight_decay` λ | 0 | λ ≥ 0 | decay per step and unit of learning rate, decoupled |
///
/// With ε = 0, an element does not move while its v is 0.
///
/// # State
/// `exp_avg` m and `exp_hessian_diag_sq` v, each of the parameter's shape: two elements per parameter (8 bytes in f32). Between `curvature` and the step,
/// one more.
///
/// # Conventions
/// pytorch-optimizer's `AdaHessian` with `hessian_power=1`. If a diagonal is not passed before each step, v̂ is corrected by the number of steps, as there. The
/// paper averages the diagonal over blocks, such as the elements of a convolution's kernel: average it before you pass it.
///
/// # Errors
/// A step returns [`StepError::HyperParameter`](crate::error::StepError::HyperParameter) if a value is out of range, and the errors of
/// [`Step::pair`](crate::Step::pair) and of changed parameters.
///
/// # Example
/// ```
/// use gradus::prelude::*;
/// use ndarray::array;
///
/// let mut opt = AdaHessian::new(1.0);
/// let mut w = array![1.0, 1.0];
/// opt.curvature(&array![4.0, 100.0])?; // of 2w₀² + 50w₁²
/// opt.step(&mut w, &array![4.0, 100.0])?;
/// assert!(w.iter().all(|w: &f64| w.abs() < 1e-12)); // a Newton step
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// # References
/// Z. Yao et al., *ADAHESSIAN: An Adaptive Second Order Optimizer for Machine Learning* (2020), [arXiv:2006.00719](https://arxiv.org/abs/2006.00719),
/// algorithm 1.
pub type AdaHessian<A = f32> = Elementwise<AdaHessianRule, A>;

hyper_parameters! {
    /// The rule of [`AdaHessian`].
    pub struct AdaHessianRule => AdaHessianValues for Elementwise {
        /// The decay β₁ of the average gradient, 0 ≤ β₁ < 1.
        beta1 / set_beta1: 0.9, 0.0..1.0;
        /// The decay β₂ of the average squared diagonal, 0 ≤ β₂ < 1.
        beta2 / set_beta2: 0.999, 0.0..1.0;
        /// The ε ≥ 0 that is added to the root of the average squared diagonal.
        eps / set_eps: 1e-16, 0.0..;
    }
}

impl<A: Scalar> AdaHessian<A> {
    /// AdaHessian with the defaults of pytorch-optimizer: β₁ 0.9, β₂ 0.999, ε 1e-16, no weight decay.
    pub fn new(learning_rate: impl Into<Hyper>) -> Self {
        Self::from_rule(AdaHessianRule::default(), learning_rate)
    }
}

impl<A: Scalar> Curved<A> for AdaHessianRule {}

impl<A: Scalar> Rule<A> for AdaHessianRule {
    /// β₁, 1 − β₁, 1/√(1 − β₂ᵗ) and ε.
    type Coefficients = [A; 4];

    fn name(&self) -> &'static str {
        "adahessian"
    }

    fn slots(&self) -> &'static [&'static str] {
        &["exp_avg", "exp_hessian_diag_sq"]
    }

    fn non_negative(&self) -> &'static [&'static str] {
        &["exp_hessian_diag_sq"]
    }

    fn decay(&self) -> Decay {
        Decay::Decoupled
    }

    fn absorbs(&self) -> &'static [&'static str] {
        &["exp_hessian_diag_sq"]
    }

    fn absorb(&self, values: &AdaHessianValues, lanes: Lanes<'_, A>) {
        let c = [values.beta2, 1.0 - values.beta2].map(A::from_f64);
        lanes.each(c, |&[b2, r2], _, d, [m, v]: [A; 2]| (A::zero(), [m, b2 * v + r2 * (d * d)]));
    }

    fn coefficients(&self, values: &AdaHessianValues, at: &At) -> (f64, [A; 4]) {
        let &AdaHessianValues { beta1, beta2, eps } = values;
        let root = 1.0 / at.bias_correction(beta2).sqrt();
        (at.learning_rate / at.bias_correction(beta1), [beta1, 1.0 - beta1, root, eps].map(A::from_f64))
    }

    fn sweep(&self, c: [A; 4], lanes: Lanes<'_, A>) {
        lanes.each(c, |&[b1, r1, root, eps], _, grad, [m, v]: [A; 2]| {
            let m = b1 * m + r1 * grad;
            let divisor = v.sqrt() * root + eps;
            (if divisor == A::zero() { divisor } else { m / divisor }, [m, v])
        });
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use crate::prelude::*;

    #[test]
    fn first_steps_by_hand() {
        let mut opt = AdaHessian::new(0.5).beta1(0.5).beta2(0.75).eps(2.0).weight_decay(0.5);
        let mut w = array![4.0];
        opt.curvature(&array![-2.0]).unwrap(); // v = 1, √v̂ = 2
        opt.step(&mut w, &array![8.0]).unwrap(); // m̂ = 8; 4 decays to 3
        assert_eq!(w, array![2.0]);
        opt.curvature(&array![4.0]).unwrap(); // v = 4.75
        opt.step(&mut w, &array![-4.0]).unwrap(); // m = 0; 2 decays to 1.5
        assert_eq!(w, array![1.5]);
        assert_eq!(opt.slot("", "exp_hessian_diag_sq"), Some(array![4.75].into_dyn()));
    }

    #[test]
    fn without_eps_an_element_without_curvature_rests() {
        let (mut opt, mut w) = (AdaHessian::new(1.0).eps(0.0), array![1.0, 1.0]);
        opt.curvature(&array![0.0, 1e3]).unwrap();
        opt.step(&mut w, &array![1.0, 1.0]).unwrap();
        assert!(w[0] == 1.0 && w[1] < 1.0);
    }

    #[test]
    fn nan_is_not_hidden() {
        let (mut opt, mut w) = (AdaHessian::new(0.5), array![1.0]);
        opt.step(&mut w, &array![f64::NAN]).unwrap();
        assert!(w[0].is_nan());
    }
}
