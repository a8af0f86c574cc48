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
        Row { name: "mars", slots: CORRECTED, rests: true, parabola: 0.1, rosenbrock: (1e-2, 20_000),
            pinned: Pinned::Near(-0.49630230928569224),
            optimizer: |lr| Box::new(Mars::new(lr)),
            oracle: Oracle::Matrix(|t, lr, p, g, memory| {
                let (m, v) = mars(g, memory, [0.95, 0.99, 0.025], false);
                *p -= &(adamw(&m, &v, [0.95, 0.99, 1e-8], t) * lr);
            }) },
        Row { name: "mars, plain first step, betas, gamma, eps, weight decay", slots: CORRECTED, rests: false, parabola: 0.1,
            rosenbrock: (1e-2, 20_000), pinned: Pinned::Near(-0.48130638330749864),
            optimizer: |lr| Box::new(
                Mars::new(lr).beta1(0.9).beta2(0.98).gamma(0.2).eps(1e-3).weight_decay(0.1).plain_first_step(true).vectors(true)),
            oracle: Oracle::Matrix(|t, lr, p, g, memory| {
                let (m, v) = mars(g, memory, [0.9, 0.98, 0.2], t == 1);
                *p = &*p * (1.0 - lr * 0.1) - adamw(&m, &v, [0.9, 0.98, 1e-3], t) * lr;
            }) },
        Row { name: "marslion", slots: CORRECTED, rests: true, parabola: 0.1, rosenbrock: (1e-3, 20_000),
            pinned: Pinned::Near(-0.5227887689864039),
            optimizer: |lr| Box::new(MarsLion::new(lr)),
            oracle: Oracle::Matrix(|_, lr, p, g, memory| {
                let (m, _) = mars(g, memory, [0.95, 0.99, 0.025], false);
                p.zip_mut_with(&m, |p, m| *p -= if *m == 0.0 { 0.0 } else { lr * m.signum() });
            }) },
        Row { name: "marslion, vectors", slots: &["exp_avg", "last_grad"], rests: true, parabola: 0.1, rosenbrock: (1e-3, 20_000),
            pinned: Pinned::Near(-0.5227887689864039),
            optimizer: |lr| Box::new(MarsLion::new(lr).beta1(0.8).gamma(0.2).vectors(true)),
            oracle: Oracle::Matrix(|_, lr, p, g, memory| {
                let (m, _) = mars(g, memory, [0.8, 0.99, 0.2], false);
                p.zip_mut_with(&m, |p, m| *p -= if *m == 0.0 { 0.0 } else { lr * m.signum() });
            }) },
        Row { name: "novograd", slots: &["exp_avg"], rests: true, parabola: 0.01, rosenbrock: (1e-3, 20_000),
            pinned: Pinned::Near(-0.5280123130924841),
            optimizer: |lr| Box::new(NovoGrad::new(lr)),
            oracle: Oracle::Matrix(|t, lr, p, g, memory| {
                *p -= &(novograd(p, g, memory, [0.9, 0.25, 1e-6, 0.0, 1.0], t) * lr);
            }) },
        Row { name: "novograd, averaged, weight decay", slots: &["exp_avg"], rests: false, parabola: 0.1, rosenbrock: (1e-2, 20_000),
            pinned: Pinned::Near(-0.5015394124651457),
            optimizer: |lr| Box::new(NovoGrad::new(lr).beta1(0.8).beta2(0.98).eps(1e-3).weight_decay(0.01).grad_averaging(true)),
            oracle: Oracle::Matrix(|t, lr, p, g, memory| {
                let fresh = if t == 1 { 1.0 } else { 1.0 - 0.8 };
                *p -= &(novograd(p, g, memory, [0.8, 0.98, 1e-3, 0.01, fresh], t) * lr);
            }) },
    ]
}

const CORRECTED: &[&str] = &["exp_avg", "last_grad", "exp_avg_sq"];
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

/// Both moments of the corrected gradient.
fn mars(
    grad: &Array2<f64>,
    memory: &mut Vec<Array2<f64>>,
    [beta1, beta2, gamma]: [f64; 3],
    is_plain: bool,
) -> (Array2<f64>, Array2<f64>) {
    memory.resize(3, Array2::zeros(grad.dim()));
    let change = if is_plain { Array2::zeros(grad.dim()) } else { grad - &memory[2] };
    let corrected = grad + change * (gamma * beta1 / (1.0 - beta1));
    let corrected = &corrected / norm(&corrected).max(1.0);
    memory[0] = &memory[0] * beta1 + &corrected * (1.0 - beta1);
    memory[1] = &memory[1] * beta2 + &corrected * &corrected * (1.0 - beta2);
    memory[2] = grad.clone();
    (memory[0].clone(), memory[1].clone())
}

fn adamw(m: &Array2<f64>, v: &Array2<f64>, [beta1, beta2, eps]: [f64; 3], t: i32) -> Array2<f64> {
    m / (1.0 - beta1.powi(t)) / (v.mapv(|v| (v / (1.0 - beta2.powi(t))).sqrt()) + eps)
}

fn novograd(
    param: &Array2<f64>,
    grad: &Array2<f64>,
    memory: &mut Vec<Array2<f64>>,
    [beta1, beta2, eps, decay, fresh]: [f64; 5],
    t: i32,
) -> Array2<f64> {
    if memory.is_empty() {
        *memory = vec![Array2::zeros(grad.dim()), Array2::zeros((1, 1))];
    }
    let square = norm(grad).powi(2);
    let second = if t == 1 { square } else { beta2 * memory[1][[0, 0]] + (1.0 - beta2) * square };
    memory[1].fill(second);
    let divisor = second.sqrt() + eps;
    memory[0] = &memory[0] * beta1 + (grad / divisor + param * decay) * fresh;
    memory[0].clone()
}
