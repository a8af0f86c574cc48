//! Projections of optax, and least squares with constraints of scipy, from `projections.json`.

use gradus::prelude::*;
use gradus::set::{Interval, L1Ball, MaxNorm, NonNegative, Set, Simplex, UnitNorm};
use ndarray::{Array1, Array2};
use serde_json::Value;

use super::{F32_EPSILON, beside, unit};

/// optax sums in another order, and its threshold has the rounding of elements up to 64: some ulp of 64.
const F64: f64 = 64.0 * 4.0 * f64::EPSILON;

/// The same in f32, where the inputs are the same and the result is rounded once; twice where the norm is then an ulp too long.
const F32: f64 = 2.0 * F32_EPSILON;

/// The distance from scipy's solution that is asked for.
const SOLUTION: f64 = 1e-8;

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap()
}

fn list(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(number).collect()
}

fn projected<A: Scalar>(set: impl Set<A>, values: Array2<f64>) -> Array2<f64> {
    let mut params = values.mapv(A::from_f64);
    let grads = Array2::zeros(params.dim());
    Sgd::new(0.1).project("**", set).step(&mut params, &grads).unwrap();
    params.mapv(|x| x.as_f64())
}

fn by_name<A: Scalar>(name: &str, options: &[f64], values: Array2<f64>) -> Array2<f64> {
    match (name, options) {
        ("non_negative", []) => projected::<A>(NonNegative, values),
        ("interval", [lower, upper]) => projected::<A>(Interval::new(*lower, *upper), values),
        ("max_norm", [radius]) => projected::<A>(MaxNorm::per_row(*radius), values),
        ("unit_norm", []) => projected::<A>(UnitNorm::per_row(), values),
        ("simplex", [scale]) => projected::<A>(Simplex::per_row().scale(*scale), values),
        ("l1_ball", [radius]) => projected::<A>(L1Ball::per_row(*radius), values),
        _ => panic!("{name} {options:?}"),
    }
}

#[test]
fn projections_agree() {
    let golden = beside::golden("projections");
    let cases = golden["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 100);
    for case in cases {
        let (name, options) = (case["set"].as_str().unwrap(), list(&case["options"]));
        let count = |key: &str| case[key].as_u64().unwrap();
        let (columns, scale) = (count("columns") as usize, number(&case["scale"]));
        let values = Array2::from_shape_fn((count("rows") as usize, columns), |(i, j)| {
            scale * unit(count("first") + (i * columns + j) as u64)
        });
        let expected = list(&case["values"]);
        let largest = expected.iter().fold(1.0_f64, |most, x| most.max(x.abs()));
        for (found, tolerance) in [
            (by_name::<f64>(name, &options, values.clone()), F64),
            (by_name::<f32>(name, &options, values.clone()), F32 * largest),
        ] {
            for (found, expected) in found.iter().zip(&expected) {
                assert!((found - expected).abs() <= tolerance, "{found} for {expected}: {case}");
            }
        }
    }
}

/// Gradient descent with a projection, and scipy's solvers.
#[test]
fn constrained_least_squares_agrees() {
    let golden = beside::golden("projections");
    let cases = golden["least_squares"].as_array().unwrap();
    assert_eq!(cases.len(), 6);
    for case in cases {
        let count = |key: &str| case[key].as_u64().unwrap() as usize;
        let (rows, columns) = (count("rows"), count("columns"));
        let a = Array2::from_shape_fn((rows, columns), |(i, j)| unit((i * columns + j) as u64));
        let b = Array1::from_shape_fn(rows, |i| 2.0 * unit(1_000_000 + i as u64));
        let opt = || Sgd::new(1.0 / a.iter().map(|x| x * x).sum::<f64>()); // at most 1 over the curvature
        let mut opt: Box<dyn Optimizer<f64>> = match case["set"].as_str().unwrap() {
            "non_negative" => Box::new(opt().project("**", NonNegative)),
            "interval" => Box::new(opt().project("**", Interval::new(-0.25, 0.25))),
            "simplex" => Box::new(opt().project("**", Simplex::per_tensor())),
            other => panic!("{other}"),
        };
        let mut x = Array1::<f64>::zeros(columns);
        for _ in 0..20_000 {
            let grads = a.t().dot(&(a.dot(&x) - &b));
            opt.step(&mut x, &grads).unwrap();
        }
        for (found, expected) in x.iter().zip(list(&case["values"])) {
            assert!((found - expected).abs() <= SOLUTION, "{found} for {expected}: {case}");
        }
    }
}
