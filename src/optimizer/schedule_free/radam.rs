//! Schedule-free RAdam.

use std::ops::Bound::Excluded;

use super::{Adaptive, NUMBERS, Weight, adaptive, factor, sweep_adaptive};
use crate::hyper_parameters;
use crate::optimizer::radam::rectification;
use crate::params::Scalar;
use crate::rule::{At, Averaging, Decay, Elementwise, Lanes, Rule};
use crate::schedule::Hyper;

/// Schedule-free RAdam: [`AdamWScheduleFree`](crate::AdamWScheduleFree) with the rectification of [`RAdam`](crate::RAdam), so that it needs no
/// warm-up either.
///
/// # Update rule
/// ```text
/// ρ∞ = 2/(1 − β₂) − 1,  ρ = ρ∞ − 2tβ₂ᵗ/(1 − β₂ᵗ)
/// r = √((ρ − 4)(ρ − 2)ρ∞/((ρ∞ − 4)(ρ∞ − 2)ρ)) if ρ > 4, else 0 (1 if `silent` is false)
/// d ← ∇J(y)/(√(v/(1 − β₂ᵗ)) + ε) + λy if ρ > 4, else ∇J(y) + λy
/// θ ← the update of AdamWScheduleFree with this d, and with ηr in place of η
/// ```
/// While ρ ≤ 4, only v changes, unless `silent` is false.
///
/// The parameters hold y, at which gradients are computed. **Evaluate and ship x**: [`swap`](Elementwise::swap) exchanges y for x and back, and
/// [`average`](Elementwise::average) makes x of a copy. If the model has batch normalization, compute its statistics again for x.
///
/// # Hyper-parameters
/// Those of [`AdamWScheduleFree`](crate::AdamWScheduleFree), with its methods, and
///
/// | name | default | range | meaning |
/// |---|---|---|---|
/// | `silent` | true | – | whether the first steps, in which ρ ≤ 4, do not move; otherwise they are those of SGD |
///
/// # State
/// That of [`AdamWScheduleFree`](crate::AdamWScheduleFree).
///
/// # Conventions
/// The authors' `RAdamScheduleFree` (schedulefree), whose `silent` is called `silent_sgd_phase`. It compares ρ with 4, where PyTorch's `RAdam`
/// compares it with 5.
///
/// # Errors
/// Those of [`AdamWScheduleFree`](crate::AdamWScheduleFree).
///
/// # Example
/// ```
/// use gradus::prelude::*;
/// use ndarray::array;
///
/// let mut opt = RAdamScheduleFree::new(0.5);
/// let mut w = array![0.0];
/// (0..4).try_for_each(|_| opt.step(&mut w, &array![2.0]).map(drop))?;
/// assert_eq!(w, array![0.0]); // ρ is still below 4
/// opt.step(&mut w, &array![2.0])?;
/// assert!(w[0] < 0.0);
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// # References
/// Those of [`AdamWScheduleFree`](crate::AdamWScheduleFree) and of [`RAdam`](crate::RAdam).
pub type RAdamScheduleFree<A = f32> = Elementwise<RAdamScheduleFreeRule, A>;

hyper_parameters! {
    /// The rule of [`RAdamScheduleFree`].
    pub struct RAdamScheduleFreeRule => RAdamScheduleFreeValues for Elementwise {
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
    options {
        /// Whether the first steps do not move, which is the default. With `false` they are those of SGD.
        #[doc(alias = "silent_sgd_phase")]
        silent: bool = true;
    }
}

impl<A: Scalar> RAdamScheduleFree<A> {
    /// Schedule-free RAdam with its authors' defaults: β₁ 0.9, β₂ 0.999, ε 1e-8, r 0, p 2, no weight decay.
    pub fn new(learning_rate: impl Into<Hyper>) -> Self {
        Self::from_rule(RAdamScheduleFreeRule::default(), learning_rate)
    }
}

impl RAdamScheduleFreeRule {
    /// The learning rate, rectified, and whether ρ > 4.
    fn rectified(&self, values: &RAdamScheduleFreeValues, at: &At) -> (f64, bool) {
        match rectification(values.beta2, at, 4.0) {
            Some(r) => (at.learning_rate * r, true),
            None => (if self.silent { 0.0 } else { at.learning_rate }, false),
        }
    }
}

impl<A: Scalar> Rule<A> for RAdamScheduleFreeRule {
    /// And whether ρ > 4.
    type Coefficients = (Adaptive<A>, bool);

    fn name(&self) -> &'static str {
        "radam_schedule_free"
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

    fn remember(&self, values: &RAdamScheduleFreeValues, at: &At, numbers: &mut [f64]) {
        let &RAdamScheduleFreeValues { beta1, time_power, lr_power, .. } = values;
        Weight { time_power, lr_power }.add(at, [self.rectified(values, at).0, beta1], numbers);
    }

    /// The direction is the whole step.
    fn coefficients(&self, values: &RAdamScheduleFreeValues, at: &At) -> (f64, (Adaptive<A>, bool)) {
        let &RAdamScheduleFreeValues { beta1, beta2, eps, .. } = values;
        let (eta, is_rectified) = self.rectified(values, at);
        (1.0, (adaptive(eta, [beta1, beta2, eps], at), is_rectified))
    }

    fn sweep(&self, (c, is_rectified): (Adaptive<A>, bool), lanes: Lanes<'_, A>) {
        match is_rectified {
            true => sweep_adaptive(c, lanes),
            false => lanes.each(c, |&[b2, r2, _, _, decay, c, keep, along, inside], y, grad, [s, v]: [A; 2]| {
                let v = b2 * v + r2 * grad * grad;
                let d = grad + decay * y;
                (along * d - c * s, [keep * (s - inside * d), v])
            }),
        }
    }
}

impl<A: Scalar> Averaging<A> for RAdamScheduleFreeRule {
    fn factor(&self, numbers: &[f64]) -> f64 {
        factor(numbers)
    }
}
