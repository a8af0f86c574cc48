//! One classifier of handwritten digits, with gradients computed by hand, by candle and by burn.
//!
//! ```sh
//! cargo run --release -p gradus-frameworks
//! ```
//!
//! The same network starts from the same weights three times and sees the same mini-batches. The optimizer chain is the same too: AdamW with a
//! warm-up and a cosine, clipping by global norm, and no weight decay for biases. Only the source of the gradients differs. The table shows the
//! mean loss of every epoch, and the three columns must agree in every printed digit. The picture `target/frameworks.svg` shows the three curves on
//! top of each other.
//!
//! The starting weights are a checkpoint of the first model, which the others load: their tensors have the same names.

mod by_hand;
#[cfg(test)]
mod checkpoints;
#[allow(dead_code, reason = "the example `digits` also reads test images")]
#[path = "../../digits/data.rs"]
mod data;
mod in_burn;
mod in_candle;
#[allow(dead_code, reason = "the example `digits` also reads test images")]
#[path = "../../digits/model.rs"]
mod model;
mod picture;

use std::error::Error;

use gradus::checkpoint::Checkpoint;
use gradus::prelude::*;
use gradus::schedule::Cosine;
use indicatif::{ProgressBar, ProgressStyle};
use ndarray::{Array1, Array2, Axis};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use data::{Digits, Images};
use model::Mlp;

const SEED: u64 = 7;
const EPOCHS: usize = 20;
const BATCH: usize = 32;
const HIDDEN: usize = 32;

/// What every model is trained with: images in rows, and their digits.
struct Batch {
    pixels: Array2<f64>,
    labels: Array1<usize>,
}

/// A way to gradients: trains from the checkpoint over the batches, and tells the loss of each before its step.
type Train = fn(&Checkpoint, &[Batch], &ProgressBar) -> Result<Vec<f64>, Box<dyn Error>>;

/// A way's name, and its loss by epoch.
type Curve = (&'static str, Vec<f64>);

const WAYS: [(&str, Train); 3] = [("by hand", by_hand::train), ("candle", in_candle::train), ("burn", in_burn::train)];

fn main() -> Result<(), Box<dyn Error>> {
    let curves = train(EPOCHS)?;
    println!("the loss of every epoch: {}", picture::draw(&curves)?.display());
    let (_, losses) = &curves[0];
    assert!(losses.last().is_some_and(|loss| *loss < 0.1), "it has not learned");
    Ok(())
}

/// The mean loss of every epoch, in each way. Prints them, and ends where two differ in a printed digit.
fn train(epochs: usize) -> Result<Vec<Curve>, Box<dyn Error>> {
    let digits = Digits::load(SEED)?;
    let mut rng = ChaCha8Rng::seed_from_u64(SEED);
    let start = Checkpoint::of_params(&Mlp::<f64>::new(HIDDEN, &mut rng))?;
    let batches = batches(&digits.train, epochs, &mut rng);

    let style = ProgressStyle::with_template("{msg:9} {wide_bar} {eta:>4}")?;
    let bar = ProgressBar::new((WAYS.len() * batches.len()) as u64).with_style(style);
    let mut curves = Vec::new();
    for (name, train) in WAYS {
        bar.set_message(name);
        let losses = train(&start, &batches, &bar)?;
        let epochs = losses.chunks(batches.len() / epochs);
        curves.push((name, epochs.map(|losses| losses.iter().sum::<f64>() / losses.len() as f64).collect()));
    }
    bar.finish_and_clear();

    println!("epoch  {}", WAYS.map(|(name, _)| format!("{name:>10}")).join("  "));
    for epoch in 0..epochs {
        let row: Vec<String> = curves.iter().map(|(_, losses): &Curve| format!("{:>10.6}", losses[epoch])).collect();
        println!("{:>5}  {}", epoch + 1, row.join("  "));
        assert!(row.iter().all(|loss| *loss == row[0]), "the three are not one training");
    }
    Ok(curves)
}

/// What moves each of the models.
fn optimizer(steps: usize) -> impl Optimizer<f64> {
    let steps = steps as u64;
    AdamW::new(Cosine::new(5e-3, steps - steps / 20).warmup(steps / 20))
        .clip_global_norm(1.0)
        .group("*.bias", Group::no_decay())
}

/// The mini-batches of so many epochs, in order.
fn batches(images: &Images, epochs: usize, rng: &mut ChaCha8Rng) -> Vec<Batch> {
    let mut order: Vec<usize> = (0..images.len()).collect();
    let mut batches = Vec::new();
    for _ in 0..epochs {
        order.shuffle(rng);
        batches.extend(order.chunks(BATCH).map(|rows| Batch {
            pixels: images.pixels.select(Axis(0), rows).mapv(f64::from),
            labels: images.labels.select(Axis(0), rows),
        }));
    }
    batches
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    #[test]
    fn the_three_ways_are_one_training() {
        let curves = super::train(2).unwrap();
        assert!(curves.iter().all(|(_, losses)| losses.len() == 2 && losses[1] < 0.7 * losses[0]), "{curves:?}");
        let picture = super::picture::draw(&curves).unwrap();
        assert!(std::fs::read_to_string(picture).unwrap().contains("candle"));
    }

    /// The guide shows these sources: what is `ignore`d there, by the documentation's tests, is compiled here.
    #[test]
    fn the_guide_shows_what_is_here() {
        let guide = include_str!("../../../guide/gradients.md");
        let (frameworks, _) = guide.split_once("\n# std::autodiff").unwrap();
        let sources = [include_str!("in_candle.rs"), include_str!("in_burn.rs")].map(flat);
        let shown: Vec<&str> =
            frameworks.split("```rust,ignore\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
        assert_eq!(shown.len(), 3);
        for block in shown {
            assert!(sources.iter().any(|source| source.contains(&flat(block))), "{block}");
        }
    }

    fn flat(code: &str) -> String {
        code.lines().map(str::trim).collect::<Vec<_>>().join("\n").trim().into()
    }
}
