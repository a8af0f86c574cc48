//! Rules: the arithmetic of one algorithm.
//!
//! A [`Rule`] computes the direction of one element. [`Elementwise`] makes an optimizer of it and adds the move, weight decay, state, step counts,
//! memory layouts, SIMD, threads and gradient scaling. A rule of your own is as fast as the built-in ones. This is signSGD with momentum, complete:
//!
//! ```
//! use gradus::{prelude::*, rule::{At, Lanes, Rule}};
//! use ndarray::array;
//!
//! gradus::hyper_parameters! {
//!     /// The sign of an average gradient.
//!     struct SignSgd => SignSgdValues {
//!         /// The fraction of the average that is kept per step.
//!         momentum: 0.9, 0.0..1.0;
//!     }
//! }
//!
//! impl<A: Scalar> Rule<A> for SignSgd {
//!     type Coefficients = [A; 2];
//!
//!     fn name(&self) -> &'static str { "signsgd" }
//!     fn slots(&self) -> &'static [&'static str] { &["momentum_buffer"] }
//!
//!     fn coefficients(&self, values: &SignSgdValues, at: &At) -> (f64, [A; 2]) {
//!         (at.learning_rate, [values.momentum, 1.0 - values.momentum].map(A::from_f64))
//!     }
//!
//!     fn sweep(&self, coefficients: [A; 2], lanes: Lanes<'_, A>) {
//!         lanes.each(coefficients, |&[momentum, rest], _param, grad, [m]: [A; 1]| {
//!             let m = momentum * m + rest * grad;
//!             (m.signum(), [m]) // the direction, and the state
//!         });
//!     }
//! }
//!
//! let mut opt = Elementwise::from_rule(SignSgd::default(), 0.1);
//! let mut w = array![1.0_f32, -1.0];
//! opt.step(&mut w, &array![0.5, -0.5])?;
//! assert_eq!(w, array![0.9, -0.9]);
//! assert_eq!(format!("{opt:?}"), "SignSgd(learning_rate: 0.1)");
//! # Ok::<(), gradus::Error>(())
//! ```

mod averaging;
mod checked;
mod coded;
mod curvature;
mod decay;
mod diagonals;
mod directions;
mod elements;
mod elementwise;
mod evaluated;
mod factor;
mod factored;
mod factors;
mod hyper_parameters;
mod lanes;
mod learned;
mod loops;
mod matrix;
mod matrixwise;
mod measured;
mod memory;
mod names;
mod now;
mod options;
mod pieces;
mod precision;
mod prelude;
mod quantities;
mod rates;
mod rows;
mod scratch;
mod slots;
mod spread;
mod stored;
mod sweep;
mod valued;

use crate::params::Scalar;

pub use averaging::Averaging;
pub use curvature::Curved;
pub use decay::{Decay, DecayRate};
pub use elements::{Elements, MAX_SUMS, MAX_TOTALS, Measures};
pub use elementwise::Elementwise;
pub use factor::{FactoredRule, Moments, Rms};
pub use factored::Factored;
#[cfg(feature = "config")]
pub(crate) use hyper_parameters::Configured;
pub use hyper_parameters::HyperParameters;
pub(crate) use hyper_parameters::configured;
#[doc(hidden)]
pub use hyper_parameters::{ensure_at_least, if_changed, write_settings};
pub use lanes::Lanes;
pub use matrix::{MatrixRule, MatrixSlot};
pub(crate) use matrix::{as_matrix, ensure_matrix};
pub use matrixwise::Matrixwise;
pub use precision::{Rounding, StatePrecision};
pub use quantities::{GradientRatio, SecondMoment, TensorNorm};
pub use slots::Slots;
pub use stored::MAX_SLOTS;

/// An element-wise algorithm: it computes the direction in which one element moves, from the parameter, the gradient and the state of that
/// element. Declare its hyper-parameters with [`hyper_parameters!`](crate::hyper_parameters!).
///
/// The driver, [`Elementwise`], calls [`values`](HyperParameters::values) at least once per step, [`coefficients`](Rule::coefficients)
/// at most once per tensor, and [`sweep`](Rule::sweep) for each block. It applies the gradient's
/// scale and the weight decay before it calls the rule, and moves the parameter afterwards. With options that measure the direction
/// before the parameter moves, it calls `sweep` twice; the first call changes nothing.
pub trait Rule<A: Scalar>: HyperParameters + 'static {
    /// The numbers that the loop needs. They are computed in `f64` before the loop, and then rounded to `A`.
    type Coefficients: Copy + Send + Sync;

    /// The algorithm's name in a saved state, in lower case.
    fn name(&self) -> &'static str;

    /// The names of the slots, at most [`MAX_SLOTS`]. A slot is a state array with the shape of the parameter; it starts at 0.
    fn slots(&self) -> &'static [&'static str];

    /// Those of the slots whose numbers are never negative, such as averages of squares. The default is none.
    ///
    /// State in 4 bits ([`StatePrecision::Blockwise4`]) then has twice the resolution for them, and none of their numbers becomes 0. Name every slot that
    /// the rule divides by: without that it is rounded to 0 beside large numbers, and the step becomes too long.
    fn non_negative(&self) -> &'static [&'static str] {
        &[]
    }

    /// The form of weight decay. The default is [`Decay::Coupled`], an L2 penalty; AdamW has [`Decay::Decoupled`].
    fn decay(&self) -> Decay {
        Decay::Coupled
    }

    /// The names of the numbers that the rule remembers of each tensor, at most [`MAX_NUMBERS`]. They start at 0. The default is none.
    ///
    /// They are for what the step number does not determine, such as the largest learning rate so far. They must stay finite and ≥ 0: a saved
    /// state with others is rejected.
    fn numbers(&self) -> &'static [&'static str] {
        &[]
    }

    /// Computes the [numbers](Rule::numbers) of this step. The slice has as many as there are names, with the values of the last step. The
    /// driver calls it before [`coefficients`](Rule::coefficients).
    fn remember(&self, values: &Self::Values, at: &At, numbers: &mut [f64]) {
        let _ = (values, at, numbers);
    }

    /// Whether the rule needs sums over a tensor, or over all tensors of the step, before one of them moves, as Prodigy does. The default is `None`: it
    /// needs none.
    ///
    /// The driver then reads every tensor twice per step: it calls [`measure`](Self::measure) for each, and [`learn`](Self::learn) with
    /// the sums. With [`Measures::Step`] the [numbers](Self::numbers), up to [`MAX_TOTALS`], belong to the optimizer and not to a tensor, and may be
    /// negative. They are part of the state. Options that change the move, and gradients of [`Rows`](crate::Rows), are errors.
    fn measures(&self) -> Option<Measures> {
        None
    }

    /// Returns sums over a tensor, with whatever weight the tensor has among the others. [`At::numbers`] has the numbers of the last step.
    ///
    /// The driver adds up the sums of all tensors with a gradient, of all ranks. If a result is not finite, the step is an error.
    fn measure(&self, values: &Self::Values, at: &At, tensor: Elements<'_, A>) -> [f64; MAX_SUMS] {
        let _ = (values, at, tensor);
        [0.0; MAX_SUMS]
    }

    /// Computes the [numbers](Self::numbers) of this step from the sums. The slice has the values of the last step.
    /// [`coefficients`](Self::coefficients) finds the first [`MAX_NUMBERS`] of them in [`At::numbers`].
    fn learn(&self, values: &Self::Values, sums: [f64; MAX_SUMS], numbers: &mut [f64]) {
        let _ = (values, sums, numbers);
    }

    /// The average of the squared gradient, for [`update_clipping`](Elementwise::update_clipping). The default is `None`: the rule has none, and
    /// update clipping is an error.
    fn second_moment(&self, values: &Self::Values, at: &At) -> Option<SecondMoment> {
        let _ = (values, at);
        None
    }

    /// The ratio by which the driver multiplies each tensor's gradient before the rule sees it, as in LARS. The default is `None`: there is none.
    fn gradient_ratio(&self, values: &Self::Values) -> Option<GradientRatio> {
        let _ = values;
        None
    }

    /// The norm of a tensor of this shape that the rule finds in [`At::norm`], as in NovoGrad and MARS. The default is `None`: there is none. Whether
    /// there is one must depend only on the options and the number of axes. A rule that needs a norm of matrices cannot step parts of tensors, as in
    /// `sharded`.
    ///
    /// The norm of directions costs a pass that reads parameter, gradient and state, and the norm of the gradient one that reads the gradient.
    fn tensor_norm(&self, values: &Self::Values, at: &At, shape: &[usize]) -> Option<TensorNorm<Self::Coefficients>> {
        let _ = (values, at, shape);
        None
    }

    /// Whether the rule is [`Averaging`], so that its state says where the average is. Options that change the move are an error then. The
    /// default is `false`.
    fn averages(&self) -> bool {
        false
    }

    /// The slots that [`absorb`](Self::absorb) changes, if the rule is [`Curved`]: averages of the Hessian's diagonal. The default is none.
    fn absorbs(&self) -> &'static [&'static str] {
        &[]
    }

    /// Averages a diagonal of the Hessian. As [`sweep`](Self::sweep), it calls [`Lanes::each`], with a function that finds the diagonal where the
    /// gradient is, and returns the direction 0 and the new slots. Slots that [`absorbs`](Self::absorbs) does not name must stay as they are. The driver calls it before `sweep`, in a step before which there was a diagonal.
    fn absorb(&self, values: &Self::Values, lanes: Lanes<'_, A>) {
        let _ = (values, lanes);
    }

    /// Computes the step size in `θ ← θ − step_size · direction` and the coefficients of one tensor, from the hyper-parameters of this step.
    ///
    /// The step size is usually the learning rate. The learning rate is at most 2⁻⁵⁴ times the element type's largest number, so it may be
    /// divided by 1 − βᵗ.
    fn coefficients(&self, values: &Self::Values, at: &At) -> (f64, Self::Coefficients);

    /// Calls [`Lanes::each`] with a function that computes the direction and the new state of one element. If an option changes the
    /// algorithm, choose between two such functions here, not inside the function.
    ///
    /// A panic in the function unwinds to the caller of [`step`](crate::Optimizer::step). Some parameters and slots may have changed then:
    /// restore both from a saved state.
    fn sweep(&self, coefficients: Self::Coefficients, lanes: Lanes<'_, A>);
}

/// The most numbers that a rule can [remember](Rule::numbers).
pub const MAX_NUMBERS: usize = 3;

/// One tensor in one step: its step number, its learning rate, and what else the driver knows of it.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct At {
    /// The number of steps of this tensor, including the current one: 1 for its first step.
    pub step: u64,
    /// The tensor's learning rate.
    pub learning_rate: f64,
    /// The tensor's weight decay λ, for a rule with [`Decay::Own`].
    pub weight_decay: f64,
    /// The tensor's [numbers](Rule::numbers): in [`remember`](Rule::remember) those of the last step, in
    /// [`coefficients`](Rule::coefficients) those of this step.
    pub numbers: [f64; MAX_NUMBERS],
    /// The tensor's [norm](Rule::tensor_norm), if the rule asks for one. It is not finite if the gradient is not.
    pub norm: Option<f64>,
}

impl At {
    /// The same, one step later.
    pub(crate) fn next(&self) -> Self {
        Self { step: self.step.saturating_add(1), ..*self }
    }

    /// βᵗ, where t is the tensor's [step](Self::step). A power below 1e-20 may be 0.
    ///
    /// Unlike `powf`, it has the same bits on every machine.
    #[inline]
    pub fn power(&self, beta: f64) -> f64 {
        power(beta, self.step)
    }

    /// 1 − βᵗ, where t is the tensor's [step](Self::step): the divisor of an average that started from 0.
    ///
    /// Unlike `powf`, it has the same bits on every machine.
    #[inline]
    pub fn bias_correction(&self, beta: f64) -> f64 {
        1.0 - self.power(beta)
    }
}

/// By squaring, because the last bit of `powf` differs between platforms. A power too small to change
/// 1 − βᵗ is 0, because denormal numbers are slow.
#[inline]
fn power(base: f64, exponent: u64) -> f64 {
    const LEAST: f64 = 1e-20;
    let (mut power, mut square, mut remaining) = (1.0, base, exponent);
    while remaining > 0 {
        if square < LEAST {
            return 0.0;
        }
        // `square` or 1, without a jump that no processor could predict.
        let odd = 0_u64.wrapping_sub(remaining & 1);
        power *= f64::from_bits((square.to_bits() & odd) | (1.0_f64.to_bits() & !odd));
        square *= square;
        remaining /= 2;
    }
    power
}

/// A positive number to a power that is not negative, from products and square roots: unlike `powf`, it has the same bits on every machine.
pub(crate) fn real_power(base: f64, exponent: f64) -> f64 {
    // Each binary digit of the fraction stands for the root of the one before it.
    let (mut power, mut root, mut fraction) = (power(base, exponent as u64), base, exponent.fract());
    while fraction > 0.0 {
        (root, fraction) = (root.sqrt(), 2.0 * fraction);
        if fraction >= 1.0 {
            (power, fraction) = (power * root, fraction - 1.0);
        }
    }
    power
}

#[cfg(test)]
mod tests {
    use super::{power, real_power};

    #[test]
    fn powers_by_squaring() {
        for (base, exponent) in [(0.9, 0), (0.9, 1), (0.5, 10), (0.999, 100), (0.999, 12_345), (0.0, 3)] {
            let expected = f64::powf(base, exponent as f64);
            // Each squaring doubles the relative error of what it squares.
            let tolerance = exponent as f64 * f64::EPSILON * expected;
            assert!((power(base, exponent) - expected).abs() <= tolerance, "{base}^{exponent}");
        }
        assert_eq!(power(0.999, u64::MAX), 0.0);
    }

    #[test]
    fn real_powers() {
        assert_eq!([real_power(16.0, 0.75), real_power(16.0, 2.25), real_power(0.5, 3.0)], [8.0, 512.0, 0.125]);
        assert_eq!([real_power(0.3, 0.0), real_power(1.0, 0.7), real_power(0.25, 0.5)], [1.0, 1.0, 0.5]);
        for (base, exponent) in
            [(0.96, 0.004), (0.96, 1.0), (0.96, 1e-300), (1.01, 0.75), (1e6, 0.1), (1.0 - 1e-16, 0.3)]
        {
            // Half an ulp for each digit.
            let tolerance = 27.0 * f64::EPSILON * f64::powf(base, exponent);
            assert!((real_power(base, exponent) - f64::powf(base, exponent)).abs() <= tolerance, "{base}^{exponent}");
        }
    }
}
