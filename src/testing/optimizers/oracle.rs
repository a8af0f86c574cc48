//! Update rules as slow loops.

use ndarray::Array2;

use crate::rule::At;

/// An update rule in `f64`.
pub(super) enum Oracle {
    /// Of one element, with the number of slots.
    Element(Box<ElementOracle>, usize),
    Matrix(Box<MatrixOracle>),
}

pub(super) type ElementOracle = dyn Fn(&At, f64, f64, &mut [f64]) -> f64;
pub(super) type MatrixOracle = dyn Fn(&At, &mut Array2<f64>, &Array2<f64>, &mut Vec<Array2<f64>>);

impl Oracle {
    pub(super) fn of_elements<const N: usize>(oracle: impl Fn(&At, f64, f64, &mut [f64; N]) -> f64 + 'static) -> Self {
        let of_slice = move |at: &At, param, grad, slots: &mut [f64]| match slots.try_into() {
            Ok(slots) => oracle(at, param, grad, slots),
            Err(_) => f64::NAN,
        };
        Self::Element(Box::new(of_slice), N)
    }
}
