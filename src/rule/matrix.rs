//! Rules for whole matrices.

use std::borrow::Cow;

use ndarray::{Array2, ArrayViewMut2};

use super::{At, Decay, HyperParameters};
use crate::error::{Error, Result, StepError};
use crate::params::{Layout, Scalar, TensorInfo};

/// An algorithm on whole matrices: it computes the direction in which one matrix moves. [`Matrixwise`](super::Matrixwise) makes an
/// optimizer of it.
///
/// A tensor is reshaped to a matrix: the first axis becomes the rows, and all other axes together the columns. A convolution kernel (out,
/// in, height, width) is a matrix (out, in·height·width), and a vector is a matrix with one column.
///
/// This is gradient descent with steps of fixed length, complete:
///
/// ```
/// use gradus::{params::TensorInfo, prelude::*, rule::{At, MatrixRule, MatrixSlot, Matrixwise}};
/// use ndarray::{Array2, ArrayViewMut2, array};
///
/// gradus::hyper_parameters! {
///     /// Descent by steps of fixed length.
///     struct Normalized => NormalizedValues {
///         /// The smallest divisor ε ≥ 0.
///         eps: 1e-12, 0.0..;
///     }
/// }
///
/// impl<A: Scalar> MatrixRule<A> for Normalized {
///     fn name(&self) -> &'static str { "normalized" }
///     fn slots(&self, _: (usize, usize)) -> Vec<MatrixSlot> { vec![] }
///
///     fn direction(
///         &self,
///         values: &NormalizedValues,
///         _: &At,
///         _: &TensorInfo,
///         mut grad: ArrayViewMut2<'_, A>,
///         _: &mut [Array2<A>],
///     ) {
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
pub trait MatrixRule<A: Scalar>: HyperParameters + 'static {
    /// The algorithm's name in a saved state, in lower case.
    fn name(&self) -> &'static str;

    /// The state matrices for a matrix with these rows and columns. They start at 0.
    fn slots(&self, shape: (usize, usize)) -> Vec<MatrixSlot>;

    /// The state matrices for this tensor. By default they are the [`slots`](Self::slots) of its matrix. Implement it if they depend on more than rows
    /// and columns: on the tensor's path or axes.
    fn slots_for(&self, tensor: &TensorInfo) -> Vec<MatrixSlot> {
        self.slots(as_matrix(tensor.shape()))
    }

    /// A lower bound of the number of slots for a matrix with these rows and columns. Implement it if the number of slots grows with the
    /// matrix. A saved state with a wrong, very large shape is then rejected before memory is allocated.
    fn least_slots(&self, shape: (usize, usize)) -> usize {
        let _ = shape;
        0
    }

    /// Returns an error if the rule cannot step these tensors together, for example because a pattern matches none of them. The driver calls it
    /// until the first step has been taken. The default accepts all.
    ///
    /// # Errors
    /// An error that describes what is accepted.
    fn accepts_all(&self, tensors: &Layout) -> Result<()> {
        let _ = tensors;
        Ok(())
    }

    /// The form of weight decay. The default is [`Decay::Decoupled`].
    fn decay(&self) -> Decay {
        Decay::Decoupled
    }

    /// Returns an error if the rule cannot step this tensor. The default accepts every tensor.
    ///
    /// # Errors
    /// An error that names the tensor and describes what is accepted.
    fn accepts(&self, tensor: &TensorInfo) -> Result<()> {
        let _ = tensor;
        Ok(())
    }

    /// Overwrites the gradient with the direction. The driver then moves the parameter: `θ ← θ − η · direction`, with the learning rate η.
    /// The gradient is finite and in row-major order. `tensor` has the path and the shape of the tensor that the matrix is made of. The slots
    /// are in the order of [`slots_for`](Self::slots_for).
    ///
    /// It cannot return an error, because tensors are stepped in parallel, and other tensors may already have moved. If it changes the
    /// shape of a slot, the state of that tensor is reset at its next step.
    ///
    /// A panic unwinds to the caller of [`step`](crate::Optimizer::step). Some tensors may have moved then, and the optimizer's state is
    /// lost: restore both from a saved state.
    fn direction(
        &self,
        values: &Self::Values,
        at: &At,
        tensor: &TensorInfo,
        grad: ArrayViewMut2<'_, A>,
        slots: &mut [Array2<A>],
    );
}

/// A matrix in the state of a [`MatrixRule`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MatrixSlot {
    /// The name in the state.
    pub name: Cow<'static, str>,
    /// Rows and columns.
    pub shape: (usize, usize),
}

impl MatrixSlot {
    /// Creates a slot with this name and shape.
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

/// Returns an error unless the tensor has at least two axes.
pub(crate) fn ensure_matrix(optimizer: &'static str, tensor: &TensorInfo) -> Result<()> {
    match tensor.shape() {
        [_, _, ..] => Ok(()),
        shape => {
            let (path, shape) = (tensor.path().into(), shape.into());
            Err(Error::Step(StepError::NotAMatrix { optimizer, path, shape }))
        }
    }
}
