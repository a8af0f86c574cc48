use ndarray::{Array1, Array2, ArrayD, Axis, ShapeBuilder, array};

use super::*;
use crate::prelude::*;
use crate::set::Interval;

/// Sums of thousands of squares: rounding adds up, here and where they are added one after the other.
const NEAR_F64: f64 = 1e-13;
/// Squares are added in the element type in short runs: an error of a few ulp of it.
const NEAR_F32: f64 = 3e-7;

fn near(found: f64, expected: f64, tolerance: f64) -> bool {
    (found - expected).abs() <= tolerance * expected.abs()
}

fn norm_of<'a, A: Element>(values: impl IntoIterator<Item = &'a A>) -> f64 {
    values.into_iter().map(|x| x.as_f64() * x.as_f64()).sum::<f64>().sqrt()
}

fn wave(elements: usize, phase: f64) -> Array1<f64> {
    Array1::from_shape_fn(elements, |i| (i as f64 * 0.73 + phase).sin())
}

type Tree = Vec<ArrayD<f64>>;

fn tree(phase: f64) -> Tree {
    let matrix = |rows, columns| wave(rows * columns, phase).into_shape_with_order((rows, columns)).unwrap();
    vec![matrix(3, 4).into_dyn(), wave(5000, phase + 1.0).into_dyn(), matrix(70, 90).into_dyn()]
}

/// Takes a few steps with a chain, and compares what it says of each with the trees.
fn agrees(name: &str, mut opt: Box<dyn Optimizer<f64>>) {
    let mut params = tree(0.0);
    for number in 0..4 {
        let (before, grads) = (params.clone(), tree(2.0 + f64::from(number)));
        let report = opt.step(&mut params, &grads).unwrap();
        let tensors = report.tensors().unwrap_or_else(|| panic!("{name}"));
        assert_eq!(tensors.len(), params.len(), "{name}");
        for (at, tensor) in tensors.iter().enumerate() {
            let expected = [norm_of(&grads[at]), norm_of(&before[at]), norm_of(&(&params[at] - &before[at]))];
            let found = [tensor.grad_norm, tensor.param_norm, tensor.update_norm];
            let close = found.into_iter().zip(expected).all(|(found, expected)| near(found, expected, NEAR_F64));
            assert!(close, "{name}, step {number}, {}: {found:?} {expected:?}", tensor.path);
            assert_eq!(tensor.ratio(), tensor.update_norm / tensor.param_norm);
            assert!(expected[2] > 0.0 && tensor.used_grad_norm.is_some_and(f64::is_finite), "{name}");
        }
    }
}

#[test]
fn norms_are_those_of_the_trees() {
    let sgd = || Sgd::new(0.1);
    let every = || Monitor::every(1);
    let chains: Vec<(&str, Box<dyn Optimizer<f64>>)> = vec![
        ("sgd", sgd().monitor(every()).boxed()),
        ("adamw", AdamW::new(0.1).monitor(every()).boxed()),
        ("clips", sgd().clip_global_norm(1.0).clip_value(0.5).clip_per_tensor_norm(0.1).monitor(every()).boxed()),
        ("units", sgd().clip_adaptive(0.01).centralize().monitor(every()).boxed()),
        ("noise", sgd().add_noise(0.1, 7).maximize().monitor(every()).boxed()),
        ("averages", sgd().ema(0.9).swa(0, 1).monitor(every()).boxed()),
        ("inside", sgd().monitor(every()).ema(0.9).boxed()),
        ("lookahead", sgd().lookahead(2, 0.5).monitor(every()).boxed()),
        ("bounds", sgd().project("**", Interval::new(-0.2, 0.7)).monitor(every()).boxed()),
        ("outside bounds", sgd().monitor(every()).project("**", Interval::new(-0.2, 0.7)).boxed()),
        ("router", sgd().route("1", Adam::new(0.1)).monitor(every()).boxed()),
        ("lbfgs", Lbfgs::new(0.01).monitor(every()).boxed()),
        ("adafactor", Adafactor::new(0.1).monitor(every()).boxed()),
        ("schedule-free", AdamWScheduleFree::new(0.1).monitor(every()).boxed()),
        ("lamb", Lamb::new(0.1).weight_decay(0.1).monitor(every()).boxed()),
        ("prodigy", Prodigy::new(1.0).monitor(every()).boxed()),
        ("accumulate", sgd().accumulate(1).monitor(every()).boxed()),
        ("layers", sgd().layerwise_decay(0.5, ["0", "1", "2"]).monitor(every()).boxed()),
    ];
    chains.into_iter().for_each(|(name, opt)| agrees(name, opt));
    let muon = Muon::new(0.1).route("1", sgd());
    agrees("muon", muon.monitor(every()).boxed());
}

/// Two monitors see the same step, and a limit from outside.
#[test]
fn a_monitor_between_others() {
    let mut opt = Sgd::new(1.0).monitor(Monitor::every(1)).monitor(Monitor::every(1)).clip_value(1.0);
    let mut w = array![3.0, 4.0];
    let report = opt.step(&mut w, &array![2.0, 0.0]).unwrap();
    let [inner, outer] = [opt.inner().inner().latest(), opt.inner().latest()].map(|latest| latest.unwrap().clone());
    assert_eq!(inner, outer);
    assert_eq!(report.tensors(), Some(&outer.tensors[..]));
    // It sees the limited gradient.
    assert_eq!((outer.tensors[0].grad_norm, outer.tensors[0].clipped), (1.0, true));
}

#[test]
fn a_step_by_hand() {
    let opt = Sgd::new(0.5).group("b", Group::new().scale_learning_rate(0.1)).clip_global_norm(5.0).exact(true);
    let mut opt = opt.freeze("c").monitor(Monitor::every(1));
    let tree = |a, b, c| std::collections::BTreeMap::from([("a", array![a, 0.0]), ("b", array![b]), ("c", array![c])]);
    let mut w = tree(4.0, 2.0, 1.0);
    let report = opt.step_with_loss(&mut w, &tree(6.0, -8.0, 100.0), 0.25).unwrap();
    let tensor = |path: &str, grad_norm, used, param_norm, update_norm, rate| TensorReport {
        path: path.into(),
        grad_norm,
        used_grad_norm: Some(used),
        clipped: true,
        param_norm,
        update_norm,
        learning_rate: Some(rate),
    };
    let expected = [tensor("a", 6.0, 3.0, 4.0, 1.5, 0.5), tensor("b", 8.0, 4.0, 2.0, 0.2, 0.05)];
    let found = report.tensors().unwrap();
    assert_eq!(found[0], expected[0]);
    assert!(near(found[1].update_norm, 0.2, NEAR_F64));
    assert_eq!(TensorReport { update_norm: 0.2, ..found[1].clone() }, expected[1]);
    let latest = opt.latest().unwrap();
    assert_eq!((latest.step, latest.learning_rate, latest.loss), (0, 0.5, Some(0.25)));
}

#[test]
fn clipped_is_only_what_a_clip_has_changed() {
    let clipped = |opt: &mut dyn Optimizer<f64>| {
        let report = opt.step(&mut (array![1.0, 1.0], array![1.0]), &(array![3.0, 0.0], array![0.5])).unwrap();
        let tensors = report.tensors().unwrap().iter();
        tensors.map(|tensor| (tensor.clipped, tensor.used_grad_norm.unwrap())).collect::<Vec<_>>()
    };
    let every = || Monitor::every(1);
    assert_eq!(clipped(&mut Sgd::new(0.1).unscale(2.0).monitor(every())), [(false, 1.5), (false, 0.25)]);
    assert_eq!(clipped(&mut Sgd::new(0.1).clip_value(1.0).monitor(every())), [(true, 1.0), (false, 0.5)]);
    let each = || Sgd::new(0.1).clip_per_tensor_norm(1.0).exact(true);
    assert_eq!(clipped(&mut each().monitor(every())), [(true, 1.0), (false, 0.5)]);
    assert_eq!(clipped(&mut each().lookahead(1, 1.0).monitor(every())), [(true, 1.0), (false, 0.5)]);
    assert_eq!(clipped(&mut Sgd::new(0.1).clip_global_norm(9.0).monitor(every())), [(false, 3.0), (false, 0.5)]);
    assert!(clipped(&mut Sgd::new(0.1).clip_adaptive(1e-3).monitor(every())).iter().all(|(clipped, _)| *clipped));
    // A limit outside of a sum that has been given, and one inside of it.
    let sum = Sgd::new(0.1).accumulate(1).clip_value(1.0).monitor(every());
    assert_eq!(clipped(&mut { sum }), [(true, 1.0), (false, 0.5)]);
}

#[test]
fn only_every_so_many_steps_that_move() {
    let mut opt = Sgd::new(0.5).accumulate(2).skip_nonfinite().monitor(Monitor::every(2));
    let mut w = (array![1.0], array![1.0]);
    let mut take = |grad: f64| opt.step(&mut w, &(array![grad], None::<Array1<f64>>)).unwrap();
    assert!(take(2.0).tensors().is_none(), "gathered");
    assert!(take(f64::NAN).tensors().is_none(), "skipped");
    let report = take(4.0);
    let [tensor] = report.tensors().unwrap() else { panic!("the tensor without a gradient is not listed") };
    let numbers = (&*tensor.path, tensor.grad_norm, tensor.used_grad_norm, tensor.update_norm);
    assert_eq!(numbers, ("0", 4.0, Some(3.0), 1.5));
    assert!([1.0, 1.0, 1.0].map(|grad| take(grad).tensors().is_none()).iter().all(|none| *none), "between");
    assert!(take(1.0).tensors().is_some(), "the third step");
    // What is still gathered, without a gradient.
    take(1.0);
    take(1.0);
    take(1.0);
    let report = opt.flush(&mut w).unwrap();
    assert_eq!(
        report.tensors().map(|tensors| (tensors[0].grad_norm, tensors[0].used_grad_norm)),
        Some((0.0, Some(1.0)))
    );
    assert_eq!(opt.latest().map(|record| record.step), Some(4));
}

#[test]
fn every_length_and_layout() {
    for length in [0, 1, 15, 31, 32, 33, 2047, 2048, 2049, 10_000, 200_003] {
        let (grads, before) = (wave(length, 1.0), wave(length, 0.0));
        let mut opts = [Sgd::new(0.1).monitor(Monitor::every(1)).boxed(), {
            Sgd::new(0.1).lookahead(7, 0.5).monitor(Monitor::every(1)).boxed()
        }];
        for opt in &mut opts {
            let mut w = before.clone();
            let report = opt.step(&mut w, &grads).unwrap();
            let tensor = report.tensors().unwrap().first().cloned();
            if length == 0 {
                continue;
            }
            let tensor = tensor.unwrap();
            let (update, used) = (norm_of(&(&w - &before)), tensor.used_grad_norm.unwrap());
            assert!(near(tensor.update_norm, update, NEAR_F64), "{length}");
            assert!(near(tensor.param_norm, norm_of(&before), NEAR_F64) && near(used, norm_of(&grads), NEAR_F64));
        }
    }
    let narrow = |wide: &Array1<f64>| wide.mapv(|x| x as f32);
    let (mut w, grads) = (narrow(&wave(70_001, 0.0)), narrow(&wave(70_001, 1.0)));
    let before = w.clone();
    let report = AdamW::new(0.1).monitor(Monitor::every(1)).step(&mut w, &grads).unwrap();
    let tensor = &report.tensors().unwrap()[0];
    let update: f64 = w.iter().zip(&before).map(|(w, b)| (f64::from(*w) - f64::from(*b)).powi(2)).sum();
    assert!(near(tensor.update_norm, update.sqrt(), NEAR_F32) && near(tensor.grad_norm, norm_of(&grads), NEAR_F32));
    assert!(near(tensor.param_norm, norm_of(&before), NEAR_F32));
    // Columns, gaps, and a gradient in the other order.
    let start = Array2::from_shape_fn((90, 61), |(i, j)| ((i * 61 + j) as f64).cos());
    let grads = start.mapv(|x| 0.5 - x);
    let mut columns = Array2::zeros((90, 61).f());
    columns.assign(&start);
    let mut wide = Array2::zeros((90, 122));
    let mut gaps = wide.slice_axis_mut(Axis(1), ndarray::Slice::new(0, None, 2));
    gaps.assign(&start);
    let step = |w: &mut dyn ParamsMut<Elem = f64>, grads: &dyn Params<Elem = f64>| {
        let report = Sgd::new(0.1).monitor(Monitor::every(1)).step(w, grads).unwrap();
        report.tensors().unwrap()[0].clone()
    };
    let rows = step(&mut start.clone(), &grads);
    let turned = grads.t().to_owned();
    for other in [step(&mut columns, &grads), step(&mut gaps, &grads), step(&mut start.clone(), &turned.t())] {
        let [own, other] = [&rows, &other].map(|tensor| [tensor.param_norm, tensor.update_norm, tensor.grad_norm]);
        assert!(own.into_iter().zip(other).all(|(own, other)| near(other, own, NEAR_F64)));
    }
}

#[cfg(feature = "rayon")]
#[test]
fn the_number_of_threads_does_not_change_the_bits() {
    let reports = [1, 2, 4].map(|threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let (mut w, grads) = ((wave(300_001, 0.0), wave(77, 0.5)), (wave(300_001, 1.0), wave(77, 0.25)));
        let mut opt = Adam::new(0.1).monitor(Monitor::every(1));
        pool.install(|| opt.step(&mut w, &grads).unwrap())
    });
    assert!(reports.iter().all(|report| *report == reports[0]));
}

#[test]
fn squares_beyond_the_range_of_the_type_do_not_matter() {
    fn found<A: Scalar>(param: f64, grad: f64) -> [f64; 3] {
        let (param, grad) = (A::from_f64(param), A::from_f64(grad));
        let mut w = Array1::from_elem(5000, param);
        w[7] = A::zero();
        let report = Sgd::new(1.0).monitor(Monitor::every(1)).step(&mut w, &Array1::from_elem(5000, grad)).unwrap();
        let tensor = &report.tensors().unwrap()[0];
        [tensor.param_norm / param.as_f64(), tensor.update_norm / grad.as_f64(), tensor.grad_norm / grad.as_f64()]
    }
    for size in [1e-300, 1e-200, 1e-5, 1e200] {
        let [param, update, grad] = found::<f64>(size, size);
        assert!(near(param, 4999_f64.sqrt(), NEAR_F64) && near(update, 5000_f64.sqrt(), NEAR_F64), "{size}");
        assert!(near(grad, 5000_f64.sqrt(), NEAR_F64));
    }
    for size in [1e-36, 1e-20, 1e30] {
        let [param, update, grad] = found::<f32>(size, size);
        assert!(near(param, 4999_f64.sqrt(), NEAR_F32) && near(update, 5000_f64.sqrt(), NEAR_F32), "{size}");
        assert!(near(grad, 5000_f64.sqrt(), NEAR_F32));
    }
}

#[test]
fn rows_of_a_table() {
    let mut table = Array2::from_elem((4, 2), 1.0);
    let grads = Rows::new(vec![2, 0], array![[3.0, 4.0], [0.0, 0.0]]);
    let report = Sgd::new(1.0).clip_value(3.5).monitor(Monitor::every(1)).step(&mut table, &grads).unwrap();
    let tensor = &report.tensors().unwrap()[0];
    let found = [tensor.grad_norm, tensor.used_grad_norm.unwrap(), tensor.param_norm, tensor.update_norm];
    let expected = [5.0, (9.0_f64 + 12.25).sqrt(), 8.0_f64.sqrt(), (9.0_f64 + 12.25).sqrt()];
    assert!(found.into_iter().zip(expected).all(|(found, expected)| near(found, expected, NEAR_F64)) && tensor.clipped);
}

/// Nothing is saved of a monitor: what was saved with one is loaded without one, and the other way round.
#[test]
fn a_resumed_run_is_measured_at_the_same_steps() {
    let (mut opt, mut w) = (Sgd::new(0.1).monitor(Monitor::every(3)).boxed(), array![1.0]);
    for _ in 0..2 {
        opt.step(&mut w, &array![1.0]).unwrap();
    }
    assert_eq!(opt.find::<Monitor<f64>>().and_then(Monitor::latest).map(|record| record.step), Some(0));
    let mut resumed = Sgd::new(0.1).monitor(Monitor::every(3));
    resumed.load_state_dict(&opt.state_dict()).unwrap();
    let mut measured = |opt: &mut dyn Optimizer<f64>| opt.step(&mut w, &array![1.0]).unwrap().tensors().is_some();
    assert_eq!([(); 3].map(|()| measured(&mut resumed)), [false, true, false]);
    // Back to a step before.
    resumed.load_state_dict(&opt.state_dict()).unwrap();
    assert_eq!([(); 2].map(|()| measured(&mut resumed)), [false, true]);
    Sgd::<f64>::new(0.1).load_state_dict(&opt.state_dict()).unwrap();
    let error = Sgd::new(0.1).monitor(Monitor::every(0)).step(&mut array![1.0], &array![1.0]).unwrap_err();
    assert_eq!(error.to_string(), "every is 0; it must be at least 1");
}

#[test]
fn an_error_is_not_measured() {
    let (mut opt, mut w) = (Sgd::new(0.1).check_finite().monitor(Monitor::every(1)), array![1.0]);
    assert!(opt.step(&mut w, &array![f64::NAN]).is_err());
    assert!(opt.latest().is_none() && opt.layout().is_none());
    assert!(opt.step(&mut w, &array![1.0]).unwrap().tensors().is_some());
    // Other parameters after a copy of the first ones that was for nothing.
    let (mut opt, mut w) = (Sgd::new(0.1).lookahead(2, 0.5).check_finite().monitor(Monitor::every(1)), array![1.0]);
    assert!(opt.step(&mut w, &array![f64::NAN]).is_err());
    let report = opt.step(&mut array![[1.0, 2.0]], &array![[1.0, 1.0]]).unwrap();
    assert!(near(report.tensors().unwrap()[0].param_norm, 5.0_f64.sqrt(), NEAR_F64));
}

#[cfg(feature = "half")]
#[test]
fn parameters_of_16_bits() {
    use half::{bf16, f16};
    let halves = |values: &Array1<f64>| values.mapv(f16::from_f64);
    let (start, grads) = (halves(&wave(3000, 0.0)), halves(&wave(3000, 1.0)));
    fn every<A>() -> Monitor<A> {
        Monitor::every(1)
    }
    let master = AdamW::new(0.1).clip_global_norm(1.0).master_weights().monitor(every());
    let chains: [Box<dyn Optimizer<f16>>; 2] = [master.boxed(), Sgd::new(0.1).kahan().monitor(every()).boxed()];
    for (mut opt, clipped) in chains.into_iter().zip([true, false]) {
        let mut w = start.clone();
        let report = opt.step(&mut w, &grads).unwrap();
        let tensor = &report.tensors().unwrap()[0];
        let update: f64 = w.iter().zip(&start).map(|(w, b)| (w.to_f64() - b.to_f64()).powi(2)).sum();
        assert!(near(tensor.update_norm, update.sqrt(), NEAR_F64) && near(tensor.grad_norm, norm_of(&grads), NEAR_F64));
        assert_eq!((tensor.clipped, tensor.learning_rate), (clipped, Some(0.1)));
    }
    let mut w = array![bf16::from_f64(3.0), bf16::from_f64(4.0)];
    let mut inside = Sgd::new(1.0).monitor(every::<f32>()).kahan();
    inside.step(&mut w, &array![bf16::ONE, bf16::ZERO]).unwrap();
    let latest = inside.find::<Monitor<f32>>().and_then(Monitor::latest).unwrap();
    assert_eq!((latest.tensors[0].param_norm, latest.tensors[0].update_norm), (5.0, 1.0));
}

/// Every rank measures its own gradient and the whole parameters; inside `sharded`, its share.
#[cfg(feature = "distributed")]
#[test]
fn ranks() {
    use crate::distributed::{RankGroup, ThreadGroup};
    let all = ThreadGroup::run(2, |group| {
        let grads = array![2.0 * (1.0 + group.rank() as f64), 0.0, 0.0, 0.0];
        let start = array![2.0, 2.0, 2.0, 2.0];
        let mut parallel = Sgd::new(1.0).data_parallel(&group).monitor(Monitor::every(1));
        let first = parallel.step(&mut start.clone(), &grads).unwrap();
        let mut sharded = Sgd::new(1.0).monitor(Monitor::every(1)).sharded(&group).monitor(Monitor::every(1));
        let second = sharded.step(&mut start.clone(), &grads).unwrap();
        let inside = sharded.inner().inner().latest().unwrap().tensors.to_vec();
        (first.tensors().unwrap().to_vec(), second.tensors().unwrap().to_vec(), inside)
    });
    for (rank, (parallel, sharded, inside)) in all.iter().enumerate() {
        let numbers = |tensor: &TensorReport| (tensor.grad_norm, tensor.param_norm, tensor.update_norm);
        let own = (2.0 * (1.0 + rank as f64), 4.0, 3.0);
        assert_eq!((numbers(&parallel[0]), parallel[0].used_grad_norm), (own, Some(3.0)));
        assert_eq!((numbers(&sharded[0]), sharded[0].used_grad_norm, sharded[0].learning_rate), (own, None, Some(1.0)));
        assert!(inside[0].used_grad_norm.is_none());
    }
    // The shares make up the whole.
    let squares =
        |number: fn(&TensorReport) -> f64| all.iter().map(|(.., share)| number(&share[0]).powi(2)).sum::<f64>();
    let whole =
        [squares(|share| share.grad_norm), squares(|share| share.param_norm), squares(|share| share.update_norm)];
    assert_eq!(whole, [9.0, 16.0, 9.0]);
}

#[test]
fn debug_is_the_call() {
    let opt = Sgd::<f64>::new(0.1).monitor(Monitor::every(5).csv("a.csv").tensorboard("runs"));
    assert_eq!(format!("{opt:?}"), "Sgd(learning_rate: 0.1).monitor(every 5, a.csv, runs)");
    assert_eq!(format!("{:?}", opt.clone()), format!("{opt:?}"));
}

fn record() -> Record {
    let tensor = TensorReport {
        path: "a,\"b\"\n.weight".into(),
        grad_norm: 1.5,
        used_grad_norm: None,
        clipped: true,
        param_norm: 0.0,
        update_norm: 1e-9,
        learning_rate: Some(0.125),
    };
    let root = TensorReport { path: String::new(), used_grad_norm: Some(0.5), param_norm: 2.0, ..tensor.clone() };
    Record { step: 300, learning_rate: 0.25, loss: Some(0.75), tensors: [tensor, root].into() }
}

#[test]
fn lines_of_text() {
    let (mut csv, mut json) = (Vec::new(), Vec::new());
    lines::csv(&record(), &mut csv);
    lines::json(&record(), &mut json);
    let expected =
        "300,\"a,\"\"b\"\"\n.weight\",1.5,,true,0.0,1e-9,inf,0.125\n300,,1.5,0.5,true,2.0,1e-9,5e-10,0.125\n";
    assert_eq!(String::from_utf8(csv).unwrap(), expected);
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!((&json["step"], &json["loss"]), (&300.into(), &0.75.into()));
    let [first, second] = [&json["tensors"][0], &json["tensors"][1]];
    assert_eq!((&first["tensor"], &first["clipped"]), (&"a,\"b\"\n.weight".into(), &true.into()));
    assert!(first["ratio"].is_null() && first["used_grad_norm"].is_null());
    assert_eq!((&second["ratio"], &second["used_grad_norm"]), (&5e-10.into(), &0.5.into()));
}

fn step(opt: &mut dyn Optimizer<f64>) -> Result<Report> {
    opt.step(&mut array![3.0, 4.0], &array![1.0, 0.0])
}

#[test]
fn files_are_continued() {
    let folder = tempfile::tempdir().unwrap();
    let [csv, json, events] = ["a/m.csv", "b/m.jsonl", "runs"].map(|name| folder.path().join(name));
    let new = || Sgd::new(0.5).monitor(Monitor::every(1).csv(&csv).json_lines(&json).tensorboard(&events));
    let mut opt = new();
    step(&mut opt).unwrap();
    let mut resumed = new();
    resumed.load_state_dict(&opt.state_dict()).unwrap();
    step(&mut resumed).unwrap();
    let text = |path| std::fs::read_to_string(path).unwrap();
    let expected = [lines::HEADER, "0,,1.0,1.0,false,5.0,0.5,0.1,0.5\n", "1,,1.0,1.0,false,5.0,0.5,0.1,0.5\n"].concat();
    assert_eq!(text(&csv), expected);
    assert_eq!(text(&json).lines().count(), 2);
    assert_eq!(std::fs::read_dir(&events).unwrap().count(), 2);
}

/// The step that has moved keeps its report; the next one returns the error and changes nothing, until the file can be written.
#[test]
fn an_error_of_a_file_loses_no_step_and_no_record() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("is_a_folder");
    std::fs::create_dir(&path).unwrap();
    let mut opt = Sgd::new(0.5).monitor(Monitor::every(1).csv(&path));
    let mut w = array![3.0];
    let error = opt.step(&mut w, &array![1.0]).unwrap_err();
    assert!(error.to_string().contains("is_a_folder"), "{error}");
    assert_eq!((w[0], opt.steps()), (3.0, 0));
    std::fs::remove_dir(&path).unwrap();
    assert!(opt.step(&mut w, &array![1.0]).unwrap().moved);
    // A file that is taken away from under it, after it has been opened.
    let mut sinks = opt.sinks.lock().unwrap();
    sinks[0].break_file();
    drop(sinks);
    assert!(opt.step(&mut w, &array![1.0]).unwrap().moved && opt.finish().is_err());
    assert!(opt.step(&mut w, &array![1.0]).is_err());
    assert_eq!((w[0], opt.steps()), (2.0, 2));
    opt.sinks.lock().unwrap()[0].mend_file();
    assert!(opt.step(&mut w, &array![1.0]).unwrap().moved);
    let text = std::fs::read_to_string(&path).unwrap();
    let steps: Vec<_> = text.lines().map(|line| line.split(',').next().unwrap()).collect();
    assert_eq!(steps, ["step", "0", "1", "2"]);
}

/// The golden file is what the script beside it has written with TensorBoard's own writer, and has read back from the bytes of this crate.
#[test]
fn event_files_are_those_of_tensorboard() {
    let mut bytes = Vec::new();
    events::version(1.5, &mut bytes);
    let mut record = record();
    record.tensors = record.tensors[1..].into();
    events::record(&record, 2.5, &mut bytes);
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/events.tfevents");
    assert_eq!(bytes, std::fs::read(path).unwrap());
}

#[test]
fn views_of_another_axis() {
    let mut both = Array2::from_elem((2, 3), 2.0);
    let mut w = both.index_axis_mut(Axis(0), 1);
    let report = Sgd::new(1.0).monitor(Monitor::every(1)).step(&mut w, &array![0.0, 3.0, 4.0]).unwrap();
    let tensor = &report.tensors().unwrap()[0];
    assert_eq!((tensor.update_norm, tensor.param_norm), (5.0, 12.0_f64.sqrt()));
}
