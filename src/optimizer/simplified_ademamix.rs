//! Simplified AdEMAMix.

use crate::hyper_parameters;
use crate::params::Scalar;
use crate::rule::{At, Decay, Elementwise, Lanes, Rule};
use crate::schedule::Hyper;

/// Simplified AdEMAMix: AdamW with a long sum of gradients and an extra weight for the current one, instead of the two averages of
/// [`AdEMAMix`](crate::AdEMAMix).
///
/// # Update rule
/// ```text
/// θ ← θ(1 − ηλ)
/// m ← β₁m + ∇J(θ)
/// v ← β₂v + (1 − β₂)∇J(θ)²
/// v̂ ← v/(1 − β₂ᵗ)
/// θ ← θ − η·(m + α∇J(θ))/(√v̂ + ε)
/// ```
/// ∇J(θ) is the gradient before the decay. t is the number of steps in which the tensor had a gradient, starting at 1. m and v start from 0. m is a sum and not
/// an average: if gradients do not change, it grows to 1/(1 − β₁) times the gradient.
///
/// # Hyper-parameters
/// Each is set by the method of its name and takes a number, a [schedule](crate::schedule) or a closure.
///
/// | name | default | range | meaning |
/// |---|---|---|---|
/// | `learning_rate` η | – | η ≥ 0 | length of the step, in units of the parameter; 1 − β₁ times that of AdamW is a start |
/// | `beta1` β₁ | 0.99 | 0 ≤ β₁ < 1 | fraction of the sum kept per step |
/// | `beta2` β₂ | 0.95 | 0 ≤ β₂ < 1 | fraction of the second moment kept per step |
/// | `alpha` α | 0 | α ≥ 0 | additional weight of the current gradient |
/// | `eps` ε | 1e-8 | ε ≥ 0 | keeps the division finite, unit of the gradient |
/// | `weight_decay` λ | 0 | λ ≥ 0 | decay per step and unit of learning rate, decoupled |
///
/// With ε = 0, an element does not move while its v is 0. With α = 0 it is AdamW without bias correction of the first moment, and with a learning rate of η/(1 − β₁).
///
/// # State
/// `momentum_buffer` m and `exp_avg_sq` v, each of the parameter's shape: two elements per parameter (8 bytes in f32).
///
/// # Conventions
/// optax's `contrib.simplified_ademamix`, with its defaults and without its `eps_root`.
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
/// let mut opt = SimplifiedAdEMAMix::new(0.1).alpha(2.0);
/// let mut w = array![1.0, 1.0];
/// opt.step(&mut w, &array![0.001, -1000.0])?; // m + αg is three times the gradient
/// assert!((w[0] - 0.7_f64).abs() < 1e-5 && (w[1] - 1.3).abs() < 1e-5);
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// # References
/// D. Morwani et al., *Connections between Schedule-Free Optimizers, AdEMAMix, and Accelerated SGD Variants* (2025),
/// [arXiv:2502.02431](https://arxiv.org/abs/2502.02431).
pub type SimplifiedAdEMAMix<A = f32> = Elementwise<SimplifiedAdEMAMixRule, A>;

hyper_parameters! {
    /// The rule of [`SimplifiedAdEMAMix`].
    pub struct SimplifiedAdEMAMixRule => SimplifiedAdEMAMixValues for Elementwise {
        /// The fraction β₁ of the sum of gradients that is kept per step, 0 ≤ β₁ < 1.
        beta1 / set_beta1: 0.99, 0.0..1.0;
        /// The decay β₂ of the second moment, 0 ≤ β₂ < 1.
        beta2 / set_beta2: 0.95, 0.0..1.0;
        /// The additional weight α ≥ 0 of the current gradient.
        alpha / set_alpha: 0.0, 0.0..;
        /// The ε ≥ 0 that is added to the root of the second moment.
        eps / set_eps: 1e-8, 0.0..;
    }
}

impl<A: Scalar> SimplifiedAdEMAMix<A> {
    /// Simplified AdEMAMix with optax's defaults: β₁ 0.99, β₂ 0.95, α 0, ε 1e-8, no weight decay.
    pub fn new(learning_rate: impl Into<Hyper>) -> Self {
        Self::from_rule(SimplifiedAdEMAMixRule::default(), learning_rate)
    }
}

impl<A: Scalar> Rule<A> for SimplifiedAdEMAMixRule {
    /// β₁, β₂, 1 − β₂, α, ε and 1/√(1 − β₂ᵗ).
    type Coefficients = [A; 6];

    fn name(&self) -> &'static str {
        "simplifiedademamix"
    }

    fn slots(&self) -> &'static [&'static str] {
        &["momentum_buffer", "exp_avg_sq"]
    }

    fn non_negative(&self) -> &'static [&'static str] {
        &["exp_avg_sq"]
    }

    fn decay(&self) -> Decay {
        Decay::Decoupled
    }

    fn coefficients(&self, values: &SimplifiedAdEMAMixValues, at: &At) -> (f64, [A; 6]) {
        let &SimplifiedAdEMAMixValues { beta1, beta2, alpha, eps } = values;
        let second = 1.0 / at.bias_correction(beta2).sqrt();
        (at.learning_rate, [beta1, beta2, 1.0 - beta2, alpha, eps, second].map(A::from_f64))
    }

    fn sweep(&self, c: [A; 6], lanes: Lanes<'_, A>) {
        lanes.each(c, |&[b1, b2, r2, alpha, eps, second], _, grad, [m, v]: [A; 2]| {
            let m = b1 * m + grad;
            let v = b2 * v + r2 * (grad * grad);
            let divisor = v.sqrt() * second + eps;
            (if divisor == A::zero() { divisor } else { (m + alpha * grad) / divisor }, [m, v])
        });
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use crate::prelude::*;

    #[test]
    fn first_steps_by_hand() {
        let mut opt = SimplifiedAdEMAMix::new(0.5).beta1(0.5).beta2(0.75).alpha(2.0).eps(0.0).weight_decay(0.5);
        let mut w = array![4.0, 0.0];
        opt.step(&mut w, &array![8.0, 0.0]).unwrap(); // m = 8, √v̂ = 8; 4 decays to 3
        assert_eq!(w, array![3.0 - 0.5 * 3.0, 0.0]);
        opt.step(&mut w, &array![-2.0, 0.0]).unwrap(); // m = 2, v = 13
        let direction = (2.0 - 4.0) / (13.0 / 0.4375_f64).sqrt();
        assert!((w[0] - (1.5 * 0.75 - 0.5 * direction)).abs() < 1e-14);
        assert_eq!(opt.slot("", "momentum_buffer"), Some(array![2.0, 0.0].into_dyn()));
    }

    /// With α = 0, apart from the correction of the first moment.
    #[test]
    fn it_is_adam_with_another_learning_rate() {
        let (mut opt, mut adam) =
            (SimplifiedAdEMAMix::new(0.01).beta1(0.75).beta2(0.5), Adam::new(0.04).beta1(0.75).beta2(0.5));
        let (mut w, mut expected) = (array![1.0], array![1.0]);
        for step in 0..200 {
            let (before, other) = (w[0], expected[0]);
            let grads = array![1.0 + f64::from(step % 3)];
            opt.step(&mut w, &grads).unwrap();
            adam.step(&mut expected, &grads).unwrap();
            let (moved, adams): (f64, f64) = (w[0] - before, expected[0] - other);
            assert!(step < 150 || (moved / adams - 1.0).abs() < 1e-12, "{moved} {adams}");
        }
    }

    #[test]
    fn nan_is_not_hidden() {
        let (mut opt, mut w) = (SimplifiedAdEMAMix::new(0.5).eps(0.0), array![1.0]);
        opt.step(&mut w, &array![f64::NAN]).unwrap();
        assert!(w[0].is_nan());
    }
}
