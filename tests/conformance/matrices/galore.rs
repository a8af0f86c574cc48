//! GaLore.

use faer::Side;
use gradus::prelude::*;
use ndarray::{Array2, Axis};

use super::decomposition::{faer, ndarray};
use crate::rows::{Oracle, Pinned, Row};

#[rustfmt::skip]
pub(super) fn rows<A: Scalar>() -> Vec<Row<A>> {
    vec![
        Row { name: "galore", slots: &["exp_avg", "exp_avg_sq", "projection"], rests: true, parabola: 0.4, rosenbrock: (0.04, 10_000),
            pinned: Pinned::Near(-0.5094670420106533),
            optimizer: |lr| Box::new(GaLore::new(lr).rank(2).update_proj_gap(3)),
            oracle: Oracle::Matrix(|t, lr, p, g, memory| {
                if g.is_empty() {
                    return;
                }
                let rank = g.ncols().min(2);
                if memory.is_empty() {
                    let moment = Array2::zeros((g.nrows(), rank));
                    memory.extend([moment.clone(), moment, Array2::zeros((g.ncols(), rank))]);
                }
                if (t - 1) % 3 == 0 {
                    let vectors = ndarray(faer(&g.t().dot(g)).self_adjoint_eigen(Side::Lower).unwrap().U());
                    let falling: Vec<usize> = (0..g.ncols()).rev().take(rank).collect();
                    memory[2] = vectors.select(Axis(1), &falling);
                    for mut vector in memory[2].columns_mut() {
                        let largest = vector.iter().copied().max_by(|a, b| a.abs().total_cmp(&b.abs())).unwrap();
                        vector *= largest.signum();
                    }
                }
                let low = g.dot(&memory[2]);
                memory[0] = &memory[0] * 0.9 + &low * (1.0 - 0.9);
                memory[1] = &memory[1] * 0.999 + &low * &low * (1.0 - 0.999);
                let direction = &memory[0] / (memory[1].mapv(f64::sqrt) + 1e-6);
                let correction = (1.0 - 0.999_f64.powi(t)).sqrt() / (1.0 - 0.9_f64.powi(t));
                *p -= &(direction.dot(&memory[2].t()) * (lr * 0.25 * correction));
            }) },
    ]
}
