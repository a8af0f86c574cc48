//! Handwritten digits, and a small network that reads them.

use gradus::Params;
use ndarray::{Array1, Array2, Axis};

/// Handwritten digits: pixels from 0 to 1, and labels.
pub(crate) fn digits() -> (Array2<f64>, Vec<usize>) {
    let (mut pixels, mut labels) = (Vec::new(), Vec::new());
    for line in include_str!("../../examples/data/digits.csv").lines().skip(1) {
        let mut values = line.split(',').map(|value| value.parse::<f64>().unwrap());
        labels.push(values.next().unwrap() as usize);
        pixels.extend(values.map(|pixel| pixel / 16.0));
    }
    (Array2::from_shape_vec((labels.len(), 64), pixels).unwrap(), labels)
}

#[derive(Clone, Params)]
pub(crate) struct Network {
    pub(crate) hidden: Array2<f64>,
    pub(crate) hidden_bias: Array1<f64>,
    pub(crate) output: Array2<f64>,
    pub(crate) output_bias: Array1<f64>,
}

impl Network {
    pub(crate) fn new() -> Self {
        let hash = |at: usize| ((at as f64 * 12.9898).sin() * 43_758.545_3).rem_euclid(1.0) - 0.5;
        let weights = |rows: usize, columns: usize, first: usize| {
            let scale = (24.0 / rows as f64).sqrt(); // a variance of 2/rows
            Array2::from_shape_fn((rows, columns), |(i, j)| scale * hash(first + i * columns + j))
        };
        Self {
            hidden: weights(64, 32, 0),
            hidden_bias: Array1::zeros(32),
            output: weights(32, 10, 5000),
            output_bias: Array1::zeros(10),
        }
    }

    /// The mean cross-entropy, and its gradient.
    pub(crate) fn backward(&self, pixels: &Array2<f64>, labels: &[usize]) -> (f64, Self) {
        let hidden = (pixels.dot(&self.hidden) + &self.hidden_bias).mapv(|x| x.max(0.0));
        let mut delta = hidden.dot(&self.output) + &self.output_bias;
        let mut loss = 0.0;
        for (mut row, label) in delta.rows_mut().into_iter().zip(labels) {
            let largest = row.fold(f64::NEG_INFINITY, |most, x| most.max(*x));
            row.mapv_inplace(|x| (x - largest).exp());
            row /= row.sum();
            loss -= row[*label].max(1e-300).ln();
            row[*label] -= 1.0;
        }
        let count = labels.len() as f64;
        delta /= count;
        let back = delta.dot(&self.output.t()) * hidden.mapv(|x| if x > 0.0 { 1.0 } else { 0.0 });
        let grads = Self {
            hidden: pixels.t().dot(&back),
            hidden_bias: back.sum_axis(Axis(0)),
            output: hidden.t().dot(&delta),
            output_bias: delta.sum_axis(Axis(0)),
        };
        (loss / count, grads)
    }
}
