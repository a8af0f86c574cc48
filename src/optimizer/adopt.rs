//! ADOPT.

use std::ops::Bound;

use crate::hyper_parameters;
use crate::params::Scalar;
use crate::rule::{At, Decay, Elementwise, Lanes, Rule, real_power};
use crate::schedule::Hyper;

/// ADOPT: Adam that divides a gradient by the second moment of the gradients before it, so that it converges with any β₂.
///
/// # Update rule
/// ```text
/// θ ← θ(1 − ηλ)
/// u ← clamp(∇J(θ)/max(√v, ε), −c, c),  c = (t − 1)^κ
/// m ← β₁m + (1 − β₁)u
/// θ ← θ − ηm
/// v ← β₂v + (1 − β₂)∇J(θ)²                   in the first step v ← ∇J(θ)²
/// ```
/// ∇J(θ) is the gradient before the decay. t is the number of steps in which the tensor had a gradient, starting at 1. m starts from 0. In the first step c is
/// 0: it only sets v, and decays.
///
/// # Hyper-parameters
/// Each is set by the method of its name and takes a number, a [schedule](crate::schedule) or a closure.
///
/// | name | default | range | meaning |
/// |---|---|---|---|
/// | `learning_rate` η | – | η ≥ 0 | length of the step, in units of the parameter; 1e-3 is usual |
/// | `beta1` β₁ | 0.9 | 0 ≤ β₁ < 1 | fraction of the average kept per step |
/// | `beta2` β₂ | 0.9999 | 0 ≤ β₂ < 1 | fraction of the second moment kept per step |
/// | `eps` ε | 1e-6 | ε > 0 | smallest divisor, unit of the gradient |
/// | `clip_exponent` κ | 0.25 | κ > 0 | exponent of the limit of u |
/// | `weight_decay` λ | 0 | λ ≥ 0 | decay per step and unit of learning rate, decoupled |
///
/// # State
/// `exp_avg` m and `exp_avg_sq` v, each of the parameter's shape: two elements per parameter (8 bytes in f32).
///
/// # Conventions
/// optax's `contrib.adopt`, and the authors' code with `decouple=True`, which does not decay in the first step. timm's κ is 0.333. Without a limit, as in the
/// paper's first version, the moments can be very large; a κ of 100 has that effect from the third step on.
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
/// let mut opt = Adopt::new(0.1).beta1(0.5);
/// let mut w = array![1.0, 1.0];
/// opt.step(&mut w, &array![2.0, -500.0])?;
/// assert_eq!(w, array![1.0, 1.0]); // the first gradient sets v
/// opt.step(&mut w, &array![1.0, -500.0])?; // divided by 2 and by 500
/// assert!((w[0] - 0.975_f64).abs() < 1e-12 && (w[1] - 1.05).abs() < 1e-12);
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// # References
/// S. Taniguchi et al., *ADOPT: Modified Adam Can Converge with Any β₂ with the Optimal Rate* (2024),
/// [arXiv:2411.02853](https://arxiv.org/abs/2411.02853), algorithm 2.
#[doc(alias = "ADOPT")]
pub type Adopt<A = f32> = Elementwise<AdoptRule, A>;

hyper_parameters! {
    /// The rule of [`Adopt`].
    pub struct AdoptRule => AdoptValues for Elementwise {
        /// The decay β₁ of the average of divided gradients, 0 ≤ β₁ < 1.
        beta1 / set_beta1: 0.9, 0.0..1.0;
        /// The decay β₂ of the second moment, 0 ≤ β₂ < 1.
        beta2 / set_beta2: 0.9999, 0.0..1.0;
        /// The smallest divisor ε > 0 of a gradient.
        eps / set_eps: 1e-6, (Bound::Excluded(0.0), Bound::Unbounded);
        /// The exponent κ > 0 of the limit (t − 1)^κ of divided gradients.
        clip_exponent / set_clip_exponent: 0.25, (Bound::Excluded(0.0), Bound::Unbounded);
    }
}

impl<A: Scalar> Adopt<A> {
    /// ADOPT with the authors' defaults: β₁ 0.9, β₂ 0.9999, ε 1e-6, κ 0.25, no weight decay.
    pub fn new(learning_rate: impl Into<Hyper>) -> Self {
        Self::from_rule(AdoptRule::default(), learning_rate)
    }
}

impl<A: Scalar> Rule<A> for AdoptRule {
    /// β₁, 1 − β₁, β₂, 1 − β₂, ε and the limit.
    type Coefficients = [A; 6];

    fn name(&self) -> &'static str {
        "adopt"
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

    fn coefficients(&self, &AdoptValues { beta1, beta2, eps, clip_exponent }: &AdoptValues, at: &At) -> (f64, [A; 6]) {
        let (beta2, limit) = match at.step {
            1 => (0.0, 0.0),
            step => (beta2, real_power((step - 1) as f64, clip_exponent)),
        };
        (at.learning_rate, [beta1, 1.0 - beta1, beta2, 1.0 - beta2, eps, limit].map(A::from_f64))
    }

    fn sweep(&self, c: [A; 6], lanes: Lanes<'_, A>) {
        lanes.each(c, |&[b1, r1, b2, r2, eps, limit], _, grad, [m, v]: [A; 2]| {
            let root = v.sqrt();
            // NaN passes both comparisons.
            let u = grad / (if root < eps { eps } else { root });
            let u = if u > limit { limit } else { u };
            let u = if u < -limit { -limit } else { u };
            let m = b1 * m + r1 * u;
            (m, [m, b2 * v + r2 * (grad * grad)])
        });
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use crate::prelude::*;

    #[test]
    fn first_steps_by_hand() {
        let mut opt = Adopt::new(0.5).beta1(0.5).beta2(0.75).clip_exponent(1.0).weight_decay(0.5);
        let mut w = array![4.0, 0.0];
        opt.step(&mut w, &array![8.0, 0.0]).unwrap(); // v = 64; 4 decays to 3
        assert_eq!(w, array![3.0, 0.0]);
        assert_eq!(opt.slot("", "exp_avg_sq"), Some(array![64.0, 0.0].into_dyn()));
        opt.step(&mut w, &array![4.0, 0.0]).unwrap(); // u = 0.5, m = 0.25; 3 decays to 2.25; v = 48 + 4
        assert_eq!(w, array![2.125, 0.0]);
        assert_eq!(opt.slot("", "exp_avg_sq"), Some(array![52.0, 0.0].into_dyn()));
        opt.step(&mut w, &array![-100.0, 0.0]).unwrap(); // u = −2, the limit; m = 0.125 − 1
        assert_eq!(opt.slot("", "exp_avg"), Some(array![-0.875, 0.0].into_dyn()));
    }

    #[test]
    fn the_least_divisor() {
        let (mut opt, mut w) = (Adopt::new(0.5).beta1(0.0).eps(4.0), array![1.0]);
        (0..2).for_each(|_| _ = opt.step(&mut w, &array![2.0]).unwrap());
        assert_eq!(w, array![0.75]);
    }

    #[test]
    fn nan_is_not_hidden() {
        let (mut opt, mut w) = (Adopt::new(0.5), array![1.0]);
        (0..2).for_each(|_| _ = opt.step(&mut w, &array![f64::NAN]).unwrap());
        assert!(w[0].is_nan());
    }
}
