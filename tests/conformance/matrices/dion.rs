//! Dion.

use gradus::prelude::*;
use ndarray::Array2;

use crate::rows::{Oracle, Pinned, Row};

#[rustfmt::skip]
pub(super) fn rows<A: Scalar>() -> Vec<Row<A>> {
    vec![
        Row { name: "dion", slots: &["momentum_buffer", "right_factor"], rests: false, parabola: 0.1, rosenbrock: (0.02, 10_000),
            pinned: Pinned::Near(-0.5415300424430151),
            optimizer: |lr| Box::new(Dion::new(lr)), oracle: Oracle::Matrix(|_, lr, p, g, memory| {
                *p = &*p * (1.0 - lr * 0.01) - dion(g, memory, g.nrows().min(g.ncols())) * lr;
            }) },
        Row { name: "dion, half of the rank, no decay", slots: &["momentum_buffer", "right_factor"], rests: true,
            parabola: 0.1, rosenbrock: (0.02, 10_000),
            pinned: Pinned::Near(-0.5047647753608356),
            optimizer: |lr| Box::new(Dion::new(lr).rank_fraction(0.5).weight_decay(0.0)), oracle: Oracle::Matrix(|_, lr, p, g, memory| {
                *p -= &(dion(g, memory, g.nrows().min(g.ncols()).div_ceil(2)) * lr);
            }) },
    ]
}

/// The direction of Dion with μ = 0.95; the first Q as the docs of its generator have it.
fn dion(g: &Array2<f64>, memory: &mut Vec<Array2<f64>>, rank: usize) -> Array2<f64> {
    if memory.is_empty() {
        let mut at = 0_u64;
        let random = || {
            let mut z = at.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            at += 1;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((z ^ (z >> 31)) >> 11) as f64 / 2.0_f64.powi(52) - 1.0
        };
        memory.extend([Array2::zeros(g.dim()), Array2::from_shape_simple_fn((g.ncols(), rank), random)]);
    }
    let b = &memory[0] + g;
    let mut p = b.dot(&memory[1]);
    let length = |column: &ndarray::Array1<f64>| column.dot(column).sqrt();
    for j in 0..rank {
        let mut own = p.column(j).to_owned();
        for i in (0..j).chain(0..j) {
            let other = p.column(i).to_owned();
            own -= &(&other * own.dot(&other));
        }
        own /= length(&own);
        p.column_mut(j).assign(&own);
    }
    let mut r = b.t().dot(&p);
    memory[0] = b - p.dot(&r.t()) * (1.0 - 0.95);
    r.columns_mut().into_iter().for_each(|mut column| column /= length(&column.to_owned()) + 1e-8);
    memory[1] = r;
    p.dot(&memory[1].t()) * (g.nrows() as f64 / g.ncols() as f64).sqrt()
}
