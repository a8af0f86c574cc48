//! A parameter with other rows: the state of the rows that stay is what it would be if they had always been the rows.

use gradus::error::{ArgumentError, StateError, StepError};
use gradus::prelude::*;
use gradus::rule::{Rounding, StatePrecision};
use gradus::{Error, Result};
use ndarray::{Array1, Array2, Axis, ShapeBuilder, array};

use crate::chains::{Build, number};

/// Rows of 64 elements: enough of them for state in 16 bits, before and after.
const BEFORE: usize = 70;
const WIDTH: usize = 64;

/// What is at "table" and at "bias".
#[derive(Params, Clone, Debug, PartialEq)]
struct Model {
    bias: Array1<f32>,
    table: Array2<f32>,
}

/// For each row now, the row before: some are gone, one is there twice, others are new.
fn rows() -> Vec<Option<usize>> {
    let all = [Some(5), None, Some(0), Some(5)].into_iter().chain((8..BEFORE).map(Some));
    all.chain([None; 6]).collect()
}

fn matrix(rows: usize, stream: u64, column_major: bool) -> Array2<f32> {
    let values = (0..rows * WIDTH).map(|index| number(stream, index)).collect();
    Array2::from_shape_vec((rows, WIDTH).set_f(column_major), values).unwrap()
}

/// The rows now, of which the new ones are those of another matrix.
fn chosen(before: &Array2<f32>, new: &Array2<f32>) -> Array2<f32> {
    let mut now = new.clone();
    for (mut now, row) in now.rows_mut().into_iter().zip(rows()) {
        row.into_iter().for_each(|row| now.assign(&before.row(row)));
    }
    now
}

/// Optimizers whose slots are zeros while the gradient is, and adaptors, none of which looks at several rows.
#[rustfmt::skip] // one chain, one line
fn all() -> Vec<(&'static str, Build)> {
    vec![
        ("sgd", || Box::new(Sgd::new(0.1))),
        ("momentum", || Box::new(Momentum::new(0.1, 0.9))),
        ("adam", || Box::new(Adam::new(0.05).amsgrad(true))),
        ("adam in bf16", || Box::new(Adam::new(0.05).state_precision(StatePrecision::Bf16(Rounding::Nearest)))),
        ("rmsprop", || Box::new(RmsProp::new(0.01).centered(true).momentum(0.9))),
        ("adagrad", || Box::new(Adagrad::new(0.1))),
        ("adan", || Box::new(Adan::new(0.01))),
        ("lion", || Box::new(Lion::new(0.01))),
        ("madgrad", || Box::new(Madgrad::new(0.01))),
        ("schedule-free", || Box::new(SgdScheduleFree::new(0.1))),
        ("ema", || Box::new(Adam::new(0.05).ema(0.9))),
        ("swa", || Box::new(Adam::new(0.05).swa(2, 2))),
        ("lookahead", || Box::new(Sgd::new(0.1).lookahead(3, 0.5))),
        ("accumulate", || Box::new(Adam::new(0.05).accumulate(3))),
        ("router", || Box::new(Lion::new(0.05).route("table", Adam::new(0.05).ema(0.5)).freeze("bias"))),
        ("group", || Box::new(Adam::new(0.05).group("table", Group::new().learning_rate(0.1)).clip_value(0.3))),
    ]
}

#[test]
fn every_row_goes_on_as_if_it_had_always_been_there() {
    for (name, build) in all() {
        for column_major in [false, true] {
            let model = |stream| Model { bias: array![0.5, -1.0], table: matrix(BEFORE, stream, column_major) };
            let new = matrix(rows().len(), 77, column_major);
            let zeros = Array2::zeros(new.raw_dim().set_f(column_major));
            let (mut opt, mut params) = (build(), model(1));
            let (mut other, mut expected) = (build(), model(1));
            expected.table = chosen(&expected.table, &new);
            for step in 0..4 {
                let grads = model(10 + step);
                opt.step(&mut params, &grads).unwrap();
                let grads = Model { table: chosen(&grads.table, &zeros), ..grads };
                other.step(&mut expected, &grads).unwrap();
            }
            params.table = chosen(&params.table, &new);
            opt.resize("table", &rows(), &params).unwrap();
            assert!(params == expected, "{name}");
            assert!(opt.state_dict() == other.state_dict(), "{name}");
            for step in 0..4 {
                let grads = Model { bias: array![1.0, step as f32], table: matrix(rows().len(), 20 + step, false) };
                opt.step(&mut params, &grads).unwrap();
                other.step(&mut expected, &grads).unwrap();
            }
            assert!(params == expected, "{name}");
            assert!(opt.state_dict() == other.state_dict(), "{name}");
        }
    }
}

#[test]
fn before_the_first_step_there_is_nothing_to_keep() {
    let mut opt = Adam::new(0.1);
    opt.resize("w", &[None, None], &array![1.0]).unwrap();
    assert!(opt.layout().is_none());
}

/// An optimizer after two steps on a matrix of three rows, and a vector.
fn stepped(mut opt: Box<dyn Optimizer<f32>>) -> Box<dyn Optimizer<f32>> {
    let mut params = (array![[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], array![1.0], 0.5_f32);
    let grads = params.clone();
    (0..2).for_each(|_| _ = opt.step(&mut params, &grads).unwrap());
    opt
}

/// The error of a change of rows, after which everything is as it was.
fn refused(opt: Box<dyn Optimizer<f32>>, resize: impl FnOnce(&mut dyn Optimizer<f32>) -> Result<()>) -> Error {
    let mut opt = stepped(opt);
    let before = opt.state_dict();
    let error = resize(&mut opt).unwrap_err();
    assert_eq!(opt.state_dict(), before, "{error}");
    let mut params = (array![[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], array![1.0], 0.5_f32);
    let grads = params.clone();
    opt.step(&mut params, &grads).unwrap();
    error
}

#[test]
fn a_tree_that_does_not_fit_changes_nothing() {
    let adam = || Box::new(Adam::new(0.1).ema(0.9));
    let two = || (array![[1.0, 2.0], [3.0, 4.0]], array![1.0], 0.5_f32);
    let kept = [Some(0), Some(2)];
    let changed = |error: Error, expected: &str, found: &str| {
        let (expected, found) = (expected.into(), found.into());
        assert_eq!(error, Error::Step(StepError::ParametersChanged { expected, found }));
    };
    let other = refused(adam(), |opt| opt.resize("0", &kept, &(two().0, array![1.0, 2.0], 0.5_f32)));
    changed(other, "\"1\" of shape [1]", "\"1\" of shape [2]");
    let columns = refused(adam(), |opt| opt.resize("0", &kept, &(array![[1.0], [2.0]], array![1.0], 0.5_f32)));
    changed(columns, "\"0\" of shape [2, 2]", "\"0\" of shape [2, 1]");
    let count = refused(adam(), |opt| opt.resize("0", &kept[..1], &two()));
    changed(count, "\"0\" of shape [1, 2]", "\"0\" of shape [2, 2]");
    let fewer = refused(adam(), |opt| opt.resize("0", &kept, &(two().0, array![1.0])));
    changed(fewer, "\"2\" of shape []", "no more tensors");

    let unknown = refused(adam(), |opt| opt.resize("00", &kept, &two()));
    assert!(matches!(unknown, Error::State(StateError::MissingEntry { key, .. }) if key == "00"));
    let beyond = refused(adam(), |opt| opt.resize("0", &[Some(3), None], &two()));
    assert_eq!(beyond.to_string(), "rows is 3; it must be a row of \"0\" of shape [3, 2]");
    let number = refused(adam(), |opt| opt.resize("2", &[Some(0)], &two()));
    assert!(matches!(number, Error::Argument(ArgumentError::Range { argument: "rows", .. })), "{number}");
}

#[test]
fn a_state_that_does_not_go_by_rows_is_refused() {
    let now = || (array![[1.0, 2.0], [5.0, 6.0], [0.0, 0.0]], array![1.0], 0.5_f32);
    let refused = |opt| match refused(opt, |opt| opt.resize("0", &[Some(0), Some(2), None], &now())) {
        Error::State(StateError::NotResizable { key, .. }) => key,
        other => panic!("{other}"),
    };
    assert_eq!(refused(Box::new(Adam::new(0.1).route("0", Muon::new(0.1)))), "route/muon/momentum_buffer/0");
    assert_eq!(refused(Box::new(Lbfgs::new(0.1))), "lbfgs/prev_grad/0");
    assert_eq!(refused(Box::new(Rprop::new(0.1))), "rprop/step_size/0");
    assert!(refused(Box::new(Adafactor::new(0.1))).starts_with("adafactor/"));
    // Without new rows, Rprop's can follow.
    let mut rprop = stepped(Box::new(Rprop::new(0.1)));
    rprop.resize("0", &[Some(2)], &(array![[5.0, 6.0]], array![1.0], 0.5_f32)).unwrap();

    let mut opt = Adam::new(0.1).sam(0.1);
    opt.ascend(&mut now(), &now()).unwrap();
    let error = opt.resize("0", &[Some(0), Some(2), None], &now()).unwrap_err();
    assert_eq!(error, Error::Step(StepError::AlreadyAscended));
}

#[test]
fn codes_and_sums_of_rows_are_refused() {
    let (mut table, rows) = (matrix(BEFORE, 1, false), [Some(3)]);
    let mut opt = Adam::new(0.1).state_precision(StatePrecision::Blockwise8);
    opt.step(&mut table, &matrix(BEFORE, 2, false)).unwrap();
    let one = || matrix(1, 3, false);
    let error = opt.resize("", &rows, &one()).unwrap_err();
    assert!(error.to_string().ends_with("use a state precision of 16 bits or more"), "{error}");

    let mut opt = Sgd::new(0.1).accumulate(2);
    let grads = Rows::new(vec![3, 5], matrix(2, 4, false));
    opt.step(&mut table, &grads).unwrap();
    let before = opt.state_dict();
    let error = opt.resize("", &rows, &one()).unwrap_err();
    assert!(error.to_string().contains("not between the calls of `accumulate`"), "{error}");
    assert_eq!(opt.state_dict(), before);
    opt.step(&mut table, &grads).unwrap();
    opt.resize("", &rows, &one()).unwrap();
    opt.step(&mut one(), &Rows::new(vec![0], one())).unwrap();
}

/// Splats: prune the faint, split the large, several times, while training goes on.
#[test]
fn many_changes_follow_each_other() {
    let (mut opt, mut splats) = (Adam::new(0.01).ema(0.9), matrix(4, 1, false));
    for round in 0..5_usize {
        let grads = matrix(splats.nrows(), round as u64, false);
        opt.step(&mut splats, &grads).unwrap();
        let kept: Vec<usize> = (0..splats.nrows()).filter(|row| *row != round).collect();
        let moment = opt.inner().slot("", "exp_avg").unwrap();
        splats = splats.select(Axis(0), &kept);
        splats.append(Axis(0), matrix(2, 9, false).view()).unwrap();
        let rows: Vec<_> = kept.iter().copied().map(Some).chain([None, None]).collect();
        opt.resize("", &rows, &splats).unwrap();
        let (now, kept) = (opt.inner().slot("", "exp_avg").unwrap(), moment.select(Axis(0), &kept));
        assert_eq!(now.shape(), [5 + round, WIDTH]);
        assert_eq!(now.slice_axis(Axis(0), (..3 + round).into()), kept);
        assert!(now.slice_axis(Axis(0), (3 + round..).into()).iter().all(|value| *value == 0.0));
    }
    assert_eq!(opt.steps(), 5);
}
