//! Two gradients a step: the calls, what is refused between them, and how `sam` goes with other adaptors.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod chains;
mod protocol;
#[cfg(feature = "distributed")]
mod ranks;

use gradus::prelude::*;
use ndarray::{Array1, Array2, ShapeBuilder};

type Pair = (Array2<f64>, Array1<f64>);

fn number(i: usize) -> f64 {
    ((i * 104_729) as f64 * 0.37).sin()
}

/// A matrix in either order and a vector.
fn pair_in(phase: usize, column_major: bool) -> Pair {
    let mut matrix = Array2::zeros((37, 71).set_f(column_major));
    matrix.indexed_iter_mut().for_each(|((i, j), x)| *x = number(i * 71 + j + phase));
    (matrix, Array1::from_shape_fn(5, |i| number(i + 9 * phase)))
}

fn pair(phase: usize) -> Pair {
    pair_in(phase, false)
}

/// The gradient of a loss that is no parabola, with noise for each step.
fn grads(params: &Pair, step: usize) -> Pair {
    let noise = pair(100 + 31 * step);
    (params.0.mapv(|w| w + 0.3 * w * w * w) + 0.1 * noise.0, params.1.mapv(|w| 2.0 * w) + noise.1)
}

fn bits(pair: &Pair) -> Vec<u64> {
    pair.0.iter().chain(&pair.1).map(|x| x.to_bits()).collect()
}

/// A step of two calls.
fn two_calls(opt: &mut (impl Optimizer<f64> + ?Sized), params: &mut Pair, step: usize) {
    let first = grads(params, step);
    assert!(opt.ascend(params, &first).unwrap().moved);
    let second = grads(params, step);
    assert!(opt.step(params, &second).unwrap().moved);
}

/// The point to which SAM goes, computed plainly.
fn perturbed(params: &Pair, grads: &Pair, rho: f64) -> Pair {
    let squares: f64 = grads.0.iter().chain(&grads.1).map(|g| g * g).sum();
    let scale = rho / (squares.sqrt() + 1e-12);
    (&params.0 + &(&grads.0 * scale), &params.1 + &(&grads.1 * scale))
}

/// The largest difference.
fn difference(a: &Pair, b: &Pair) -> f64 {
    let pairs = a.0.iter().chain(&a.1).zip(b.0.iter().chain(&b.1));
    pairs.fold(0.0, |most: f64, (a, b)| most.max((a - b).abs()))
}
