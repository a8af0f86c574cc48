//! LARS.

use crate::hyper_parameters;
use crate::params::Scalar;
use crate::rule::{At, Elementwise, GradientRatio, Lanes, Rule};
use crate::schedule::Hyper;

/// LARS: momentum, with the gradient of each tensor brought to a fixed fraction of the tensor's norm. For large batches.
///
/// # Update rule
/// ```text
/// φ ← c‖θ‖/(‖∇J(θ)‖ + λ‖θ‖ + ε)        (1 if θ or ∇J(θ) is 0)
/// g ← φ(∇J(θ) + λθ)
/// v ← μv + (1 − τ)g        (first step of a tensor: v = g)
/// θ ← θ − ηv
/// ```
/// The norms are those of one tensor. [`nesterov`](Lars::nesterov) has `θ ← θ − η(g + μv)`.
///
/// # Hyper-parameters
/// Each is set by the method of its name and takes a number, a [schedule](crate::schedule) or a closure.
///
/// | name | default | range | meaning |
/// |---|---|---|---|
/// | `learning_rate` η | – | η ≥ 0 | length of the step, per unit of velocity; about 1 and above |
/// | `momentum` μ | – | 0 ≤ μ < 1 | fraction of the velocity kept per step |
/// | `dampening` τ | 0 | 0 ≤ τ ≤ 1 | fraction by which the gradient is reduced, except in a tensor's first step |
/// | `trust_coefficient` c | 1e-3 | c > 0 | length of the scaled gradient, relative to the norm of the tensor |
/// | `eps` ε | 1e-8 | ε ≥ 0 | keeps the division finite; unit of the gradient |
/// | `weight_decay` λ | 0 | λ ≥ 0 | strength of the L2 penalty |
///
/// # State
/// `momentum_buffer` v, of the parameter's shape: one element per parameter (4 bytes in f32). A step reads parameter and gradient twice.
///
/// # Conventions
/// timm's `Lars` with `always_adapt=True`. timm's default leaves tensors without weight decay as they are, which is
/// [`always_adapt(false)`](Lars::always_adapt). optax's `lars` divides by ‖∇J(θ) + λθ‖ instead, and has the learning rate inside the velocity. In
/// the paper ε is 0.
///
/// # Errors
/// A step returns [`StepError::HyperParameter`](crate::error::StepError::HyperParameter) if a value is out of range, and the errors of
/// [`Step::pair`](crate::Step::pair) and of changed parameters. A step of which this rank has only parts of tensors is also an error.
///
/// # Example
/// ```
/// use gradus::prelude::*;
/// use ndarray::array;
///
/// let mut opt = Lars::new(1.0, 0.9).trust_coefficient(0.1).eps(0.0);
/// let mut w = array![3.0, 4.0];
/// opt.step(&mut w, &array![0.0, 100.0])?; // a tenth of the norm of w
/// assert_eq!(w, array![3.0, 3.5]);
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// # References
/// Y. You, I. Gitman and B. Ginsburg, *Large Batch Training of Convolutional Networks* (2017), [arXiv:1708.03888](https://arxiv.org/abs/1708.03888), algorithm 1.
pub type Lars<A = f32> = Elementwise<LarsRule, A>;

hyper_parameters! {
    /// The rule of [`Lars`].
    pub struct LarsRule => LarsValues for Elementwise {
        /// The momentum μ, 0 ≤ μ < 1.
        momentum / set_momentum: 0.0, 0.0..1.0;
        /// The dampening τ, 0 ≤ τ ≤ 1.
        dampening / set_dampening: 0.0, 0.0..=1.0;
        /// The length c > 0 of the scaled gradient, relative to the norm of the tensor.
        trust_coefficient / set_trust_coefficient: 1e-3, f64::MIN_POSITIVE..;
        /// The ε ≥ 0 that keeps the division finite.
        eps / set_eps: 1e-8, 0.0..;
    }
    options {
        /// Moves along `g + μv` instead of v.
        nesterov: bool = false;
    }
}

impl<A: Scalar> Lars<A> {
    /// LARS with timm's defaults: coefficient 1e-3, ε 1e-8, no dampening and no weight decay.
    pub fn new(learning_rate: impl Into<Hyper>, momentum: impl Into<Hyper>) -> Self {
        Self::from_rule(LarsRule::default().momentum(momentum), learning_rate)
    }
}

impl<A: Scalar> Rule<A> for LarsRule {
    /// `v ← momentum·v + kept·g`.
    type Coefficients = [A; 2];

    fn name(&self) -> &'static str {
        "lars"
    }

    fn slots(&self) -> &'static [&'static str] {
        &["momentum_buffer"]
    }

    fn gradient_ratio(&self, values: &LarsValues) -> Option<GradientRatio> {
        Some(GradientRatio { coefficient: values.trust_coefficient, eps: values.eps })
    }

    fn coefficients(&self, values: &LarsValues, at: &At) -> (f64, [A; 2]) {
        let kept = if at.step == 1 { 1.0 } else { 1.0 - values.dampening };
        (at.learning_rate, [values.momentum, kept].map(A::from_f64))
    }

    fn sweep(&self, c: [A; 2], lanes: Lanes<'_, A>) {
        match self.nesterov {
            false => lanes.each(c, |&[momentum, kept], _, grad, [v]: [A; 1]| {
                let v = momentum * v + kept * grad;
                (v, [v])
            }),
            true => lanes.each(c, |&[momentum, kept], _, grad, [v]: [A; 1]| {
                let v = momentum * v + kept * grad;
                (grad + momentum * v, [v])
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use crate::prelude::*;

    #[test]
    fn first_steps_by_hand() {
        let mut opt = Lars::new(0.5, 0.5).trust_coefficient(0.5).eps(1.0).weight_decay(0.4);
        let mut w = (array![3.0, 4.0], array![0.0]);
        opt.step(&mut w, &(array![0.0, 2.0], array![2.0])).unwrap(); // φ = 2.5/(2 + 2 + 1) and 1
        assert!((&w.0 - &array![3.0 - 0.3, 4.0 - 0.25 * 3.6]).iter().all(|d: &f64| d.abs() < 1e-15), "{w:?}");
        assert_eq!(w.1, array![-1.0]);
        let velocity = opt.slot("1", "momentum_buffer").unwrap();
        opt.step(&mut w, &(array![0.0, 0.0], array![0.0])).unwrap(); // no gradient: φ = 1
        assert!((opt.slot("1", "momentum_buffer").unwrap()[0] - (velocity[0] * 0.5 - 0.4)).abs() < 1e-15);
    }

    #[test]
    fn nesterov_and_tensors_without_decay() {
        let mut opt = Lars::new(1.0, 0.5).nesterov(true).always_adapt(false);
        let mut w = array![3.0, 4.0];
        opt.step(&mut w, &array![0.0, 2.0]).unwrap();
        assert_eq!(w, array![3.0, 1.0]);
    }
}
