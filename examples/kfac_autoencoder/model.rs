//! A deep autoencoder and its backward pass.

use gradus::curvature::Kfac;
use gradus::{LinearTap, prelude::*};
use ndarray::{Array1, Array2, ArrayView2, Axis, LinalgScalar};
use rand::Rng;
use rand_distr::{Distribution, StandardNormal};

/// 64 pixels to 8 numbers and back.
pub(crate) const WIDTHS: [usize; 9] = [64, 128, 64, 32, 8, 32, 64, 128, 64];

/// The layer that gives the code: linear, as the last one is.
const CODE: usize = 3;

#[derive(Params, Clone)]
pub(crate) struct Linear<A: Scalar> {
    /// (out, in)
    weight: Array2<A>,
    bias: Array1<A>,
}

#[derive(Params, Clone)]
pub(crate) struct Autoencoder<A: Scalar> {
    layers: Vec<Linear<A>>,
}

/// What a forward pass keeps for the backward pass.
pub(crate) struct Pass<A> {
    /// The input of each layer.
    inputs: Vec<Array2<A>>,
    pub(crate) logits: Array2<A>,
}

impl<A: Scalar + LinalgScalar> Autoencoder<A> {
    /// Glorot's variance, 2/(in + out).
    pub(crate) fn new(rng: &mut impl Rng) -> Self {
        let layer = |sides: &[usize]| {
            let deviation = (2.0 / (sides[0] + sides[1]) as f64).sqrt();
            let weight = Array2::from_shape_simple_fn((sides[1], sides[0]), || {
                let draw: f64 = StandardNormal.sample(rng);
                A::from_f64(deviation * draw)
            });
            Linear { weight, bias: Array1::zeros(sides[1]) }
        };
        Self { layers: WIDTHS.windows(2).map(layer).collect() }
    }

    pub(crate) fn forward(&self, x: ArrayView2<'_, A>) -> Pass<A> {
        let (mut inputs, mut x) = (Vec::with_capacity(self.layers.len()), x.to_owned());
        for (number, layer) in self.layers.iter().enumerate() {
            let mut z = x.dot(&layer.weight.t());
            z += &layer.bias;
            if number != CODE && number + 1 < self.layers.len() {
                z.mapv_inplace(tanh);
            }
            inputs.push(std::mem::replace(&mut x, z));
        }
        Pass { inputs, logits: x }
    }

    /// The gradients at every layer's output before its tanh, example by example, from those at the logits.
    pub(crate) fn deltas(&self, pass: &Pass<A>, output_grad: Array2<A>) -> Vec<Array2<A>> {
        let mut deltas = vec![output_grad];
        for number in (1..self.layers.len()).rev() {
            let mut delta = deltas[deltas.len() - 1].dot(&self.layers[number].weight);
            if number - 1 != CODE {
                delta.zip_mut_with(&pass.inputs[number], |delta, y| *delta *= A::one() - *y * *y);
            }
            deltas.push(delta);
        }
        deltas.reverse();
        deltas
    }

    /// The gradients of the mean loss.
    pub(crate) fn grads(&self, pass: &Pass<A>, deltas: &[Array2<A>]) -> Self {
        let scale = A::from_f64(1.0 / pass.logits.nrows() as f64);
        let layer = |(x, delta): (&Array2<A>, &Array2<A>)| Linear {
            weight: delta.t().dot(x).mapv_into(|sum| sum * scale),
            bias: delta.sum_axis(Axis(0)).mapv_into(|sum| sum * scale),
        };
        Self { layers: pass.inputs.iter().zip(deltas).map(layer).collect() }
    }

    /// Tells K-FAC what every layer saw. `deltas` are of targets drawn from the model.
    pub(crate) fn observe(&self, opt: &mut Kfac<A>, pass: &Pass<A>, deltas: &[Array2<A>]) -> gradus::Result<()> {
        for (number, (x, delta)) in pass.inputs.iter().zip(deltas).enumerate() {
            opt.observe(&format!("layers.{number}"), LinearTap::new(x, delta))?;
        }
        Ok(())
    }
}

/// From one exponential, which is several times as fast as the library's.
fn tanh<A: Scalar>(z: A) -> A {
    let two = A::one() + A::one();
    A::one() - two / (A::one() + (two * z).exp())
}

/// Of the cross-entropy of every pixel: σ(z) − t.
pub(crate) fn output_grad<A: Scalar>(logits: &Array2<A>, targets: ArrayView2<'_, A>) -> Array2<A> {
    let mut grad = logits.mapv(|z| A::one() / (A::one() + (-z).exp()));
    grad.zip_mut_with(&targets, |p, t| *p -= *t);
    grad
}

/// The cross-entropy of all pixels of an image, above what the pixels' own entropy makes unavoidable: mean over the images.
pub(crate) fn excess<A: Scalar>(logits: &Array2<A>, targets: ArrayView2<'_, A>) -> f64 {
    let xlogx = |p: f64| if p > 0.0 { p * p.ln() } else { 0.0 };
    let sum: f64 = logits.iter().zip(targets).fold(0.0, |sum, (z, t)| {
        let (z, t) = (z.as_f64(), t.as_f64());
        // −t ln σ(z) − (1 − t) ln(1 − σ(z)), without overflow, less the entropy of t.
        sum + z.max(0.0) - z * t + (-z.abs()).exp().ln_1p() + xlogx(t) + xlogx(1.0 - t)
    });
    sum / logits.nrows() as f64
}

#[cfg(test)]
mod tests {
    use gradus::check::Gradients;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    /// Of an element, relative to itself, in f64.
    const TOLERANCE: f64 = 1e-6;

    #[test]
    fn the_backward_pass_is_the_derivative() {
        let mut model = Autoencoder::<f64>::new(&mut ChaCha8Rng::seed_from_u64(3));
        let x = Array2::from_shape_fn((5, WIDTHS[0]), |(i, j)| ((i * 7 + j * 3) as f64).sin().abs());
        let pass = model.forward(x.view());
        let grads = model.grads(&pass, &model.deltas(&pass, output_grad(&pass.logits, x.view())));
        let loss = |model: &Autoencoder<f64>| excess(&model.forward(x.view()).logits, x.view());
        let found = Gradients::new().sample(16, 3).compare(&mut model, &grads, loss).unwrap();
        assert_eq!(found.checked(), 8 * (16 + 16) - 8); // the bias of the code has 8
        assert!(found.worst_error() < TOLERANCE, "{found}");
    }
}
