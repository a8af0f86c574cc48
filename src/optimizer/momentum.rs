//! Gradient descent with momentum (the heavy ball).

use crate::hyper_parameters;
use crate::params::Scalar;
use crate::rule::{At, Elementwise, Lanes, Rule};
use crate::schedule::Hyper;

/// Gradient descent with momentum: the step follows a running sum of past gradients, the velocity.
///
/// # Update rule
/// ```text
/// v ← μv + (1 − τ)∇J(θ)        (first step of a tensor: v = ∇J(θ))
/// θ ← θ − ηv
/// ```
/// With [`classical`](Momentum::classical) the learning rate is inside the velocity, as in the literature:
/// ```text
/// v ← μv + η(1 − τ)∇J(θ)
/// θ ← θ − v
/// ```
/// The two agree while η is constant; the second velocity is then η times the first. They differ when a schedule changes η: outside the velocity, the
/// new η applies to the whole velocity at once; inside, earlier gradients keep their old η.
///
/// With weight decay λ the gradient is `∇J(θ) + λθ`.
///
/// # Hyper-parameters
/// Each is set by the method of its name and takes a number, a [schedule](crate::schedule) or a closure.
///
/// | name | default | range | meaning |
/// |---|---|---|---|
/// | `learning_rate` η | – | η ≥ 0 | length of the step, per unit of velocity |
/// | `momentum` μ | – | 0 ≤ μ < 1 | fraction of the velocity kept per step; it averages over about 1/(1 − μ) steps |
/// | `dampening` τ | 0 | 0 ≤ τ ≤ 1 | fraction by which the gradient is reduced, except in a tensor's first step |
/// | `weight_decay` λ | 0 | λ ≥ 0 | strength of the L2 penalty |
///
/// # State
/// `momentum_buffer` v, of the parameter's shape: one element per parameter (4 bytes in f32).
///
/// # Conventions
/// The default is PyTorch's `SGD(momentum=μ)`, which is also optax's `sgd(momentum=μ)`. `classical(true)` is Keras'
/// `SGD(momentum=μ)` and the form of Sutskever et al. (2013, eqs. 1–2), with v of opposite sign.
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
/// let mut opt = Momentum::new(0.1, 0.5);
/// let mut w = array![1.0];
/// opt.step(&mut w, &array![1.0])?; // v = 1
/// opt.step(&mut w, &array![1.0])?; // v = 1.5
/// assert_eq!(w, array![0.75]);
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// # References
/// B. T. Polyak, *Some methods of speeding up the convergence of iteration methods*, USSR Comput. Math. Math. Phys. 4
/// (1964); I. Sutskever, J. Martens, G. Dahl and G. Hinton, *On the importance of initialization and momentum in deep
/// learning*, ICML 2013.
#[doc(alias = "heavy ball")]
pub type Momentum<A = f32> = Elementwise<MomentumRule, A>;

hyper_parameters! {
    /// The rule of [`Momentum`].
    pub struct MomentumRule => MomentumValues for Elementwise {
        /// The momentum μ, 0 ≤ μ < 1.
        momentum / set_momentum: 0.0, 0.0..1.0;
        /// The dampening τ, 0 ≤ τ ≤ 1.
        dampening / set_dampening: 0.0, 0.0..=1.0;
    }
    options {
        /// Puts the learning rate inside the velocity: `v ← μv + ηg`, `θ ← θ − v`.
        classical: bool = false;
    }
}

impl<A: Scalar> Momentum<A> {
    /// Momentum without dampening and weight decay.
    pub fn new(learning_rate: impl Into<Hyper>, momentum: impl Into<Hyper>) -> Self {
        Self::from_rule(MomentumRule::default().momentum(momentum), learning_rate)
    }
}

impl<A: Scalar> Rule<A> for MomentumRule {
    /// `v ← momentum·v + inside·g`.
    type Coefficients = [A; 2];

    fn name(&self) -> &'static str {
        "momentum"
    }

    fn slots(&self) -> &'static [&'static str] {
        &["momentum_buffer"]
    }

    fn coefficients(&self, values: &MomentumValues, at: &At) -> (f64, [A; 2]) {
        let kept = if at.step == 1 { 1.0 } else { 1.0 - values.dampening };
        let (step_size, inside) =
            if self.classical { (1.0, at.learning_rate * kept) } else { (at.learning_rate, kept) };
        (step_size, [values.momentum, inside].map(A::from_f64))
    }

    fn sweep(&self, c: [A; 2], lanes: Lanes<'_, A>) {
        lanes.each(c, |&[momentum, inside], _, grad, [v]: [A; 1]| {
            let v = momentum * v + inside * grad;
            (v, [v])
        });
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use crate::prelude::*;

    #[test]
    fn first_steps_by_hand() {
        let mut opt = Momentum::new(0.5, 0.5).dampening(0.75);
        let mut w = array![8.0];
        opt.step(&mut w, &array![4.0]).unwrap(); // v = 4, not dampened
        assert_eq!(w, array![6.0]);
        opt.step(&mut w, &array![8.0]).unwrap(); // v = 2 + 0.25·8 = 4
        assert_eq!(w, array![4.0]);
    }

    #[test]
    fn the_two_forms_part_when_the_learning_rate_changes() {
        let run = |opt: Momentum<f64>| {
            let (mut opt, mut w) = (opt, array![0.0]);
            for _ in 0..3 {
                opt.step(&mut w, &array![1.0]).unwrap();
            }
            w[0]
        };
        let halving = |step: u64| 0.5_f64.powi(step as i32);
        assert_eq!(run(Momentum::new(0.5, 0.5)), run(Momentum::new(0.5, 0.5).classical(true)));
        // v = 1, 3/2, 7/4 and η = 1, 1/2, 1/4.
        assert_eq!(run(Momentum::new(halving, 0.5)), -(1.0 + 0.75 + 0.4375));
        // v = 1, 1/2 + 1/2, 1/2 + 1/4.
        assert_eq!(run(Momentum::new(halving, 0.5).classical(true)), -(1.0 + 1.0 + 0.75));
    }
}
