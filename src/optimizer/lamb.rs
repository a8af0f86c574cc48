//! LAMB.

use super::adam::{AdamRule, LAMB_FORM};
use crate::params::Scalar;
use crate::rule::Elementwise;
use crate::schedule::Hyper;

/// LAMB: AdamW with a trust ratio, so that each tensor moves in proportion to its norm. For large batches.
///
/// # Update rule
/// ```text
/// m ← β₁m + (1 − β₁)∇J(θ)
/// v ← β₂v + (1 − β₂)∇J(θ)²
/// r ← (m/(1 − β₁ᵗ)) / (√(v/(1 − β₂ᵗ)) + ε) + λθ
/// φ ← ‖θ‖/‖r‖        (1 if θ or r is 0)
/// θ ← θ − ηφr
/// ```
/// The norms are those of one tensor. t is the number of steps in which the tensor had a gradient, starting at 1. LAMB is [`AdamW`](crate::AdamW) with
/// [`trust_ratio(true)`](Lamb::trust_ratio), under its own name and with its own defaults; it has all methods of `AdamW`.
///
/// # Hyper-parameters
/// Each is set by the method of its name and takes a number, a [schedule](crate::schedule) or a closure.
///
/// | name | default | range | meaning |
/// |---|---|---|---|
/// | `learning_rate` η | – | η ≥ 0 | length of a tensor's step, relative to the norm of the tensor |
/// | `beta1` β₁ | 0.9 | 0 ≤ β₁ < 1 | fraction of the first moment kept per step |
/// | `beta2` β₂ | 0.999 | 0 ≤ β₂ < 1 | fraction of the second moment kept per step |
/// | `eps` ε | 1e-6 | ε ≥ 0 | keeps the division finite; unit of the gradient |
/// | `weight_decay` λ | 0.01 | λ ≥ 0 | decay, as a part of r |
///
/// # State
/// `exp_avg` m and `exp_avg_sq` v, each of the parameter's shape: two elements per parameter (8 bytes in f32). A step reads parameter, gradient and state twice.
///
/// # Conventions
/// The paper's algorithm 2 with φ(x) = x, and optax's `lamb`, whose default λ is 0. timm's `Lamb` differs in two defaults: it first clips the global
/// norm of the gradients to 1, and tensors without weight decay keep φ = 1. Both together are
/// `Lamb::new(η).always_adapt(false).clip_global_norm(1.0).exact(true)`.
///
/// # Errors
/// Those of [`Adam`](crate::Adam). A step of which this rank has only parts of tensors is also an error.
///
/// # Example
/// ```
/// use gradus::prelude::*;
/// use ndarray::array;
///
/// let mut opt = Lamb::new(0.1).weight_decay(0.0);
/// let mut w = array![3.0, 4.0];
/// opt.step(&mut w, &array![0.0, 100.0])?; // the step has a tenth of the length of w
/// assert!(w[0] == 3.0 && (w[1] - 3.5_f64).abs() < 1e-6);
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// # References
/// Y. You et al., *Large Batch Optimization for Deep Learning: Training BERT in 76 minutes* (2019), [arXiv:1904.00962](https://arxiv.org/abs/1904.00962), algorithm 2.
pub type Lamb<A = f32> = Elementwise<AdamRule<LAMB_FORM>, A>;

impl<A: Scalar> Lamb<A> {
    /// LAMB with β₁ 0.9, β₂ 0.999, ε 1e-6 and weight decay 0.01.
    pub fn new(learning_rate: impl Into<Hyper>) -> Self {
        Self::from_rule(AdamRule::default(), learning_rate).weight_decay(0.01).trust_ratio(true)
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use crate::prelude::*;

    #[test]
    fn first_step_by_hand() {
        let mut opt = Lamb::new(0.5).eps(0.0).weight_decay(1.0);
        let mut w = (array![3.0, 4.0], array![0.0]);
        opt.step(&mut w, &(array![1.0, 0.5], array![2.0])).unwrap(); // r = (4, 5) and (1)
        let ratio = 5.0 / 41.0_f64.sqrt();
        assert!((&w.0 - &array![3.0 - 2.0 * ratio, 4.0 - 2.5 * ratio]).iter().all(|d: &f64| d.abs() < 1e-15), "{w:?}");
        assert!((w.1[0] + 0.5).abs() < 1e-15);
        assert_eq!(format!("{opt:?}"), "Lamb(learning_rate: 0.5, eps: 0, weight_decay: 1, trust_ratio: true)");
    }
}
