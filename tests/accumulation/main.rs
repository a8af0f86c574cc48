//! Micro-batches of different sizes, windows that end early, and windows that change: the step is the one on the large batch.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod chains;
mod describe;
#[cfg(feature = "distributed")]
mod ranks;
mod windows;

use std::ops::Range;

use gradus::prelude::*;
use ndarray::{Array1, Array2, Axis};

/// A matrix and a vector.
type Tree = (Array2<f64>, Array1<f64>);

/// The parts are summed in another order than the whole, which differs in the last bits of each step.
const ROUNDING: f64 = 1e-12;

/// Samples per epoch.
const SAMPLES: usize = 50;

fn number(stream: usize, index: usize) -> f64 {
    ((stream * 1013 + index * 7919) as f64 * 0.61).sin()
}

fn start() -> Tree {
    (Array2::from_shape_fn((4, 3), |(i, j)| number(1, 3 * i + j)), Array1::from_shape_fn(3, |i| number(2, i)))
}

/// The mean gradient of these samples, for half the squared error of tanh of a linear map.
fn grads(params: &Tree, samples: Range<usize>) -> Tree {
    let rows = samples.len();
    let x = Array2::from_shape_fn((rows, 4), |(i, j)| number(3, 4 * (samples.start + i) + j));
    let y = Array2::from_shape_fn((rows, 3), |(i, j)| number(4, 3 * (samples.start + i) + j));
    let out = (x.dot(&params.0) + &params.1).mapv(f64::tanh);
    let back = (&out - y) * out.mapv(|out| 1.0 - out * out) / rows as f64;
    (x.t().dot(&back), back.sum_axis(Axis(0)))
}

/// The largest difference of two trees, in terms of the largest element.
fn difference(found: &Tree, expected: &Tree) -> f64 {
    let all = |tree: &Tree| tree.0.iter().chain(&tree.1).copied().collect::<Vec<_>>();
    let (found, expected) = (all(found), all(expected));
    let largest = expected.iter().fold(0.0_f64, |largest, x| largest.max(x.abs()));
    found.iter().zip(&expected).fold(0.0_f64, |most, (a, b)| most.max((a - b).abs())) / largest
}

/// Two halves of a range.
fn cut(samples: Range<usize>, at: usize) -> [Range<usize>; 2] {
    let middle = samples.start + at;
    [samples.start..middle, middle..samples.end]
}

type Boxed = Box<dyn Optimizer<f64>>;

type Build = fn() -> Boxed;

/// Optimizers whose steps depend on the norm of the large batch, on its square, and on earlier steps.
fn optimizers() -> [(&'static str, Build); 4] {
    [
        ("sgd", || Sgd::new(0.5).boxed()),
        ("momentum, clipped", || Momentum::new(0.1, 0.9).clip_global_norm(0.1).boxed()),
        ("adamw, clipped", || AdamW::new(0.01).clip_per_tensor_norm(0.1).boxed()),
        ("adam, averaged", || Adam::new(0.01).ema(0.9).boxed()),
    ]
}
