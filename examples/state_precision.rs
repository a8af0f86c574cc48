//! Optimizer state in 32, 16, 8 and 4 bits: the same training with each.
//!
//! ```sh
//! cargo run --release --example state_precision --features half
//! ```
//!
//! AdamW keeps two numbers per parameter. In bf16 they take half of the memory, in 8 bits a quarter, in 4 bits an eighth, and on large tensors the step
//! becomes faster too. The network of the example `digits` is trained from five seeds with each precision; accuracy and loss must equal those with
//! full state. With 4 bits only the accuracy must. Rounding bf16 to nearest is shown for comparison. It fails: the running mean of the squared
//! gradients changes by less than the distance of neighboring bf16 numbers, so it never moves.
//!
//! With the feature `half`, a wider network is trained once more with parameters of 16 bits and no f32 copy of them: parameters and state take less
//! than 4 bytes per parameter together, instead of 12, and the accuracy must be the same again.

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
        ("4 bits", StatePrecision::Blockwise4(Rounding::Stochastic)),
        ("bf16, to nearest", StatePrecision::Bf16(Rounding::Nearest)),
    ];
    let bar = ProgressBar::new((precisions.len() * SEEDS.len()) as u64);
    let mut outcomes = Vec::new();
    for (name, precision) in precisions {
        outcomes.push((name, mean(&bar, |seed| train(precision, seed))?));
    }
    bar.finish_and_clear();

    println!("{:<18} {:>16} {:>12} {:>14}", "state", "bytes/parameter", "train loss", "test accuracy");
    for (name, Outcome { loss, accuracy, bytes_a_parameter }) in &outcomes {
        println!("{name:<18} {bytes_a_parameter:>16.2} {loss:>12.5} {accuracy:>12.2} %");
    }
    let full = &outcomes[0].1;
    for (name, outcome) in &outcomes[1..4] {
        assert!((outcome.accuracy - full.accuracy).abs() <= ACCURACY_TOLERANCE, "{name}");
        let is_close = (outcome.loss / full.loss - 1.0).abs() <= LOSS_TOLERANCE;
        assert!(is_close || *name == "4 bits", "{name}");
    }
    #[cfg(feature = "half")]
    sixteen_bits::compare()?;
    Ok(())
}

/// Means over the seeds.
fn mean(
    bar: &ProgressBar,
    train: impl Fn(u64) -> Result<Outcome, Box<dyn std::error::Error>>,
) -> Result<Outcome, Box<dyn std::error::Error>> {
    let mut mean = Outcome { loss: 0.0, accuracy: 0.0, bytes_a_parameter: 0.0 };
    for seed in SEEDS {
        let run = train(seed)?;
        mean.loss += run.loss / SEEDS.len() as f64;
        mean.accuracy += run.accuracy / SEEDS.len() as f64;
        mean.bytes_a_parameter += run.bytes_a_parameter / SEEDS.len() as f64;
        bar.inc(1);
    }
    Ok(mean)
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

/// Parameters of 16 bits, without f32 copies.
#[cfg(feature = "half")]
mod sixteen_bits {
    use gradus::Optimizer;
    use half::bf16;
    use model::Linear;
    use ndarray::{Array1, Array2};

    use super::*;

    /// Wide enough that the weights of both layers have 4,096 elements or more, and with them state in few bits.
    const HIDDEN: usize = 512;
    const EPOCHS: usize = 30;

    /// Of parameters and state together.
    const BYTES_A_PARAMETER: f64 = 4.0;

    /// Weight and bias of each layer.
    type Layers = [(Array2<bf16>, Array1<bf16>); 2];

    fn narrow(model: &Mlp) -> Layers {
        let layer = |Linear { weight, bias }: &Linear| (weight.mapv(bf16::from_f32), bias.mapv(bf16::from_f32));
        [layer(&model.hidden), layer(&model.output)]
    }

    /// The network computes in f32; what is kept from step to step has 16 bits.
    fn widen([hidden, output]: &Layers) -> Mlp {
        let layer = |(weight, bias): &(Array2<bf16>, Array1<bf16>)| Linear {
            weight: weight.mapv(bf16::to_f32),
            bias: bias.mapv(bf16::to_f32),
        };
        Mlp { hidden: layer(hidden), output: layer(output) }
    }

    pub(super) fn compare() -> Result<(), Box<dyn std::error::Error>> {
        let bar = ProgressBar::new(3 * SEEDS.len() as u64);
        let four_bits = |opt: AdamW| opt.state_precision(StatePrecision::Blockwise4(Rounding::Stochastic));
        let full =
            mean(&bar, |seed| train_in(seed, |opt| opt, Mlp::clone, Mlp::clone, |opt: &AdamW| 4.0 + bytes(opt)))?;
        let rounded = mean(&bar, |seed| {
            let build = |opt| four_bits(opt).stochastic_rounding::<bf16>(seed);
            train_in(seed, build, narrow, widen, |opt| 2.0 + bytes(opt.inner()))
        })?;
        let kahan = mean(&bar, |seed| {
            train_in(seed, |opt| four_bits(opt).kahan::<bf16>(), narrow, widen, |opt| 4.0 + bytes(opt.inner()))
        })?;
        bar.finish_and_clear();
        println!(
            "\n{:<38} {:>16} {:>12} {:>14}",
            "parameters, state", "bytes/parameter", "train loss", "test accuracy"
        );
        for (name, Outcome { loss, accuracy, bytes_a_parameter }) in [
            ("f32, f32", &full),
            ("bf16 with stochastic rounding, 4 bits", &rounded),
            ("bf16 with Kahan summation, 4 bits", &kahan),
        ] {
            println!("{name:<38} {bytes_a_parameter:>16.2} {loss:>12.5} {accuracy:>12.2} %");
        }
        assert!(rounded.bytes_a_parameter <= BYTES_A_PARAMETER);
        for outcome in [rounded, kahan] {
            assert!((outcome.accuracy - full.accuracy).abs() <= ACCURACY_TOLERANCE);
        }
        Ok(())
    }

    /// The bytes of the state.
    fn bytes(opt: &AdamW) -> f64 {
        opt.state_bytes() as f64 / opt.layout().map_or(1, |layout| layout.elements()) as f64
    }

    /// Trains parameters that `keep` makes of a network, and `widen` a network of.
    fn train_in<P, O>(
        seed: u64,
        build: impl Fn(AdamW) -> O,
        keep: impl Fn(&Mlp) -> P,
        widen: impl Fn(&P) -> Mlp,
        bytes_a_parameter: impl Fn(&O) -> f64,
    ) -> Result<Outcome, Box<dyn std::error::Error>>
    where
        P: ParamsMut,
        O: Optimizer<P::Elem>,
    {
        let digits = Digits::load(seed)?;
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut params = keep(&Mlp::new(HIDDEN, &mut rng));
        let mut order: Vec<usize> = (0..digits.train.len()).collect();
        let steps = (EPOCHS * order.len().div_ceil(BATCH)) as u64;
        let mut opt = build(AdamW::new(Cosine::new(3e-3, steps - steps / 20).warmup(steps / 20)));
        for _ in 0..EPOCHS {
            order.shuffle(&mut rng);
            for batch in order.chunks(BATCH) {
                let (x, y) = (digits.train.pixels.select(Axis(0), batch), digits.train.labels.select(Axis(0), batch));
                let (_, grads) = widen(&params).backward(&x, &y);
                opt.step(&mut params, &keep(&grads))?;
            }
        }
        let model = widen(&params);
        let (loss, _) = model.backward(&digits.train.pixels, &digits.train.labels);
        let accuracy = 100.0 * model.accuracy(&digits.test);
        Ok(Outcome { loss: f64::from(loss), accuracy, bytes_a_parameter: bytes_a_parameter(&opt) })
    }
}
