//! Schedule-free SGD.

use std::ops::Bound::Excluded;

use super::{NUMBERS, StepFactors, Weight, factor};
use crate::hyper_parameters;
use crate::params::Scalar;
use crate::rule::{At, Averaging, Elementwise, Lanes, Rule};
use crate::schedule::Hyper;

/// Schedule-free SGD: the parameters y are between a fast sequence z and its average x, and x is what to evaluate and to ship. It needs no
/// falling learning rate.
///
/// # Update rule
/// ```text
/// w ← tʳ·ηmaxᵖ,  c ← w/(w₁ + … + wₜ)            ηmax: the largest η so far
/// d ← ∇J(y) + λy
/// y ← y + c·s − η(1 − β(1 − c))·d
/// s ← (1 − c)(s − βη·d)
/// ```
/// t is the number of steps in which the tensor had a gradient, starting at 1, and s = z − y. This is `z ← z − ηd`, `x ← (1 − c)x + cz` and
/// `y ← (1 − β)z + βx` with one array of state. At any time
/// ```text
/// x = y − (1 − β)/β·s
/// ```
/// The parameters hold y, at which gradients are computed. **Evaluate and ship x**: [`swap`](Elementwise::swap) exchanges y for x and back, and
/// [`average`](Elementwise::average) makes x of a copy. If the model has batch normalization, compute its statistics again for x.
///
/// # Hyper-parameters
/// Each is set by the method of its name and takes a number, a [schedule](crate::schedule) or a closure.
///
/// | name | default | range | meaning |
/// |---|---|---|---|
/// | `learning_rate` η | – | η ≥ 0 | length of a step of z, per unit of the gradient; the authors' default is 1. A warm-up may help, a falling schedule does not |
/// | `momentum` β | 0.9 | 0 < β < 1 | the fraction of x in y; keep it constant |
/// | `time_power` r | 0 | r ≥ 0 | later steps get a larger weight in the average |
/// | `lr_power` p | 2 | p ≥ 0 | steps of a warm-up get a smaller weight |
/// | `weight_decay` λ | 0 | λ ≥ 0 | strength of the L2 penalty at y |
///
/// # State
/// One element per parameter (4 bytes in f32), and three numbers per tensor. While x is [swapped](Elementwise::swap) in, one more element.
///
/// # Conventions
/// The authors' `SGDScheduleFree` (schedulefree), whose r is called `r` and whose p `weight_lr_power`. It stores z. Its `warmup_steps` is a
/// schedule here: `SgdScheduleFree::new(1.0.warmup(n))`. optax's `schedule_free` skips the first value of a schedule.
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
/// let mut opt = SgdScheduleFree::new(0.5).momentum(0.5);
/// let mut w = array![0.0];
/// (0..3).try_for_each(|_| opt.step(&mut w, &array![1.0]).map(drop))?; // z: −0.5, −1, −1.5
/// opt.swap(&mut w)?;
/// assert_eq!(w, array![-1.0]); // the mean of z
/// opt.swap(&mut w)?;
/// assert_eq!(w, array![-1.25]); // between x and z: train on
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// # References
/// A. Defazio et al., *The Road Less Scheduled* (2024), [arXiv:2405.15682](https://arxiv.org/abs/2405.15682), eq. 8 to 10.
#[doc(alias = "SGDScheduleFree")]
pub type SgdScheduleFree<A = f32> = Elementwise<SgdScheduleFreeRule, A>;

hyper_parameters! {
    /// The rule of [`SgdScheduleFree`].
    pub struct SgdScheduleFreeRule => SgdScheduleFreeValues for Elementwise {
        /// The fraction β of the average in the parameters, 0 < β < 1.
        momentum / set_momentum: 0.9, (Excluded(0.0), Excluded(1.0));
        /// The power r ≥ 0 of the step number in the weight of a step.
        time_power / set_time_power: 0.0, 0.0..;
        /// The power p ≥ 0 of the largest learning rate in the weight of a step.
        #[doc(alias = "weight_lr_power")]
        lr_power / set_lr_power: 2.0, 0.0..;
    }
}

impl<A: Scalar> SgdScheduleFree<A> {
    /// Schedule-free SGD with its authors' defaults: β 0.9, r 0, p 2, no weight decay.
    pub fn new(learning_rate: impl Into<Hyper>) -> Self {
        Self::from_rule(SgdScheduleFreeRule::default(), learning_rate)
    }
}

impl<A: Scalar> Rule<A> for SgdScheduleFreeRule {
    /// c, 1 − c, and the factors of d in y and in s.
    type Coefficients = [A; 4];

    fn name(&self) -> &'static str {
        "sgd_schedule_free"
    }

    fn slots(&self) -> &'static [&'static str] {
        &["z_minus_y"]
    }

    fn numbers(&self) -> &'static [&'static str] {
        NUMBERS
    }

    fn averages(&self) -> bool {
        true
    }

    fn remember(&self, values: &SgdScheduleFreeValues, at: &At, numbers: &mut [f64]) {
        let &SgdScheduleFreeValues { momentum, time_power, lr_power, .. } = values;
        Weight { time_power, lr_power }.add(at, [at.learning_rate, momentum], numbers);
    }

    /// The direction is the whole step.
    fn coefficients(&self, values: &SgdScheduleFreeValues, at: &At) -> (f64, [A; 4]) {
        let StepFactors { c, keep, along, inside } =
            StepFactors::of(at.learning_rate, values.momentum, Weight::fraction(at));
        (1.0, [c, keep, along, inside].map(A::from_f64))
    }

    fn sweep(&self, c: [A; 4], lanes: Lanes<'_, A>) {
        lanes.each(c, |&[c, keep, along, inside], _, d, [s]: [A; 1]| (along * d - c * s, [keep * (s - inside * d)]));
    }
}

impl<A: Scalar> Averaging<A> for SgdScheduleFreeRule {
    fn factor(&self, numbers: &[f64]) -> f64 {
        factor(numbers)
    }
}
