//! Prodigy.

use crate::hyper_parameters;
use crate::params::Scalar;
use crate::rule::{At, Decay, Elements, Elementwise, Lanes, MAX_SUMS, Measures, Rule};
use crate::schedule::Hyper;

/// Prodigy: Adam that finds its learning rate, from the distance that the parameters have moved along the gradients.
///
/// # Update rule
/// ```text
/// r ← β₃r + (d/d₀)·dηc·⟨∇J(θ), θ₀ − θ⟩                        over all tensors
/// m ← β₁m + (1 − β₁)d∇J(θ)
/// v ← β₂v + (1 − β₂)(d∇J(θ))²
/// s ← β₃s + (d/d₀)·dηc·∇J(θ)                                 without ηc if `safeguard_warmup`
/// d' ← min(max(d, κr/‖s‖₁), γd)                              ‖s‖₁ over all tensors
/// θ ← θ − dηc·(m/(√v + d'ε) + λθ)
/// d ← d'
/// ```
/// θ₀ are the parameters before the first step. c is 1, or √(1 − β₂ᵗ)/(1 − β₁ᵗ) with `bias_correction`; t is the number of steps in which the tensor had a
/// gradient, starting at 1. The maximum is over all estimates so far: while γ limits d, it continues to grow towards it. If ‖s‖₁ is 0, d and r are unchanged.
///
/// **Set η to 1**, or to a schedule whose largest value is 1. [`d`](Self::d) is what Adam's learning rate would be.
///
/// # Hyper-parameters
/// Each is set by the method of its name and takes a number, a [schedule](crate::schedule) or a closure.
///
/// | name | default | range | meaning |
/// |---|---|---|---|
/// | `learning_rate` η | – | η ≥ 0 | factor of d; 1 is usual |
/// | `beta1` β₁ | 0.9 | 0 ≤ β₁ < 1 | fraction of the average gradient kept per step |
/// | `beta2` β₂ | 0.999 | 0 ≤ β₂ < 1 | fraction of the second moment kept per step |
/// | `beta3` β₃ | √β₂ | 0 ≤ β₃ < 1 | fraction of the sums r and s kept per step |
/// | `eps` ε | 1e-8 | ε ≥ 0 | keeps the division finite, unit of the gradient |
/// | `d0` d₀ | 1e-6 | d₀ > 0 | first d, which should be too small; keep it constant |
/// | `d_coef` κ | 1 | κ > 0 | factor of each estimate: 0.5 or 2 for smaller or larger steps |
/// | `growth_rate` γ | ∞ | γ ≥ 1 | the most that d grows by in a step; 1.02 acts as a warm-up |
/// | `weight_decay` λ | 0 | λ ≥ 0 | decay per step and unit of dη |
/// | `safeguard_warmup` | false | – | leaves the learning rate out of s, so that d does not become too large in a warm-up |
/// | `bias_correction` | false | – | Adam's bias correction |
/// | `coupled_decay` | false | – | weight decay is an L2 penalty: `∇J(θ) + λθ` everywhere, and λ is 0 in the last line but one |
///
/// A tensor with learning rate 0 takes no part in the step. The learning rates of groups multiply a tensor's steps and its part in the sums.
///
/// # State
/// `exp_avg` m, `exp_avg_sq` v, `s` and `init_minus_param` θ₀ − θ, each of the parameter's shape: four elements per parameter (16 bytes in f32). And
/// four numbers of the whole: d, its last value, the largest estimate and r. A step reads parameter, gradient and state twice. If an adaptor checks it first, as `accumulate` and `route`
/// do, it is three times.
///
/// # Conventions
/// The authors' `Prodigy` (prodigyopt 1.1.2), with one d for all groups; `beta3=None` there is √β₂, too, and `decouple=False` is `coupled_decay`.
/// optax's `prodigy` always has the bias correction, and its ε belongs to the old d in no case; Adam's correction there also counts steps without a gradient.
/// pytorch-optimizer's `Prodigy` is the authors'.
///
/// θ₀ − θ is what this optimizer has moved. Put adaptors that change parameters by themselves (`lookahead`, `local_steps`) around another optimizer. Tensors
/// without a gradient in a step have no part in its sums. Inside [`sharded`](crate::OptimizerExt::sharded), sums are those over all ranks.
///
/// # Errors
/// A step returns [`StepError::HyperParameter`](crate::error::StepError::HyperParameter) if a value is out of range,
/// [`StepError::NonFiniteGradient`](crate::error::StepError::NonFiniteGradient), [`StepError::NonFiniteParameter`](crate::error::StepError::NonFiniteParameter) or
/// [`StepError::NormOverflow`](crate::error::StepError::NormOverflow) if a sum is not finite,
/// [`StepError::RowsUnusable`](crate::error::StepError::RowsUnusable) for gradients of rows,
/// [`StepError::OptionNotPossible`](crate::error::StepError::OptionNotPossible) with options that change the move, and the errors of
/// [`Step::pair`](crate::Step::pair) and of changed parameters.
///
/// # Example
/// ```
/// use gradus::prelude::*;
/// use ndarray::array;
///
/// let mut opt = Prodigy::new(1.0);
/// let mut w = array![3.0, -2.0];
/// for _ in 0..200 {
///     let grads = 2.0 * &w;
///     opt.step(&mut w, &grads)?;
/// }
/// assert!(opt.d() > 0.1 && w.iter().all(|x: &f64| x.abs() < 1.0), "{} {w}", opt.d());
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// # References
/// K. Mishchenko and A. Defazio, *Prodigy: An Expeditiously Adaptive Parameter-Free Learner* (2023),
/// [arXiv:2306.06101](https://arxiv.org/abs/2306.06101), algorithm 4.
pub type Prodigy<A = f32> = Elementwise<ProdigyRule, A>;

hyper_parameters! {
    /// The rule of [`Prodigy`].
    pub struct ProdigyRule => ProdigyValues for Elementwise {
        /// The decay β₁ of the average gradient, 0 ≤ β₁ < 1.
        beta1 / set_beta1: 0.9, 0.0..1.0;
        /// The decay β₂ of the second moment, 0 ≤ β₂ < 1.
        beta2 / set_beta2: 0.999, 0.0..1.0;
        /// The ε ≥ 0 that is added to the root of the second moment, times d.
        eps / set_eps: 1e-8, 0.0..;
        /// The first d, d₀ > 0. Keep it constant.
        d0 / set_d0: 1e-6, f64::MIN_POSITIVE..;
        /// The factor κ > 0 of each estimate of d.
        d_coef / set_d_coef: 1.0, f64::MIN_POSITIVE..;
    }
    optional {
        /// The decay β₃ of the sums that d is estimated from, 0 ≤ β₃ < 1; without it √β₂.
        beta3 / set_beta3: 0.0..1.0;
        /// The most γ ≥ 1 that d grows by in a step; without it there is no limit.
        growth_rate / set_growth_rate: 1.0..;
    }
    options {
        /// Leaves the learning rate out of the sum s, so that d does not become too large in a warm-up.
        safeguard_warmup: bool = false;
        /// Divides the moments by 1 − βᵗ, as Adam does.
        #[doc(alias = "use_bias_correction")]
        bias_correction: bool = false;
        /// Adds the weight decay to the gradient.
        #[doc(alias = "decouple")]
        coupled_decay: bool = false;
    }
}

impl<A: Scalar> Prodigy<A> {
    /// Prodigy with its authors' defaults: β₁ 0.9, β₂ 0.999, ε 1e-8, d₀ 1e-6, no weight decay. The learning rate is usually 1.
    pub fn new(learning_rate: impl Into<Hyper>) -> Self {
        Self::from_rule(ProdigyRule::default(), learning_rate)
    }

    /// The estimate d: with η = 1, the learning rate of the next step. Before the first step, it is 0.
    pub fn d(&self) -> f64 {
        self.total("d")
    }
}

impl ProdigyValues {
    fn beta3(&self) -> f64 {
        self.beta3.unwrap_or(self.beta2.sqrt())
    }

    /// dηc.
    fn rate(&self, rule: &ProdigyRule, d: f64, at: &At) -> f64 {
        let correction = match rule.bias_correction {
            true => at.bias_correction(self.beta2).sqrt() / at.bias_correction(self.beta1),
            false => 1.0,
        };
        d * at.learning_rate * correction
    }

    /// What is kept of s, and the factor of the gradient in it.
    fn weights(&self, rule: &ProdigyRule, d: f64, at: &At) -> [f64; 2] {
        let rate = if rule.safeguard_warmup { d } else { self.rate(rule, d, at) };
        [self.beta3(), d / self.d0 * rate]
    }
}

impl<A: Scalar> Rule<A> for ProdigyRule {
    /// β₁ and the factor of the gradient in m, β₂ and that in v, β₃ and that in s, d'ε, λ and the step size.
    type Coefficients = [A; 9];

    fn name(&self) -> &'static str {
        "prodigy"
    }

    fn slots(&self) -> &'static [&'static str] {
        &["exp_avg", "exp_avg_sq", "s", "init_minus_param"]
    }

    fn non_negative(&self) -> &'static [&'static str] {
        &["exp_avg_sq"]
    }

    fn decay(&self) -> Decay {
        Decay::Own
    }

    /// The numbers of the whole: d of this step, d for the next one, the largest estimate so far, and r.
    fn numbers(&self) -> &'static [&'static str] {
        &["d_of_step", "d", "d_max", "d_numerator"]
    }

    fn measures(&self) -> Option<Measures> {
        Some(Measures::Step)
    }

    /// ⟨∇J, θ₀ − θ⟩ with its weight, and ‖s‖₁.
    fn measure(&self, values: &ProdigyValues, at: &At, tensor: Elements<'_, A>) -> [f64; MAX_SUMS] {
        if at.learning_rate == 0.0 {
            return [0.0; MAX_SUMS];
        }
        let d = if at.numbers[1] > 0.0 { at.numbers[1] } else { values.d0 };
        let [kept, added] = values.weights(self, d, at).map(A::from_f64);
        let coupled = A::from_f64(if self.coupled_decay { at.weight_decay } else { 0.0 });
        let [progress, norm] =
            tensor.sum([kept, added, coupled], |&[kept, added, coupled], param, grad, [_, _, s, moved]: [A; 4]| {
                let grad = grad + coupled * param;
                [grad.as_f64() * moved.as_f64(), (kept * s + added * grad).abs().as_f64()]
            });
        [d / values.d0 * values.rate(self, d, at) * progress, norm, 0.0]
    }

    fn learn(&self, values: &ProdigyValues, [progress, norm, _]: [f64; MAX_SUMS], numbers: &mut [f64]) {
        let [of_step, d, largest, numerator] = numbers else { return };
        if *d == 0.0 {
            (*d, *largest) = (values.d0, values.d0);
        }
        *of_step = *d;
        if norm == 0.0 {
            return;
        }
        *numerator = values.beta3() * *numerator + progress;
        let estimate = values.d_coef * *numerator / norm;
        if *d == values.d0 {
            *d = d.max(estimate);
        }
        *largest = largest.max(estimate);
        *d = values.growth_rate.map_or(*largest, |rate| largest.min(*d * rate));
    }

    fn coefficients(&self, values: &ProdigyValues, at: &At) -> (f64, [A; 9]) {
        let ([d, new, ..], &ProdigyValues { beta1, beta2, eps, .. }) = (at.numbers, values);
        let [kept, added] = values.weights(self, d, at);
        let rate = values.rate(self, d, at);
        // Without an average, the gradient has the new d.
        let first = if beta1 == 0.0 { new } else { d * (1.0 - beta1) };
        let factors = match at.learning_rate {
            0.0 => [1.0, 0.0, 1.0, 0.0, 1.0, 0.0],
            _ => [beta1, first, beta2, d * d * (1.0 - beta2), kept, added],
        };
        let [a, b, c, d, e, f] = factors;
        (rate, [a, b, c, d, e, f, new * eps, at.weight_decay, rate].map(A::from_f64))
    }

    fn sweep(&self, c: [A; 9], lanes: Lanes<'_, A>) {
        let step = |&[b1, r1, b2, r2, b3, r3, eps, _, _]: &[A; 9], grad: A, [m, v, s]: [A; 3]| {
            let (m, v) = (b1 * m + r1 * grad, b2 * v + r2 * (grad * grad));
            let divisor = v.sqrt() + eps;
            let direction = if divisor == A::zero() { divisor } else { m / divisor };
            (direction, [m, v, b3 * s + r3 * grad])
        };
        match self.coupled_decay {
            false => lanes.each(c, |c, param, grad, [m, v, s, moved]: [A; 4]| {
                let (direction, [m, v, s]) = step(c, grad, [m, v, s]);
                let direction = direction + c[7] * param;
                (direction, [m, v, s, moved + (param - (param - c[8] * direction))])
            }),
            true => lanes.each(c, |c, param, grad, [m, v, s, moved]: [A; 4]| {
                let (direction, [m, v, s]) = step(c, grad + c[7] * param, [m, v, s]);
                (direction, [m, v, s, moved + (param - (param - c[8] * direction))])
            }),
        }
    }
}
