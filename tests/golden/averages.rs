//! Averages of the parameters and lookahead, from `averages.json`.

use gradus::adaptor::{Adapted, Ema, Swa};
use gradus::prelude::*;
use ndarray::Array1;
use serde_json::Value;

use super::{F32_EPSILON, Tolerance, beside, grad, param};

/// The parameters are at most some units large, and an average sums a rounding error of each step.
const F64: Tolerance = Tolerance { absolute: 1e-14, relative: 1e-12 };

/// The same in f32: 100 roundings, each within half an ulp of a number around 1, and most of them cancel.
const F32: Tolerance = Tolerance { absolute: 16.0 * F32_EPSILON, relative: 16.0 * F32_EPSILON };

/// The averages, or with lookahead the parameters, after the recorded steps.
fn trajectory<A: Scalar>(adaptor: &str, options: &[f64], golden: &Value) -> Vec<Vec<A>> {
    let number = |key: &str| golden[key].as_f64().unwrap();
    let base = || Momentum::<A>::new(number("learning_rate"), number("momentum"));
    let mut params = Array1::from_shape_fn(golden["size"].as_u64().unwrap() as usize, |i| A::from_f64(param(i)));
    let mut values = Vec::new();
    let steps: Vec<u64> = golden["steps"].as_array().unwrap().iter().map(|step| step.as_u64().unwrap()).collect();
    // What of the parameters is recorded differs; the loop does not.
    macro_rules! run {
        ($opt:expr, $read:expr) => {{
            let mut opt = $opt;
            for step in 0..steps[steps.len() - 1] {
                let grads = Array1::from_shape_fn(params.len(), |i| A::from_f64(grad(step, i)));
                opt.step(&mut params, &grads).unwrap();
                if steps.contains(&opt.steps()) {
                    let mut recorded = params.clone();
                    $read(&opt, &mut recorded).unwrap();
                    values.push(recorded.to_vec());
                }
            }
        }};
    }
    match (adaptor, options) {
        ("ema", [decay]) => run!(base().ema(*decay), |opt: &Adapted<_, Ema<A>>, to| opt.read(to)),
        ("ema_debiased", [decay]) => {
            run!(base().ema(*decay).debiased(true), |opt: &Adapted<_, Ema<A>>, to| opt.read(to))
        }
        ("swa", [start, every]) => {
            run!(base().swa(*start as u64, *every as u64), |opt: &Adapted<_, Swa<A>>, to| opt.read(to))
        }
        ("lookahead", [every, slow_step]) => {
            run!(base().lookahead(*every as u64, *slow_step), |_: &_, _: &mut _| Ok::<(), gradus::Error>(()))
        }
        _ => panic!("{adaptor} {options:?}"),
    }
    values
}

#[test]
fn averages_agree() {
    let golden = beside::golden("averages");
    let cases = golden["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 18);
    for case in cases {
        let (adaptor, call) = (case["adaptor"].as_str().unwrap(), case["call"].as_str().unwrap());
        let options: Vec<f64> = case["options"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
        let narrow = case["dtype"] == "f32";
        let found: Vec<Vec<f64>> = match narrow {
            true => trajectory::<f32>(adaptor, &options, &golden)
                .iter()
                .map(|v| v.iter().map(|x| f64::from(*x)).collect())
                .collect(),
            false => trajectory::<f64>(adaptor, &options, &golden),
        };
        let Tolerance { absolute, relative } = if narrow { F32 } else { F64 };
        let expected = case["values"].as_array().unwrap();
        assert_eq!(found.len(), expected.len());
        let steps = golden["steps"].as_array().unwrap();
        for ((found, expected), step) in found.iter().zip(expected).zip(steps) {
            // Before its first step swa has nothing to show.
            if adaptor == "swa" && step.as_f64().unwrap() < options[0] {
                continue;
            }
            for (found, expected) in found.iter().zip(expected.as_array().unwrap()) {
                let expected = expected.as_f64().unwrap();
                let expected = if narrow { f64::from(expected as f32) } else { expected };
                let close = (found - expected).abs() <= absolute.max(relative * expected.abs());
                assert!(close, "{call} in {}: {found} for {expected} after step {step}", case["dtype"]);
            }
        }
    }
}
