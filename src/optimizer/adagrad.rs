//! Adagrad.

use crate::hyper_parameters;
use crate::params::Scalar;
use crate::rule::{At, Elementwise, Lanes, Rule};
use crate::schedule::Hyper;

/// Adagrad: divides gradient elements by the root of the sum of their squares so far.
///
/// # Update rule
/// ```text
/// s ← s + ∇J(θ)²                    s starts from s₀
/// θ ← θ − η/(1 + (t − 1)d)·∇J(θ)/(√s + ε)
/// ```
/// t is the number of steps in which the tensor had a gradient, starting at 1. [`eps_inside_sqrt`](Adagrad::eps_inside_sqrt) divides by √(s + ε).
/// With weight decay λ the gradient is `∇J(θ) + λθ`, also in s.
///
/// # Hyper-parameters
/// Each is set by the method of its name and takes a number, a [schedule](crate::schedule) or a closure.
///
/// | name | default | range | meaning |
/// |---|---|---|---|
/// | `learning_rate` η | – | η ≥ 0 | length of the first step, in units of the parameter; PyTorch's default is 1e-2 |
/// | `learning_rate_decay` d | 0 | d ≥ 0 | decay of η per step, in addition to the effect of s |
/// | `initial_accumulator_value` s₀ | 0 | s₀ ≥ 0 | start of the sum; unit of the gradient's square |
/// | `eps` ε | 1e-10 | ε ≥ 0 | keeps the division finite; unit of the gradient (squared inside the root) |
/// | `weight_decay` λ | 0 | λ ≥ 0 | strength of the L2 penalty |
///
/// `initial_accumulator_value` is used in a tensor's first step only.
///
/// # State
/// `sum` s, of the parameter's shape: one element per parameter (4 bytes in f32).
///
/// # Conventions
/// - PyTorch's `Adagrad`: the default. Its names for d and s₀ are `lr_decay` and `initial_accumulator_value`.
/// - Keras' `Adagrad` and optax's `adagrad`: `.initial_accumulator_value(0.1).eps(1e-7).eps_inside_sqrt(true)`.
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
/// let mut opt = Adagrad::new(0.5).eps(0.0);
/// let mut w = array![1.0];
/// opt.step(&mut w, &array![3.0])?; // s = 9: the first step has length η
/// assert_eq!(w, array![0.5]);
/// opt.step(&mut w, &array![4.0])?; // s = 25
/// assert!((w[0] - 0.1_f64).abs() < 1e-12);
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// # References
/// J. Duchi, E. Hazan and Y. Singer, *Adaptive Subgradient Methods for Online Learning and Stochastic Optimization*, JMLR 12 (2011), figure 1 with a
/// diagonal matrix.
#[doc(alias = "AdaGrad")]
pub type Adagrad<A = f32> = Elementwise<AdagradRule, A>;

hyper_parameters! {
    /// The rule of [`Adagrad`].
    pub struct AdagradRule => AdagradValues for Elementwise {
        /// The decay d ≥ 0 of the learning rate: it is divided by 1 + (t − 1)d.
        #[doc(alias = "lr_decay")]
        learning_rate_decay / set_learning_rate_decay: 0.0, 0.0..;
        /// The start s₀ ≥ 0 of the sum of squares.
        initial_accumulator_value / set_initial_accumulator_value: 0.0, 0.0..;
        /// The ε ≥ 0 that keeps the division finite.
        eps / set_eps: 1e-10, 0.0..;
    }
    options {
        /// Adds ε under the root instead of to the root (Keras, optax).
        eps_inside_sqrt: bool = false;
    }
}

impl<A: Scalar> Adagrad<A> {
    /// Adagrad with PyTorch's defaults: no decay, a sum that starts from 0, ε 1e-10, no weight decay.
    pub fn new(learning_rate: impl Into<Hyper>) -> Self {
        Self::from_rule(AdagradRule::default(), learning_rate)
    }
}

impl<A: Scalar> Rule<A> for AdagradRule {
    /// s₀ in the first step and 0 in the others, and ε inside and outside of the root.
    type Coefficients = [A; 3];

    fn name(&self) -> &'static str {
        "adagrad"
    }

    fn slots(&self) -> &'static [&'static str] {
        &["sum"]
    }

    fn non_negative(&self) -> &'static [&'static str] {
        &["sum"]
    }

    fn coefficients(&self, values: &AdagradValues, at: &At) -> (f64, [A; 3]) {
        let start = if at.step == 1 { values.initial_accumulator_value } else { 0.0 };
        let (inside, outside) = if self.eps_inside_sqrt { (values.eps, 0.0) } else { (0.0, values.eps) };
        let step_size = at.learning_rate / (1.0 + (at.step as f64 - 1.0) * values.learning_rate_decay);
        (step_size, [start, inside, outside].map(A::from_f64))
    }

    fn sweep(&self, c: [A; 3], lanes: Lanes<'_, A>) {
        lanes.each(c, |&[start, inside, outside], _, grad, [s]: [A; 1]| {
            let s = s + start + grad * grad;
            (grad / ((s + inside).sqrt() + outside), [s])
        });
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use crate::prelude::*;

    #[test]
    fn first_steps_by_hand() {
        let mut opt = Adagrad::new(0.5).learning_rate_decay(1.0).initial_accumulator_value(7.0).eps(1.0);
        let mut w = array![8.0];
        opt.step(&mut w, &array![3.0]).unwrap(); // s = 16
        assert_eq!(w, array![8.0 - 0.5 * 3.0 / 5.0]);
        opt.step(&mut w, &array![-3.0]).unwrap(); // s = 25, and half of η
        assert_eq!(w, array![8.0 - 0.5 * 3.0 / 5.0 + 0.25 * 3.0 / 6.0]);
        assert_eq!(opt.slot("", "sum"), Some(array![25.0].into_dyn()));

        let mut opt = Adagrad::new(0.5).eps(7.0).eps_inside_sqrt(true);
        let mut w = array![8.0];
        opt.step(&mut w, &array![3.0]).unwrap(); // √16
        assert_eq!(w, array![8.0 - 0.5 * 0.75]);
    }

    /// Each tensor's sum starts in its own first step.
    #[test]
    fn a_tensor_without_gradient_starts_later() {
        let mut opt = Adagrad::new(0.5).initial_accumulator_value(7.0).eps(0.0);
        let mut w = (array![0.0], array![0.0]);
        opt.step(&mut w, &(array![3.0], None::<ndarray::Array1<f64>>)).unwrap();
        opt.step(&mut w, &(array![0.0], array![3.0])).unwrap();
        assert_eq!([opt.slot("0", "sum"), opt.slot("1", "sum")], [16.0; 2].map(|s| Some(array![s].into_dyn())));
        assert_eq!(w.0, w.1);
    }
}
