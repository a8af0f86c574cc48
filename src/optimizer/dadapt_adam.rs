//! D-Adaptation for Adam.

use crate::hyper_parameters;
use crate::params::Scalar;
use crate::rule::{At, Decay, Elements, Elementwise, Lanes, MAX_SUMS, Measures, Rule};
use crate::schedule::Hyper;

/// Adam with D-Adaptation: it finds its learning rate, as a lower bound of the distance to the solution that never falls.
///
/// # Update rule
/// ```text
/// r ← √β₂·r + (1 − √β₂)·dηc·⟨∇J(θ), s/(√v + ε)⟩             over all tensors
/// m ← β₁m + (1 − β₁)·dηc·∇J(θ)
/// v ← β₂v + (1 − β₂)∇J(θ)²
/// s ← √β₂·s + (1 − √β₂)·dηc·∇J(θ)
/// θ ← θ − m/(√v + ε) − dηc·λθ
/// d ← max(d, min(r/((1 − √β₂)‖s‖₁), γd))                    ‖s‖₁ over all tensors
/// ```
/// c is √(1 − β₂ᵗ)/(1 − β₁ᵗ), where t is the number of steps in which the tensor had a gradient, starting at 1; or 1 with `bias_correction(false)`. d starts from d₀. If ‖s‖₁
/// is 0, d and r are unchanged.
///
/// **Set η to 1**, or to a schedule whose largest value is 1. [`d`](Self::d) is what Adam's learning rate would be. [`Prodigy`](crate::Prodigy) finds it faster.
///
/// # Hyper-parameters
/// Each is set by the method of its name and takes a number, a [schedule](crate::schedule) or a closure.
///
/// | name | default | range | meaning |
/// |---|---|---|---|
/// | `learning_rate` η | – | η ≥ 0 | factor of d; 1 is usual |
/// | `beta1` β₁ | 0.9 | 0 ≤ β₁ < 1 | fraction of the average gradient kept per step |
/// | `beta2` β₂ | 0.999 | 0 ≤ β₂ < 1 | fraction of the second moment kept per step |
/// | `eps` ε | 1e-8 | ε ≥ 0 | keeps the division finite, unit of the gradient |
/// | `d0` d₀ | 1e-6 | d₀ > 0 | first d, which should be too small; keep it constant |
/// | `growth_rate` γ | ∞ | γ ≥ 1 | the most that d grows by in a step; 1.02 acts as a warm-up |
/// | `weight_decay` λ | 0 | λ ≥ 0 | decay per step and unit of dη, decoupled |
/// | `bias_correction` | true | – | Adam's bias correction |
///
/// The learning rates of groups multiply a tensor's steps and its part in the sums.
///
/// # State
/// `exp_avg` m, `exp_avg_sq` v and `s`, each of the parameter's shape: three elements per parameter (12 bytes in f32). And three numbers of the whole: d, its
/// last value, and r. A step reads parameter, gradient and state twice. If an adaptor checks it first, as `accumulate` and `route` do, it is three times.
///
/// # Conventions
/// optax's `dadapt_adamw`; `d0` is `estim_lr0` there. pytorch-optimizer's `DAdaptAdam` and the authors' `DAdaptAdam` have no bias correction by default. Tensors
/// without a gradient in a step have no part in its sums. Inside [`sharded`](crate::OptimizerExt::sharded), sums are those over all ranks.
///
/// # Errors
/// Those of [`Prodigy`](crate::Prodigy).
///
/// # Example
/// ```
/// use gradus::prelude::*;
/// use ndarray::array;
///
/// let mut opt = DAdaptAdam::new(1.0);
/// let mut w = array![3.0, -2.0];
/// for _ in 0..200 {
///     let grads = 2.0 * &w;
///     opt.step(&mut w, &grads)?;
/// }
/// assert!(opt.d() > 0.1_f64, "{}", opt.d());
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// # References
/// A. Defazio and K. Mishchenko, *Learning-Rate-Free Learning by D-Adaptation* (2023), [arXiv:2301.07733](https://arxiv.org/abs/2301.07733), algorithm 5.
#[doc(alias = "dadapt_adamw")]
pub type DAdaptAdam<A = f32> = Elementwise<DAdaptAdamRule, A>;

hyper_parameters! {
    /// The rule of [`DAdaptAdam`].
    pub struct DAdaptAdamRule => DAdaptAdamValues for Elementwise {
        /// The decay β₁ of the average gradient, 0 ≤ β₁ < 1.
        beta1 / set_beta1: 0.9, 0.0..1.0;
        /// The decay β₂ of the second moment, 0 ≤ β₂ < 1.
        beta2 / set_beta2: 0.999, 0.0..1.0;
        /// The ε ≥ 0 that is added to the root of the second moment.
        eps / set_eps: 1e-8, 0.0..;
        /// The first d, d₀ > 0. Keep it constant.
        d0 / set_d0: 1e-6, f64::MIN_POSITIVE..;
    }
    optional {
        /// The most γ ≥ 1 that d grows by in a step; without it there is no limit.
        growth_rate / set_growth_rate: 1.0..;
    }
    options {
        /// Divides the moments by 1 − βᵗ, as Adam does, which is the default.
        bias_correction: bool = true;
    }
}

impl<A: Scalar> DAdaptAdam<A> {
    /// D-Adaptation with optax's defaults: β₁ 0.9, β₂ 0.999, ε 1e-8, d₀ 1e-6, no weight decay. The learning rate is usually 1.
    pub fn new(learning_rate: impl Into<Hyper>) -> Self {
        Self::from_rule(DAdaptAdamRule::default(), learning_rate)
    }

    /// The estimate d: with η = 1, the learning rate of the next step. Before the first step, it is 0.
    pub fn d(&self) -> f64 {
        self.total("d")
    }
}

impl DAdaptAdamValues {
    /// dηc.
    fn rate(&self, rule: &DAdaptAdamRule, d: f64, at: &At) -> f64 {
        let correction = match rule.bias_correction {
            true => at.bias_correction(self.beta2).sqrt() / at.bias_correction(self.beta1),
            false => 1.0,
        };
        d * at.learning_rate * correction
    }
}

impl<A: Scalar> Rule<A> for DAdaptAdamRule {
    /// β₁ and the factor of the gradient in m, β₂ and 1 − β₂, √β₂ and the factor of the gradient in s, ε, and λ with its factor.
    type Coefficients = [A; 8];

    fn name(&self) -> &'static str {
        "dadapt_adam"
    }

    fn slots(&self) -> &'static [&'static str] {
        &["exp_avg", "exp_avg_sq", "s"]
    }

    fn non_negative(&self) -> &'static [&'static str] {
        &["exp_avg_sq"]
    }

    fn decay(&self) -> Decay {
        Decay::Own
    }

    /// The numbers of the whole: d of this step, d for the next one, and r.
    fn numbers(&self) -> &'static [&'static str] {
        &["d_of_step", "d", "numerator_weighted"]
    }

    fn measures(&self) -> Option<Measures> {
        Some(Measures::Step)
    }

    /// ⟨∇J, s/(√v + ε)⟩ with its weight, and ‖s‖₁.
    fn measure(&self, values: &DAdaptAdamValues, at: &At, tensor: Elements<'_, A>) -> [f64; MAX_SUMS] {
        let d = if at.numbers[1] > 0.0 { at.numbers[1] } else { values.d0 };
        let (rate, kept) = (values.rate(self, d, at), values.beta2.sqrt());
        let c = [kept, (1.0 - kept) * rate, values.eps].map(A::from_f64);
        let [progress, norm] = tensor.sum(c, |&[kept, added, eps], _, grad, [_, v, s]: [A; 3]| {
            let divisor = v.sqrt() + eps;
            let scaled = if divisor == A::zero() { divisor } else { s / divisor };
            [grad.as_f64() * scaled.as_f64(), (kept * s + added * grad).abs().as_f64()]
        });
        [rate * progress, norm, 0.0]
    }

    fn learn(&self, values: &DAdaptAdamValues, [progress, norm, _]: [f64; MAX_SUMS], numbers: &mut [f64]) {
        let [of_step, d, numerator] = numbers else { return };
        if *d == 0.0 {
            *d = values.d0;
        }
        *of_step = *d;
        if norm == 0.0 {
            return;
        }
        let kept = values.beta2.sqrt();
        *numerator = kept * *numerator + (1.0 - kept) * progress;
        let estimate = *numerator / ((1.0 - kept) * norm);
        *d = d.max(values.growth_rate.map_or(estimate, |rate| estimate.min(*d * rate)));
    }

    fn coefficients(&self, values: &DAdaptAdamValues, at: &At) -> (f64, [A; 8]) {
        let &DAdaptAdamValues { beta1, beta2, eps, .. } = values;
        let (rate, kept) = (values.rate(self, at.numbers[0], at), beta2.sqrt());
        let moments = [beta1, (1.0 - beta1) * rate, beta2, 1.0 - beta2, kept, (1.0 - kept) * rate];
        let [a, b, c, d, e, f] = moments;
        (1.0, [a, b, c, d, e, f, eps, rate * at.weight_decay].map(A::from_f64))
    }

    fn sweep(&self, c: [A; 8], lanes: Lanes<'_, A>) {
        lanes.each(c, |&[b1, r1, b2, r2, b3, r3, eps, decay], param, grad, [m, v, s]: [A; 3]| {
            let (m, v) = (b1 * m + r1 * grad, b2 * v + r2 * (grad * grad));
            let divisor = v.sqrt() + eps;
            let direction = if divisor == A::zero() { divisor } else { m / divisor };
            (direction + decay * param, [m, v, b3 * s + r3 * grad])
        });
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use crate::prelude::*;

    #[test]
    fn first_steps_by_hand() {
        let mut opt = DAdaptAdam::new(1.0).beta1(0.5).beta2(0.25).eps(0.0).d0(0.5).bias_correction(false);
        let mut w = (array![1.0], array![1.0]);
        // m = 0.5·0.5·g, √v = √0.75·|g|, s = 0.5·0.5·g
        opt.step(&mut w, &(array![2.0], array![-4.0])).unwrap();
        let length = 0.25 / 0.75_f64.sqrt();
        assert!((w.0[0] - (1.0 - length)).abs() < 1e-15 && (w.1[0] - (1.0 + length)).abs() < 1e-15);
        assert_eq!(opt.d(), 0.5);
        // r = 0.5·0.5·(2·0.5/(√0.75·2) + 4·1/(√0.75·4)), ‖s‖₁ = 0.75 + 1.5
        opt.step(&mut w, &(array![2.0], array![-4.0])).unwrap();
        let estimate = 0.25 * (0.5 + 1.0) / 0.75_f64.sqrt() / (0.5 * 2.25);
        assert!((opt.d() - estimate.max(0.5)).abs() < 1e-15, "{}", opt.d());
    }
}
