//! D-Adaptation for SGD.

use crate::hyper_parameters;
use crate::params::Scalar;
use crate::rule::{At, Decay, Elements, Elementwise, Lanes, MAX_SUMS, Measures, Rule};
use crate::schedule::Hyper;

/// SGD with D-Adaptation: it finds its learning rate, as a lower bound of the distance to the solution that never falls.
///
/// # Update rule
/// ```text
/// g ← ∇J(θ) + λθ
/// r ← r + (dη/g₀)·⟨g, s⟩                                    over all tensors
/// s ← s + (dη/g₀)·g
/// d ← max(d, min(2r/‖s‖, γd))                               ‖s‖ over all tensors
/// θ ← θ + (1 − μ)(θ₀ − s − θ)
/// ```
/// g₀ is the norm of all gradients ∇J(θ) in the first step in which it is not 0; before that, nothing moves. θ₀ are the parameters before the first step. d starts from d₀. θ₀ − s is where plain
/// SGD would be, so that with a momentum of 0 this is SGD.
///
/// **Set η to 1**, or to a schedule whose largest value is 1. [`rate`](Self::rate) is what the learning rate of SGD would be.
///
/// # Hyper-parameters
/// Each is set by the method of its name and takes a number, a [schedule](crate::schedule) or a closure.
///
/// | name | default | range | meaning |
/// |---|---|---|---|
/// | `learning_rate` η | – | η ≥ 0 | factor of d; 1 is usual |
/// | `momentum` μ | 0.9 | 0 ≤ μ < 1 | fraction of the way to the point of SGD that is left |
/// | `d0` d₀ | 1e-6 | d₀ > 0 | first d, which should be too small; keep it constant |
/// | `growth_rate` γ | ∞ | γ ≥ 1 | the most that d grows by in a step; 1.02 acts as a warm-up |
/// | `weight_decay` λ | 0 | λ ≥ 0 | strength of the L2 penalty |
///
/// The learning rates of groups multiply a tensor's steps and its part in the sums.
///
/// # State
/// `s` and `init_minus_param` θ₀ − θ, each of the parameter's shape: two elements per parameter (8 bytes in f32). And four numbers of the whole: d/g₀, its
/// last value, r and g₀. A step reads parameter, gradient and state twice. If an adaptor checks it first, as `accumulate` and `route` do, it is three times.
///
/// # Conventions
/// pytorch-optimizer's `DAdaptSGD` and the authors' `DAdaptSGD` (dadaptation). They store θ₀ and θ₀ − s, too.
///
/// θ₀ − θ is what this optimizer has moved. Put adaptors that change parameters by themselves (`lookahead`, `local_steps`) around another optimizer. Tensors
/// without a gradient in a step have no part in its sums. Inside [`sharded`](crate::OptimizerExt::sharded), sums are those over all ranks.
///
/// # Errors
/// Those of [`Prodigy`](crate::Prodigy).
///
/// # Example
/// ```
/// use gradus::prelude::*;
/// use ndarray::array;
///
/// let mut opt = DAdaptSgd::new(1.0).momentum(0.0).d0(0.1);
/// let mut w = array![1.0, 1.0];
/// opt.step(&mut w, &array![30.0, 40.0])?; // a step of length d₀
/// assert!((w[0] - 0.94_f64).abs() < 1e-12 && (w[1] - 0.92).abs() < 1e-12);
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// # References
/// A. Defazio and K. Mishchenko, *Learning-Rate-Free Learning by D-Adaptation* (2023), [arXiv:2301.07733](https://arxiv.org/abs/2301.07733), algorithm 4.
#[doc(alias = "DAdaptSGD")]
pub type DAdaptSgd<A = f32> = Elementwise<DAdaptSgdRule, A>;

hyper_parameters! {
    /// The rule of [`DAdaptSgd`].
    pub struct DAdaptSgdRule => DAdaptSgdValues for Elementwise {
        /// The momentum μ, 0 ≤ μ < 1.
        momentum / set_momentum: 0.9, 0.0..1.0;
        /// The first d, d₀ > 0. Keep it constant.
        d0 / set_d0: 1e-6, f64::MIN_POSITIVE..;
    }
    optional {
        /// The most γ ≥ 1 that d grows by in a step; without it there is no limit.
        growth_rate / set_growth_rate: 1.0..;
    }
}

impl<A: Scalar> DAdaptSgd<A> {
    /// D-Adaptation with the defaults of pytorch-optimizer: momentum 0.9, d₀ 1e-6, no weight decay. The learning rate is usually 1.
    pub fn new(learning_rate: impl Into<Hyper>) -> Self {
        Self::from_rule(DAdaptSgdRule::default(), learning_rate)
    }

    /// The estimate d of the distance to the solution. Before the first step, it is 0.
    pub fn d(&self) -> f64 {
        self.total("rate") * self.total("g0_norm")
    }

    /// d/g₀: with η = 1, what the learning rate of SGD would be in the next step. Before the first step, it is 0.
    pub fn rate(&self) -> f64 {
        self.total("rate")
    }
}

impl<A: Scalar> Rule<A> for DAdaptSgdRule {
    /// dη/g₀, 1 − μ, and λ.
    type Coefficients = [A; 3];

    fn name(&self) -> &'static str {
        "dadapt_sgd"
    }

    fn slots(&self) -> &'static [&'static str] {
        &["s", "init_minus_param"]
    }

    fn decay(&self) -> Decay {
        Decay::Own
    }

    /// The numbers of the whole: d/g₀ of this step and for the next one, r and g₀.
    fn numbers(&self) -> &'static [&'static str] {
        &["rate_of_step", "rate", "numerator_weighted", "g0_norm"]
    }

    fn measures(&self) -> Option<Measures> {
        Some(Measures::Step)
    }

    /// ⟨g, s⟩ and ‖s‖² of this step, and ‖∇J‖². In the first step s is 0, and ‖s‖² is in units of the squared rate.
    fn measure(&self, _: &DAdaptSgdValues, at: &At, tensor: Elements<'_, A>) -> [f64; MAX_SUMS] {
        let ([_, rate, ..], eta) = (at.numbers, at.learning_rate);
        let square = |x: A| x.as_f64() * x.as_f64();
        if rate == 0.0 {
            let c = [eta, at.weight_decay].map(A::from_f64);
            let [norm, grad] = tensor.sum(c, move |&[eta, decay], param, grad, [_, _]: [A; 2]| {
                [eta * (grad + decay * param), grad].map(square)
            });
            return [0.0, norm, grad];
        }
        let c = [rate * eta, at.weight_decay].map(A::from_f64);
        let [progress, norm] = tensor.sum(c, move |&[rate, decay], param, grad, [s, _]: [A; 2]| {
            let grad = grad + decay * param;
            [grad.as_f64() * s.as_f64(), square(s + rate * grad)]
        });
        [rate * eta * progress, norm, 0.0]
    }

    fn learn(&self, values: &DAdaptSgdValues, [progress, norm, grad]: [f64; MAX_SUMS], numbers: &mut [f64]) {
        let [of_step, rate, numerator, g0] = numbers else { return };
        let mut norm = norm.sqrt();
        if *rate == 0.0 {
            if grad == 0.0 {
                return;
            }
            *g0 = grad.sqrt();
            *rate = values.d0 / *g0;
            norm *= *rate;
        }
        *of_step = *rate;
        *numerator += progress;
        if norm > 0.0 {
            let estimate = 2.0 * *numerator / norm / *g0;
            *rate = rate.max(values.growth_rate.map_or(estimate, |growth| estimate.min(*rate * growth)));
        }
    }

    fn coefficients(&self, values: &DAdaptSgdValues, at: &At) -> (f64, [A; 3]) {
        let rest = 1.0 - values.momentum;
        (rest, [at.numbers[0] * at.learning_rate, rest, at.weight_decay].map(A::from_f64))
    }

    fn sweep(&self, c: [A; 3], lanes: Lanes<'_, A>) {
        lanes.each(c, |&[rate, rest, decay], param, grad, [s, moved]: [A; 2]| {
            let s = s + rate * (grad + decay * param);
            let direction = s - moved;
            (direction, [s, moved + (param - (param - rest * direction))])
        });
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use crate::prelude::*;

    #[test]
    fn first_steps_by_hand() {
        let mut opt = DAdaptSgd::new(1.0).momentum(0.5).d0(0.5);
        let mut w = (array![1.0], array![1.0]);
        opt.step(&mut w, &(array![0.0], array![0.0])).unwrap(); // without a gradient there is no g₀
        assert_eq!((&w, opt.d()), (&(array![1.0], array![1.0]), 0.0));
        opt.step(&mut w, &(array![3.0], array![-4.0])).unwrap(); // g₀ = 5, s = (0.3, −0.4)
        assert!((w.0[0] - 0.85_f64).abs() < 1e-15 && (w.1[0] - 1.2).abs() < 1e-15);
        assert_eq!((opt.d(), opt.rate()), (0.5, 0.1));
        opt.step(&mut w, &(array![3.0], array![-4.0])).unwrap(); // r = 0.1·2.5, s = (0.6, −0.8)
        assert!((w.0[0] - 0.625_f64).abs() < 1e-15 && (w.1[0] - 1.5).abs() < 1e-15);
        assert!((opt.d() - 0.5).abs() < 1e-15); // 2·0.25/1
        opt.step(&mut w, &(array![3.0], array![-4.0])).unwrap(); // r = 0.25 + 0.1·5, ‖s‖ = 1.5
        assert!((opt.d() - 1.0).abs() < 1e-15, "{}", opt.d());
    }
}
