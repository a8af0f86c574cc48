//! MADGRAD.

use crate::hyper_parameters;
use crate::params::Scalar;
use crate::rule::{At, Elementwise, Lanes, Rule};
use crate::schedule::Hyper;

/// MADGRAD: dual averaging from the first parameters, divided by the cube root of a sum of squares, with momentum.
///
/// # Update rule
/// ```text
/// g ← ∇J(θ) + λθ
/// l ← (η + ε)·√t
/// s ← s + lg
/// v ← v + lg²
/// z ← θ₀ − s/(∛v + ε)
/// θ ← (1 − μ)z + μθ
/// ```
/// t is the number of steps in which the tensor had a gradient, starting at 1. s and v start from 0, and θ₀ is the parameter before the first step.
///
/// # Hyper-parameters
/// Each is set by the method of its name and takes a number, a [schedule](crate::schedule) or a closure.
///
/// | name | default | range | meaning |
/// |---|---|---|---|
/// | `learning_rate` η | – | η ≥ 0 | weight of a gradient; 1e-2 is usual |
/// | `momentum` μ | 0.9 | 0 ≤ μ < 1 | fraction of the way to z that is left after a step |
/// | `eps` ε | 1e-6 | ε ≥ 0 | keeps the division finite |
/// | `weight_decay` λ | 0 | λ ≥ 0 | strength of the L2 penalty |
///
/// With ε = 0, z is θ₀ while v is 0.
///
/// # State
/// `s`, `grad_sum_sq` v and `x0` θ₀, each of the parameter's shape: three elements per parameter (12 bytes in f32). In a
/// [precision](crate::rule::StatePrecision) of fewer bits, θ₀ has that precision, too, and the parameters with it.
///
/// # Conventions
/// The authors' code, timm's `MADGRAD` and optax's `contrib.madgrad`. With a learning rate of 0 parameters move, too, towards z.
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
/// let mut opt = Madgrad::new(0.125).momentum(0.5).eps(0.0);
/// let mut w = array![1.0];
/// opt.step(&mut w, &array![1.0])?; // s = v = 1/8: half of the way to 1 − 1/4
/// assert!((w[0] - 0.875_f64).abs() < 1e-15);
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// # References
/// A. Defazio and S. Jelassi, *Adaptivity without Compromise: A Momentumized, Adaptive, Dual Averaged Gradient Method for Stochastic Optimization* (2021),
/// [arXiv:2101.11075](https://arxiv.org/abs/2101.11075), algorithm 1.
#[doc(alias = "MADGRAD")]
pub type Madgrad<A = f32> = Elementwise<MadgradRule, A>;

hyper_parameters! {
    /// The rule of [`Madgrad`].
    pub struct MadgradRule => MadgradValues for Elementwise {
        /// The fraction μ of the way to z that is left after a step, 0 ≤ μ < 1.
        momentum / set_momentum: 0.9, 0.0..1.0;
        /// The ε ≥ 0 that is added to the learning rate and to the cube root.
        eps / set_eps: 1e-6, 0.0..;
    }
}

impl<A: Scalar> Madgrad<A> {
    /// MADGRAD with the authors' defaults: μ 0.9, ε 1e-6, no weight decay.
    pub fn new(learning_rate: impl Into<Hyper>) -> Self {
        Self::from_rule(MadgradRule::default(), learning_rate)
    }
}

impl<A: Scalar> Rule<A> for MadgradRule {
    /// l, ε, 1 − μ, and whether it is the first step: 1 or 0.
    type Coefficients = [A; 4];

    fn name(&self) -> &'static str {
        "madgrad"
    }

    fn slots(&self) -> &'static [&'static str] {
        &["s", "grad_sum_sq", "x0"]
    }

    fn non_negative(&self) -> &'static [&'static str] {
        &["grad_sum_sq"]
    }

    fn coefficients(&self, values: &MadgradValues, at: &At) -> (f64, [A; 4]) {
        let weight = (at.learning_rate + values.eps) * (at.step as f64).sqrt();
        let first = if at.step == 1 { 1.0 } else { 0.0 };
        (1.0, [weight, values.eps, 1.0 - values.momentum, first].map(A::from_f64))
    }

    fn sweep(&self, c: [A; 4], lanes: Lanes<'_, A>) {
        lanes.each(c, |&[weight, eps, rest, first], param, grad, [s, v, start]: [A; 3]| {
            let start = if first > A::zero() { param } else { start };
            let weighted = weight * grad;
            let (s, v) = (s + weighted, v + weighted * grad);
            let divisor = v.cube_root() + eps;
            let away = if divisor == A::zero() { divisor } else { s / divisor };
            (rest * (param - start + away), [s, v, start])
        });
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use crate::prelude::*;

    #[test]
    fn first_steps_by_hand() {
        let mut opt = Madgrad::new(0.125).momentum(0.5).eps(0.0);
        let mut w = array![2.0, 1.0];
        opt.step(&mut w, &array![1.0, 0.0]).unwrap(); // s = v = 1/8, z = 2 − (1/8)/(1/2)
        assert!((w[0] - 1.875_f64).abs() < 1e-15 && w[1] == 1.0);
        opt.step(&mut w, &array![0.0, 0.0]).unwrap(); // half of the way to the same z
        assert!((w[0] - 1.8125).abs() < 1e-15 && w[1] == 1.0);
        assert_eq!(opt.slot("", "x0"), Some(array![2.0, 1.0].into_dyn()));
        assert_eq!(opt.slot("", "s"), Some(array![0.125, 0.0].into_dyn()));
    }

    #[test]
    fn nan_is_not_hidden() {
        let (mut opt, mut w) = (Madgrad::new(0.5).eps(0.0), array![1.0]);
        (0..2).for_each(|_| _ = opt.step(&mut w, &array![f64::NAN]).unwrap());
        assert!(w[0].is_nan());
    }
}
