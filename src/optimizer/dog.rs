//! DoG and L-DoG.

use crate::hyper_parameters;
use crate::params::Scalar;
use crate::rule::{At, Elements, Elementwise, Lanes, MAX_SUMS, Measures, Rule};
use crate::schedule::Hyper;

/// DoG, distance over gradients: gradient descent whose step size is the distance from the start, divided by the root of the sum of all squared gradients.
///
/// # Update rule
/// ```text
/// g ← ∇J(θ) + λθ
/// r ← max(r, ‖θ − θ₀‖)                  r starts from α(1 + ‖θ₀‖), or from `initial_distance`
/// G ← G + ‖g‖²
/// θ ← θ − η·r/√(G + ε)·g                while nothing has moved, θ ← θ − η·η₀·g if there is an `initial_rate` η₀
/// ```
/// θ₀ are the parameters before the first step. Norms are those of all tensors together; with [`layerwise`](Self::layerwise), which is L-DoG, those of each tensor.
///
/// **Set η to 1.** The authors recommend to evaluate an average of the parameters, such as [`ema`](crate::OptimizerExt::ema) keeps.
///
/// # Hyper-parameters
/// Each is set by the method of its name and takes a number, a [schedule](crate::schedule) or a closure.
///
/// | name | default | range | meaning |
/// |---|---|---|---|
/// | `learning_rate` η | – | η ≥ 0 | factor of the step size; 1 is usual |
/// | `relative_distance` α | 1e-6 | α > 0 | first distance, relative to the norm of the parameters; 1e-4 with batch normalization |
/// | `initial_distance` | – | > 0 | first distance, instead of that by α |
/// | `initial_rate` η₀ | – | η₀ > 0 | first step size; the first distance is then 0 |
/// | `eps` ε | 1e-8 | ε ≥ 0 | keeps the division finite; unit of the squared gradient |
/// | `weight_decay` λ | 0 | λ ≥ 0 | strength of the L2 penalty |
/// | `layerwise` | false | – | every tensor has its own r and G: L-DoG |
///
/// The learning rates of groups multiply the steps of their tensors. If `G + ε` is 0, nothing moves.
///
/// # State
/// `init_minus_param` θ₀ − θ, of the parameter's shape: one element per parameter (4 bytes in f32). And r and G, of the whole or of each tensor. A step reads parameter,
/// gradient and state twice. If an adaptor checks it first, as `accumulate` and `route` do, it is three times.
///
/// # Conventions
/// The authors' `DoG` and `LDoG` (dog-optimizer 1.0.3), and optax's `dog`. α is `reps_rel` there and `("heuristic", α)` in optax, η₀ `init_eta` and
/// `("learning_rate", η₀)`. The authors' η₀ is not multiplied by η, and their groups have an r and a G each.
///
/// θ₀ − θ is what this optimizer has moved. Put adaptors that change parameters by themselves (`lookahead`, `local_steps`) around another optimizer. Tensors
/// without a gradient in a step have no part in its norms. Inside [`sharded`](crate::OptimizerExt::sharded), norms are those over all ranks; L-DoG needs
/// `by_tensor`.
///
/// # Errors
/// A step returns [`StepError::HyperParameter`](crate::error::StepError::HyperParameter) if a value is out of range,
/// [`StepError::NonFiniteGradient`](crate::error::StepError::NonFiniteGradient), [`StepError::NonFiniteParameter`](crate::error::StepError::NonFiniteParameter) or
/// [`StepError::NormOverflow`](crate::error::StepError::NormOverflow) if a squared norm is not finite,
/// [`StepError::RowsUnusable`](crate::error::StepError::RowsUnusable) for gradients of rows,
/// [`StepError::OptionNotPossible`](crate::error::StepError::OptionNotPossible) with options that change the move, and the errors of
/// [`Step::pair`](crate::Step::pair) and of changed parameters.
///
/// # Example
/// ```
/// use gradus::prelude::*;
/// use ndarray::array;
///
/// let mut opt = DoG::new(1.0).initial_distance(0.1).eps(0.0);
/// let mut w = array![1.0, 1.0];
/// opt.step(&mut w, &array![30.0, 40.0])?; // a step of length 0.1
/// assert!((w[0] - 0.94_f64).abs() < 1e-12 && (w[1] - 0.92).abs() < 1e-12);
/// assert_eq!(opt.step_size(), Some(0.002));
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// # References
/// M. Ivgi, O. Hinder and Y. Carmon, *DoG is SGD's Best Friend: A Parameter-Free Dynamic Step Size Schedule* (2023),
/// [arXiv:2302.12022](https://arxiv.org/abs/2302.12022), eq. DoG and appendix A.2 (L-DoG).
#[doc(alias = "LDoG")]
pub type DoG<A = f32> = Elementwise<DoGRule, A>;

hyper_parameters! {
    /// The rule of [`DoG`].
    pub struct DoGRule => DoGValues for Elementwise {
        /// The first distance α > 0, relative to 1 + ‖θ₀‖.
        #[doc(alias = "reps_rel")]
        relative_distance / set_relative_distance: 1e-6, f64::MIN_POSITIVE..;
        /// The ε ≥ 0 that is added to the sum of the squared gradients.
        eps / set_eps: 1e-8, 0.0..;
    }
    optional {
        /// The first distance, above 0, instead of the relative one.
        initial_distance / set_initial_distance: f64::MIN_POSITIVE..;
        /// The first step size η₀ > 0, instead of a first distance.
        #[doc(alias = "init_eta")]
        initial_rate / set_initial_rate: f64::MIN_POSITIVE..;
    }
    options {
        /// Gives every tensor its own distance and sum: L-DoG. Choose it before the first step.
        layerwise: bool = false;
    }
}

impl<A: Scalar> DoG<A> {
    /// DoG with its authors' defaults: α 1e-6, ε 1e-8, no weight decay. The learning rate is usually 1.
    pub fn new(learning_rate: impl Into<Hyper>) -> Self {
        Self::from_rule(DoGRule::default(), learning_rate)
    }

    /// The step size of the last step with η = 1, `r/√(G + ε)`: what the learning rate of [`Sgd`](crate::Sgd) would have been. `None` before the first step, and with
    /// [`layerwise`](Self::layerwise).
    pub fn step_size(&self) -> Option<f64> {
        let values = self.last_values()?;
        (!self.rule.layerwise).then(|| values.step_size(self.total("max_distance"), self.total("grad_sum")))
    }
}

impl DoGValues {
    fn step_size(&self, distance: f64, sum: f64) -> f64 {
        match self.initial_rate {
            Some(rate) if distance == 0.0 => rate,
            _ if sum + self.eps == 0.0 => 0.0,
            _ => distance / (sum + self.eps).sqrt(),
        }
    }
}

impl<A: Scalar> Rule<A> for DoGRule {
    /// The step size.
    type Coefficients = A;

    fn name(&self) -> &'static str {
        if self.layerwise { "l_dog" } else { "dog" }
    }

    fn slots(&self) -> &'static [&'static str] {
        &["init_minus_param"]
    }

    /// r and G.
    fn numbers(&self) -> &'static [&'static str] {
        &["max_distance", "grad_sum"]
    }

    fn measures(&self) -> Option<Measures> {
        Some(if self.layerwise { Measures::Tensor } else { Measures::Step })
    }

    /// ‖θ − θ₀‖², ‖g‖² and, in the first step, ‖θ‖².
    fn measure(&self, _: &DoGValues, at: &At, tensor: Elements<'_, A>) -> [f64; MAX_SUMS] {
        let square = |x: A| x.as_f64() * x.as_f64();
        match at.numbers {
            [0.0, 0.0, ..] => tensor.sum((), move |(), param, grad, [moved]: [A; 1]| [moved, grad, param].map(square)),
            _ => {
                let [distance, sum] = tensor.sum((), move |(), _, grad, [moved]: [A; 1]| [moved, grad].map(square));
                [distance, sum, 0.0]
            }
        }
    }

    fn learn(&self, values: &DoGValues, [moved, grad, param]: [f64; MAX_SUMS], numbers: &mut [f64]) {
        let [distance, sum] = numbers else { return };
        if *distance == 0.0 && *sum == 0.0 {
            *distance = match (values.initial_rate, values.initial_distance) {
                (Some(_), _) => 0.0,
                (None, Some(distance)) => distance,
                (None, None) => values.relative_distance * (1.0 + param.sqrt()),
            };
        }
        *distance = distance.max(moved.sqrt());
        *sum += grad;
    }

    fn coefficients(&self, values: &DoGValues, at: &At) -> (f64, A) {
        let [distance, sum, ..] = at.numbers;
        length(at, values.step_size(distance, sum))
    }

    fn sweep(&self, step_size: A, lanes: Lanes<'_, A>) {
        descend(step_size, lanes);
    }
}

/// The step size of a tensor, η times that of the step, also as coefficient.
pub(super) fn length<A: Scalar>(at: &At, step_size: f64) -> (f64, A) {
    let step_size = (at.learning_rate * step_size).min(A::max_value().as_f64());
    (step_size, A::from_f64(step_size))
}

/// Moves along the gradient, and remembers θ₀ − θ.
pub(super) fn descend<A: Scalar>(step_size: A, lanes: Lanes<'_, A>) {
    lanes.each(step_size, |&step_size, param, grad, [moved]: [A; 1]| {
        (grad, [moved + (param - (param - step_size * grad))])
    });
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use crate::prelude::*;

    #[test]
    fn first_steps_by_hand() {
        let mut opt = DoG::new(1.0).initial_distance(0.5).eps(0.0);
        let mut w = (array![1.0], array![1.0]);
        opt.step(&mut w, &(array![3.0], array![-4.0])).unwrap(); // r = 0.5, G = 25
        assert!((w.0[0] - 0.7_f64).abs() < 1e-15 && (w.1[0] - 1.4).abs() < 1e-15);
        opt.step(&mut w, &(array![0.0], array![-12.0])).unwrap(); // r = 0.5, G = 169
        assert!((w.1[0] - (1.4 + 12.0 * 0.5 / 13.0)).abs() < 1e-15);
        let distance = (0.3_f64.powi(2) + (w.1[0] - 1.0).powi(2)).sqrt();
        opt.step(&mut w, &(array![0.0], array![0.0])).unwrap();
        assert!((opt.step_size().unwrap() - distance / 13.0).abs() < 1e-15);
    }

    #[test]
    fn layer_by_layer_by_hand() {
        let mut opt = DoG::new(1.0).initial_distance(0.5).eps(0.0).layerwise(true);
        let mut w = (array![1.0], array![1.0]);
        opt.step(&mut w, &(array![3.0], array![-4.0])).unwrap();
        assert_eq!((w, opt.step_size()), ((array![0.5], array![1.5]), None));
    }

    #[test]
    fn the_first_distance() {
        let first = |opt: DoG<f64>| {
            let (mut opt, mut w) = (opt.eps(0.0), array![3.0, 4.0]);
            opt.step(&mut w, &array![0.0, 2.0]).unwrap();
            4.0 - w[1]
        };
        assert!((first(DoG::new(1.0).relative_distance(0.01)) - 0.06).abs() < 1e-14);
        assert!((first(DoG::new(1.0).initial_rate(0.01)) - 0.02).abs() < 1e-14);
        assert!((first(DoG::new(0.5).initial_distance(0.1)) - 0.05).abs() < 1e-14);
    }

    #[test]
    fn without_a_gradient_nothing_moves() {
        let (mut opt, mut w) = (DoG::new(1.0).eps(0.0), array![1.0]);
        opt.step(&mut w, &array![0.0]).unwrap();
        assert_eq!((w, opt.step_size()), (array![1.0], Some(0.0)));
    }
}
