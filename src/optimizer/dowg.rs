//! DoWG.

use super::dog::{descend, length};
use crate::hyper_parameters;
use crate::params::Scalar;
use crate::rule::{At, Elements, Elementwise, Lanes, MAX_SUMS, Measures, Rule};
use crate::schedule::Hyper;

/// DoWG, distance over weighted gradients: [`DoG`](crate::DoG) with a sum in which each squared gradient is weighted by the squared distance of its step.
///
/// # Update rule
/// ```text
/// g ← ∇J(θ) + λθ
/// q ← max(q, ‖θ − θ₀‖²)                 q starts from `initial_distance_sq`
/// W ← W + q‖g‖²
/// θ ← θ − η·q/(√W + ε)·g
/// ```
/// θ₀ are the parameters before the first step. Norms are those of all tensors together.
///
/// **Set η to 1.** Later gradients weigh more than in DoG, so that the step size falls more slowly.
///
/// # Hyper-parameters
/// Each is set by the method of its name and takes a number, a [schedule](crate::schedule) or a closure.
///
/// | name | default | range | meaning |
/// |---|---|---|---|
/// | `learning_rate` η | – | η ≥ 0 | factor of the step size; 1 is usual |
/// | `initial_distance_sq` | ε | > 0 | first squared distance |
/// | `eps` ε | 1e-4 | ε > 0 | keeps the division finite |
/// | `weight_decay` λ | 0 | λ ≥ 0 | strength of the L2 penalty |
///
/// The learning rates of groups multiply the steps of their tensors.
///
/// # State
/// `init_minus_param` θ₀ − θ, of the parameter's shape: one element per parameter (4 bytes in f32). And q and W, of the whole. A step reads parameter,
/// gradient and state twice. If an adaptor checks it first, as `accumulate` and `route` do, it is three times.
///
/// # Conventions
/// optax's `dowg`; `initial_distance_sq` is `init_estim_sq_dist` there. In the paper ε is 0, and the first distance is small.
///
/// θ₀ − θ is what this optimizer has moved. Put adaptors that change parameters by themselves (`lookahead`, `local_steps`) around another optimizer. Tensors
/// without a gradient in a step have no part in its norms. Inside [`sharded`](crate::OptimizerExt::sharded), norms are those over all ranks.
///
/// # Errors
/// Those of [`DoG`](crate::DoG).
///
/// # Example
/// ```
/// use gradus::prelude::*;
/// use ndarray::array;
///
/// let mut opt = DoWG::new(1.0).initial_distance_sq(0.01);
/// let mut w = array![1.0, 1.0];
/// opt.step(&mut w, &array![30.0, 40.0])?; // a step of length 0.1, but for ε
/// assert!((w[0] - 0.94_f64).abs() < 1e-5 && (w[1] - 0.92).abs() < 1e-5);
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// # References
/// A. Khaled, K. Mishchenko and C. Jin, *DoWG Unleashed: An Efficient Universal Parameter-Free Gradient Descent Method* (2023),
/// [arXiv:2305.16284](https://arxiv.org/abs/2305.16284), algorithm 1.
pub type DoWG<A = f32> = Elementwise<DoWGRule, A>;

hyper_parameters! {
    /// The rule of [`DoWG`].
    pub struct DoWGRule => DoWGValues for Elementwise {
        /// The ε > 0 that is added to the root of the sum.
        eps / set_eps: 1e-4, f64::MIN_POSITIVE..;
    }
    optional {
        /// The first squared distance, above 0; without it ε.
        #[doc(alias = "init_estim_sq_dist")]
        initial_distance_sq / set_initial_distance_sq: f64::MIN_POSITIVE..;
    }
}

impl<A: Scalar> DoWG<A> {
    /// DoWG with optax's defaults: ε 1e-4, no weight decay. The learning rate is usually 1.
    pub fn new(learning_rate: impl Into<Hyper>) -> Self {
        Self::from_rule(DoWGRule::default(), learning_rate)
    }

    /// The step size of the last step with η = 1, `q/(√W + ε)`: what the learning rate of [`Sgd`](crate::Sgd) would have been. `None` before the first step.
    pub fn step_size(&self) -> Option<f64> {
        let values = self.last_values()?;
        Some(values.step_size(self.total("distance_sq"), self.total("weighted_grad_sum")))
    }
}

impl DoWGValues {
    fn step_size(&self, distance: f64, sum: f64) -> f64 {
        distance / (sum.sqrt() + self.eps)
    }
}

impl<A: Scalar> Rule<A> for DoWGRule {
    /// The step size.
    type Coefficients = A;

    fn name(&self) -> &'static str {
        "dowg"
    }

    fn slots(&self) -> &'static [&'static str] {
        &["init_minus_param"]
    }

    /// q and W.
    fn numbers(&self) -> &'static [&'static str] {
        &["distance_sq", "weighted_grad_sum"]
    }

    fn measures(&self) -> Option<Measures> {
        Some(Measures::Step)
    }

    /// ‖θ − θ₀‖² and ‖g‖².
    fn measure(&self, _: &DoWGValues, _: &At, tensor: Elements<'_, A>) -> [f64; MAX_SUMS] {
        let square = |x: A| x.as_f64() * x.as_f64();
        let [distance, grad] = tensor.sum((), move |(), _, grad, [moved]: [A; 1]| [moved, grad].map(square));
        [distance, grad, 0.0]
    }

    fn learn(&self, values: &DoWGValues, [moved, grad, _]: [f64; MAX_SUMS], numbers: &mut [f64]) {
        let [distance, sum] = numbers else { return };
        if *distance == 0.0 {
            *distance = values.initial_distance_sq.unwrap_or(values.eps);
        }
        *distance = distance.max(moved);
        *sum += *distance * grad;
    }

    fn coefficients(&self, values: &DoWGValues, at: &At) -> (f64, A) {
        let [distance, sum, ..] = at.numbers;
        length(at, values.step_size(distance, sum))
    }

    fn sweep(&self, step_size: A, lanes: Lanes<'_, A>) {
        descend(step_size, lanes);
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use crate::prelude::*;

    #[test]
    fn first_steps_by_hand() {
        let mut opt = DoWG::new(1.0).initial_distance_sq(0.25).eps(1e-300);
        let mut w = (array![1.0], array![1.0]);
        opt.step(&mut w, &(array![3.0], array![-4.0])).unwrap(); // q = 0.25, W = 6.25
        assert!((w.0[0] - 0.7_f64).abs() < 1e-15 && (w.1[0] - 1.4).abs() < 1e-15);
        assert!((opt.step_size().unwrap() - 0.1).abs() < 1e-15);
        opt.step(&mut w, &(array![0.0], array![-12.0])).unwrap(); // W = 42.25
        assert!((w.1[0] - (1.4 + 12.0 * 0.25 / 6.5)).abs() < 1e-15);
        let distance = 0.3_f64.powi(2) + (w.1[0] - 1.0).powi(2);
        opt.step(&mut w, &(array![0.0], array![0.0])).unwrap();
        assert!((opt.step_size().unwrap() - distance / 6.5).abs() < 1e-15);
    }
}
