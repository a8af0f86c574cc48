//! Plain gradient descent.

use crate::hyper_parameters;
use crate::params::Scalar;
use crate::rule::{At, Elementwise, Lanes, Rule};
use crate::schedule::Hyper;

/// Gradient descent: a step against the gradient, times the learning rate.
///
/// Full-batch, stochastic and mini-batch gradient descent are the same step; they differ only in the data that the gradient ∇J is computed from.
///
/// # Update rule
/// ```text
/// θ ← θ − η∇J(θ)
/// ```
/// With weight decay λ the gradient is `∇J(θ) + λθ` (an L2 penalty of λ/2·‖θ‖²).
///
/// # Hyper-parameters
/// Each is set by the method of its name and takes a number, a [schedule](crate::schedule) or a closure.
///
/// | name | default | range | meaning |
/// |---|---|---|---|
/// | `learning_rate` η | – | η ≥ 0 | length of the step, per unit of gradient |
/// | `weight_decay` λ | 0 | λ ≥ 0 | strength of the L2 penalty |
///
/// # State
/// None: 0 bytes per parameter.
///
/// # Conventions
/// PyTorch's `SGD(momentum=0)`, Keras' `SGD` and optax's `sgd` agree.
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
/// let mut opt = Sgd::new(0.1);
/// let mut w = array![1.0, 2.0];
/// opt.step(&mut w, &array![1.0, -1.0])?;
/// assert_eq!(w, array![0.9, 2.1]);
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// # References
/// H. Robbins and S. Monro, *A Stochastic Approximation Method*, Ann. Math. Statist. 22 (1951);
/// A. Cauchy, *Méthode générale pour la résolution des systèmes d'équations simultanées* (1847).
#[doc(alias = "SGD")]
pub type Sgd<A = f32> = Elementwise<SgdRule, A>;

hyper_parameters! {
    /// The rule of [`Sgd`].
    pub struct SgdRule => SgdValues for Elementwise {}
}

impl<A: Scalar> Sgd<A> {
    /// Gradient descent without weight decay.
    pub fn new(learning_rate: impl Into<Hyper>) -> Self {
        Self::from_rule(SgdRule::default(), learning_rate)
    }
}

impl<A: Scalar> Rule<A> for SgdRule {
    type Coefficients = ();

    fn name(&self) -> &'static str {
        "sgd"
    }

    fn slots(&self) -> &'static [&'static str] {
        &[]
    }

    fn coefficients(&self, _: &SgdValues, at: &At) -> (f64, ()) {
        (at.learning_rate, ())
    }

    fn sweep(&self, (): (), lanes: Lanes<'_, A>) {
        lanes.each((), |(), _, grad, []: [A; 0]| (grad, []));
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use crate::prelude::*;

    #[test]
    fn first_steps_by_hand() {
        let mut opt = Sgd::new(0.5).weight_decay(0.25);
        let mut w = array![4.0, -8.0];
        opt.step(&mut w, &array![1.0, 2.0]).unwrap();
        // g + λθ = 1 + 1 and 2 − 2.
        assert_eq!(w, array![3.0, -8.0]);
    }
}
