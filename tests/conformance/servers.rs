//! The rows of the adaptive server optimizers, with −Δ as the gradient.

use gradus::federated::{FedAdagrad, FedAdam, FedYogi};
use gradus::prelude::*;

use super::rows::Oracle::Element;
use super::rows::{Pinned, Row};

const MOMENTS: &[&str] = &["exp_avg", "exp_avg_sq"];

/// Every row, for one element type.
#[rustfmt::skip]
pub(crate) fn rows<A: Scalar>() -> Vec<Row<A>> {
    vec![
        Row { name: "fedadam", slots: MOMENTS, rests: true, parabola: 0.1, rosenbrock: (1e-2, 10_000),
            pinned: Pinned::Bits(0.65760183, 0.6576018213489694),
            optimizer: |lr| Box::new(FedAdam::new(lr)),
            oracle: Element(|t, lr, p, g, slots| step(t, lr, p, g, slots, |v, square| 0.99 * v + (1.0 - 0.99) * square)) },
        Row { name: "fedadam, flower, betas, tau, weight decay", slots: MOMENTS, rests: false, parabola: 0.1, rosenbrock: (1e-2, 10_000),
            pinned: Pinned::Bits(0.69363195, 0.693631975904702),
            optimizer: |lr| Box::new(FedAdam::new(lr).flower(true).beta1(0.8).beta2(0.98).tau(0.01).weight_decay(0.01)),
            oracle: Element(|t, lr, p, g, [m, v, ..]| {
                let g = g + 0.01 * p;
                *m = 0.8 * *m + (1.0 - 0.8) * g;
                *v = 0.98 * *v + (1.0 - 0.98) * g * g;
                let correction = (1.0 - 0.98_f64.powi(t + 1)).sqrt() / (1.0 - 0.8_f64.powi(t + 1));
                p - lr * correction * *m / (v.sqrt() + 0.01)
            }) },
        Row { name: "fedyogi", slots: MOMENTS, rests: true, parabola: 0.1, rosenbrock: (0.1, 10_000),
            pinned: Pinned::Bits(0.65791255, 0.6579124984201186),
            optimizer: |lr| Box::new(FedYogi::new(lr)),
            oracle: Element(|t, lr, p, g, slots| {
                step(t, lr, p, g, slots, |v, square| v - (1.0 - 0.99) * square * (v - square).signum())
            }) },
        Row { name: "fedadagrad", slots: MOMENTS, rests: true, parabola: 0.5, rosenbrock: (1.0, 10_000),
            pinned: Pinned::Bits(0.7406308, 0.7406308610033673),
            optimizer: |lr| Box::new(FedAdagrad::new(lr)),
            oracle: Element(|t, lr, p, g, slots| step(t, lr, p, g, slots, |v, square| v + square)) },
    ]
}

/// Algorithm 2 of the paper.
fn step(t: i32, lr: f64, param: f64, grad: f64, [m, v, ..]: &mut [f64; 4], second: fn(f64, f64) -> f64) -> f64 {
    *m = 0.9 * *m + (1.0 - 0.9) * grad;
    let before = if t == 1 { 1e-3_f64.powi(2) } else { *v };
    *v = second(before, grad * grad);
    param - lr * *m / (v.sqrt() + 1e-3)
}
