//! Yogi.

use crate::hyper_parameters;
use crate::optimizer::lion::sign;
use crate::params::Scalar;
use crate::rule::{At, Decay, Elementwise, Lanes, Rule};
use crate::schedule::Hyper;

/// Yogi: Adam whose second moment changes by at most a fraction of the squared gradient per step, so that it does not fall quickly.
///
/// # Update rule
/// ```text
/// θ ← θ(1 − ηλ)
/// m ← β₁m + (1 − β₁)∇J(θ)
/// v ← v − (1 − β₂)·sign(v − ∇J(θ)²)·∇J(θ)²
/// m̂ ← m/(1 − β₁ᵗ)
/// v̂ ← v/(1 − β₂ᵗ)
/// θ ← θ − η·m̂/(√v̂ + ε)
/// ```
/// ∇J(θ) is the gradient before the decay. t is the number of steps in which the tensor had a gradient, starting at 1. m and v start from
/// `initial_accumulator_value`.
///
/// # Hyper-parameters
/// Each is set by the method of its name and takes a number, a [schedule](crate::schedule) or a closure.
///
/// | name | default | range | meaning |
/// |---|---|---|---|
/// | `learning_rate` η | – | η ≥ 0 | length of the step, in units of the parameter; 1e-2 is usual |
/// | `beta1` β₁ | 0.9 | 0 ≤ β₁ < 1 | fraction of the first moment kept per step |
/// | `beta2` β₂ | 0.999 | 0 ≤ β₂ < 1 | 1 − β₂ is the change of v per step, as a fraction of the squared gradient |
/// | `eps` ε | 1e-3 | ε ≥ 0 | keeps the division finite, unit of the gradient |
/// | `initial_accumulator_value` | 1e-6 | ≥ 0 | m and v before the first step |
/// | `weight_decay` λ | 0 | λ ≥ 0 | decay per step and unit of learning rate, decoupled |
///
/// With ε = 0, an element does not move while its v is 0. A schedule may change β₁ and β₂; the corrections use the values of the current step.
///
/// # State
/// `exp_avg` m and `exp_avg_sq` v, each of the parameter's shape: two elements per parameter (8 bytes in f32).
///
/// # Conventions
/// optax's `yogi`, which has no weight decay. In it and here both moments start from 1e-6, so a parameter moves a little even if its gradient is 0; in the
/// paper m starts from 0, and v from the square of a first gradient.
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
/// let mut opt = Yogi::new(0.1).initial_accumulator_value(0.0);
/// let mut w = array![1.0, 1.0];
/// opt.step(&mut w, &array![10.0, -1000.0])?; // the first step has length η for any large gradient
/// assert!((w[0] - 0.9_f64).abs() < 1e-4 && (w[1] - 1.1).abs() < 1e-4);
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// # References
/// M. Zaheer et al., *Adaptive Methods for Nonconvex Optimization* (2018), NeurIPS 31, algorithm 2.
pub type Yogi<A = f32> = Elementwise<YogiRule, A>;

hyper_parameters! {
    /// The rule of [`Yogi`].
    pub struct YogiRule => YogiValues for Elementwise {
        /// The decay β₁ of the first moment, 0 ≤ β₁ < 1.
        beta1 / set_beta1: 0.9, 0.0..1.0;
        /// The β₂ of the second moment, which changes by 1 − β₂ of the squared gradient, 0 ≤ β₂ < 1.
        beta2 / set_beta2: 0.999, 0.0..1.0;
        /// The ε ≥ 0 that is added to the root of the second moment.
        eps / set_eps: 1e-3, 0.0..;
        /// The value ≥ 0 of both moments before the first step.
        initial_accumulator_value / set_initial_accumulator_value: 1e-6, 0.0..;
    }
}

impl<A: Scalar> Yogi<A> {
    /// Yogi with optax's defaults: β₁ 0.9, β₂ 0.999, ε 1e-3, moments that start from 1e-6, no weight decay.
    pub fn new(learning_rate: impl Into<Hyper>) -> Self {
        Self::from_rule(YogiRule::default(), learning_rate)
    }
}

impl<A: Scalar> Rule<A> for YogiRule {
    /// β₁, 1 − β₁, 1 − β₂, ε, 1/√(1 − β₂ᵗ), and in the first step the moments' first value, in the others 0.
    type Coefficients = [A; 6];

    fn name(&self) -> &'static str {
        "yogi"
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

    fn coefficients(&self, values: &YogiValues, at: &At) -> (f64, [A; 6]) {
        let &YogiValues { beta1, beta2, eps, initial_accumulator_value } = values;
        let start = if at.step == 1 { initial_accumulator_value } else { 0.0 };
        let correction = 1.0 / at.bias_correction(beta2).sqrt();
        let coefficients = [beta1, 1.0 - beta1, 1.0 - beta2, eps, correction, start].map(A::from_f64);
        (at.learning_rate / at.bias_correction(beta1), coefficients)
    }

    fn sweep(&self, c: [A; 6], lanes: Lanes<'_, A>) {
        lanes.each(c, |&[b1, r1, r2, eps, correction, start], _, grad, [m, v]: [A; 2]| {
            let m = b1 * (m + start) + r1 * grad;
            let (v, square) = (v + start, grad * grad);
            let v = v - r2 * sign(v - square) * square;
            let divisor = v.sqrt() * correction + eps;
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
        let mut opt = Yogi::new(0.5).beta1(0.5).beta2(0.75).eps(0.0).initial_accumulator_value(0.0).weight_decay(0.5);
        let mut w = array![4.0, 0.0];
        opt.step(&mut w, &array![8.0, 0.0]).unwrap(); // m = 4, v = 64/4; m̂ = 8, √v̂ = 8; 4 decays to 3
        assert_eq!(w, array![2.5, 0.0]);
        opt.step(&mut w, &array![-2.0, 0.0]).unwrap(); // m = 1, v = 16 − 4/4; 2.5 decays to 1.875
        assert_eq!(opt.slot("", "exp_avg_sq"), Some(array![15.0, 0.0].into_dyn()));
        assert!((w[0] - (1.875 - 0.5 * (1.0 / 0.75) / (15.0 / 0.4375_f64).sqrt())).abs() < 1e-14);
    }

    #[test]
    fn both_moments_start_from_a_value() {
        let (mut opt, mut w) =
            (Yogi::new(0.5).beta1(0.5).beta2(0.75).eps(0.0).initial_accumulator_value(4.0), array![1.0]);
        opt.step(&mut w, &array![2.0]).unwrap(); // v is g², and stays
        assert_eq!(opt.slot("", "exp_avg"), Some(array![3.0].into_dyn()));
        assert_eq!(opt.slot("", "exp_avg_sq"), Some(array![4.0].into_dyn()));
        opt.step(&mut w, &array![0.0]).unwrap();
        assert_eq!(opt.slot("", "exp_avg"), Some(array![1.5].into_dyn()));
    }

    #[test]
    fn nan_is_not_hidden() {
        let (mut opt, mut w) = (Yogi::new(0.5).eps(0.0), array![1.0]);
        (0..2).for_each(|_| _ = opt.step(&mut w, &array![f64::NAN]).unwrap());
        assert!(w[0].is_nan());
    }
}
