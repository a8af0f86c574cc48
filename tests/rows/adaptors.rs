//! Adaptors, with rows and with the same gradient in full: without state, SGD takes the same step.

use gradus::adaptor::{Ema, NonFinite, Swa};
use gradus::params::Values;
use gradus::prelude::*;
use gradus::rule::{Rounding, StatePrecision};
use gradus::{Error, Grad, Report, Result, Step, error::StepError};
use ndarray::{Array1, Array2, Axis, ShapeBuilder, array};

use super::{gathered, some_rows, wave};

/// Norms are summed in another order.
const TOLERANCE: f64 = 1e-13;

const SHAPE: (usize, usize) = (40, 30);

type Tree = (Array2<f64>, Array1<f64>);
type Boxed = Box<dyn Optimizer<f64>>;
type Make = Box<dyn Fn() -> Boxed>;

fn start() -> Tree {
    (wave(SHAPE, 0.5), wave((7, 1), 0.2).into_shape_with_order(7).unwrap())
}

/// A gradient of rows that occur twice, and the same in full.
fn gradients(step: usize) -> ((Rows<f64>, Array1<f64>), Tree) {
    let rows = some_rows(SHAPE.0, step);
    let rows = [&rows[..], &rows[..rows.len() / 2]].concat();
    let rows = Rows::new(rows.clone(), wave((rows.len(), SHAPE.1), step as f64));
    let (dense, bias) = (rows.to_dense(SHAPE.0).unwrap(), wave((7, 1), step as f64));
    let bias = bias.into_shape_with_order(7).unwrap();
    ((rows, bias.clone()), (dense, bias))
}

fn near(left: &Tree, right: &Tree, what: &str) {
    let distance = |left: &f64, right: &f64| (left - right).abs();
    let first = left.0.iter().zip(&right.0).map(|(left, right)| distance(left, right));
    let all = first.chain(left.1.iter().zip(&right.1).map(|(left, right)| distance(left, right)));
    let worst = all.fold(0.0, f64::max);
    assert!(worst < TOLERANCE, "{what}: {worst:e}");
}

fn near_reports(left: Report, right: Report, what: &str) {
    assert_eq!((left.moved, left.learning_rate), (right.moved, right.learning_rate), "{what}");
    let [left, right] = [left, right].map(|report| report.grad_norm.unwrap_or(0.0));
    assert!((left - right).abs() <= TOLERANCE * right, "{what}: {left} {right}");
}

/// A transform that replaces gradients, and one that reads them.
#[derive(Debug, Clone, Copy)]
struct Halved;

impl gradus::adaptor::Transform<f64> for Halved {
    fn name(&self) -> &'static str {
        "halved"
    }

    fn hyper_parameters(&self) -> Vec<(&'static str, &gradus::Hyper)> {
        Vec::new()
    }

    fn transform<'s>(&'s self, step: &mut Step<'s, f64>) -> Result<gradus::adaptor::Outcome> {
        for (info, grad) in step.grads_mut() {
            *grad = Grad::from_array(grad.to_array(info.shape()) * 0.5);
        }
        Ok(gradus::adaptor::Outcome::pass())
    }
}

/// Adds the same to every gradient.
#[derive(Debug, Clone)]
struct Added(Tree);

impl gradus::adaptor::Transform<f64> for Added {
    fn name(&self) -> &'static str {
        "added"
    }

    fn hyper_parameters(&self) -> Vec<(&'static str, &gradus::Hyper)> {
        Vec::new()
    }

    fn transform<'s>(&'s self, step: &mut Step<'s, f64>) -> Result<gradus::adaptor::Outcome> {
        for (info, grad) in step.grads_mut() {
            let owned = std::mem::replace(grad, Grad::from_array(Array1::zeros(0)));
            let is_table = info.path() == "0";
            *grad = owned.plus(if is_table { Values::new(self.0.0.view()) } else { Values::new(self.0.1.view()) });
        }
        Ok(gradus::adaptor::Outcome::pass())
    }
}

#[test]
fn chains() {
    let sgd = || Sgd::<f64>::new(0.1);
    let units = |step: &mut Step<'_, f64>| -> Result<()> {
        for (info, grad) in step.grads_mut() {
            let factors: Vec<f64> = (0..info.shape()[0]).map(|unit| 1.0 / (1.0 + unit as f64)).collect();
            let owned = std::mem::replace(grad, Grad::from_array(Array1::zeros(0)));
            *grad = owned.scale_units(factors);
        }
        Ok(())
    };
    let chains: Vec<(&str, Make)> = vec![
        ("global", Box::new(move || sgd().clip_global_norm(0.3).boxed())),
        ("exact", Box::new(move || sgd().clip_global_norm(0.3).exact(true).p(3.0).boxed())),
        ("infinite", Box::new(move || sgd().clip_global_norm(0.3).p(f64::INFINITY).boxed())),
        ("per tensor", Box::new(move || sgd().clip_per_tensor_norm(0.3).boxed())),
        ("value", Box::new(move || sgd().clip_value(0.2).boxed())),
        ("adaptive", Box::new(move || sgd().clip_adaptive(0.05).clip_global_norm(f64::INFINITY).boxed())),
        ("both", Box::new(move || sgd().clip_global_norm(0.3).clip_adaptive(0.05).clip_value(0.1).boxed())),
        ("centralize", Box::new(move || sgd().centralize().boxed())),
        ("signs", Box::new(move || sgd().unscale(4.0).maximize().boxed())),
        ("finite", Box::new(move || sgd().check_finite().skip_nonfinite().boxed())),
        ("group", Box::new(move || sgd().group("0", Group::new().scale_learning_rate(0.3)).boxed())),
        ("freeze", Box::new(move || sgd().freeze("0").boxed())),
        ("route", Box::new(move || Adam::new(0.1).route("0", sgd().clip_value(0.1)).boxed())),
        ("accumulate", Box::new(move || sgd().clip_global_norm(0.3).accumulate(3).boxed())),
        ("after accumulate", Box::new(move || sgd().accumulate(3).clip_adaptive(0.05).boxed())),
        ("lookahead", Box::new(move || sgd().lookahead(2, 0.5).boxed())),
        ("transform", Box::new(move || sgd().transform(Halved).accumulate(2).boxed())),
        ("added", Box::new(move || sgd().clip_global_norm(0.3).transform(Added(start())).clip_value(0.5).boxed())),
        ("units", Box::new(move || sgd().transform(units).boxed())),
        (
            "units twice",
            Box::new(move || sgd().transform(units).clip_value(0.1).transform(units).accumulate(2).boxed()),
        ),
    ];
    for (name, make) in chains {
        let (mut opt, mut dense) = (make(), make());
        let (mut params, mut expected) = (start(), start());
        for step in 0..7 {
            let (rows, full) = gradients(step);
            let (report, other) = match step {
                // A window of both.
                4 => (opt.step(&mut params, &full), dense.step(&mut expected, &full)),
                _ => (opt.step(&mut params, &rows), dense.step(&mut expected, &full)),
            };
            near_reports(report.unwrap(), other.unwrap(), name);
            near(&params, &expected, name);
        }
        assert!(params != start());
    }
}

#[test]
fn averages_visit_every_row() {
    let mut opt = Sgd::<f64>::new(0.1).ema(0.5).swa(2, 1);
    let mut dense = opt.clone();
    let (mut params, mut expected) = (start(), start());
    for step in 0..6 {
        let (rows, full) = gradients(step);
        opt.step(&mut params, &rows).unwrap();
        dense.step(&mut expected, &full).unwrap();
        near(&params, &expected, "params");
        let (mut own, mut other) = (start(), start());
        opt.find::<Ema<f64>>().unwrap().read(&mut own).unwrap();
        dense.find::<Ema<f64>>().unwrap().read(&mut other).unwrap();
        near(&own, &other, "ema");
        opt.find::<Swa<f64>>().unwrap().read(&mut own).unwrap();
        dense.find::<Swa<f64>>().unwrap().read(&mut other).unwrap();
        near(&own, &other, "swa");
    }
}

/// A window of rows is one step on the union of the rows, whatever the last micro-batch has; then the state of no other row moves.
#[test]
fn a_window_has_the_union_of_its_rows() {
    let all = wave((6, 2), 0.3);
    let rows = |rows: &[usize]| Some(Rows::new(rows.to_vec(), gathered(&all, rows)));
    for last in [Some(&[4_usize, 1][..]), Some(&[]), None] {
        let mut opt = Adam::<f64>::new(0.1).accumulate(3);
        let mut params = wave((6, 2), 0.0);
        let (mut few, mut expected) = (Adam::<f64>::new(0.1), params.clone());
        for window in 0..3 {
            let parts = [rows(&[1, 3]), rows(&[3, 0]), last.and_then(rows)];
            let mut union = Rows::new(Vec::new(), Array2::zeros((0, 2)));
            for part in parts {
                let resumed = opt.state_dict();
                opt = Adam::<f64>::new(0.1).accumulate(3);
                opt.load_state_dict(&resumed).unwrap();
                opt.step(&mut params, &part).unwrap();
                let Some(part) = part else { continue };
                union.rows.extend(part.rows);
                union.values.append(Axis(0), part.values.view()).unwrap();
            }
            union.values /= 3.0;
            few.step(&mut expected, &union).unwrap();
            assert!((&params - &expected).iter().all(|d| d.abs() < 1e-15), "{last:?}, {window}");
            assert_eq!((params.row(2), params.row(5)), (expected.row(2), expected.row(5)));
            assert!(opt.find::<Adam<f64>>().unwrap().slot("", "exp_avg").unwrap().index_axis(Axis(0), 2).sum() == 0.0);
        }
    }
}

#[test]
fn a_window_of_rows_and_dense_gradients_is_dense() {
    for columns in [false, true] {
        for order in [[0, 1, 2], [1, 0, 2], [1, 2, 0], [0, 2, 1]] {
            let (mut opt, mut dense) = (Adam::<f64>::new(0.1).accumulate(3), Adam::<f64>::new(0.1).accumulate(3));
            let (mut params, mut expected) = (wave((9, 4), 0.0), wave((9, 4), 0.0));
            let mut full = Array2::zeros((9, 4).f());
            full.assign(&wave((9, 4), 2.0));
            let full: Array2<f64> = if columns { full } else { full.as_standard_layout().into_owned() };
            for call in 0..6 {
                let rows = Rows::new(vec![8, 2, 8], wave((3, 4), f64::from(call)));
                match order[call as usize % 3] {
                    0 => opt.step(&mut params, &full).unwrap(),
                    _ => opt.step(&mut params, &rows).unwrap(),
                };
                let same = if order[call as usize % 3] == 0 { full.clone() } else { rows.to_dense(9).unwrap() };
                dense.step(&mut expected, &same).unwrap();
            }
            assert!((&params - &expected).iter().all(|d| d.abs() < 1e-15), "{order:?}");
        }
    }
}

#[test]
fn the_row_that_is_not_finite_is_named() {
    let rows = Rows::new(vec![3, 1, 3], array![[1.0, f64::MAX], [1.0, 2.0], [0.0, f64::MAX]]);
    let expected = StepError::NonFiniteGradient { path: String::new(), index: vec![3, 1], value: f64::INFINITY };
    let mut table = Array2::zeros((5, 2));
    let chains: [Boxed; 4] = [
        Sgd::new(0.1).check_finite().boxed(),
        Sgd::new(0.1).clip_global_norm(1.0).boxed(),
        Sgd::new(0.1).clip_per_tensor_norm(1.0).boxed(),
        Sgd::new(0.1).clip_adaptive(1.0).boxed(),
    ];
    for mut opt in chains {
        assert_eq!(opt.step(&mut table, &rows).unwrap_err(), Error::Step(expected.clone()));
    }
    assert!(!Sgd::new(0.1).skip_nonfinite().step(&mut table, &rows).unwrap().moved);
    assert!(!Sgd::new(0.1).clip_global_norm(1.0).non_finite(NonFinite::Skip).step(&mut table, &rows).unwrap().moved);
    assert_eq!(table.sum(), 0.0);
}

/// A check with differences sees the zeros of the other rows.
#[test]
fn gradient_check() {
    let mut table = wave((6, 3), 0.4);
    let loss = |table: &Array2<f64>| table.row(4).iter().map(|x| x * x).sum::<f64>() + table.row(1).sum();
    let grads = Rows::new(vec![4, 1], ndarray::stack![Axis(0), table.row(4).mapv(|x| 2.0 * x), Array1::ones(3)]);
    let found = gradus::check::gradients(&mut table, &grads, loss).unwrap();
    assert!(found.checked() == 18 && found.worst_error() < 1e-6, "{found:?}");
    let wrong = Rows::new(vec![4], gathered(&grads.values, &[0]));
    assert!(gradus::check::gradients(&mut table, &wrong, loss).unwrap().worst_error() > 0.5);
}

#[test]
fn other_rows_start_as_in_a_dense_step() {
    for precision in [
        StatePrecision::Bf16(Rounding::Nearest),
        StatePrecision::Blockwise8,
        StatePrecision::Blockwise4(Rounding::Stochastic),
    ] {
        let make = || Adagrad::<f32>::new(0.1).initial_accumulator_value(0.25).state_precision(precision);
        let (mut opt, mut table) = (make(), Array2::zeros((20, 256)));
        opt.step(&mut table, &Rows::new(vec![7, 8, 19], Array2::ones((3, 256)))).unwrap();
        let sum = opt.slot("", "sum").unwrap();
        for (row, sums) in sum.axis_iter(Axis(0)).enumerate() {
            let expected = if [7, 8, 19].contains(&row) { 1.25 } else { 0.25 };
            assert!(sums.iter().all(|sum| *sum == expected), "{precision:?}, {row}");
        }
    }
}

#[cfg(feature = "half")]
#[test]
fn master_weights() {
    use half::bf16;

    let rows = Rows::new(vec![2, 0, 2], wave::<bf16>((3, 4), 0.1));
    let mut opt = Adam::new(0.1).clip_global_norm(0.5).master_weights();
    let mut table = wave::<bf16>((5, 4), 0.3);
    let (mut inner, mut wide) = (Adam::<f32>::new(0.1).clip_global_norm(0.5), table.mapv(f32::from));
    let summed = rows.to_dense(5).unwrap();
    let of_rows = Rows::new(vec![0, 2], gathered(&summed.mapv(f32::from), &[0, 2]));
    for _ in 0..3 {
        let report = opt.step(&mut table, &rows).unwrap();
        assert_eq!(report, inner.step(&mut wide, &of_rows).unwrap());
        assert_eq!(table, wide.mapv(bf16::from_f32));
    }
    let error = Sgd::new(0.1).master_weights().accumulate(2).step(&mut table, &rows).unwrap_err();
    assert!(matches!(error, Error::Step(StepError::SumOfHalves { .. })));
}

#[cfg(feature = "derive")]
#[test]
fn in_structs_and_lists() {
    #[derive(Params)]
    struct Model {
        table: Array2<f32>,
        layers: Vec<Array1<f32>>,
    }
    #[derive(Params)]
    #[params(read_only)]
    struct Grads {
        layers: Vec<Array1<f32>>,
        table: Rows<f32>,
    }
    let mut model = Model { table: Array2::zeros((3, 1)), layers: vec![array![1.0]] };
    let grads = Grads { table: Rows::new(vec![1], array![[2.0]]), layers: vec![array![1.0]] };
    Sgd::new(0.5).step(&mut model, &grads).unwrap();
    assert_eq!((model.table, &model.layers[0]), (array![[0.0], [-1.0], [0.0]], &array![0.5]));
    let mut tables = vec![Array2::zeros((2, 1)); 2];
    let rows = vec![Some(Rows::new(vec![1], array![[2.0]])), None];
    Sgd::new(0.5).step(&mut tables, &rows).unwrap();
    assert_eq!(tables, [array![[0.0], [-1.0]], array![[0.0], [0.0]]]);
    Sgd::new(0.5).step(&mut tables[1], &&rows[0]).unwrap();
    assert_eq!(tables[1], array![[0.0], [-1.0]]);
}

#[cfg(feature = "distributed")]
mod ranks {
    use gradus::distributed::compress::TopK;
    use gradus::distributed::{Alone, RankGroup, ThreadGroup};
    use gradus::error::RankError;

    use super::*;

    fn part(rank: usize, step: usize) -> (Rows<f64>, Array1<f64>) {
        gradients(2 * step + rank).0
    }

    /// One rank with the gradients of both takes the same steps, and keeps the same state.
    #[test]
    fn data_parallel_is_one_process_with_the_union() {
        let make = || Adam::<f64>::new(0.01).clip_global_norm(0.1);
        let ends = ThreadGroup::run(2, |group| {
            let mut params = start();
            let rank = group.rank();
            let mut opt = make().data_parallel(group).bucket_bytes(100).verify_every(2);
            for step in 0..4 {
                opt.step(&mut params, &part(rank, step)).unwrap();
            }
            let sent = opt.traffic().last_step;
            (params, opt.state_dict(), sent)
        });
        let (mut opt, mut params) = (make(), start());
        for step in 0..4 {
            let [(mut rows, bias), (other, more)] = [part(0, step), part(1, step)];
            rows.rows.extend(other.rows);
            rows.values.append(Axis(0), other.values.view()).unwrap();
            rows.values /= 2.0;
            opt.step(&mut params, &(rows, (bias + more) / 2.0)).unwrap();
        }
        assert!(ends[0].0 == ends[1].0 && ends[0].1 == ends[1].1);
        near(&ends[0].0, &params, "two ranks");
        assert!(ends[0].2 < 8 * (SHAPE.0 * SHAPE.1) as u64, "only rows are sent");
        let single = ThreadGroup::run(1, |group| {
            let (mut params, mut opt) = (start(), Sgd::<f64>::new(0.1).data_parallel(group));
            opt.step(&mut params, &part(0, 0)).unwrap();
            params
        });
        let mut expected = start();
        Sgd::new(0.1).step(&mut expected, &part(0, 0)).unwrap();
        assert_eq!(single[0], expected);
    }

    #[test]
    fn ranks_that_differ() {
        let results = ThreadGroup::run(2, |group| {
            let rank = group.rank();
            let (mut opt, mut params) = (Sgd::<f64>::new(0.1).data_parallel(group), start());
            let (rows, full) = gradients(1);
            if rank == 0 { opt.step(&mut params, &rows) } else { opt.step(&mut params, &full) }
        });
        for result in results {
            assert!(matches!(result, Err(Error::Ranks(RankError::RanksDisagree { .. }))), "{result:?}");
        }
        // A row of one rank that is not finite, by its number in the table.
        let results = ThreadGroup::run(2, |group| {
            let value = if group.rank() == 1 { f64::NAN } else { 1.0 };
            let (mut opt, mut params) = (Sgd::<f64>::new(0.1).data_parallel(group), start());
            opt.step(&mut params, &(Rows::new(vec![9, 4], array![[1.0; 30], [value; 30]]), Array1::zeros(7)))
        });
        let Err(Error::Step(StepError::NonFiniteGradient { path, index, .. })) = &results[1] else {
            panic!("{results:?}");
        };
        assert_eq!((&path[..], &index[..]), ("0", &[4, 0][..]));
        // A sum that is too large.
        let results = ThreadGroup::run(2, |group| {
            let (mut opt, mut params) = (Sgd::<f64>::new(0.1).data_parallel(&group), start());
            let row = 20 + group.rank();
            let values = array![[1.0; 30], [f64::MAX; 30]];
            opt.step(&mut params, &(Rows::new(vec![row, 30], values), Array1::zeros(7)))
        });
        for result in results {
            let Err(Error::Step(StepError::NonFiniteGradient { index, .. })) = result else { panic!("{result:?}") };
            assert_eq!(index, [30, 0]);
        }
    }

    #[test]
    fn what_cannot_says_so() {
        let name = |error: Error| match error {
            Error::Step(StepError::RowsUnusable { name, path, .. }) if path == "0" => name,
            other => panic!("{other}"),
        };
        let mut params = start();
        let rows = gradients(1).0;
        assert_eq!(name(Sgd::new(0.1).sharded(Alone).step(&mut params, &rows).unwrap_err()), "sharded");
        let mut opt = Sgd::new(0.1).data_parallel(Alone).compress(TopK::new(0.5));
        assert_eq!(name(opt.step(&mut params, &rows).unwrap_err()), "compress");
        let refused = ThreadGroup::run(2, |group| {
            let mut params = (start().0, Array1::zeros(7));
            let mut opt = Sgd::new(0.1).route("0", Muon::new(0.1)).data_parallel(group);
            let result = opt.step(&mut params, &gradients(1).0).unwrap_err();
            assert_eq!(params.0, start().0);
            result
        });
        assert_eq!(refused.into_iter().map(name).collect::<Vec<_>>(), ["muon"; 2]);
        assert_eq!(params, start());
    }

    #[test]
    fn local_steps() {
        let ends = ThreadGroup::run(2, |group| {
            let rank = group.rank();
            let [sparse, dense] = [true, false].map(|sparse| {
                let mut opt = Sgd::<f64>::new(0.1).local_steps(2, Momentum::new(0.7, 0.5)).across(&group).ema(0.5);
                let mut params = start();
                for step in 0..4 {
                    let (rows, full) = gradients(2 * step + rank);
                    if sparse { opt.step(&mut params, &rows) } else { opt.step(&mut params, &full) }.unwrap();
                }
                let mut average = start();
                opt.read(&mut average).unwrap();
                (params, average)
            });
            (sparse, dense)
        });
        for (sparse, dense) in ends {
            near(&sparse.0, &dense.0, "local steps");
            near(&sparse.1, &dense.1, "averages");
        }
    }
}
