//! Nine optimizers on two test functions.
//!
//! ```sh
//! cargo run --release --example optimizers
//! ```
//!
//! Rosenbrock's function (1960) is a curved valley with steep walls and an almost flat floor. The quadratic is a straight valley, a hundred times as
//! curved across as along. It is rotated, so RMSProp and Adam, which scale each coordinate separately, cannot undo its shape. Gradient descent
//! needs a small learning rate for the walls and then hardly moves along the floor. Momentum adds up the small gradients along the floor.
//!
//! Each optimizer starts with a learning rate tuned for it and the function, and a cosine takes it to 0. The table shows the final loss, the
//! distance to the optimum, and the number of steps after which the loss stays below 1e-4. The picture `target/optimizers.svg` shows the paths,
//! and below them the losses. Every optimizer must end below the loss stated for it in `contestants`.

mod picture;

use std::error::Error;
use std::ops::Range;

use gradus::prelude::*;
use gradus::schedule::Cosine;
use ndarray::{Array1, array};

const THRESHOLD: f64 = 1e-4;

/// A function of the plane with its gradient, and where to begin.
struct Valley {
    name: &'static str,
    formula: &'static str,
    value_and_grad: fn(x: f64, y: f64) -> (f64, [f64; 2]),
    start: [f64; 2],
    optimum: [f64; 2],
    steps: u64,
    /// What the picture shows of the plane.
    view: [Range<f64>; 2],
}

struct Contestant {
    name: &'static str,
    optimizer: fn(Cosine) -> Box<dyn Optimizer<f64>>,
    /// In each valley: the learning rate at the beginning, and what the loss must be below at the end.
    trials: [(f64, f64); 2],
}

/// What one contestant leaves behind in one valley.
struct Run {
    path: Vec<(f64, f64)>,
    losses: Vec<f64>,
    distance: f64,
}

fn valleys() -> [Valley; 2] {
    [
        Valley {
            name: "Rosenbrock",
            formula: "(1 − x)² + 100(y − x²)²",
            value_and_grad: rosenbrock,
            start: [-1.2, 1.0],
            optimum: [1.0, 1.0],
            steps: 10_000,
            view: [-1.45..1.45, -0.5..1.675],
        },
        Valley {
            name: "Quadratic",
            formula: "½(u² + 100v²), (u, v) = (x, y) turned by 37°",
            value_and_grad: quadratic,
            start: [-3.0, -1.0],
            optimum: [0.0, 0.0],
            steps: 1_000,
            view: [-3.4..0.8, -2.6..0.55],
        },
    ]
}

fn rosenbrock(x: f64, y: f64) -> (f64, [f64; 2]) {
    let (ahead, off) = (1.0 - x, y - x * x);
    (ahead * ahead + 100.0 * off * off, [-2.0 * ahead - 400.0 * x * off, 200.0 * off])
}

fn quadratic(x: f64, y: f64) -> (f64, [f64; 2]) {
    let (along, across) = (0.8 * x + 0.6 * y, 0.8 * y - 0.6 * x);
    let value = 0.5 * (along * along + 100.0 * across * across);
    (value, [0.8 * along - 60.0 * across, 0.6 * along + 80.0 * across])
}

fn contestants() -> [Contestant; 9] {
    let contestant = |name, optimizer, trials| Contestant { name, optimizer, trials };
    [
        contestant("SGD", |rate| Box::new(Sgd::new(rate)), [(2e-3, 1e-4), (1.8e-2, 1e-6)]),
        contestant("Momentum", |rate| Box::new(Momentum::new(rate, 0.9)), [(1e-3, 1e-15), (3e-3, 1e-15)]),
        contestant(
            "Momentum, classical",
            |rate| Box::new(Momentum::new(rate, 0.9).classical(true)),
            [(1e-3, 1e-15), (3e-3, 1e-15)],
        ),
        contestant("Nesterov", |rate| Box::new(Nesterov::new(rate, 0.9)), [(1e-3, 1e-15), (3e-3, 1e-15)]),
        contestant("RMSProp", |rate| Box::new(RmsProp::new(rate)), [(2e-3, 1e-8), (3e-2, 1e-9)]),
        contestant(
            "RMSProp, centered, momentum",
            |rate| Box::new(RmsProp::new(rate).centered(true).momentum(0.9)),
            [(3e-4, 1e-20), (1.8e-2, 1e-20)],
        ),
        contestant("Adam", |rate| Box::new(Adam::new(rate)), [(5e-2, 1e-20), (2e-1, 1e-12)]),
        contestant("AMSGrad", |rate| Box::new(Adam::new(rate).amsgrad(true)), [(2e-1, 1e-20), (3e-1, 1e-12)]),
        contestant("AdamW", |rate| Box::new(AdamW::new(rate)), [(3e-2, 1e-5), (2e-1, 1e-12)]),
    ]
}

fn main() -> Result<(), Box<dyn Error>> {
    let (valleys, contestants) = (valleys(), contestants());
    let mut runs = Vec::new();
    for (index, valley) in valleys.iter().enumerate() {
        println!("{}: {}, {} steps", valley.name, valley.formula, valley.steps);
        println!("{:<28} {:>8} {:>12} {:>12} {:>14}", "", "rate", "final loss", "distance", "below 1e-4 at");
        let mut here = Vec::new();
        for Contestant { name, optimizer, trials } in &contestants {
            let (rate, _) = trials[index];
            let run = descend(valley, optimizer(Cosine::new(rate, valley.steps)))?;
            let (loss, below) = (run.losses[valley.steps as usize], run.steps_until(THRESHOLD));
            println!("{name:<28} {rate:>8} {loss:>12.1e} {:>12.1e} {below:>14}", run.distance);
            here.push(run);
        }
        println!();
        runs.push(here);
    }
    println!("picture: {}", picture::draw(&valleys, &contestants, &runs)?.display());

    for (index, (valley, runs)) in valleys.iter().zip(&runs).enumerate() {
        for (Contestant { name, trials, .. }, run) in contestants.iter().zip(runs) {
            let (loss, (_, bound)) = (run.losses[valley.steps as usize], trials[index]);
            assert!(loss < bound, "{}: {name} ends at {loss:e}, not below {bound:e}", valley.name);
        }
    }
    Ok(())
}

fn descend(valley: &Valley, mut opt: impl Optimizer<f64>) -> Result<Run, gradus::Error> {
    let mut point = Array1::from_iter(valley.start);
    let (mut path, mut losses) = (Vec::new(), Vec::new());
    for step in 0..=valley.steps {
        let (loss, [along_x, along_y]) = (valley.value_and_grad)(point[0], point[1]);
        path.push((point[0], point[1]));
        losses.push(loss);
        if step < valley.steps {
            opt.step(&mut point, &array![along_x, along_y])?;
        }
    }
    let distance = (point - Array1::from_iter(valley.optimum)).pow2().sum().sqrt();
    Ok(Run { path, losses, distance })
}

impl Run {
    /// The number of steps after which the loss stays below the threshold.
    fn steps_until(&self, threshold: f64) -> usize {
        self.losses.iter().rposition(|loss| *loss >= threshold).map_or(0, |last| last + 1)
    }
}
