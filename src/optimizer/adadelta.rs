//! Adadelta.

use crate::hyper_parameters;
use crate::params::Scalar;
use crate::rule::{At, Elementwise, Lanes, Rule, SecondMoment};
use crate::schedule::Hyper;

/// Adadelta: each element's gradient divided by its running root mean square, times that of the steps before.
///
/// # Update rule
/// ```text
/// s ← ρs + (1 − ρ)∇J(θ)²
/// δ ← √(a + ε)/√(s + ε)·∇J(θ)
/// a ← ρa + (1 − ρ)δ²
/// θ ← θ − ηδ
/// ```
/// The step has the unit of the parameter, whatever the unit of the gradient is. s and a start from 0, so the first steps are short: their length is
/// about √ε. With weight decay λ the gradient is `∇J(θ) + λθ`, also in s.
///
/// # Hyper-parameters
/// Each is set by the method of its name and takes a number, a [schedule](crate::schedule) or a closure.
///
/// | name | default | range | meaning |
/// |---|---|---|---|
/// | `learning_rate` η | – | η ≥ 0 | factor of the step, without unit; 1 in the paper and PyTorch's default |
/// | `rho` ρ | 0.9 | 0 ≤ ρ ≤ 1 | fraction of the mean squares kept per step |
/// | `eps` ε | 1e-6 | ε ≥ 0 | keeps the division finite and starts the steps; unit of both squares |
/// | `weight_decay` λ | 0 | λ ≥ 0 | strength of the L2 penalty |
///
/// # State
/// `square_avg` s and `acc_delta` a, of the parameter's shape: two elements per parameter (8 bytes in f32).
///
/// # Conventions
/// The default is PyTorch's `Adadelta` and optax's `adadelta`, with `Adadelta::new(1.0)`. Keras' `Adadelta` is
/// `Adadelta::new(1e-3).rho(0.95).eps(1e-7)`; the paper's learning rate is 1.
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
/// let mut opt = Adadelta::new(1.0).rho(0.75).eps(1e-4);
/// let mut w = array![1.0];
/// opt.step(&mut w, &array![1e6])?; // s = ¼·10¹², a = 0: the step is √ε·2
/// assert!((w[0] - 0.98_f64).abs() < 1e-12);
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// # References
/// M. D. Zeiler, *ADADELTA: An Adaptive Learning Rate Method* (2012), [arXiv:1212.5701](https://arxiv.org/abs/1212.5701), algorithm 1.
#[doc(alias = "AdaDelta")]
pub type Adadelta<A = f32> = Elementwise<AdadeltaRule, A>;

hyper_parameters! {
    /// The rule of [`Adadelta`].
    pub struct AdadeltaRule => AdadeltaValues for Elementwise {
        /// The decay ρ of both mean squares, 0 ≤ ρ ≤ 1.
        rho / set_rho: 0.9, 0.0..=1.0;
        /// The ε ≥ 0 that keeps the division finite and starts the steps.
        eps / set_eps: 1e-6, 0.0..;
    }
}

impl<A: Scalar> Adadelta<A> {
    /// Adadelta with PyTorch's defaults: ρ 0.9, ε 1e-6, no weight decay. The learning rate is 1 there.
    pub fn new(learning_rate: impl Into<Hyper>) -> Self {
        Self::from_rule(AdadeltaRule::default(), learning_rate)
    }
}

impl<A: Scalar> Rule<A> for AdadeltaRule {
    /// ρ, 1 − ρ and ε.
    type Coefficients = [A; 3];

    fn name(&self) -> &'static str {
        "adadelta"
    }

    fn slots(&self) -> &'static [&'static str] {
        &["square_avg", "acc_delta"]
    }

    fn non_negative(&self) -> &'static [&'static str] {
        &["square_avg", "acc_delta"]
    }

    fn second_moment(&self, values: &AdadeltaValues, _: &At) -> Option<SecondMoment> {
        // ε is inside the root.
        Some(SecondMoment { slot: 0, scale: 1.0, eps: values.eps.sqrt() })
    }

    fn coefficients(&self, values: &AdadeltaValues, at: &At) -> (f64, [A; 3]) {
        (at.learning_rate, [values.rho, 1.0 - values.rho, values.eps].map(A::from_f64))
    }

    fn sweep(&self, c: [A; 3], lanes: Lanes<'_, A>) {
        lanes.each(c, |&[rho, rest, eps], _, grad, [s, a]: [A; 2]| {
            let s = rho * s + rest * grad * grad;
            let delta = (a + eps).sqrt() / (s + eps).sqrt() * grad;
            (delta, [s, rho * a + rest * delta * delta])
        });
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use crate::prelude::*;

    #[test]
    fn first_steps_by_hand() {
        let mut opt = Adadelta::new(0.5).rho(0.75).eps(4.0);
        let mut w = array![8.0];
        opt.step(&mut w, &array![0.0]).unwrap(); // s = a = 0
        opt.step(&mut w, &array![-2.0 * 12.0_f64.sqrt()]).unwrap(); // s = 12, δ = −2/4·2√12, a = 3
        assert!((w[0] - (8.0 + 0.5 * 12.0_f64.sqrt())).abs() < 1e-14, "{w}");
        let slot = |name| opt.slot("", name).unwrap()[[0]];
        assert!((slot("square_avg") - 12.0).abs() < 1e-14 && (slot("acc_delta") - 3.0).abs() < 1e-14);
    }

    #[test]
    fn the_unit_of_the_gradient_does_not_matter() {
        let run = |scale: f64| {
            let (mut opt, mut w) = (Adadelta::new(1.0).eps(1e-30), array![0.0]);
            (0..5).for_each(|step| _ = opt.step(&mut w, &array![scale * f64::from(1 + step % 3)]).unwrap());
            w[0]
        };
        assert!(run(1.0) < 0.0 && run(1.0) == run(1024.0));
    }
}
