//! Sophia.

use crate::hyper_parameters;
use crate::params::Scalar;
use crate::rule::{At, Curved, Decay, Elementwise, Lanes, Rule};
use crate::schedule::Hyper;

/// Sophia: divides an average gradient by an average of the Hessian's diagonal, and limits the step of each element.
///
/// Every ten steps or so, pass an estimate of the Hessian's diagonal to [`curvature`](Elementwise::curvature), before the step. The
/// [guide](crate::guide::curvature#hessian-diagonal) has Hutchinson's estimate.
///
/// # Update rule
/// ```text
/// h ← β₂h + (1 − β₂)d                      only in a step before which there was a diagonal d
/// m ← β₁m + (1 − β₁)∇J(θ)
/// u ← m/max(γh, ε)                         with `bias_correction`: m/(1 − β₁ᵗ) instead of m
/// θ ← θ(1 − ηλ)
/// θ ← θ − η·clip(u, −ρ, ρ)
/// ```
/// ∇J(θ) is the gradient before the decay. t is the number of steps in which the tensor had a gradient, starting at 1. m and h start from 0. An element
/// whose h is not positive moves by ηρ.
///
/// # Hyper-parameters
/// Each is set by the method of its name and takes a number, a [schedule](crate::schedule) or a closure.
///
/// | name | default | range | meaning |
/// |---|---|---|---|
/// | `learning_rate` η | – | η ≥ 0 | length of the longest step of an element, in units of the parameter; about that of Lion |
/// | `beta1` β₁ | 0.965 | 0 ≤ β₁ < 1 | fraction of m kept per step |
/// | `beta2` β₂ | 0.99 | 0 ≤ β₂ < 1 | fraction of h kept per diagonal |
/// | `gamma` γ | 0.01 | γ ≥ 0 | factor of h; larger limits fewer elements: between 10 % and 50 % should not be limited |
/// | `threshold` ρ | 1 | ρ ≥ 0 | limit of u |
/// | `eps` ε | 1e-12 | ε ≥ 0 | the smallest divisor, unit of the Hessian |
/// | `weight_decay` λ | 0 | λ ≥ 0 | decay per step and unit of learning rate, decoupled |
/// | [`bias_correction`](Elementwise::bias_correction) | no | | corrects m for its start from 0 |
///
/// With ε = 0, an element whose divisor is 0 does not move.
///
/// # State
/// `momentum` m and `hessian_moment` h, each of the parameter's shape: two elements per parameter (8 bytes in f32). Between `curvature` and the step, one
/// more.
///
/// # Conventions
/// The paper's algorithm 3, without its estimators. pytorch-optimizer's `SophiaH` is `.beta1(0.96).gamma(1.0).threshold(0.01)`. optax's `contrib.sophia` is
/// `.eps(1e-8).bias_correction(true)` with `curvature` after the step instead of before it; it adds the decay to the direction.
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
/// let mut opt = Sophia::new(0.1).beta1(0.0).beta2(0.0).gamma(1.0);
/// let mut w = array![1.0, 1.0];
/// opt.curvature(&array![4.0, -1.0])?; // the diagonal of the Hessian
/// opt.step(&mut w, &array![2.0, 0.5])?;
/// assert_eq!(w, array![0.95, 0.9]); // 2/4; and the limit where the loss is not convex
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// # References
/// H. Liu et al., *Sophia: A Scalable Stochastic Second-order Optimizer for Language Model Pre-training* (2023),
/// [arXiv:2305.14342](https://arxiv.org/abs/2305.14342), algorithm 3.
#[doc(alias("SophiaH", "SophiaG"))]
pub type Sophia<A = f32> = Elementwise<SophiaRule, A>;

hyper_parameters! {
    /// The rule of [`Sophia`].
    pub struct SophiaRule => SophiaValues for Elementwise {
        /// The decay β₁ of the average gradient, 0 ≤ β₁ < 1.
        beta1 / set_beta1: 0.965, 0.0..1.0;
        /// The decay β₂ of the average diagonal, 0 ≤ β₂ < 1.
        beta2 / set_beta2: 0.99, 0.0..1.0;
        /// The factor γ ≥ 0 of the average diagonal.
        gamma / set_gamma: 0.01, 0.0..;
        /// The limit ρ ≥ 0 of an element's direction.
        #[doc(alias("p", "clip_threshold"))]
        threshold / set_threshold: 1.0, 0.0..;
        /// The smallest divisor ε ≥ 0.
        eps / set_eps: 1e-12, 0.0..;
    }
    options {
        /// Whether the average gradient is corrected for its start from 0, as in optax.
        bias_correction: bool = false;
    }
}

impl<A: Scalar> Sophia<A> {
    /// Sophia with the paper's defaults: β₁ 0.965, β₂ 0.99, γ 0.01, ε 1e-12, no weight decay.
    pub fn new(learning_rate: impl Into<Hyper>) -> Self {
        Self::from_rule(SophiaRule::default(), learning_rate)
    }
}

impl<A: Scalar> Curved<A> for SophiaRule {}

impl<A: Scalar> Rule<A> for SophiaRule {
    /// β₁, 1 − β₁, the correction of m, γ, ε and ρ.
    type Coefficients = [A; 6];

    fn name(&self) -> &'static str {
        "sophia"
    }

    fn slots(&self) -> &'static [&'static str] {
        &["momentum", "hessian_moment"]
    }

    fn decay(&self) -> Decay {
        Decay::Decoupled
    }

    fn absorbs(&self) -> &'static [&'static str] {
        &["hessian_moment"]
    }

    fn absorb(&self, values: &SophiaValues, lanes: Lanes<'_, A>) {
        let c = [values.beta2, 1.0 - values.beta2].map(A::from_f64);
        lanes.each(c, |&[b2, r2], _, d, [m, h]: [A; 2]| (A::zero(), [m, b2 * h + r2 * d]));
    }

    fn coefficients(&self, values: &SophiaValues, at: &At) -> (f64, [A; 6]) {
        let &SophiaValues { beta1, gamma, threshold, eps, .. } = values;
        let correction = if self.bias_correction { 1.0 / at.bias_correction(beta1) } else { 1.0 };
        (at.learning_rate, [beta1, 1.0 - beta1, correction, gamma, eps, threshold].map(A::from_f64))
    }

    fn sweep(&self, c: [A; 6], lanes: Lanes<'_, A>) {
        lanes.each(c, |&[b1, r1, correction, gamma, eps, limit], _, grad, [m, h]: [A; 2]| {
            let m = b1 * m + r1 * grad;
            let scaled = gamma * h;
            let divisor = if scaled > eps { scaled } else { eps };
            let u = if divisor == A::zero() { divisor } else { m * correction / divisor };
            let u = if u > limit { limit } else { u };
            (if u < -limit { -limit } else { u }, [m, h])
        });
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use crate::prelude::*;

    #[test]
    fn first_steps_by_hand() {
        let mut opt = Sophia::new(0.5).beta1(0.5).beta2(0.5).gamma(0.5).threshold(2.0).eps(0.25).weight_decay(0.5);
        let mut w = array![4.0, 0.0, 0.0];
        opt.curvature(&array![8.0, -8.0, 1.0]).unwrap(); // h = 4, −4, 0.5: the divisors are 2, ε, ε
        opt.step(&mut w, &array![4.0, 0.25, -4.0]).unwrap(); // m = 2, 0.125, −2: u = 1, 0.5, and the limit −2
        assert_eq!(w, array![2.5, -0.25, 1.0]); // 4 decays to 3
        opt.step(&mut w, &array![0.0, 0.0, 0.0]).unwrap(); // the same h; m = 1, 0.0625, −1: u = 0.5, 0.25, −2
        assert_eq!(w, array![1.625, -0.3125, 1.75]);
        assert_eq!(opt.slot("", "hessian_moment"), Some(array![4.0, -4.0, 0.5].into_dyn()));
    }

    #[test]
    fn the_average_gradient_is_corrected() {
        let mut opt = Sophia::new(1.0).beta1(0.5).gamma(1.0).threshold(10.0).beta2(0.0).bias_correction(true);
        let mut w = array![0.0];
        opt.curvature(&array![2.0]).unwrap();
        for expected in [-1.0, -2.0] {
            opt.step(&mut w, &array![2.0]).unwrap(); // m̂ = 2, h = 2
            assert_eq!(w, array![expected]);
        }
    }

    #[test]
    fn without_eps_an_element_without_curvature_rests() {
        let (mut opt, mut w) = (Sophia::new(1.0).eps(0.0), array![1.0, 1.0]);
        opt.curvature(&array![0.0, 1e3]).unwrap();
        opt.step(&mut w, &array![1.0, 1.0]).unwrap();
        assert!(w[0] == 1.0 && w[1] < 1.0);
    }

    #[test]
    fn nan_is_not_hidden() {
        let (mut opt, mut w) = (Sophia::new(0.5), array![1.0]);
        opt.step(&mut w, &array![f64::NAN]).unwrap();
        assert!(w[0].is_nan());
    }
}
