//! Nesterov's accelerated gradient.

use crate::hyper_parameters;
use crate::params::Scalar;
use crate::rule::{At, Elementwise, Lanes, Rule};
use crate::schedule::Hyper;

/// Nesterov momentum: the gradient is used at the point that the velocity is about to reach.
///
/// # Update rule
/// ```text
/// v ← μv + ∇J(θ)        (first step of a tensor: v = ∇J(θ))
/// θ ← θ − η(∇J(θ) + μv)
/// ```
/// With [`classical`](Nesterov::classical) the learning rate is inside the velocity:
/// ```text
/// v ← μv + η∇J(θ)
/// θ ← θ − (μv + η∇J(θ))
/// ```
/// **Why this is the look-ahead.** Nesterov's method, as Sutskever et al. write it, computes the gradient ahead of the position φ:
/// ```text
/// v' = μv + η∇J(φ − μv)
/// φ' = φ − v'
/// ```
/// A training loop has its gradient at the parameters, so let the parameters *be* the point ahead: θ = φ − μv. Then
/// v' = μv + η∇J(θ) and θ' = φ' − μv' = θ + μv − v' − μv' = θ − (μv' + η∇J(θ)), the classical form above. It needs no
/// second evaluation, because the stored parameter θ is the point of the next gradient, and φ = θ + μv.
/// The default form moves η outside, as for [`Momentum`](crate::Momentum); both agree while η is constant.
///
/// With weight decay λ the gradient is `∇J(θ) + λθ`.
///
/// # Hyper-parameters
/// Each is set by the method of its name and takes a number, a [schedule](crate::schedule) or a closure.
///
/// | name | default | range | meaning |
/// |---|---|---|---|
/// | `learning_rate` η | – | η ≥ 0 | length of the step, per unit of velocity |
/// | `momentum` μ | – | 0 ≤ μ < 1 | fraction of the velocity kept per step |
/// | `weight_decay` λ | 0 | λ ≥ 0 | strength of the L2 penalty |
///
/// # State
/// `momentum_buffer` v, of the parameter's shape: one element per parameter (4 bytes in f32).
///
/// # Conventions
/// The default is PyTorch's `SGD(momentum=μ, nesterov=True)` and optax's `sgd(momentum=μ, nesterov=True)`;
/// `classical(true)` is Keras' `SGD(momentum=μ, nesterov=True)`.
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
/// let mut opt = Nesterov::new(0.1, 0.5);
/// let mut w = array![1.0];
/// opt.step(&mut w, &array![1.0])?; // v = 1, step 0.1·(1 + 0.5)
/// assert_eq!(w, array![0.85]);
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// # References
/// Y. Nesterov, *A method for solving the convex programming problem with convergence rate O(1/k²)*, Dokl. Akad. Nauk
/// SSSR 269 (1983); I. Sutskever, J. Martens, G. Dahl and G. Hinton, *On the importance of initialization and momentum
/// in deep learning*, ICML 2013, eqs. 3–4.
#[doc(alias = "NAG")]
pub type Nesterov<A = f32> = Elementwise<NesterovRule, A>;

hyper_parameters! {
    /// The rule of [`Nesterov`].
    pub struct NesterovRule => NesterovValues for Elementwise {
        /// The momentum μ, 0 ≤ μ < 1.
        momentum / set_momentum: 0.0, 0.0..1.0;
    }
    options {
        /// Puts the learning rate inside the velocity: `v ← μv + ηg`, `θ ← θ − (μv + ηg)`.
        classical: bool = false;
    }
}

impl<A: Scalar> Nesterov<A> {
    /// Nesterov momentum without weight decay.
    pub fn new(learning_rate: impl Into<Hyper>, momentum: impl Into<Hyper>) -> Self {
        Self::from_rule(NesterovRule::default().momentum(momentum), learning_rate)
    }
}

impl<A: Scalar> Rule<A> for NesterovRule {
    /// `v ← momentum·v + inside·g`, and the direction is `inside·g + momentum·v`.
    type Coefficients = [A; 2];

    fn name(&self) -> &'static str {
        "nesterov"
    }

    fn slots(&self) -> &'static [&'static str] {
        &["momentum_buffer"]
    }

    fn coefficients(&self, values: &NesterovValues, at: &At) -> (f64, [A; 2]) {
        let (step_size, inside) = if self.classical { (1.0, at.learning_rate) } else { (at.learning_rate, 1.0) };
        (step_size, [values.momentum, inside].map(A::from_f64))
    }

    fn sweep(&self, c: [A; 2], lanes: Lanes<'_, A>) {
        lanes.each(c, |&[momentum, inside], _, grad, [v]: [A; 1]| {
            let grad = inside * grad;
            let v = momentum * v + grad;
            (grad + momentum * v, [v])
        });
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use crate::prelude::*;

    #[test]
    fn first_steps_by_hand() {
        let mut opt = Nesterov::new(0.5, 0.5);
        let mut w = array![8.0];
        opt.step(&mut w, &array![4.0]).unwrap(); // v = 4, step 0.5·(4 + 2)
        assert_eq!(w, array![5.0]);
        opt.step(&mut w, &array![2.0]).unwrap(); // v = 4, step 0.5·(2 + 2)
        assert_eq!(w, array![3.0]);
    }

    /// The identity of the docs: θ = φ − μv on a quadratic, step by step.
    #[test]
    fn the_stored_parameter_is_the_look_ahead_point() {
        let (eta, mu) = (0.125, 0.5);
        let gradient = |x: f64| 3.0 * x - 1.0;
        let (mut phi, mut velocity) = (2.0, 0.0);
        let mut opt = Nesterov::new(eta, mu).classical(true);
        let mut w = array![2.0];
        for _ in 0..20 {
            let grad = w.mapv(gradient);
            opt.step(&mut w, &grad).unwrap();
            velocity = mu * velocity + eta * gradient(phi - mu * velocity);
            phi -= velocity;
            assert!((w[0] - (phi - mu * velocity)).abs() < 1e-14);
        }
    }
}
