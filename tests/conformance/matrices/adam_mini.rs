//! Adam-mini.

use gradus::optimizer::AdamMiniBlocks;
use gradus::prelude::*;
use ndarray::{Array2, Axis};

use crate::rows::{Oracle, Pinned, Row};

#[rustfmt::skip]
pub(super) fn rows<A: Scalar>() -> Vec<Row<A>> {
    vec![
        Row { name: "adammini", slots: &["exp_avg", "exp_avg_sq"], rests: true, parabola: 0.1, rosenbrock: (1e-2, 10_000),
            pinned: Pinned::Bits(-0.508671, -0.5086709897463662),
            optimizer: |lr| Box::new(AdamMini::new(lr)),
            oracle: Oracle::Matrix(|t, lr, p, g, memory| adam_mini(t, lr, p, g, memory, [0.9, 0.999], |g| {
                Array2::from_elem(g.dim(), g.mapv(|g| g * g).mean().unwrap())
            })) },
        Row { name: "adammini, rows, betas, weight decay", slots: &["exp_avg", "exp_avg_sq"], rests: false,
            parabola: 0.1, rosenbrock: (1e-2, 10_000),
            pinned: Pinned::Bits(-0.51003146, -0.5100314154963516),
            optimizer: |lr| Box::new(AdamMini::new(lr).blocks("**", AdamMiniBlocks::Rows).beta1(0.8).beta2(0.9).weight_decay(0.01)),
            oracle: Oracle::Matrix(|t, lr, p, g, memory| {
                *p *= 1.0 - lr * 0.01;
                adam_mini(t, lr, p, g, memory, [0.8, 0.9], |g| {
                    g.mapv(|g| g * g).mean_axis(Axis(1)).unwrap().insert_axis(Axis(1)).broadcast(g.dim()).unwrap().to_owned()
                });
            }) },
    ]
}

/// One step with these β, and the means of squares of each element's block.
fn adam_mini(
    t: i32,
    lr: f64,
    p: &mut Array2<f64>,
    g: &Array2<f64>,
    memory: &mut Vec<Array2<f64>>,
    [beta1, beta2]: [f64; 2],
    means: fn(&Array2<f64>) -> Array2<f64>,
) {
    if g.is_empty() {
        return;
    }
    if memory.is_empty() {
        memory.extend([Array2::zeros(g.dim()), Array2::zeros(g.dim())]);
    }
    memory[0] = &memory[0] * beta1 + g * (1.0 - beta1);
    memory[1] = &memory[1] * beta2 + means(g) * (1.0 - beta2);
    let root = (&memory[1] / (1.0 - beta2.powi(t))).mapv(f64::sqrt) + 1e-8;
    *p -= &(&memory[0] / root * (lr / (1.0 - beta1.powi(t))));
}
