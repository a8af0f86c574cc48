//! AdaBelief.

use crate::hyper_parameters;
use crate::params::Scalar;
use crate::rule::{At, Decay, Elementwise, Lanes, Rule};
use crate::schedule::Hyper;

/// AdaBelief: Adam, but divides by the root of the average squared distance between gradient and average gradient.
///
/// # Update rule
/// ```text
/// θ ← θ(1 − ηλ)
/// m ← β₁m + (1 − β₁)∇J(θ)
/// s ← β₂s + (1 − β₂)(∇J(θ) − m)² + ε
/// m̂ ← m/(1 − β₁ᵗ)
/// ŝ ← s/(1 − β₂ᵗ)
/// θ ← θ − η·m̂/(√ŝ + ε)
/// ```
/// ∇J(θ) is the gradient before the decay. t is the number of steps in which the tensor had a gradient, starting at 1. m and s start from 0.
/// The steps are long where the gradient stays near its average, and short where it changes. With ε = 0, an element does not move while its s
/// is 0.
///
/// [`nesterov`](AdaBelief::nesterov) looks one step of the first moment ahead: `m̂ ← β₁m/(1 − β₁ᵗ⁺¹) + (1 − β₁)∇J(θ)/(1 − β₁ᵗ)`.
///
/// # Hyper-parameters
/// Each is set by the method of its name and takes a number, a [schedule](crate::schedule) or a closure.
///
/// | name | default | range | meaning |
/// |---|---|---|---|
/// | `learning_rate` η | – | η ≥ 0 | length of the step, in units of the parameter |
/// | `beta1` β₁ | 0.9 | 0 ≤ β₁ < 1 | fraction of the first moment kept per step |
/// | `beta2` β₂ | 0.999 | 0 ≤ β₂ < 1 | fraction of s kept per step |
/// | `eps` ε | 1e-16 | ε ≥ 0 | keeps the division finite; added to s at every step, and to the root |
/// | `weight_decay` λ | 0 | λ ≥ 0 | decay per step and unit of learning rate, decoupled |
///
/// A schedule may change β₁ and β₂; the corrections use the values of the current step.
///
/// # State
/// `exp_avg` m and `exp_avg_var` s, each of the parameter's shape: two elements per parameter (8 bytes in f32).
///
/// # Conventions
/// The paper's algorithm 2, and optax's `adabelief`, which has two values for ε: `eps_root` in s and `eps` after the root, both 1e-16 by
/// default. The paper has 1e-8. optax's `adabelief` has no weight decay; PyTorch has no AdaBelief.
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
/// let mut opt = AdaBelief::new(0.1).beta1(0.5);
/// let mut w = array![1.0, 1.0];
/// opt.step(&mut w, &array![0.001, -1000.0])?; // the first step has length η/β₁ for any gradient
/// assert!((w[0] - 0.8_f64).abs() < 1e-6 && (w[1] - 1.2).abs() < 1e-6);
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// # References
/// J. Zhuang et al., *AdaBelief Optimizer: Adapting Stepsizes by the Belief in Observed Gradients* (2020),
/// [arXiv:2010.07468](https://arxiv.org/abs/2010.07468), algorithm 2.
pub type AdaBelief<A = f32> = Elementwise<AdaBeliefRule, A>;

hyper_parameters! {
    /// The rule of [`AdaBelief`].
    pub struct AdaBeliefRule => AdaBeliefValues for Elementwise {
        /// The decay β₁ of the first moment, 0 ≤ β₁ < 1.
        beta1 / set_beta1: 0.9, 0.0..1.0;
        /// The decay β₂ of the mean square distance s, 0 ≤ β₂ < 1.
        beta2 / set_beta2: 0.999, 0.0..1.0;
        /// The ε ≥ 0 that is added to s at every step, and to its root.
        eps / set_eps: 1e-16, 0.0..;
    }
    options {
        /// Moves along the first moment that the next step would have with this gradient (Nesterov), as optax's `adabelief(nesterov=True)`.
        nesterov: bool = false;
    }
}

impl<A: Scalar> AdaBelief<A> {
    /// AdaBelief with optax's defaults: β₁ 0.9, β₂ 0.999, ε 1e-16, no weight decay.
    pub fn new(learning_rate: impl Into<Hyper>) -> Self {
        Self::from_rule(AdaBeliefRule::default(), learning_rate)
    }
}

impl<A: Scalar> Rule<A> for AdaBeliefRule {
    /// β₁, 1 − β₁, β₂, 1 − β₂, ε, 1/√(1 − β₂ᵗ) and, for Nesterov, the factors of m and of the gradient.
    type Coefficients = [A; 8];

    fn name(&self) -> &'static str {
        "adabelief"
    }

    fn slots(&self) -> &'static [&'static str] {
        &["exp_avg", "exp_avg_var"]
    }

    fn non_negative(&self) -> &'static [&'static str] {
        &["exp_avg_var"]
    }

    fn decay(&self) -> Decay {
        Decay::Decoupled
    }

    fn coefficients(&self, &AdaBeliefValues { beta1, beta2, eps }: &AdaBeliefValues, at: &At) -> (f64, [A; 8]) {
        let [first, second] = [beta1, beta2].map(|beta| at.bias_correction(beta));
        let (ahead, now) = match self.nesterov {
            true => (beta1 / at.next().bias_correction(beta1), (1.0 - beta1) / first),
            false => (0.0, 0.0),
        };
        let coefficients = [beta1, 1.0 - beta1, beta2, 1.0 - beta2, eps, 1.0 / second.sqrt(), ahead, now];
        let step_size = if self.nesterov { at.learning_rate } else { at.learning_rate / first };
        (step_size, coefficients.map(A::from_f64))
    }

    fn sweep(&self, c: [A; 8], lanes: Lanes<'_, A>) {
        match self.nesterov {
            false => lanes.each(c, |c, _, grad, [m, s]: [A; 2]| {
                let (m, s, divisor) = moments(c, grad, m, s);
                (if divisor == A::zero() { divisor } else { m / divisor }, [m, s])
            }),
            true => lanes.each(c, |c, _, grad, [m, s]: [A; 2]| {
                let (m, s, divisor) = moments(c, grad, m, s);
                let &[.., ahead, now] = c;
                (if divisor == A::zero() { divisor } else { (ahead * m + now * grad) / divisor }, [m, s])
            }),
        }
    }
}

/// Both moments, and the divisor of the direction.
#[inline(always)]
fn moments<A: Scalar>(&[b1, r1, b2, r2, eps, correction, ..]: &[A; 8], grad: A, m: A, s: A) -> (A, A, A) {
    let m = b1 * m + r1 * grad;
    let distance = grad - m;
    let s = b2 * s + r2 * (distance * distance) + eps;
    (m, s, s.sqrt() * correction + eps)
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use crate::prelude::*;

    #[test]
    fn first_steps_by_hand() {
        let mut opt = AdaBelief::new(0.5).beta1(0.5).beta2(0.75).eps(0.0).weight_decay(0.5);
        let mut w = array![4.0, 0.0];
        opt.step(&mut w, &array![8.0, 0.0]).unwrap(); // m = 4, s = (8 − 4)²/4; 4 decays to 3; m̂ = 8, √ŝ = 4
        assert_eq!(w, array![2.0, 0.0]);
        assert_eq!(opt.slot("", "exp_avg"), Some(array![4.0, 0.0].into_dyn()));
        assert_eq!(opt.slot("", "exp_avg_var"), Some(array![4.0, 0.0].into_dyn()));
        opt.step(&mut w, &array![-4.0, 0.0]).unwrap(); // m = 0, s = 0.75·4 + (−4 − 0)²/4; 2 decays to 1.5
        assert_eq!(w, array![1.5, 0.0]);
        assert_eq!(opt.slot("", "exp_avg_var"), Some(array![7.0, 0.0].into_dyn()));
    }

    #[test]
    fn eps_is_added_twice() {
        let mut opt = AdaBelief::new(0.5).beta1(0.0).beta2(0.75).eps(4.0);
        let mut w = array![1.0];
        opt.step(&mut w, &array![8.0]).unwrap(); // s = ε, √ŝ = √(4/0.25) = 4
        assert_eq!(w, array![0.5]);
        opt.step(&mut w, &array![0.0]).unwrap();
        assert_eq!(opt.slot("", "exp_avg_var"), Some(array![7.0].into_dyn()));
    }

    #[test]
    fn nan_is_not_hidden() {
        let (mut opt, mut w) = (AdaBelief::new(0.5).eps(0.0), array![1.0]);
        opt.step(&mut w, &array![f64::NAN]).unwrap();
        assert!(w[0].is_nan());
    }
}
