//! Trajectories of PyTorch's optimizers, and of naive references for the named alternatives: `tests/golden/*.json`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeSet;

use approx::assert_relative_eq;
use gradus::Hyper;
use gradus::prelude::*;
use ndarray::Array1;
use serde_json::{Map, Value};

/// In f64, after up to 100 steps: both sides round differently in a few places a step.
const RELATIVE_F64: f64 = 1e-12;

/// A parameter that passes near zero has the rounding errors of those from which it came, which are up to 1.
const NEAR_ZERO: f64 = 1e-2;

/// In f32, ulp of the larger of 1 (where the parameters start) and the parameter: an element's step has a few operations
/// that PyTorch does in another order or precision, and the errors of many steps add up like a random walk.
const ULP_A_ROOT_STEP: f64 = 1.0;

/// The sizes that every option is tested at.
const SIZES: [u64; 7] = [0, 1, 7, 8, 9, 1000, 100_003];

/// The inputs: see `tests/golden/README.md`.
fn unit(k: u64) -> f64 {
    let mut z = k.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^= z >> 31;
    (z >> 40) as f64 / f64::from(1 << 23) - 1.0
}

fn grad(step: u64, element: u64) -> f64 {
    unit((step + 1) * 1_000_003 * 7 + element + (1 << 40))
}

/// One line of a golden file.
struct Case<'a> {
    file: &'a str,
    name: &'a str,
    options: &'a Map<String, Value>,
    maximize: bool,
    dtype: &'a str,
    size: u64,
    learning_rates: Vec<f64>,
    indices: Vec<u64>,
    steps: Vec<u64>,
    values: Vec<Vec<f64>>,
}

impl<'a> Case<'a> {
    fn read(file: &'a str, case: &'a Value) -> Self {
        let counts = |name: &str| case[name].as_array().unwrap().iter().map(|count| count.as_u64().unwrap()).collect();
        Self {
            file,
            name: case["name"].as_str().unwrap(),
            options: case["options"].as_object().unwrap(),
            maximize: case["maximize"].as_bool().unwrap(),
            dtype: case["dtype"].as_str().unwrap(),
            size: case["size"].as_u64().unwrap(),
            learning_rates: floats(&case["learning_rate"]),
            indices: counts("indices"),
            steps: counts("steps"),
            values: case["values"].as_array().unwrap().iter().map(floats).collect(),
        }
    }

    fn describe(&self) -> String {
        let Self { file, name, dtype, size, learning_rates, .. } = self;
        format!("{file} {name}, {dtype}, {size} elements, {} learning rates", learning_rates.len())
    }

    fn learning_rate(&self) -> Hyper {
        match &self.learning_rates[..] {
            [constant] => Hyper::from(*constant),
            changing => {
                let changing = changing.to_vec();
                Hyper::from(move |step: u64| changing[step as usize])
            }
        }
    }

    /// Takes the steps with gradus; the largest error relative to what is allowed.
    fn compare<A: Scalar>(&self, mut opt: Box<dyn Optimizer<A>>) -> f64 {
        let mut params: Array1<A> = (0..self.size).map(|i| A::from_f64(unit(i))).collect();
        let mut worst = 0.0_f64;
        let mut checked = 0;
        for step in 0..*self.steps.last().unwrap() {
            let sign = if self.maximize { -1.0 } else { 1.0 };
            let grads: Array1<A> = (0..self.size).map(|i| A::from_f64(sign * grad(step, i))).collect();
            opt.step(&mut params, &grads).unwrap();
            let Some(at) = self.steps.iter().position(|golden| *golden == step + 1) else { continue };
            for (index, expected) in self.indices.iter().zip(&self.values[at]) {
                let (ours, expected) = (params[*index as usize], A::from_f64(*expected));
                let error = error(ours, expected, step + 1);
                worst = worst.max(error);
                checked += 1;
            }
        }
        assert_eq!(checked, self.steps.len() * self.indices.len(), "{}", self.describe());
        worst
    }
}

fn floats(list: &Value) -> Vec<f64> {
    list.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

/// The difference, in units of what is allowed after so many steps.
fn error<A: Scalar>(ours: A, expected: A, steps: u64) -> f64 {
    let difference = (ours - expected).as_f64().abs();
    match A::DTYPE {
        "f64" => difference / (RELATIVE_F64 * expected.as_f64().abs().max(NEAR_ZERO)),
        _ => {
            let ulp = f64::from(f32::EPSILON) * expected.as_f64().abs().max(1.0);
            difference / (ULP_A_ROOT_STEP * (steps as f64).sqrt() * ulp)
        }
    }
}

/// The setters of one optimizer, by the names in the golden files. A name that is none of them fails the test.
macro_rules! set {
    ($opt:expr, $options:expr; numbers: $($number:ident)*; flags: $($flag:ident)*) => {{
        let mut opt = $opt;
        for (name, value) in $options {
            opt = match name.as_str() {
                $(stringify!($number) => opt.$number(value.as_f64().unwrap()),)*
                $(stringify!($flag) if value.as_bool() == Some(true) => opt.$flag(),)*
                _ => panic!("no option {name} = {value}"),
            };
        }
        Box::new(opt)
    }};
}

fn optimizer<A: Scalar>(file: &str, options: &Map<String, Value>, learning_rate: Hyper) -> Box<dyn Optimizer<A>> {
    let momentum = || {
        let mut options = options.clone();
        let momentum = options.remove("momentum").and_then(|momentum| momentum.as_f64()).unwrap();
        (momentum, options)
    };
    match file {
        "sgd" => set!(Sgd::new(learning_rate), options; numbers: weight_decay; flags:),
        "momentum" => {
            let (momentum, options) = momentum();
            let opt = Momentum::new(learning_rate, momentum);
            set!(opt, &options; numbers: dampening weight_decay; flags: classical)
        }
        "nesterov" => {
            let (momentum, options) = momentum();
            set!(Nesterov::new(learning_rate, momentum), &options; numbers: weight_decay; flags: classical)
        }
        "rmsprop" => set!(RmsProp::new(learning_rate), options;
            numbers: alpha eps momentum weight_decay; flags: centered eps_inside_sqrt classical),
        "adam" => set!(Adam::new(learning_rate), options;
            numbers: beta1 beta2 eps weight_decay; flags: amsgrad eps_hat no_bias_correction),
        "adamw" => set!(AdamW::new(learning_rate), options;
            numbers: beta1 beta2 eps weight_decay; flags: amsgrad eps_hat no_bias_correction),
        _ => panic!("no optimizer {file}"),
    }
}

/// What a file's cases come to.
#[derive(Debug, Default)]
struct Summary {
    cases: usize,
    /// The largest errors, in units of what is allowed.
    worst_f32: f64,
    worst_f64: f64,
}

/// Compares all cases of a file, and that the file is whole.
fn compare_all(file: &str, text: &str) -> Summary {
    let json: Value = serde_json::from_str(text).unwrap();
    assert_eq!(json["library"], "torch");
    assert!(json["version"].as_str().unwrap().starts_with("2."), "{}", json["version"]);
    let mut summary = Summary::default();
    let (mut sizes, mut changing) = (BTreeSet::new(), 0);
    for case in json["cases"].as_array().unwrap() {
        let case = Case::read(file, case);
        let worst = compare(&case, case.options);
        assert!(worst <= 1.0, "{}: {worst} times what is allowed", case.describe());
        let of_type = if case.dtype == "f64" { &mut summary.worst_f64 } else { &mut summary.worst_f32 };
        *of_type = of_type.max(worst);
        summary.cases += 1;
        sizes.insert(case.size);
        changing += usize::from(case.learning_rates.len() > 1);
    }
    assert_eq!(sizes, BTreeSet::from(SIZES));
    assert!(changing > 0, "no case of {file} changes the learning rate");
    println!("{file}: {summary:?}");
    summary
}

fn compare(case: &Case<'_>, options: &Map<String, Value>) -> f64 {
    match case.dtype {
        "f32" => case.compare(optimizer::<f32>(case.file, options, case.learning_rate())),
        "f64" => case.compare(optimizer::<f64>(case.file, options, case.learning_rate())),
        dtype => panic!("no element type {dtype}"),
    }
}

macro_rules! golden {
    ($($test:ident: $file:literal, $cases:literal cases, f32 within $f32:literal;)*) => {
        $(
            #[test]
            fn $test() {
                let summary = compare_all($file, include_str!(concat!("golden/", $file, ".json")));
                assert_eq!(summary.cases, $cases);
                assert!(summary.worst_f32 <= $f32, "{}", summary.worst_f32);
            }
        )*
    };
}

// Multiplications and additions alone, in PyTorch's order, agree in every bit.
golden! {
    sgd: "sgd", 28 cases, f32 within 0.0;
    momentum: "momentum", 63 cases, f32 within 0.0;
    nesterov: "nesterov", 33 cases, f32 within 0.0;
    rmsprop: "rmsprop", 103 cases, f32 within 1.0;
    adam: "adam", 103 cases, f32 within 0.1;
    adamw: "adamw", 43 cases, f32 within 0.1;
}

/// The comparison is not so loose that it would let another algorithm pass.
#[test]
fn a_slightly_different_optimizer_is_found_out() {
    let differs = |file: &str, text: &str, name: &str, changing: bool, option: (&str, Value)| {
        let json: Value = serde_json::from_str(text).unwrap();
        let cases = json["cases"].as_array().unwrap().iter().map(|case| Case::read(file, case));
        let is_meant =
            |case: &Case<'_>| case.name == name && case.size == 1000 && (case.learning_rates.len() > 1) == changing;
        let cases: Vec<_> = cases.filter(is_meant).collect();
        assert!(!cases.is_empty());
        for case in cases {
            let mut options = case.options.clone();
            options.insert(option.0.into(), option.1.clone());
            let worst = compare(&case, &options);
            assert!(worst > 1.0, "{} with {option:?}: only {worst} times what is allowed", case.describe());
        }
    };
    let adam = include_str!("golden/adam.json");
    differs("adam", adam, "plain", false, ("beta2", 0.998.into()));
    differs("adam", adam, "plain", false, ("eps", 1e-4.into()));
    differs("adam", adam, "eps", false, ("eps_hat", true.into()));
    differs("adam", adam, "amsgrad", true, ("weight_decay", 1e-4.into()));
    differs("rmsprop", include_str!("golden/rmsprop.json"), "plain", true, ("eps_inside_sqrt", true.into()));
    differs("sgd", include_str!("golden/sgd.json"), "plain", false, ("weight_decay", 1e-5.into()));
    // The two forms of momentum agree while the learning rate is constant and part when it changes.
    differs("momentum", include_str!("golden/momentum.json"), "plain", true, ("classical", true.into()));
    differs("nesterov", include_str!("golden/nesterov.json"), "plain", true, ("classical", true.into()));
}

/// The table in `tests/golden/README.md`.
#[test]
fn the_inputs_are_those_of_the_generator() {
    assert_relative_eq!(unit(0), 0.7666215896606445, max_relative = f64::EPSILON);
    assert_relative_eq!(unit(1), 0.13312304019927979, max_relative = f64::EPSILON);
    assert_relative_eq!(unit(2), 0.1823793649673462, max_relative = f64::EPSILON);
    assert_relative_eq!(grad(0, 0), 0.3137390613555908, max_relative = f64::EPSILON);
    assert_relative_eq!(grad(0, 1), -0.7505589723587036, max_relative = f64::EPSILON);
    assert_relative_eq!(grad(99, 100_002), -0.27308642864227295, max_relative = f64::EPSILON);
}
