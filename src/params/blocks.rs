//! Reading and writing a view of any layout in blocks of its row-major order.

use std::mem::take;
use std::ops::Range;

use ndarray::{ArrayBase, ArrayViewD, ArrayViewMutD, Axis, Dimension, Ix1, IxDyn, RawData, Zip, aview_mut1, aview1};

use crate::scalar::Element;

/// Reads elements `start …` of a view walked in row-major order.
pub(crate) fn read<A: Element>(view: &ArrayViewD<'_, A>, start: usize, mut out: &mut [A]) {
    for_each_lane(view.shape(), start, out.len(), |number, part| {
        let (now, later) = take(&mut out).split_at_mut(part.len());
        let Some(lane) = lane_of(view.view(), number, part) else { return };
        match lane.to_slice() {
            Some(lane) => now.copy_from_slice(lane),
            None => Zip::from(aview_mut1(now)).and(lane).for_each(|out, value| *out = *value),
        }
        out = later;
    });
}

/// Changes elements `start …` of a view walked in row-major order, each with one of `values`.
pub(crate) fn update<A: Element, B>(
    view: &mut ArrayViewMutD<'_, A>,
    start: usize,
    mut values: &[B],
    change: impl Fn(&mut A, &B),
) {
    let shape = view.raw_dim();
    for_each_lane(shape.slice(), start, values.len(), |number, part| {
        let (now, later) = values.split_at(part.len());
        let Some(lane) = lane_of(view.view_mut(), number, part) else { return };
        Zip::from(lane).and(aview1(now)).for_each(&change);
        values = later;
    });
}

/// Columns that are read side by side, so that rows are written in pieces.
const ABREAST: usize = 8;

/// Reads a tile of a matrix that lies column after column into rows that are `stride` apart; `stride` has room for
/// [`ABREAST`] columns more than the width.
///
/// Column by column: every cache line is read once.
pub(crate) fn read_tile<A: Element>(
    columns: &[A],
    rows: usize,
    (row, column): (usize, usize),
    (height, width): (usize, usize),
    stride: usize,
    out: &mut [A],
) {
    for first in (0..width).step_by(ABREAST) {
        // Beyond the last column that one once more, for the padding.
        let columns: [&[A]; ABREAST] = std::array::from_fn(|k| {
            let column = column + (first + k).min(width - 1);
            &columns[column * rows + row..][..height]
        });
        for (i, line) in out.chunks_mut(stride).take(height).enumerate() {
            line[first..first + ABREAST].iter_mut().zip(columns).for_each(|(out, column)| *out = column[i]);
        }
    }
}

/// The lanes along the last axis that `count` elements from `start` lie in, and which part of each.
fn for_each_lane(shape: &[usize], mut start: usize, mut count: usize, mut lane: impl FnMut(usize, Range<usize>)) {
    let length = shape.last().copied().unwrap_or(1);
    while count > 0 {
        let (number, offset) = (start / length, start % length);
        let here = (length - offset).min(count);
        lane(number, offset..offset + here);
        (start, count) = (start + here, count - here);
    }
}

/// A part of the `number`-th lane along the last axis, counted in row-major order.
fn lane_of<S: RawData>(mut view: ArrayBase<S, IxDyn>, number: usize, part: Range<usize>) -> Option<ArrayBase<S, Ix1>> {
    if view.ndim() == 0 {
        view = view.insert_axis(Axis(0));
    }
    let mut remaining = number;
    while view.ndim() > 1 {
        let below: usize = view.shape()[1..view.ndim() - 1].iter().product();
        view = view.index_axis_move(Axis(0), remaining / below);
        remaining %= below;
    }
    let lane: ArrayBase<S, Ix1> = view.into_dimensionality().ok()?;
    Some(lane.slice_axis_move(Axis(0), part.into()))
}
