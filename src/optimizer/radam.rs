//! RAdam and RAdamW.

use crate::hyper_parameters;
use crate::params::Scalar;
use crate::rule::{At, Decay, Elementwise, Lanes, Rule, SecondMoment};
use crate::schedule::Hyper;

/// RAdam: Adam that moves by momentum alone until its second moment is reliable, and needs no warm-up.
///
/// # Update rule
/// ```text
/// m ← β₁m + (1 − β₁)∇J(θ)
/// v ← β₂v + (1 − β₂)∇J(θ)²
/// ρ ← ρ∞ − 2tβ₂ᵗ/(1 − β₂ᵗ)                                        ρ∞ = 2/(1 − β₂) − 1
/// ρ > 5:  r ← √((ρ − 4)(ρ − 2)ρ∞/((ρ∞ − 4)(ρ∞ − 2)ρ))
///         θ ← θ − η·r·√(1 − β₂ᵗ)/(1 − β₁ᵗ)·m/(√v + ε)
/// else:   θ ← θ − η·m/(1 − β₁ᵗ)
/// ```
/// t is the number of steps in which the tensor had a gradient, starting at 1. ρ is the number of gradients that v effectively averages. With the
/// default β₂ it exceeds 5 from the sixth step on. With β₂ ≤ 2/3 it never does.
///
/// [`eps_hat(false)`](RAdam::eps_hat) adds ε after the correction of v:
/// ```text
///         θ ← θ − η·r/(1 − β₁ᵗ)·m/(√v/√(1 − β₂ᵗ) + ε)
/// ```
/// With weight decay λ the gradient is `∇J(θ) + λθ`, also in m and v. In [`RAdamW`] the decay is separate from the gradient.
///
/// # Hyper-parameters
/// Each is set by the method of its name and takes a number, a [schedule](crate::schedule) or a closure.
///
/// | name | default | range | meaning |
/// |---|---|---|---|
/// | `learning_rate` η | – | η ≥ 0 | length of the step, in units of the parameter; PyTorch's default is 1e-3 |
/// | `beta1` β₁ | 0.9 | 0 ≤ β₁ < 1 | fraction of the first moment kept per step |
/// | `beta2` β₂ | 0.999 | 0 ≤ β₂ < 1 | fraction of the second moment kept per step |
/// | `eps` ε | 1e-8 | ε ≥ 0 | keeps the division finite; unit of the gradient |
/// | `weight_decay` λ | 0 | λ ≥ 0 | strength of the L2 penalty |
///
/// While ρ ≤ 5, a step is η times the average gradient, so its length has the gradient's unit, unlike Adam's.
///
/// # State
/// `exp_avg` m and `exp_avg_sq` v, of the parameter's shape: two elements per parameter (8 bytes in f32).
///
/// # Conventions
/// - PyTorch's `RAdam`: the default, with ε added to √v before the correction.
/// - optax's `radam`: `.eps_hat(false)`. Its condition is ρ ≥ 5.
/// - The paper has no ε, and its condition is ρ > 4. The authors' code has ρ ≥ 5.
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
/// let mut opt = RAdam::new(0.5);
/// let mut w = array![1.0];
/// opt.step(&mut w, &array![0.25])?; // the first steps are those of momentum with a bias correction
/// assert!((w[0] - 0.875_f64).abs() < 1e-12);
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// # References
/// L. Liu et al., *On the Variance of the Adaptive Learning Rate and Beyond* (2019), [arXiv:1908.03265](https://arxiv.org/abs/1908.03265), algorithm 2.
pub type RAdam<A = f32> = Elementwise<RAdamRule<false>, A>;

/// RAdamW: RAdam with weight decay decoupled from the gradient.
///
/// # Update rule
/// ```text
/// θ ← θ(1 − ηλ)
/// θ ← the update of RAdam, its moments without the decay
/// ```
///
/// # Hyper-parameters
/// Those of [`RAdam`], with its methods, and
///
/// | name | default | range | meaning |
/// |---|---|---|---|
/// | `weight_decay` λ | 0 | λ ≥ 0 | decay per step and unit of learning rate |
///
/// # State
/// That of [`RAdam`].
///
/// # Conventions
/// PyTorch's `RAdam(decoupled_weight_decay=True)`, whose weight decay is 0 by default. The paper's code has this form of decay, too.
///
/// # Errors
/// Those of [`RAdam`].
///
/// # Example
/// ```
/// use gradus::prelude::*;
/// use ndarray::array;
///
/// let mut opt = RAdamW::new(0.1).weight_decay(0.5);
/// let mut w = array![1.0];
/// opt.step(&mut w, &array![0.0])?; // the gradient is 0: only the decay
/// assert_eq!(w, array![0.95]);
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// # References
/// Those of [`RAdam`] and of [`AdamW`](crate::AdamW).
pub type RAdamW<A = f32> = Elementwise<RAdamRule<true>, A>;

hyper_parameters! {
    /// The rule of [`RAdam`] and, with decoupled decay, of [`RAdamW`].
    pub struct RAdamRule<const DECOUPLED: bool> named (if DECOUPLED { "RAdamW" } else { "RAdam" }) => RAdamValues for Elementwise {
        /// The decay β₁ of the first moment, 0 ≤ β₁ < 1.
        beta1 / set_beta1: 0.9, 0.0..1.0;
        /// The decay β₂ of the second moment, 0 ≤ β₂ < 1.
        beta2 / set_beta2: 0.999, 0.0..1.0;
        /// The ε ≥ 0 that keeps the division finite.
        eps / set_eps: 1e-8, 0.0..;
    }
    options {
        /// Adds ε to √v before the bias correction, which is the default. With `false` it is added afterwards (optax).
        eps_hat: bool = true;
    }
}

impl<A: Scalar> RAdam<A> {
    /// RAdam with PyTorch's defaults: β₁ 0.9, β₂ 0.999, ε 1e-8, no weight decay.
    pub fn new(learning_rate: impl Into<Hyper>) -> Self {
        Self::from_rule(RAdamRule::default(), learning_rate)
    }
}

impl<A: Scalar> RAdamW<A> {
    /// RAdamW with PyTorch's defaults: β₁ 0.9, β₂ 0.999, ε 1e-8, no weight decay.
    pub fn new(learning_rate: impl Into<Hyper>) -> Self {
        Self::from_rule(RAdamRule::default(), learning_rate)
    }
}

/// r, once ρ is above `least`.
pub(super) fn rectification(beta2: f64, at: &At, least: f64) -> Option<f64> {
    let limit = 2.0 / (1.0 - beta2) - 1.0;
    let power = at.power(beta2);
    let rho = limit - 2.0 * at.step as f64 * power / (1.0 - power);
    let square = (rho - 4.0) * (rho - 2.0) * limit / ((limit - 4.0) * (limit - 2.0) * rho);
    if rho > least { Some(square.sqrt()) } else { None }
}

/// β₁, 1 − β₁, β₂, 1 − β₂, the factor of √v and ε; and whether ρ > 5.
type Coefficients<A> = ([A; 6], bool);

impl<A: Scalar, const DECOUPLED: bool> Rule<A> for RAdamRule<DECOUPLED> {
    type Coefficients = Coefficients<A>;

    fn name(&self) -> &'static str {
        if DECOUPLED { "radamw" } else { "radam" }
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

    fn second_moment(&self, values: &RAdamValues, at: &At) -> Option<SecondMoment> {
        Some(SecondMoment { slot: 1, scale: 1.0 / at.bias_correction(values.beta2), eps: values.eps })
    }

    fn coefficients(&self, &RAdamValues { beta1, beta2, eps }: &RAdamValues, at: &At) -> (f64, Coefficients<A>) {
        let (corrected, second) = (at.learning_rate / at.bias_correction(beta1), at.bias_correction(beta2).sqrt());
        let rectification = rectification(beta2, at, 5.0);
        let (step_size, scale) = match rectification {
            Some(r) if self.eps_hat => (corrected * r * second, 1.0),
            Some(r) => (corrected * r, 1.0 / second),
            None => (corrected, 1.0),
        };
        let numbers = [beta1, 1.0 - beta1, beta2, 1.0 - beta2, scale, eps].map(A::from_f64);
        (step_size, (numbers, rectification.is_some()))
    }

    fn sweep(&self, (c, rectified): Coefficients<A>, lanes: Lanes<'_, A>) {
        match rectified {
            true => lanes.each(c, |&[b1, r1, b2, r2, scale, eps], _, grad, [m, v]: [A; 2]| {
                let (m, v) = (b1 * m + r1 * grad, b2 * v + r2 * grad * grad);
                (m / (v.sqrt() * scale + eps), [m, v])
            }),
            false => lanes.each(c, |&[b1, r1, b2, r2, ..], _, grad, [m, v]: [A; 2]| {
                let (m, v) = (b1 * m + r1 * grad, b2 * v + r2 * grad * grad);
                (m, [m, v])
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::rectification;
    use crate::prelude::*;
    use crate::rule::At;

    #[test]
    fn first_steps_by_hand() {
        // ρ∞ = 7; ρ is 1 and 13/7.
        let mut opt = RAdam::new(0.5).beta1(0.5).beta2(0.75);
        let mut w = array![8.0];
        opt.step(&mut w, &array![4.0]).unwrap(); // m = 2, m̂ = 4
        assert_eq!(w, array![6.0]);
        opt.step(&mut w, &array![2.0]).unwrap(); // m = 2, m̂ = 2/0.75
        assert!((w[0] - (6.0 - 1.0 / 0.75_f64)).abs() < 1e-15, "{w}");
        assert_eq!(opt.slot("", "exp_avg_sq").unwrap(), array![4.0].into_dyn());
    }

    #[test]
    fn rectified_steps_by_hand() {
        let at = |step| At { step, learning_rate: 0.5, ..At::default() };
        assert!((1..=7).all(|step| rectification(0.75, &at(step), 5.0).is_none()));
        // t = 8: ρ = 7 − 16·0.75⁸/(1 − 0.75⁸).
        let power = 0.75_f64.powi(8);
        let rho = 7.0 - 16.0 * power / (1.0 - power);
        let r = ((rho - 4.0) * (rho - 2.0) * 7.0 / (15.0 * rho)).sqrt();
        assert!((rectification(0.75, &at(8), 5.0).unwrap() - r).abs() < 1e-12);

        for eps_hat in [true, false] {
            let mut opt = RAdam::new(0.5).beta1(0.0).beta2(0.75).eps(1.0).eps_hat(eps_hat);
            let mut w = array![0.0_f64];
            (0..7).for_each(|_| _ = opt.step(&mut w, &array![2.0]).unwrap());
            assert!((w[0] + 7.0).abs() < 1e-12);
            opt.step(&mut w, &array![2.0]).unwrap(); // v = 4(1 − power), √v̂ = 2
            let root = (1.0 - power).sqrt();
            let direction = if eps_hat { root * 2.0 / (2.0 * root + 1.0) } else { 2.0 / 3.0 };
            assert!((w[0] + 7.0 + 0.5 * r * direction).abs() < 1e-12, "{w}");
        }
    }

    #[test]
    fn a_short_memory_is_never_rectified() {
        for beta2 in [0.0, 0.5, 2.0 / 3.0] {
            assert!(
                (1..1000)
                    .all(|step| rectification(beta2, &At { step, learning_rate: 0.5, ..At::default() }, 5.0).is_none()),
                "{beta2}"
            );
        }
    }
}
