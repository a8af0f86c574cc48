//! StableAdamW.

use super::adam::{AdamRule, STABLE_ADAMW_FORM};
use crate::params::Scalar;
use crate::rule::Elementwise;
use crate::schedule::Hyper;

/// StableAdamW: AdamW with update clipping, which shortens the step of a tensor whose gradient exceeds its average.
///
/// # Update rule
/// ```text
/// m ← β₁m + (1 − β₁)∇J(θ)
/// v ← β₂v + (1 − β₂)∇J(θ)²
/// m̂ ← m/(1 − β₁ᵗ)
/// v̂ ← v/(1 − β₂ᵗ)
/// η′ ← η / max(1, √mean(∇J(θ)²/max(v̂, ε²)))
/// θ ← θ(1 − η′λ)
/// θ ← θ − η′·m̂/(√v̂ + ε)
/// ```
/// The mean is over the elements of one tensor. t is the number of steps in which the tensor had a gradient, starting at 1. StableAdamW is
/// [`AdamW`](crate::AdamW) with [`update_clipping(true)`](StableAdamW::update_clipping), under its own name and with its own defaults; it has all methods of
/// `AdamW`. It does not need clipping by norm.
///
/// # Hyper-parameters
/// Each is set by the method of its name and takes a number, a [schedule](crate::schedule) or a closure.
///
/// | name | default | range | meaning |
/// |---|---|---|---|
/// | `learning_rate` η | – | η ≥ 0 | length of the step, in units of the parameter |
/// | `beta1` β₁ | 0.9 | 0 ≤ β₁ < 1 | fraction of the first moment kept per step |
/// | `beta2` β₂ | 0.99 | 0 ≤ β₂ < 1 | fraction of the second moment kept per step |
/// | `eps` ε | 1e-6 | ε ≥ 0 | keeps the divisions finite; unit of the gradient |
/// | `weight_decay` λ | 0.01 | λ ≥ 0 | decay per step and unit of learning rate |
///
/// # State
/// `exp_avg` m and `exp_avg_sq` v, each of the parameter's shape: two elements per parameter (8 bytes in f32). A step reads parameter, gradient and state twice.
///
/// # Conventions
/// torch-optimi's `StableAdamW`; pytorch-optimizer's has ε 1e-8. optimi's `decouple_lr` is
/// [`decoupled_decay(DecayRate::Relative { .. })`](StableAdamW::decoupled_decay). Both packages write v̂ as an average with a changing β₂, which is the same number.
///
/// # Errors
/// Those of [`Adam`](crate::Adam). A step of which this rank has only parts of tensors is also an error.
///
/// # Example
/// ```
/// use gradus::prelude::*;
/// use ndarray::array;
///
/// let mut opt = StableAdamW::new(0.1).beta1(0.0).beta2(0.96).weight_decay(0.0);
/// let mut w = array![0.0];
/// opt.step(&mut w, &array![1.0])?;
/// opt.step(&mut w, &array![1000.0])?; // AdamW's step would be 1.4 times as long as its first
/// assert!((w[0] + 0.2_f64).abs() < 1e-6);
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// # References
/// M. Wortsman et al., *Stable and low-precision training for large-scale vision-language models* (2023),
/// [arXiv:2304.13013](https://arxiv.org/abs/2304.13013), algorithm 2.
pub type StableAdamW<A = f32> = Elementwise<AdamRule<STABLE_ADAMW_FORM>, A>;

impl<A: Scalar> StableAdamW<A> {
    /// StableAdamW with optimi's defaults: β₁ 0.9, β₂ 0.99, ε 1e-6, weight decay 0.01.
    pub fn new(learning_rate: impl Into<Hyper>) -> Self {
        Self::from_rule(AdamRule::default(), learning_rate).weight_decay(0.01).update_clipping(true)
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use crate::prelude::*;

    #[test]
    fn second_step_by_hand() {
        let mut opt = StableAdamW::new(0.5).beta1(0.0).beta2(0.5).eps(0.0).weight_decay(0.5);
        let mut w = array![8.0, 8.0];
        opt.step(&mut w, &array![1.0, -1.0]).unwrap(); // v̂ = g², RMS 1; 8 decays to 6
        assert!((&w - &array![5.5, 6.5]).iter().all(|d: &f64| d.abs() < 1e-15), "{w}");
        opt.step(&mut w, &array![3.0, 0.0]).unwrap(); // v̂ = (0.25 + 4.5)/0.75 and 0.25/0.75, mean g²/v̂ = 9·0.75/4.75/2
        let rms = (9.0 * 0.75 / 4.75 / 2.0_f64).sqrt();
        assert!(rms < 1.0);
        opt.step(&mut w, &array![9.0, 9.0]).unwrap();
        let v = [(0.125 + 2.25 + 40.5) / 0.875, (0.125 + 40.5) / 0.875];
        let rate = 0.5 / ((81.0 / v[0] + 81.0 / v[1]) / 2.0_f64).sqrt();
        let before = [(5.5 * 0.75 - 0.5 * 3.0 / (4.75 / 0.75_f64).sqrt()), 6.5 * 0.75];
        for i in 0..2 {
            let expected = before[i] * (1.0 - rate * 0.5) - rate * 9.0 / v[i].sqrt();
            assert!((w[i] - expected).abs() < 1e-14, "{w} {expected}");
        }
        assert_eq!(format!("{opt:?}").matches("update_clipping: true").count(), 1);
    }
}
