//! Reading and writing a view of any layout in blocks of its row-major order.

use std::mem::take;

use ndarray::{ArrayBase, ArrayViewD, ArrayViewMutD, Axis, Dimension, Ix1, IxDyn, RawData};

use crate::scalar::Scalar;

/// Reads elements `start …` of a view walked in row-major order.
pub(crate) fn read<A: Scalar>(view: &ArrayViewD<'_, A>, start: usize, mut out: &mut [A]) {
    for_each_lane(view.shape(), start, out.len(), |number, offset, length| {
        let (now, later) = take(&mut out).split_at_mut(length);
        if let Some(lane) = lane_of(view.view(), number) {
            match lane.to_slice() {
                Some(lane) => now.copy_from_slice(&lane[offset..offset + length]),
                None => now.iter_mut().zip(lane.iter().skip(offset)).for_each(|(out, value)| *out = *value),
            }
        }
        out = later;
    });
}

/// Changes elements `start …` of a view walked in row-major order, each with one of `values`.
pub(crate) fn update<A: Scalar, B>(
    view: &mut ArrayViewMutD<'_, A>,
    start: usize,
    mut values: &[B],
    change: impl Fn(&mut A, &B),
) {
    let shape = view.raw_dim();
    for_each_lane(shape.slice(), start, values.len(), |number, offset, length| {
        let (now, later) = values.split_at(length);
        if let Some(mut lane) = lane_of(view.view_mut(), number) {
            lane.iter_mut().skip(offset).zip(now).for_each(|(element, value)| change(element, value));
        }
        values = later;
    });
}

/// The lanes along the last axis that `count` elements from `start` lie in: number, offset of the first, length.
fn for_each_lane(shape: &[usize], mut start: usize, mut count: usize, mut lane: impl FnMut(usize, usize, usize)) {
    let length = shape.last().copied().unwrap_or(1);
    while count > 0 {
        let (number, offset) = (start / length, start % length);
        let here = (length - offset).min(count);
        lane(number, offset, here);
        (start, count) = (start + here, count - here);
    }
}

/// The `number`-th lane along the last axis, counted in row-major order.
fn lane_of<S: RawData>(mut view: ArrayBase<S, IxDyn>, number: usize) -> Option<ArrayBase<S, Ix1>> {
    if view.ndim() == 0 {
        view = view.insert_axis(Axis(0));
    }
    let mut remaining = number;
    while view.ndim() > 1 {
        let below: usize = view.shape()[1..view.ndim() - 1].iter().product();
        view = view.index_axis_move(Axis(0), remaining / below);
        remaining %= below;
    }
    view.into_dimensionality().ok()
}
