//! L-BFGS, from `lbfgs.json`.

use gradus::prelude::*;
use ndarray::{Array1, Array2};
use serde_json::Value;

use super::{beside, unit};

/// The generator records what PyTorch reproduces to 1e-10 from starts that differ in the last bit.
const TOLERANCE: f64 = 1e-9;

fn units(count: usize, from: u64) -> Array1<f64> {
    Array1::from_shape_fn(count, |i| unit(i as u64 + from))
}

fn rosenbrock(w: &Array1<f64>) -> (f64, Array1<f64>) {
    let (mut loss, mut grad) = (0.0, Array1::zeros(w.len()));
    for at in (0..w.len()).step_by(2) {
        let (a, b) = (1.0 - w[at], w[at + 1] - w[at] * w[at]);
        loss += a * a + 100.0 * b * b;
        grad[at] = -2.0 * a - 400.0 * w[at] * b;
        grad[at + 1] = 200.0 * b;
    }
    (loss, grad)
}

fn quadratic(w: &Array1<f64>) -> (f64, Array1<f64>) {
    let curvatures = Array1::from_shape_fn(w.len(), |i| 10.0_f64.powf(4.0 * i as f64 / (w.len() - 1) as f64));
    let v = units(w.len(), 100);
    let reflect = |w: &Array1<f64>| w - &(&v * (2.0 * v.dot(w) / v.dot(&v)));
    let turned = reflect(w);
    let loss = 0.5 * (&curvatures * &turned * &turned).sum() + turned.sum();
    (loss, reflect(&(&curvatures * &turned + 1.0)))
}

fn logistic(w: &Array1<f64>) -> (f64, Array1<f64>) {
    let x: Array2<f64> = units(240, 1000).into_shape_with_order((40, 6)).unwrap();
    let y = units(40, 2000).mapv(|y| if y > 0.0 { 1.0 } else { -1.0 });
    let margins = &y * &x.dot(w);
    let loss = margins.mapv(|m| (-m).max(0.0) + (-m.abs()).exp().ln_1p()).mean().unwrap() + 0.005 * w.dot(w);
    let slopes = &y * &margins.mapv(|m| -1.0 / (1.0 + m.exp())) / 40.0;
    (loss, slopes.dot(&x) + w * 0.01)
}

#[test]
fn lbfgs_agrees() {
    let golden = beside::golden("lbfgs");
    let number = |value: &Value| value.as_f64().unwrap();
    let count = |value: &Value| value.as_u64().unwrap();
    let mut compared = 0;
    for case in golden["cases"].as_array().unwrap() {
        let (problem, mut w): (fn(&Array1<f64>) -> _, _) = match case["problem"].as_str().unwrap() {
            "rosenbrock" => (rosenbrock, Array1::from(vec![-1.2, 1.0])),
            "rosenbrock 10" => (rosenbrock, Array1::from_shape_fn(10, |i| [-1.2, 1.0][i % 2]) + 0.1 * units(10, 0)),
            "quadratic" => (quadratic, units(20, 0)),
            "logistic" => (logistic, units(6, 0)),
            other => panic!("no problem {other}"),
        };
        let mut opt = Lbfgs::new(number(&case["learning_rate"])).history(count(&case["history"]) as usize);
        opt = opt.iterations(count(&golden["iterations"]));
        opt = opt.strong_wolfe(case["strong_wolfe"].as_bool().unwrap());
        let (mut evaluations, mut worst) = (0, 0.0_f64);
        for call in case["calls"].as_array().unwrap() {
            let place = format!("{} {} {}", case["problem"], case["strong_wolfe"], case["history"]);
            let report = opt.step_with(&mut w, problem).unwrap();
            evaluations += report.evaluations;
            assert_eq!(evaluations, count(&call["evaluations"]), "{place}");
            let expected = call["values"].as_array().unwrap().iter().map(&number);
            let pairs = w.iter().copied().zip(expected).chain([(report.initial_loss, number(&call["loss"]))]);
            for (found, expected) in pairs {
                let error = (found - expected).abs() / expected.abs().max(1e-3);
                assert!(error <= TOLERANCE, "{place}: {found} is not {expected}, {error:e}");
                worst = worst.max(error);
            }
            compared += 1;
        }
        println!("{} {} {}: {worst:e}", case["problem"], case["strong_wolfe"], case["history"]);
    }
    assert!(compared >= 80, "{compared} calls were compared");
}
