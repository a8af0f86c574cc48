//! Errors of arguments.

use super::text::{Levels, Name, Number, at_index, difference};
use crate::kernel::level::Level;

/// Why an argument is not accepted.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ArgumentError {
    /// A number is out of range.
    #[error("{argument} is {}; it must be {accepted}", Number(*.value))]
    Range {
        /// The argument's name.
        argument: &'static str,
        /// Its value.
        value: f64,
        /// The accepted range, in words.
        accepted: String,
    },

    /// A count is 0.
    #[error("{argument} is 0; it must be {}", AT_LEAST_1)]
    Zero {
        /// The argument's name, such as `"accumulate"`.
        argument: &'static str,
    },

    /// A list has no elements.
    #[error("{argument} is empty; it must have at least one element")]
    Empty {
        /// The argument's name, such as `"coefficients"`.
        argument: &'static str,
    },

    /// A number or array element is NaN or infinite.
    #[error("{argument} is {value}{}", at_index(.index))]
    NotFinite {
        /// The argument's name.
        argument: &'static str,
        /// The first element that is not finite, in row-major order; empty for a single number.
        index: Vec<usize>,
        /// Its value.
        value: f64,
    },

    /// An array has the wrong shape.
    #[error("{argument} has shape {found:?} where {expected:?} is needed")]
    Shape {
        /// The argument's name.
        argument: &'static str,
        /// The shape that it must have.
        expected: Vec<usize>,
        /// The shape that it has.
        found: Vec<usize>,
    },

    /// Two trees do not have the same tensors.
    #[error("the trees differ: tensor {} {}", Name(.path), difference(.first, .second))]
    Trees {
        /// The path of the first tensor that differs: in the order of the first tree, and then in that of the second.
        path: String,
        /// Its shape in the first tree, or `None` if it is not there.
        first: Option<Vec<usize>>,
        /// Its shape in the second tree, or `None` if it is not there.
        second: Option<Vec<usize>>,
    },

    /// The number of rows of a tap is 0 or not a multiple of its positions.
    #[error("{argument} has {rows} rows; it must have a multiple of {positions} positions, and at least one example")]
    Rows {
        /// The argument's name.
        argument: &'static str,
        /// Its number of rows.
        rows: usize,
        /// The number of rows per example.
        positions: usize,
    },

    /// An array would have more elements than can be addressed.
    #[error("{argument} would be too large to address")]
    TooLarge {
        /// The array.
        argument: &'static str,
    },

    /// The machine does not have the SIMD instructions of a level.
    #[error("the SIMD level {level} is not available; this machine has {}", Levels(.available))]
    SimdLevel {
        /// The level.
        level: Level,
        /// The levels that the machine has, the lowest first.
        available: Vec<Level>,
    },
}

/// The values that a count may have.
pub(crate) const AT_LEAST_1: &str = "at least 1";
