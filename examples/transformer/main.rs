//! A small transformer is pre-trained on sums, then fine-tuned on differences in three ways.
//!
//! The model reads `37+58=` and writes the answer from its last digit to its first, as one adds by hand. It is pre-trained on nine tenths of all
//! sums of two numbers below 100 and tested on the others. Pre-training uses AdamW, a warm-up and a cosine, clipping, two micro-batches per step
//! (one per thread), and an average of the parameters. Halfway it saves a checkpoint and continues from it with a new model and a new optimizer, as
//! a new process would.
//!
//! Before that, the same pre-training runs with half of the steps and Muon for the matrices of the blocks.
//!
//! It also runs with parameters of 16 bits and state of 4 bits, in 3.2 instead of 12 bytes per parameter, and must be as accurate.
//!
//! Then the model learns differences: by training everything, by training only the upper block, or by low-rank adapters beside frozen weights. The
//! table at the end shows the cost of each way and how many sums and differences are right. The fine-tuned models have mostly forgotten how to
//! add, because they saw no sums; without its adapter, the adapted model can still add.
//!
//! ```sh
//! cargo run --release --example transformer --features checkpoint,half,lora
//! ```

mod arithmetic;
mod layers;
mod model;
mod narrow;
mod report;

use std::time::Instant;

use gradus::Hyper;
use gradus::checkpoint::Checkpoint;
use gradus::lora::{self, Config};
use gradus::params::Layout;
use gradus::prelude::*;
use gradus::schedule::Cosine;
use indicatif::{ProgressBar, ProgressStyle};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use arithmetic::{Example, Task, batch};
use model::{Adapters, Transformer};
use report::{Curve, Row, draw, table};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;
type Model = Transformer<f32>;

const WIDTH: usize = 96;
const BLOCKS: usize = 2;
/// Texts of a micro-batch; two make a step.
const TEXTS: usize = 128;
const PRETRAINING: u64 = 800;
const FINE_TUNING: u64 = 400;

fn main() -> Result<()> {
    let (sums, held_out_sums) = Task::Addition.examples();
    let (differences, held_out) = Task::Subtraction.examples();
    let mut rng = ChaCha8Rng::seed_from_u64(1);

    // One line sends the matrices inside the blocks to Muon, as long as AdamW's steps usually are.
    let matrices = "blocks.*.{query_key_value,attention_output,up,down}";
    let muon = |rate: Hyper| AdamW::new(rate.clone()).route(matrices, Muon::new(rate).match_rms_adamw(true));
    let (by_muon, muon_curve) =
        pretrain("Muon, AdamW", PRETRAINING / 2, muon, &sums, &mut ChaCha8Rng::seed_from_u64(1))?;
    let (base, pretraining) = pretrain("AdamW", PRETRAINING, AdamW::new, &sums, &mut rng)?;
    let [adds_by_muon, adds] = [&by_muon, &base].map(|model| model.accuracy(None, &held_out_sums));
    println!("held-out sums: {:.1} % right after {PRETRAINING} steps of AdamW,", 100.0 * adds);
    println!("{:.1} % after {} of Muon and AdamW", 100.0 * adds_by_muon, PRETRAINING / 2);
    narrow::compare(PRETRAINING, adds, &sums, &held_out_sums)?;

    let before = [adds, base.accuracy(None, &held_out)];
    let asked = |model: &Model, adapters: Option<&Adapters<f32>>| {
        [model.accuracy(adapters, &held_out_sums), model.accuracy(adapters, &held_out)]
    };
    let rate = |peak: f64| Cosine::new(peak, FINE_TUNING - FINE_TUNING / 10).warmup(FINE_TUNING / 10);
    let elements = Layout::of(&base)?.elements();
    let (mut rows, mut curves) = (Vec::new(), vec![pretraining, muon_curve]);

    let mut full = base.clone();
    let mut opt = AdamW::new(rate(2e-3)).clip_global_norm(1.0).accumulate(2);
    let (curve, step) = fine_tune("all", &mut full, &mut opt, Model::backward, &differences, &mut rng)?;
    let state = opt.inner().inner().state_bytes();
    rows.push(Row { name: "all", trainable: elements, state, step, before, after: asked(&full, None) });
    curves.push(curve);

    let mut top = base.clone();
    let frozen = ["embedding", "positions", "blocks.0.**"];
    let mut opt = AdamW::new(rate(2e-3)).clip_global_norm(1.0).accumulate(2).freeze(frozen);
    let (curve, step) = fine_tune("upper block", &mut top, &mut opt, Model::backward, &differences, &mut rng)?;
    let state = opt.inner().inner().inner().state_bytes();
    let layout = Layout::of(&top)?;
    let trainable = layout.tensors().iter().filter(|info| is_upper(info.path())).map(|info| info.elements()).sum();
    rows.push(Row { name: "upper block", trainable, state, step, before, after: asked(&top, None) });
    curves.push(curve);
    assert!(kept(&base, &top, |path| !is_upper(path)), "what is frozen stays, bit for bit");

    let untouched = base.clone();
    let mut adapters = base.adapters(&Config::new(3, 6.0), &mut rng)?;
    let mut opt = lora::plus(AdamW::new(rate(5e-3)).clip_global_norm(1.0), 2.0).accumulate(2);
    let beside = |adapters: &Adapters<f32>, examples: &[Example]| base.backward_adapters(adapters, examples);
    let (curve, step) = fine_tune("adapters", &mut adapters, &mut opt, beside, &differences, &mut rng)?;
    let state = opt.inner().inner().inner().state_bytes();
    let trainable = Layout::of(&adapters)?.elements();
    rows.push(Row { name: "adapters", trainable, state, step, before, after: asked(&base, Some(&adapters)) });
    curves.push(curve);
    assert!(kept(&base, &untouched, |_| true), "the base of the adapters stays, bit for bit");

    table(&rows, elements);
    println!("\nlosses: {}", draw(&curves)?.display());

    let [full, _, lora] = &rows[..] else { return Err("three ways".into()) };
    assert!(adds >= 0.95 && adds_by_muon >= 0.95, "sums: {adds}, {adds_by_muon}");
    assert!(full.after[1] >= 0.95, "differences, all: {}", full.after[1]);
    assert!(lora.after[1] >= full.after[1] - 0.05, "differences, adapters: {}", lora.after[1]);
    assert!(lora.trainable * 20 <= elements, "{} of {elements} parameters", lora.trainable);
    assert_eq!(lora.state, lora.trainable * 8); // two moments of f32
    Ok(())
}

fn is_upper(path: &str) -> bool {
    path.starts_with("blocks.1.") || path.starts_with("norm.")
}

/// Whether two models have the same bits, in the tensors asked for.
fn kept(left: &Model, right: &Model, asked: impl Fn(&str) -> bool) -> bool {
    let bits = |model: &Model| {
        let mut all = Vec::new();
        gradus::params::for_each(model, |path, shape, values| {
            let Some(values) = values.filter(|_| asked(&path.to_string())) else { return };
            all.extend(values.view(shape).iter().map(|x| x.to_bits()));
        });
        all
    };
    bits(left) == bits(right)
}

/// The averages of the parameters after a training that is interrupted in the middle.
fn pretrain<O: Optimizer<f32>>(
    name: &'static str,
    steps: u64,
    inner: impl Fn(Hyper) -> O,
    examples: &[Example],
    rng: &mut ChaCha8Rng,
) -> Result<(Model, Curve)> {
    let optimizer = || {
        let rate = Cosine::new(4e-3, steps - steps / 10).warmup(steps / 10);
        inner(rate.into()).ema(0.98).clip_global_norm(1.0).accumulate(2)
    };
    let path = std::env::temp_dir().join(format!("gradus-transformer-{}.safetensors", std::process::id()));
    let bar = progress(name, steps)?;
    let mut curve = Curve::new(name);

    let (mut model, mut opt) = (Model::new(WIDTH, BLOCKS, rng), optimizer());
    for step in 0..steps {
        if step == steps / 2 {
            Checkpoint::of(&model, &opt)?.note("step", step).save(&path)?;
            (model, opt) = (Model::new(WIDTH, BLOCKS, rng), optimizer());
            let saved = Checkpoint::open(&path)?;
            saved.load(&mut model, &mut opt)?;
            assert_eq!((saved.noted("step"), opt.steps()), (Some(step.to_string().as_str()), step));
            std::fs::remove_file(&path)?;
        }
        let loss = step_of_two(&mut model, &mut opt, Model::backward, examples, rng)?;
        curve.push(loss);
        bar.set_message(format!("loss {loss:.4}"));
        bar.inc(1);
    }
    bar.finish();
    opt.inner_mut().inner_mut().swap(&mut model)?;
    Ok((model, curve))
}

/// The losses of a fine-tuning, and the seconds of one of its steps.
fn fine_tune<T, G>(
    name: &'static str,
    what: &mut T,
    opt: &mut impl Optimizer<f32>,
    gradients: impl Fn(&T, &[Example]) -> (f64, G) + Sync,
    examples: &[Example],
    rng: &mut ChaCha8Rng,
) -> Result<(Curve, f64)>
where
    T: ParamsMut<Elem = f32> + Sync,
    G: Params<Elem = f32> + Send,
{
    let (bar, mut curve, start) = (progress(name, FINE_TUNING)?, Curve::new(name), Instant::now());
    for _ in 0..FINE_TUNING {
        let loss = step_of_two(what, opt, &gradients, examples, rng)?;
        curve.push(loss);
        bar.set_message(format!("loss {loss:.4}"));
        bar.inc(1);
    }
    bar.finish();
    Ok((curve, start.elapsed().as_secs_f64() / FINE_TUNING as f64))
}

/// One step of two micro-batches, each on a thread of its own; returns the mean loss.
fn step_of_two<T, G>(
    what: &mut T,
    opt: &mut impl Optimizer<f32>,
    gradients: impl Fn(&T, &[Example]) -> (f64, G) + Sync,
    examples: &[Example],
    rng: &mut ChaCha8Rng,
) -> Result<f64>
where
    T: ParamsMut<Elem = f32> + Sync,
    G: Params<Elem = f32> + Send,
{
    let [first, second] = [(); 2].map(|()| batch(examples, TEXTS, rng));
    let shared = &*what;
    let ((left, first), (right, second)) = rayon::join(|| gradients(shared, &first), || gradients(shared, &second));
    let waiting = opt.step(what, &first)?;
    let taken = opt.step(what, &second)?;
    assert!(!waiting.moved && taken.moved);
    Ok((left + right) / 2.0)
}

fn progress(name: &'static str, steps: u64) -> Result<ProgressBar> {
    let style = ProgressStyle::with_template("{prefix:12} {wide_bar} {msg} {eta:>4}")?;
    Ok(ProgressBar::new(steps).with_style(style).with_prefix(name))
}

#[cfg(test)]
mod tests;
