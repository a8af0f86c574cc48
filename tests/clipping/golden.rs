//! `tests/golden/clipping.json`.

use gradus::clip::{Adaptive, Clipper, Norm, Value};
use gradus::prelude::*;
use ndarray::ArrayD;
use serde_json::Value as Json;

use super::Probe;

/// Norm, quotient and product round once each, and PyTorch sums f32 norms in f32.
const ULP: f64 = 4.0;

/// The cases in the file that have each name.
const CASES: [(&str, usize); 6] = [
    ("clip_grad_norm_", 32),
    ("clip_grad_norm_ per tensor", 32),
    ("clip_grad_value_", 8),
    ("clip_by_global_norm", 4),
    ("adaptive, unit = index of axis 0", 12),
    ("adaptive_grad_clip", 6),
];

/// The file's header.
struct Inputs<'a>(&'a Json);

impl Inputs<'_> {
    fn tree<A: Scalar>(&self, lists: &Json, scale: f64) -> Vec<ArrayD<A>> {
        let shapes = self.0["shapes"].as_array().unwrap();
        let tensor = |(list, shape): (&Json, &Json)| {
            let shape: Vec<_> = shape.as_array().unwrap().iter().map(|n| n.as_u64().unwrap() as usize).collect();
            let values = numbers(list).into_iter().map(|x| A::from_f64(scale * x)).collect();
            ArrayD::from_shape_vec(shape, values).unwrap()
        };
        lists.as_array().unwrap().iter().zip(shapes).map(tensor).collect()
    }

    fn grads<A: Scalar>(&self) -> Vec<ArrayD<A>> {
        self.tree(&self.0["grads"], 1.0)
    }

    fn params<A: Scalar>(&self, scale: f64) -> Vec<ArrayD<A>> {
        self.tree(&self.0["params"], scale)
    }
}

fn numbers(list: &Json) -> Vec<f64> {
    list.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

fn close<A: Scalar>(ours: f64, expected: f64) -> bool {
    (ours - expected).abs() <= ULP * A::epsilon().as_f64() * expected.abs()
}

fn assert_close<A: Scalar>(ours: &[ArrayD<A>], expected: &[ArrayD<A>], case: &Json) {
    assert_eq!(ours.len(), expected.len());
    for (ours, expected) in ours.iter().flatten().zip(expected.iter().flatten()) {
        assert!(close::<A>(ours.as_f64(), expected.as_f64()), "{}: {ours} is not {expected}", case["call"]);
    }
}

/// The adaptor must show the optimizer inside what the function wrote into the tree.
fn adaptor<A: Scalar, C: Clipper>(
    clipper: C,
    mut params: Vec<ArrayD<A>>,
    grads: &[ArrayD<A>],
    clipped: &[ArrayD<A>],
) -> f64 {
    let before = grads.to_vec();
    let mut opt = Probe::default().clip(clipper);
    let report = opt.step(&mut params, &grads.to_vec()).unwrap();
    assert_eq!(opt.inner().seen, clipped);
    assert_eq!(before, grads);
    report.grad_norm.unwrap()
}

fn check<A: Scalar>(inputs: &Inputs<'_>, case: &Json) {
    let option = |name: &str| match &case["options"][name] {
        Json::String(infinity) if infinity == "inf" => f64::INFINITY,
        number => number.as_f64().unwrap_or_else(|| panic!("no {name} in {case}")),
    };
    let (grads, mut clipped) = (inputs.grads::<A>(), inputs.grads::<A>());
    let params = inputs.params::<A>(case["options"]["param_scale"].as_f64().unwrap_or(1.0));
    let mut expected = inputs.tree::<A>(&case["clipped"], 1.0);
    let (norm, from_adaptor) = match case["name"].as_str().unwrap() {
        "clip_grad_value_" => {
            let limit = option("clip_value");
            let norm = gradus::clip::value(&mut clipped, limit).unwrap();
            (norm, adaptor(Value::new(limit), params, &grads, &clipped))
        }
        "adaptive, unit = index of axis 0" | "adaptive_grad_clip" => {
            let clipper = Adaptive::new(option("clipping")).eps(option("eps"));
            let norm = clipper.clip(&mut clipped, &params).unwrap();
            (norm, adaptor(clipper, params, &grads, &clipped))
        }
        name => {
            let clipper = match name {
                "clip_grad_norm_" => Norm::global(option("max_norm")).p(option("norm_type")),
                "clip_grad_norm_ per tensor" => Norm::per_tensor(option("max_norm")).p(option("norm_type")),
                "clip_by_global_norm" => Norm::global(option("max_norm")).exact(),
                _ => panic!("no test for {name}"),
            };
            let norm = clipper.clip(&mut clipped).unwrap();
            (norm, adaptor(clipper, params, &grads, &clipped))
        }
    };
    assert_eq!(norm.to_bits(), from_adaptor.to_bits());

    let p = case["options"].get("norm_type").map_or(2.0, |_| option("norm_type"));
    let of_norms = |norms: Vec<f64>| match p {
        f64::INFINITY => norms.into_iter().fold(0.0, f64::max),
        p => norms.iter().map(|norm| norm.powf(p)).sum::<f64>().powf(1.0 / p),
    };
    match &case["norm"] {
        Json::Null => {}
        Json::Array(_) => assert!(close::<A>(norm, of_norms(numbers(&case["norm"]))), "{norm} in {case}"),
        expected => assert!(close::<A>(norm, expected.as_f64().unwrap()), "{norm} in {case}"),
    }
    if case["name"] == "adaptive_grad_clip" {
        // optax takes columns for units; a vector is one unit in both.
        (clipped, expected) = (vec![clipped.remove(1)], vec![expected.remove(1)]);
    }
    assert_close(&clipped, &expected, case);
}

#[test]
fn every_case() {
    let json: Json = serde_json::from_str(include_str!("../golden/clipping.json")).unwrap();
    let cases = json["cases"].as_array().unwrap();
    for (name, count) in CASES {
        assert_eq!(cases.iter().filter(|case| case["name"] == name).count(), count, "{name}");
    }
    for case in cases {
        assert!(case["library"].is_string() && case["version"].is_string());
        match case["dtype"].as_str().unwrap() {
            "f32" => check::<f32>(&Inputs(&json), case),
            "f64" => check::<f64>(&Inputs(&json), case),
            dtype => panic!("no element type {dtype}"),
        }
    }
}
