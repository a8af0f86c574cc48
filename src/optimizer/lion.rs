//! Lion.

use crate::hyper_parameters;
use crate::params::Scalar;
use crate::rule::{At, Decay, Elementwise, Lanes, Rule};
use crate::schedule::Hyper;

/// Lion: every element moves by the learning rate, in the direction of an average gradient.
///
/// # Update rule
/// ```text
/// u ← sign(β₁m + (1 − β₁)∇J(θ))        −1, 0 or 1
/// m ← β₂m + (1 − β₂)∇J(θ)
/// θ ← θ(1 − ηλ)
/// θ ← θ − ηu
/// ```
/// β₁ is smaller than β₂ by default, so u follows the new gradient more closely than m does. An element does not move if the average in u is 0.
///
/// # Hyper-parameters
/// Each is set by the method of its name and takes a number, a [schedule](crate::schedule) or a closure.
///
/// | name | default | range | meaning |
/// |---|---|---|---|
/// | `learning_rate` η | – | η ≥ 0 | length of the step of every element, in units of the parameter; 3 to 10 times smaller than AdamW's |
/// | `beta1` β₁ | 0.9 | 0 ≤ β₁ < 1 | fraction of m in the average of u |
/// | `beta2` β₂ | 0.99 | 0 ≤ β₂ < 1 | fraction of m kept per step |
/// | `weight_decay` λ | 0 | λ ≥ 0 | decay per step and unit of learning rate, decoupled; 3 to 10 times larger than AdamW's |
///
/// # State
/// `exp_avg` m, of the parameter's shape: one element per parameter (4 bytes in f32).
///
/// # Conventions
/// The paper's algorithm 2, and optax's `lion`, whose default weight decay is 1e-3. PyTorch has no Lion.
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
/// let mut opt = Lion::new(0.1);
/// let mut w = array![1.0, 1.0, 1.0];
/// opt.step(&mut w, &array![0.001, -1000.0, 0.0])?; // only the sign counts
/// assert_eq!(w, array![0.9, 1.1, 1.0]);
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// # References
/// X. Chen et al., *Symbolic Discovery of Optimization Algorithms* (2023), [arXiv:2302.06675](https://arxiv.org/abs/2302.06675), algorithm 2.
pub type Lion<A = f32> = Elementwise<LionRule, A>;

hyper_parameters! {
    /// The rule of [`Lion`].
    pub struct LionRule => LionValues for Elementwise {
        /// The fraction β₁ of m in the direction, 0 ≤ β₁ < 1.
        beta1 / set_beta1: 0.9, 0.0..1.0;
        /// The fraction β₂ of m that is kept per step, 0 ≤ β₂ < 1.
        beta2 / set_beta2: 0.99, 0.0..1.0;
    }
}

impl<A: Scalar> Lion<A> {
    /// Lion with the paper's defaults: β₁ 0.9, β₂ 0.99, no weight decay.
    pub fn new(learning_rate: impl Into<Hyper>) -> Self {
        Self::from_rule(LionRule::default(), learning_rate)
    }
}

impl<A: Scalar> Rule<A> for LionRule {
    /// β₁, 1 − β₁, β₂ and 1 − β₂.
    type Coefficients = [A; 4];

    fn name(&self) -> &'static str {
        "lion"
    }

    fn slots(&self) -> &'static [&'static str] {
        &["exp_avg"]
    }

    fn decay(&self) -> Decay {
        Decay::Decoupled
    }

    fn coefficients(&self, &LionValues { beta1, beta2 }: &LionValues, at: &At) -> (f64, [A; 4]) {
        (at.learning_rate, [beta1, 1.0 - beta1, beta2, 1.0 - beta2].map(A::from_f64))
    }

    fn sweep(&self, c: [A; 4], lanes: Lanes<'_, A>) {
        lanes.each(c, |&[b1, r1, b2, r2], _, grad, [m]: [A; 1]| (sign(b1 * m + r1 * grad), [b2 * m + r2 * grad]));
    }
}

/// −1, 0 or 1, and NaN of NaN; `signum` has no 0.
#[inline(always)]
pub(super) fn sign<A: Scalar>(x: A) -> A {
    let up = if x > A::zero() { A::one() } else { x };
    if x < A::zero() { -A::one() } else { up }
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use crate::prelude::*;

    #[test]
    fn first_steps_by_hand() {
        let mut opt = Lion::new(0.5).beta1(0.5).beta2(0.75).weight_decay(0.5);
        let mut w = array![4.0, 0.0];
        opt.step(&mut w, &array![8.0, 0.0]).unwrap(); // 4 decays to 3 and moves by −η
        assert_eq!(w, array![2.5, 0.0]);
        assert_eq!(opt.slot("", "exp_avg"), Some(array![2.0, 0.0].into_dyn()));
        opt.step(&mut w, &array![-4.0, 0.0]).unwrap(); // 0.5·2 − 0.5·4 < 0: 2.5 decays to 1.875 and moves by +η
        assert_eq!(w, array![2.375, 0.0]);
    }

    #[test]
    fn nan_is_not_hidden() {
        let (mut opt, mut w) = (Lion::new(0.5), array![1.0]);
        opt.step(&mut w, &array![f64::NAN]).unwrap();
        assert!(w[0].is_nan());
    }
}
