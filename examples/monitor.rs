//! A look inside of a training.
//!
//! A range test first finds a learning rate for a small network on two spirals, and puts the network back. The training with this rate is then
//! monitored: the picture shows how far each tensor moves per step, relative to its norm. It is `target/monitor.svg`; the numbers are also in
//! `target/monitor.csv`.
//!
//! ```sh
//! cargo run --release --example monitor
//! ```

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;

use gradus::adaptor::Monitor;
use gradus::check::{RangeCurve, RangeTest};
use gradus::prelude::*;
use ndarray::{Array1, Array2, Axis};
use plotters::prelude::*;

const STEPS: u64 = 600;
const POINTS: usize = 200;

#[derive(Params, Clone)]
struct Mlp {
    hidden: Dense,
    middle: Dense,
    output: Dense,
}

#[derive(Params, Clone)]
struct Dense {
    weight: Array2<f32>,
    bias: Array1<f32>,
}

/// Fixed pseudo-random weights of the variance 1/inputs.
fn dense(inputs: usize, outputs: usize, seed: f32) -> Dense {
    let scale = (3.0 / inputs as f32).sqrt();
    let draw = |(i, j)| (((i * outputs + j) as f32 * 12.9898 + seed).sin() * 43_758.547).fract() * scale;
    Dense { weight: Array2::from_shape_fn((inputs, outputs), draw), bias: Array1::zeros(outputs) }
}

/// Points of two spirals, with 1 for the second.
fn spirals() -> (Array2<f32>, Array2<f32>) {
    let at = |i: usize| (i / 2) as f32 / (POINTS / 2) as f32;
    let angle = |i: usize| 5.0 * at(i) + if i.is_multiple_of(2) { 0.0 } else { std::f32::consts::PI };
    let x = |(i, axis)| (0.2 + at(i)) * if axis == 0 { angle(i).cos() } else { angle(i).sin() };
    (Array2::from_shape_fn((POINTS, 2), x), Array2::from_shape_fn((POINTS, 1), |(i, _)| (i % 2) as f32))
}

/// The mean cross-entropy, and its gradients.
fn backward(model: &Mlp, x: &Array2<f32>, y: &Array2<f32>) -> (f32, Mlp) {
    let forward = |layer: &Dense, input: &Array2<f32>| input.dot(&layer.weight) + &layer.bias;
    let first = forward(&model.hidden, x).mapv(f32::tanh);
    let second = forward(&model.middle, &first).mapv(f32::tanh);
    let logits = forward(&model.output, &second);
    let loss = logits.mapv(|z| z.max(0.0) + (-z.abs()).exp().ln_1p()) - y * &logits;
    let grad = |input: &Array2<f32>, error: &Array2<f32>| Dense {
        weight: input.t().dot(error),
        bias: error.sum_axis(Axis(0)),
    };
    let output = (logits.mapv(|z| 1.0 / (1.0 + (-z).exp())) - y) / POINTS as f32;
    let middle = output.dot(&model.output.weight.t()) * second.mapv(|a| 1.0 - a * a);
    let hidden = middle.dot(&model.middle.weight.t()) * first.mapv(|a| 1.0 - a * a);
    let grads = Mlp { hidden: grad(x, &hidden), middle: grad(&first, &middle), output: grad(&second, &output) };
    (loss.mean().unwrap_or(f32::NAN), grads)
}

/// Draws the range test, and each tensor's ratio of update to parameter.
fn draw(curve: &RangeCurve, rate: f64, ratios: &BTreeMap<String, Vec<(u64, f64)>>) -> Result<(), Box<dyn Error>> {
    let area = SVGBackend::new("target/monitor.svg", (1000, 420)).into_drawing_area();
    area.fill(&WHITE)?;
    let (left, right) = area.split_horizontally(480);
    let highest = curve.losses.first().map_or(1.0, |first| 1.5 * first);
    let rates = (curve.rates[0]..curve.rates[curve.rates.len() - 1]).log_scale();
    let title = format!("Range test: suggestion {rate:.1e}");
    let mut chart = ChartBuilder::on(&left)
        .caption(title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(44)
        .build_cartesian_2d(rates, 0.0..highest)?;
    chart
        .configure_mesh()
        .x_desc("learning rate")
        .y_desc("smoothed loss")
        .x_label_formatter(&|rate| format!("{rate:.0e}"))
        .draw()?;
    let points = curve.rates.iter().copied().zip(curve.losses.iter().copied());
    chart.draw_series(LineSeries::new(points.filter(|(_, loss)| *loss < highest), BLUE.stroke_width(2)))?;
    chart.draw_series(LineSeries::new([(rate, 0.0), (rate, highest)], RED.stroke_width(1)))?;
    let mut chart = ChartBuilder::on(&right)
        .caption("Update / parameter", ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(56)
        .build_cartesian_2d(0..STEPS, (1e-4..1.0).log_scale())?;
    chart.configure_mesh().x_desc("step").y_label_formatter(&|ratio| format!("{ratio:.0e}")).draw()?;
    for (number, (path, points)) in ratios.iter().enumerate() {
        let color = Palette99::pick(number).to_rgba();
        let line =
            LineSeries::new(points.iter().map(|(step, ratio)| (*step, ratio.clamp(1e-4, 1.0))), color.stroke_width(2));
        chart.draw_series(line)?.label(path).legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], color));
    }
    chart
        .configure_series_labels()
        .background_style(WHITE.mix(0.8))
        .position(SeriesLabelPosition::UpperRight)
        .draw()?;
    Ok(area.present()?)
}

fn main() -> Result<(), Box<dyn Error>> {
    let (x, y) = spirals();
    let mut model = Mlp { hidden: dense(2, 32, 0.5), middle: dense(32, 32, 1.5), output: dense(32, 1, 2.5) };
    let mut opt = AdamW::new(1e-3).group("**.bias", Group::no_decay()).clip_global_norm(1.0);
    let curve = RangeTest::new(1e-6, 10.0, 200).run(&mut opt, &mut model, |model| backward(model, &x, &y))?;
    let rate = curve.valley().ok_or("a test of 200 steps has a suggestion")?;

    fs::create_dir_all("target")?;
    opt.set_learning_rate(rate);
    let mut opt = opt.monitor(Monitor::every(10).csv("target/monitor.csv"));
    let (mut ratios, mut loss) = (BTreeMap::<String, Vec<(u64, f64)>>::new(), f32::NAN);
    for step in 0..STEPS {
        let grads;
        (loss, grads) = backward(&model, &x, &y);
        let report = opt.step_with_loss(&mut model, &grads, loss)?;
        for tensor in report.tensors().unwrap_or_default() {
            ratios.entry(tensor.path.clone()).or_default().push((step, tensor.ratio()));
        }
    }
    draw(&curve, rate, &ratios)?;
    println!("learning rate {rate:.1e}, loss {loss:.4}; pictures in target/monitor.svg, numbers in target/monitor.csv");
    let last = ratios.values().filter_map(|points| points.last()).map(|(_, ratio)| *ratio);
    assert!(loss < 0.1 && ratios.len() == 6 && last.fold(0.0, f64::max) < 0.05, "{loss}");
    Ok(())
}
