//! The shape of a transition from one value to another.

use std::f64::consts::PI;

use crate::error::{Error, Result, StepError};

/// The shape of a transition from one value to another.
///
/// `p` is the completed fraction of the transition, from 0 at its start to 1 at its end:
///
/// | shape | value between `a` and `b` | PyTorch's and Hugging Face's name |
/// |---|---|---|
/// | `Linear` | `a + (b − a) p` | `"linear"` |
/// | `Cosine` | `a + (b − a) (1 − cos πp) / 2` | `"cos"`, `"cosine"` |
/// | `OneMinusSqrt` | `a + (b − a) √p`: from 1 to 0 this is `1 − √p` | `"1-sqrt"` |
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Anneal {
    /// A straight line.
    Linear,
    /// Half a cosine wave: flat at both ends.
    Cosine,
    /// Steep at first, then flatter.
    OneMinusSqrt,
}

impl Anneal {
    /// The value on the way `from` … `to` after the part `done`, which lies in 0..=1.
    pub(super) fn between(self, from: f64, to: f64, done: f64) -> f64 {
        mix(
            from,
            to,
            match self {
                Self::Linear => done,
                Self::Cosine => (1.0 - (PI * done).cos()) / 2.0,
                Self::OneMinusSqrt => done.sqrt(),
            },
        )
    }
}

/// The part of `steps` that is done at `step`, in 0..=1; a way of 0 steps is done at once.
pub(super) fn progress(step: u64, steps: u64) -> f64 {
    if step < steps { step as f64 / steps as f64 } else { 1.0 }
}

/// The mean of two values, the second with the weight `part` in 0..=1.
///
/// Exact at both ends, never outside of them, and without cancellation when one of them is 0.
pub(super) fn mix(from: f64, to: f64, part: f64) -> f64 {
    clamp(from * (1.0 - part) + to * part, from.min(to), from.max(to))
}

/// The product of two values. Infinity stands for a number beyond the range, so zero times it is zero, not NaN.
pub(super) fn product(left: f64, right: f64) -> f64 {
    let overflow = left.is_infinite() || right.is_infinite();
    if overflow && (left == 0.0 || right == 0.0) { 0.0 } else { left * right }
}

/// The value, or the bound it lies beyond; unlike [`f64::clamp`] it cannot panic, and NaN stays NaN.
pub(super) fn clamp(value: f64, min: f64, max: f64) -> f64 {
    if value < min {
        min
    } else if value > max {
        max
    } else {
        value
    }
}

/// An error unless the argument is `right`.
pub(super) fn require(
    right: bool,
    schedule: &'static str,
    argument: &'static str,
    value: f64,
    accepted: &'static str,
) -> Result<()> {
    if right {
        Ok(())
    } else {
        Err(Error::Step(StepError::Schedule { name: None, schedule, argument, value, accepted }))
    }
}

/// An error unless the argument is a number.
pub(super) fn finite(schedule: &'static str, argument: &'static str, value: f64) -> Result<()> {
    require(value.is_finite(), schedule, argument, value, "a finite number")
}

/// An error unless both are numbers and the floor is not above the peak.
pub(super) fn floor_and_peak(schedule: &'static str, floor: f64, peak: f64) -> Result<()> {
    finite(schedule, "peak", peak)?;
    if floor == 0.0 {
        // What was not given is not what is wrong.
        return require(peak >= 0.0, schedule, "peak", peak, "at least the floor of 0");
    }
    require(floor.is_finite() && floor <= peak, schedule, "floor", floor, "a finite number, at most the peak")
}

/// An error unless the factor of a decay is one.
pub(super) fn decay_factor(schedule: &'static str, gamma: f64) -> Result<()> {
    require(gamma.is_finite() && gamma >= 0.0, schedule, "gamma", gamma, "a finite number ≥ 0")
}

/// Functions for what a file may leave out: each gives what the constructor sets.
macro_rules! left_out {
    ($module:ident: $new:expr; $($field:ident: $type:ty),*) => {
        #[cfg(feature = "serde")]
        mod $module {
            use super::*;

            $(
                pub(super) fn $field() -> $type {
                    $new.$field
                }
            )*
        }
    };
}

pub(super) use left_out;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_hits_both_ends_exactly() {
        for shape in [Anneal::Linear, Anneal::Cosine, Anneal::OneMinusSqrt] {
            for (from, to) in [(0.1, 0.3), (0.3, 0.1), (0.0, 1e-3), (-0.7, 1e9), (0.1, 0.1)] {
                assert_eq!(shape.between(from, to, 0.0), from, "{shape:?}");
                assert_eq!(shape.between(from, to, 1.0), to, "{shape:?}");
            }
        }
    }

    #[test]
    fn a_quarter_of_the_way() {
        assert_eq!(Anneal::Linear.between(1.0, 0.0, 0.25), 0.75);
        assert_eq!(Anneal::OneMinusSqrt.between(1.0, 0.0, 0.25), 0.5);
        let cosine = (2.0 + 2f64.sqrt()) / 4.0;
        assert!((Anneal::Cosine.between(1.0, 0.0, 0.25) - cosine).abs() < f64::EPSILON);
    }

    #[test]
    fn the_mean_of_equals_is_exact() {
        assert!((0..=1000).all(|i| mix(0.1, 0.1, f64::from(i) / 1000.0) == 0.1));
    }

    #[test]
    fn zero_times_an_overflow_is_zero() {
        assert_eq!([product(0.0, f64::INFINITY), product(f64::NEG_INFINITY, 0.0), product(2.0, 3.0)], [0.0, 0.0, 6.0]);
        assert_eq!(product(-2.0, f64::INFINITY), f64::NEG_INFINITY);
    }

    #[test]
    fn nan_is_not_hidden() {
        assert!(product(f64::NAN, 0.0).is_nan() && product(f64::INFINITY, f64::NAN).is_nan());
        assert!(clamp(f64::NAN, 0.0, 1.0).is_nan());
        assert!(mix(f64::NAN, 1.0, 0.5).is_nan());
        assert_eq!(clamp(3.0, 2.0, 1.0), 1.0);
    }
}
