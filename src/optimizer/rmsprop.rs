//! RMSProp.

use crate::hyper_parameters;
use crate::params::Scalar;
use crate::rule::{At, Elementwise, Lanes, Rule, SecondMoment};
use crate::schedule::Hyper;

/// RMSProp: each element's gradient divided by the root of its running mean square.
///
/// # Update rule
/// ```text
/// s ← αs + (1 − α)∇J(θ)²
/// d ← √s + ε
/// θ ← θ − η∇J(θ)/d
/// ```
/// [`centered`](RmsProp::centered) divides by an estimate of the standard deviation:
/// ```text
/// a ← αa + (1 − α)∇J(θ)
/// d ← √(s − a²) + ε        (s − a² not below 0, where rounding would take it)
/// ```
/// [`eps_inside_sqrt`](RmsProp::eps_inside_sqrt) takes `d ← √(s + ε)`, or `√(s − a² + ε)`.
/// [`momentum`](RmsProp::momentum) μ > 0 follows a velocity; [`classical`](RmsProp::classical) puts η inside it:
/// ```text
/// b ← μb + ∇J(θ)/d         (classical: b ← μb + η∇J(θ)/d)
/// θ ← θ − ηb               (classical: θ ← θ − b)
/// ```
/// With weight decay λ the gradient is `∇J(θ) + λθ`.
///
/// # Hyper-parameters
/// Each is set by the method of its name and takes a number, a [schedule](crate::schedule) or a closure.
///
/// | name | default | range | meaning |
/// |---|---|---|---|
/// | `learning_rate` η | – | η ≥ 0 | length of the step, in units of the parameter |
/// | `alpha` α | 0.99 | 0 ≤ α < 1 | fraction of the mean square kept per step |
/// | `eps` ε | 1e-8 | ε ≥ 0 | keeps the division finite; unit of the gradient (its square inside the root) |
/// | `momentum` μ | off | 0 ≤ μ < 1 | fraction of the velocity kept per step |
/// | `weight_decay` λ | 0 | λ ≥ 0 | strength of the L2 penalty |
///
/// # State
/// `square_avg` s; `grad_avg` a if centered; `momentum_buffer` b with momentum. Each of the parameter's shape: one to
/// three elements per parameter (4 to 12 bytes in f32).
///
/// # Conventions
/// - PyTorch's `RMSprop`: the default.
/// - Keras' `RMSprop`: α = 0.9 (`rho`), ε = 1e-7 inside the root, and the learning rate inside the velocity:
///   `.alpha(0.9).eps(1e-7).eps_inside_sqrt(true).classical(true)`.
/// - optax's `rmsprop`: both inside, with α = 0.9 and ε = 1e-8: `.alpha(0.9).eps_inside_sqrt(true).classical(true)`. With `eps_in_sqrt=False`, leave out
///   `eps_inside_sqrt`.
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
/// let mut opt = RmsProp::new(0.1).alpha(0.75).eps(0.0);
/// let mut w = array![1.0];
/// opt.step(&mut w, &array![8.0])?; // s = 16, step 0.1·8/4
/// assert_eq!(w, array![0.8]);
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// # References
/// T. Tieleman and G. Hinton, *Lecture 6.5 – RMSProp*, COURSERA: Neural Networks for Machine Learning (2012);
/// A. Graves, *Generating Sequences With Recurrent Neural Networks* (2013), arXiv:1308.0850, eqs. 38–45 (centered).
#[doc(alias = "RMSprop")]
pub type RmsProp<A = f32> = Elementwise<RmsPropRule, A>;

hyper_parameters! {
    /// The rule of [`RmsProp`].
    pub struct RmsPropRule => RmsPropValues for Elementwise {
        /// The decay α of the mean square, 0 ≤ α < 1.
        alpha / set_alpha: 0.99, 0.0..1.0;
        /// The ε ≥ 0 that keeps the division finite.
        eps / set_eps: 1e-8, 0.0..;
    }
    optional {
        /// The momentum μ, 0 ≤ μ < 1. Adds a slot.
        momentum / set_momentum: 0.0..1.0;
    }
    options {
        /// Divides by an estimate of the standard deviation instead of the root mean square. Adds a slot.
        centered: bool = false;
        /// Adds ε under the root instead of to the root.
        eps_inside_sqrt: bool = false;
        /// With momentum, puts the learning rate inside the velocity.
        classical: bool = false;
    }
}

impl<A: Scalar> RmsProp<A> {
    /// RMSProp with PyTorch's defaults: α 0.99, ε 1e-8, no momentum, not centered, no weight decay.
    pub fn new(learning_rate: impl Into<Hyper>) -> Self {
        Self::from_rule(RmsPropRule::default(), learning_rate)
    }
}

/// The numbers of one step and tensor.
#[derive(Debug, Clone, Copy)]
#[allow(unnameable_types, reason = "seen by the driver alone")]
pub struct Coefficients<A> {
    alpha: A,
    one_minus_alpha: A,
    eps_inside: A,
    eps_outside: A,
    momentum: A,
    /// The learning rate inside the velocity, or 1.
    inside: A,
}

impl<A: Scalar> Rule<A> for RmsPropRule {
    type Coefficients = Coefficients<A>;

    fn name(&self) -> &'static str {
        "rmsprop"
    }

    fn slots(&self) -> &'static [&'static str] {
        match (self.centered, self.momentum.is_some()) {
            (false, false) => &["square_avg"],
            (true, false) => &["square_avg", "grad_avg"],
            (false, true) => &["square_avg", "momentum_buffer"],
            (true, true) => &["square_avg", "grad_avg", "momentum_buffer"],
        }
    }

    fn non_negative(&self) -> &'static [&'static str] {
        &["square_avg"]
    }

    fn second_moment(&self, values: &RmsPropValues, _: &At) -> Option<SecondMoment> {
        Some(SecondMoment { slot: 0, scale: 1.0, eps: values.eps })
    }

    fn coefficients(&self, &RmsPropValues { alpha, eps, momentum }: &RmsPropValues, at: &At) -> (f64, Coefficients<A>) {
        let (eps_inside, eps_outside) = if self.eps_inside_sqrt { (eps, 0.0) } else { (0.0, eps) };
        let (step_size, inside) = if self.classical { (1.0, at.learning_rate) } else { (at.learning_rate, 1.0) };
        let coefficients = Coefficients {
            alpha: A::from_f64(alpha),
            one_minus_alpha: A::from_f64(1.0 - alpha),
            eps_inside: A::from_f64(eps_inside),
            eps_outside: A::from_f64(eps_outside),
            momentum: A::from_f64(momentum.unwrap_or(0.0)),
            inside: A::from_f64(inside),
        };
        (step_size, coefficients)
    }

    fn sweep(&self, c: Coefficients<A>, lanes: Lanes<'_, A>) {
        match (self.centered, self.momentum.is_some()) {
            (false, false) => lanes.each(c, |c, _, grad, [s]: [A; 1]| {
                let s = c.average(s, grad * grad);
                (c.divided(grad, s), [s])
            }),
            (true, false) => lanes.each(c, |c, _, grad, [s, a]: [A; 2]| {
                let (s, a) = (c.average(s, grad * grad), c.average(a, grad));
                (c.divided(grad, variance(s, a)), [s, a])
            }),
            (false, true) => lanes.each(c, |c, _, grad, [s, b]: [A; 2]| {
                let s = c.average(s, grad * grad);
                let b = c.momentum * b + c.divided(grad, s);
                (b, [s, b])
            }),
            (true, true) => lanes.each(c, |c, _, grad, [s, a, b]: [A; 3]| {
                let (s, a) = (c.average(s, grad * grad), c.average(a, grad));
                let b = c.momentum * b + c.divided(grad, variance(s, a));
                (b, [s, a, b])
            }),
        }
    }
}

impl<A: Scalar> Coefficients<A> {
    #[inline(always)]
    fn average(&self, old: A, new: A) -> A {
        self.alpha * old + self.one_minus_alpha * new
    }

    #[inline(always)]
    fn divided(&self, grad: A, square: A) -> A {
        self.inside * (grad / ((square + self.eps_inside).sqrt() + self.eps_outside))
    }
}

/// s − a², which rounding can take below 0, where the root would be NaN. A NaN of its own stays.
#[inline(always)]
fn variance<A: Scalar>(s: A, a: A) -> A {
    let variance = s - a * a;
    if variance < A::zero() { A::zero() } else { variance }
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use crate::prelude::*;

    #[test]
    fn first_steps_by_hand() {
        let mut opt = RmsProp::new(0.5).alpha(0.75).eps(1.0).momentum(0.5);
        let mut w = array![8.0];
        opt.step(&mut w, &array![6.0]).unwrap(); // s = 9, d = 4, b = 1.5
        assert_eq!(w, array![7.25]);
        opt.step(&mut w, &array![0.0]).unwrap(); // b = 0.75
        assert_eq!(w, array![6.875]);
    }

    /// `optax.rmsprop(rates, decay=0.9, momentum=0.9)` of optax 0.2.8, to six digits.
    #[test]
    fn classical_is_optax_s_momentum() {
        let rates = |step: u64| if step == 0 { 0.1 } else { 0.01 };
        let mut opt = RmsProp::new(rates).alpha(0.9).eps_inside_sqrt(true).momentum(0.9).classical(true);
        let mut w = array![1.0];
        (0..2).for_each(|_| _ = opt.step(&mut w, &array![1.0]).unwrap());
        assert!((w[0] - 0.376226_f64).abs() < 5e-7, "{w}");
    }

    #[test]
    fn classical_without_momentum_is_the_same_step() {
        let run = |mut opt: RmsProp<f64>| {
            let mut w = array![8.0];
            opt.step(&mut w, &array![6.0]).unwrap();
            w[0]
        };
        assert_eq!(run(RmsProp::new(0.5).alpha(0.75)), run(RmsProp::new(0.5).alpha(0.75).classical(true)));
    }

    #[test]
    fn a_constant_gradient_has_no_negative_variance() {
        let mut opt = RmsProp::new(1e-3).centered(true);
        let mut w = array![1.0_f32];
        for _ in 0..5_000 {
            opt.step(&mut w, &array![0.1]).unwrap();
            assert!(w[0].is_finite());
        }
    }
}
