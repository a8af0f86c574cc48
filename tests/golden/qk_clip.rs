//! MuonClip, which is Muon with QK-Clip, from `qk_clip.json`.

use gradus::optimizer::MuonScale;
use gradus::prelude::*;
use ndarray::ArrayD;
use serde_json::Value;

use super::{beside, grad, param};

/// Newton–Schulz steepens rounding of small singular values 485 times; weights are within 1 and moved by 10 steps of 0.02.
const F64: f64 = 1e-12;

/// The same in f32.
const F32: f64 = 2e-6;

/// Where the elements of the key and the logits begin.
const KEY: usize = 1000;
const LOGITS: usize = 2000;

/// The largest difference to the golden weights.
fn worst<A: Scalar>(case: &Value, golden: &Value) -> f64 {
    let shape = |name: &str| serde_json::from_value::<Vec<usize>>(case[name].clone()).unwrap();
    let tensor = |shape: Vec<usize>, value: &dyn Fn(usize) -> f64| {
        let values = (0..shape.iter().product()).map(|i| A::from_f64(value(i))).collect();
        ArrayD::from_shape_vec(shape, values).unwrap()
    };
    let pair =
        |value: &dyn Fn(usize) -> f64| (tensor(shape("query"), value), tensor(shape("key"), &|i| value(KEY + i)));
    let number = |name: &str| golden[name].as_f64().unwrap();
    let muon =
        Muon::<A>::new(number("learning_rate")).nesterov(false).scale(MuonScale::MatchRmsAdamw).weight_decay(0.0);
    let mut opt = muon.qk_clip(number("threshold"));
    let mut weights = pair(&param);
    let mut largest = 0.0_f64;
    let mut values = case["values"].as_array().unwrap().iter();
    let steps = beside::recorded_steps(golden);
    for step in 0..10 {
        let heads = 0..case["heads"].as_u64().unwrap() as usize;
        let logits = heads.map(|head| 100.0 + 150.0 * grad(step, LOGITS + head));
        match case["rotary"].as_bool().unwrap() {
            true => opt.observe_rotary("0", logits).unwrap(),
            false => opt.observe("0", "1", logits).unwrap(),
        }
        opt.step(&mut weights, &pair(&|i| grad(step, i))).unwrap();
        if steps.contains(&(step + 1)) {
            let expected = values.next().unwrap();
            for (at, found) in [&weights.0, &weights.1].into_iter().enumerate() {
                let expected = expected[at].as_array().unwrap();
                assert_eq!(expected.len(), found.len());
                for (found, expected) in found.iter().zip(expected) {
                    let difference = (found.as_f64() - expected.as_f64().unwrap()).abs();
                    largest = beside::larger(largest, difference);
                }
            }
        }
    }
    assert!(values.next().is_none());
    largest
}

#[test]
fn muon_clip_agrees() {
    let golden = beside::golden("qk_clip");
    let cases = golden["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 8);
    for case in cases {
        let (found, tolerance) = match case["dtype"].as_str().unwrap() {
            "f64" => (worst::<f64>(case, &golden), F64),
            _ => (worst::<f32>(case, &golden), F32),
        };
        println!("{} {} {}: {found:e}", case["dtype"], case["query"], case["key"]);
        assert!(found <= tolerance, "{found:e}: {} {} {}", case["dtype"], case["query"], case["key"]);
    }
}
