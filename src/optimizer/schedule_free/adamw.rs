//! Schedule-free AdamW.

use std::ops::Bound::Excluded;

use super::{Adaptive, NUMBERS, Weight, adaptive, factor, sweep_adaptive};
use crate::hyper_parameters;
use crate::params::Scalar;
use crate::rule::{At, Averaging, Decay, Elementwise, Lanes, Rule};
use crate::schedule::Hyper;

/// Schedule-free AdamW: the parameters y are between a fast sequence z and its average x, and x is what to evaluate and to ship. It needs no
/// falling learning rate.
///
/// # Update rule
/// ```text
/// w ← tʳ·ηmaxᵖ,  c ← w/(w₁ + … + wₜ)            ηmax: the largest η so far
/// v ← β₂v + (1 − β₂)∇J(y)²
/// d ← ∇J(y)/(√(v/(1 − β₂ᵗ)) + ε) + λy
/// y ← y + c·s − η(1 − β₁(1 − c))·d
/// s ← (1 − c)(s − β₁η·d)
/// ```
/// t is the number of steps in which the tensor had a gradient, starting at 1, and s = z − y. This is `z ← z − ηd`, `x ← (1 − c)x + cz` and
/// `y ← (1 − β₁)z + β₁x` with the state of Adam. At any time
/// ```text
/// x = y − (1 − β₁)/β₁·s
/// ```
/// The parameters hold y, at which gradients are computed. **Evaluate and ship x**: [`swap`](Elementwise::swap) exchanges y for x and back, and
/// [`average`](Elementwise::average) makes x of a copy. If the model has batch normalization, compute its statistics again for x.
///
/// # Hyper-parameters
/// Each is set by the method of its name and takes a number, a [schedule](crate::schedule) or a closure.
///
/// | name | default | range | meaning |
/// |---|---|---|---|
/// | `learning_rate` η | – | η ≥ 0 | step size of z, about 1 to 10 times that of AdamW; the authors' default is 2.5e-3. A warm-up helps, a falling schedule does not |
/// | `beta1` β₁ | 0.9 | 0 < β₁ < 1 | the fraction of x in y; keep it constant |
/// | `beta2` β₂ | 0.999 | 0 ≤ β₂ < 1 | decay of the second moment |
/// | `eps` ε | 1e-8 | ε ≥ 0 | keeps the division finite |
/// | `time_power` r | 0 | r ≥ 0 | later steps get a larger weight in the average |
/// | `lr_power` p | 2 | p ≥ 0 | steps of a warm-up get a smaller weight |
/// | `weight_decay` λ | 0 | λ ≥ 0 | decay per step and unit of learning rate, at y |
///
/// # State
/// Two elements per parameter (8 bytes in f32), and three numbers per tensor. While x is [swapped](Elementwise::swap) in, one more element.
///
/// # Conventions
/// The authors' `AdamWScheduleFree` (schedulefree), whose r is called `r` and whose p `weight_lr_power`. It stores z. Its `warmup_steps` is a
/// schedule here: `AdamWScheduleFree::new(2.5e-3.warmup(n))`. optax's `schedule_free` skips the first value of a schedule;
/// Keras' weights are those of r = p = 0.
///
/// x belongs to y and s of the same step. Put adaptors that change parameters by themselves (`lookahead`, `local_steps`) around another optimizer; and call
/// `swap` with the parameters that the optimizer itself has, which are not those of the model inside `sharded` and `master_weights`.
///
/// # Errors
/// A step returns [`StepError::HyperParameter`](crate::error::StepError::HyperParameter) if a value is out of range,
/// [`StepError::Swapped`](crate::error::StepError::Swapped) while x is swapped in, and the errors of [`Step::pair`](crate::Step::pair) and of
/// changed parameters.
///
/// # Example
/// ```
/// use gradus::prelude::*;
/// use ndarray::array;
///
/// let mut opt = AdamWScheduleFree::new(0.5).beta1(0.5).eps(0.0);
/// let mut w = array![0.0];
/// (0..3).try_for_each(|_| opt.step(&mut w, &array![2.0]).map(drop))?; // z: −0.5, −1, −1.5
/// opt.swap(&mut w)?;
/// assert!((w[0] + 1.0_f64).abs() < 1e-12); // the mean of z
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// # References
/// A. Defazio et al., *The Road Less Scheduled* (2024), [arXiv:2405.15682](https://arxiv.org/abs/2405.15682), algorithm 1.
pub type AdamWScheduleFree<A = f32> = Elementwise<AdamWScheduleFreeRule, A>;

hyper_parameters! {
    /// The rule of [`AdamWScheduleFree`].
    pub struct AdamWScheduleFreeRule => AdamWScheduleFreeValues for Elementwise {
        /// The fraction β₁ of the average in the parameters, 0 < β₁ < 1.
        beta1 / set_beta1: 0.9, (Excluded(0.0), Excluded(1.0));
        /// The decay β₂ of the second moment, 0 ≤ β₂ < 1.
        beta2 / set_beta2: 0.999, 0.0..1.0;
        /// The ε ≥ 0 that keeps the division finite.
        eps / set_eps: 1e-8, 0.0..;
        /// The power r ≥ 0 of the step number in the weight of a step.
        time_power / set_time_power: 0.0, 0.0..;
        /// The power p ≥ 0 of the largest learning rate in the weight of a step.
        #[doc(alias = "weight_lr_power")]
        lr_power / set_lr_power: 2.0, 0.0..;
    }
}

impl<A: Scalar> AdamWScheduleFree<A> {
    /// Schedule-free AdamW with its authors' defaults: β₁ 0.9, β₂ 0.999, ε 1e-8, r 0, p 2, no weight decay.
    pub fn new(learning_rate: impl Into<Hyper>) -> Self {
        Self::from_rule(AdamWScheduleFreeRule::default(), learning_rate)
    }
}

impl<A: Scalar> Rule<A> for AdamWScheduleFreeRule {
    type Coefficients = Adaptive<A>;

    fn name(&self) -> &'static str {
        "adamw_schedule_free"
    }

    fn slots(&self) -> &'static [&'static str] {
        &["z_minus_y", "exp_avg_sq"]
    }

    fn non_negative(&self) -> &'static [&'static str] {
        &["exp_avg_sq"]
    }

    fn decay(&self) -> Decay {
        Decay::Own
    }

    fn numbers(&self) -> &'static [&'static str] {
        NUMBERS
    }

    fn averages(&self) -> bool {
        true
    }

    fn remember(&self, values: &AdamWScheduleFreeValues, at: &At, numbers: &mut [f64]) {
        let &AdamWScheduleFreeValues { beta1, time_power, lr_power, .. } = values;
        Weight { time_power, lr_power }.add(at, [at.learning_rate, beta1], numbers);
    }

    /// The direction is the whole step.
    fn coefficients(&self, values: &AdamWScheduleFreeValues, at: &At) -> (f64, Adaptive<A>) {
        let &AdamWScheduleFreeValues { beta1, beta2, eps, .. } = values;
        (1.0, adaptive(at.learning_rate, [beta1, beta2, eps], at))
    }

    fn sweep(&self, c: Adaptive<A>, lanes: Lanes<'_, A>) {
        sweep_adaptive(c, lanes);
    }
}

impl<A: Scalar> Averaging<A> for AdamWScheduleFreeRule {
    fn factor(&self, numbers: &[f64]) -> f64 {
        factor(numbers)
    }
}
