//! Adamax.

use crate::hyper_parameters;
use crate::params::Scalar;
use crate::rule::{At, Elementwise, Lanes, Rule};
use crate::schedule::Hyper;

/// Adamax: Adam with the largest recent gradient in place of the root of the second moment.
///
/// # Update rule
/// ```text
/// m ← β₁m + (1 − β₁)∇J(θ)
/// u ← max(β₂u, |∇J(θ)| + ε)
/// θ ← θ − η/(1 − β₁ᵗ)·m/u
/// ```
/// t is the number of steps in which the tensor had a gradient, starting at 1. u needs no bias correction.
///
/// [`eps_outside_max`](Adamax::eps_outside_max) adds ε in the division:
/// ```text
/// u ← max(β₂u, |∇J(θ)|)
/// θ ← θ − η/(1 − β₁ᵗ)·m/(u + ε)
/// ```
/// With weight decay λ the gradient is `∇J(θ) + λθ`, also in m and u.
///
/// # Hyper-parameters
/// Each is set by the method of its name and takes a number, a [schedule](crate::schedule) or a closure.
///
/// | name | default | range | meaning |
/// |---|---|---|---|
/// | `learning_rate` η | – | η ≥ 0 | length of the step, in units of the parameter; PyTorch's default is 2e-3 |
/// | `beta1` β₁ | 0.9 | 0 ≤ β₁ < 1 | fraction of the first moment kept per step |
/// | `beta2` β₂ | 0.999 | 0 ≤ β₂ < 1 | fraction of the maximum kept per step |
/// | `eps` ε | 1e-8 | ε ≥ 0 | keeps the division finite; unit of the gradient |
/// | `weight_decay` λ | 0 | λ ≥ 0 | strength of the L2 penalty |
///
/// # State
/// `exp_avg` m and `exp_inf` u, of the parameter's shape: two elements per parameter (8 bytes in f32).
///
/// # Conventions
/// The default is PyTorch's `Adamax` and optax's `adamax`. Keras' `Adamax` is `.eps_outside_max(true).eps(1e-7)`. The paper has no ε: `.eps(0.0)`.
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
/// let mut opt = Adamax::new(0.1).eps(0.0);
/// let mut w = array![1.0, 1.0];
/// opt.step(&mut w, &array![0.001, -1000.0])?; // the first step has length η for any gradient
/// assert!((w[0] - 0.9_f64).abs() < 1e-12 && (w[1] - 1.1).abs() < 1e-12);
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// # References
/// D. P. Kingma and J. Ba, *Adam: A Method for Stochastic Optimization* (2014), [arXiv:1412.6980](https://arxiv.org/abs/1412.6980), algorithm 2.
#[doc(alias = "AdaMax")]
pub type Adamax<A = f32> = Elementwise<AdamaxRule, A>;

hyper_parameters! {
    /// The rule of [`Adamax`].
    pub struct AdamaxRule => AdamaxValues for Elementwise {
        /// The decay β₁ of the first moment, 0 ≤ β₁ < 1.
        beta1 / set_beta1: 0.9, 0.0..1.0;
        /// The decay β₂ of the maximum, 0 ≤ β₂ < 1.
        beta2 / set_beta2: 0.999, 0.0..1.0;
        /// The ε ≥ 0 that keeps the division finite.
        eps / set_eps: 1e-8, 0.0..;
    }
    options {
        /// Adds ε to the maximum in the division instead of to the gradient in the maximum (Keras).
        eps_outside_max: bool = false;
    }
}

impl<A: Scalar> Adamax<A> {
    /// Adamax with PyTorch's defaults: β₁ 0.9, β₂ 0.999, ε 1e-8, no weight decay.
    pub fn new(learning_rate: impl Into<Hyper>) -> Self {
        Self::from_rule(AdamaxRule::default(), learning_rate)
    }
}

impl<A: Scalar> Rule<A> for AdamaxRule {
    /// β₁, 1 − β₁, β₂, and ε inside and outside of the maximum.
    type Coefficients = [A; 5];

    fn name(&self) -> &'static str {
        "adamax"
    }

    fn slots(&self) -> &'static [&'static str] {
        &["exp_avg", "exp_inf"]
    }

    fn non_negative(&self) -> &'static [&'static str] {
        &["exp_inf"]
    }

    fn coefficients(&self, &AdamaxValues { beta1, beta2, eps }: &AdamaxValues, at: &At) -> (f64, [A; 5]) {
        let (inside, outside) = if self.eps_outside_max { (0.0, eps) } else { (eps, 0.0) };
        let step_size = at.learning_rate / at.bias_correction(beta1);
        (step_size, [beta1, 1.0 - beta1, beta2, inside, outside].map(A::from_f64))
    }

    fn sweep(&self, c: [A; 5], lanes: Lanes<'_, A>) {
        lanes.each(c, |&[b1, r1, b2, inside, outside], _, grad, [m, u]: [A; 2]| {
            let (m, kept, seen) = (b1 * m + r1 * grad, b2 * u, grad.abs() + inside);
            let u = if kept > seen { kept } else { seen };
            (m / (u + outside), [m, u])
        });
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use crate::prelude::*;

    #[test]
    fn first_steps_by_hand() {
        let mut opt = Adamax::new(0.5).beta1(0.5).beta2(0.75).eps(1.0);
        let mut w = array![8.0];
        opt.step(&mut w, &array![-3.0]).unwrap(); // m = −1.5, u = 4, m̂ = −3
        assert_eq!(w, array![8.0 + 0.5 * 0.75]);
        opt.step(&mut w, &array![1.0]).unwrap(); // m = −0.25, u = max(3, 2), m̂ = −0.25/0.75
        assert!((w[0] - (8.375 + 0.5 * 0.25 / 0.75 / 3.0_f64)).abs() < 1e-15, "{w}");
        assert_eq!(opt.slot("", "exp_inf"), Some(array![3.0].into_dyn()));

        let mut opt = Adamax::new(0.5).beta1(0.5).beta2(0.75).eps(1.0).eps_outside_max(true);
        let mut w = array![8.0];
        opt.step(&mut w, &array![-3.0]).unwrap(); // u = 3, divided by 4
        assert_eq!(w, array![8.0 + 0.5 * 0.75]);
        assert_eq!(opt.slot("", "exp_inf"), Some(array![3.0].into_dyn()));
    }

    #[test]
    fn nan_is_not_hidden() {
        let (mut opt, mut w) = (Adamax::new(0.5), array![1.0]);
        opt.step(&mut w, &array![1.0]).unwrap();
        opt.step(&mut w, &array![f64::NAN]).unwrap();
        assert!(w[0].is_nan() && opt.slot("", "exp_inf").unwrap().iter().all(|u| u.is_nan()));
    }
}
