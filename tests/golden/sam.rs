//! SAM, ASAM and GSAM, from `sam.json`.

use gradus::prelude::*;
use ndarray::{Array1, Array2};
use serde_json::Value;

use super::{F32_EPSILON, Tolerance, beside, grad, param, unit};

/// The same formulas in the same order, but for the sum of a norm and for GSAM, which subtracts the perturbation from where it has led.
const F64: Tolerance = Tolerance { absolute: 1e-14, relative: 1e-12 };

/// optax divides by the norm alone, and the second gradient passes the difference on.
const F64_OPTAX: Tolerance = Tolerance { absolute: 1e-11, relative: 1e-11 };

/// The same in f32: pytorch-optimizer has norms and the cosine in f32, and each step rounds parameters near 1.
const F32: Tolerance = Tolerance { absolute: 8.0 * F32_EPSILON, relative: 8.0 * F32_EPSILON };

/// The first elements of the matrix.
const MATRIX: usize = 12;

type Tree<A> = (Array2<A>, Option<Array1<A>>);

/// Two tensors with these elements.
fn tree<A: Scalar>(element: impl Fn(usize) -> A, size: usize) -> Tree<A> {
    let matrix = Array2::from_shape_fn((3, 4), |(i, j)| element(4 * i + j));
    (matrix, Some(Array1::from_shape_fn(size - MATRIX, |i| element(MATRIX + i))))
}

/// The gradient of the loss of a step.
fn gradient<A: Scalar>(params: &Tree<A>, step: u64, absent: bool) -> Tree<A> {
    let own = |i: usize, w: A| {
        let curvature = A::from_f64(1.0 + unit(1000 + i as u64));
        curvature * w + A::from_f64(0.3) * (w * w * w) + A::from_f64(0.1 * grad(step, i))
    };
    let matrix = Array2::from_shape_fn((3, 4), |(i, j)| own(4 * i + j, params.0[(i, j)]));
    let vector = params.1.as_ref().filter(|_| !absent);
    (matrix, vector.map(|vector| Array1::from_shape_fn(vector.len(), |i| own(MATRIX + i, vector[i]))))
}

/// The optimizer of a case: its parts are chosen one after the other.
fn chain<A: Scalar>(case: &Value) -> Box<dyn Optimizer<A>> {
    let inner: Box<dyn Optimizer<A>> = match (case["inner"].as_str().unwrap(), case["library"].as_str().unwrap()) {
        ("sgd", _) => Box::new(Sgd::new(0.1)),
        ("momentum", _) => Box::new(Momentum::new(0.05, 0.9).weight_decay(0.01)),
        // optax divides by the corrected root, and adds the decay.
        ("adamw", _) => Box::new(AdamW::new(0.01)),
        (other, _) => panic!("{other}"),
    };
    let options = &case["options"];
    let rho = options["rho"].as_f64().unwrap();
    let mut sam = match options["fall"].as_bool() {
        Some(true) => inner.sam(move |step: u64| rho / (1 + step) as f64),
        _ => inner.sam(rho),
    };
    if let Some(eta) = options["eta"].as_f64() {
        sam = sam.adaptive(eta);
    }
    if let Some(alpha) = options["alpha"].as_f64() {
        sam = sam.surrogate_gap(alpha);
    }
    Box::new(sam)
}

/// All parameters after the recorded steps: by a closure, or by two calls.
fn trajectory<A: Scalar>(case: &Value, golden: &Value, by_closure: bool) -> Vec<Vec<f64>> {
    let size = golden["size"].as_u64().unwrap() as usize;
    let steps = beside::recorded_steps(golden);
    let (mut opt, mut params) = (chain::<A>(case), tree(|i| A::from_f64(param(i)), size));
    let mut values = Vec::new();
    for step in 0..steps[steps.len() - 1] {
        let absent = case["options"]["absent"] == true && step % 2 == 1;
        if by_closure {
            opt.step_with(&mut params, |params| (0.0, gradient(params, step, absent))).unwrap();
        } else {
            let first = gradient(&params, step, absent);
            opt.ascend(&mut params, &first).unwrap();
            let second = gradient(&params, step, absent);
            opt.step(&mut params, &second).unwrap();
        }
        if steps.contains(&opt.steps()) {
            values.push(params.0.iter().chain(params.1.as_ref().unwrap()).map(|x| x.as_f64()).collect());
        }
    }
    values
}

#[test]
fn sam_agrees() {
    let golden = beside::golden("sam");
    let cases = golden["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 31);
    for case in cases {
        let (call, inner) = (case["call"].as_str().unwrap(), case["inner"].as_str().unwrap());
        let narrow = case["dtype"] == "f32";
        let tolerance = match case["library"].as_str() {
            Some("optax") => F64_OPTAX,
            _ if narrow => F32,
            _ => F64,
        };
        let run = |by_closure| match narrow {
            true => trajectory::<f32>(case, &golden, by_closure),
            false => trajectory::<f64>(case, &golden, by_closure),
        };
        let found = run(true);
        assert_eq!(found, run(false), "{call}");
        let worst = beside::worst_of_tolerance(&found, case, tolerance);
        assert!(worst <= 1.0, "{call}, {inner} in {}: {worst} of the tolerance", case["dtype"]);
    }
}
