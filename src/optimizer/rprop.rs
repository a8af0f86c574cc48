//! Rprop.

use std::ops::Bound::{Excluded, Unbounded};

use super::lion::sign;
use crate::hyper_parameters;
use crate::params::Scalar;
use crate::rule::{At, Elementwise, Lanes, Rule};
use crate::schedule::Hyper;

/// Rprop: every element moves by a step size of its own, which grows while the gradient keeps its sign and shrinks when the sign changes.
///
/// # Update rule
/// ```text
/// ∇J(θ)·g > 0:  Δ ← η₊Δ                     g is the gradient of the step before
/// ∇J(θ)·g < 0:  Δ ← η₋Δ,  ∇J(θ) ← 0         no move; the next step keeps Δ
/// Δ ← min(max(Δ, Δmin), Δmax)               Δ starts from η
/// θ ← θ − sign(∇J(θ))·Δ
/// g ← ∇J(θ)
/// ```
/// Only the gradient's sign counts. Rprop is for gradients of the whole data set: with small batches the signs are noise, and the step sizes
/// shrink. With weight decay λ the gradient is `∇J(θ) + λθ`.
///
/// # Hyper-parameters
/// Each is set by the method of its name and takes a number, a [schedule](crate::schedule) or a closure.
///
/// | name | default | range | meaning |
/// |---|---|---|---|
/// | `learning_rate` η | – | η ≥ 0 | first step size, in units of the parameter; PyTorch's default is 1e-2 |
/// | `eta_minus` η₋ | 0.5 | 0 < η₋ < 1 | factor of the step size after a change of sign |
/// | `eta_plus` η₊ | 1.2 | η₊ > 1 | factor if the sign is the same |
/// | `min_step_size` Δmin | 1e-6 | Δmin ≥ 0 | smallest step size, in units of the parameter |
/// | `max_step_size` Δmax | 50 | Δmax ≥ 0 | largest step size, in units of the parameter; wins over Δmin |
/// | `weight_decay` λ | 0 | λ ≥ 0 | strength of the L2 penalty |
///
/// The learning rate is used in a tensor's first step only. A schedule cannot shorten later steps; schedule `max_step_size` instead. A warm-up from 0
/// makes all elements start from Δmin.
///
/// # State
/// `prev` g and `step_size` Δ, of the parameter's shape: two elements per parameter (8 bytes in f32).
///
/// # Conventions
/// The default is PyTorch's `Rprop`, with `etas` (η₋, η₊) and `step_sizes` (Δmin, Δmax). PyTorch's has no weight decay. The variant is
/// iRprop⁻ of Igel and Hüsken; the original Rprop takes back the last step after a change of sign. optax's `rprop` moves by the previous step's
/// direction, so its first step does not move; it is not available here.
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
/// let mut opt = Rprop::new(0.5).eta_plus(2.0);
/// let mut w = array![4.0, 4.0];
/// opt.step(&mut w, &array![0.001, -1000.0])?;
/// opt.step(&mut w, &array![0.001, 1000.0])?; // twice the step; no step, as the sign has changed
/// assert_eq!(w, array![2.5, 4.5]);
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// # References
/// M. Riedmiller and H. Braun, *A Direct Adaptive Method for Faster Backpropagation Learning: The RPROP Algorithm* (1993), IEEE ICNN;
/// C. Igel and M. Hüsken, *Improving the Rprop Learning Algorithm* (2000), NC 2000.
#[doc(alias("RProp", "iRprop"))]
pub type Rprop<A = f32> = Elementwise<RpropRule, A>;

hyper_parameters! {
    /// The rule of [`Rprop`].
    pub struct RpropRule => RpropValues for Elementwise {
        /// The factor η₋ of the step size after a change of sign, 0 < η₋ < 1.
        #[doc(alias = "etas")]
        eta_minus / set_eta_minus: 0.5, (Excluded(0.0), Excluded(1.0));
        /// The factor η₊ > 1 of the step size while the sign stays.
        #[doc(alias = "etas")]
        eta_plus / set_eta_plus: 1.2, (Excluded(1.0), Unbounded);
        /// The smallest step size, ≥ 0.
        #[doc(alias = "step_sizes")]
        min_step_size / set_min_step_size: 1e-6, 0.0..;
        /// The largest step size, ≥ 0. It wins over the smallest.
        #[doc(alias = "step_sizes")]
        max_step_size / set_max_step_size: 50.0, 0.0..;
    }
}

impl<A: Scalar> Rprop<A> {
    /// Rprop with PyTorch's defaults: factors 0.5 and 1.2, step sizes from 1e-6 to 50. The learning rate is the first step size.
    pub fn new(learning_rate: impl Into<Hyper>) -> Self {
        Self::from_rule(RpropRule::default(), learning_rate)
    }
}

impl<A: Scalar> Rule<A> for RpropRule {
    /// The learning rate in the first step and 0 in the others, η₋, η₊, Δmin and Δmax.
    type Coefficients = [A; 5];

    fn name(&self) -> &'static str {
        "rprop"
    }

    fn slots(&self) -> &'static [&'static str] {
        &["prev", "step_size"]
    }

    fn non_negative(&self) -> &'static [&'static str] {
        &["step_size"]
    }

    /// The direction is the whole step.
    fn coefficients(&self, values: &RpropValues, at: &At) -> (f64, [A; 5]) {
        let &RpropValues { eta_minus, eta_plus, min_step_size, max_step_size } = values;
        let start = if at.step == 1 { at.learning_rate } else { 0.0 };
        (1.0, [start, eta_minus, eta_plus, min_step_size, max_step_size].map(A::from_f64))
    }

    fn sweep(&self, c: [A; 5], lanes: Lanes<'_, A>) {
        lanes.each(c, |&[start, minus, plus, least, most], _, grad, [prev, size]: [A; 2]| {
            let agreement = grad * prev;
            let turned = agreement < A::zero();
            let grown = if agreement > A::zero() { plus } else { A::one() };
            let size = (size + start) * if turned { minus } else { grown };
            let size = if size < least { least } else { size };
            let size = if size > most { most } else { size };
            let grad = if turned { A::zero() } else { grad };
            (sign(grad) * size, [grad, size])
        });
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use crate::prelude::*;

    #[test]
    fn first_steps_by_hand() {
        let mut opt = Rprop::new(0.5).eta_minus(0.25).eta_plus(2.0).min_step_size(0.25).max_step_size(1.5);
        let mut w = array![8.0];
        let mut after = |grad: f64| {
            opt.step(&mut w, &array![grad]).unwrap();
            [w[0], opt.slot("", "step_size").unwrap()[[0]], opt.slot("", "prev").unwrap()[[0]]]
        };
        assert_eq!(after(3.0), [7.5, 0.5, 3.0]);
        assert_eq!(after(1.0), [6.5, 1.0, 1.0]);
        assert_eq!(after(7.0), [5.0, 1.5, 7.0]); // at most 1.5
        assert_eq!(after(-7.0), [5.0, 0.375, 0.0]); // a change of sign
        assert_eq!(after(-7.0), [5.375, 0.375, -7.0]); // the same step size once more
        assert_eq!(after(7.0), [5.375, 0.25, 0.0]); // at least 0.25
        assert_eq!(after(0.0), [5.375, 0.25, 0.0]);
    }

    #[test]
    fn the_learning_rate_counts_once() {
        let run = |later: f64| {
            let mut opt = Rprop::new(move |step: u64| if step == 0 { 0.5 } else { later });
            let mut w = array![1.0];
            (0..3).for_each(|_| _ = opt.step(&mut w, &array![1.0]).unwrap());
            w[0]
        };
        assert_eq!(run(0.5), run(100.0));
        assert_eq!(run(0.5), 1.0 - 0.5 - 0.5 * 1.2 - 0.5 * 1.2 * 1.2);
    }

    #[test]
    fn nan_is_not_hidden() {
        let (mut opt, mut w) = (Rprop::new(0.5), array![1.0]);
        opt.step(&mut w, &array![f64::NAN]).unwrap();
        assert!(w[0].is_nan());
    }
}
