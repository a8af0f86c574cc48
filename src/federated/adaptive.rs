//! The adaptive server optimizers: FedAdagrad, FedAdam and FedYogi.

use crate::hyper_parameters;
use crate::params::Scalar;
use crate::rule::{At, Elementwise, Lanes, Rule};
use crate::schedule::Hyper;

/// FedAdam: the server uses Adam along the mean change of the clients.
///
/// The mean change Δ is the negative of the gradient that a [`Server`](super::Server) gives its optimizer.
///
/// # Update rule
/// ```text
/// Δ = −∇J(θ)                          the clients' weighted mean of yᵢ − θ
/// m ← β₁m + (1 − β₁)Δ                 from m = 0
/// v ← β₂v + (1 − β₂)Δ²                from v = τ²
/// θ ← θ + η·m/(√v + τ)
/// ```
/// [`flower`](FedAdam::flower) starts from v = 0 and corrects the bias, with exponents one larger than the round:
/// ```text
/// θ ← θ + η·√(1 − β₂ᵗ⁺¹)/(1 − β₁ᵗ⁺¹)·m/(√v + τ)        t = 1, 2, …
/// ```
/// # Hyper-parameters
/// Each is set by the method of its name and takes a number, a [schedule](crate::schedule) or a closure.
///
/// | name | default | range | meaning |
/// |---|---|---|---|
/// | `learning_rate` η | – | η ≥ 0 | length of the server's step, in units of the parameter |
/// | `beta1` β₁ | 0.9 | 0 ≤ β₁ < 1 | fraction of the first moment kept per round |
/// | `beta2` β₂ | 0.99 | 0 ≤ β₂ < 1 | fraction of the second moment kept per round |
/// | `tau` τ | 1e-3 | τ ≥ 0 | adaptivity: with a large τ all elements move alike; unit of the change. With τ = 0, an element with v = 0 does not move |
/// | `weight_decay` λ | 0 | λ ≥ 0 | strength of an L2 penalty on the server |
///
/// # State
/// `exp_avg` −m and `exp_avg_sq` v: two elements per parameter (8 bytes in f32).
///
/// # Conventions
/// Algorithm 2 of the paper. `flower(true)` is the arithmetic of Flower 1.x, whose `FedAdam` has the defaults η 0.1 and τ 1e-9.
/// Against [`Adam`](crate::Adam): no bias correction, and v begins at τ² instead of 0.
///
/// # Errors
/// A step returns [`StepError::HyperParameter`](crate::error::StepError::HyperParameter) if a value is out of its range, and the errors of
/// [`Step::pair`](crate::Step::pair) and of changed parameters.
///
/// # Example
/// ```
/// use gradus::{federated::FedAdam, prelude::*};
/// use ndarray::array;
///
/// let mut opt = FedAdam::new(0.1).tau(0.5).beta2(0.5);
/// let mut w = array![0.0];
/// opt.step(&mut w, &array![-0.5])?; // Δ = 0.5: m = 0.05, v = 0.25
/// assert!((w[0] - 0.1 * 0.05 / (0.5 + 0.5_f64)).abs() < 1e-15);
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// # References
/// S. J. Reddi et al., *Adaptive Federated Optimization* (2021), [arXiv:2003.00295](https://arxiv.org/abs/2003.00295), algorithm 2.
pub type FedAdam<A = f32> = Elementwise<FedRule<ADAM>, A>;

/// FedYogi: FedAdam with a second moment that shrinks slowly when changes become small.
///
/// # Update rule
/// ```text
/// m ← β₁m + (1 − β₁)Δ
/// v ← v − (1 − β₂)Δ²·sign(v − Δ²)
/// θ ← θ + η·m/(√v + τ)
/// ```
/// [`flower`](FedYogi::flower) starts from v = 0.
///
/// # Hyper-parameters
/// Those of [`FedAdam`].
///
/// # State
/// That of [`FedAdam`].
///
/// # Conventions
/// Algorithm 2 of the paper; `flower(true)` is Flower 1.x.
///
/// # Errors
/// Those of [`FedAdam`].
///
/// # Example
/// ```
/// use gradus::{federated::FedYogi, prelude::*};
/// use ndarray::array;
///
/// let mut opt = FedYogi::new(1.0).beta1(0.0).beta2(0.75).tau(1.0);
/// let mut w = array![0.0];
/// opt.step(&mut w, &array![-4.0])?; // v = 1 + 0.25·16
/// assert!((w[0] - 4.0 / (5_f64.sqrt() + 1.0)).abs() < 1e-15);
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// # References
/// S. J. Reddi et al., *Adaptive Federated Optimization* (2021), [arXiv:2003.00295](https://arxiv.org/abs/2003.00295), algorithm 2.
pub type FedYogi<A = f32> = Elementwise<FedRule<YOGI>, A>;

/// FedAdagrad: FedAdam with a second moment that is the sum of all squares.
///
/// # Update rule
/// ```text
/// m ← β₁m + (1 − β₁)Δ
/// v ← v + Δ²
/// θ ← θ + η·m/(√v + τ)
/// ```
/// [`flower`](FedAdagrad::flower) starts from v = 0.
///
/// # Hyper-parameters
/// Those of [`FedAdam`] without β₂.
///
/// # State
/// That of [`FedAdam`].
///
/// # Conventions
/// Algorithm 2 of the paper; `flower(true).beta1(0.0)` is Flower 1.x, which has no first moment here.
///
/// # Errors
/// Those of [`FedAdam`].
///
/// # Example
/// ```
/// use gradus::{federated::FedAdagrad, prelude::*};
/// use ndarray::array;
///
/// let mut opt = FedAdagrad::new(1.0).beta1(0.0).tau(3.0);
/// let mut w = array![0.0];
/// opt.step(&mut w, &array![-4.0])?; // v = 9 + 16
/// assert_eq!(w, array![0.5]);
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// # References
/// S. J. Reddi et al., *Adaptive Federated Optimization* (2021), [arXiv:2003.00295](https://arxiv.org/abs/2003.00295), algorithm 2.
pub type FedAdagrad<A = f32> = Elementwise<FedRule<ADAGRAD>, A>;

/// The second moments: what distinguishes the three optimizers.
const ADAM: u8 = 0;
const YOGI: u8 = 1;
const ADAGRAD: u8 = 2;

hyper_parameters! {
    /// The rule of [`FedAdam`], [`FedYogi`] and [`FedAdagrad`], by their second moment.
    pub struct FedRule<const MOMENT: u8> named (["FedAdam", "FedYogi", "FedAdagrad"][MOMENT as usize]) => FedValues for Elementwise {
        /// The decay β₁ of the first moment, 0 ≤ β₁ < 1.
        beta1 / set_beta1: 0.9, 0.0..1.0;
        /// The decay β₂ of the second moment, 0 ≤ β₂ < 1; FedAdagrad has none.
        beta2 / set_beta2: 0.99, 0.0..1.0;
        /// The τ ≥ 0 that is added to the root; its square is the first value of the second moment.
        tau / set_tau: 1e-3, 0.0..;
    }
    options {
        /// Uses Flower's formulas: v starts from 0, and FedAdam corrects the bias.
        flower: bool = false;
    }
}

impl<A: Scalar, const MOMENT: u8> Elementwise<FedRule<MOMENT>, A> {
    /// Creates the optimizer with the paper's defaults: β₁ 0.9, β₂ 0.99, τ 1e-3.
    pub fn new(learning_rate: impl Into<Hyper>) -> Self {
        Self::from_rule(FedRule::default(), learning_rate)
    }
}

/// The numbers of one step and tensor.
#[derive(Debug, Clone, Copy)]
#[allow(unnameable_types, reason = "seen by the driver alone")]
pub struct Coefficients<A> {
    first: [A; 2],
    second: [A; 2],
    /// What v begins with; 0 after the tensor's first step.
    begin: A,
    tau: A,
}

impl<A: Scalar, const MOMENT: u8> Rule<A> for FedRule<MOMENT> {
    type Coefficients = Coefficients<A>;

    fn name(&self) -> &'static str {
        ["fedadam", "fedyogi", "fedadagrad"][MOMENT as usize]
    }

    fn slots(&self) -> &'static [&'static str] {
        &["exp_avg", "exp_avg_sq"]
    }

    fn non_negative(&self) -> &'static [&'static str] {
        &["exp_avg_sq"]
    }

    fn coefficients(&self, &FedValues { beta1, beta2, tau }: &FedValues, at: &At) -> (f64, Coefficients<A>) {
        let begin = if at.step == 1 && !self.flower { tau * tau } else { 0.0 };
        let moment = |beta: f64| [A::from_f64(beta), A::from_f64(1.0 - beta)];
        let (first, second) = (moment(beta1), moment(beta2));
        let exponent = at.step as f64 + 1.0;
        let correction = match self.flower && MOMENT == ADAM {
            true => (1.0 - beta2.powf(exponent)).sqrt() / (1.0 - beta1.powf(exponent)),
            false => 1.0,
        };
        let step_size = at.learning_rate * correction;
        (step_size, Coefficients { first, second, begin: A::from_f64(begin), tau: A::from_f64(tau) })
    }

    fn sweep(&self, c: Coefficients<A>, lanes: Lanes<'_, A>) {
        lanes.each(c, |c, _, grad, [m, v]: [A; 2]| {
            let m = c.first[0] * m + c.first[1] * grad;
            let v = second_moment::<A, MOMENT>(v + c.begin, grad * grad, c.second);
            // With τ = 0 nothing may be left of v: where nothing has ever moved, and where squares are too small for a number.
            let divisor = v.sqrt() + c.tau;
            (if divisor == A::zero() { divisor } else { m / divisor }, [m, v])
        });
    }
}

/// The second moment after a change with this square.
#[inline(always)]
fn second_moment<A: Scalar, const MOMENT: u8>(v: A, square: A, [kept, added]: [A; 2]) -> A {
    match MOMENT {
        ADAGRAD => v + square,
        YOGI if v > square => v - added * square,
        YOGI if v < square => v + added * square,
        YOGI => v,
        _ => kept * v + added * square,
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array1, array};

    use super::*;
    use crate::prelude::*;

    /// A handful of roundings.
    const TOLERANCE: f64 = 1e-15;

    fn two_steps(mut opt: impl Optimizer<f64>) -> Array1<f64> {
        let mut w = array![0.0];
        opt.step(&mut w, &array![-2.0]).unwrap();
        opt.step(&mut w, &array![1.0]).unwrap();
        w
    }

    #[test]
    fn first_steps_by_hand() {
        // Δ = 2, then −1; m = 1, then 0; so only the first step moves: 1/(√v + 1) with v from τ² = 1.
        let adam = two_steps(FedAdam::new(1.0).beta1(0.5).beta2(0.25).tau(1.0)); // v = 1/4 + 3
        assert!((adam[0] - 1.0 / (3.25_f64.sqrt() + 1.0)).abs() < TOLERANCE);
        let yogi = two_steps(FedYogi::new(1.0).beta1(0.5).beta2(0.25).tau(1.0)); // v = 1 + 3
        assert!((yogi[0] - 1.0 / 3.0).abs() < TOLERANCE);
        let adagrad = two_steps(FedAdagrad::new(1.0).beta1(0.5).tau(1.0)); // v = 1 + 4
        assert!((adagrad[0] - 1.0 / (5_f64.sqrt() + 1.0)).abs() < TOLERANCE);
    }

    #[test]
    fn yogi_shrinks_by_the_square_of_the_change_alone() {
        let mut opt = FedYogi::new(0.0).beta2(0.5).tau(2.0);
        let mut w = array![0.0, 0.0, 0.0];
        opt.step(&mut w, &array![1.0, -2.0, 3.0]).unwrap(); // v from 4: above Δ², the same, below
        assert_eq!(opt.slot("", "exp_avg_sq").unwrap(), array![3.5, 4.0, 8.5].into_dyn());
    }

    #[test]
    fn flower_begins_with_nothing() {
        // Δ = 2: m = 1, v = 3, and exponents of 2 in the correction.
        let mut opt = FedAdam::new(1.0).beta1(0.5).beta2(0.25).tau(0.0).flower(true);
        let mut w = array![0.0, 0.0];
        opt.step(&mut w, &array![-2.0, 0.0]).unwrap();
        assert!((w[0] - (1.0_f64 - 0.0625).sqrt() / 0.75 / 3_f64.sqrt()).abs() < TOLERANCE);
        assert_eq!(w[1], 0.0);
    }

    #[test]
    fn changes_whose_squares_vanish_move_nothing() {
        let mut opt = FedAdam::new(1.0).tau(0.0).flower(true);
        let mut w = array![1.0_f32, 1.0];
        opt.step(&mut w, &array![1e-30, 1e-30]).unwrap();
        assert_eq!(w, array![1.0, 1.0]);
    }
}
