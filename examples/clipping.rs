//! Gradient clipping: the same recurrent network, seed and learning rate, with clipping and without.
//!
//! In the *adding problem* (Hochreiter and Schmidhuber, 1997) the network reads 80 random numbers, two of them marked, and must output the sum of
//! the two. The error travels back through up to 80 steps, and every step multiplies it by about the same factor, so it grows or shrinks
//! exponentially. The network is that of Le, Jaitly and Hinton (2015, [arXiv:1504.00941](https://arxiv.org/abs/1504.00941)): rectified units whose
//! recurrent weights start as the identity, so that they keep everything they have read. When learning moves these weights slightly above the
//! identity, the gradient explodes (Pascanu, Mikolov and Bengio, 2013, [arXiv:1211.5063](https://arxiv.org/abs/1211.5063)), and one huge step
//! destroys the network.
//!
//! `clip_global_norm(0.2)` shortens such a step and keeps its direction. The two runs differ in nothing else. The picture is
//! `target/clipping.svg`.
//!
//! ```sh
//! cargo run --release --example clipping
//! ```

use std::error::Error;

use gradus::check;
use gradus::prelude::*;
use gradus::schedule::Cosine;
use indicatif::{ProgressBar, ProgressStyle};
use ndarray::linalg::general_mat_mul;
use ndarray::{Array0, Array1, Array2, Axis, Zip};
use plotters::coord::Shift;
use plotters::prelude::*;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const SEED: u64 = 1;
/// Initial weights with which the run without clipping ends in infinities.
const UNLUCKY_SEED: u64 = 5;
const LENGTH: usize = 80;
const HIDDEN: usize = 32;
const BATCH: usize = 16;
const STEPS: u64 = 6_000;
const WARMUP: u64 = 50;
const MOMENTUM: f64 = 0.9;
const MAX_NORM: f64 = 0.2;
/// What the net gains by answering 1, the mean: twice the variance of a uniform number.
const CHANCE: f64 = 1.0 / 6.0;
const PICTURE: &str = "target/clipping.svg";

fn main() -> Result<(), Box<dyn Error>> {
    check_gradient()?;

    // A bound that nothing exceeds clips nothing, but the norm is still reported.
    let mut unclipped = Momentum::new(learning_rate(), MOMENTUM).clip_global_norm(f64::MAX);
    let mut clipped = Momentum::new(learning_rate(), MOMENTUM).clip_global_norm(MAX_NORM);
    let runs = [train("no clipping", &mut unclipped)?, train("clipping to 0.2", &mut clipped)?];

    println!("{:<16} {:>14} {:>14} {:>20}", "", "largest norm", "largest loss", "mean loss at the end");
    println!("{:<16} {:>14} {:>14} {CHANCE:>20.4}", "answering 1", "", "");
    for run in &runs {
        println!("{:<16} {:>14.1} {:>14.1} {:>20.4}", run.name, max(&run.norms), max(&run.losses), run.final_loss());
    }
    draw(&runs)?;
    println!("picture: {PICTURE}\n");

    let skipped = not_finite()?;

    let [unclipped, clipped] = &runs;
    assert!(max(&unclipped.losses) > 50.0, "without clipping the loss explodes");
    assert!(unclipped.final_loss() > 0.8 * CHANCE, "and the net never learns");
    assert!(max(&clipped.norms) > 5.0 * MAX_NORM, "with clipping there are cliffs too");
    assert!(clipped.final_loss() < 0.2 * CHANCE, "but the net learns");
    assert_eq!(skipped, 20, "from infinite weights no step leads back");
    Ok(())
}

fn learning_rate() -> impl Schedule {
    Cosine::new(0.05, STEPS - WARMUP).warmup(WARMUP)
}

/// What one training run left behind.
struct Run {
    name: &'static str,
    losses: Vec<f64>,
    /// Gradient norms before clipping.
    norms: Vec<f64>,
}

impl Run {
    fn final_loss(&self) -> f64 {
        let last = &self.losses[self.losses.len() - 500..];
        last.iter().sum::<f64>() / last.len() as f64
    }
}

fn max(values: &[f64]) -> f64 {
    values.iter().copied().fold(0.0, f64::max)
}

fn train(name: &'static str, opt: &mut dyn Optimizer<f64>) -> Result<Run, Box<dyn Error>> {
    let mut rng = ChaCha8Rng::seed_from_u64(SEED);
    let mut net = Rnn::new(&mut rng);
    let mut run = Run { name, losses: Vec::new(), norms: Vec::new() };
    let style = ProgressStyle::with_template("{msg:<16} {bar:40} {pos}/{len} steps, {eta} left")?;
    let bar = ProgressBar::new(STEPS).with_style(style).with_message(name);
    for _ in 0..STEPS {
        let (loss, grads) = net.backward(&Batch::new(&mut rng));
        let report = opt.step(&mut net, &grads)?;
        run.losses.push(loss);
        run.norms.extend(report.grad_norm);
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(run)
}

/// Other initial weights, no clipping: soon nothing is finite any more. Returns how many of twenty steps are skipped
/// then.
fn not_finite() -> Result<u64, Box<dyn Error>> {
    let mut rng = ChaCha8Rng::seed_from_u64(UNLUCKY_SEED);
    let mut net = Rnn::new(&mut rng);

    // An error names the tensor and changes nothing …
    let mut opt = Momentum::new(learning_rate(), MOMENTUM).check_finite();
    let error = (0..STEPS).find_map(|_| {
        let (_, grads) = net.backward(&Batch::new(&mut rng));
        opt.step(&mut net, &grads).err()
    });
    let error = error.ok_or("no step was refused")?;
    println!("no clipping, other initial weights, after {} steps: {error}", opt.steps());
    assert!(matches!(error, gradus::Error::Step(gradus::error::StepError::NonFiniteGradient { .. })));

    // … and a skipped step changes nothing either: the weights that gave this gradient give the next one.
    let mut opt = opt.into_inner().skip_nonfinite();
    let before = net.clone();
    for _ in 0..20 {
        let (_, grads) = net.backward(&Batch::new(&mut rng));
        opt.step(&mut net, &grads)?;
    }
    assert_eq!(net.recurrent, before.recurrent);
    println!("skipping such steps is no cure: {} of the next 20 are skipped", opt.skipped());
    Ok(opt.skipped())
}

/// An Elman net with rectified units and one number as its answer.
#[derive(Params, Clone)]
struct Rnn {
    input: Array2<f64>,
    recurrent: Array2<f64>,
    bias: Array1<f64>,
    output: Array1<f64>,
    offset: Array0<f64>,
}

impl Rnn {
    fn new(rng: &mut impl Rng) -> Self {
        let mut small = || rng.random_range(-0.1..0.1);
        Self {
            input: Array2::from_shape_simple_fn((2, HIDDEN), &mut small),
            recurrent: Array2::eye(HIDDEN),
            bias: Array1::zeros(HIDDEN),
            output: Array1::from_shape_simple_fn(HIDDEN, &mut small),
            offset: Array0::zeros(()),
        }
    }

    /// The states before and after every step, and what the answers are too large by.
    fn forward(&self, batch: &Batch) -> (Vec<Array2<f64>>, Array1<f64>) {
        let mut states = vec![Array2::zeros((BATCH, HIDDEN))];
        for (t, input) in batch.inputs.iter().enumerate() {
            let mut state = input.dot(&self.input) + &self.bias;
            general_mat_mul(1.0, &states[t], &self.recurrent, 1.0, &mut state);
            state.mapv_inplace(|x: f64| x.max(0.0));
            states.push(state);
        }
        let errors = states[LENGTH].dot(&self.output) + &self.offset - &batch.sums;
        (states, errors)
    }

    fn loss(&self, batch: &Batch) -> f64 {
        mean_square(&self.forward(batch).1)
    }

    /// The mean squared error and its gradient, by back-propagation through time.
    fn backward(&self, batch: &Batch) -> (f64, Self) {
        let (states, errors) = self.forward(batch);
        let loss = mean_square(&errors);
        let errors = errors * (2.0 / BATCH as f64);
        let mut grads = Self {
            input: Array2::zeros((2, HIDDEN)),
            recurrent: Array2::zeros((HIDDEN, HIDDEN)),
            bias: Array1::zeros(HIDDEN),
            output: states[LENGTH].t().dot(&errors),
            offset: Array0::from_elem((), errors.sum()),
        };
        let mut flow = errors.insert_axis(Axis(1)).dot(&self.output.view().insert_axis(Axis(0)));
        for (t, input) in batch.inputs.iter().enumerate().rev() {
            Zip::from(&mut flow)
                .and(&states[t + 1])
                .for_each(|flow, &state| *flow = if state > 0.0 { *flow } else { 0.0 });
            general_mat_mul(1.0, &input.t(), &flow, 1.0, &mut grads.input);
            general_mat_mul(1.0, &states[t].t(), &flow, 1.0, &mut grads.recurrent);
            grads.bias += &flow.sum_axis(Axis(0));
            flow = flow.dot(&self.recurrent.t());
        }
        (loss, grads)
    }
}

fn mean_square(errors: &Array1<f64>) -> f64 {
    errors.dot(errors) / errors.len() as f64
}

/// Sequences of numbers from 0 to 1, two in each marked by a 1 beside them, and the sums of those two.
struct Batch {
    /// For each time, an array of sequence × (number, mark).
    inputs: Vec<Array2<f64>>,
    sums: Array1<f64>,
}

impl Batch {
    fn new(rng: &mut impl Rng) -> Self {
        let mut inputs = vec![Array2::zeros((BATCH, 2)); LENGTH];
        inputs.iter_mut().for_each(|input| input.column_mut(0).mapv_inplace(|_| rng.random()));
        let mut sums = Array1::zeros(BATCH);
        for (sequence, sum) in sums.iter_mut().enumerate() {
            for time in [rng.random_range(..LENGTH / 2), rng.random_range(LENGTH / 2..LENGTH)] {
                inputs[time][[sequence, 1]] = 1.0;
                *sum += inputs[time][[sequence, 0]];
            }
        }
        Self { inputs, sums }
    }
}

/// Some elements of the gradient against difference quotients of the loss.
fn check_gradient() -> gradus::Result<()> {
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    let (mut net, batch) = (Rnn::new(&mut rng), Batch::new(&mut rng));
    let (_, grads) = net.backward(&batch);
    let found = check::Gradients::new().sample(32, 2).compare(&mut net, &grads, |net| net.loss(&batch))?;
    println!("{found}\n");
    assert!(found.worst_error() < 1e-6);
    Ok(())
}

fn draw(runs: &[Run]) -> Result<(), Box<dyn Error>> {
    std::fs::create_dir_all("target")?;
    let root = SVGBackend::new(PICTURE, (900, 760)).into_drawing_area();
    root.fill(&WHITE)?;
    let (top, bottom) = root.split_vertically(380);
    let mean = |window: &[f64]| window.iter().sum::<f64>() / window.len() as f64;
    let series = |values: fn(&Run) -> &[f64], f: fn(&[f64]) -> f64| {
        runs.iter().map(|run| (run.name, values(run).chunks(20).map(f).collect())).collect::<Vec<_>>()
    };
    panel(&top, "loss (mean of 20 steps)", &series(|run| &run.losses, mean), (CHANCE, "answering 1 always"))?;
    panel(&bottom, "gradient norm (largest of 20 steps)", &series(|run| &run.norms, max), (MAX_NORM, "max_norm"))?;
    root.present()?;
    Ok(())
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Curves over the steps, on a logarithmic scale, with one level marked.
fn panel(
    area: &Area<'_>,
    title: &str,
    curves: &[(&str, Vec<f64>)],
    (level, level_name): (f64, &str),
) -> Result<(), Box<dyn Error>> {
    let values = || curves.iter().flat_map(|(_, values)| values).copied().filter(|value| *value > 0.0);
    let (low, high) = (values().fold(level, f64::min) / 2.0, values().fold(level, f64::max) * 2.0);
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 20))
        .margin(12)
        .margin_right(24)
        .x_label_area_size(40)
        .y_label_area_size(70)
        .build_cartesian_2d(0.0..STEPS as f64, (low..high).log_scale())?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_desc("step")
        .x_label_formatter(&|step| format!("{step:.0}"))
        .y_label_formatter(&|value| format!("{value:.0e}"))
        .label_style(("sans-serif", 14))
        .draw()?;
    for (number, (name, values)) in curves.iter().enumerate() {
        let style = [RGBColor(200, 60, 40), RGBColor(40, 90, 170)][number % 2].stroke_width(2);
        let points = values.iter().enumerate().map(|(at, value)| ((at * 20) as f64, *value));
        chart
            .draw_series(LineSeries::new(points, style))?
            .label(*name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], style));
    }
    let style = BLACK.stroke_width(1);
    let ends = [(0.0, level), (STEPS as f64, level)];
    chart
        .draw_series(DashedLineSeries::new(ends, 6, 4, style))?
        .label(level_name)
        .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], style));
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.85))
        .border_style(BLACK.mix(0.3))
        .label_font(("sans-serif", 15))
        .draw()?;
    Ok(())
}
