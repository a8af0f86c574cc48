//! LaProp.

use crate::hyper_parameters;
use crate::params::Scalar;
use crate::rule::{At, Decay, Elementwise, Lanes, Rule};
use crate::schedule::Hyper;

/// LaProp: Adam that first divides the gradient and then averages, so that each gradient is divided by the second moment of its own time.
///
/// # Update rule
/// ```text
/// θ ← θ(1 − ηλ)
/// v ← β₂v + (1 − β₂)∇J(θ)²
/// v̂ ← v/(1 − β₂ᵗ)
/// m ← β₁m + (1 − β₁)·∇J(θ)/(√v̂ + ε)
/// θ ← θ − η·m/(1 − β₁ᵗ)
/// ```
/// ∇J(θ) is the gradient before the decay. t is the number of steps in which the tensor had a gradient, starting at 1. m and v start from 0.
///
/// # Hyper-parameters
/// Each is set by the method of its name and takes a number, a [schedule](crate::schedule) or a closure.
///
/// | name | default | range | meaning |
/// |---|---|---|---|
/// | `learning_rate` η | – | η ≥ 0 | length of the step, in units of the parameter; 4e-4 is usual |
/// | `beta1` β₁ | 0.9 | 0 ≤ β₁ < 1 | fraction of the average kept per step |
/// | `beta2` β₂ | 0.999 | 0 ≤ β₂ < 1 | fraction of the second moment kept per step |
/// | `eps` ε | 1e-15 | ε ≥ 0 | keeps the division finite, unit of the gradient |
/// | `weight_decay` λ | 0 | λ ≥ 0 | decay per step and unit of learning rate, decoupled |
///
/// With ε = 0, a gradient counts as 0 while its v is 0. A schedule may change β₁ and β₂; the corrections use the values of the current step.
///
/// # State
/// `exp_avg` m and `exp_avg_sq` v, each of the parameter's shape: two elements per parameter (8 bytes in f32).
///
/// # Conventions
/// The paper's algorithm, and timm's `LaProp` with a constant learning rate. With a changing one, timm averages the product with the learning rate of each
/// step, and divides by the average learning rate. timm decays after the move.
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
/// let mut opt = LaProp::new(0.1);
/// let mut w = array![1.0, 1.0];
/// opt.step(&mut w, &array![0.001, -1000.0])?; // the first step has length η for any gradient
/// assert!((w[0] - 0.9_f64).abs() < 1e-12 && (w[1] - 1.1).abs() < 1e-12);
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// # References
/// L. Ziyin, Z. T. Wang and M. Ueda, *LaProp: Separating Momentum and Adaptivity in Adam* (2020),
/// [arXiv:2002.04839](https://arxiv.org/abs/2002.04839), algorithm 1.
pub type LaProp<A = f32> = Elementwise<LaPropRule, A>;

hyper_parameters! {
    /// The rule of [`LaProp`].
    pub struct LaPropRule => LaPropValues for Elementwise {
        /// The decay β₁ of the average of divided gradients, 0 ≤ β₁ < 1.
        beta1 / set_beta1: 0.9, 0.0..1.0;
        /// The decay β₂ of the second moment, 0 ≤ β₂ < 1.
        beta2 / set_beta2: 0.999, 0.0..1.0;
        /// The ε ≥ 0 that is added to the root of the second moment.
        eps / set_eps: 1e-15, 0.0..;
    }
}

impl<A: Scalar> LaProp<A> {
    /// LaProp with the paper's defaults: β₁ 0.9, β₂ 0.999, ε 1e-15, no weight decay.
    pub fn new(learning_rate: impl Into<Hyper>) -> Self {
        Self::from_rule(LaPropRule::default(), learning_rate)
    }
}

impl<A: Scalar> Rule<A> for LaPropRule {
    /// β₁, 1 − β₁, β₂, 1 − β₂, ε and 1/√(1 − β₂ᵗ).
    type Coefficients = [A; 6];

    fn name(&self) -> &'static str {
        "laprop"
    }

    fn slots(&self) -> &'static [&'static str] {
        &["exp_avg", "exp_avg_sq"]
    }

    fn non_negative(&self) -> &'static [&'static str] {
        &["exp_avg_sq"]
    }

    fn decay(&self) -> Decay {
        Decay::Decoupled
    }

    fn coefficients(&self, &LaPropValues { beta1, beta2, eps }: &LaPropValues, at: &At) -> (f64, [A; 6]) {
        let correction = 1.0 / at.bias_correction(beta2).sqrt();
        let coefficients = [beta1, 1.0 - beta1, beta2, 1.0 - beta2, eps, correction].map(A::from_f64);
        (at.learning_rate / at.bias_correction(beta1), coefficients)
    }

    fn sweep(&self, c: [A; 6], lanes: Lanes<'_, A>) {
        lanes.each(c, |&[b1, r1, b2, r2, eps, correction], _, grad, [m, v]: [A; 2]| {
            let v = b2 * v + r2 * (grad * grad);
            let divisor = v.sqrt() * correction + eps;
            let m = b1 * m + r1 * (if divisor == A::zero() { divisor } else { grad / divisor });
            (m, [m, v])
        });
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use crate::prelude::*;

    #[test]
    fn first_steps_by_hand() {
        let mut opt = LaProp::new(0.5).beta1(0.5).beta2(0.75).eps(0.0).weight_decay(0.5);
        let mut w = array![4.0, 0.0];
        opt.step(&mut w, &array![8.0, 0.0]).unwrap(); // v = 16, √v̂ = 8, m = 0.5; 4 decays to 3
        assert_eq!(w, array![2.5, 0.0]);
        assert_eq!(opt.slot("", "exp_avg"), Some(array![0.5, 0.0].into_dyn()));
        opt.step(&mut w, &array![0.0, 0.0]).unwrap(); // m = 0.25, corrected 1/3; 2.5 decays to 1.875
        assert!((w[0] - (1.875 - 0.5 / 3.0_f64)).abs() < 1e-15);
        assert_eq!(opt.slot("", "exp_avg_sq"), Some(array![12.0, 0.0].into_dyn()));
    }

    #[test]
    fn nan_is_not_hidden() {
        let (mut opt, mut w) = (LaProp::new(0.5).eps(0.0), array![1.0]);
        (0..2).for_each(|_| _ = opt.step(&mut w, &array![f64::NAN]).unwrap());
        assert!(w[0].is_nan());
    }
}
