//! Low-rank adapters against their mathematics, and against peft.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cancellation;
mod gradients;
mod laws;
mod layers;
mod peft;
mod refusals;

use gradus::lora::{Config, Lora};
use ndarray::Array2;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// A number in −1 … 1.
pub(crate) fn number(i: usize) -> f64 {
    ((i * 104_729) as f64 * 0.37).sin()
}

pub(crate) fn matrix(rows: usize, columns: usize, phase: usize) -> Array2<f64> {
    Array2::from_shape_fn((rows, columns), |(i, j)| number(i * columns + j + 31 * phase))
}

pub(crate) fn rng() -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(5)
}

/// An adapter that is under way: B and the magnitude are not what they begin with.
pub(crate) fn trained(config: Config, weight: &Array2<f64>) -> Lora<f64> {
    let mut adapter = config.adapt(weight, &mut rng()).unwrap();
    adapter.lora_b.indexed_iter_mut().for_each(|((i, j), b)| *b = 0.3 * number(7 * i + j));
    adapter.magnitude.iter_mut().flatten().enumerate().for_each(|(i, m)| *m *= 1.0 + 0.2 * number(i));
    adapter
}
