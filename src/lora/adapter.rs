//! An adapter and its gradients.

use ndarray::{Array1, Array2, ArrayRef, ArrayRef2, CowArray, Dimension, Ix2};
use rand::{Rng, RngExt};

use super::layer::AdaptedLayer;
use crate::error::{ArgumentError, Error, Result};
use crate::params::{Element, Params, ParamsMut, Scalar, Visitor, VisitorMut};

/// A low-rank adapter of one weight. Created by [`Config::adapt`](super::Config::adapt) or [`Config::pissa`](super::Config::pissa).
///
/// # Update rule
/// ```text
/// y  = xWᵀ + s(xAᵀ)Bᵀ                       x (batch, in), W (out, in), A (r, in), B (out, r)
/// dB = s·δᵀ(xAᵀ)        = s·G·Aᵀ            δ = dL/dy, G = dL/dW
/// dA = s·(δB)ᵀx         = s·Bᵀ·G
/// dx = δW + s·(δB)A
/// ```
/// With dropout, the adapter's x is masked, and the x of W is not. With DoRA, row by row:
/// ```text
/// y = (m/n)(xWᵀ + s(xAᵀ)Bᵀ)                 n = ‖W + sBA‖, m starts from n
/// ```
/// [`NormGradient`] determines whether gradients pass through n. No matrix of W's size is formed: W + sBA is computed a few rows at a time, in `f64`, so that
/// norm and direction belong to the same numbers even if W and sBA nearly cancel.
///
/// [`AdaptedLayer`] has the matrix W of layers that store their weight in another way, such as embeddings and convolutions. A convolution's x has a row per
/// position of the kernel, as [`unfold`](crate::curvature::unfold) returns it.
///
/// # State
/// Its tensors have the paths `lora_a`, `lora_b` and, with DoRA, `magnitude`.
///
/// # Conventions
/// Hugging Face's `peft`, whose files [`peft`](super::peft) reads and writes. With DoRA and dropout together, `peft` also masks the x of W in a part of the
/// sum; here it is never masked.
///
/// # References
/// E. J. Hu et al., *LoRA: Low-Rank Adaptation of Large Language Models* (2021), [arXiv:2106.09685](https://arxiv.org/abs/2106.09685), section 4.1.
/// D. Kalajdzievski, *A Rank Stabilization Scaling Factor for Fine-Tuning with LoRA* (2023), [arXiv:2312.03732](https://arxiv.org/abs/2312.03732).
/// S.-Y. Liu et al., *DoRA: Weight-Decomposed Low-Rank Adaptation* (2024), [arXiv:2402.09353](https://arxiv.org/abs/2402.09353), equations 5 and 11.
#[derive(Debug, Clone, PartialEq)]
pub struct Lora<A> {
    /// A, of shape (r, in).
    pub lora_a: Array2<A>,
    /// B, of shape (out, r).
    pub lora_b: Array2<A>,
    /// m, of shape (out): with DoRA.
    pub magnitude: Option<Array1<A>>,
    pub(super) scale: A,
    pub(super) dropout: f64,
    pub(super) norm: NormGradient,
    pub(super) layer: AdaptedLayer,
}

/// The gradients of an adapter's tensors: a tree like the adapter.
#[derive(Debug, Clone, PartialEq)]
pub struct Grads<A> {
    /// dL/dA, of shape (r, in).
    pub lora_a: Array2<A>,
    /// dL/dB, of shape (out, r).
    pub lora_b: Array2<A>,
    /// dL/dm, of shape (out): with DoRA.
    pub magnitude: Option<Array1<A>>,
}

/// The result of the backward pass through an adapted layer.
#[derive(Debug, Clone, PartialEq)]
pub struct Backward<A> {
    /// The gradients for the optimizer.
    pub grads: Grads<A>,
    /// dL/dx, of shape (batch, in), for the previous layer.
    pub input: Array2<A>,
}

/// The values that [`Lora::unmerge`] needs to restore the weight.
#[derive(Debug, Clone, PartialEq)]
#[must_use = "without it the weight cannot be unmerged"]
pub struct Merged<A> {
    /// m/n of DoRA, what the rows have been multiplied by.
    pub(super) factors: Option<Array1<A>>,
}

/// Whether gradients pass through the norm n that DoRA divides by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NormGradient {
    /// n is a constant for the gradients, as in `peft` and as recommended in the paper (section 4.3).
    #[default]
    Detached,
    /// The exact derivative.
    Through,
}

/// A tree of the fields, by their names.
macro_rules! tree {
    ($($tree:ident)*) => {
        $(
            impl<A: Element> Params for $tree<A> {
                type Elem = A;

                fn visit<'a>(&'a self, visitor: &mut Visitor<'_, 'a, A>) {
                    visitor.field("lora_a", &self.lora_a);
                    visitor.field("lora_b", &self.lora_b);
                    visitor.field("magnitude", &self.magnitude);
                }
            }

            impl<A: Element> ParamsMut for $tree<A> {
                fn visit_mut<'a>(&'a mut self, visitor: &mut VisitorMut<'_, 'a, A>) {
                    visitor.field("lora_a", &mut self.lora_a);
                    visitor.field("lora_b", &mut self.lora_b);
                    visitor.field("magnitude", &mut self.magnitude);
                }
            }
        )*
    };
}

tree!(Lora Grads);

impl<A: Scalar> Lora<A> {
    /// The factor s of the product BA.
    pub fn scale(&self) -> A {
        self.scale
    }

    /// Draws a dropout mask for the adapter's x: 0 with the probability p of the [dropout](super::Config::dropout), and 1/(1 − p) otherwise.
    pub fn mask(&self, shape: (usize, usize), rng: &mut impl Rng) -> Array2<A> {
        let kept = A::from_f64(1.0 / (1.0 - self.dropout));
        Array2::from_shape_simple_fn(shape, || if rng.random_bool(self.dropout) { A::zero() } else { kept })
    }

    /// The kind of layer that the adapter belongs to.
    pub fn layer(&self) -> &AdaptedLayer {
        &self.layer
    }

    /// Sets whether a linear layer stores its weight as (in, out). The setting of `peft`'s files is one for all modules; use this for the others of a model that
    /// has both kinds. It has no effect on embeddings and convolutions.
    pub fn set_fan_in_fan_out(&mut self, fan_in_fan_out: bool) {
        match (&self.layer, fan_in_fan_out) {
            (AdaptedLayer::Linear, true) => self.layer = AdaptedLayer::FanInFanOut,
            (AdaptedLayer::FanInFanOut, false) => self.layer = AdaptedLayer::Linear,
            _ => {}
        }
    }

    /// W of a weight that this adapter fits.
    pub(super) fn matrix<'w, D: Dimension>(&self, weight: &'w ArrayRef<A, D>) -> Result<CowArray<'w, A, Ix2>> {
        let (outputs, inputs) = (self.lora_b.nrows(), self.lora_a.ncols());
        shape("lora_b", &[outputs, self.lora_a.nrows()], self.lora_b.shape())?;
        if let Some(magnitude) = &self.magnitude {
            shape("magnitude", &[outputs], magnitude.shape())?;
        }
        shape("weight", &self.layer.weight_shape(outputs, inputs), weight.shape())?;
        self.layer.matrix(weight)
    }

    pub(super) fn check_input(&self, x: &ArrayRef2<A>) -> Result<()> {
        shape("x", &[x.nrows(), self.lora_a.ncols()], x.shape())
    }
}

/// The shape of what only DoRA has: that of a number where there is none.
pub(super) fn lengths<A>(rows: &Option<Array1<A>>) -> &[usize] {
    rows.as_ref().map_or(&[], |rows| rows.shape())
}

pub(super) fn shape(argument: &'static str, expected: &[usize], found: &[usize]) -> Result<()> {
    match expected == found {
        true => Ok(()),
        false => {
            Err(Error::Argument(ArgumentError::Shape { argument, expected: expected.into(), found: found.into() }))
        }
    }
}
