//! AdEMAMix.

use crate::hyper_parameters;
use crate::params::Scalar;
use crate::rule::{At, Decay, Elementwise, Lanes, Rule};
use crate::schedule::Hyper;

/// AdEMAMix: AdamW with a second, very slow average of gradients beside the first.
///
/// # Update rule
/// ```text
/// θ ← θ(1 − ηλ)
/// m₁ ← β₁m₁ + (1 − β₁)∇J(θ)
/// m₂ ← β₃m₂ + (1 − β₃)∇J(θ)
/// v ← β₂v + (1 − β₂)∇J(θ)²
/// m̂₁ ← m₁/(1 − β₁ᵗ)
/// v̂ ← v/(1 − β₂ᵗ)
/// θ ← θ − η·(m̂₁ + αm₂)/(√v̂ + ε)
/// ```
/// ∇J(θ) is the gradient before the decay. t is the number of steps in which the tensor had a gradient, starting at 1. The averages start from 0; m₂ is not
/// corrected.
///
/// # Hyper-parameters
/// Each is set by the method of its name and takes a number, a [schedule](crate::schedule) or a closure.
///
/// | name | default | range | meaning |
/// |---|---|---|---|
/// | `learning_rate` η | – | η ≥ 0 | length of the step, in units of the parameter; that of AdamW is a start |
/// | `beta1` β₁ | 0.9 | 0 ≤ β₁ < 1 | fraction of the fast average kept per step |
/// | `beta2` β₂ | 0.999 | 0 ≤ β₂ < 1 | fraction of the second moment kept per step |
/// | `beta3` β₃ | 0.9999 | 0 ≤ β₃ < 1 | fraction of the slow average kept per step |
/// | `alpha` α | 5 | α ≥ 0 | weight of the slow average |
/// | `eps` ε | 1e-8 | ε ≥ 0 | keeps the division finite, unit of the gradient |
/// | `weight_decay` λ | 0 | λ ≥ 0 | decay per step and unit of learning rate, decoupled |
///
/// With ε = 0, an element does not move while its v is 0. The paper raises α and β₃ during the first T steps; T is usually the length of the training.
/// The slow average is of use only if the training has many thousands of steps.
/// ```
/// use gradus::prelude::*;
/// use gradus::schedule::{HalfLife, Linear};
///
/// let steps = 100_000;
/// let opt: AdEMAMix = AdEMAMix::new(1e-3).alpha(Linear::new(0.0, 5.0, steps)).beta3(HalfLife::new(0.9, 0.9999, steps));
/// ```
///
/// # State
/// `exp_avg` m₁, `exp_avg_slow` m₂ and `exp_avg_sq` v, each of the parameter's shape: three elements per parameter (12 bytes in f32).
///
/// # Conventions
/// The paper's algorithm 1, and optax's `contrib.ademamix`. optax adds the decay to the direction, which is rounded differently.
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
/// let mut opt = AdEMAMix::new(0.1).beta3(0.5).alpha(2.0);
/// let mut w = array![1.0, 1.0];
/// opt.step(&mut w, &array![0.001, -1000.0])?; // m̂₁ + αm₂ is twice the gradient
/// assert!((w[0] - 0.8_f64).abs() < 1e-5 && (w[1] - 1.2).abs() < 1e-5);
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// # References
/// M. Pagliardini, P. Ablin and D. Grangier, *The AdEMAMix Optimizer: Better, Faster, Older* (2024),
/// [arXiv:2409.03137](https://arxiv.org/abs/2409.03137), algorithm 1.
pub type AdEMAMix<A = f32> = Elementwise<AdEMAMixRule, A>;

hyper_parameters! {
    /// The rule of [`AdEMAMix`].
    pub struct AdEMAMixRule => AdEMAMixValues for Elementwise {
        /// The decay β₁ of the fast average, 0 ≤ β₁ < 1.
        beta1 / set_beta1: 0.9, 0.0..1.0;
        /// The decay β₂ of the second moment, 0 ≤ β₂ < 1.
        beta2 / set_beta2: 0.999, 0.0..1.0;
        /// The decay β₃ of the slow average, 0 ≤ β₃ < 1.
        beta3 / set_beta3: 0.9999, 0.0..1.0;
        /// The weight α ≥ 0 of the slow average.
        alpha / set_alpha: 5.0, 0.0..;
        /// The ε ≥ 0 that is added to the root of the second moment.
        eps / set_eps: 1e-8, 0.0..;
    }
}

impl<A: Scalar> AdEMAMix<A> {
    /// AdEMAMix with the paper's defaults: β₁ 0.9, β₂ 0.999, β₃ 0.9999, α 5, ε 1e-8, no weight decay.
    pub fn new(learning_rate: impl Into<Hyper>) -> Self {
        Self::from_rule(AdEMAMixRule::default(), learning_rate)
    }
}

impl<A: Scalar> Rule<A> for AdEMAMixRule {
    /// β and 1 − β of the three averages, 1/(1 − β₁ᵗ), α, ε and 1/√(1 − β₂ᵗ).
    type Coefficients = [A; 10];

    fn name(&self) -> &'static str {
        "ademamix"
    }

    fn slots(&self) -> &'static [&'static str] {
        &["exp_avg", "exp_avg_slow", "exp_avg_sq"]
    }

    fn non_negative(&self) -> &'static [&'static str] {
        &["exp_avg_sq"]
    }

    fn decay(&self) -> Decay {
        Decay::Decoupled
    }

    fn coefficients(&self, values: &AdEMAMixValues, at: &At) -> (f64, [A; 10]) {
        let &AdEMAMixValues { beta1, beta2, beta3, alpha, eps } = values;
        let (first, second) = (1.0 / at.bias_correction(beta1), 1.0 / at.bias_correction(beta2).sqrt());
        let [r1, r2, r3] = [beta1, beta2, beta3].map(|beta| 1.0 - beta);
        (at.learning_rate, [beta1, r1, beta2, r2, beta3, r3, first, alpha, eps, second].map(A::from_f64))
    }

    fn sweep(&self, c: [A; 10], lanes: Lanes<'_, A>) {
        lanes.each(c, |&[b1, r1, b2, r2, b3, r3, first, alpha, eps, second], _, grad, [fast, slow, v]: [A; 3]| {
            let (fast, slow) = (b1 * fast + r1 * grad, b3 * slow + r3 * grad);
            let v = b2 * v + r2 * (grad * grad);
            let divisor = v.sqrt() * second + eps;
            let mixed = fast * first + alpha * slow;
            (if divisor == A::zero() { divisor } else { mixed / divisor }, [fast, slow, v])
        });
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use crate::prelude::*;

    #[test]
    fn first_steps_by_hand() {
        let mut opt = AdEMAMix::new(0.5).beta1(0.5).beta2(0.75).beta3(0.75).alpha(2.0).eps(0.0).weight_decay(0.5);
        let mut w = array![4.0, 0.0];
        opt.step(&mut w, &array![8.0, 0.0]).unwrap(); // m̂₁ = 8, m₂ = 2, √v̂ = 8; 4 decays to 3
        assert_eq!(w, array![3.0 - 0.5 * 1.5, 0.0]);
        opt.step(&mut w, &array![0.0, 0.0]).unwrap(); // m̂₁ = 2/0.75, m₂ = 1.5, v̂ = 12/0.4375
        let direction = (2.0 / 0.75 + 3.0) / (12.0 / 0.4375_f64).sqrt();
        assert!((w[0] - (2.25 * 0.75 - 0.5 * direction)).abs() < 1e-14);
        assert_eq!(opt.slot("", "exp_avg_slow"), Some(array![1.5, 0.0].into_dyn()));
    }

    #[test]
    fn nan_is_not_hidden() {
        let (mut opt, mut w) = (AdEMAMix::new(0.5).eps(0.0), array![1.0]);
        (0..2).for_each(|_| _ = opt.step(&mut w, &array![f64::NAN]).unwrap());
        assert!(w[0].is_nan());
    }
}
