//! RMSProp.

use crate::error::Result;
use crate::params::Scalar;
use crate::rule::{At, Elementwise, Lanes, Rule};
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
/// | `alpha` α | 0.99 | 0 ≤ α < 1 | share of the mean square kept a step |
/// | `eps` ε | 1e-8 | ε ≥ 0 | keeps the division finite; unit of the gradient (its square inside the root) |
/// | `momentum` μ | off | 0 ≤ μ < 1 | share of the velocity kept a step |
/// | `weight_decay` λ | 0 | λ ≥ 0 | strength of the L2 penalty |
///
/// # State
/// `square_avg` s; `grad_avg` a if centered; `momentum_buffer` b with momentum. Each of the parameter's shape: one to
/// three elements per parameter (4 to 12 bytes in f32).
///
/// # Conventions
/// The default is PyTorch's `RMSprop`. Keras' `RMSprop` has α = 0.9 (`rho`), ε = 1e-7 inside the root and the learning
/// rate inside the velocity: `.alpha(0.9).eps(1e-7).eps_inside_sqrt().classical()`. optax's `rmsprop` has both inside too,
/// with α = 0.9 and ε = 1e-8: `.alpha(0.9).eps_inside_sqrt().classical()`; its `eps_in_sqrt=False` is without `eps_inside_sqrt`.
///
/// # Errors
/// A step fails with [`StepError::HyperParameter`](crate::error::StepError::HyperParameter) when a value leaves its range, and for
/// the reasons of [`Step::pair`](crate::Step::pair) and a changed parameter tree.
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
pub type RmsProp<A> = Elementwise<RmsPropRule, A>;

/// The rule of [`RmsProp`].
#[derive(Debug, Clone)]
pub struct RmsPropRule {
    alpha: Hyper,
    eps: Hyper,
    momentum: Option<Hyper>,
    centered: bool,
    eps_inside_sqrt: bool,
    classical: bool,
}

impl<A: Scalar> RmsProp<A> {
    /// RMSProp with PyTorch's defaults: α 0.99, ε 1e-8, no momentum, not centered, no weight decay.
    pub fn new(learning_rate: impl Into<Hyper>) -> Self {
        let rule = RmsPropRule {
            alpha: 0.99.into(),
            eps: 1e-8.into(),
            momentum: None,
            centered: false,
            eps_inside_sqrt: false,
            classical: false,
        };
        Self::from_rule(rule, learning_rate)
    }

    /// The decay α of the mean square, 0 ≤ α < 1: a number or a schedule.
    pub fn alpha(mut self, alpha: impl Into<Hyper>) -> Self {
        self.rule.alpha = alpha.into();
        self
    }

    /// The ε ≥ 0 that keeps the division finite: a number or a schedule.
    pub fn eps(mut self, eps: impl Into<Hyper>) -> Self {
        self.rule.eps = eps.into();
        self
    }

    /// The momentum μ, 0 ≤ μ < 1: a number or a schedule. Adds a slot.
    pub fn momentum(mut self, momentum: impl Into<Hyper>) -> Self {
        self.rule.momentum = Some(momentum.into());
        self
    }

    /// Divides by an estimate of the standard deviation instead of the root mean square. Adds a slot.
    pub fn centered(mut self) -> Self {
        self.rule.centered = true;
        self
    }

    /// Adds ε under the root instead of to the root.
    pub fn eps_inside_sqrt(mut self) -> Self {
        self.rule.eps_inside_sqrt = true;
        self
    }

    /// With momentum, puts the learning rate inside the velocity.
    pub fn classical(mut self) -> Self {
        self.rule.classical = true;
        self
    }
}

/// The hyper-parameters of one step.
#[derive(Debug)]
pub struct Values {
    alpha: f64,
    eps: f64,
    momentum: f64,
}

/// The numbers of one step and tensor.
#[derive(Debug, Clone, Copy)]
pub struct Coefficients<A> {
    alpha: A,
    one_minus_alpha: A,
    eps_inside: A,
    eps_outside: A,
    momentum: A,
    /// The learning rate inside the velocity, or 1.
    inside: A,
    /// The learning rate outside the velocity, or 1.
    outside: A,
}

impl<A: Scalar> Rule<A> for RmsPropRule {
    type Values = Values;
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

    fn values(&self, step: u64) -> Result<Values> {
        let momentum = self.momentum.as_ref().map(|momentum| momentum.within_as::<A>("momentum", 0.0..1.0, step));
        Ok(Values {
            alpha: self.alpha.within_as::<A>("alpha", 0.0..1.0, step)?,
            eps: self.eps.within_as::<A>("eps", 0.0.., step)?,
            momentum: momentum.transpose()?.unwrap_or(0.0),
        })
    }

    fn hyper_parameters(&self) -> Vec<&Hyper> {
        [&self.alpha, &self.eps].into_iter().chain(&self.momentum).collect()
    }

    fn coefficients(&self, &Values { alpha, eps, momentum }: &Values, at: &At) -> Coefficients<A> {
        let (eps_inside, eps_outside) = if self.eps_inside_sqrt { (eps, 0.0) } else { (0.0, eps) };
        let (inside, outside) = if self.classical { (at.learning_rate, 1.0) } else { (1.0, at.learning_rate) };
        Coefficients {
            alpha: A::from_f64(alpha),
            one_minus_alpha: A::from_f64(1.0 - alpha),
            eps_inside: A::from_f64(eps_inside),
            eps_outside: A::from_f64(eps_outside),
            momentum: A::from_f64(momentum),
            inside: A::from_f64(inside),
            outside: A::from_f64(outside),
        }
    }

    fn sweep(&self, c: Coefficients<A>, lanes: Lanes<'_, A>) {
        match (self.centered, self.momentum.is_some()) {
            (false, false) => lanes.each(c, |c, param, grad, [s]: [A; 1]| {
                let s = c.average(s, grad * grad);
                (param - c.outside * c.divided(grad, s), [s])
            }),
            (true, false) => lanes.each(c, |c, param, grad, [s, a]: [A; 2]| {
                let (s, a) = (c.average(s, grad * grad), c.average(a, grad));
                (param - c.outside * c.divided(grad, variance(s, a)), [s, a])
            }),
            (false, true) => lanes.each(c, |c, param, grad, [s, b]: [A; 2]| {
                let s = c.average(s, grad * grad);
                let b = c.momentum * b + c.divided(grad, s);
                (param - c.outside * b, [s, b])
            }),
            (true, true) => lanes.each(c, |c, param, grad, [s, a, b]: [A; 3]| {
                let (s, a) = (c.average(s, grad * grad), c.average(a, grad));
                let b = c.momentum * b + c.divided(grad, variance(s, a));
                (param - c.outside * b, [s, a, b])
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
        let mut opt = RmsProp::new(rates).alpha(0.9).eps_inside_sqrt().momentum(0.9).classical();
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
        assert_eq!(run(RmsProp::new(0.5).alpha(0.75)), run(RmsProp::new(0.5).alpha(0.75).classical()));
    }

    #[test]
    fn a_constant_gradient_has_no_negative_variance() {
        let mut opt = RmsProp::new(1e-3).centered();
        let mut w = array![1.0_f32];
        for _ in 0..5_000 {
            opt.step(&mut w, &array![0.1]).unwrap();
            assert!(w[0].is_finite());
        }
    }
}
