//! Elements as a gradient's scale and limit make them.

use std::mem::take;

use crate::error::{Error, Result, StepError};
use crate::kernel::blocks;
use crate::params::{Element, Order, TensorInfo, Values};

/// Sweeps and reductions go in blocks of at most this many elements.
pub(crate) const BLOCK: usize = 2048;

/// What lies in another order is read in blocks of this many elements: of a matrix's columns, several rows at once.
pub(crate) const WIDE_BLOCK: usize = 8 * BLOCK;

/// Returns an error if the scale is beyond the largest number of `A`, or if a limit that is not 0 rounds to 0 in it. A smaller scale
/// is applied in `f64`, and a limit that becomes infinite limits nothing, as there is no larger number.
pub(super) fn ensure_kept<A: Element>(scale: f64, limit: f64, info: &TensorInfo) -> Result<()> {
    if scale == 1.0 && limit == f64::INFINITY {
        return Ok(());
    }
    let refused = |quantity, value| {
        Err(Error::Step(StepError::GradientScale { path: info.path().into(), quantity, value, dtype: A::DTYPE }))
    };
    // Halves are scaled and limited as wider numbers.
    let is_wide = size_of::<A>() >= size_of::<f32>();
    if !(if is_wide { A::from_f64(scale).as_f64() } else { scale }).is_finite() {
        return refused("scale", scale);
    }
    if limit.is_nan() || (is_wide && limit != 0.0 && A::from_f64(limit) == A::zero()) {
        return refused("limit", limit);
    }
    Ok(())
}

/// Whether a product with this factor is taken in the type: it is 1, 0 or one of the type's normal numbers, and the type is
/// one that is computed in.
pub(crate) fn is_in_type<A: Element>(factor: f64) -> bool {
    factor == 1.0 || factor == 0.0 || size_of::<A>() >= size_of::<f32>() && A::from_f64(factor).is_normal()
}

/// Scales and limits elements, in `f64` if the scale is not [in the type](is_in_type).
pub(super) fn apply<A: Element>(values: &mut [A], scale: f64, limit: f64) {
    if scale == 1.0 && limit == f64::INFINITY {
        return;
    }
    match is_in_type::<A>(scale) {
        true => {
            let (scale, limit) = (A::from_f64(scale), A::from_f64(limit));
            values.iter_mut().for_each(|value| *value = transform(*value, scale, limit));
        }
        false => values.iter_mut().for_each(|value| *value = A::from_f64(transform(value.as_f64(), scale, limit))),
    }
}

/// Multiplies elements `start …` of a tensor walked in this order by the factors of the first axis's indices.
pub(super) fn scale_units<A: Element>(
    factors: &[f64],
    shape: &[usize],
    order: Order,
    mut start: usize,
    mut out: &mut [A],
) {
    let units = factors.len();
    // In C order a unit is a run of elements; in F order, and where every run is one element, the units take turns.
    let run = if order == Order::C { shape.iter().product::<usize>() / units.max(1) } else { 1 };
    while !out.is_empty() {
        let (unit, offset) = (start / run % units, start % run);
        let length = if run == 1 { units - unit } else { run - offset }.min(out.len());
        let (now, later) = take(&mut out).split_at_mut(length);
        (start, out) = (start + now.len(), later);
        match run {
            1 => now.iter_mut().zip(&factors[unit..]).for_each(|(out, factor)| match is_in_type::<A>(*factor) {
                true => *out *= A::from_f64(*factor),
                false => *out = A::from_f64(out.as_f64() * *factor),
            }),
            _ => apply(now, factors[unit], f64::INFINITY),
        }
    }
}

/// One element scaled and limited. NaN stays NaN.
#[inline(always)]
pub(crate) fn transform<A: Element>(value: A, scale: A, limit: A) -> A {
    let value = value * scale;
    if value > limit {
        limit
    } else if value < -limit {
        -limit
    } else {
        value
    }
}

/// A scratch slice on the stack for `len` elements, or as many as there are in a wide block.
pub(crate) fn with_buffer<A: Element, T>(len: usize, f: impl FnOnce(&mut [A]) -> T) -> T {
    const FEW: usize = 256;

    #[inline(never)]
    fn on_the_stack<A: Element, T, const N: usize>(len: usize, f: impl FnOnce(&mut [A]) -> T) -> T {
        f(&mut [A::zero(); N][..len.min(N)])
    }
    match len {
        0..=FEW => on_the_stack::<_, _, FEW>(len, f),
        _ => on_the_stack::<_, _, WIDE_BLOCK>(len, f),
    }
}

/// Reads elements `start …` of a tensor walked in this order.
pub(crate) fn read<A: Element>(values: &Values<'_, A>, shape: &[usize], order: Order, start: usize, out: &mut [A]) {
    if let Some(slice) = values.as_slice(order) {
        out.copy_from_slice(&slice[start..start + out.len()]);
        return;
    }
    if values.read_without_view(shape, order, start, out) {
        return;
    }
    let view = values.view(shape);
    blocks::read(&if order == Order::F { view.reversed_axes() } else { view }, start, out);
}
