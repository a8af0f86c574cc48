//! Accumulation by a schedule, and guards against bad gradients, from `guards.json`.

use gradus::prelude::*;
use ndarray::{Array1, array};
use serde_json::Value;

use super::{Tolerance, beside, grad, param};

/// The mean of a window is summed by a running mean in optax, and as a sum here: some ulp in each of 40 calls.
const F64: Tolerance = Tolerance { absolute: 1e-14, relative: 1e-12 };

/// PyTorch has its scale and the inverse in f32.
const SCALE: f64 = 4.0 * super::F32_EPSILON;

fn list<T: serde::de::DeserializeOwned>(value: &Value) -> Vec<T> {
    serde_json::from_value(value.clone()).unwrap()
}

/// The cases of a kind.
fn of_kind<'g>(golden: &'g Value, kind: &str) -> Vec<&'g Value> {
    golden["cases"].as_array().unwrap().iter().filter(|case| case["kind"] == kind).collect()
}

#[test]
fn windows_that_change_agree() {
    let golden = beside::golden("guards");
    let calls: Vec<u64> = list(&golden["calls"]);
    let cases = of_kind(&golden, "multi_steps");
    assert_eq!(cases.len(), 3);
    for case in cases {
        let every: fn(u64) -> f64 = match case["schedule"].as_str().unwrap() {
            "3" => |_| 3.0,
            "1 + step % 3" => |step| 1.0 + (step % 3) as f64,
            "1 until step 4, then 5" => |step| if step < 4 { 1.0 } else { 5.0 },
            other => panic!("{other}"),
        };
        let number = |key: &str| golden[key].as_f64().unwrap();
        let mut opt = Momentum::new(number("learning_rate"), number("momentum")).accumulate_by(every);
        let mut params = Array1::from_shape_fn(golden["size"].as_u64().unwrap() as usize, param);
        let mut values = Vec::new();
        for call in 0..calls[calls.len() - 1] {
            let grads = Array1::from_shape_fn(params.len(), |i| grad(call, i));
            opt.step(&mut params, &grads).unwrap();
            if calls.contains(&(call + 1)) {
                values.push(params.to_vec());
            }
        }
        let worst = beside::worst_of_tolerance(&values, case, F64);
        assert!(worst <= 1.0, "{}: {worst}", case["schedule"]);
        assert_eq!(opt.steps(), case["steps"].as_u64().unwrap());
    }
}

#[test]
fn loss_scales_agree() {
    let golden = beside::golden("guards");
    let finite: Vec<bool> = list(&golden["finite"]);
    let cases = of_kind(&golden, "scaler");
    assert_eq!(cases.len(), 3);
    for case in cases {
        let option = |key: &str| case["options"][key].as_f64().unwrap();
        let mut opt = Sgd::new(1.0)
            .loss_scaling()
            .initial_scale(option("initial_scale"))
            .growth_factor(option("growth_factor"))
            .backoff_factor(option("backoff_factor"))
            .growth_interval(option("growth_interval") as u64);
        let (scales, counters): (Vec<f64>, Vec<u64>) = (list(&case["scales"]), list(&case["counters"]));
        let ends: Vec<f64> = list(&case["params"]);
        let mut w = array![0.0];
        // Powers of two are exact.
        let tolerance = if option("growth_factor").log2().fract() == 0.0 { 0.0 } else { SCALE };
        let near = |found: f64, expected: f64| (found - expected).abs() <= tolerance * expected.abs();
        for (step, finite) in finite.iter().enumerate() {
            let scale = opt.loss_scale();
            assert!(near(scale, scales[step]), "step {step}: {scale} {}", scales[step]);
            let grad = if *finite { (step + 1) as f64 * scale } else { [f64::NAN, f64::INFINITY][step % 2] };
            opt.step(&mut w, &array![grad]).unwrap();
            assert!(near(w[0], ends[step]), "step {step}: {} {}", w[0], ends[step]);
            assert_eq!(opt.state_dict().text("loss_scaling/good"), Some(&*counters[step].to_string()), "step {step}");
        }
        assert!(near(opt.loss_scale(), scales[finite.len()]));
    }
}

#[test]
fn zeroed_gradients_agree() {
    let golden = beside::golden("guards");
    let case = of_kind(&golden, "zero_nans")[0];
    let tensors = |key: &str| {
        let texts: Vec<Vec<String>> = list(&case[key]);
        let numbers = |tensor: Vec<String>| Array1::from_iter(tensor.into_iter().map(|x| x.parse::<f64>().unwrap()));
        texts.into_iter().map(numbers).collect::<Vec<_>>()
    };
    let (grads, expected) = (tensors("grads"), tensors("expected"));
    let mut w: Vec<Array1<f64>> = grads.iter().map(|grad| Array1::zeros(grad.len())).collect();
    let mut opt = Sgd::new(1.0).zero_nans();
    opt.step(&mut w, &grads).unwrap();
    assert_eq!(w.iter().map(|w| w.mapv(|x| -x)).collect::<Vec<_>>(), expected);
    assert_eq!(opt.zeroed(), 2);
}

/// The steps that optax leaves out are left out; where it gives in and applies a NaN, there is an error.
#[test]
fn skipped_steps_agree() {
    let golden = beside::golden("guards");
    let cases = of_kind(&golden, "apply_if_finite");
    assert_eq!(cases.len(), 2);
    for case in cases {
        let (finite, applied): (Vec<bool>, Vec<bool>) = (list(&case["finite"]), list(&case["applied"]));
        let mut opt = Sgd::new(1.0).skip_nonfinite().max_skipped(case["most"].as_u64().unwrap());
        let mut w = array![0.0];
        for (step, (finite, applied)) in finite.into_iter().zip(applied).enumerate() {
            let result = opt.step(&mut w, &array![if finite { 1.0 } else { f64::NAN }]);
            let found = result.map(|report| report.moved).ok();
            assert_eq!(found, if applied && !finite { None } else { Some(applied) }, "step {step}");
        }
    }
}
