//! SM3.

use gradus::prelude::*;
use ndarray::{Array2, Axis};

use crate::rows::{Oracle, Pinned, Row};

#[rustfmt::skip]
pub(super) fn rows<A: Scalar>() -> Vec<Row<A>> {
    vec![
        Row { name: "sm3", slots: &["accumulator_0", "accumulator_1"], rests: true, parabola: 1.0, rosenbrock: (0.5, 10_000),
            pinned: Pinned::Bits(-0.48194197, -0.4819419268547454),
            optimizer: |lr| Box::new(Sm3::new(lr)),
            oracle: Oracle::Matrix(|_, lr, p, g, memory| *p -= &(sm3(g, memory, [1.0, 1.0]) * lr)) },
        Row { name: "sm3, momentum, beta2, weight decay", slots: &["momentum_buffer", "accumulator_0", "accumulator_1"], rests: false,
            parabola: 0.1, rosenbrock: (1e-2, 10_000),
            pinned: Pinned::Bits(-0.45507717, -0.4550771956790139),
            optimizer: |lr| Box::new(Sm3::new(lr).momentum(0.9).beta2(0.99).weight_decay(0.01)),
            oracle: Oracle::Matrix(|_, lr, p, g, memory| {
                let before = if memory.len() == 3 { memory.pop() } else { None };
                let u = sm3(g, memory, [0.99, 1.0 - 0.99]);
                let m = before.unwrap_or_else(|| Array2::zeros(g.dim())) * 0.9 + u * (1.0 - 0.9);
                *p = &*p * (1.0 - lr * 0.01) - &m * lr;
                memory.push(m);
            }) },
    ]
}

/// The update of SM3, whose sums have these weights of what was and what is.
fn sm3(g: &Array2<f64>, memory: &mut Vec<Array2<f64>>, [kept, fresh]: [f64; 2]) -> Array2<f64> {
    if memory.is_empty() {
        memory.extend([Array2::zeros((g.nrows(), 1)), Array2::zeros((1, g.ncols()))]);
    }
    let sums = Array2::from_shape_fn(g.dim(), |(i, j)| {
        kept * memory[0][[i, 0]].min(memory[1][[0, j]]) + fresh * g[[i, j]] * g[[i, j]]
    });
    for (axis, bound) in memory.iter_mut().enumerate() {
        let largest = sums.fold_axis(Axis(1 - axis), 0.0, |most, sum| sum.max(*most));
        *bound = largest.insert_axis(Axis(1 - axis));
    }
    Array2::from_shape_fn(g.dim(), |at| if sums[at] > 0.0 { g[at] / (sums[at] + 1e-8).sqrt() } else { 0.0 })
}
