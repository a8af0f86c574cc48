//! Second-order optimizers against Adam and SGD: an autoencoder of handwritten digits.
//!
//! Eight layers compress 64 pixels to 8 numbers and restore them. The data are 1,500 images in batches of 500. Each method is tuned on the grid
//! below and then trained from three seeds, until its cross-entropy is 2.5 above the smallest possible value. K-FAC gets its taps from a second
//! backward pass with pixels sampled from the model's own output, which gives the true Fisher information.
//!
//! ```sh
//! cargo run --release --example kfac_autoencoder --features second-order
//! ```

mod methods;
mod model;
mod picture;

use std::error::Error;
use std::time::{Duration, Instant};

use gradus::curvature::sample;
use gradus::prelude::*;
use indicatif::{ProgressBar, ProgressStyle};
use ndarray::{Array2, ArrayView2, Axis, Slice};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use methods::{Method, Setting, Trained, methods};
use model::{Autoencoder, WIDTHS, excess, output_grad};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const CSV: &str = include_str!("../data/digits.csv");
const IMAGES: usize = 1500;
const BATCH: usize = 500;
/// What a method is to reach, in nats an image.
const GOAL: f64 = 2.5;
const SEEDS: [u64; 3] = [1, 2, 3];
/// A method that has not arrived by then is given up.
const LIMIT: u64 = 1000;
/// Steps from one look at the excess to the next.
const LOOK: u64 = 5;

/// One training.
struct Run {
    /// The steps to the goal, if it was reached.
    steps: Option<u64>,
    /// After steps and seconds, the excess.
    curve: Vec<(u64, f64, f64)>,
}

impl Run {
    fn seconds(&self) -> f64 {
        self.curve.last().map_or(0.0, |last| last.1)
    }

    /// Whether this run is the better one: in fewer steps at the goal, or closer to it.
    fn key(&self) -> (u64, f64) {
        (self.steps.unwrap_or(u64::MAX), self.curve.last().map_or(f64::INFINITY, |last| last.2))
    }
}

fn main() -> Result<()> {
    let images = images()?;
    let methods = methods();
    let style = ProgressStyle::with_template("{prefix:8} {wide_bar} {pos}/{len} {eta:>4}")?;
    let length = methods.iter().map(|method| method.settings.len() + SEEDS.len()).sum::<usize>() as u64;
    let bar = ProgressBar::new(length).with_style(style);

    println!("| method | setting | steps to {GOAL} | seconds |\n|---|---|---|---|");
    let mut results = Vec::new();
    for Method { name, settings } in &methods {
        bar.set_prefix(*name);
        let tuned = settings.par_iter().map(|setting| {
            let run = train(setting, SEEDS[0], images.view());
            bar.inc(1);
            run
        });
        let tuned = tuned.collect::<Result<Vec<Run>>>()?;
        let keys = tuned.iter().zip(settings).map(|(run, setting)| (run.key(), setting));
        let best = keys.min_by(|(a, _), (b, _)| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
        let (_, setting) = best.ok_or("a grid without settings")?;
        let mut runs = Vec::new();
        for seed in SEEDS {
            runs.push(train(setting, seed, images.view())?);
            bar.inc(1);
        }
        let list = |text: &dyn Fn(&Run) -> String| runs.iter().map(text).collect::<Vec<_>>().join(", ");
        let steps = list(&|run| run.steps.map_or("–".into(), |steps| steps.to_string()));
        let seconds = list(&|run| format!("{:.2}", run.seconds()));
        bar.suspend(|| println!("| {name} | {} | {steps} | {seconds} |", setting.words));
        results.push((*name, runs));
    }
    bar.finish_and_clear();
    println!("\npicture: {}", picture::draw(&results)?.display());

    let steps = |name: &str| -> Result<Vec<u64>> {
        let (_, runs) = results.iter().find(|(known, _)| *known == name).ok_or("no such method")?;
        runs.iter().map(|run| run.steps.ok_or_else(|| format!("{name} has not arrived").into())).collect()
    };
    let (kfac, adam) = (steps("K-FAC")?, steps("Adam")?);
    for (kfac, adam) in kfac.iter().zip(&adam) {
        assert!(*kfac <= 260 && 2 * kfac <= *adam, "K-FAC {kfac}, Adam {adam}");
    }
    Ok(())
}

/// Trains from a seed until the goal or the limit.
fn train(setting: &Setting, seed: u64, images: ArrayView2<'_, f32>) -> Result<Run> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let (mut model, mut optimizer) = (Autoencoder::<f32>::new(&mut rng), (setting.build)());
    let mut rows: Vec<usize> = (0..IMAGES).collect();
    let (mut run, mut spent) = (Run { steps: None, curve: Vec::new() }, Duration::ZERO);
    for step in 1..=LIMIT {
        let part = (step as usize - 1) % (IMAGES / BATCH);
        if part == 0 {
            rows.shuffle(&mut rng);
        }
        let batch = images.select(Axis(0), &rows[part * BATCH..][..BATCH]);
        let start = Instant::now();
        take_step(&mut optimizer, &mut model, &batch, &mut rng)?;
        spent += start.elapsed();
        if step.is_multiple_of(LOOK) {
            let excess = excess(&model.forward(images).logits, images);
            run.curve.push((step, spent.as_secs_f64(), excess));
            if excess <= GOAL {
                run.steps = Some(step);
                break;
            }
            // A setting that explodes is no setting.
            if excess.is_nan() || excess > 200.0 {
                break;
            }
        }
    }
    Ok(run)
}

fn take_step(
    optimizer: &mut Trained,
    model: &mut Autoencoder<f32>,
    batch: &Array2<f32>,
    rng: &mut ChaCha8Rng,
) -> Result<()> {
    let pass = model.forward(batch.view());
    let grads = model.grads(&pass, &model.deltas(&pass, output_grad(&pass.logits, batch.view())));
    match optimizer {
        Trained::Kfac(kfac) => {
            let drawn = model.deltas(&pass, sample::bernoulli(&pass.logits, rng));
            model.observe(kfac, &pass, &drawn)?;
            kfac.step(model, &grads)?;
        }
        Trained::Other(optimizer) => _ = optimizer.step(model, &grads)?,
    }
    Ok(())
}

/// The first images, each pixel from 0 to 1.
fn images() -> Result<Array2<f32>> {
    let mut pixels = Vec::with_capacity(IMAGES * (WIDTHS[0] + 1));
    for line in CSV.lines().skip(1).take(IMAGES) {
        for value in line.split(',') {
            pixels.push(value.parse::<f32>()? / 16.0);
        }
    }
    let lines = Array2::from_shape_vec((IMAGES, WIDTHS[0] + 1), pixels)?;
    Ok(lines.slice_axis_move(Axis(1), Slice::from(1..))) // the first is the label
}
