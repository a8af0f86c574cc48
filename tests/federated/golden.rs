//! Server optimizers: Flower's numbers from `tests/golden/federated.json`, and the paper's against a naive loop.

use gradus::federated::{FedAdagrad, FedAdam, FedYogi, Server, Simulation, Task, Update};
use gradus::prelude::*;
use ndarray::{Array1, Array2};
use serde_json::Value;

type Model = (Array2<f64>, Array1<f64>);

const WEIGHTS: [f64; 3] = [10.0, 25.0, 65.0];

/// Six rounds of a handful of roundings; Flower's τ of 1e-9 under a moment as small as 1e-6 makes them no larger.
const TOLERANCE: f64 = 1e-12;

/// The hash of `tests/golden/README.md`.
fn unit(k: u64) -> f64 {
    let z = k.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((z ^ (z >> 31)) >> 40) as f64 / (1 << 23) as f64 - 1.0
}

/// What a client adds to element i in a round, counted from 0.
fn change(round: u64, client: u64, i: usize) -> f64 {
    0.1 * unit((round + 1) * 1_000_003 * 7 + 10 * client + i as u64 + (1 << 40))
}

fn model() -> Model {
    (
        Array2::from_shape_fn((2, 3), |(i, j)| unit(3 * i as u64 + j as u64)),
        Array1::from_shape_fn(4, |i| unit(6 + i as u64)),
    )
}

fn flat(model: &Model) -> Vec<f64> {
    model.0.iter().chain(&model.1).copied().collect()
}

/// The parameters after each round.
fn trajectory(optimizer: impl Optimizer<f64>, rounds: usize) -> Vec<Vec<f64>> {
    let client = |client: u64| {
        move |task: &Task<Model>| {
            let round = task.round();
            let first = Array2::from_shape_fn((2, 3), |(i, j)| change(round, client, 3 * i + j));
            let second = Array1::from_shape_fn(4, |i| change(round, client, 6 + i));
            Ok(Update::new((&task.model().0 + &first, &task.model().1 + &second), WEIGHTS[client as usize]))
        }
    };
    let mut clients = Simulation::new((0..3).map(client));
    let (mut server, mut model) = (Server::new(optimizer), model());
    let mut round = || {
        assert!(server.round(&mut model, &mut clients).unwrap().moved);
        flat(&model)
    };
    (0..rounds).map(|_| round()).collect()
}

fn agree(found: &[Vec<f64>], expected: &[Vec<f64>], name: &str) {
    assert_eq!(found.len(), expected.len());
    for (round, (found, expected)) in found.iter().zip(expected).enumerate() {
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < TOLERANCE, "{name}: {found} for {expected} after round {round}");
        }
    }
}

#[test]
fn flowers_numbers() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/federated.json");
    let golden: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let cases = golden["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 7);
    for case in cases {
        let option = |name: &str| case["options"][name].as_f64().unwrap();
        let name = case["optimizer"].as_str().unwrap();
        let optimizer: Box<dyn Optimizer<f64>> = match name {
            "fedavg" => Box::new(Sgd::new(1.0)),
            "fedavgm" => Box::new(Momentum::new(option("learning_rate"), option("momentum"))),
            "fedadagrad" => {
                Box::new(FedAdagrad::new(option("learning_rate")).flower(true).beta1(0.0).tau(option("tau")))
            }
            "fedadam" => {
                let opt = FedAdam::new(option("learning_rate")).flower(true).tau(option("tau"));
                Box::new(opt.beta1(option("beta1")).beta2(option("beta2")))
            }
            "fedyogi" => {
                let opt = FedYogi::new(option("learning_rate")).flower(true).tau(option("tau"));
                Box::new(opt.beta1(option("beta1")).beta2(option("beta2")))
            }
            other => panic!("{other}"),
        };
        let expected: Vec<Vec<f64>> = serde_json::from_value(case["values"].clone()).unwrap();
        agree(&trajectory(optimizer, expected.len()), &expected, &format!("{name} {}", case["options"]));
    }
}

/// The second moment after a change with this square.
type Second = fn(v: f64, square: f64) -> f64;

/// Algorithm 2, written out: η, β₁, β₂ and τ are 0.1, 0.9, 0.99 and 1e-3.
fn naive(rounds: u64, second: Second) -> Vec<Vec<f64>> {
    let mut x = flat(&model());
    let (mut m, mut v) = (vec![0.0; x.len()], vec![1e-3_f64.powi(2); x.len()]);
    let mut values = Vec::new();
    for round in 0..rounds {
        for (i, x) in x.iter_mut().enumerate() {
            let sum: f64 = (0..3).map(|client| WEIGHTS[client as usize] * change(round, client, i)).sum();
            let delta = sum / 100.0;
            m[i] = 0.9 * m[i] + (1.0 - 0.9) * delta;
            v[i] = second(v[i], delta * delta);
            *x += 0.1 * m[i] / (v[i].sqrt() + 1e-3);
        }
        values.push(x.clone());
    }
    values
}

#[test]
fn the_papers_numbers() {
    const ROUNDS: u64 = 20;
    let cases: [(Box<dyn Optimizer<f64>>, Second); 3] = [
        (Box::new(FedAdagrad::new(0.1)), |v, square| v + square),
        (Box::new(FedAdam::new(0.1)), |v, square| 0.99 * v + (1.0 - 0.99) * square),
        (Box::new(FedYogi::new(0.1)), |v, square| v - (1.0 - 0.99) * square * (v - square).signum()),
    ];
    for (number, (optimizer, second)) in cases.into_iter().enumerate() {
        agree(&trajectory(optimizer, ROUNDS as usize), &naive(ROUNDS, second), &format!("case {number}"));
    }
}
