//! The shortest training loop: find the weights of `y = X·w + b` from noisy measurements.
//!
//! ```sh
//! cargo run --release --example quickstart
//! ```
//!
//! You write the parameters (any struct of arrays), the gradient and the loop. The optimizer is one call: `opt.step(&mut model, &grads)?`.
//! Next, read the guide's page *training* for mini-batches, clipping and groups, and the example `digits` for a real network.

use gradus::prelude::*;
use gradus::schedule::Cosine;
use ndarray::{Array0, Array1, Array2, arr0, array};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// The parameters. Their gradient has the same shape, so it is a `Linear` too.
#[derive(Params, Debug)]
struct Linear {
    weight: Array1<f64>,
    bias: Array0<f64>,
}

impl Linear {
    /// The mean squared error and its gradient: calculus by hand, or any autodiff that you like.
    fn loss_and_grads(&self, x: &Array2<f64>, y: &Array1<f64>) -> (f64, Linear) {
        let (error, rows) = (x.dot(&self.weight) + &self.bias - y, y.len() as f64);
        let slope = 2.0 / rows * &error;
        (error.pow2().sum() / rows, Linear { weight: slope.dot(x), bias: arr0(slope.sum()) })
    }
}

fn main() -> gradus::Result<()> {
    let (true_weight, true_bias) = (array![2.0, -1.0, 0.5], 0.3);
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let x = Array2::from_shape_simple_fn((200, 3), || rng.random_range(-1.0..1.0));
    let noise = Array1::from_shape_simple_fn(200, || rng.random_range(-0.1..0.1));
    let y = x.dot(&true_weight) + true_bias + noise;

    let mut model = Linear { weight: Array1::zeros(3), bias: arr0(0.0) };
    let steps = 300;
    let mut opt = Adam::new(Cosine::new(0.1, steps)); // a learning rate that falls from 0.1 to 0; a number works too
    for step in 0..steps {
        let (loss, grads) = model.loss_and_grads(&x, &y);
        let report = opt.step(&mut model, &grads)?;
        if step % 50 == 0 {
            println!("step {step:3}   loss {loss:.5}   learning rate {:.4}", report.learning_rate);
        }
    }

    println!("\nfound w = {:.3}, b = {:.3}\ntrue  w = {true_weight:.3}, b = {true_bias:.3}", model.weight, model.bias);
    assert!((&model.weight - &true_weight).iter().all(|error| error.abs() < 0.02));
    assert!((model.bias[()] - true_bias).abs() < 0.02);
    Ok(())
}
