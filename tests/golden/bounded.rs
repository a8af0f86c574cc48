//! L-BFGS with bounds, from `bounded.json`.

use gradus::prelude::*;
use ndarray::{Array1, array};
use serde_json::Value;

use super::beside;

/// The distance from scipy's solution that is asked for, relative where it is above 1.
const SOLUTION: f64 = 1e-8;

/// The line search differs from that of L-BFGS-B, and the tolerances are below what is needed: how many times as often the loss may be evaluated.
const EVALUATIONS: u64 = 3;

fn hs4(x: &Array1<f64>) -> (f64, Array1<f64>) {
    ((x[0] + 1.0).powi(3) / 3.0 + x[1], array![(x[0] + 1.0).powi(2), 1.0])
}

fn hs5(x: &Array1<f64>) -> (f64, Array1<f64>) {
    let (difference, slope) = (x[0] - x[1], (x[0] + x[1]).cos());
    let loss = (x[0] + x[1]).sin() + difference * difference - 1.5 * x[0] + 2.5 * x[1] + 1.0;
    (loss, array![slope + 2.0 * difference - 1.5, slope - 2.0 * difference + 2.5])
}

fn hs38(x: &Array1<f64>) -> (f64, Array1<f64>) {
    let (a, b, c, d) = (x[1] - x[0] * x[0], 1.0 - x[0], x[3] - x[2] * x[2], 1.0 - x[2]);
    let (e, f) = (x[1] - 1.0, x[3] - 1.0);
    let loss = 100.0 * a * a + b * b + 90.0 * c * c + d * d + 10.1 * (e * e + f * f) + 19.8 * e * f;
    let grad = array![
        -400.0 * x[0] * a - 2.0 * b,
        200.0 * a + 20.2 * e + 19.8 * f,
        -360.0 * x[2] * c - 2.0 * d,
        180.0 * c + 20.2 * f + 19.8 * e
    ];
    (loss, grad)
}

fn hs45(x: &Array1<f64>) -> (f64, Array1<f64>) {
    let without = |i: usize| x.iter().enumerate().filter(|(j, _)| *j != i).map(|(_, x)| x).product::<f64>();
    (2.0 - x.product() / 120.0, Array1::from_shape_fn(5, |i| -without(i) / 120.0))
}

fn hs110(x: &Array1<f64>) -> (f64, Array1<f64>) {
    let (low, high, product) = (x.mapv(|x| (x - 2.0).ln()), x.mapv(|x| (10.0 - x).ln()), x.product().powf(0.2));
    let loss = (&low * &low + &high * &high).sum() - product;
    (loss, 2.0 * &low / (x - 2.0) - 2.0 * &high / (10.0 - x) - 0.2 * product / x)
}

fn hs1(x: &Array1<f64>) -> (f64, Array1<f64>) {
    let (a, b) = (x[1] - x[0] * x[0], 1.0 - x[0]);
    (100.0 * a * a + b * b, array![-400.0 * x[0] * a - 2.0 * b, 200.0 * a])
}

#[test]
fn bounded_lbfgs_reaches_the_solutions() {
    let golden = beside::golden("bounded");
    let cases = golden["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 6);
    let list = |value: &Value, missing: f64| -> Array1<f64> {
        value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap_or(missing)).collect()
    };
    for case in cases {
        let name = case["problem"].as_str().unwrap();
        let problem: fn(&Array1<f64>) -> (f64, Array1<f64>) = match name {
            "hs1" => hs1,
            "hs4" => hs4,
            "hs5" => hs5,
            "hs38" => hs38,
            "hs45" => hs45,
            "hs110" => hs110,
            other => panic!("no problem {other}"),
        };
        let (mut x, lower, upper) = (
            list(&case["start"], f64::NAN),
            list(&case["lower"], f64::NEG_INFINITY),
            list(&case["upper"], f64::INFINITY),
        );
        let opt = Lbfgs::new(1.0).history(10).strong_wolfe(true).iterations(1000);
        let mut opt = opt.tolerance_grad(1e-12).tolerance_change(0.0).bounds(&lower, &upper).unwrap();
        let mut tried = 0;
        let report = opt
            .step_with(&mut x, |x| {
                tried += 1;
                let is_inside = x.iter().zip(&lower).zip(&upper).all(|((x, lower), upper)| lower <= x && x <= upper);
                // The start of hs45 is outside.
                assert!(is_inside || tried == 1, "{name}: {x}");
                problem(x)
            })
            .unwrap();
        println!("{name}: {report:?}, scipy's evaluations {}", case["evaluations"]);
        for (found, expected) in x.iter().zip(&list(&case["values"], f64::NAN)) {
            let is_near = (found - expected).abs() <= SOLUTION * expected.abs().max(1.0);
            assert!(is_near, "{name}: {found} for {expected}: {report:?}");
        }
        assert!(
            (report.loss - case["loss"].as_f64().unwrap()).abs() <= SOLUTION * report.loss.abs().max(1.0),
            "{name}"
        );
        let most = EVALUATIONS * case["evaluations"].as_u64().unwrap() + 10;
        assert!(report.evaluations == tried && tried <= most, "{name}: {tried} of {most} evaluations");
    }
}
