//! The initial values of an adapter.

use faer::Mat;
use ndarray::{Array2, ArrayRef2};
use rand::{Rng, RngExt};
use rand_distr::StandardNormal;

use crate::error::{Error, Result};
use crate::params::Scalar;

/// The initial values of A. B starts from 0, so that the layer's output does not change. To start from the weight itself, see
/// [`Config::pissa`](super::Config::pissa).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Init {
    /// Uniform between −1/√in and 1/√in: Kaiming's initialization with a = √5, as in PyTorch's linear layers and in `peft`.
    #[default]
    Kaiming,
    /// Normal with standard deviation 1/r: `"gaussian"` in `peft`.
    Gaussian,
}

impl Init {
    pub(super) fn draw<A: Scalar>(self, shape: (usize, usize), rng: &mut impl Rng) -> Array2<A> {
        let (rank, inputs) = shape;
        let bound = 1.0 / (inputs.max(1) as f64).sqrt();
        Array2::from_shape_simple_fn(shape, || {
            A::from_f64(match self {
                Self::Kaiming => bound * (2.0 * rng.random::<f64>() - 1.0),
                Self::Gaussian => rng.sample::<f64, _>(StandardNormal) / rank as f64,
            })
        })
    }
}

/// A and B with s·B·A the part of the largest singular values.
pub(super) fn principal<A: Scalar>(weight: &ArrayRef2<A>, rank: usize, scale: f64) -> Result<(Array2<A>, Array2<A>)> {
    let (outputs, inputs) = weight.dim();
    let matrix = Mat::from_fn(outputs, inputs, |row, column| weight[[row, column]].as_f64());
    let svd = matrix.thin_svd().map_err(|error| Error::Other(format!("singular values of the weight: {error:?}")))?;
    let root = |at: usize| (svd.S()[at] / scale).sqrt();
    let lora_a = Array2::from_shape_fn((rank, inputs), |(at, column)| A::from_f64(root(at) * svd.V()[(column, at)]));
    let lora_b = Array2::from_shape_fn((outputs, rank), |(row, at)| A::from_f64(root(at) * svd.U()[(row, at)]));
    Ok((lora_a, lora_b))
}
