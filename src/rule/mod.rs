//! Rules: one algorithm each, as arithmetic on single elements.
//!
//! A [`Rule`] says what happens to one element; [`Elementwise`] makes an optimizer of it: state, step counts,
//! memory layouts, SIMD, threads, weight decay, gradient scale. A rule of your own has the same speed as those of
//! this crate. This is all of signSGD with momentum:
//!
//! ```
//! use gradus::{prelude::*, Hyper, Result, rule::{At, Lanes, Rule}};
//! use ndarray::array;
//!
//! struct SignSgd { momentum: Hyper }
//!
//! impl<A: Scalar> Rule<A> for SignSgd {
//!     type Values = f64;
//!     type Coefficients = (A, A);
//!
//!     fn name(&self) -> &'static str { "signsgd" }
//!     fn slots(&self) -> &'static [&'static str] { &["momentum_buffer"] }
//!
//!     fn values(&self, step: u64) -> Result<f64> {
//!         self.momentum.within_as::<A>("momentum", 0.0..1.0, step)
//!     }
//!
//!     fn hyper_parameters(&self) -> Vec<&Hyper> { vec![&self.momentum] }
//!
//!     fn coefficients(&self, momentum: &f64, at: &At) -> (A, A) {
//!         (A::from_f64(at.learning_rate), A::from_f64(*momentum))
//!     }
//!
//!     fn sweep(&self, coefficients: (A, A), lanes: Lanes<'_, A>) {
//!         lanes.each(coefficients, |&(learning_rate, momentum), param, grad, [m]: [A; 1]| {
//!             let m = momentum * m + (A::one() - momentum) * grad;
//!             (param - learning_rate * m.signum(), [m])
//!         });
//!     }
//! }
//!
//! let mut opt = Elementwise::from_rule(SignSgd { momentum: 0.9.into() }, 0.1);
//! let mut w = array![1.0_f32, -1.0];
//! opt.step(&mut w, &array![0.5, -0.5])?;
//! assert_eq!(w, array![0.9, -0.9]);
//! # Ok::<(), gradus::Error>(())
//! ```

mod elementwise;
mod lanes;
mod matrixwise;
mod precision;
mod rates;
mod sweep;

use crate::error::Result;
use crate::params::Scalar;
use crate::schedule::Hyper;

pub use elementwise::Elementwise;
pub use lanes::{Lanes, MAX_SLOTS, Slots};
#[cfg(feature = "distributed")]
pub(crate) use matrixwise::as_matrix;
pub use matrixwise::{MatrixRule, MatrixSlot, Matrixwise};
#[cfg(feature = "distributed")]
pub(crate) use precision::GROUP;
pub use precision::{Rounding, StatePrecision};

/// One algorithm, element by element.
///
/// The driver calls [`values`](Rule::values) at least once a step, [`coefficients`](Rule::coefficients) once a tensor and
/// [`sweep`](Rule::sweep) once a block. Learning rate, weight decay and gradient scale are the driver's: the rule
/// sees a gradient that already holds them.
pub trait Rule<A: Scalar>: Send + Sync + 'static {
    /// The hyper-parameters of one step, checked.
    type Values;

    /// The numbers of one step and tensor, computed in `f64` and cast once.
    type Coefficients: Copy + Send + Sync;

    /// The algorithm's name, lower case.
    fn name(&self) -> &'static str;

    /// The names of the state slots, each of the parameter's shape and zero at first; at most [`MAX_SLOTS`].
    fn slots(&self) -> &'static [&'static str];

    /// Whether weight decay shrinks the parameter (AdamW) instead of adding to the gradient.
    fn decay(&self) -> Decay {
        Decay::Coupled
    }

    /// The rule's own hyper-parameters at a step; 0 is the first.
    ///
    /// # Errors
    /// [`HyperParameter`](crate::Error::HyperParameter) if one is out of range: see
    /// [`Hyper::within_as`](crate::Hyper::within_as).
    fn values(&self, step: u64) -> Result<Self::Values>;

    /// The rule's own hyper-parameters as they were set: all of them, always in the same order. With them an optimizer's state holds
    /// what each [`Plateau`](crate::schedule::Plateau) among them has seen; a hyper-parameter that is left out loses that.
    fn hyper_parameters(&self) -> Vec<&Hyper>;

    /// What the loop needs for one tensor.
    ///
    /// The learning rate is at most 2⁻⁵⁴ times the element type's largest number, so that it can be divided by 1 − βᵗ.
    fn coefficients(&self, values: &Self::Values, at: &At) -> Self::Coefficients;

    /// Calls [`Lanes::each`] with the update of one element. Options are decided here, outside the loop.
    ///
    /// A panic in the update unwinds to the caller of [`step`](crate::Optimizer::step). Some parameters and slots have moved then:
    /// restore both from a saved state.
    fn sweep(&self, coefficients: Self::Coefficients, lanes: Lanes<'_, A>);
}

/// Where one tensor stands in one step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct At {
    /// How many steps the tensor has taken, this one included: 1 for its first.
    pub step: u64,
    /// The learning rate that holds for the tensor.
    pub learning_rate: f64,
}

/// How weight decay λ enters the update.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decay {
    /// L2 penalty: `g ← g + λθ` before the rule.
    Coupled,
    /// Decoupled: `θ ← θ(1 − ηλ)` before the rule.
    Decoupled,
}
