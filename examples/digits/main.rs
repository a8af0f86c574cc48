//! Five optimizers learn to read handwritten digits.
//!
//! ```sh
//! cargo run --release --example digits
//! ```
//!
//! A small network has a hand-written backward pass. First it is checked against finite differences of the loss. Then the network is trained once
//! with each optimizer, from the same start and with the same mini-batches, a learning rate with warm-up and cosine, and clipping by global norm.
//! The table at the end shows the training loss, the accuracy on 360 test images, and the time; the picture `target/digits.svg` shows loss and
//! learning rate by step. Every optimizer must read at least 96 % of the test images correctly.

mod data;
mod model;
mod picture;

use std::error::Error;
use std::time::{Duration, Instant};

use gradus::check;
use gradus::prelude::*;
use gradus::schedule::Cosine;
use indicatif::{ProgressBar, ProgressStyle};
use ndarray::{Axis, s};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use data::{Digits, Images};
use model::Mlp;

const SEED: u64 = 7;
const EPOCHS: usize = 40;
const BATCH: usize = 32;
const HIDDEN: usize = 64;
/// Images that the gradient is checked on.
const CHECKED: usize = 8;
const TARGET_ACCURACY: f64 = 0.96;

/// What one training run leaves behind.
struct Run {
    name: &'static str,
    /// Loss and learning rate of every step.
    history: Vec<(f32, f64)>,
    train_loss: f32,
    test_accuracy: f64,
    time: Duration,
}

fn main() -> Result<(), Box<dyn Error>> {
    let digits = Digits::load(SEED)?;
    check_gradient(&digits.train)?;
    let steps = (EPOCHS * digits.train.len().div_ceil(BATCH)) as u64;
    let rate = |peak: f64| Cosine::new(peak, steps - steps / 20).warmup(steps / 20);
    let optimizers: [(&str, Box<dyn Optimizer<f32>>); 5] = [
        ("SGD", Box::new(Sgd::new(rate(0.5)).clip_global_norm(5.0))),
        ("Momentum", Box::new(Momentum::new(rate(0.1), 0.9).clip_global_norm(5.0))),
        ("Nesterov", Box::new(Nesterov::new(rate(0.1), 0.9).clip_global_norm(5.0))),
        ("RMSProp", Box::new(RmsProp::new(rate(2e-3)).clip_global_norm(5.0))),
        ("Adam", Box::new(Adam::new(rate(5e-3)).clip_global_norm(5.0))),
    ];

    let bar = ProgressBar::new(5 * steps).with_style(ProgressStyle::with_template("{msg:9} {wide_bar} {eta:>4}")?);
    let mut runs = Vec::new();
    for (name, opt) in optimizers {
        bar.set_message(name);
        runs.push(train(name, opt, &digits, &bar)?);
    }
    bar.finish_and_clear();

    println!("{:<10} {:>12} {:>14} {:>8}", "optimizer", "train loss", "test accuracy", "time");
    for run in &runs {
        let (percent, seconds) = (100.0 * run.test_accuracy, run.time.as_secs_f64());
        println!("{:<10} {:>12.5} {percent:>12.2} % {seconds:>6.2} s", run.name, run.train_loss);
    }
    println!("\nloss and learning rate: {}", picture::draw(&runs)?.display());

    for run in &runs {
        let Run { name, test_accuracy, .. } = run;
        assert!(*test_accuracy >= TARGET_ACCURACY, "{name} reads only {test_accuracy:.4} of the test images right");
    }
    Ok(())
}

/// Is the hand-written gradient that of the loss? In f64, on a few images, element by element.
fn check_gradient(images: &Images) -> Result<(), gradus::Error> {
    let mut model = Mlp::<f64>::new(HIDDEN, &mut ChaCha8Rng::seed_from_u64(SEED));
    let x = images.pixels.slice(s![..CHECKED, ..]).mapv(f64::from);
    let labels = images.labels.slice(s![..CHECKED]).to_owned();
    let (_, grads) = model.backward(&x, &labels);
    let found = check::gradients(&mut model, &grads, |model| model.backward(&x, &labels).0)?;
    println!("gradient: {found}\n");
    assert!(found.worst_error() < 1e-6, "the backward pass is not that of the loss");
    Ok(())
}

fn train(
    name: &'static str,
    mut opt: impl Optimizer<f32>,
    digits: &Digits,
    bar: &ProgressBar,
) -> Result<Run, gradus::Error> {
    let start = Instant::now();
    let mut rng = ChaCha8Rng::seed_from_u64(SEED);
    let mut model = Mlp::new(HIDDEN, &mut rng);
    let mut order: Vec<usize> = (0..digits.train.len()).collect();
    let mut history = Vec::new();

    for _ in 0..EPOCHS {
        order.shuffle(&mut rng);
        for batch in order.chunks(BATCH) {
            let Images { pixels, labels } = &digits.train;
            let (x, y) = (pixels.select(Axis(0), batch), labels.select(Axis(0), batch));
            let (loss, grads) = model.backward(&x, &y);
            let report = opt.step(&mut model, &grads)?;
            history.push((loss, report.learning_rate));
            bar.inc(1);
        }
    }

    let time = start.elapsed();
    let (train_loss, _) = model.backward(&digits.train.pixels, &digits.train.labels);
    Ok(Run { name, history, train_loss, test_accuracy: model.accuracy(&digits.test), time })
}
