//! ASGD.

use crate::hyper_parameters;
use crate::params::Scalar;
use crate::rule::{At, Elementwise, Lanes, Rule, real_power};
use crate::schedule::Hyper;

/// ASGD: stochastic gradient descent with a falling learning rate, then averaged.
///
/// # Update rule
/// ```text
/// ηₜ ← η/(1 + λ₀η(t − 1))^α
/// θ ← θ(1 − λ₀ηₜ) − ηₜ∇J(θ)
/// ```
/// t is the number of steps in which the tensor had a gradient, starting at 1. λ₀ both shrinks the parameters and sets how fast the learning rate falls.
/// With weight decay λ the gradient is `∇J(θ) + λθ`.
///
/// [`swa`](crate::OptimizerExt::swa) computes the average. Start it when the parameters are near a minimum:
/// ```text
/// Asgd::new(0.01).swa(t₀ + 2, 1)            the mean of the parameters after the steps t₀ + 2, t₀ + 3, …
/// ```
/// Read it or [exchange it with the parameters](crate::adaptor::Swa::swap) to evaluate the model.
///
/// # Hyper-parameters
/// Each is set by the method of its name and takes a number, a [schedule](crate::schedule) or a closure.
///
/// | name | default | range | meaning |
/// |---|---|---|---|
/// | `learning_rate` η | – | η ≥ 0 | length of the first step, per unit of the gradient; PyTorch's default is 1e-2 |
/// | `lambda` λ₀ | 1e-4 | λ₀ ≥ 0 | decay per step and unit of learning rate |
/// | `alpha` α | 0.75 | α ≥ 0 | exponent of the fall of the learning rate |
/// | `weight_decay` λ | 0 | λ ≥ 0 | strength of the L2 penalty, beside λ₀ |
///
/// # State
/// None. With `swa`, one element per parameter (4 bytes in f32).
///
/// # Conventions
/// PyTorch's `ASGD`, whose λ₀ is called `lambd`. It stores the average `ax` from the first step on. Up to step t₀ + 2 this is a copy of the
/// parameters, and t₀ is 1e6 by default; later it is the mean above. PyTorch computes ηₜ one step ahead, so with a learning-rate schedule it
/// uses the previous step's η; gradus uses the current one. PyTorch rounds ηₜ to f32, unless its default type is f64.
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
/// let mut opt = Asgd::new(0.5).lambda(0.0).swa(2, 1);
/// let mut w = array![4.0];
/// (0..3).try_for_each(|_| opt.step(&mut w, &array![1.0]).map(drop))?; // 3.5, 3, 2.5
/// opt.swap(&mut w)?;
/// assert_eq!(w, array![2.75]); // the mean from step 2 on
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// # References
/// B. T. Polyak and A. B. Juditsky, *Acceleration of stochastic approximation by averaging*, SIAM J. Control Optim. 30 (1992);
/// W. Xu, *Towards Optimal One Pass Large Scale Learning with Averaged Stochastic Gradient Descent* (2011),
/// [arXiv:1107.2490](https://arxiv.org/abs/1107.2490) (the learning rate).
#[doc(alias = "ASGD")]
pub type Asgd<A = f32> = Elementwise<AsgdRule, A>;

hyper_parameters! {
    /// The rule of [`Asgd`].
    pub struct AsgdRule => AsgdValues for Elementwise {
        /// The decay λ₀ ≥ 0 of the parameters and of the learning rate.
        #[doc(alias = "lambd")]
        lambda / set_lambda: 1e-4, 0.0..;
        /// The exponent α ≥ 0 of the fall of the learning rate.
        alpha / set_alpha: 0.75, 0.0..;
    }
}

impl<A: Scalar> Asgd<A> {
    /// ASGD with PyTorch's defaults: λ₀ 1e-4, α 0.75, no weight decay.
    pub fn new(learning_rate: impl Into<Hyper>) -> Self {
        Self::from_rule(AsgdRule::default(), learning_rate)
    }
}

impl<A: Scalar> Rule<A> for AsgdRule {
    /// λ₀.
    type Coefficients = A;

    fn name(&self) -> &'static str {
        "asgd"
    }

    fn slots(&self) -> &'static [&'static str] {
        &[]
    }

    fn coefficients(&self, values: &AsgdValues, at: &At) -> (f64, A) {
        let fall = 1.0 + values.lambda * at.learning_rate * (at.step as f64 - 1.0);
        (at.learning_rate / real_power(fall, values.alpha), A::from_f64(values.lambda))
    }

    fn sweep(&self, lambda: A, lanes: Lanes<'_, A>) {
        lanes.each(lambda, |lambda, param, grad, []: [A; 0]| (grad + *lambda * param, []));
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use crate::prelude::*;

    #[test]
    fn first_steps_by_hand() {
        let mut opt = Asgd::new(0.5).lambda(2.0).alpha(2.0);
        let mut w = array![8.0];
        opt.step(&mut w, &array![4.0]).unwrap(); // η₁ = 0.5: the parameter decays to 0
        assert_eq!(w, array![-2.0]);
        opt.step(&mut w, &array![4.0]).unwrap(); // η₂ = 0.5/2² = 0.125: −2 decays to −1.5
        assert_eq!(w, array![-2.0]);
        opt.step(&mut w, &array![0.0]).unwrap(); // η₃ = 0.5/3²
        assert!((w[0] + 2.0 - 2.0 * 2.0 * 0.5 / 9.0_f64).abs() < 1e-15, "{w}");
    }

    /// `torch.optim.ASGD(params, lr=0.1, lambd=0.1, t0=2)` of PyTorch 2.15.0 with the default type f64: parameter and `ax` after each step.
    #[test]
    fn the_average_is_pytorch_s() {
        let expected = [
            (0.89, 0.89),
            (0.8067237940648796, 0.8067237940648796),
            (0.7495125963499844, 0.7495125963499844),
            (0.7177299316459089, 0.7177299316459089),
            (0.7107606814876899, 0.7142453065667994),
            (0.7280101794198685, 0.7188335975178224),
        ];
        let (mut opt, mut w) = (Asgd::new(0.1).lambda(0.1).swa(4, 1), array![1.0]);
        for (step, (param, average)) in (0..).zip(expected) {
            opt.step(&mut w, &array![1.0 - 0.25 * f64::from(step)]).unwrap();
            let mut read = w.clone();
            opt.read(&mut read).unwrap();
            assert!((w[0] - param).abs() < 1e-15 && (read[0] - average).abs() < 1e-15, "{w} {read}");
        }
    }
}
