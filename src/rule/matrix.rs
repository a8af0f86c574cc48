//! Rules of whole matrices.

use std::borrow::Cow;

use ndarray::{Array2, ArrayViewMut2};

use super::{At, Decay, HyperParameters};
use crate::error::Result;
use crate::params::{Scalar, TensorInfo};

/// One algorithm, matrix by matrix.
///
/// [`Matrixwise`] makes an optimizer of it. A tensor is the matrix of its first axis and all others: a convolution's
/// kernel (out, in, height, width) is a matrix (out, in·height·width), a vector one of a single column.
///
/// This is all of descent by steps of fixed length:
///
/// ```
/// use gradus::{prelude::*, rule::{At, MatrixRule, MatrixSlot, Matrixwise}};
/// use ndarray::{Array2, ArrayViewMut2, array};
///
/// gradus::hyper_parameters! {
///     /// Descent by steps of fixed length.
///     struct Normalized => NormalizedValues {
///         /// The least norm ε ≥ 0 that is divided by.
///         eps: 1e-12, 0.0..;
///     }
/// }
///
/// impl<A: Scalar> MatrixRule<A> for Normalized {
///     fn name(&self) -> &'static str { "normalized" }
///     fn slots(&self, _: (usize, usize)) -> Vec<MatrixSlot> { vec![] }
///
///     fn direction(&self, values: &NormalizedValues, _: &At, mut grad: ArrayViewMut2<'_, A>, _: &mut [Array2<A>]) {
///         let norm = grad.iter().map(|g| g.as_f64().powi(2)).sum::<f64>().sqrt();
///         grad.mapv_inplace(|g| A::from_f64(g.as_f64() / norm.max(values.eps)));
///     }
/// }
///
/// let mut opt = Matrixwise::from_rule(Normalized::default(), 0.5);
/// let mut w = array![[0.0, 1.0]];
/// opt.step(&mut w, &array![[3.0, 4.0]])?;
/// assert_eq!(w, array![[-0.3, 0.6]]);
/// # Ok::<(), gradus::Error>(())
/// ```
pub trait MatrixRule<A: Scalar>: HyperParameters {
    /// The algorithm's name, lower case.
    fn name(&self) -> &'static str;

    /// What is remembered of a matrix with these rows and columns, zero at first.
    fn slots(&self, shape: (usize, usize)) -> Vec<MatrixSlot>;

    /// At least how many slots there are for such a matrix, without making them. Where their number grows with the matrix, a file that
    /// lies about its size then takes no memory: a state of fewer tensors is refused.
    fn least_slots(&self, shape: (usize, usize)) -> usize {
        let _ = shape;
        0
    }

    /// How weight decay enters.
    fn decay(&self) -> Decay {
        Decay::Decoupled
    }

    /// Whether the rule can step this tensor.
    ///
    /// # Errors
    /// Whatever names the tensor and what would be accepted.
    fn accepts(&self, tensor: &TensorInfo) -> Result<()> {
        let _ = tensor;
        Ok(())
    }

    /// Overwrites the gradient with the direction: the step is `θ ← θ − η·direction`, with η the learning rate. The gradient is finite
    /// and in row-major order.
    ///
    /// It cannot fail, because tensors are stepped in parallel and an error for one could not hold back the others. If it gives a slot
    /// another shape, the state of that tensor starts over at its next step.
    ///
    /// A panic unwinds to the caller of [`step`](crate::Optimizer::step). Some tensors have moved then, and the optimizer's state is
    /// lost: restore both from a saved state.
    fn direction(&self, values: &Self::Values, at: &At, grad: ArrayViewMut2<'_, A>, slots: &mut [Array2<A>]);
}

/// A matrix that a [`MatrixRule`] remembers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MatrixSlot {
    /// Its name in the state.
    pub name: Cow<'static, str>,
    /// Rows and columns.
    pub shape: (usize, usize),
}

impl MatrixSlot {
    /// A slot of this name and shape.
    pub fn new(name: impl Into<Cow<'static, str>>, shape: (usize, usize)) -> Self {
        Self { name: name.into(), shape }
    }
}

/// The rows and columns of a tensor as a matrix.
pub(crate) fn as_matrix(shape: &[usize]) -> (usize, usize) {
    match shape {
        [] => (1, 1),
        [rows, columns @ ..] => (*rows, columns.iter().product()),
    }
}
