//! Muon, NorMuon, AdaMuon and Scion.

use gradus::optimizer::{MuonBlocks, MuonScale, ScionNorm};
use gradus::prelude::*;
use ndarray::{Array2, Axis, s};

use super::average;
use crate::rows::{Oracle, Pinned, Row};

#[rustfmt::skip]
pub(super) fn rows<A: Scalar>() -> Vec<Row<A>> {
    vec![
        Row { name: "muon", slots: &["momentum_buffer"], rests: false, parabola: 0.1, rosenbrock: (0.02, 10_000),
            pinned: Pinned::Near(-0.5448322181692615),
            optimizer: |lr| Box::new(Muon::new(lr)), oracle: Oracle::Matrix(|_, lr, p, g, memory| {
                let u = average(memory, g, 0.95);
                *p = &*p * (1.0 - lr * 0.1) - newton_schulz(&(g * 0.05 + u * 0.95)) * (lr * original_scale(g));
            }) },
        Row { name: "muon, no nesterov, no decay, match rms", slots: &["momentum_buffer"], rests: true,
            parabola: 0.1, rosenbrock: (0.02, 10_000),
            pinned: Pinned::Near(-0.5245506481250563),
            optimizer: |lr| Box::new(Muon::new(lr).momentum(0.9).nesterov(false).weight_decay(0.0).match_rms_adamw(true)),
            oracle: Oracle::Matrix(|_, lr, p, g, memory| {
                let u = average(memory, g, 0.9);
                *p -= &(newton_schulz(&u) * (lr * 0.2 * (g.nrows().max(g.ncols()) as f64).sqrt()));
            }) },
        Row { name: "muon, own coefficients, 3 iterations, rms to rms", slots: &["momentum_buffer"], rests: true,
            parabola: 0.1, rosenbrock: (0.02, 10_000),
            pinned: Pinned::Near(-0.5445788710549295),
            optimizer: |lr| Box::new(Muon::new(lr).coefficients(OWN).iterations(3).scale(MuonScale::RmsToRms).weight_decay(0.0)),
            oracle: Oracle::Matrix(|_, lr, p, g, memory| {
                let u = average(memory, g, 0.95);
                let scale = (g.nrows() as f64 / g.ncols() as f64).sqrt();
                *p -= &(iterated(&(g * 0.05 + u * 0.95), &[OWN[0], OWN[1], OWN[1]]) * (lr * scale));
            }) },
        Row { name: "muon, each row a block", slots: &["momentum_buffer"], rests: true,
            parabola: 0.1, rosenbrock: (0.02, 10_000),
            pinned: Pinned::Near(-0.520782918271499),
            optimizer: |lr| Box::new(Muon::new(lr).blocks(MuonBlocks::Rows(1)).weight_decay(0.0)),
            oracle: Oracle::Matrix(|_, lr, p, g, memory| {
                let u = average(memory, g, 0.95);
                let u = g * 0.05 + u * 0.95;
                for (mut row, u) in p.rows_mut().into_iter().zip(u.rows()) {
                    row -= &(newton_schulz(&u.insert_axis(Axis(0)).to_owned()).row(0).to_owned() * lr);
                }
            }) },
        Row { name: "normuon", slots: &["momentum_buffer", "second_momentum_buffer"], rests: true,
            parabola: 0.3, rosenbrock: (0.1, 10_000),
            pinned: Pinned::Near(-0.5296563051018668),
            optimizer: |lr| Box::new(NorMuon::new(lr)), oracle: Oracle::Matrix(|_, lr, p, g, memory| {
                let mean = |x: &Array2<f64>| x.mapv(|x| x * x).mean_axis(Axis(1)).unwrap().insert_axis(Axis(1));
                *p -= &(adaptive(g, memory, mean) * lr);
            }) },
        Row { name: "adamuon", slots: &["momentum_buffer", "second_momentum_buffer"], rests: true,
            parabola: 0.3, rosenbrock: (0.1, 10_000),
            pinned: Pinned::Near(-0.5320492836578161),
            optimizer: |lr| Box::new(AdaMuon::new(lr)), oracle: Oracle::Matrix(|_, lr, p, g, memory| {
                *p -= &(adaptive(g, memory, |x| x.mapv(|x| x * x)) * lr);
            }) },
        Row { name: "normuon, each row a block", slots: &["momentum_buffer", "second_momentum_buffer"], rests: true,
            parabola: 0.3, rosenbrock: (0.1, 10_000),
            pinned: Pinned::Near(-0.5164311171155311),
            optimizer: |lr| Box::new(NorMuon::new(lr).blocks(MuonBlocks::Rows(1))), oracle: Oracle::Matrix(|_, lr, p, g, memory| {
                let mean = |x: &Array2<f64>| x.mapv(|x| x * x).mean_axis(Axis(1)).unwrap().insert_axis(Axis(1));
                *p -= &(adaptive_rows(g, memory, 1, mean) * lr);
            }) },
        Row { name: "adamuon, each row a block", slots: &["momentum_buffer", "second_momentum_buffer"], rests: true,
            parabola: 0.3, rosenbrock: (0.1, 10_000),
            pinned: Pinned::Near(-0.5149866361256065),
            optimizer: |lr| Box::new(AdaMuon::new(lr).blocks(MuonBlocks::Rows(1))), oracle: Oracle::Matrix(|_, lr, p, g, memory| {
                *p -= &(adaptive_rows(g, memory, g.ncols(), |x| x.mapv(|x| x * x)) * lr);
            }) },
        Row { name: "scion", slots: &["momentum_buffer"], rests: true, parabola: 0.1, rosenbrock: (0.02, 10_000),
            pinned: Pinned::Near(-0.5442394135231498),
            optimizer: |lr| Box::new(Scion::new(lr)), oracle: Oracle::Matrix(|_, lr, p, g, memory| {
                *p -= &(newton_schulz(&average(memory, g, 0.9)) * (lr * (g.nrows() as f64 / g.ncols() as f64).sqrt()));
            }) },
        Row { name: "scion, sign", slots: &["momentum_buffer"], rests: true, parabola: 0.1, rosenbrock: (2e-3, 20_000),
            pinned: Pinned::Near(-0.514288768986404),
            optimizer: |lr| Box::new(Scion::new(lr).norm(ScionNorm::Sign).radius(2.0).momentum(0.5)),
            oracle: Oracle::Matrix(|_, lr, p, g, memory| {
                let sign = average(memory, g, 0.5).mapv(|m| if m == 0.0 { 0.0 } else { m.signum() });
                *p -= &(sign * (lr * 2.0 / g.ncols() as f64));
            }) },
        Row { name: "scion, columns, weight decay", slots: &["momentum_buffer"], rests: false,
            parabola: 0.1, rosenbrock: (2e-3, 20_000),
            pinned: Pinned::Near(-0.5107678274461447),
            optimizer: |lr| Box::new(Scion::new(lr).norm(ScionNorm::Columns).eps(0.1).weight_decay(0.01)),
            oracle: Oracle::Matrix(|_, lr, p, g, memory| {
                let m = average(memory, g, 0.9);
                let root = m.mapv(|m| m * m).mean_axis(Axis(0)).unwrap().mapv(f64::sqrt);
                *p = &*p * (1.0 - lr * 0.01) - m / (root * g.ncols() as f64 + 0.1) * lr;
            }) },
    ]
}

fn original_scale(grad: &Array2<f64>) -> f64 {
    (grad.nrows() as f64 / grad.ncols() as f64).max(1.0).sqrt()
}

/// The direction of NorMuon or AdaMuon, whose second moments are of these squares.
fn adaptive(
    g: &Array2<f64>,
    memory: &mut Vec<Array2<f64>>,
    squares: impl Fn(&Array2<f64>) -> Array2<f64>,
) -> Array2<f64> {
    if g.is_empty() {
        return g.clone();
    }
    let second = if memory.len() == 2 { memory.pop() } else { None };
    let u = average(memory, g, 0.95);
    let x = newton_schulz(&(g * 0.05 + u * 0.95));
    let squares = squares(&x);
    let second = second.unwrap_or_else(|| Array2::zeros(squares.dim())) * 0.95 + squares * 0.05;
    let y = x / (second.mapv(f64::sqrt) + 1e-10);
    memory.push(second);
    let norm = y.iter().map(|y| y * y).sum::<f64>().sqrt();
    y * (0.2 * (g.len() as f64).sqrt() / (norm + 1e-10))
}

/// The same, with each row as a matrix of its own. A row has `moments` second moments.
fn adaptive_rows(
    g: &Array2<f64>,
    memory: &mut Vec<Array2<f64>>,
    moments: usize,
    squares: fn(&Array2<f64>) -> Array2<f64>,
) -> Array2<f64> {
    if memory.is_empty() {
        memory.extend([Array2::zeros(g.dim()), Array2::zeros((g.nrows(), moments))]);
    }
    let mut direction = g.clone();
    for row in 0..g.nrows() {
        let of_row = |matrix: &Array2<f64>| matrix.slice(s![row..=row, ..]).to_owned();
        let mut own = memory.iter().map(of_row).collect();
        direction.row_mut(row).assign(&adaptive(&of_row(g), &mut own, squares).row(0));
        memory.iter_mut().zip(&own).for_each(|(to, own)| to.row_mut(row).assign(&own.row(0)));
    }
    direction
}

/// Two triples, for more iterations than two.
const OWN: [[f64; 3]; 2] = [[3.0, -3.2, 1.2], [1.875, -1.25, 0.375]];

fn newton_schulz(matrix: &Array2<f64>) -> Array2<f64> {
    iterated(matrix, &[[3.4445, -4.7750, 2.0315]; 5])
}

fn iterated(matrix: &Array2<f64>, triples: &[[f64; 3]]) -> Array2<f64> {
    let tall = matrix.nrows() > matrix.ncols();
    let mut x = if tall { matrix.t().to_owned() } else { matrix.clone() };
    x /= matrix.iter().map(|x| x * x).sum::<f64>().sqrt().max(1e-7);
    for [a, b, c] in triples {
        let square = x.dot(&x.t());
        x = &x * *a + (&square * *b + square.dot(&square) * *c).dot(&x);
    }
    if tall { x.t().to_owned() } else { x }
}
