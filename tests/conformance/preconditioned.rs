//! The rows of SOAP, KL-SOAP and PSGD Kron, and their update rules as the docs give them.

use faer::Side;
use gradus::optimizer::{KronMemory, KronProbe};
use gradus::prelude::*;
use ndarray::{Array2, Axis};

use super::matrices::decomposition::{faer, ndarray};
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
        Row { name: "soap, normalized, uncorrected", slots: SOAP, rests: true, parabola: 0.03, rosenbrock: (1e-2, 10_000),
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
        Row { name: "kron", slots: &["momentum_buffer", "left", "right", "update_counter"], rests: true, parabola: 0.1, rosenbrock: (1e-2, 10_000),
            pinned: Pinned::Near(-0.5082957251417624),
            optimizer: |lr| Box::new(Kron::new(lr).probe(KronProbe::from_fn(|_, step, at| probe(step, at)))),
            oracle: Oracle::Matrix(|t, lr, p, g, memory| kron(t, lr, p, g, memory, &KRONS)) },
        Row { name: "kron, rows diagonal, every third step, of the gradient, weight decay", slots: &["momentum_buffer", "left", "right", "update_counter"],
            rests: false, parabola: 0.1, rosenbrock: (1e-2, 10_000),
            pinned: Pinned::Near(-0.5084448477656884),
            optimizer: |lr| Box::new(Kron::new(lr).probe(KronProbe::from_fn(|_, step, at| probe(step, at))).update_probability(0.4)
                .momentum_into_precond_update(false).memory_save_mode(KronMemory::AllDiag).precond_init_scale(0.25).precond_lr(0.2).clip_rms(0.5)
                .momentum(0.5).weight_decay(0.01)),
            oracle: Oracle::Matrix(|t, lr, p, g, memory| {
                kron(t, lr, p, g, memory, &Krons { momentum: 0.5, decay: 0.01, every: 3, of_momentum: false, diagonal: true,
                    scale: 0.25, rate: 0.2, clip: 0.5 });
            }) },
    ]
}

/// The settings of a row of Kron.
struct Krons {
    momentum: f64,
    decay: f64,
    every: i32,
    of_momentum: bool,
    diagonal: bool,
    scale: f64,
    rate: f64,
    clip: f64,
}

const KRONS: Krons =
    Krons { momentum: 0.9, decay: 0.0, every: 1, of_momentum: true, diagonal: false, scale: 1.0, rate: 0.1, clip: 1.1 };

/// Numbers of mean 0 and variance 1 that differ at every step and element.
fn probe(step: u64, element: usize) -> f64 {
    3.0_f64.sqrt() * gradus::testing::tensors::number::<f64>(element as u64 + 900, step)
}

/// Memory: m, P, Q.
fn kron(t: i32, lr: f64, p: &mut Array2<f64>, g: &Array2<f64>, memory: &mut Vec<Array2<f64>>, how: &Krons) {
    let (rows, columns) = g.dim();
    if memory.is_empty() {
        let one = if g.len() == 1 { 1.0 } else { how.scale.sqrt() };
        let scale = if g.len() == 1 { how.scale } else { one };
        memory.extend([Array2::zeros(g.dim()), Array2::eye(rows) * scale, Array2::eye(columns) * one]);
    }
    memory[0] = &memory[0] * how.momentum + g * (1.0 - how.momentum);
    let mean = &memory[0] / (1.0 - how.momentum.powi(t));
    if t % how.every == 0 {
        let (left, right) = (memory[1].clone(), memory[2].clone());
        let a = left.dot(if how.of_momentum { &mean } else { g }).dot(&right.t());
        let v = Array2::from_shape_fn(g.dim(), |(i, j)| probe(t as u64, i * columns + j));
        let b = inverse(&left).t().dot(&v).dot(&inverse(&right));
        let learned = |q: &Array2<f64>, plus: Array2<f64>, minus: Array2<f64>| {
            let (sum, mut change) = (&plus + &minus, plus - minus);
            if how.diagonal || q.len() == 1 {
                let largest = sum.diag().fold(0.0, |a: f64, b| a.max(*b));
                return q - &(Array2::from_diag(&change.diag()) * how.rate / largest).dot(q);
            }
            change.indexed_iter_mut().for_each(|((i, j), x)| *x = if i > j { 0.0 } else { *x });
            let square = |row: &ndarray::ArrayView1<'_, f64>| row.dot(row);
            let longest = sum.rows().into_iter().max_by(|a, b| square(a).total_cmp(&square(b))).unwrap().to_owned();
            let image = sum.dot(&longest);
            let bound = sum.dot(&(&image / image.dot(&image).sqrt()));
            q - &(change * how.rate / bound.dot(&bound).sqrt()).dot(q)
        };
        memory[1] = learned(&left, a.dot(&a.t()), b.dot(&b.t()));
        if g.len() > 1 {
            memory[2] = learned(&right, a.t().dot(&a), b.t().dot(&b));
        }
    }
    let [left, right] = [1, 2].map(|at: usize| memory[at].t().dot(&memory[at]));
    let direction = left.dot(&mean).dot(&right);
    let rms = (&direction * &direction).mean().unwrap_or(0.0).sqrt();
    *p = &*p * (1.0 - lr * how.decay) - direction * (lr * (how.clip / (rms + 1e-6)).min(1.0));
}

/// By solving for the columns of the identity, upwards.
fn inverse(upper: &Array2<f64>) -> Array2<f64> {
    let n = upper.nrows();
    let mut inverse = Array2::eye(n);
    for column in 0..n {
        for row in (0..n).rev() {
            let known: f64 = (row + 1..n).map(|at| upper[[row, at]] * inverse[[at, column]]).sum();
            inverse[[row, column]] = (inverse[[row, column]] - known) / upper[[row, row]];
        }
    }
    inverse
}

/// The settings of a row of SOAP.
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
