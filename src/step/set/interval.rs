//! Bounds of each element.

use ndarray::ArrayViewMutD;

use super::{Scope, Set, limit};
use crate::error::{Error, Result};
use crate::params::Element;

/// A box: every element is between two bounds.
///
/// # Projection
/// ```text
/// x ← min(max(x, lower), upper)
/// ```
/// The bounds are rounded to the element type. NaN stays NaN. The projection is part of the pass that moves the parameters, so it needs no
/// pass of its own.
///
/// # Errors
/// [`ArgumentError::Range`](crate::error::ArgumentError::Range) unless `lower` ≤ `upper`.
///
/// # Conventions
/// optax's `projection_box`, `projection_hypercube(x, s)` with `Interval::new(0.0, s)`.
///
/// # Example
/// ```
/// use gradus::{prelude::*, set::Interval};
/// use ndarray::array;
///
/// let mut opt = Sgd::new(1.0).project("**", Interval::new(-1.0, 2.0));
/// let mut w = array![0.0, 0.0, 0.0];
/// opt.step(&mut w, &array![3.0, -1.0, -3.0])?;
/// assert_eq!(w, array![-1.0, 1.0, 2.0]);
/// # Ok::<(), gradus::Error>(())
/// ```
#[doc(alias("box", "clamp", "bounds", "projection_box", "projection_hypercube"))]
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    lower: f64,
    upper: f64,
}

impl Interval {
    /// All numbers from `lower` to `upper`, both included. A bound may be infinite.
    pub fn new(lower: f64, upper: f64) -> Self {
        Self { lower, upper }
    }

    /// All numbers ≥ `lower`.
    pub fn at_least(lower: f64) -> Self {
        Self::new(lower, f64::INFINITY)
    }

    /// All numbers ≤ `upper`.
    pub fn at_most(upper: f64) -> Self {
        Self::new(f64::NEG_INFINITY, upper)
    }
}

impl<A: Element> Set<A> for Interval {
    fn project(&self, mut values: ArrayViewMutD<'_, A>) {
        let bounds = [self.lower, self.upper].map(A::from_f64);
        values.mapv_inplace(|value| limit(value, bounds));
    }

    fn scope(&self) -> Scope {
        Scope::Elements { lower: self.lower, upper: self.upper }
    }

    fn check(&self) -> Result<()> {
        let Self { lower, upper } = *self;
        if lower.is_nan() {
            return Err(Error::argument("lower", lower, "a number or −∞"));
        }
        if lower <= upper { Ok(()) } else { Err(Error::argument("upper", upper, format!("at least lower, {lower}"))) }
    }

    fn describe(&self) -> String {
        format!("Interval({}, {})", self.lower, self.upper)
    }
}

/// Every element is at least 0.
///
/// # Projection
/// ```text
/// x ← max(x, 0)
/// ```
/// The projection is part of the pass that moves the parameters, so it needs no pass of its own. NaN stays NaN. For elements above 0, use
/// [`Interval::at_least`] with the smallest value that your model can compute with.
///
/// # Conventions
/// optax's `projection_non_negative` and `keep_params_nonnegative`, Keras's `NonNeg`.
///
/// # Example
/// ```
/// use gradus::{prelude::*, set::NonNegative};
///
/// let mut opt = Sgd::new(1.0).project("**", NonNegative);
/// let mut w = vec![0.5, 0.5];
/// opt.step(&mut w, &vec![0.25, 2.0])?;
/// assert_eq!(w, [0.25, 0.0]);
/// # Ok::<(), gradus::Error>(())
/// ```
#[doc(alias("NonNeg", "projection_non_negative", "keep_params_nonnegative"))]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NonNegative;

impl<A: Element> Set<A> for NonNegative {
    fn project(&self, mut values: ArrayViewMutD<'_, A>) {
        values.mapv_inplace(|value| limit(value, [A::zero(), A::infinity()]));
    }

    fn scope(&self) -> Scope {
        Scope::Elements { lower: 0.0, upper: f64::INFINITY }
    }

    fn describe(&self) -> String {
        "NonNegative".into()
    }
}
