//! A network with one hidden layer, and its gradient by hand.

use gradus::prelude::*;
use ndarray::{Array1, Array2, Axis};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::data::Images;

#[derive(Clone, Params)]
pub(crate) struct Linear {
    /// (out, in)
    pub(crate) weight: Array2<f32>,
    pub(crate) bias: Array1<f32>,
}

#[derive(Clone, Params)]
pub(crate) struct Mlp {
    pub(crate) hidden: Linear,
    pub(crate) output: Linear,
}

/// The mean loss of a batch, and for each example what came into and back to the layers: gradients of its own loss.
pub(crate) struct Signals {
    loss: f32,
    pub(crate) hidden: Array2<f32>,
    pub(crate) hidden_delta: Array2<f32>,
    pub(crate) output_delta: Array2<f32>,
}

impl Linear {
    /// Weights uniform in ±√(6/in) (He et al. 2015), biases 0.
    fn new(inputs: usize, outputs: usize, rng: &mut ChaCha8Rng) -> Self {
        let bound = (6.0 / inputs as f32).sqrt();
        let weight = Array2::from_shape_simple_fn((outputs, inputs), || rng.random_range(-bound..bound));
        Self { weight, bias: Array1::zeros(outputs) }
    }

    fn forward(&self, x: &Array2<f32>) -> Array2<f32> {
        x.dot(&self.weight.t()) + &self.bias
    }

    /// The layer's gradient, given its input and the loss's gradient at its output.
    fn backward(x: &Array2<f32>, delta: &Array2<f32>) -> Linear {
        Linear { weight: delta.t().dot(x), bias: delta.sum_axis(Axis(0)) }
    }
}

impl Mlp {
    pub(crate) fn new(hidden: usize, rng: &mut ChaCha8Rng) -> Self {
        Self { hidden: Linear::new(64, hidden, rng), output: Linear::new(hidden, 10, rng) }
    }

    /// The mean cross-entropy of a batch and its gradient.
    pub(crate) fn backward(&self, x: &Array2<f32>, labels: &Array1<usize>) -> (f32, Mlp) {
        let Signals { loss, hidden, hidden_delta, output_delta } = self.signals(x, labels);
        let batch = labels.len() as f32;
        let (hidden_delta, output_delta) = (hidden_delta / batch, output_delta / batch);
        let grads =
            Mlp { hidden: Linear::backward(x, &hidden_delta), output: Linear::backward(&hidden, &output_delta) };
        (loss, grads)
    }

    /// What goes through the layers, forward and back.
    pub(crate) fn signals(&self, x: &Array2<f32>, labels: &Array1<usize>) -> Signals {
        let hidden = self.hidden.forward(x).mapv_into(relu);
        let mut output_delta = self.output.forward(&hidden);
        softmax(&mut output_delta);
        let mut loss = 0.0;
        for (mut row, &label) in output_delta.rows_mut().into_iter().zip(labels) {
            loss -= row[label].max(f32::MIN_POSITIVE).ln() / labels.len() as f32;
            row[label] -= 1.0; // softmax and cross-entropy together: p − y
        }
        let hidden_delta = output_delta.dot(&self.output.weight) * hidden.mapv(|h| f32::from(h > 0.0));
        Signals { loss, hidden, hidden_delta, output_delta }
    }

    /// The share of images whose most probable digit is the right one.
    pub(crate) fn accuracy(&self, images: &Images) -> f64 {
        let hidden = self.hidden.forward(&images.pixels).mapv_into(relu);
        let scores = self.output.forward(&hidden);
        let right = scores
            .rows()
            .into_iter()
            .zip(&images.labels)
            .filter(|(scores, label)| scores.iter().all(|score| *score <= scores[**label]));
        right.count() as f64 / images.len() as f64
    }
}

fn relu(x: f32) -> f32 {
    x.max(0.0)
}

/// Scores to probabilities, row by row.
fn softmax(scores: &mut Array2<f32>) {
    for mut row in scores.rows_mut() {
        let largest = row.fold(f32::NEG_INFINITY, |a, &b| a.max(b));
        row.mapv_inplace(|score| (score - largest).exp());
        let sum = row.sum();
        row /= sum;
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    /// Central differences in f32 are good to about three digits at this step.
    const STEP: f32 = 1e-2;
    const TOLERANCE: f32 = 5e-3;

    #[test]
    fn the_gradient_is_that_of_the_loss() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut model = Mlp::new(5, &mut rng);
        let x = Array2::from_shape_simple_fn((4, 64), || rng.random_range(0.0..1.0));
        let labels = Array1::from(vec![3, 0, 9, 3]);
        let (_, grads) = model.backward(&x, &labels);
        let mut check = |pick: fn(&mut Mlp) -> &mut f32, gradient: f32| {
            let mut loss_at = |shift: f32| {
                *pick(&mut model) += shift;
                let (loss, _) = model.backward(&x, &labels);
                *pick(&mut model) -= shift;
                loss
            };
            let difference = (loss_at(STEP) - loss_at(-STEP)) / (2.0 * STEP);
            assert!((difference - gradient).abs() < TOLERANCE * gradient.abs().max(0.1), "{difference} {gradient}");
        };
        check(|m| &mut m.hidden.weight[[2, 7]], grads.hidden.weight[[2, 7]]);
        check(|m| &mut m.hidden.bias[1], grads.hidden.bias[1]);
        check(|m| &mut m.output.weight[[3, 4]], grads.output.weight[[3, 4]]);
        check(|m| &mut m.output.weight[[8, 0]], grads.output.weight[[8, 0]]);
        check(|m| &mut m.output.bias[9], grads.output.bias[9]);
    }
}
