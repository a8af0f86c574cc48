//! NovoGrad.

use crate::hyper_parameters;
use crate::params::Scalar;
use crate::rule::{At, Decay, Elementwise, Lanes, Rule, TensorNorm};
use crate::schedule::Hyper;

/// NovoGrad: momentum of gradients that are divided by the norm of their tensor, with one second moment per tensor. Half of Adam's state.
///
/// # Update rule
/// ```text
/// v ← β₂v + (1 − β₂)‖∇J(θ)‖²        (first step of a tensor: v = ‖∇J(θ)‖²)
/// g ← ∇J(θ)/(√v + ε) + λθ
/// m ← β₁m + g                        (first step of a tensor: m = g)
/// θ ← θ − ηm
/// ```
/// The norm and v are those of one tensor. [`grad_averaging(true)`](NovoGrad::grad_averaging) has `m ← β₁m + (1 − β₁)g` after the first step. With
/// [`decoupled(true)`](NovoGrad::decoupled) λ is not in g, and `θ ← θ(1 − ηλ)` comes first.
///
/// # Hyper-parameters
/// Each is set by the method of its name and takes a number, a [schedule](crate::schedule) or a closure.
///
/// | name | default | range | meaning |
/// |---|---|---|---|
/// | `learning_rate` η | – | η ≥ 0 | length of the step of a tensor, divided by 1 − β₁ |
/// | `beta1` β₁ | 0.9 | 0 ≤ β₁ < 1 | fraction of the momentum kept per step |
/// | `beta2` β₂ | 0.25 | 0 ≤ β₂ < 1 | fraction of the second moment kept per step |
/// | `eps` ε | 1e-6 | ε ≥ 0 | keeps the division finite; unit of the gradient's norm |
/// | `weight_decay` λ | 0 | λ ≥ 0 | decay, per unit of learning rate, which is in the momentum |
///
/// # State
/// `exp_avg` m, of the parameter's shape: one element per parameter (4 bytes in f32), and `exp_avg_norm` √v, one number per tensor. A step reads the
/// gradient twice.
///
/// # Conventions
/// optax's `novograd` without `eps_root`. timm's and pytorch-optimizer's have β₁ 0.95, β₂ 0.98 and ε 1e-8; timm's averages the gradient in the first
/// step, too. The paper has β₁ 0.95, and β₂ from 0.25 to 0.98.
///
/// If ‖∇J(θ)‖ is not finite, v stays, and the finite elements of ∇J(θ) count as 0. If v and ε are 0, g is λθ.
///
/// # Errors
/// A step returns [`StepError::HyperParameter`](crate::error::StepError::HyperParameter) if a value is out of range, and the errors of
/// [`Step::pair`](crate::Step::pair) and of changed parameters. A step of which this rank has only parts of tensors is also an error, and so is a
/// gradient of [`Rows`](crate::Rows).
///
/// # Example
/// ```
/// use gradus::prelude::*;
/// use ndarray::array;
///
/// let mut opt = NovoGrad::new(0.5).eps(0.0);
/// let mut w = array![1.0, 1.0];
/// opt.step(&mut w, &array![30.0, 40.0])?; // divided by its norm, 50
/// assert_eq!(w, array![0.7, 0.6]);
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// # References
/// B. Ginsburg et al., *Stochastic Gradient Methods with Layer-wise Adaptive Moments for Training of Deep Networks* (2019),
/// [arXiv:1905.11286](https://arxiv.org/abs/1905.11286), algorithm 1.
pub type NovoGrad<A = f32> = Elementwise<NovoGradRule, A>;

hyper_parameters! {
    /// The rule of [`NovoGrad`].
    pub struct NovoGradRule => NovoGradValues for Elementwise {
        /// The decay β₁ of the momentum, 0 ≤ β₁ < 1.
        beta1 / set_beta1: 0.9, 0.0..1.0;
        /// The decay β₂ of the second moment, 0 ≤ β₂ < 1.
        beta2 / set_beta2: 0.25, 0.0..1.0;
        /// The ε ≥ 0 that keeps the division finite.
        eps / set_eps: 1e-6, 0.0..;
    }
    options {
        /// Adds (1 − β₁)g to the momentum instead of g, except in a tensor's first step.
        grad_averaging: bool = false;
        /// Decouples the weight decay from the momentum.
        decoupled: bool = false;
    }
}

impl<A: Scalar> NovoGrad<A> {
    /// NovoGrad with optax's defaults: β₁ 0.9, β₂ 0.25, ε 1e-6, no weight decay.
    pub fn new(learning_rate: impl Into<Hyper>) -> Self {
        Self::from_rule(NovoGradRule::default(), learning_rate)
    }
}

/// The root of the mean of two squares, whose weights are 1 − `fresh` and `fresh`. The squares may be too large for a number.
fn mean_root(old: f64, new: f64, fresh: f64) -> f64 {
    let larger = old.max(new);
    if larger == 0.0 {
        return 0.0;
    }
    let (old, new) = (old / larger, new / larger);
    larger * ((1.0 - fresh) * old * old + fresh * new * new).sqrt()
}

impl<A: Scalar> Rule<A> for NovoGradRule {
    /// β₁, the factors of the gradient and of the parameter in m.
    type Coefficients = [A; 3];

    fn name(&self) -> &'static str {
        "novograd"
    }

    fn slots(&self) -> &'static [&'static str] {
        &["exp_avg"]
    }

    fn decay(&self) -> Decay {
        if self.decoupled { Decay::Decoupled } else { Decay::Own }
    }

    fn numbers(&self) -> &'static [&'static str] {
        &["exp_avg_norm"]
    }

    fn tensor_norm(&self, _: &NovoGradValues, _: &At, _: &[usize]) -> Option<TensorNorm<[A; 3]>> {
        Some(TensorNorm::Gradient)
    }

    fn remember(&self, values: &NovoGradValues, at: &At, numbers: &mut [f64]) {
        if let (Some(norm), [root]) = (at.norm.filter(|norm| norm.is_finite()), numbers) {
            *root = if at.step == 1 { norm } else { mean_root(*root, norm, 1.0 - values.beta2) };
        }
    }

    fn coefficients(&self, &NovoGradValues { beta1, eps, .. }: &NovoGradValues, at: &At) -> (f64, [A; 3]) {
        let ([root, ..], is_finite) = (at.numbers, at.norm.is_some_and(f64::is_finite));
        let fresh = if self.grad_averaging && at.step > 1 { 1.0 - beta1 } else { 1.0 };
        let scale =
            if is_finite && root + eps > 0.0 { (fresh / (root + eps)).min(A::max_value().as_f64()) } else { 0.0 };
        let decay = if self.decoupled { 0.0 } else { fresh * at.weight_decay };
        (at.learning_rate, [beta1, scale, decay].map(A::from_f64))
    }

    fn sweep(&self, c: [A; 3], lanes: Lanes<'_, A>) {
        lanes.each(c, |&[b1, scale, decay], param, grad, [m]: [A; 1]| {
            let m = b1 * m + (scale * grad + decay * param);
            (m, [m])
        });
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::mean_root;
    use crate::prelude::*;

    #[test]
    fn first_steps_by_hand() {
        let mut opt = NovoGrad::new(0.5).beta1(0.5).beta2(0.75).eps(0.0).weight_decay(0.25);
        let mut w = (array![4.0, 0.0], array![2.0_f64]);
        opt.step(&mut w, &(array![0.0, 8.0], array![0.0])).unwrap(); // g = (1, 1) and 0.5
        assert_eq!(w, (array![3.5, -0.5], array![1.75]));
        opt.step(&mut w, &(array![0.0, 0.0], array![-3.0])).unwrap(); // v = 48 and 2.25: g = (0.875, −0.125) and −2 + 0.4375
        assert_eq!(opt.slot("0", "exp_avg"), Some(array![1.375, 0.375].into_dyn()));
        assert!((w.1[0] - (1.75 - 0.5 * (0.25 - 2.0 + 0.4375))).abs() < 1e-15, "{w:?}");
        opt.step(&mut w, &(array![0.0, 1.0], array![0.0])).unwrap(); // v = 36.25
        let m = 0.5 * 0.375 + 1.0 / 36.25_f64.sqrt() + 0.25 * -0.6875;
        assert!((opt.slot("0", "exp_avg").unwrap()[1] - m).abs() < 1e-15);
    }

    #[test]
    fn averaged_gradients() {
        let mut opt = NovoGrad::new(0.5).beta1(0.75).beta2(0.0).eps(0.0).grad_averaging(true);
        let mut w = array![0.0];
        opt.step(&mut w, &array![8.0]).unwrap();
        opt.step(&mut w, &array![-8.0]).unwrap(); // m = 0.75 − 0.25
        assert_eq!(w, array![-0.5 - 0.25]);
    }

    #[test]
    fn one_element_that_is_not_finite_stays_alone() {
        for bad in [f64::NAN, f64::INFINITY] {
            let (mut opt, mut w) = (NovoGrad::new(0.5), array![1.0, 1.0]);
            opt.step(&mut w, &array![0.5, bad]).unwrap();
            assert!(w[0] == 1.0 && w[1].is_nan(), "{w}");
            opt.step(&mut w, &array![1.0, 0.0]).unwrap();
            assert!((w[0] - (1.0 - 0.5 / 0.75_f64.sqrt())).abs() < 1e-5, "{w}");
        }
    }

    #[test]
    fn squares_beyond_the_range_of_f64() {
        assert_eq!(mean_root(0.0, 0.0, 0.5), 0.0);
        for scale in [1e-300, 1.0, 1e300] {
            assert!((mean_root(3.0 * scale, scale, 0.5) / (5.0_f64.sqrt() * scale) - 1.0).abs() < 1e-15);
        }
    }
}
