//! Gradients of rows, from `rows.json`: PyTorch's optimizers with sparse gradients.

use gradus::prelude::*;
use ndarray::Array2;
use serde_json::Value;

use super::{Tolerance, beside, param, splitmix64, unit};

/// Of numbers of about 1 after 100 steps.
const F64: Tolerance = Tolerance { absolute: 1e-14, relative: 1e-12 };

fn optimizer(case: &Value) -> Box<dyn Optimizer<f64>> {
    let rates: Vec<f64> = case["rates"].as_array().unwrap().iter().map(|rate| rate.as_f64().unwrap()).collect();
    let rate = move |step: u64| rates[step as usize];
    let options = &case["options"];
    let number = |key: &str, default: f64| options[key].as_f64().unwrap_or(default);
    match case["optimizer"].as_str().unwrap() {
        "sparse_adam" => {
            let beta = |at: usize, default: f64| options["betas"][at].as_f64().unwrap_or(default);
            let opt = Adam::new(rate).eps_hat(true).eps(number("eps", 1e-8));
            Box::new(opt.beta1(beta(0, 0.9)).beta2(beta(1, 0.999)))
        }
        "adagrad" => {
            let opt = Adagrad::new(rate).learning_rate_decay(number("lr_decay", 0.0)).eps(number("eps", 1e-10));
            Box::new(opt.initial_accumulator_value(number("initial_accumulator_value", 0.0)))
        }
        "sgd" => Box::new(Sgd::new(rate)),
        "momentum" => Box::new(Momentum::new(rate, number("momentum", 0.0)).dampening(number("dampening", 0.0))),
        "nesterov" => Box::new(Nesterov::new(rate, number("momentum", 0.0))),
        other => panic!("{other}"),
    }
}

/// The parameters after the recorded steps, and whether a row occurred twice in a step.
fn trajectory(golden: &Value, case: &Value, mut opt: Box<dyn Optimizer<f64>>) -> (Vec<f64>, bool) {
    let size = |key: &str| golden[key].as_u64().unwrap() as usize;
    let (rows, width, indices) = (size("rows"), size("width"), size("indices"));
    let is = |key: &str| case["options"][key].as_bool().unwrap_or(false);
    let steps: Vec<u64> = golden["steps"].as_array().unwrap().iter().map(|step| step.as_u64().unwrap()).collect();
    let mut params = Array2::from_shape_fn((rows, width), |(i, j)| param(i * width + j));
    let (mut recorded, mut twice) = (Vec::new(), false);
    for t in 0..100_u64 {
        let of = if is("same_rows") { 0 } else { t };
        let chosen = (0..indices as u64).map(|k| (splitmix64(1000 * (of + 1) + k) % rows as u64) as usize);
        let chosen: Vec<usize> = chosen.collect();
        twice |= (1..indices).any(|at| chosen[..at].contains(&chosen[at]));
        let value = |(k, j): (usize, usize)| unit((t + 1) * 1_000_003 * 7 + (k * width + j) as u64 + (1 << 40));
        let grads = Rows::new(chosen, Array2::from_shape_fn((indices, width), value));
        match is("dense") {
            true => opt.step(&mut params, &grads.to_dense(rows).unwrap()).unwrap(),
            false => opt.step(&mut params, &grads).unwrap(),
        };
        if steps.contains(&(t + 1)) {
            recorded.extend(params.iter());
        }
    }
    (recorded, twice)
}

/// The largest distance, in tolerances.
fn distance(found: &[f64], case: &Value) -> f64 {
    let expected = case["params"].as_array().unwrap().iter().flat_map(|params| params.as_array().unwrap());
    let expected: Vec<f64> = expected.map(|value| value.as_f64().unwrap()).collect();
    assert_eq!(found.len(), expected.len());
    let within =
        |(found, expected): (&f64, &f64)| (found - expected).abs() / (F64.absolute + F64.relative * expected.abs());
    found.iter().zip(&expected).map(within).fold(0.0, f64::max)
}

#[test]
fn rows_agree() {
    let golden = beside::golden("rows");
    let cases = golden["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 18);
    for case in cases {
        let (found, twice) = trajectory(&golden, case, optimizer(case));
        let distance = distance(&found, case);
        assert!(twice && distance <= 1.0, "{} {}: {distance}", case["optimizer"], case["options"]);
    }
}

/// What differs from PyTorch is seen: ε elsewhere, other rows moved by momentum, and moments of all rows.
#[test]
fn other_conventions_do_not_agree() {
    let golden = beside::golden("rows");
    for case in golden["cases"].as_array().unwrap() {
        let is = |key: &str| case["options"].get(key).is_some();
        let mut other = case.clone();
        let opt: Box<dyn Optimizer<f64>> = match case["optimizer"].as_str().unwrap() {
            "sparse_adam" if is("eps") => Box::new(Adam::new(1e-2).beta1(0.8).beta2(0.99).eps(1e-3)),
            "sparse_adam" => {
                other["options"]["dense"] = true.into();
                optimizer(case)
            }
            "momentum" if is("dense") => {
                other["options"]["dense"] = false.into();
                optimizer(case)
            }
            _ => continue,
        };
        let found = distance(&trajectory(&golden, &other, opt).0, case);
        assert!(found > 1e6, "{} {}: {found}", case["optimizer"], case["options"]);
    }
}
