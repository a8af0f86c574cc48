//! Reading and writing a view of any layout in blocks of its row-major order.

use std::mem::take;

use ndarray::{ArrayBase, ArrayViewD, ArrayViewMutD, Axis, IxDyn, RawData, Slice, Zip, aview_mut1, aview1};

use crate::params::Element;

/// Reads elements `start …` of a view walked in row-major order.
pub(crate) fn read<A: Element>(view: &ArrayViewD<'_, A>, mut start: usize, mut out: &mut [A]) {
    while !out.is_empty() {
        let part = first_box(view.view(), start, out.len());
        let (now, later) = take(&mut out).split_at_mut(part.len());
        (start, out) = (start + now.len(), later);
        let Ok(mut now) = aview_mut1(now).into_shape_with_order(part.raw_dim()) else { return };
        let axis = lane_axis(&part);
        Zip::from(now.lanes_mut(axis)).and(part.lanes(axis)).for_each(|mut now, lane| now.assign(&lane));
    }
}

/// Changes elements `start …` of a view walked in row-major order, each with one of `values`.
pub(crate) fn update<A: Element, B>(
    view: &mut ArrayViewMutD<'_, A>,
    mut start: usize,
    mut values: &[B],
    change: impl Fn(&mut A, &B),
) {
    while !values.is_empty() {
        let mut part = first_box(view.view_mut(), start, values.len());
        let (now, later) = values.split_at(part.len());
        (start, values) = (start + now.len(), later);
        let Ok(now) = aview1(now).into_shape_with_order(part.raw_dim()) else { return };
        let axis = lane_axis(&part);
        Zip::from(part.lanes_mut(axis)).and(now.lanes(axis)).for_each(|lane, values| {
            Zip::from(lane).and(values).for_each(&change);
        });
    }
}

/// The largest box that begins with element `start` and is consecutive in row-major order, of at most `count` elements.
fn first_box<S: RawData>(mut view: ArrayBase<S, IxDyn>, mut start: usize, count: usize) -> ArrayBase<S, IxDyn> {
    while view.ndim() > 0 {
        let row_length: usize = view.shape()[1..].iter().product();
        let (row, offset) = (start / row_length, start % row_length);
        if offset == 0 && count >= row_length {
            let rows = (count / row_length).min(view.shape()[0] - row);
            return view.slice_axis_move(Axis(0), Slice::from(row..row + rows));
        }
        view = view.index_axis_move(Axis(0), row);
        start = offset;
    }
    view.insert_axis(Axis(0))
}

/// Lanes shorter than this cost more than the cache lines that longer ones read twice.
const SHORT_AXIS: usize = 8;

/// The axis to walk along: of those that are not short the one that is closest in memory, else the longest.
fn lane_axis<S: RawData>(part: &ArrayBase<S, IxDyn>) -> Axis {
    let axes = part.shape().iter().zip(part.strides()).enumerate();
    let key = |(_, (length, stride)): &(usize, (&usize, &isize))| {
        let long = **length >= SHORT_AXIS;
        (!long, if long { stride.unsigned_abs() } else { usize::MAX - **length })
    };
    Axis(axes.min_by_key(key).map_or(0, |(axis, _)| axis))
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

#[cfg(test)]
mod tests {
    use ndarray::ArrayD;

    use super::*;

    /// Views of every rank, with axes in any order, gaps and axes that run backwards.
    fn for_each_view(mut check: impl FnMut(ArrayViewMutD<'_, f64>)) {
        let shapes: [&[usize]; 8] = [&[], &[1], &[7], &[3, 40], &[40, 3], &[4, 1, 17], &[5, 2, 3, 9], &[2, 3, 2, 9, 2]];
        for shape in shapes {
            for turn in 0..shape.len().max(1) {
                for step in [1_isize, 2, -1] {
                    let large: Vec<usize> = shape.iter().map(|length| length * step.unsigned_abs()).collect();
                    let mut number = -1.0;
                    let mut array = ArrayD::from_shape_simple_fn(large, || {
                        number += 1.0;
                        number
                    });
                    let mut view = array.view_mut();
                    view.slice_each_axis_inplace(|_| Slice::new(0, None, step));
                    let mut axes: Vec<usize> = (0..shape.len()).collect();
                    axes.rotate_left(turn);
                    check(view.permuted_axes(axes));
                }
            }
        }
    }

    #[test]
    fn blocks_are_what_an_iterator_gives() {
        for_each_view(|view| {
            let expected: Vec<f64> = view.iter().copied().collect();
            let every = 1 + expected.len() / 24;
            for start in (0..expected.len()).step_by(every) {
                for end in (start..=expected.len()).step_by(every) {
                    let mut block = vec![f64::NAN; end - start];
                    read(&view.view(), start, &mut block);
                    assert_eq!(block, expected[start..end], "{:?} {:?}", view.shape(), view.strides());
                }
            }
        });
    }

    #[test]
    fn an_update_changes_the_block_and_nothing_else() {
        for_each_view(|mut view| {
            let before: Vec<f64> = view.iter().copied().collect();
            let (start, end) = (before.len() / 3, before.len() - before.len() / 4);
            let values: Vec<f64> = (start..end).map(|number| number as f64 + 0.5).collect();
            update(&mut view, start, &values, |element, value| *element -= value);
            for (number, (after, before)) in view.iter().zip(&before).enumerate() {
                let change = if (start..end).contains(&number) { number as f64 + 0.5 } else { 0.0 };
                assert_eq!(*after, before - change);
            }
        });
    }
}
