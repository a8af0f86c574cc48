//! The rows of SOAP and KL-SOAP, and their update rules as the docs give them.

use faer::Side;
use gradus::prelude::*;
use ndarray::{Array2, Axis};

use super::matrices::second_order::{faer, ndarray};
use super::rows::{Oracle, Pinned, Row};

const SOAP: &[&str] = &["exp_avg", "exp_avg_sq", "left", "right", "left_basis", "right_basis"];

#[rustfmt::skip]
pub(super) fn rows<A: Scalar>() -> Vec<Row<A>> {
    vec![
        Row { name: "soap", slots: SOAP, rests: false, parabola: 0.1, rosenbrock: (1e-2, 10_000),
            pinned: Pinned::Near(-0.5689426015024905),
            optimizer: |lr| Box::new(Soap::new(lr).every(3).weight_decay(1e-3)),
            oracle: Oracle::Matrix(|t, lr, p, g, memory| soap(t, lr, p, g, memory, &Soaps { decay: 1e-3, ..SOAPS })) },
        Row { name: "soap, no decay", slots: SOAP, rests: true, parabola: 0.1, rosenbrock: (1e-2, 10_000),
            pinned: Pinned::Near(-0.5690019744548516),
            optimizer: |lr| Box::new(Soap::new(lr).every(3).weight_decay(0.0)),
            oracle: Oracle::Matrix(|t, lr, p, g, memory| soap(t, lr, p, g, memory, &SOAPS)) },
        Row { name: "soap, nesterov, shampoo beta, one axis, every step", slots: SOAP, rests: true, parabola: 0.1, rosenbrock: (1e-2, 10_000),
            pinned: Pinned::Near(-0.5581759793109826),
            optimizer: |lr| Box::new(Soap::new(lr).every(1).nesterov(true).momentum_decay(0.1).shampoo_beta(0.8).precondition_1d(true)
                .weight_decay(0.0)),
            oracle: Oracle::Matrix(|t, lr, p, g, memory| {
                soap(t, lr, p, g, memory, &Soaps { every: 1, beta3: 0.8, nesterov: Some(0.1), ..SOAPS });
            }) },
        Row { name: "soap, normalized, uncorrected", slots: SOAP, rests: true, parabola: 0.3, rosenbrock: (1e-2, 10_000),
            pinned: Pinned::Near(-0.5894768796138662),
            optimizer: |lr| Box::new(Soap::new(lr).every(3).normalize_gradient(true).correct_bias(false).weight_decay(0.0)),
            oracle: Oracle::Matrix(|t, lr, p, g, memory| {
                soap(t, lr, p, g, memory, &Soaps { normalized: true, corrected: false, ..SOAPS });
            }) },
        Row { name: "klsoap", slots: SOAP, rests: false, parabola: 0.1, rosenbrock: (1e-2, 10_000),
            pinned: Pinned::Near(-0.5681362237947566),
            optimizer: |lr| Box::new(KlSoap::new(lr).every(3).weight_decay(1e-3).eps(1e-4)),
            oracle: Oracle::Matrix(|t, lr, p, g, memory| {
                soap(t, lr, p, g, memory, &Soaps { decay: 1e-3, eps: 1e-4, kl: true, ..SOAPS });
            }) },
    ]
}

/// The settings of a row.
struct Soaps {
    decay: f64,
    every: i32,
    eps: f64,
    beta3: f64,
    /// The momentum's decay ψ.
    nesterov: Option<f64>,
    corrected: bool,
    normalized: bool,
    kl: bool,
}

const SOAPS: Soaps = Soaps {
    decay: 0.0,
    every: 3,
    eps: 1e-8,
    beta3: 0.95,
    nesterov: None,
    corrected: true,
    normalized: false,
    kl: false,
};

/// Memory: m in the parameter's directions, v, L, R, P, Q.
fn soap(t: i32, lr: f64, p: &mut Array2<f64>, g: &Array2<f64>, memory: &mut Vec<Array2<f64>>, how: &Soaps) {
    *p *= 1.0 - lr * how.decay;
    if memory.is_empty() {
        memory.extend(vec![Array2::zeros(g.dim()); 6]);
    }
    let turned = g.len() > 1;
    if t > 1 {
        let (left, right, steps) = (memory[4].clone(), memory[5].clone(), t - 1);
        let own = left.t().dot(g).dot(&right);
        memory[0] = &memory[0] * 0.95 + g * (1.0 - 0.95);
        memory[1] = &memory[1] * 0.95 + &own * &own * (1.0 - 0.95);
        let mean = left.t().dot(&memory[0]).dot(&right);
        let bias = if how.corrected { 1.0 - 0.95_f64.powi(steps) } else { 1.0 };
        let mean = match how.nesterov {
            None => mean / bias,
            Some(decay) => {
                let momentum = |t: i32| 0.95 * (1.0 - 0.5 * 0.96_f64.powf(f64::from(t) * decay));
                let product: f64 = (1..=steps).map(momentum).product();
                mean * (momentum(t) / (1.0 - product * momentum(t))) + own * ((1.0 - momentum(steps)) / (1.0 - product))
            }
        };
        let step = mean / (memory[1].mapv(f64::sqrt) + how.eps);
        let mut step = left.dot(&step).dot(&right.t());
        if how.normalized {
            step /= (&step * &step).mean().unwrap_or(0.0).sqrt() + how.eps;
        }
        *p -= &(step * (lr * bias.sqrt()));
    }
    let (mut fresh, mut weight) = ([g.dot(&g.t()), g.t().dot(g)], 1.0 - how.beta3);
    if how.kl {
        weight /= 1.0 - how.beta3.powi(t);
        if t > 1 && turned {
            let inverse = |at: usize| {
                let basis = &memory[4 + at];
                let mut values = basis.t().dot(&memory[2 + at]).dot(basis).diag().to_owned();
                values.mapv_inplace(|x| 1.0 / (x.max(how.eps) * basis.nrows() as f64));
                (basis * &values).dot(&basis.t())
            };
            fresh = [g.dot(&inverse(1)).dot(&g.t()), g.t().dot(&inverse(0)).dot(g)];
        }
    }
    for (side, fresh) in fresh.into_iter().enumerate() {
        memory[2 + side] = &memory[2 + side] * (1.0 - weight) + fresh * weight;
    }
    for side in 0..2 {
        let n = memory[2 + side].nrows();
        if t == 1 {
            let vectors = ndarray(faer(&memory[2 + side]).self_adjoint_eigen(Side::Lower).unwrap().U());
            let falling: Vec<usize> = (0..n).rev().collect();
            let vectors = vectors.select(Axis(1), &falling);
            memory[4 + side] = if turned { vectors } else { Array2::eye(n) };
        } else if (t - 1) % how.every == 0 && turned {
            let moved = memory[2 + side].dot(&memory[4 + side]);
            let estimate: Vec<f64> = (0..n).map(|at| memory[4 + side].column(at).dot(&moved.column(at))).collect();
            let mut order: Vec<usize> = (0..n).collect();
            order.sort_by(|a, b| estimate[*b].total_cmp(&estimate[*a]));
            memory[1] = memory[1].select(Axis(side), &order);
            let moved = moved.select(Axis(1), &order);
            memory[4 + side] = ndarray(faer(&moved).qr().compute_thin_Q().as_ref());
        }
    }
}
