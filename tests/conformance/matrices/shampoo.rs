//! Shampoo.

use gradus::optimizer::Graft;
use gradus::prelude::*;
use ndarray::Array2;

use super::decomposition::power;
use crate::rows::{Oracle, Pinned, Row};

#[rustfmt::skip]
pub(super) fn rows<A: Scalar>() -> Vec<Row<A>> {
    vec![
        Row { name: "shampoo", slots: &["left", "left_root", "right", "right_root"], rests: true,
            parabola: 1.0, rosenbrock: (0.5, 20_000),
            pinned: Pinned::Near(-0.545130093126148),
            optimizer: |lr| Box::new(Shampoo::new(lr).every(1).eps(1e-2)), oracle: Oracle::Matrix(|_, lr, p, g, memory| {
                *p -= &(shampoo(g, memory, [1.0, 1.0], 1.0) * lr);
            }) },
        Row { name: "shampoo, beta2, momentum, adam graft, weight decay",
            slots: &["momentum_buffer", "graft_exp_avg_sq", "graft_exp_avg", "left", "left_root", "right", "right_root"],
            rests: false, parabola: 0.1, rosenbrock: (1e-2, 10_000),
            pinned: Pinned::Near(-0.6445178684274415),
            optimizer: |lr| Box::new(Shampoo::new(lr).every(1).eps(1e-2).beta2(0.9).momentum(0.5).graft(Graft::Adam)
                .weight_decay(0.01)),
            oracle: Oracle::Matrix(|t, lr, p, g, memory| {
                if memory.is_empty() {
                    memory.extend(vec![Array2::zeros(g.dim()); 3]);
                }
                let mut sides = memory.split_off(3);
                let g = g + &(&*p * 0.01);
                memory[1] = &memory[1] * 0.9 + &g * (1.0 - 0.9);
                memory[2] = &memory[2] * 0.999 + &g * &g * (1.0 - 0.999);
                let root = (&memory[2] / (1.0 - 0.999_f64.powi(t))).mapv(f64::sqrt) + 1e-8;
                let adam = &memory[1] / (1.0 - 0.9_f64.powi(t)) / root;
                let d = shampoo(&g, &mut sides, [0.9, 1.0 - 0.9], 1.0 - 0.9_f64.powi(t));
                memory[0] = &memory[0] * 0.5 + &d * (norm(&adam) / norm(&d));
                *p -= &(&memory[0] * lr);
                memory.extend(sides);
            }) },
    ]
}

fn norm(matrix: &Array2<f64>) -> f64 {
    matrix.iter().map(|x| x * x).sum::<f64>().sqrt()
}

/// (L/c + εI)^(−1/4) g (R/c + εI)^(−1/4); of 1 × 1 matrices L^(−1/2) alone.
fn shampoo(g: &Array2<f64>, sides: &mut Vec<Array2<f64>>, [kept, fresh]: [f64; 2], bias: f64) -> Array2<f64> {
    if sides.is_empty() {
        sides.extend([g.nrows(), g.ncols()].map(|side| Array2::zeros((side, side))));
    }
    sides[0] = &sides[0] * kept + g.dot(&g.t()) * fresh;
    sides[1] = &sides[1] * kept + g.t().dot(g) * fresh;
    let root = |at: usize, exponent: f64| power(&(&sides[at] / bias), 1e-2, exponent);
    match g.len() {
        1 => root(0, -0.5).dot(g),
        _ => root(0, -0.25).dot(g).dot(&root(1, -0.25)),
    }
}
