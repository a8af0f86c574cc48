//! SOAP with its options, and KL-SOAP, from `preconditioned.json`.

use gradus::optimizer::SoapRule;
use gradus::prelude::*;
use gradus::rule::Matrixwise;
use ndarray::ArrayD;
use serde_json::Value;

use super::{grad, param};

/// Eigenvectors steepen rounding by the inverse distance of eigenvalues, and the libraries' products round in another order. Parameters are within 1.
const F64: f64 = 1e-12;

/// The same in f32, in which a library's f64 is off by 2⁻²⁴ per operation: 50 steps of 0.01, most of whose errors cancel.
const F32: f64 = 2e-6;

/// Sets the options of a case; panics at one that the optimizer does not have.
macro_rules! with {
    ($opt:expr, $case:expr; $($number:ident)*; $($count:ident)*; $($switch:ident)*) => {{
        let mut opt = $opt;
        for (name, value) in $case["options"].as_object().unwrap() {
            opt = match name.as_str() {
                $(stringify!($number) => opt.$number(value.as_f64().unwrap()),)*
                $(stringify!($count) => opt.$count(value.as_u64().unwrap().try_into().unwrap()),)*
                $(stringify!($switch) => opt.$switch(value.as_bool().unwrap()),)*
                name => panic!("nothing is called {name}"),
            };
        }
        opt
    }};
}

fn soap<const KL: bool, A: Scalar>(
    opt: Matrixwise<SoapRule<KL>, A>,
    case: &Value,
) -> Box<dyn Optimizer<A>> {
    Box::new(with!(opt, case; beta1 beta2 shampoo_beta eps momentum_decay weight_decay; every max_side;
        nesterov correct_bias normalize_gradient precondition_1d))
}

fn optimizer<A: Scalar>(case: &Value) -> Box<dyn Optimizer<A>> {
    let rate = case["learning_rate"].as_f64().unwrap();
    match case["name"].as_str().unwrap() {
        "soap" => soap(Soap::new(rate), case),
        "klsoap" => soap(KlSoap::new(rate), case),
        name => panic!("nothing is called {name}"),
    }
}

/// The largest difference to the golden parameters.
fn compare<A: Scalar>(case: &Value, steps: &[u64]) -> f64 {
    let mut opt = optimizer::<A>(case);
    let shape: Vec<usize> = serde_json::from_value(case["shape"].clone()).unwrap();
    let tensor = |value: &dyn Fn(usize) -> f64| {
        let values = (0..shape.iter().product()).map(|i| A::from_f64(value(i))).collect();
        ArrayD::from_shape_vec(shape.clone(), values).unwrap()
    };
    let mut params = tensor(&param);
    let (mut worst, mut recorded) = (0.0_f64, case["values"].as_array().unwrap().iter());
    for step in 0..*steps.last().unwrap() {
        opt.step(&mut params, &tensor(&|i| grad(step, i))).unwrap();
        if steps.contains(&opt.steps()) {
            let expected: Vec<f64> = serde_json::from_value(recorded.next().unwrap().clone()).unwrap();
            assert_eq!(expected.len(), params.len());
            for (found, expected) in params.iter().zip(expected) {
                let difference = (found.as_f64() - expected).abs();
                worst = if difference.is_nan() { f64::NAN } else { worst.max(difference) };
            }
        }
    }
    assert!(recorded.next().is_none());
    worst
}

#[test]
fn preconditioned_agree() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/preconditioned.json");
    let golden: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let steps: Vec<u64> = serde_json::from_value(golden["steps"].clone()).unwrap();
    assert_eq!(steps, [1, 2, 10, 50]);
    let cases = golden["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 18);
    let mut failed = Vec::new();
    for case in cases {
        let (wide, narrow) = (compare::<f64>(case, &steps), compare::<f32>(case, &steps));
        println!("{} {} {}: {wide:e}, {narrow:e}", case["name"], case["source"], case["options"]);
        if !(wide <= F64 && narrow <= F32) {
            failed.push(format!("{} {} {}: {wide:e}, {narrow:e}", case["name"], case["shape"], case["options"]));
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}
