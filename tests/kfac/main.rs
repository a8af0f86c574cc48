//! K-FAC against dense matrices, numbers by hand, and whatever may be wrong with a tap.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod conv;
mod dense;
mod hand;
mod limits;

mod refusals;
mod state;

use gradus::curvature::{Kfac, Layer};
use gradus::{LinearTap, Sgd, prelude::*};
use ndarray::{Array1, Array2, Axis};

/// A number in −1 … 1 that depends on nothing but its arguments (splitmix64).
pub(crate) fn number(stream: u64, index: u64) -> f64 {
    let mut z = (stream << 32).wrapping_add(index + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^= z >> 31;
    (z >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
}

pub(crate) fn numbers(rows: usize, columns: usize, stream: u64) -> Array2<f64> {
    Array2::from_shape_fn((rows, columns), |(i, j)| number(stream, (i * columns + j) as u64))
}

/// A matrix with a column of ones behind it.
pub(crate) fn homogeneous(x: &Array2<f64>) -> Array2<f64> {
    ndarray::concatenate(Axis(1), &[x.view(), Array2::ones((x.nrows(), 1)).view()]).unwrap()
}

/// Solves a square system by elimination with pivots.
pub(crate) fn solve(mut matrix: Array2<f64>, mut right: Array1<f64>) -> Array1<f64> {
    let n = right.len();
    for at in 0..n {
        let pivot = (at..n).max_by(|a, b| matrix[[*a, at]].abs().total_cmp(&matrix[[*b, at]].abs())).unwrap();
        for column in 0..n {
            matrix.swap([at, column], [pivot, column]);
        }
        right.swap(at, pivot);
        for row in at + 1..n {
            let factor = matrix[[row, at]] / matrix[[at, at]];
            for column in at..n {
                matrix[[row, column]] -= factor * matrix[[at, column]];
            }
            right[row] -= factor * right[at];
        }
    }
    for at in (0..n).rev() {
        let known: f64 = (at + 1..n).map(|column| matrix[[at, column]] * right[column]).sum();
        right[at] = (right[at] - known) / matrix[[at, at]];
    }
    right
}

pub(crate) type Opt = gradus::adaptor::Adapted<Sgd<f64>, Kfac<f64>>;

/// One layer `(w, b)` called "l".
pub(crate) fn kfac() -> Opt {
    Sgd::new(1.0).kfac().no_kl_clip().layer("l", Layer::new("0").bias("1"))
}

/// A layer, what it saw, and its gradient.
pub(crate) struct Problem {
    pub(crate) w: Array2<f64>,
    pub(crate) b: Array1<f64>,
    pub(crate) x: Array2<f64>,
    pub(crate) delta: Array2<f64>,
    pub(crate) grads: (Array2<f64>, Array1<f64>),
}

impl Problem {
    pub(crate) fn new(batch: usize, inputs: usize, outputs: usize) -> Self {
        Self {
            w: numbers(outputs, inputs, 1),
            b: Array1::from_shape_fn(outputs, |i| number(2, i as u64)),
            x: numbers(batch, inputs, 3),
            delta: numbers(batch, outputs, 4),
            grads: (numbers(outputs, inputs, 5), Array1::from_shape_fn(outputs, |i| number(6, i as u64))),
        }
    }

    pub(crate) fn tap(&self) -> LinearTap<'_, f64> {
        LinearTap::new(&self.x, &self.delta)
    }

    /// The gradients as one matrix, the bias last.
    pub(crate) fn joined(&self) -> Array2<f64> {
        ndarray::concatenate(Axis(1), &[self.grads.0.view(), self.grads.1.view().insert_axis(Axis(1))]).unwrap()
    }

    /// What a step of the optimizer subtracts.
    pub(crate) fn moved(&self, opt: &mut impl Optimizer<f64>) -> Array2<f64> {
        let (mut w, mut b) = (self.w.clone(), self.b.clone());
        opt.step(&mut (&mut w, &mut b), &(&self.grads.0, &self.grads.1)).unwrap();
        let (w, b) = (&self.w - &w, &self.b - &b);
        ndarray::concatenate(Axis(1), &[w.view(), b.view().insert_axis(Axis(1))]).unwrap()
    }

    /// A and G of the batch.
    pub(crate) fn factors(&self) -> (Array2<f64>, Array2<f64>) {
        let (inputs, batch) = (homogeneous(&self.x), self.x.nrows() as f64);
        (inputs.t().dot(&inputs) / batch, self.delta.t().dot(&self.delta) / batch)
    }
}

pub(crate) fn close(found: &Array2<f64>, expected: &Array2<f64>, tolerance: f64) -> bool {
    found.dim() == expected.dim()
        && found.iter().zip(expected).all(|(a, b)| (a - b).abs() <= tolerance * b.abs().max(1.0))
}
