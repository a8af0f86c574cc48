//! The rows of optimizers that need norms or means of a tensor, and their update rules as the docs give them.

use gradus::prelude::*;
use ndarray::Array2;

use super::rows::{Oracle, Pinned, Row};

/// Every row, for one element type.
#[rustfmt::skip]
pub(crate) fn rows<A: Scalar>() -> Vec<Row<A>> {
    vec![
        Row { name: "lamb", slots: MOMENTS, rests: false, parabola: 0.1, rosenbrock: (1e-2, 20_000),
            pinned: Pinned::Near(-0.5094126574642555),
            optimizer: |lr| Box::new(Lamb::new(lr)),
            oracle: Oracle::Matrix(|t, lr, p, g, memory| lamb(t, lr, p, g, memory, [0.9, 0.999, 1e-6, 0.01])) },
        Row { name: "lamb, betas, eps, no decay", slots: MOMENTS, rests: true, parabola: 0.1, rosenbrock: (1e-2, 20_000),
            pinned: Pinned::Near(-0.5148399754059401),
            optimizer: |lr| Box::new(Lamb::new(lr).beta1(0.8).beta2(0.98).eps(1e-3).weight_decay(0.0)),
            oracle: Oracle::Matrix(|t, lr, p, g, memory| lamb(t, lr, p, g, memory, [0.8, 0.98, 1e-3, 0.0])) },
        Row { name: "lars", slots: &["momentum_buffer"], rests: true, parabola: 10.0, rosenbrock: (1.0, 20_000),
            pinned: Pinned::Near(-0.5086998635775027),
            optimizer: |lr| Box::new(Lars::new(lr, 0.9)),
            oracle: Oracle::Matrix(|_, lr, p, g, memory| {
                let (g, v) = lars(p, g, memory, [0.9, 1e-3, 1e-8, 0.0]);
                let _ = g;
                *p -= &(v * lr);
            }) },
        Row { name: "lars, nesterov, weight decay", slots: &["momentum_buffer"], rests: false, parabola: 0.1, rosenbrock: (1e-2, 20_000),
            pinned: Pinned::Near(-0.517775771593992),
            optimizer: |lr| Box::new(Lars::new(lr, 0.8).nesterov(true).weight_decay(0.01).trust_coefficient(0.1).eps(1e-3)),
            oracle: Oracle::Matrix(|_, lr, p, g, memory| {
                let (g, v) = lars(p, g, memory, [0.8, 0.1, 1e-3, 0.01]);
                *p -= &((g + v * 0.8) * lr);
            }) },
        Row { name: "stableadamw", slots: MOMENTS, rests: false, parabola: 0.1, rosenbrock: (1e-2, 10_000),
            pinned: Pinned::Near(-0.48603318651702343),
            optimizer: |lr| Box::new(StableAdamW::new(lr)),
            oracle: Oracle::Matrix(|t, lr, p, g, memory| {
                let (direction, v) = adam(t, g, memory, [0.9, 0.99, 1e-6]);
                let relative = (g * g / v.mapv(|v| v.max(1e-12))).mean().unwrap_or(0.0);
                let lr = lr / relative.sqrt().max(1.0);
                *p = &*p * (1.0 - lr * 0.01) - direction * lr;
            }) },
    ]
}

const MOMENTS: &[&str] = &["exp_avg", "exp_avg_sq"];

fn norm(matrix: &Array2<f64>) -> f64 {
    matrix.iter().map(|x| x * x).sum::<f64>().sqrt()
}

/// Adam's direction and the corrected second moment.
fn adam(
    t: i32,
    grad: &Array2<f64>,
    memory: &mut Vec<Array2<f64>>,
    [beta1, beta2, eps]: [f64; 3],
) -> (Array2<f64>, Array2<f64>) {
    memory.resize(2, Array2::zeros(grad.dim()));
    memory[0] = &memory[0] * beta1 + grad * (1.0 - beta1);
    memory[1] = &memory[1] * beta2 + grad * grad * (1.0 - beta2);
    let v = &memory[1] / (1.0 - beta2.powi(t));
    (&memory[0] / (1.0 - beta1.powi(t)) / (v.mapv(f64::sqrt) + eps), v)
}

fn lamb(
    t: i32,
    learning_rate: f64,
    param: &mut Array2<f64>,
    grad: &Array2<f64>,
    memory: &mut Vec<Array2<f64>>,
    [beta1, beta2, eps, decay]: [f64; 4],
) {
    let update = adam(t, grad, memory, [beta1, beta2, eps]).0 + &*param * decay;
    let (length, of_update) = (norm(param), norm(&update));
    let ratio = if length > 0.0 && of_update > 0.0 { length / of_update } else { 1.0 };
    *param -= &(update * (learning_rate * ratio));
}

/// The scaled gradient and the velocity.
fn lars(
    param: &Array2<f64>,
    grad: &Array2<f64>,
    memory: &mut Vec<Array2<f64>>,
    [momentum, coefficient, eps, decay]: [f64; 4],
) -> (Array2<f64>, Array2<f64>) {
    memory.resize(1, Array2::zeros(grad.dim()));
    let (length, of_grad) = (norm(param), norm(grad));
    let ratio =
        if length > 0.0 && of_grad > 0.0 { coefficient * length / (of_grad + decay * length + eps) } else { 1.0 };
    let grad = (grad + param * decay) * ratio;
    memory[0] = &memory[0] * momentum + &grad;
    (grad, memory[0].clone())
}
