//! A golden file, and what is found beside its numbers.

use gradus::prelude::*;
use ndarray::ArrayD;
use serde_json::Value;

use super::{Tolerance, grad, param};

/// The golden file of this name.
pub(crate) fn golden(name: &str) -> Value {
    serde_json::from_str(&text(&format!("{name}.json"))).unwrap()
}

/// A file of this folder.
pub(crate) fn text(name: &str) -> String {
    let path = format!("{}/tests/golden/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The steps after which a file has numbers.
pub(crate) fn recorded_steps(golden: &Value) -> Vec<u64> {
    serde_json::from_value(golden["steps"].clone()).unwrap()
}

/// The largest difference so far. One that is no number is larger than all, and stays: `f64::max` would forget it.
pub(crate) fn larger(worst: f64, difference: f64) -> f64 {
    if difference.is_nan() { f64::INFINITY } else { worst.max(difference) }
}

/// The largest difference of one tensor, stepped along the usual gradients, to a case's numbers: all elements, or those of its `indices`.
pub(crate) fn worst_of_one_tensor<A: Scalar>(
    mut opt: Box<dyn Optimizer<A>>,
    case: &Value,
    steps: &[u64],
    difference: impl Fn(f64, f64) -> f64,
) -> f64 {
    let shape: Vec<usize> = serde_json::from_value(case["shape"].clone()).unwrap();
    let indices = match &case["indices"] {
        Value::Null => (0..shape.iter().product()).collect(),
        indices => serde_json::from_value::<Vec<usize>>(indices.clone()).unwrap(),
    };
    let tensor = |value: &dyn Fn(usize) -> f64| {
        let values = (0..shape.iter().product()).map(|i| A::from_f64(value(i))).collect();
        ArrayD::from_shape_vec(shape.clone(), values).unwrap()
    };
    let mut params = tensor(&param);
    let (mut worst, mut recorded) = (0.0, case["values"].as_array().unwrap().iter());
    for step in 0..*steps.last().unwrap() {
        opt.step(&mut params, &tensor(&|i| grad(step, i))).unwrap();
        if steps.contains(&opt.steps()) {
            let (found, expected) = (params.as_slice().unwrap(), recorded.next().unwrap().as_array().unwrap());
            assert_eq!(expected.len(), indices.len());
            for (index, expected) in indices.iter().zip(expected) {
                worst = larger(worst, difference(found[*index].as_f64(), expected.as_f64().unwrap()));
            }
        }
    }
    assert!(recorded.next().is_none());
    worst
}

/// The largest difference of trajectories to a case's numbers, as a multiple of the tolerance. The file has the fewest digits that identify an f32.
pub(crate) fn worst_of_tolerance(found: &[Vec<f64>], case: &Value, Tolerance { absolute, relative }: Tolerance) -> f64 {
    let expected: Vec<Vec<f64>> = serde_json::from_value(case["values"].clone()).unwrap();
    assert_eq!(found.len(), expected.len());
    let mut worst = 0.0;
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(expected) {
            let expected = if case["dtype"] == "f32" { f64::from(expected as f32) } else { expected };
            worst = larger(worst, (found - expected).abs() / absolute.max(relative * expected.abs()));
        }
    }
    worst
}
