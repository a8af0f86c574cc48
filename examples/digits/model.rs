//! A network with one hidden layer, and its gradient by hand: in `f32` to be trained, in `f64` to be checked.

use gradus::prelude::*;
use ndarray::{Array1, Array2, Axis};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::data::Images;

#[derive(Clone, Params)]
pub(crate) struct Linear<A: Scalar = f32> {
    /// (out, in)
    pub(crate) weight: Array2<A>,
    pub(crate) bias: Array1<A>,
}

#[derive(Clone, Params)]
pub(crate) struct Mlp<A: Scalar = f32> {
    pub(crate) hidden: Linear<A>,
    pub(crate) output: Linear<A>,
}

/// The mean loss of a batch, and for each example what came into and back to the layers: gradients of its own loss.
pub(crate) struct Signals<A = f32> {
    loss: A,
    pub(crate) hidden: Array2<A>,
    pub(crate) hidden_delta: Array2<A>,
    pub(crate) output_delta: Array2<A>,
}

impl<A: Scalar> Linear<A> {
    /// Weights uniform in ±√(6/in) (He et al. 2015), biases 0.
    fn new(inputs: usize, outputs: usize, rng: &mut ChaCha8Rng) -> Self {
        let bound = (6.0 / inputs as f32).sqrt();
        let mut weight = || A::from_f64(f64::from(rng.random_range(-bound..bound)));
        let weight = Array2::from_shape_simple_fn((outputs, inputs), &mut weight);
        Self { weight, bias: Array1::zeros(outputs) }
    }

    fn forward(&self, x: &Array2<A>) -> Array2<A> {
        x.dot(&self.weight.t()) + &self.bias
    }

    /// The layer's gradient, given its input and the loss's gradient at its output.
    fn backward(x: &Array2<A>, delta: &Array2<A>) -> Self {
        Self { weight: delta.t().dot(x), bias: delta.sum_axis(Axis(0)) }
    }
}

impl<A: Scalar> Mlp<A> {
    pub(crate) fn new(hidden: usize, rng: &mut ChaCha8Rng) -> Self {
        Self { hidden: Linear::new(64, hidden, rng), output: Linear::new(hidden, 10, rng) }
    }

    /// The mean cross-entropy of a batch and its gradient.
    pub(crate) fn backward(&self, x: &Array2<A>, labels: &Array1<usize>) -> (A, Self) {
        let Signals { loss, hidden, mut hidden_delta, mut output_delta } = self.signals(x, labels);
        let batch = A::from_f64(labels.len() as f64);
        hidden_delta.mapv_inplace(|delta| delta / batch);
        output_delta.mapv_inplace(|delta| delta / batch);
        let grads =
            Self { hidden: Linear::backward(x, &hidden_delta), output: Linear::backward(&hidden, &output_delta) };
        (loss, grads)
    }

    /// What goes through the layers, forward and back.
    pub(crate) fn signals(&self, x: &Array2<A>, labels: &Array1<usize>) -> Signals<A> {
        let hidden = self.hidden.forward(x).mapv_into(relu);
        let mut output_delta = self.output.forward(&hidden);
        softmax(&mut output_delta);
        let (mut loss, batch) = (A::zero(), A::from_f64(labels.len() as f64));
        for (mut row, &label) in output_delta.rows_mut().into_iter().zip(labels) {
            loss -= row[label].max(A::min_positive_value()).ln() / batch;
            row[label] -= A::one(); // softmax and cross-entropy together: p − y
        }
        let hidden_delta =
            output_delta.dot(&self.output.weight) * hidden.mapv(|h| if h > A::zero() { A::one() } else { A::zero() });
        Signals { loss, hidden, hidden_delta, output_delta }
    }
}

impl Mlp {
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

fn relu<A: Scalar>(x: A) -> A {
    x.max(A::zero())
}

/// Scores to probabilities, row by row.
fn softmax<A: Scalar>(scores: &mut Array2<A>) {
    for mut row in scores.rows_mut() {
        let largest = row.fold(A::neg_infinity(), |a, &b| a.max(b));
        row.mapv_inplace(|score| (score - largest).exp());
        let sum = row.sum();
        row.mapv_inplace(|power| power / sum);
    }
}

#[cfg(test)]
mod tests {
    use gradus::check::{self, Comparison};
    use rand::SeedableRng;

    use super::*;

    /// Of every element, relative to itself, in f64.
    const TOLERANCE: f64 = 1e-6;

    /// A batch, a model whose output layer is square, and its gradients from what goes through the layers.
    struct Case {
        model: Mlp<f64>,
        x: Array2<f64>,
        labels: Array1<usize>,
        hidden: Array2<f64>,
        hidden_delta: Array2<f64>,
        output_delta: Array2<f64>,
    }

    impl Case {
        fn new() -> Self {
            let mut rng = ChaCha8Rng::seed_from_u64(1);
            let model = Mlp::new(10, &mut rng);
            let x = Array2::from_shape_simple_fn((4, 64), || rng.random_range(0.0..1.0));
            let labels = Array1::from(vec![3, 0, 9, 3]);
            let Signals { hidden, hidden_delta, output_delta, .. } = model.signals(&x, &labels);
            Self { model, x, labels, hidden, hidden_delta: hidden_delta / 4.0, output_delta: output_delta / 4.0 }
        }

        fn right(&self) -> Mlp<f64> {
            self.model.backward(&self.x, &self.labels).1
        }

        fn compare(&mut self, grads: &Mlp<f64>) -> Comparison {
            let Self { model, x, labels, .. } = self;
            check::gradients(model, grads, |model| model.backward(x, labels).0).unwrap()
        }

        /// The tensors that these gradients are wrong in, each with its largest error.
        fn wrong(&mut self, grads: &Mlp<f64>) -> Vec<(String, f64)> {
            let found = self.compare(grads);
            let wrong = found.tensors().iter().filter(|tensor| tensor.worst_error() >= TOLERANCE);
            wrong.map(|tensor| (tensor.path.clone(), tensor.worst_error())).collect()
        }
    }

    #[test]
    fn the_gradient_is_that_of_the_loss() {
        let mut case = Case::new();
        let found = case.compare(&case.right());
        assert_eq!((found.checked(), found.tensors().len()), (64 * 10 + 10 + 10 * 10 + 10, 4));
        assert!(found.worst_error() < TOLERANCE, "{found}");
    }

    #[test]
    fn a_wrong_sign_is_found() {
        let mut case = Case::new();
        let wrong = Mlp { hidden: Linear::backward(&case.x, &-&case.hidden_delta), ..case.right() };
        let found = case.wrong(&wrong);
        assert_eq!(found.iter().map(|(path, _)| &**path).collect::<Vec<_>>(), ["hidden.weight", "hidden.bias"]);
        assert!(found.iter().all(|(_, error)| (error - 2.0).abs() < TOLERANCE), "{found:?}");
    }

    /// Where the shapes agree with it and without it.
    #[test]
    fn a_missing_transpose_is_found() {
        let mut case = Case::new();
        let mut wrong = case.right();
        wrong.output.weight = case.hidden.t().dot(&case.output_delta); // for the gradient of (out, in)
        let found = case.wrong(&wrong);
        assert!(matches!(&found[..], [(path, error)] if path == "output.weight" && *error > 0.5), "{found:?}");

        let back = case.output_delta.dot(&case.model.output.weight.t()); // on the way to the hidden layer
        let delta = back * case.hidden.mapv(|h| f64::from(h > 0.0));
        let wrong = Mlp { hidden: Linear::backward(&case.x, &delta), ..case.right() };
        let found = case.wrong(&wrong);
        assert_eq!(found.iter().map(|(path, _)| &**path).collect::<Vec<_>>(), ["hidden.weight", "hidden.bias"]);
        assert!(found.iter().all(|(_, error)| *error > 0.5), "{found:?}");
    }

    #[test]
    fn a_forgotten_bias_is_found() {
        for layer in ["hidden", "output"] {
            let mut case = Case::new();
            let mut wrong = case.right();
            if layer == "hidden" { &mut wrong.hidden } else { &mut wrong.output }.bias.fill(0.0);
            let found = case.wrong(&wrong);
            let [(path, error)] = &found[..] else { panic!("{found:?}") };
            assert_eq!(*path, format!("{layer}.bias"));
            assert!((error - 1.0).abs() < TOLERANCE, "{error}");
        }
    }
}
