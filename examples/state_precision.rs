//! Optimizer state in 32, 16 and 8 bits: the same training with each.
//!
//! ```sh
//! cargo run --release --example state_precision
//! ```
//!
//! AdamW keeps two numbers per parameter. In bf16 they take half of the memory, in 8 bits a quarter, and on large tensors the step becomes
//! faster too. The network of the example `digits` is trained from five seeds with each precision; accuracy and loss must equal those with full
//! state. Rounding to nearest is shown for comparison. It fails: the running mean of the squared gradients changes by less than the distance of
//! neighboring bf16 numbers, so it never moves.

#[path = "digits/data.rs"]
mod data;
#[path = "digits/model.rs"]
mod model;

use gradus::prelude::*;
use gradus::rule::{Rounding, StatePrecision};
use gradus::schedule::Cosine;
use indicatif::ProgressBar;
use ndarray::Axis;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use data::Digits;
use model::Mlp;

const SEEDS: [u64; 5] = [1, 2, 3, 4, 5];
const EPOCHS: usize = 40;
const BATCH: usize = 32;
const HIDDEN: usize = 128;

/// Of the mean test accuracy, in points.
const ACCURACY_TOLERANCE: f64 = 0.5;

/// Of the mean final loss, relative.
const LOSS_TOLERANCE: f64 = 0.05;

/// Means over the seeds.
struct Outcome {
    loss: f64,
    accuracy: f64,
    bytes_a_parameter: f64,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let precisions = [
        ("f32", StatePrecision::Full),
        ("bf16", StatePrecision::Bf16(Rounding::Stochastic)),
        ("8 bits", StatePrecision::Blockwise8),
        ("bf16, to nearest", StatePrecision::Bf16(Rounding::Nearest)),
    ];
    let bar = ProgressBar::new((precisions.len() * SEEDS.len()) as u64);
    let mut outcomes = Vec::new();
    for (name, precision) in precisions {
        let runs = SEEDS.map(|seed| {
            bar.inc(1);
            train(precision, seed)
        });
        let mut mean = Outcome { loss: 0.0, accuracy: 0.0, bytes_a_parameter: 0.0 };
        for run in runs {
            let run = run?;
            mean.loss += run.loss / SEEDS.len() as f64;
            mean.accuracy += run.accuracy / SEEDS.len() as f64;
            mean.bytes_a_parameter += run.bytes_a_parameter / SEEDS.len() as f64;
        }
        outcomes.push((name, mean));
    }
    bar.finish_and_clear();

    println!("{:<18} {:>16} {:>12} {:>14}", "state", "bytes/parameter", "train loss", "test accuracy");
    for (name, Outcome { loss, accuracy, bytes_a_parameter }) in &outcomes {
        println!("{name:<18} {bytes_a_parameter:>16.2} {loss:>12.5} {accuracy:>12.2} %");
    }
    let full = &outcomes[0].1;
    for (name, outcome) in &outcomes[1..3] {
        assert!((outcome.accuracy - full.accuracy).abs() <= ACCURACY_TOLERANCE, "{name}");
        assert!((outcome.loss / full.loss - 1.0).abs() <= LOSS_TOLERANCE, "{name}");
    }
    Ok(())
}

fn train(precision: StatePrecision, seed: u64) -> Result<Outcome, Box<dyn std::error::Error>> {
    let digits = Digits::load(seed)?;
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut model = Mlp::new(HIDDEN, &mut rng);
    let mut order: Vec<usize> = (0..digits.train.len()).collect();
    let steps = (EPOCHS * order.len().div_ceil(BATCH)) as u64;
    let mut opt = AdamW::new(Cosine::new(3e-3, steps - steps / 20).warmup(steps / 20)).state_precision(precision);
    for _ in 0..EPOCHS {
        order.shuffle(&mut rng);
        for batch in order.chunks(BATCH) {
            let (x, y) = (digits.train.pixels.select(Axis(0), batch), digits.train.labels.select(Axis(0), batch));
            let (_, grads) = model.backward(&x, &y);
            opt.step(&mut model, &grads)?;
        }
    }
    let parameters = opt.layout().map_or(0, |layout| layout.elements());
    let (loss, _) = model.backward(&digits.train.pixels, &digits.train.labels);
    Ok(Outcome {
        loss: f64::from(loss),
        accuracy: 100.0 * model.accuracy(&digits.test),
        bytes_a_parameter: opt.state_bytes() as f64 / parameters as f64,
    })
}
