//! A recurrent net on long sequences: with clipping it learns, without it diverges.

use std::error::Error;

use gradus::params::{Params, ParamsMut, Visitor, VisitorMut};
use gradus::prelude::*;
use ndarray::linalg::general_mat_mul;
use ndarray::{Array0, Array1, Array2, Axis, Zip};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use std::sync::LazyLock;
static L: LazyLock<usize> = LazyLock::new(|| std::env::var("T").unwrap().parse().unwrap());
const HIDDEN: usize = 32;
const BATCH: usize = 16;

struct Rnn {
    input: Array2<f64>,
    recurrent: Array2<f64>,
    bias: Array1<f64>,
    output: Array1<f64>,
    offset: Array0<f64>,
}

impl Params for Rnn {
    type Elem = f64;
    fn visit<'a>(&'a self, visitor: &mut Visitor<'_, 'a, f64>) {
        visitor.field("input", &self.input);
        visitor.field("recurrent", &self.recurrent);
        visitor.field("bias", &self.bias);
        visitor.field("output", &self.output);
        visitor.field("offset", &self.offset);
    }
}
impl ParamsMut for Rnn {
    fn visit_mut<'a>(&'a mut self, visitor: &mut VisitorMut<'_, 'a, f64>) {
        visitor.field("input", &mut self.input);
        visitor.field("recurrent", &mut self.recurrent);
        visitor.field("bias", &mut self.bias);
        visitor.field("output", &mut self.output);
        visitor.field("offset", &mut self.offset);
    }
}

struct Batch {
    steps: Vec<Array2<f64>>,
    targets: Array1<f64>,
}

impl Batch {
    fn new(length: usize, size: usize, rng: &mut impl rand::Rng) -> Self {
        let mut steps: Vec<Array2<f64>> =
            (0..length).map(|_| Array2::from_shape_fn((size, 2), |(_, i)| if i == 0 { rng.random() } else { 0.0 })).collect();
        let targets = (0..size)
            .map(|row| {
                let marked = [rng.random_range(0..length / 2), rng.random_range(length / 2..length)];
                marked.map(|t| steps[t][[row, 1]] = 1.0);
                marked.map(|t| steps[t][[row, 0]]).iter().sum()
            })
            .collect();
        Self { steps, targets }
    }
}

impl Rnn {
    fn new(rng: &mut impl rand::Rng, std: f64) -> Self {
        let mut uniform = |a: f64| a * (2.0 * rng.random::<f64>() - 1.0);
        Self {
            input: Array2::from_shape_simple_fn((2, HIDDEN), || uniform(std)),
            recurrent: Array2::eye(HIDDEN),
            bias: Array1::zeros(HIDDEN),
            output: Array1::from_shape_simple_fn(HIDDEN, || uniform(std)),
            offset: Array0::zeros(()),
        }
    }

    fn backward(&self, batch: &Batch) -> (f64, Self) {
        let size = batch.targets.len();
        let mut states = vec![Array2::zeros((size, HIDDEN))];
        for (t, input) in batch.steps.iter().enumerate() {
            let mut state = input.dot(&self.input) + &self.bias;
            general_mat_mul(1.0, &states[t], &self.recurrent, 1.0, &mut state);
            state.mapv_inplace(|x: f64| x.max(0.0));
            states.push(state);
        }
        let errors = states[batch.steps.len()].dot(&self.output) + &self.offset - &batch.targets;
        let loss = errors.mapv(|e| e * e).mean().unwrap_or(f64::NAN);

        let errors = errors * (2.0 / size as f64);
        let mut grads = Self {
            input: Array2::zeros(self.input.raw_dim()),
            recurrent: Array2::zeros(self.recurrent.raw_dim()),
            bias: Array1::zeros(HIDDEN),
            output: states[batch.steps.len()].t().dot(&errors),
            offset: Array0::from_elem((), errors.sum()),
        };
        let column = errors.insert_axis(Axis(1));
        let row = self.output.view().insert_axis(Axis(0));
        let mut flow = column.dot(&row);
        for (t, input) in batch.steps.iter().enumerate().rev() {
            Zip::from(&mut flow).and(&states[t + 1]).for_each(|flow, state| if *state <= 0.0 { *flow = 0.0 });
            general_mat_mul(1.0, &input.t(), &flow, 1.0, &mut grads.input);
            general_mat_mul(1.0, &states[t].t(), &flow, 1.0, &mut grads.recurrent);
            grads.bias += &flow.sum_axis(Axis(0));
            flow = flow.dot(&self.recurrent.t());
        }
        (loss, grads)
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let a: Vec<f64> = std::env::args().skip(1).map(|x| x.parse().unwrap()).collect();
    let (lr, mom, clip, std, n, seed) = (a[0], a[1], a[2], a[3], a[4] as usize, a[5] as u64);
    let start = std::time::Instant::now();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut model = Rnn::new(&mut rng, std);
    let mut opt = Momentum::new(lr, mom).clip_global_norm(clip);
    let (mut avg, mut maxn) = (0.0, 0.0_f64);
    for step in 0..n {
        let batch = Batch::new(*L, BATCH, &mut rng);
        let (loss, grads) = model.backward(&batch);
        let report = opt.step(&mut model, &grads)?;
        avg += loss;
        maxn = maxn.max(report.grad_norm.unwrap());
        if clip > 1e10 && step < 60 { println!("{step} {loss:.4} {:.3}", report.grad_norm.unwrap()); }
        if step % 200 == 199 {
            println!("{step} {:.5} {maxn:.2} {:?}", avg / 200.0, start.elapsed());
            avg = 0.0;
            maxn = 0.0;
        }
    }
    Ok(())
}
