//! Fine-tuning: a network that reads the digits 0 to 4 learns to read 5 to 9, by training everything, only its output layer, or low-rank
//! adapters.
//!
//! In the example `transformer`, adapters are computed beside the frozen weights. Here the network runs with merged weights, and the gradients of
//! the adapters come from the gradients of the weights. The table at the end, and the picture `target/fine_tune_digits.svg`, show the cost and
//! the accuracy of each way.
//!
//! ```sh
//! cargo run --release --example fine_tune_digits --features lora
//! ```

#![allow(clippy::expect_used, reason = "an adapter has the shape of the weight that it was made for")]

#[path = "../digits/data.rs"]
mod data;
#[path = "../digits/model.rs"]
mod model;
mod picture;

use std::error::Error;

use gradus::lora::{Config, Lora};
use gradus::params::{Layout, for_each};
use gradus::prelude::*;
use gradus::schedule::Cosine;
use ndarray::{Array1, Array2, Axis};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use data::{Digits, Images};
use model::Mlp;

const SEED: u64 = 7;
const EPOCHS: usize = 30;
const BATCH: usize = 32;
const HIDDEN: usize = 64;

type Adapters = [Lora<f32>; 2];

/// One way, and the shares of old and new digits that it reads right afterwards.
struct Row {
    name: &'static str,
    trainable: usize,
    state: usize,
    old: f64,
    new: f64,
}

fn main() -> Result<(), Box<dyn Error>> {
    let digits = Digits::load(SEED)?;
    let [old, new] = [0..5, 5..10].map(|labels| {
        let part = |images: &Images| only(images, |label| labels.contains(&label));
        Digits { train: part(&digits.train), test: part(&digits.test) }
    });
    let rate = |digits: &Digits, peak: f64| {
        let steps = (EPOCHS * digits.train.len().div_ceil(BATCH)) as u64;
        Cosine::new(peak, steps - steps / 20).warmup(steps / 20)
    };

    let mut base = Mlp::new(HIDDEN, &mut ChaCha8Rng::seed_from_u64(SEED));
    train(&mut base, &mut AdamW::new(rate(&old, 5e-3)), Mlp::backward, &old.train)?;
    let (before, weights) = (base.accuracy(&old.test), bits(&base));
    let mut rows = Vec::new();
    let mut row = |name, trainable, state, model: &Mlp| {
        rows.push(Row { name, trainable, state, old: model.accuracy(&old.test), new: model.accuracy(&new.test) });
    };
    row("nothing", 0, 0, &base);

    let (mut full, mut opt) = (base.clone(), AdamW::new(rate(&new, 5e-3)));
    train(&mut full, &mut opt, Mlp::backward, &new.train)?;
    row("all", Layout::of(&full)?.elements(), opt.state_bytes(), &full);

    let (mut top, mut opt) = (base.clone(), AdamW::new(rate(&new, 5e-3)).freeze("hidden.**"));
    train(&mut top, &mut opt, Mlp::backward, &new.train)?;
    row("output layer", Layout::of(&top.output)?.elements(), opt.inner().state_bytes(), &top);
    assert!(bits(&top.hidden) == bits(&base.hidden), "what is frozen stays, bit for bit");

    let (mut rng, config) = (ChaCha8Rng::seed_from_u64(SEED), Config::new(4, 8.0));
    let mut adapters = [config.adapt(&base.hidden.weight, &mut rng)?, config.adapt(&base.output.weight, &mut rng)?];
    let mut opt = AdamW::new(rate(&new, 1e-2));
    let backward = |adapters: &Adapters, x: &Array2<f32>, labels: &Array1<usize>| {
        let (loss, grads) = adapted(&base, adapters).backward(x, labels);
        let pairs = [(&base.hidden, &grads.hidden), (&base.output, &grads.output)];
        (loss, [0, 1].map(|at| adapters[at].backward_weight(&pairs[at].0.weight, &pairs[at].1.weight).expect(FITS)))
    };
    train(&mut adapters, &mut opt, backward, &new.train)?;
    row("adapters", Layout::of(&adapters)?.elements(), opt.state_bytes(), &adapted(&base, &adapters));
    assert!(bits(&base) == weights, "the base of the adapters stays, bit for bit");

    println!("| what learns | parameters | state, bytes | 0 … 4 right | 5 … 9 right |\n|---|---|---|---|---|");
    for Row { name, trainable, state, old, new } in &rows {
        println!("| {name} | {trainable} | {state} | {:.1} % | {:.1} % |", 100.0 * old, 100.0 * new);
    }
    println!("\nas a picture: {}", picture::draw(&rows)?.display());
    let [_, full, top, lora] = &rows[..] else { return Err("three ways and the beginning".into()) };
    assert!(before >= 0.97, "0 … 4: {before}");
    assert!(full.new >= 0.95, "5 … 9, all: {}", full.new);
    assert!(lora.new >= full.new - 0.05, "5 … 9, adapters: {}", lora.new);
    assert!([full, top, lora].iter().all(|row| row.state == 8 * row.trainable)); // two moments of f32
    Ok(())
}

/// The images of some digits.
fn only(images: &Images, wanted: impl Fn(usize) -> bool) -> Images {
    let rows: Vec<usize> = (0..images.len()).filter(|row| wanted(images.labels[*row])).collect();
    Images { pixels: images.pixels.select(Axis(0), &rows), labels: images.labels.select(Axis(0), &rows) }
}

/// The network with its adapters in the weights.
fn adapted(base: &Mlp, [hidden, output]: &Adapters) -> Mlp {
    let mut model = base.clone();
    _ = hidden.merge(&mut model.hidden.weight).expect(FITS);
    _ = output.merge(&mut model.output.weight).expect(FITS);
    model
}

const FITS: &str = "an adapter of this weight, and finite";

/// Some epochs of whatever has these gradients.
fn train<T, G>(
    what: &mut T,
    opt: &mut impl Optimizer<f32>,
    backward: impl Fn(&T, &Array2<f32>, &Array1<usize>) -> (f32, G),
    images: &Images,
) -> gradus::Result<()>
where
    T: ParamsMut<Elem = f32>,
    G: Params<Elem = f32>,
{
    let mut rng = ChaCha8Rng::seed_from_u64(SEED);
    let mut order: Vec<usize> = (0..images.len()).collect();
    for _ in 0..EPOCHS {
        order.shuffle(&mut rng);
        for batch in order.chunks(BATCH) {
            let (x, labels) = (images.pixels.select(Axis(0), batch), images.labels.select(Axis(0), batch));
            let (_, grads) = backward(what, &x, &labels);
            opt.step(what, &grads)?;
        }
    }
    Ok(())
}

fn bits(tree: &impl Params<Elem = f32>) -> Vec<u32> {
    let mut all = Vec::new();
    for_each(tree, |_, shape, values| {
        values.iter().for_each(|values| all.extend(values.view(shape).iter().map(|x| x.to_bits())));
    });
    all
}
