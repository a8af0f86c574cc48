//! Steps of rows are dense steps of these rows.

use gradus::StateDict;
use gradus::prelude::*;
use gradus::rule::{Rounding, Rule, StatePrecision};
use ndarray::{Array2, ArrayD, Axis, Ix2, ShapeBuilder, s};

use super::{Tested, for_each_optimizer, gathered, some_rows, wave};

/// The state after a dense step, but for the rows without a gradient, where it is that of before.
fn merged<A: Element>(before: &StateDict, after: &StateDict, touched: &[usize], shape: (usize, usize)) -> StateDict {
    let mut merged = after.clone();
    for key in after.keys() {
        let Some(values) = after.tensor::<A>(key).filter(|values| values.shape() == [shape.0, shape.1]) else {
            continue;
        };
        let mut old: ArrayD<A> = before.tensor(key).unwrap();
        for row in touched {
            old.index_axis_mut(Axis(0), *row).assign(&values.index_axis(Axis(0), *row));
        }
        merged.insert_tensor(key, old.view());
    }
    merged
}

/// The rows of a step with these gradients, of which some stand there in two parts, whose sum is exact.
fn in_parts<A: Element>(rows: &[usize], grads: &Array2<A>) -> Rows<A> {
    let (mut all, mut values) = (rows.to_vec(), gathered(grads, rows));
    for (at, row) in rows.iter().enumerate().step_by(3) {
        let half = gathered(grads, &[*row]).mapv(|value| value * A::from_f64(0.5));
        values.row_mut(at).assign(&half.row(0));
        values.append(Axis(0), half.view()).unwrap();
        all.push(*row);
    }
    Rows::new(all, values)
}

/// Each step of rows beside the dense step of the whole, from which it takes only these rows: other rows in every step.
fn agrees<A: Scalar, O: Tested<A>>(start: O) {
    for shape in [(1, 1), (23, 3), (9, 130), (700, 64), (5, 0), (0, 5)] {
        let (mut opt, mut params) = (start.clone(), wave::<A>(shape, 0.5));
        for step in 0..6 {
            let rows = some_rows(shape.0, step);
            let grads = wave(shape, step as f64);
            let mut zeros = (start.clone(), Array2::zeros(shape));
            let before = match step {
                0 => {
                    zeros.0.step(&mut zeros.1, &Array2::zeros(shape)).unwrap();
                    zeros.0.state_dict()
                }
                _ => opt.state_dict(),
            };
            let (mut dense, mut expected) = (opt.clone(), params.clone());
            dense.step(&mut expected, &grads).unwrap();
            for row in (0..shape.0).filter(|row| !rows.contains(row)) {
                expected.row_mut(row).assign(&params.row(row));
            }
            let state = merged::<A>(&before, &dense.state_dict(), &rows, shape);
            assert!(opt.step(&mut params, &in_parts(&rows, &grads)).unwrap().moved);
            assert_eq!(params, expected, "{opt:?} at {shape:?}, step {step}");
            assert!(opt.state_dict() == state, "{opt:?} at {shape:?}, step {step}");
        }
    }
}

#[test]
fn a_step_of_rows_is_the_dense_step_of_these_rows() {
    macro_rules! check {
        ($opt:expr) => {
            agrees($opt);
        };
    }
    for_each_optimizer!(check, f32);
    for_each_optimizer!(check, f64);
}

/// The same rows in every step, beside an optimizer that has only these: all precisions of the state and all options.
fn agrees_with_few<A: Scalar, O: Tested<A>>(start: O, precision: &str) {
    // 8 bits need rows of whole groups.
    let shape = (90, 256);
    let rows: Vec<usize> = some_rows(shape.0, 1);
    let mut sorted = rows.clone();
    sorted.sort_unstable();
    let (mut opt, mut params) = (start.clone(), wave::<A>(shape, 0.5));
    let (mut few, mut own) = (start, gathered(&params, &sorted));
    let untouched = params.clone();
    for step in 0..4 {
        let grads = wave(shape, f64::from(step));
        let report = opt.step(&mut params, &in_parts(&rows, &grads)).unwrap();
        assert_eq!(report, few.step(&mut own, &gathered(&grads, &sorted)).unwrap());
    }
    assert_eq!(gathered(&params, &sorted), own, "{opt:?}, {precision}");
    let others: Vec<usize> = (0..shape.0).filter(|row| !rows.contains(row)).collect();
    assert_eq!(gathered(&params, &others), gathered(&untouched, &others), "{opt:?}, {precision}");
}

#[test]
fn precisions_and_options() {
    let precisions = [
        StatePrecision::Full,
        StatePrecision::Bf16(Rounding::Stochastic),
        StatePrecision::Bf16(Rounding::Nearest),
        StatePrecision::Blockwise8,
        StatePrecision::Blockwise4(Rounding::Stochastic),
        StatePrecision::Blockwise4(Rounding::Nearest),
    ];
    macro_rules! check {
        ($opt:expr) => {
            for precision in precisions {
                let name = format!("{precision:?}");
                agrees_with_few($opt.state_precision(precision), &name);
                // What averages refuses these options.
                if !Rule::<f32>::averages($opt.rule()) {
                    agrees_with_few($opt.state_precision(precision).cautious(true), &name);
                    agrees_with_few($opt.state_precision(precision).cautious(true).trust_ratio(true), &name);
                }
            }
        };
    }
    for_each_optimizer!(check, f32);
}

/// All rows, in whatever order: the dense step, to the last bit of the state in any precision.
#[test]
fn all_rows_are_the_dense_step() {
    for precision in [
        StatePrecision::Full,
        StatePrecision::Bf16(Rounding::Stochastic),
        StatePrecision::Blockwise8,
        StatePrecision::Blockwise4(Rounding::Stochastic),
    ] {
        let shape = (64, 256);
        let rows: Vec<usize> = (0..shape.0).rev().collect();
        let new = || Adam::<f32>::new(0.01).amsgrad(true).state_precision(precision);
        let (mut opt, mut params) = (new(), wave(shape, 0.5));
        let (mut dense, mut expected) = (new(), params.clone());
        for step in 0..5 {
            let grads = wave(shape, f64::from(step));
            opt.step(&mut params, &Rows::new(rows.clone(), gathered(&grads, &rows))).unwrap();
            dense.step(&mut expected, &grads).unwrap();
        }
        assert_eq!(params, expected, "{precision:?}");
        assert!(opt.state_dict() == dense.state_dict(), "{precision:?}");
    }
}

/// Parameters and values of any layout, with steps of the whole between those of rows.
#[test]
fn layouts_do_not_change_the_bits() {
    let shape = (61, 83);
    for precision in [StatePrecision::Full, StatePrecision::Bf16(Rounding::Nearest)] {
        for dense_first in [false, true] {
            let opt = || AdamW::<f64>::new(0.01).cautious(true).trust_ratio(true).state_precision(precision);
            let mut by_rows = (opt(), wave(shape, 0.0));
            let mut by_columns = (opt(), Array2::zeros(shape.f()));
            by_columns.1.assign(&by_rows.1);
            let mut by_slices = (opt(), Array2::zeros((2 * shape.0, 2 * shape.1)));
            by_slices.1.slice_mut(s![..;2, ..;-2]).assign(&by_rows.1);
            for step in 0..6_usize {
                let all = wave(shape, step as f64);
                if dense_first == step.is_multiple_of(2) {
                    by_rows.0.step(&mut by_rows.1, &all).unwrap();
                    by_columns.0.step(&mut by_columns.1, &all).unwrap();
                    by_slices.0.step(&mut by_slices.1.slice_mut(s![..;2, ..;-2]), &all).unwrap();
                    continue;
                }
                let mut rows = some_rows(shape.0, step);
                rows.sort_unstable();
                let values = gathered(&all, &rows);
                let mut columns = Array2::zeros(values.dim().f());
                columns.assign(&values);
                by_rows.0.step(&mut by_rows.1, &Rows::new(rows.clone(), values)).unwrap();
                by_columns.0.step(&mut by_columns.1, &Rows::new(rows.clone(), columns.clone())).unwrap();
                rows.reverse();
                columns.invert_axis(Axis(0));
                by_slices.0.step(&mut by_slices.1.slice_mut(s![..;2, ..;-2]), &Rows::new(rows, columns)).unwrap();
            }
            assert_eq!(by_rows.1, by_columns.1, "{precision:?}");
            assert_eq!(by_rows.1, by_slices.1.slice(s![..;2, ..;-2]), "{precision:?}");
            let slots = [&by_rows.0, &by_columns.0, &by_slices.0].map(|opt| opt.slot("", "exp_avg_sq").unwrap());
            assert!(slots.iter().all(|slot| *slot == slots[0]), "{precision:?}");
        }
    }
}

#[cfg(feature = "rayon")]
#[test]
fn threads_do_not_change_the_bits() {
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let (mut opt, shape) = (Adam::<f32>::new(0.01).clip_global_norm(0.1), (5000, 60));
            let mut params = (wave(shape, 0.0), wave((300, 300), 0.0));
            for step in 0..3 {
                let rows = some_rows(shape.0, step);
                let values = wave((rows.len(), shape.1), step as f64);
                opt.step(&mut params, &(Rows::new(rows, values), wave((300, 300), 1.0))).unwrap();
            }
            params
        })
    };
    let expected = run(1);
    assert!([2, 3, 4].into_iter().all(|threads| run(threads) == expected));
}

/// Rows are slices of a tensor, and the elements of a vector.
#[test]
fn tensors_of_any_rank() {
    let mut opt = Adam::<f64>::new(0.1);
    let rows = [2, 0];
    let cube = wave((4, 6), 0.0).into_shape_with_order((4, 2, 3)).unwrap();
    let vector = wave((5, 1), 0.0).into_shape_with_order(5).unwrap();
    let mut params = (cube.clone(), vector.clone(), cube.clone().into_dyn());
    let slices = wave((2, 6), 1.0).into_shape_with_order((2, 2, 3)).unwrap();
    let elements = wave((2, 1), 1.0).into_shape_with_order(2).unwrap();
    let grads = (
        Rows::new(rows.to_vec(), slices.clone()),
        Rows::new(rows.to_vec(), elements.clone()),
        Rows::new(rows.to_vec(), slices.clone().into_dyn()),
    );
    opt.step(&mut params, &grads).unwrap();
    let mut few = (cube.select(Axis(0), &rows), vector.select(Axis(0), &rows));
    Adam::new(0.1).step(&mut few, &(slices, elements)).unwrap();
    let mut expected = (cube, vector);
    for (at, row) in rows.into_iter().enumerate() {
        expected.0.index_axis_mut(Axis(0), row).assign(&few.0.index_axis(Axis(0), at));
        expected.1[row] = few.1[at];
    }
    assert_eq!(params, (expected.0.clone(), expected.1, expected.0.into_dyn()));
}

/// Rows without any are a step of the tensor, in which nothing moves; `None` is none.
#[test]
fn no_rows() {
    let mut opt = Adam::<f64>::new(0.1).weight_decay(0.1);
    let start = wave((3, 2), 0.0);
    let mut params = start.clone();
    let none = Rows::new(Vec::new(), Array2::zeros((0, 2)));
    assert!(opt.step(&mut params, &none).unwrap().moved);
    assert!(!opt.step(&mut params, &None::<Rows<f64>>).unwrap().moved);
    assert_eq!((&params, opt.steps()), (&start, 2));
    opt.step(&mut params, &Rows::new(vec![1], Array2::ones((1, 2)))).unwrap();
    // The second step of the tensor, with moments from the first: m̂ = 0.1g/(1 − 0.81), v̂ = 0.001g²/(1 − 0.998001).
    for (before, after) in start.row(1).iter().zip(params.row(1)) {
        let g = 1.0 + 0.1 * before;
        let direction = 0.1 * g / 0.19 / ((0.001 * g * g / (1.0 - 0.999 * 0.999)).sqrt() + 1e-8);
        assert!((before - 0.1 * direction - after).abs() < 1e-12);
    }
    assert!(params.row(0) == start.row(0) && params.row(2) == start.row(2));
}

#[test]
fn duplicates_are_summed_and_rounded_once() {
    let rows = Rows::new(vec![1, 0, 1, 1], ndarray::array![[1e8_f32], [2.0], [1.0], [-1e8]]);
    let mut w = Array2::zeros((2, 1));
    Sgd::new(1.0).step(&mut w, &rows).unwrap();
    assert_eq!(w, ndarray::array![[-2.0], [-1.0]]);
    assert_eq!(rows.to_dense(3), Some(ndarray::array![[2.0], [1.0], [0.0]]));
    assert_eq!((rows.to_dense(1), Rows::new(vec![0], Array2::<f32>::zeros((2, 2))).to_dense(5)), (None, None));
    let dense: Array2<f32> = rows.to_dense(2).unwrap().into_dimensionality::<Ix2>().unwrap();
    assert_eq!(dense.sum(), 3.0);
}
