//! Adan.

use crate::hyper_parameters;
use crate::params::Scalar;
use crate::rule::{At, Decay, Elementwise, Lanes, Rule};
use crate::schedule::Hyper;

/// Adan: Adam with Nesterov momentum, which it estimates from the differences of successive gradients.
///
/// # Update rule
/// ```text
/// δ ← ∇J(θ) − g                              in the first step δ ← 0
/// m ← β₁m + (1 − β₁)∇J(θ)
/// d ← β₂d + (1 − β₂)δ
/// v ← β₃v + (1 − β₃)(∇J(θ) + β₂δ)²
/// u ← (m/(1 − β₁ᵗ) + β₂d/(1 − β₂ᵗ))/(√(v/(1 − β₃ᵗ)) + ε)
/// θ ← (θ − ηu)/(1 + ηλ)                      θ ← θ(1 − ηλ) − ηu if `proximal` is false
/// g ← ∇J(θ)
/// ```
/// ∇J(θ) is the gradient before the decay. t is the number of steps in which the tensor had a gradient, starting at 1. m, d and v start from 0.
///
/// # Hyper-parameters
/// Each is set by the method of its name and takes a number, a [schedule](crate::schedule) or a closure.
///
/// | name | default | range | meaning |
/// |---|---|---|---|
/// | `learning_rate` η | – | η ≥ 0 | length of the step, in units of the parameter; 1e-3 is usual |
/// | `beta1` β₁ | 0.98 | 0 ≤ β₁ < 1 | fraction of the average gradient kept per step |
/// | `beta2` β₂ | 0.92 | 0 ≤ β₂ < 1 | fraction of the average difference kept per step, and the weight of differences |
/// | `beta3` β₃ | 0.99 | 0 ≤ β₃ < 1 | fraction of the second moment kept per step |
/// | `eps` ε | 1e-8 | ε ≥ 0 | keeps the division finite, unit of the gradient |
/// | `weight_decay` λ | 0 | λ ≥ 0 | decay per step and unit of learning rate, decoupled |
/// | `proximal` | true | – | the form of the decay; see above |
///
/// With ε = 0, an element does not move while its v is 0. A schedule may change the βs; the corrections use the values of the current step.
///
/// # State
/// `exp_avg` m, `exp_avg_diff` d, `exp_avg_sq` v and `pre_grad` g, each of the parameter's shape: four elements per parameter (16 bytes in f32).
///
/// # Conventions
/// The authors' code, and timm's `Adan`; `.proximal(false)` is their `no_prox=True`. In optax's `adan` the weight of differences is 1 − β₂. In the paper, β is 1 minus this β.
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
/// let mut opt = Adan::new(0.1);
/// let mut w = array![1.0, 1.0];
/// opt.step(&mut w, &array![0.001, -1000.0])?; // the first step has length η for any gradient
/// assert!((w[0] - 0.9_f64).abs() < 1e-5 && (w[1] - 1.1).abs() < 1e-5);
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// # References
/// X. Xie et al., *Adan: Adaptive Nesterov Momentum Algorithm for Faster Optimizing Deep Models* (2022),
/// [arXiv:2208.06677](https://arxiv.org/abs/2208.06677), algorithm 1.
pub type Adan<A = f32> = Elementwise<AdanRule, A>;

hyper_parameters! {
    /// The rule of [`Adan`].
    pub struct AdanRule => AdanValues for Elementwise {
        /// The decay β₁ of the average gradient, 0 ≤ β₁ < 1.
        beta1 / set_beta1: 0.98, 0.0..1.0;
        /// The decay β₂ of the average difference, and the weight of differences, 0 ≤ β₂ < 1.
        beta2 / set_beta2: 0.92, 0.0..1.0;
        /// The decay β₃ of the second moment, 0 ≤ β₃ < 1.
        beta3 / set_beta3: 0.99, 0.0..1.0;
        /// The ε ≥ 0 that is added to the root of the second moment.
        eps / set_eps: 1e-8, 0.0..;
    }
    options {
        /// Divides the moved parameter by 1 + ηλ, which is the default. With `false` the parameter is multiplied by 1 − ηλ before the move, as in AdamW.
        #[doc(alias = "no_prox")]
        proximal: bool = true;
    }
}

impl<A: Scalar> Adan<A> {
    /// Adan with the authors' defaults: β₁ 0.98, β₂ 0.92, β₃ 0.99, ε 1e-8, no weight decay.
    pub fn new(learning_rate: impl Into<Hyper>) -> Self {
        Self::from_rule(AdanRule::default(), learning_rate)
    }
}

impl<A: Scalar> Rule<A> for AdanRule {
    /// β and 1 − β of the three averages, 1/(1 − β₁ᵗ), β₂/(1 − β₂ᵗ), ε, 1/√(1 − β₃ᵗ), whether there is an earlier gradient (0 or 1), and λ.
    type Coefficients = [A; 12];

    fn name(&self) -> &'static str {
        "adan"
    }

    fn slots(&self) -> &'static [&'static str] {
        &["exp_avg", "exp_avg_diff", "exp_avg_sq", "pre_grad"]
    }

    fn non_negative(&self) -> &'static [&'static str] {
        &["exp_avg_sq"]
    }

    fn decay(&self) -> Decay {
        if self.proximal { Decay::Own } else { Decay::Decoupled }
    }

    fn coefficients(&self, &AdanValues { beta1, beta2, beta3, eps }: &AdanValues, at: &At) -> (f64, [A; 12]) {
        let [r1, r2, r3] = [beta1, beta2, beta3].map(|beta| 1.0 - beta);
        let (first, second) = (1.0 / at.bias_correction(beta1), beta2 / at.bias_correction(beta2));
        let third = 1.0 / at.bias_correction(beta3).sqrt();
        let later = if at.step == 1 { 0.0 } else { 1.0 };
        // (θ − ηu)/(1 + ηλ) is θ − η/(1 + ηλ)·(u + λθ).
        let decay = if self.proximal { at.weight_decay } else { 0.0 };
        let coefficients = [beta1, r1, beta2, r2, beta3, r3, first, second, eps, third, later, decay];
        (at.learning_rate / (1.0 + at.learning_rate * decay), coefficients.map(A::from_f64))
    }

    fn sweep(&self, c: [A; 12], lanes: Lanes<'_, A>) {
        lanes.each(
            c,
            |&[b1, r1, b2, r2, b3, r3, first, second, eps, third, later, decay],
             param,
             grad,
             [m, d, v, before]: [A; 4]| {
                let difference = later * (grad - before);
                let (m, d) = (b1 * m + r1 * grad, b2 * d + r2 * difference);
                let ahead = grad + b2 * difference;
                let v = b3 * v + r3 * (ahead * ahead);
                let divisor = v.sqrt() * third + eps;
                let momentum = m * first + d * second;
                let step = if divisor == A::zero() { divisor } else { momentum / divisor };
                (step + decay * param, [m, d, v, grad])
            },
        );
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use crate::prelude::*;

    #[test]
    fn first_steps_by_hand() {
        let mut opt = Adan::new(0.5).beta1(0.5).beta2(0.5).beta3(0.75).eps(0.0).weight_decay(0.5).proximal(false);
        let mut w = array![4.0, 0.0];
        opt.step(&mut w, &array![8.0, 0.0]).unwrap(); // m = 4, d = 0, v = 16: 8/8; 4 decays to 3
        assert_eq!(w, array![2.5, 0.0]);
        opt.step(&mut w, &array![4.0, 0.0]).unwrap(); // δ = −4, m = 4, d = −2, v = 12 + 2²/4; 2.5 decays to 1.875
        assert_eq!(opt.slot("", "exp_avg_diff"), Some(array![-2.0, 0.0].into_dyn()));
        assert_eq!(opt.slot("", "exp_avg_sq"), Some(array![13.0, 0.0].into_dyn()));
        let direction = (4.0 - 0.5 * 2.0) / 0.75 / (13.0 / 0.4375_f64).sqrt();
        assert!((w[0] - (1.875 - 0.5 * direction)).abs() < 1e-14);
    }

    #[test]
    fn proximal_decay_by_hand() {
        let mut opt = Adan::new(0.5).beta1(0.5).beta2(0.5).beta3(0.75).eps(0.0).weight_decay(0.5);
        let mut w = array![4.0, 10.0];
        opt.step(&mut w, &array![8.0, 0.0]).unwrap(); // u = 1
        assert_eq!(w, array![3.5 / 1.25, 8.0]);
    }

    #[test]
    fn nan_is_not_hidden() {
        let (mut opt, mut w) = (Adan::new(0.5).eps(0.0), array![1.0]);
        (0..2).for_each(|_| _ = opt.step(&mut w, &array![f64::NAN]).unwrap());
        assert!(w[0].is_nan());
    }
}
