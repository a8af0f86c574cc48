//! AdamW.

use super::adam::{ADAMW_FORM, AdamRule};
use crate::params::Scalar;
use crate::rule::Elementwise;
use crate::schedule::Hyper;

/// AdamW: Adam with weight decay decoupled from the gradient.
///
/// # Update rule
/// ```text
/// θ ← θ(1 − ηλ)
/// θ ← the update of Adam, its moments without the decay
/// ```
/// The decay is not divided by √v̂, so all parameters decay at the same rate ηλ.
///
/// # Hyper-parameters
/// Those of [`Adam`](crate::Adam), with its methods, and
///
/// | name | default | range | meaning |
/// |---|---|---|---|
/// | `weight_decay` λ | 0.01 | λ ≥ 0 | decay per step and unit of learning rate |
///
/// # State
/// That of [`Adam`](crate::Adam).
///
/// # Conventions
/// PyTorch's `AdamW`. In the paper the decay is λ times the schedule multiplier; in PyTorch, Keras, optax and here it is ηλ. optax's default λ is
/// 1e-4. The decay pulls every parameter towards zero; if you do not want that, for example when fitting a curve, use [`Adam`](crate::Adam).
///
/// # Errors
/// Those of [`Adam`](crate::Adam).
///
/// # Example
/// ```
/// use gradus::prelude::*;
/// use ndarray::array;
///
/// let mut opt = AdamW::new(0.1).weight_decay(0.5);
/// let mut w = array![1.0];
/// opt.step(&mut w, &array![0.0])?; // the gradient is 0: only the decay
/// assert_eq!(w, array![0.95]);
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// # References
/// I. Loshchilov and F. Hutter, *Decoupled Weight Decay Regularization* (2017), [arXiv:1711.05101](https://arxiv.org/abs/1711.05101), algorithm 2.
pub type AdamW<A = f32> = Elementwise<AdamRule<ADAMW_FORM>, A>;

impl<A: Scalar> AdamW<A> {
    /// AdamW with PyTorch's defaults: β₁ 0.9, β₂ 0.999, ε 1e-8, weight decay 0.01.
    pub fn new(learning_rate: impl Into<Hyper>) -> Self {
        Self::from_rule(AdamRule::default(), learning_rate).weight_decay(0.01)
    }
}
