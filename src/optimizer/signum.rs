//! Signum and signSGD.

use crate::hyper_parameters;
use crate::optimizer::lion::sign;
use crate::params::Scalar;
use crate::rule::{At, Decay, Elementwise, Lanes, Rule};
use crate::schedule::Hyper;

/// Signum: moves each element by the sign of an average gradient. All steps of an element have the same length.
///
/// # Update rule
/// ```text
/// θ ← θ(1 − ηλ)
/// m ← μm + (1 − μ)∇J(θ)
/// θ ← θ − η·sign(m)                          sign(0) is 0
/// ```
/// ∇J(θ) is the gradient before the decay. m starts from 0. [`SignSgd`] has no m and moves by the sign of the gradient.
///
/// # Hyper-parameters
/// Each is set by the method of its name and takes a number, a [schedule](crate::schedule) or a closure.
///
/// | name | default | range | meaning |
/// |---|---|---|---|
/// | `learning_rate` η | – | η ≥ 0 | length of the step, in units of the parameter; 1e-4 is usual |
/// | `momentum` μ | 0.9 | 0 ≤ μ < 1 | fraction of the average that is kept per step |
/// | `weight_decay` λ | 0 | λ ≥ 0 | decay per step and unit of learning rate, decoupled |
///
/// # State
/// `momentum_buffer` m, of the parameter's shape: one element per parameter (4 bytes in f32).
///
/// # Conventions
/// optax's `signum`, where μ is called `beta`, and which has no weight decay. The factor 1 − μ does not change the sign.
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
/// let mut opt = Signum::new(0.5);
/// let mut w = array![1.0, 1.0, 1.0];
/// opt.step(&mut w, &array![0.001, -1000.0, 0.0])?;
/// assert_eq!(w, array![0.5, 1.5, 1.0]);
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// # References
/// J. Bernstein et al., *signSGD: Compressed Optimisation for Non-Convex Problems* (2018),
/// [arXiv:1802.04434](https://arxiv.org/abs/1802.04434), algorithms 1 and 2.
pub type Signum<A = f32> = Elementwise<SignumRule, A>;

hyper_parameters! {
    /// The rule of [`Signum`].
    pub struct SignumRule => SignumValues for Elementwise {
        /// The fraction μ of the average gradient that is kept per step, 0 ≤ μ < 1.
        momentum / set_momentum: 0.9, 0.0..1.0;
    }
}

impl<A: Scalar> Signum<A> {
    /// Signum with optax's defaults: μ 0.9, no weight decay.
    pub fn new(learning_rate: impl Into<Hyper>) -> Self {
        Self::from_rule(SignumRule::default(), learning_rate)
    }
}

impl<A: Scalar> Rule<A> for SignumRule {
    /// μ and 1 − μ.
    type Coefficients = [A; 2];

    fn name(&self) -> &'static str {
        "signum"
    }

    fn slots(&self) -> &'static [&'static str] {
        &["momentum_buffer"]
    }

    fn decay(&self) -> Decay {
        Decay::Decoupled
    }

    fn coefficients(&self, values: &SignumValues, at: &At) -> (f64, [A; 2]) {
        (at.learning_rate, [values.momentum, 1.0 - values.momentum].map(A::from_f64))
    }

    fn sweep(&self, c: [A; 2], lanes: Lanes<'_, A>) {
        lanes.each(c, |&[momentum, rest], _, grad, [m]: [A; 1]| {
            let m = momentum * m + rest * grad;
            (sign(m), [m])
        });
    }
}

/// signSGD: moves each element by the sign of its gradient.
///
/// # Update rule
/// ```text
/// θ ← θ(1 − ηλ)
/// θ ← θ − η·sign(∇J(θ))                      sign(0) is 0
/// ```
/// ∇J(θ) is the gradient before the decay. [`Signum`] is the same with an average gradient.
///
/// # Hyper-parameters
/// Each is set by the method of its name and takes a number, a [schedule](crate::schedule) or a closure.
///
/// | name | default | range | meaning |
/// |---|---|---|---|
/// | `learning_rate` η | – | η ≥ 0 | length of the step, in units of the parameter |
/// | `weight_decay` λ | 0 | λ ≥ 0 | decay per step and unit of learning rate, decoupled |
///
/// # State
/// None.
///
/// # Conventions
/// optax's `sign_sgd`, which has no weight decay.
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
/// let mut w = array![1.0, 1.0];
/// SignSgd::new(0.5).step(&mut w, &array![0.001, -1000.0])?;
/// assert_eq!(w, array![0.5, 1.5]);
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// # References
/// J. Bernstein et al., *signSGD: Compressed Optimisation for Non-Convex Problems* (2018),
/// [arXiv:1802.04434](https://arxiv.org/abs/1802.04434), algorithm 1.
#[doc(alias = "signSGD")]
pub type SignSgd<A = f32> = Elementwise<SignSgdRule, A>;

hyper_parameters! {
    /// The rule of [`SignSgd`].
    pub struct SignSgdRule => SignSgdValues for Elementwise {}
}

impl<A: Scalar> SignSgd<A> {
    /// signSGD without weight decay.
    pub fn new(learning_rate: impl Into<Hyper>) -> Self {
        Self::from_rule(SignSgdRule::default(), learning_rate)
    }
}

impl<A: Scalar> Rule<A> for SignSgdRule {
    type Coefficients = ();

    fn name(&self) -> &'static str {
        "signsgd"
    }

    fn slots(&self) -> &'static [&'static str] {
        &[]
    }

    fn decay(&self) -> Decay {
        Decay::Decoupled
    }

    fn coefficients(&self, _: &SignSgdValues, at: &At) -> (f64, ()) {
        (at.learning_rate, ())
    }

    fn sweep(&self, (): (), lanes: Lanes<'_, A>) {
        lanes.each((), |(), _, grad, []: [A; 0]| (sign(grad), []));
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use crate::prelude::*;

    #[test]
    fn first_steps_by_hand() {
        let mut opt = Signum::new(0.5).momentum(0.75).weight_decay(0.5);
        let mut w = array![4.0, 0.0];
        opt.step(&mut w, &array![8.0, 0.0]).unwrap(); // m = 2; 4 decays to 3
        assert_eq!(w, array![2.5, 0.0]);
        opt.step(&mut w, &array![-8.0, 0.0]).unwrap(); // m = 1.5 − 2; 2.5 decays to 1.875
        assert_eq!(w, array![2.375, 0.0]);
        assert_eq!(opt.slot("", "momentum_buffer"), Some(array![-0.5, 0.0].into_dyn()));
    }

    #[test]
    fn sign_sgd_remembers_nothing() {
        let (mut opt, mut w) = (SignSgd::new(0.5).weight_decay(0.5), array![4.0]);
        opt.step(&mut w, &array![8.0]).unwrap();
        opt.step(&mut w, &array![-1e-3]).unwrap();
        assert_eq!((w[0], opt.state_bytes()), (2.375, 0));
    }

    #[test]
    fn nan_is_not_hidden() {
        let (mut opt, mut w) = (Signum::new(0.5), array![1.0]);
        (0..2).for_each(|_| _ = opt.step(&mut w, &array![f64::NAN]).unwrap());
        assert!(w[0].is_nan());
    }
}
