//! What norms and elements are limited to.

use ndarray::ArrayView1;

use crate::error::{Error, Result, StepError};
use crate::params::{Element, TensorInfo, Values};
use crate::schedule::Hyper;
use crate::step::{Grad, norm};

/// A limit ≥ 0, or infinity for none: whoever only wants to know the norm.
pub(super) fn bound(hyper: &Hyper, name: &'static str, at: u64) -> Result<f64> {
    if hyper.at(at) == f64::INFINITY {
        return Ok(f64::INFINITY);
    }
    hyper.within(name, 0.0.., at).map_err(|error| error.accepting("a number ≥ 0 or infinity"))
}

/// [`bound`] for what elements are kept within: one that is above 0, but 0 as a number of the type, would stop them all.
pub(super) fn bound_of_elements<A: Element>(hyper: &Hyper, name: &'static str, at: u64) -> Result<f64> {
    let value = bound(hyper, name, at)?;
    // Halves are computed in f32, and in place the nearest of them is what is asked for.
    if value > 0.0 && A::from_f64(value).is_zero() && size_of::<A>() >= size_of::<f32>() {
        let least = (A::min_positive_value() * A::epsilon()).as_f64();
        let accepted = format!("0 or at least {least:e} as {}", A::DTYPE);
        return Err(Error::Step(StepError::HyperParameter {
            name,
            value,
            step: at,
            path: None,
            pattern: None,
            accepted,
        }));
    }
    Ok(value)
}

/// The factor that brings a norm down to a limit. Where it is no normal number it is the product of two.
pub(super) fn quotient(limit: f64, norm: f64) -> [f64; 2] {
    /// 2⁻¹⁰⁰⁰
    const FAR: f64 = f64::from_bits(23 << 52);
    match limit / norm {
        factor if factor == 0.0 && limit > 0.0 || factor.is_subnormal() => [FAR, limit / FAR / norm],
        factor => [factor, 1.0],
    }
}

/// Multiplies a gradient by the product of two factors.
pub(super) fn scale<A: Element>(grad: &mut Grad<'_, A>, [factor, rest]: [f64; 2]) {
    match rest == 1.0 {
        true => grad.scale_by(factor),
        false => grad.replace_with(|grad| grad.scale_units([factor]).scale_units([rest])),
    }
}

/// The norm of a whole from the norms of its parts.
pub(crate) fn norm_of_norms(norms: &[f64], p: f64) -> f64 {
    let norms = ArrayView1::from(norms);
    let info = TensorInfo::new("", norms.shape());
    norm::norm(&[(&info, &Grad::new(Values::new(norms)))], p)
}
