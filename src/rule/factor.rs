//! Rules that divide gradients by means of rows and columns.

use super::{At, HyperParameters};
use crate::params::Scalar;

/// An algorithm that divides each gradient by the root of a second moment, of which it remembers a mean per row and one per column.
/// [`Factored`](super::Factored) makes an optimizer of it.
///
/// The last two axes of a tensor, or those that the rule [chooses](Self::axes), are the rows and the columns of a matrix, and each index of the
/// other axes has a matrix of its own. A tensor
/// that [is not factored](Self::is_factored), such as a vector, has a second moment per element. For a gradient g of one matrix, with the
/// [`Moments`] that the rule returns:
///
/// ```text
/// rᵢ ← rᵢ + fresh·(mean over j of gᵢⱼ² + added − rᵢ)
/// cⱼ ← cⱼ + fresh·(mean over i of gᵢⱼ² + added − cⱼ)
/// vᵢⱼ = rᵢcⱼ / max(mean of r, least)                          without factors v ← v + fresh·(g² + added − v)
/// d = g / max(√v, least)
/// m ← momentum·m + (1 − momentum)·step_size·d                 without momentum m ← step_size·d
/// θ ← θ(1 − decay_factor·ηλ) − momentum_step_size·m           both factors are 1 by default
/// ```
///
/// This is a rule that forgets: it divides by the roots of the means of the gradient itself.
///
/// ```
/// use gradus::{prelude::*, rule::{At, Factored, FactoredRule, Moments, Rms}};
/// use ndarray::array;
///
/// gradus::hyper_parameters! {
///     /// Descent by gradients whose rows and columns have similar lengths.
///     struct Balanced => BalancedValues {
///         /// The smallest divisor ε > 0.
///         eps: 1e-6, (std::ops::Bound::Excluded(0.0), std::ops::Bound::Unbounded);
///     }
/// }
///
/// impl<A: Scalar> FactoredRule<A> for Balanced {
///     fn name(&self) -> &'static str { "balanced" }
///
///     fn moments(&self, values: &BalancedValues, _: &At) -> Moments {
///         Moments { fresh: 1.0, least: values.eps, ..Moments::default() }
///     }
///
///     fn step_size(&self, _: &BalancedValues, at: &At, _: &Rms) -> f64 { at.learning_rate }
/// }
///
/// let mut opt = Factored::from_rule(Balanced::default(), 0.5);
/// let mut w = array![[1.0, 1.0], [1.0, 1.0]];
/// opt.step(&mut w, &array![[2.0, 4.0], [-1.0, 2.0]])?;
/// assert_eq!(opt.slot("", "row_var"), Some(array![[10.0], [2.5]].into_dyn()));
/// assert!((w[[0, 0]] - (1.0 - 0.5 * 2.0 / (10.0 * 2.5 / 6.25_f64).sqrt())).abs() < 1e-15);
/// # Ok::<(), gradus::Error>(())
/// ```
pub trait FactoredRule<A: Scalar>: HyperParameters + 'static {
    /// The algorithm's name in a saved state, in lower case.
    fn name(&self) -> &'static str;

    /// Whether a tensor of this shape, of at least two axes, has a mean per row and per column, instead of a second moment per element. The
    /// default is yes.
    fn is_factored(&self, shape: &[usize]) -> bool {
        let _ = shape;
        true
    }

    /// The axes of the rows and of the columns of a tensor of this shape, if it is factored: two different ones. The default is the last two.
    fn axes(&self, shape: &[usize]) -> (usize, usize) {
        (shape.len().saturating_sub(2), shape.len().saturating_sub(1))
    }

    /// Whether there is a momentum m, which is one more slot of the tensor's size. The default is no.
    fn has_momentum(&self) -> bool {
        false
    }

    /// The numbers of the formulas above, for one tensor.
    fn moments(&self, values: &Self::Values, at: &At) -> Moments;

    /// The step size of one tensor, which may depend on the sizes of its parameter and direction.
    fn step_size(&self, values: &Self::Values, at: &At, rms: &Rms) -> f64;

    /// What the momentum m is multiplied by when the parameter moves. The default is 1, because the directions in m have been multiplied by the
    /// step size.
    fn momentum_step_size(&self, values: &Self::Values, at: &At, rms: &Rms) -> f64 {
        let _ = (values, at, rms);
        1.0
    }

    /// What the driver multiplies the weight decay of one tensor by. The default is 1.
    fn decay_factor(&self, values: &Self::Values, at: &At, rms: &Rms) -> f64 {
        let _ = (values, at, rms);
        1.0
    }
}

/// How a [`FactoredRule`] averages squares of gradients, and how it divides by them.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Moments {
    /// The weight of the current means, 0 to 1.
    pub fresh: f64,
    /// A number that is added to the squares of gradients. If it and [`least`](Self::least) are both 0, rows of zeros become NaN.
    pub added: f64,
    /// The smallest divisor of a gradient, and the smallest mean of r.
    pub least: f64,
    /// The part of the momentum that is kept per step, if the rule [has one](FactoredRule::has_momentum).
    pub momentum: f64,
}

/// Root mean squares over the elements of one tensor.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rms {
    /// Of the parameter, before weight decay.
    pub param: f64,
    /// Of the direction d.
    pub direction: f64,
}
