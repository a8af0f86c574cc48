//! Adam.

use crate::hyper_parameters;
use crate::params::Scalar;
use crate::rule::{At, Decay, Elementwise, Lanes, Rule, SecondMoment};
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
/// t is the number of steps in which the tensor had a gradient, starting at 1. m and v start from 0 and are therefore too small in the first steps;
/// dividing by `1 − βᵗ` corrects this. [`bias_correction(false)`](Adam::bias_correction) omits the correction: `θ ← θ − η·m/(√v + ε)`.
///
/// [`amsgrad`](Adam::amsgrad) keeps the divisor from shrinking: it uses `w ← max(w, v)` instead of v in v̂.
/// [`eps_hat`](Adam::eps_hat) adds ε before the correction of v:
/// ```text
/// θ ← θ − η·√(1 − β₂ᵗ)/(1 − β₁ᵗ)·m/(√v + ε)
/// ```
/// [`nesterov`](Adam::nesterov) looks one step of the first moment ahead: `m̂ ← β₁m/(1 − β₁ᵗ⁺¹) + (1 − β₁)∇J(θ)/(1 − β₁ᵗ)`.
///
/// With weight decay λ the gradient is `∇J(θ) + λθ`, also in m and v. In [`AdamW`](crate::AdamW) the decay is separate from the gradient.
///
/// # Hyper-parameters
/// Each is set by the method of its name and takes a number, a [schedule](crate::schedule) or a closure.
///
/// | name | default | range | meaning |
/// |---|---|---|---|
/// | `learning_rate` η | – | η ≥ 0 | length of the step, in units of the parameter |
/// | `beta1` β₁ | 0.9 | 0 ≤ β₁ < 1 | fraction of the first moment kept per step |
/// | `beta2` β₂ | 0.999 | 0 ≤ β₂ < 1 | fraction of the second moment kept per step |
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
/// `.eps_hat(true).eps(1e-7)`, the form that the paper gives at the end of its section 2. optax's `adam` has ε outside
/// the root like PyTorch (`eps_root = 0`). `.nesterov(true)` is optax's `adam(nesterov=True)`; [`NAdam`](crate::NAdam) has Dozat's momentum schedule.
/// PyTorch's `SparseAdam` is `.eps_hat(true)` with gradients of [`Rows`](crate::Rows).
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
/// let mut opt = Adam::new(0.1).eps(0.0);
/// let mut w = array![1.0, 1.0];
/// opt.step(&mut w, &array![0.001, -1000.0])?; // the first step has length η for any gradient
/// assert!((w[0] - 0.9_f64).abs() < 1e-12 && (w[1] - 1.1).abs() < 1e-12);
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// # References
/// D. P. Kingma and J. Ba, *Adam: A Method for Stochastic Optimization* (2014), arXiv:1412.6980, algorithm 1;
/// S. J. Reddi, S. Kale and S. Kumar, *On the Convergence of Adam and Beyond* (2018), [arXiv:1904.09237](https://arxiv.org/abs/1904.09237), algorithm 2
/// (AMSGrad).
pub type Adam<A = f32> = Elementwise<AdamRule<ADAM_FORM>, A>;

/// The optimizers of [`AdamRule`], in the order of [`TITLES`] and [`NAMES`].
pub(super) const ADAM_FORM: usize = 0;
pub(super) const ADAMW_FORM: usize = 1;
pub(super) const LAMB_FORM: usize = 2;
pub(super) const STABLE_ADAMW_FORM: usize = 3;
const TITLES: [&str; 4] = ["Adam", "AdamW", "Lamb", "StableAdamW"];
const NAMES: [&str; 4] = ["adam", "adamw", "lamb", "stableadamw"];

hyper_parameters! {
    /// The rule of [`Adam`] (0) and, with decoupled decay, of [`AdamW`](crate::AdamW) (1), [`Lamb`](crate::Lamb) (2) and [`StableAdamW`](crate::StableAdamW) (3).
    pub struct AdamRule<const FORM: usize> named TITLES[FORM] => AdamValues for Elementwise {
        /// The decay β₁ of the first moment, 0 ≤ β₁ < 1.
        beta1 / set_beta1: 0.9, 0.0..1.0;
        /// The decay β₂ of the second moment, 0 ≤ β₂ < 1.
        beta2 / set_beta2: if FORM == STABLE_ADAMW_FORM { 0.99 } else { 0.999 }, 0.0..1.0;
        /// The ε ≥ 0 that keeps the division finite.
        eps / set_eps: if FORM == LAMB_FORM || FORM == STABLE_ADAMW_FORM { 1e-6 } else { 1e-8 }, 0.0..;
    }
    options {
        /// Divides by the largest second moment seen (AMSGrad).
        #[doc(alias = "AMSGrad")]
        amsgrad: bool = false;
        /// Adds ε to √v before the bias correction (the paper's ε̂; Keras).
        eps_hat: bool = false;
        /// Divides the moments by 1 − βᵗ, which is the default. With `false` they are biased towards zero in the first steps.
        bias_correction: bool = true;
        /// Moves along the first moment that the next step would have with this gradient (Nesterov). For [`Adam`] this is optax's
        /// `adam(nesterov=True)`.
        nesterov: bool = false;
    }
}

impl<A: Scalar> Adam<A> {
    /// Adam with PyTorch's defaults: β₁ 0.9, β₂ 0.999, ε 1e-8, no weight decay.
    pub fn new(learning_rate: impl Into<Hyper>) -> Self {
        Self::from_rule(AdamRule::default(), learning_rate)
    }
}

impl<const FORM: usize> AdamRule<FORM> {
    /// The divisor of an average with this decay.
    fn correction(&self, beta: f64, at: &At) -> f64 {
        if self.bias_correction { at.bias_correction(beta) } else { 1.0 }
    }
}

impl<A: Scalar, const FORM: usize> Rule<A> for AdamRule<FORM> {
    /// β₁, 1 − β₁, β₂, 1 − β₂, the factor of √v, ε and, for Nesterov, the factors of m and of the gradient.
    type Coefficients = [A; 8];

    fn name(&self) -> &'static str {
        NAMES[FORM]
    }

    fn slots(&self) -> &'static [&'static str] {
        if self.amsgrad { &["exp_avg", "exp_avg_sq", "max_exp_avg_sq"] } else { &["exp_avg", "exp_avg_sq"] }
    }

    fn non_negative(&self) -> &'static [&'static str] {
        &["exp_avg_sq", "max_exp_avg_sq"]
    }

    fn decay(&self) -> Decay {
        if FORM == ADAM_FORM { Decay::Coupled } else { Decay::Decoupled }
    }

    fn second_moment(&self, values: &AdamValues, at: &At) -> Option<SecondMoment> {
        Some(SecondMoment { slot: 1, scale: 1.0 / self.correction(values.beta2, at), eps: values.eps })
    }

    #[inline(always)] // called in several places: alone it would be a call in every step
    fn coefficients(&self, &AdamValues { beta1, beta2, eps }: &AdamValues, at: &At) -> (f64, [A; 8]) {
        let (first, second) = (self.correction(beta1, at), self.correction(beta2, at).sqrt());
        let (divisor, ahead, now) = match self.nesterov {
            true => (1.0, beta1 / self.correction(beta1, &at.next()), (1.0 - beta1) / first),
            false => (first, 0.0, 0.0),
        };
        let (step_size, scale) = match self.eps_hat {
            true => (at.learning_rate * second / divisor, 1.0),
            false => (at.learning_rate / divisor, 1.0 / second),
        };
        (step_size, [beta1, 1.0 - beta1, beta2, 1.0 - beta2, scale, eps, ahead, now].map(A::from_f64))
    }

    fn sweep(&self, c: [A; 8], lanes: Lanes<'_, A>) {
        match (self.amsgrad, self.nesterov) {
            (false, false) => lanes.each(c, |&[b1, r1, b2, r2, scale, eps, ..], _, grad, [m, v]: [A; 2]| {
                let (m, v) = (b1 * m + r1 * grad, b2 * v + r2 * grad * grad);
                (m / (v.sqrt() * scale + eps), [m, v])
            }),
            (true, false) => lanes.each(c, |&[b1, r1, b2, r2, scale, eps, ..], _, grad, [m, v, max]: [A; 3]| {
                let (m, v) = (b1 * m + r1 * grad, b2 * v + r2 * grad * grad);
                let max = if max > v { max } else { v }; // v if it is NaN
                (m / (max.sqrt() * scale + eps), [m, v, max])
            }),
            (false, true) => lanes.each(c, |coefficients, _, grad, [m, v]: [A; 2]| {
                let [b1, r1, b2, r2, scale, eps, ahead, now] = *coefficients;
                let (m, v) = (b1 * m + r1 * grad, b2 * v + r2 * grad * grad);
                ((ahead * m + now * grad) / (v.sqrt() * scale + eps), [m, v])
            }),
            (true, true) => lanes.each(c, |coefficients, _, grad, [m, v, max]: [A; 3]| {
                let [b1, r1, b2, r2, scale, eps, ahead, now] = *coefficients;
                let (m, v) = (b1 * m + r1 * grad, b2 * v + r2 * grad * grad);
                let max = if max > v { max } else { v }; // v if it is NaN
                ((ahead * m + now * grad) / (max.sqrt() * scale + eps), [m, v, max])
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
        let mut opt = Adam::new(0.5).beta1(0.5).beta2(0.75).eps(1.0).bias_correction(false);
        let mut w = array![8.0];
        opt.step(&mut w, &array![4.0]).unwrap(); // m = 2, v = 4
        assert_eq!(w, array![8.0 - 0.5 * 2.0 / 3.0]);

        let mut opt = Adam::new(0.5).beta1(0.5).beta2(0.75).eps(1.0);
        let mut w = array![8.0];
        opt.step(&mut w, &array![4.0]).unwrap(); // m̂ = 4, v̂ = 16
        assert_eq!(w, array![8.0 - 0.5 * 4.0 / 5.0]);

        let mut opt = Adam::new(0.5).beta1(0.5).beta2(0.75).eps(1.0).eps_hat(true);
        let mut w = array![8.0];
        opt.step(&mut w, &array![4.0]).unwrap(); // η√0.25/0.5 = η, m/(√v + ε) = 2/3
        assert_eq!(w, array![8.0 - 0.5 * 2.0 / 3.0]);
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
        let mut opt = Adam::new(0.5).beta1(0.0).beta2(0.0).eps(0.0).amsgrad(true);
        let mut w = array![0.0];
        opt.step(&mut w, &array![4.0]).unwrap();
        opt.step(&mut w, &array![-1.0]).unwrap(); // divided by 4 still
        assert_eq!(w, array![-0.5 + 0.125]);
        assert_eq!(opt.slot("", "max_exp_avg_sq").unwrap(), array![16.0].into_dyn());
    }
}
