//! Adam and AdamW.

use crate::error::Result;
use crate::params::Scalar;
use crate::rule::{At, Decay, Elementwise, Lanes, Rule};
use crate::schedule::Hyper;

/// Adam: momentum, with each element divided by the root of its gradient's second moment.
///
/// # Update rule
/// ```text
/// m ← β₁m + (1 − β₁)∇J(θ)
/// v ← β₂v + (1 − β₂)∇J(θ)²
/// m̂ ← m/(1 − β₁ᵗ)
/// v̂ ← v/(1 − β₂ᵗ)
/// θ ← θ − η·m̂/(√v̂ + ε)
/// ```
/// t counts the steps in which the tensor had a gradient, from 1. m and v begin at 0 and are therefore too small in
/// the first steps; dividing by `1 − βᵗ` makes up for it. [`no_bias_correction`](Adam::no_bias_correction) leaves
/// that out: `θ ← θ − η·m/(√v + ε)`.
///
/// [`amsgrad`](Adam::amsgrad) never lets the divisor shrink: with `w ← max(w, v)`, w takes the place of v in v̂.
/// [`eps_hat`](Adam::eps_hat) adds ε before the correction of v:
/// ```text
/// θ ← θ − η·√(1 − β₂ᵗ)/(1 − β₁ᵗ)·m/(√v + ε)
/// ```
/// With weight decay λ the gradient is `∇J(θ) + λθ`, in m and v too. [`AdamW`] decays apart from the gradient.
///
/// # Hyper-parameters
/// Each is set by the method of its name and takes a number, a [schedule](crate::schedule) or a closure.
///
/// | name | default | range | meaning |
/// |---|---|---|---|
/// | `learning_rate` η | – | η ≥ 0 | length of the step, in units of the parameter |
/// | `beta1` β₁ | 0.9 | 0 ≤ β₁ < 1 | share of the first moment kept a step |
/// | `beta2` β₂ | 0.999 | 0 ≤ β₂ < 1 | share of the second moment kept a step |
/// | `eps` ε | 1e-8 | ε ≥ 0 | keeps the division finite; unit of the gradient |
/// | `weight_decay` λ | 0 | λ ≥ 0 | strength of the L2 penalty |
///
/// A schedule may change β₁ and β₂; the corrections use the values of the current step.
///
/// # State
/// `exp_avg` m, `exp_avg_sq` v and, with AMSGrad, `max_exp_avg_sq`. Each of the parameter's shape: two or three
/// elements per parameter (8 or 12 bytes in f32).
///
/// # Conventions
/// The default is PyTorch's `Adam`, whose AMSGrad takes the maximum over the uncorrected v, as here. Keras' `Adam` is
/// `.eps_hat().eps(1e-7)`, the form that the paper gives at the end of its section 2. optax's `adam` has ε outside
/// the root like PyTorch (`eps_root = 0`).
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
/// let mut opt = Adam::new(0.1).eps(0.0);
/// let mut w = array![1.0, 1.0];
/// opt.step(&mut w, &array![0.001, -1000.0])?; // the first step has length η, whatever the gradient
/// assert!((w[0] - 0.9_f64).abs() < 1e-12 && (w[1] - 1.1).abs() < 1e-12);
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// # References
/// D. P. Kingma and J. Ba, *Adam: A Method for Stochastic Optimization* (2014), arXiv:1412.6980, algorithm 1;
/// S. J. Reddi, S. Kale and S. Kumar, *On the Convergence of Adam and Beyond* (2018), arXiv:1904.09237, algorithm 2
/// (AMSGrad).
pub type Adam<A> = Elementwise<AdamRule<false>, A>;

/// AdamW: Adam with weight decay decoupled from the gradient.
///
/// # Update rule
/// ```text
/// θ ← θ(1 − ηλ)
/// θ ← the update of Adam, its moments without the decay
/// ```
/// The shrinking is not divided by √v̂, so that all parameters decay at the same rate ηλ.
///
/// # Hyper-parameters
/// Those of [`Adam`], with its methods, and
///
/// | name | default | range | meaning |
/// |---|---|---|---|
/// | `weight_decay` λ | 0.01 | λ ≥ 0 | decay per step and unit of learning rate |
///
/// # State
/// That of [`Adam`].
///
/// # Conventions
/// PyTorch's `AdamW`. The paper's decay is λ alone, scaled by the schedule multiplier; PyTorch's, Keras' and optax's
/// is ηλ, as here. optax's default λ is 1e-4. The decay pulls every parameter towards zero; where that is not wanted, as
/// in fitting a curve, take [`Adam`].
///
/// # Errors
/// Those of [`Adam`].
///
/// # Example
/// ```
/// use gradus::prelude::*;
/// use ndarray::array;
///
/// let mut opt = AdamW::new(0.1).weight_decay(0.5);
/// let mut w = array![1.0];
/// opt.step(&mut w, &array![0.0])?; // no gradient to speak of: only the decay
/// assert_eq!(w, array![0.95]);
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// # References
/// I. Loshchilov and F. Hutter, *Decoupled Weight Decay Regularization* (2017), arXiv:1711.05101, algorithm 2.
pub type AdamW<A> = Elementwise<AdamRule<true>, A>;

/// The rule of [`Adam`] and, with decoupled decay, of [`AdamW`].
#[derive(Debug, Clone)]
pub struct AdamRule<const DECOUPLED: bool> {
    beta1: Hyper,
    beta2: Hyper,
    eps: Hyper,
    amsgrad: bool,
    eps_hat: bool,
    bias_correction: bool,
}

impl<const DECOUPLED: bool> Default for AdamRule<DECOUPLED> {
    fn default() -> Self {
        Self {
            beta1: 0.9.into(),
            beta2: 0.999.into(),
            eps: 1e-8.into(),
            amsgrad: false,
            eps_hat: false,
            bias_correction: true,
        }
    }
}

impl<A: Scalar> Adam<A> {
    /// Adam with PyTorch's defaults: β₁ 0.9, β₂ 0.999, ε 1e-8, no weight decay.
    pub fn new(learning_rate: impl Into<Hyper>) -> Self {
        Self::from_rule(AdamRule::default(), learning_rate)
    }
}

impl<A: Scalar> AdamW<A> {
    /// AdamW with PyTorch's defaults: β₁ 0.9, β₂ 0.999, ε 1e-8, weight decay 0.01.
    pub fn new(learning_rate: impl Into<Hyper>) -> Self {
        Self::from_rule(AdamRule::default(), learning_rate).weight_decay(0.01)
    }
}

/// Adam's setters, and AdamW's.
impl<A: Scalar, const DECOUPLED: bool> Elementwise<AdamRule<DECOUPLED>, A> {
    /// The decay β₁ of the first moment, 0 ≤ β₁ < 1.
    pub fn beta1(mut self, beta1: impl Into<Hyper>) -> Self {
        self.rule.beta1 = beta1.into();
        self
    }

    /// The decay β₂ of the second moment, 0 ≤ β₂ < 1.
    pub fn beta2(mut self, beta2: impl Into<Hyper>) -> Self {
        self.rule.beta2 = beta2.into();
        self
    }

    /// The ε ≥ 0 that keeps the division finite.
    pub fn eps(mut self, eps: impl Into<Hyper>) -> Self {
        self.rule.eps = eps.into();
        self
    }

    /// Divides by the largest second moment seen (AMSGrad).
    #[doc(alias = "AMSGrad")]
    pub fn amsgrad(mut self) -> Self {
        self.rule.amsgrad = true;
        self
    }

    /// Adds ε to √v before the bias correction (the paper's ε̂; Keras).
    pub fn eps_hat(mut self) -> Self {
        self.rule.eps_hat = true;
        self
    }

    /// Takes the moments as they are, biased towards zero in the first steps.
    pub fn no_bias_correction(mut self) -> Self {
        self.rule.bias_correction = false;
        self
    }
}

/// The hyper-parameters of one step.
#[derive(Debug)]
pub struct Values {
    beta1: f64,
    beta2: f64,
    eps: f64,
}

/// The numbers of one step and tensor.
#[derive(Debug, Clone, Copy)]
pub struct Coefficients<A> {
    beta1: A,
    one_minus_beta1: A,
    beta2: A,
    one_minus_beta2: A,
    step_size: A,
    root_scale: A,
    eps: A,
}

impl<A: Scalar, const DECOUPLED: bool> Rule<A> for AdamRule<DECOUPLED> {
    type Values = Values;
    type Coefficients = Coefficients<A>;

    fn name(&self) -> &'static str {
        if DECOUPLED { "adamw" } else { "adam" }
    }

    fn slots(&self) -> &'static [&'static str] {
        if self.amsgrad { &["exp_avg", "exp_avg_sq", "max_exp_avg_sq"] } else { &["exp_avg", "exp_avg_sq"] }
    }

    fn decay(&self) -> Decay {
        if DECOUPLED { Decay::Decoupled } else { Decay::Coupled }
    }

    fn values(&self, step: u64) -> Result<Values> {
        Ok(Values {
            beta1: self.beta1.within_as::<A>("beta1", 0.0..1.0, step)?,
            beta2: self.beta2.within_as::<A>("beta2", 0.0..1.0, step)?,
            eps: self.eps.within_as::<A>("eps", 0.0.., step)?,
        })
    }

    fn hyper_parameters(&self) -> Vec<&Hyper> {
        vec![&self.beta1, &self.beta2, &self.eps]
    }

    fn coefficients(&self, &Values { beta1, beta2, eps }: &Values, at: &At) -> Coefficients<A> {
        let correction = |beta: f64| if self.bias_correction { 1.0 - power(beta, at.step) } else { 1.0 };
        let (first, root) = (correction(beta1), correction(beta2).sqrt());
        let (step_size, root_scale) = match self.eps_hat {
            false => (at.learning_rate / first, 1.0 / root),
            true => (at.learning_rate * root / first, 1.0),
        };
        Coefficients {
            beta1: A::from_f64(beta1),
            one_minus_beta1: A::from_f64(1.0 - beta1),
            beta2: A::from_f64(beta2),
            one_minus_beta2: A::from_f64(1.0 - beta2),
            step_size: A::from_f64(step_size),
            root_scale: A::from_f64(root_scale),
            eps: A::from_f64(eps),
        }
    }

    fn sweep(&self, c: Coefficients<A>, lanes: Lanes<'_, A>) {
        match self.amsgrad {
            false => lanes.each(c, |c, param, grad, [m, v]: [A; 2]| {
                let (m, v) = c.moments(grad, m, v);
                (c.moved(param, m, v), [m, v])
            }),
            true => lanes.each(c, |c, param, grad, [m, v, max]: [A; 3]| {
                let (m, v) = c.moments(grad, m, v);
                let max = if max > v { max } else { v };
                (c.moved(param, m, max), [m, v, max])
            }),
        }
    }
}

/// By squaring: `powf` is the platform's own, and its last bit is not the same on all. What does not show in
/// 1 − βᵗ is 0; denormal numbers would take longer than the rest of the step.
fn power(base: f64, exponent: u64) -> f64 {
    const LEAST: f64 = 1e-20;
    let (mut power, mut square, mut remaining) = (1.0, base, exponent);
    while remaining > 0 {
        if square < LEAST {
            return 0.0;
        }
        // `square` or 1, without a jump that no processor could predict.
        let odd = 0_u64.wrapping_sub(remaining & 1);
        power *= f64::from_bits((square.to_bits() & odd) | (1.0_f64.to_bits() & !odd));
        square *= square;
        remaining /= 2;
    }
    power
}

impl<A: Scalar> Coefficients<A> {
    #[inline(always)]
    fn moments(&self, grad: A, m: A, v: A) -> (A, A) {
        (self.beta1 * m + self.one_minus_beta1 * grad, self.beta2 * v + self.one_minus_beta2 * grad * grad)
    }

    #[inline(always)]
    fn moved(&self, param: A, m: A, v: A) -> A {
        param - self.step_size * (m / (v.sqrt() * self.root_scale + self.eps))
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use crate::prelude::*;

    #[test]
    fn first_steps_by_hand() {
        let mut opt = Adam::new(0.5).beta1(0.5).beta2(0.75).eps(1.0).no_bias_correction();
        let mut w = array![8.0];
        opt.step(&mut w, &array![4.0]).unwrap(); // m = 2, v = 4
        assert_eq!(w, array![8.0 - 0.5 * 2.0 / 3.0]);

        let mut opt = Adam::new(0.5).beta1(0.5).beta2(0.75).eps(1.0);
        let mut w = array![8.0];
        opt.step(&mut w, &array![4.0]).unwrap(); // m̂ = 4, v̂ = 16
        assert_eq!(w, array![8.0 - 0.5 * 4.0 / 5.0]);

        let mut opt = Adam::new(0.5).beta1(0.5).beta2(0.75).eps(1.0).eps_hat();
        let mut w = array![8.0];
        opt.step(&mut w, &array![4.0]).unwrap(); // η√0.25/0.5 = η, m/(√v + ε) = 2/3
        assert_eq!(w, array![8.0 - 0.5 * 2.0 / 3.0]);
    }

    #[test]
    fn powers_by_squaring() {
        for (base, exponent) in [(0.9, 0), (0.9, 1), (0.5, 10), (0.999, 100), (0.999, 12_345), (0.0, 3)] {
            let expected = f64::powf(base, exponent as f64);
            // Each squaring doubles the relative error of what it squares.
            let tolerance = exponent as f64 * f64::EPSILON * expected;
            assert!((super::power(base, exponent) - expected).abs() <= tolerance, "{base}^{exponent}");
        }
        assert_eq!(super::power(0.999, u64::MAX), 0.0);
    }

    #[test]
    fn without_memory_the_first_moment_is_the_gradient() {
        let mut opt = Adam::new(0.5).beta1(0.0).beta2(0.0).eps(0.0);
        let mut w = array![0.0_f32];
        opt.step(&mut w, &array![1e8]).unwrap();
        opt.step(&mut w, &array![-1.0]).unwrap();
        assert_eq!(w, array![0.0]);
    }

    #[test]
    fn amsgrad_keeps_the_largest_second_moment() {
        let mut opt = Adam::new(0.5).beta1(0.0).beta2(0.0).eps(0.0).amsgrad();
        let mut w = array![0.0];
        opt.step(&mut w, &array![4.0]).unwrap();
        opt.step(&mut w, &array![-1.0]).unwrap(); // divided by 4 still
        assert_eq!(w, array![-0.5 + 0.125]);
        assert_eq!(opt.slot("", "max_exp_avg_sq").unwrap(), array![16.0].into_dyn());
    }
}
