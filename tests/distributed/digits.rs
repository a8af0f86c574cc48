//! Handwritten digits and a small network.

use gradus::prelude::*;
use ndarray::{Array1, Array2, Axis, s};

use crate::ranks::matrix;

/// 1,797 images of 8 × 8 in random order, in batches.
pub(crate) struct Digits {
    images: Array2<f32>,
    labels: Vec<usize>,
}

impl Digits {
    pub(crate) fn load() -> Self {
        let text = include_str!("../../examples/data/digits.csv");
        let mut rows: Vec<Vec<f32>> =
            text.lines().skip(1).map(|line| line.split(',').map(|cell| cell.parse().unwrap()).collect()).collect();
        // Neighbors in the file are of the same writer.
        let length = rows.len();
        (0..length).for_each(|at| rows.swap(at, (at * 7919 + 13) % length));
        let labels = rows.iter().map(|row| row[0] as usize).collect();
        let images = Array2::from_shape_fn((length, 64), |(row, pixel)| rows[row][1 + pixel] / 16.0);
        Self { images, labels }
    }

    /// One of the batches of this size, over and over.
    pub(crate) fn batch(&self, number: usize, size: usize) -> (Array2<f32>, &[usize]) {
        let first = number % (self.labels.len() / size) * size;
        (self.images.slice(s![first..first + size, ..]).to_owned(), &self.labels[first..first + size])
    }

    pub(crate) fn all(&self) -> (Array2<f32>, &[usize]) {
        (self.images.clone(), &self.labels)
    }
}

/// 64 pixels, hidden units of tanh, 10 classes.
pub(crate) type Network = [(Array2<f32>, Array1<f32>); 2];

pub(crate) fn network(hidden: usize) -> Network {
    let layer = |inputs: usize, outputs: usize, stream: u64| {
        (matrix((inputs, outputs), stream) * (1.0 / (inputs as f32).sqrt()), Array1::zeros(outputs))
    };
    [layer(64, hidden, 21), layer(hidden, 10, 22)]
}

/// The mean cross-entropy of a batch and its gradient.
pub(crate) fn backward(model: &Network, (images, labels): &(Array2<f32>, &[usize])) -> (f64, Network) {
    let [(w1, b1), (w2, b2)] = model;
    let hidden = (images.dot(w1) + b1).mapv(f32::tanh);
    let mut back = hidden.dot(w2) + b2;
    let (mut loss, count) = (0.0, labels.len() as f32);
    for (mut row, label) in back.rows_mut().into_iter().zip(*labels) {
        let most = row.fold(f32::NEG_INFINITY, |most, x| most.max(*x));
        row.mapv_inplace(|x| (x - most).exp());
        let sum = row.sum();
        row /= sum;
        loss -= f64::from(row[*label].max(1e-30).ln());
        row[*label] -= 1.0;
        row /= count;
    }
    let inner = back.dot(&w2.t()) * hidden.mapv(|h| 1.0 - h * h);
    let first = (images.t().dot(&inner), inner.sum_axis(Axis(0)));
    let second = (hidden.t().dot(&back), back.sum_axis(Axis(0)));
    (loss / f64::from(count), [first, second])
}

/// The loss over all images.
pub(crate) fn loss(model: &Network, digits: &Digits) -> f64 {
    backward(model, &digits.all()).0
}

/// Trains with a batch for each rank and step; the final parameters.
pub(crate) fn train(
    opt: &mut dyn Optimizer<f32>,
    digits: &Digits,
    (rank, size): (usize, usize),
    steps: usize,
) -> gradus::Result<Network> {
    let mut model = network(32);
    for step in 0..steps {
        let (_, grads) = backward(&model, &digits.batch(step * size + rank, 32));
        opt.step(&mut model, &grads)?;
    }
    Ok(model)
}

#[test]
fn the_gradient_is_that_of_the_loss() {
    // Centered differences of f32 losses: half the digits of 1e-7 are lost.
    const TOLERANCE: f64 = 2e-3;
    let (digits, model) = (Digits::load(), network(6));
    let batch = digits.batch(3, 16);
    let (_, grads) = backward(&model, &batch);
    let shifted = |layer: usize, index: [usize; 2], shift: f32| {
        let mut model = model.clone();
        model[layer].0[index] += shift;
        backward(&model, &batch).0
    };
    for (layer, index) in [(0, [20, 3]), (0, [35, 5]), (1, [2, 7]), (1, [5, 0])] {
        let difference = (shifted(layer, index, 1e-2) - shifted(layer, index, -1e-2)) / 2e-2;
        let grad = f64::from(grads[layer].0[index]);
        assert!((difference - grad).abs() < TOLERANCE && grad != 0.0, "{difference} {grad}");
    }
}
