//! The state of PyTorch's optimizers, carried over and back: `torch_state.py` wrote the files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use gradus::checkpoint::{Checkpoint, torch};
use gradus::prelude::*;
use ndarray::{ArrayD, IxDyn};

type Model = BTreeMap<&'static str, ArrayD<f64>>;

/// Both compute the same formulas, in another order here and there.
const TOLERANCE: f64 = 1e-13;

const SHAPES: [(&str, &[usize]); 4] =
    [("hidden.weight", &[4, 3]), ("hidden.bias", &[4]), ("output.weight", &[2, 4]), ("output.bias", &[2])];

/// The numbers of `torch_state.py`, a tree of which the phases count up.
fn tree(phase: usize) -> Model {
    let tensor = |shape: &[usize], phase: usize| {
        let numbers = (0..shape.iter().product()).map(|i: usize| ((17 * i + 5 * phase) % 23) as f64 / 16.0 - 0.6875);
        ArrayD::from_shape_vec(IxDyn(shape), numbers.collect()).unwrap()
    };
    SHAPES.iter().enumerate().map(|(at, (name, shape))| (*name, tensor(shape, phase + at))).collect()
}

fn step(opt: &mut dyn Optimizer<f64>, model: &mut Model, number: usize) {
    opt.step(model, &tree(7 * number + 100)).unwrap();
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/checkpoint/torch")
}

fn params(name: &str, when: &str) -> Model {
    let mut model = tree(0);
    Checkpoint::open(folder().join(format!("{name}.{when}.safetensors"))).unwrap().load_params(&mut model).unwrap();
    model
}

fn distance(a: &Model, b: &Model) -> f64 {
    a.values().flatten().zip(b.values().flatten()).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

fn optimizers() -> [(&'static str, Box<dyn Optimizer<f64>>); 12] {
    [
        ("adam", Box::new(Adam::new(0.1).amsgrad(true))),
        ("adamw", Box::new(AdamW::new(0.1))),
        ("momentum", Box::new(Momentum::new(0.1, 0.9).dampening(0.5))),
        ("nesterov", Box::new(Nesterov::new(0.1, 0.9))),
        ("rmsprop", Box::new(RmsProp::new(0.01).momentum(0.9).centered(true))),
        ("nadam", Box::new(NAdam::new(0.1))),
        ("adamax", Box::new(Adamax::new(0.1))),
        ("adagrad", Box::new(Adagrad::new(0.1).initial_accumulator_value(0.1))),
        ("adadelta", Box::new(Adadelta::new(1.0))),
        ("rprop", Box::new(Rprop::new(0.01))),
        ("asgd", Box::new(Asgd::new(0.1).lambda(0.1))),
        ("adafactor", Box::new(Adafactor::new(0.1))),
    ]
}

#[test]
fn a_run_begun_in_pytorch_goes_on_here() {
    for (name, mut opt) in optimizers() {
        let file = Checkpoint::open(folder().join(format!("{name}.safetensors"))).unwrap();
        let mut model = params(name, "params");
        opt.load_state_dict(&torch::import(&file, name, &model, 3).unwrap()).unwrap();
        assert_eq!(opt.steps(), 3, "{name}");
        (3..6).for_each(|number| step(&mut opt, &mut model, number));
        let worst = distance(&model, &params(name, "after"));
        assert!(worst < TOLERANCE, "{name}: {worst:e}");
    }
}

/// Our state after three steps is PyTorch's; with `GRADUS_TORCH_FOLDER` it is also written there for `torch_state.py --load`.
#[test]
fn a_run_begun_here_goes_on_in_pytorch() {
    for (name, mut opt) in optimizers() {
        let mut model = tree(0);
        (0..3).for_each(|number| step(&mut opt, &mut model, number));
        assert!(distance(&model, &params(name, "params")) < TOLERANCE, "{name}");
        let ours = torch::export(&opt.state_dict(), name).unwrap();
        let theirs = Checkpoint::open(folder().join(format!("{name}.safetensors"))).unwrap();
        let [ours_read, theirs_read] = [&ours, &theirs].map(|file| torch::import(file, name, &model, 3).unwrap());
        assert!(ours_read.keys().eq(theirs_read.keys()), "{name}");
        for key in theirs_read.keys() {
            let pair = (ours_read.tensor::<f64>(key), theirs_read.tensor::<f64>(key));
            if let (Some(ours), Some(theirs)) = pair {
                assert!(ours.iter().zip(&theirs).all(|(a, b)| (a - b).abs() < TOLERANCE), "{name}: {key}");
            }
        }
        if let Ok(folder) = std::env::var("GRADUS_TORCH_FOLDER") {
            ours.save(Path::new(&folder).join(format!("{name}.safetensors"))).unwrap();
            let params = Checkpoint::of_params(&model).unwrap();
            params.save(Path::new(&folder).join(format!("{name}.params.safetensors"))).unwrap();
        }
    }
}

#[test]
fn what_is_no_state_of_pytorch_is_refused() {
    let model = tree(0);
    let file =
        |key: &str, values: ArrayD<f64>| Checkpoint::of_params(&BTreeMap::from([(key.to_owned(), values)])).unwrap();
    let one = |value: f64| ArrayD::from_elem(IxDyn(&[]), value);
    let said = |file: &Checkpoint| torch::import(file, "adam", &model, 0).unwrap_err().to_string();
    assert_eq!(said(&file("w", one(1.0))), "unexpected entry \"w\": the optimizer it is loaded into does not have it");
    assert_eq!(said(&file("step/hidden.bias", one(0.5))), "entry \"step/hidden.bias\" is \"0.5\"; it must be a count");
    assert_eq!(said(&file("step/hidden.bias", one(-1.0))), "entry \"step/hidden.bias\" is \"-1\"; it must be a count");
    let error = torch::export(&Sgd::<f64>::new(0.1).state_dict(), "adam").unwrap_err();
    assert_eq!(error.to_string(), "expected the state of adam, found that of sgd");
    let mut narrow = Momentum::new(0.1, 0.9).state_precision(gradus::rule::StatePrecision::Blockwise8);
    narrow.step(&mut ArrayD::<f32>::zeros(vec![5000]), &ArrayD::ones(vec![5000])).unwrap();
    let error = torch::export(&narrow.state_dict(), "momentum").unwrap_err();
    assert_eq!(error.to_string(), "entry \"momentum/momentum_buffer/\" holds u8 where f32 is needed");
}
