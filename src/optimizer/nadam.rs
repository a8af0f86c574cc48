//! NAdam and NAdamW.

use crate::hyper_parameters;
use crate::params::Scalar;
use crate::rule::{At, Decay, Elementwise, Lanes, Rule, SecondMoment, real_power};
use crate::schedule::Hyper;

/// NAdam: Adam with Nesterov momentum: each step already uses the momentum of the next step.
///
/// # Update rule
/// ```text
/// m ← β₁m + (1 − β₁)∇J(θ)
/// v ← β₂v + (1 − β₂)∇J(θ)²
/// m̂ ← μₜ₊₁·m/(1 − μ₁μ₂⋯μₜ₊₁) + (1 − μₜ)·∇J(θ)/(1 − μ₁μ₂⋯μₜ)
/// v̂ ← v/(1 − β₂ᵗ)
/// θ ← θ − η·m̂/(√v̂ + ε)
///
/// μₜ = β₁(1 − ½·0.96^(tψ))
/// ```
/// t is the number of steps in which the tensor had a gradient, starting at 1. The momentum μₜ rises from about β₁/2 to β₁.
/// [`momentum_schedule(false)`](NAdam::momentum_schedule) uses μₜ = β₁ in every step:
/// ```text
/// m̂ ← β₁·m/(1 − β₁ᵗ⁺¹) + (1 − β₁)·∇J(θ)/(1 − β₁ᵗ)
/// ```
/// With weight decay λ the gradient is `∇J(θ) + λθ`, also in m and v. In [`NAdamW`] the decay is separate from the gradient.
///
/// # Hyper-parameters
/// Each is set by the method of its name and takes a number, a [schedule](crate::schedule) or a closure.
///
/// | name | default | range | meaning |
/// |---|---|---|---|
/// | `learning_rate` η | – | η ≥ 0 | length of the step, in units of the parameter; PyTorch's default is 2e-3 |
/// | `beta1` β₁ | 0.9 | 0 ≤ β₁ < 1 | fraction of the first moment kept per step |
/// | `beta2` β₂ | 0.999 | 0 ≤ β₂ < 1 | fraction of the second moment kept per step |
/// | `eps` ε | 1e-8 | ε ≥ 0 | keeps the division finite; unit of the gradient |
/// | `momentum_decay` ψ | 4e-3 | ψ ≥ 0 | how fast μₜ approaches β₁ |
/// | `weight_decay` λ | 0 | λ ≥ 0 | strength of the L2 penalty |
///
/// Schedules may change them. The products and powers use the values of the current step.
///
/// # State
/// `exp_avg` m and `exp_avg_sq` v, of the parameter's shape: two elements per parameter (8 bytes in f32). The product of the μ is not state: it
/// is computed from t.
///
/// # Conventions
/// Four algorithms have this name.
/// - PyTorch's `NAdam`: the default. PyTorch rounds the product of the μ to f32, unless its default type is f64.
/// - Keras' `Nadam`: `.momentum_decay(1.0).eps(1e-7)`. μ rises in about 100 steps; with PyTorch's ψ it takes 250 times as long.
/// - optax's `nadam`: `.momentum_schedule(false)`.
/// - timm's and AlgoPerf's `NAdamW`: `m̂ ← (β₁m + (1 − β₁)∇J(θ))/(1 − β₁ᵗ)`, not available here. It is close to optax's.
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
/// let mut opt = NAdam::new(0.25).beta1(0.5).momentum_schedule(false).eps(0.0);
/// let mut w = array![1.0];
/// opt.step(&mut w, &array![8.0])?; // m = 4, m̂ = 0.5·4/0.75 + 0.5·8/0.5, √v̂ = 8
/// assert!((w[0] - (1.0 - 0.25 * 4.0 / 3.0_f64)).abs() < 1e-12);
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// # References
/// T. Dozat, *Incorporating Nesterov Momentum into Adam* (2016), ICLR workshop, algorithm 2.
#[doc(alias = "Nadam")]
pub type NAdam<A = f32> = Elementwise<NAdamRule<false>, A>;

/// NAdamW: NAdam with weight decay decoupled from the gradient.
///
/// # Update rule
/// ```text
/// θ ← θ(1 − ηλ)
/// θ ← the update of NAdam, its moments without the decay
/// ```
///
/// # Hyper-parameters
/// Those of [`NAdam`], with its methods, and
///
/// | name | default | range | meaning |
/// |---|---|---|---|
/// | `weight_decay` λ | 0 | λ ≥ 0 | decay per step and unit of learning rate |
///
/// # State
/// That of [`NAdam`].
///
/// # Conventions
/// PyTorch's `NAdam(decoupled_weight_decay=True)`, whose weight decay is 0 by default. optax's `nadamw` is
/// `NAdamW::new(lr).momentum_schedule(false).weight_decay(1e-4)`. The `NAdamW` of timm and AlgoPerf is another algorithm: see [`NAdam`].
///
/// # Errors
/// Those of [`NAdam`].
///
/// # Example
/// ```
/// use gradus::prelude::*;
/// use ndarray::array;
///
/// let mut opt = NAdamW::new(0.1).weight_decay(0.5);
/// let mut w = array![1.0];
/// opt.step(&mut w, &array![0.0])?; // the gradient is 0: only the decay
/// assert_eq!(w, array![0.95]);
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// # References
/// Those of [`NAdam`] and of [`AdamW`](crate::AdamW).
pub type NAdamW<A = f32> = Elementwise<NAdamRule<true>, A>;

hyper_parameters! {
    /// The rule of [`NAdam`] and, with decoupled decay, of [`NAdamW`].
    pub struct NAdamRule<const DECOUPLED: bool> named (if DECOUPLED { "NAdamW" } else { "NAdam" }) => NAdamValues for Elementwise {
        /// The decay β₁ of the first moment, 0 ≤ β₁ < 1, which is also the final momentum.
        beta1 / set_beta1: 0.9, 0.0..1.0;
        /// The decay β₂ of the second moment, 0 ≤ β₂ < 1.
        beta2 / set_beta2: 0.999, 0.0..1.0;
        /// The ε ≥ 0 that keeps the division finite.
        eps / set_eps: 1e-8, 0.0..;
        /// The speed ψ ≥ 0 with which the momentum rises to β₁.
        momentum_decay / set_momentum_decay: 4e-3, 0.0..;
    }
    options {
        /// Lets the momentum rise from about β₁/2 to β₁, which is the default. With `false` it is always β₁ (optax).
        momentum_schedule: bool = true;
    }
}

impl<A: Scalar> NAdam<A> {
    /// NAdam with PyTorch's defaults: β₁ 0.9, β₂ 0.999, ε 1e-8, ψ 4e-3, no weight decay.
    pub fn new(learning_rate: impl Into<Hyper>) -> Self {
        Self::from_rule(NAdamRule::default(), learning_rate)
    }
}

impl<A: Scalar> NAdamW<A> {
    /// NAdamW with PyTorch's defaults: β₁ 0.9, β₂ 0.999, ε 1e-8, ψ 4e-3, no weight decay.
    pub fn new(learning_rate: impl Into<Hyper>) -> Self {
        Self::from_rule(NAdamRule::default(), learning_rate)
    }
}

/// The factors of m and of the gradient in m̂. Without a decay ψ the momentum is β₁ in every step; without the correction the divisors are 1.
pub(super) fn look_ahead(beta1: f64, decay: Option<f64>, at: &At, correct: bool) -> [f64; 2] {
    let ratio = decay.map_or(0.0, |decay| real_power(0.96, decay));
    let momentum = |power: f64| beta1 * (1.0 - 0.5 * power);
    let power = at.power(ratio);
    let (now, next) = (momentum(power), momentum(power * ratio));
    let (mut product, mut power, mut step) = (1.0, 1.0, 0);
    // A smaller product does not show in 1 − product.
    while step < at.step && product > 1e-20 {
        (power, step) = (power * ratio, step + 1);
        product *= momentum(power);
    }
    let product = if correct { product } else { 0.0 };
    [next / (1.0 - product * next), (1.0 - now) / (1.0 - product)]
}

impl<A: Scalar, const DECOUPLED: bool> Rule<A> for NAdamRule<DECOUPLED> {
    /// β₁, 1 − β₁, β₂, 1 − β₂, the factors of m, of the gradient and of √v, and ε.
    type Coefficients = [A; 8];

    fn name(&self) -> &'static str {
        if DECOUPLED { "nadamw" } else { "nadam" }
    }

    fn slots(&self) -> &'static [&'static str] {
        &["exp_avg", "exp_avg_sq"]
    }

    fn non_negative(&self) -> &'static [&'static str] {
        &["exp_avg_sq"]
    }

    fn decay(&self) -> Decay {
        if DECOUPLED { Decay::Decoupled } else { Decay::Coupled }
    }

    fn second_moment(&self, values: &NAdamValues, at: &At) -> Option<SecondMoment> {
        Some(SecondMoment { slot: 1, scale: 1.0 / at.bias_correction(values.beta2), eps: values.eps })
    }

    fn coefficients(&self, values: &NAdamValues, at: &At) -> (f64, [A; 8]) {
        let &NAdamValues { beta1, beta2, eps, .. } = values;
        let decay = self.momentum_schedule.then_some(values.momentum_decay);
        let [ahead, now] = look_ahead(beta1, decay, at, true);
        let scale = 1.0 / at.bias_correction(beta2).sqrt();
        (at.learning_rate, [beta1, 1.0 - beta1, beta2, 1.0 - beta2, ahead, now, scale, eps].map(A::from_f64))
    }

    fn sweep(&self, c: [A; 8], lanes: Lanes<'_, A>) {
        lanes.each(c, |&[b1, r1, b2, r2, ahead, now, scale, eps], _, grad, [m, v]: [A; 2]| {
            let (m, v) = (b1 * m + r1 * grad, b2 * v + r2 * grad * grad);
            ((ahead * m + now * grad) / (v.sqrt() * scale + eps), [m, v])
        });
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use crate::prelude::*;

    #[test]
    fn first_steps_by_hand() {
        let mut opt = NAdam::new(0.5).beta1(0.5).beta2(0.75).eps(1.0).momentum_decay(0.0);
        let mut w = array![8.0_f64];
        opt.step(&mut w, &array![4.0]).unwrap(); // μ = 0.25, m = 2, v̂ = 16: m̂ = 0.25·2/(1 − 0.0625) + 4
        assert!((w[0] - (8.0 - 0.5 * (0.5 / 0.9375 + 4.0) / 5.0)).abs() < 1e-14, "{w}");

        let mut opt = NAdam::new(0.5).beta1(0.5).beta2(0.0).eps(0.0).momentum_schedule(false);
        let mut w = array![8.0_f64];
        opt.step(&mut w, &array![4.0]).unwrap(); // m = 2: m̂ = 0.5·2/0.75 + 0.5·4/0.5
        assert!((w[0] - (8.0 - 0.5 * (4.0 / 3.0 + 4.0) / 4.0)).abs() < 1e-14, "{w}");
        opt.step(&mut w, &array![1.0]).unwrap(); // m = 1.5: m̂ = 0.5·1.5/0.875 + 0.5·1/0.75
        assert!((w[0] - (8.0 - 2.0 / 3.0 - 0.5 * (0.75 / 0.875 + 0.5 / 0.75))).abs() < 1e-14, "{w}");
    }

    /// Without noise in the gradient m̂ is the gradient, up to the change of μ: the step has length η.
    #[test]
    fn after_many_steps_the_products_are_gone() {
        let (mut opt, mut w) = (NAdam::new(0.5).eps(0.0).momentum_decay(10.0), array![0.0]);
        (0..2_000).for_each(|_| _ = opt.step(&mut w, &array![2.0]).unwrap());
        let before = w[0];
        opt.step(&mut w, &array![2.0]).unwrap();
        assert!((before - w[0] - 0.5_f64).abs() < 1e-9, "{}", before - w[0]);
    }
}
