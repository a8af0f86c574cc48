//! A training script ported from PyTorch: the script is `data/from_pytorch.py`, and this program ends with its numbers.
//!
//! ```sh
//! cargo run --release --example from_pytorch --features checkpoint
//! ```
use std::error::Error;

use gradus::{adaptor::Ema, checkpoint::Checkpoint, prelude::*, schedule::Cosine, tree};
use ndarray::{Array1, Array2, ArrayView2, Axis, s};

#[derive(Clone, Params)]
struct Linear {
    weight: Array2<f64>,
    bias: Array1<f64>,
}

#[derive(Clone, Params)]
struct Mlp {
    hidden: Linear,
    output: Linear,
}

impl Linear {
    fn new(inputs: usize, outputs: usize) -> Self {
        let weight = Array2::from_shape_fn((outputs, inputs), |(i, j)| 0.2 * ((1 + inputs * i + j) as f64).sin());
        Self { weight, bias: Array1::zeros(outputs) }
    }

    fn forward(&self, x: &ArrayView2<f64>) -> Array2<f64> {
        x.dot(&self.weight.t()) + &self.bias
    }

    fn backward(x: &ArrayView2<f64>, delta: &Array2<f64>) -> Self {
        Self { weight: delta.t().dot(x), bias: delta.sum_axis(Axis(0)) }
    }
}

impl Mlp {
    /// The mean cross-entropy and its gradient, which PyTorch's `loss.backward()` computes.
    fn backward(&self, x: ArrayView2<f64>, y: &[usize]) -> (f64, Self) {
        let hidden = self.hidden.forward(&x).mapv_into(f64::tanh);
        let (mut delta, mut loss) = (self.output.forward(&hidden.view()).mapv_into(f64::exp), 0.0);
        for (mut row, y) in delta.rows_mut().into_iter().zip(y) {
            row /= row.sum();
            loss -= row[*y].ln() / x.nrows() as f64;
            row[*y] -= 1.0;
        }
        delta /= x.nrows() as f64;
        let back = delta.dot(&self.output.weight) * hidden.mapv(|h| 1.0 - h * h);
        let grads = Self { hidden: Linear::backward(&x, &back), output: Linear::backward(&hidden.view(), &delta) };
        (loss, grads)
    }

    fn accuracy(&self, x: ArrayView2<f64>, y: &[usize]) -> f64 {
        let scores = self.output.forward(&self.hidden.forward(&x).mapv_into(f64::tanh).view());
        let right = scores.rows().into_iter().zip(y).filter(|(row, y)| row.iter().all(|score| *score <= row[**y]));
        right.count() as f64 / y.len() as f64
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let numbers = include_str!("data/digits.csv").lines().skip(1).flat_map(|line| line.split(',').map(str::parse));
    let rows = Array2::from_shape_vec((1797, 65), numbers.collect::<Result<Vec<f64>, _>>()?)?;
    let (x, y) = (rows.slice(s![.., 1..]).mapv(|pixel| pixel / 16.0), rows.column(0).mapv(|digit| digit as usize));
    let (test, y) = (x.slice(s![1600.., ..]), y.to_vec());

    let mut model = Mlp { hidden: Linear::new(64, 32), output: Linear::new(32, 10) };
    let adamw = AdamW::new(Cosine::new(1e-2, 180).warmup_from(0.1, 20)).weight_decay(0.05);
    let mut opt = adamw.group("**.bias", Group::no_decay()).clip_global_norm(1.0).ema(0.95).accumulate(2);

    let (path, mut losses) = (std::env::temp_dir().join("from_pytorch.safetensors"), Vec::new());
    for (step, start) in (0..400).map(|step| (step, step * 64 % 1536)) {
        let (loss, grads) = model.backward(x.slice(s![start..start + 64, ..]), &y[start..start + 64]);
        opt.step(&mut model, &grads)?;
        if step == 199 {
            Checkpoint::of(&model, &opt)?.save(&path)?; // stop and go on
            Checkpoint::open(&path)?.load(&mut model, &mut opt)?;
            std::fs::remove_file(&path)?;
        }
        losses.extend((step % 100 == 99).then_some(loss));
    }
    let mut average = model.clone();
    opt.find::<Ema<f64>>().ok_or("no average")?.read(&mut average)?;
    println!("losses {losses:?}, accuracy {}", model.accuracy(test, &y[1600..]));
    let torch = [0.7180141801957066, 0.30101958903570714, 0.27964415946336796, 0.15510593543102985];
    assert!(losses.iter().zip(torch).all(|(found, torch)| (found - torch).abs() < 1e-10));
    assert!((tree::norm(&average)? - 13.261061709988937).abs() < 1e-10);
    assert_eq!([&model, &average].map(|model| model.accuracy(test, &y[1600..])), [0.9137055837563451; 2]);
    Ok(())
}
