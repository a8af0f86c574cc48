//! APOLLO and APOLLO-Mini.

use gradus::prelude::*;
use ndarray::{Array2, Axis};

use crate::rows::{Oracle, Pinned, Row};

#[rustfmt::skip]
pub(super) fn rows<A: Scalar>() -> Vec<Row<A>> {
    vec![
        Row { name: "apollo", slots: &["exp_avg", "exp_avg_sq", "update_norm"], rests: true, parabola: 0.1, rosenbrock: (1e-2, 20_000),
            pinned: Pinned::Near(-0.49602239406285287),
            optimizer: |lr| Box::new(Apollo::new(lr).rank(2)),
            oracle: Oracle::Matrix(|t, lr, p, g, memory| *p -= &(apollo(t, g, memory, (2, 200), |x| {
                x.mapv(|x| x * x).sum_axis(Axis(1)).mapv(f64::sqrt).insert_axis(Axis(1))
            }) * lr)) },
        Row { name: "apollomini", slots: &["exp_avg", "exp_avg_sq", "update_norm"], rests: true, parabola: 0.1, rosenbrock: (1e-3, 20_000),
            pinned: Pinned::Near(-0.6040179676166217),
            optimizer: |lr| Box::new(ApolloMini::new(lr)),
            oracle: Oracle::Matrix(|t, lr, p, g, memory| *p -= &(apollo(t, g, memory, (1, 200), |x| {
                Array2::from_elem((1, 1), x.mapv(|x| x * x).sum().sqrt())
            }) * (lr * 128.0_f64.sqrt()))) },
    ]
}

fn splitmix64(x: u64) -> u64 {
    let z = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// The update of APOLLO. The subspace has the rank `rank` and changes every `gap` steps; `norms` are those of the channels.
fn apollo(
    t: i32,
    g: &Array2<f64>,
    memory: &mut Vec<Array2<f64>>,
    (rank, gap): (usize, i32),
    norms: fn(&Array2<f64>) -> Array2<f64>,
) -> Array2<f64> {
    if g.is_empty() {
        return g.clone();
    }
    let (side, rank) = (g.ncols(), rank.min(g.ncols()));
    let key = splitmix64(splitmix64(0) + ((t - 1) / gap) as u64);
    let projection = Array2::from_shape_fn((side, rank), |(i, j)| {
        let bits = splitmix64(key.wrapping_add((i * rank + j) as u64));
        let uniform = (0..4).map(|part| ((bits >> (16 * part)) & 0xFFFF) as f64 - 65535.0 / 2.0);
        uniform.sum::<f64>() / ((65536.0_f64.powi(2) - 1.0) / 3.0 * rank as f64).sqrt()
    });
    let low = g.dot(&projection);
    if memory.is_empty() {
        memory.extend([Array2::zeros(low.dim()), Array2::zeros(low.dim()), Array2::zeros((1, 1))]);
    }
    memory[0] = &memory[0] * 0.9 + &low * (1.0 - 0.9);
    memory[1] = &memory[1] * 0.999 + &low * &low * (1.0 - 0.999);
    let adam = &memory[0] / (memory[1].mapv(f64::sqrt) + 1e-6);
    let u = g * &(norms(&adam) / (norms(&low) + 1e-8));
    let (norm, last) = (u.mapv(|u| u * u).sum().sqrt(), memory[2][[0, 0]]);
    let limiter = if last == 0.0 { 1.0 } else { (norm / (1.01 * (last + 1e-8))).max(1.0) };
    memory[2].fill(norm / limiter);
    u * ((1.0 - 0.999_f64.powi(t)).sqrt() / (1.0 - 0.9_f64.powi(t)) / limiter)
}
