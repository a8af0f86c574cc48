//! The kinds of layers that have adapters, and how each stores its weight.

use ndarray::{Array2, ArrayRef, CowArray, Dimension, Ix2};

use crate::error::{ArgumentError, Error, Result};
use crate::params::Element;

/// The kind of layer that an adapter belongs to. It determines how the layer's weight is stored.
///
/// The formulas of [`Lora`](super::Lora) are those of a matrix W of shape (out, in):
///
/// | kind | shape of the weight | W | in `peft` |
/// |---|---|---|---|
/// | `Linear` | (out, in) | the weight | `Linear` |
/// | `FanInFanOut` | (in, out) | its transpose | `Conv1D` of GPT-2 |
/// | `Embedding` | (tokens, width) | its transpose: in = tokens, out = width | `Embedding` |
/// | `Convolution` | (out, channels, kernel…) | (out, channels·kernel), the last axis in row-major order | `Conv1d`, `Conv2d`, `Conv3d` |
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum AdaptedLayer {
    /// y = xWᵀ, with a weight of shape (out, in).
    #[default]
    Linear,
    /// A linear layer that stores its weight as (in, out).
    FanInFanOut,
    /// A table with a row per token.
    Embedding,
    /// A convolution without groups, over any number of axes.
    Convolution {
        /// The channels of the input and the sides of the kernel, such as `[3, 5, 5]`.
        window: Vec<usize>,
    },
}

impl AdaptedLayer {
    /// The shape of the weight whose matrix W has the shape (out, in).
    pub(super) fn weight_shape(&self, outputs: usize, inputs: usize) -> Vec<usize> {
        match self {
            Self::Linear => vec![outputs, inputs],
            Self::FanInFanOut | Self::Embedding => vec![inputs, outputs],
            Self::Convolution { window } => std::iter::once(outputs).chain(window.iter().copied()).collect(),
        }
    }

    /// The kind of an adapter for a new weight of this shape.
    pub(super) fn of_weight(shape: &[usize], fan_in_fan_out: bool) -> Result<Self> {
        match shape {
            [_, _] if fan_in_fan_out => Ok(Self::FanInFanOut),
            [_, _] => Ok(Self::Linear),
            [_, window @ ..] if window.len() > 1 => Ok(Self::Convolution { window: window.into() }),
            _ => {
                let (argument, value) = ("axes of the weight", shape.len() as f64);
                Err(Error::Argument(ArgumentError::Range { argument, value, accepted: "2 or more".into() }))
            }
        }
    }

    /// W: a view, or a copy if the kernel of a convolution is not contiguous.
    pub(super) fn matrix<'w, A: Element, D: Dimension>(
        &self,
        weight: &'w ArrayRef<A, D>,
    ) -> Result<CowArray<'w, A, Ix2>> {
        let matrix = match self {
            Self::Linear => weight.view().into_dimensionality::<Ix2>().map(CowArray::from),
            Self::FanInFanOut | Self::Embedding => {
                weight.view().reversed_axes().into_dimensionality::<Ix2>().map(CowArray::from)
            }
            Self::Convolution { window } => {
                let inputs = window.iter().try_fold(1_usize, |product, side| product.checked_mul(*side));
                let outputs = weight.shape().first().copied().unwrap_or(0);
                weight.to_shape((outputs, inputs.unwrap_or(0)))
            }
        };
        let mismatch = |_| {
            let (argument, expected) = ("weight", self.weight_shape(0, 0));
            Error::Argument(ArgumentError::Shape { argument, expected, found: weight.shape().into() })
        };
        matrix.map_err(mismatch)
    }

    /// Writes W back to the weight, which has its shape.
    pub(super) fn assign<A: Element, D: Dimension>(&self, matrix: &Array2<A>, weight: &mut ArrayRef<A, D>) {
        let is_transposed = matches!(self, Self::FanInFanOut | Self::Embedding);
        let view = weight.view_mut();
        let mut view = if is_transposed { view.reversed_axes() } else { view };
        view.iter_mut().zip(matrix).for_each(|(to, from)| *to = *from);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{Array, Array4, array};

    #[test]
    fn a_weight_is_a_matrix_and_back() {
        let weight = array![[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]];
        for (kind, expected) in [
            (AdaptedLayer::Linear, weight.clone()),
            (AdaptedLayer::FanInFanOut, weight.t().to_owned()),
            (AdaptedLayer::Embedding, weight.t().to_owned()),
        ] {
            let matrix = kind.matrix(&weight).unwrap().into_owned();
            assert_eq!(matrix, expected, "{kind:?}");
            assert_eq!(kind.weight_shape(matrix.nrows(), matrix.ncols()), [2, 3], "{kind:?}");
            let mut back = Array2::zeros((2, 3));
            kind.assign(&matrix, &mut back);
            assert_eq!(back, weight, "{kind:?}");
        }
    }

    #[test]
    fn a_kernel_is_a_row_in_any_memory_layout() {
        let weight: Array4<f64> = Array::from_iter((0..24).map(f64::from)).into_shape_with_order((2, 3, 2, 2)).unwrap();
        let kind = AdaptedLayer::of_weight(weight.shape(), false).unwrap();
        assert_eq!(kind, AdaptedLayer::Convolution { window: vec![3, 2, 2] });
        let mut columns = Array4::zeros((2, 2, 3, 2)).permuted_axes([0, 2, 1, 3]); // the axes in another order of memory
        columns.assign(&weight);
        for weight in [&weight, &columns] {
            let matrix = kind.matrix(weight).unwrap().into_owned();
            assert_eq!(matrix, Array::from_iter((0..24).map(f64::from)).into_shape_with_order((2, 12)).unwrap());
            let mut back = Array4::zeros((2, 3, 2, 2));
            kind.assign(&matrix, &mut back);
            assert_eq!(back, *weight);
        }
        assert!(AdaptedLayer::of_weight(&[4], false).is_err());
    }
}
