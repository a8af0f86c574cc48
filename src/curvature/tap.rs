//! A layer's input and output gradient, example by example.
//!
//! K-FAC (feature `second-order`), low-rank adapters and per-example norms need a layer's inputs and output gradients, which every backward
//! pass computes anyway. A [`LinearTap`] holds them.

use ndarray::{Array1, Array2, ArrayRef2, ArrayView2, ArrayView4, Axis};

use crate::error::{ArgumentError, Error, Result, ensure_count};
use crate::params::Scalar;
use crate::step::norm;

/// The input of a linear layer and the gradient of its pre-activation, one row per example.
///
/// With `z = xWᵀ + b` and the loss L of a *single* example, a row of `output_grad` is dL/dz of that example, **not divided by the batch
/// size**. A backward pass from the mean loss computes dL/dz divided by the batch size: multiply it by the batch size, or start the backward
/// pass from the gradients of single losses. [`weight_grad`](Self::weight_grad) and [`bias_grad`](Self::bias_grad) return the gradients of the
/// mean loss.
///
/// If a layer is applied at several positions of an example, as in a convolution or a sequence, there is one row per position: see
/// [`positions`](Self::positions). [`unfold`] and [`rows`] make the rows of a convolution.
///
/// ```
/// use gradus::LinearTap;
/// use ndarray::array;
///
/// let (x, output_grad) = (array![[1.0, 2.0], [3.0, 4.0]], array![[1.0], [-1.0]]);
/// let tap = LinearTap::new(&x, &output_grad);
/// assert_eq!(tap.weight_grad()?, array![[-1.0, -1.0]]); // ((1, 2) − (3, 4)) / 2
/// # Ok::<(), gradus::Error>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct LinearTap<'a, A> {
    /// x, of shape (batch, in).
    pub input: ArrayView2<'a, A>,
    /// dL/dz of single examples, of shape (batch, out).
    pub output_grad: ArrayView2<'a, A>,
    positions: usize,
}

impl<'a, A: Scalar> LinearTap<'a, A> {
    /// Creates a tap from `input` of shape (batch, in) and `output_grad` of shape (batch, out).
    pub fn new(input: &'a ArrayRef2<A>, output_grad: &'a ArrayRef2<A>) -> Self {
        Self { input: input.view(), output_grad: output_grad.view(), positions: 1 }
    }

    /// Sets the number of positions per example, of a convolution's output or of a sequence. Each position is a row.
    #[must_use]
    pub fn positions(mut self, positions: usize) -> Self {
        self.positions = positions;
        self
    }

    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.input.nrows()
    }

    /// The number of examples: the number of rows divided by the number of positions.
    pub fn examples(&self) -> usize {
        self.rows() / self.positions.max(1)
    }

    /// The gradient of the mean loss with respect to the weight, of shape (out, in).
    ///
    /// # Errors
    /// Those of [`check`](Self::check).
    pub fn weight_grad(&self) -> Result<Array2<A>> {
        self.check()?;
        Ok(self.mean(self.output_grad.t().dot(&self.input)))
    }

    /// The gradient of the mean loss with respect to the bias, of shape (out).
    ///
    /// # Errors
    /// Those of [`check`](Self::check).
    pub fn bias_grad(&self) -> Result<Array1<A>> {
        self.check()?;
        Ok(self.mean(self.output_grad.sum_axis(Axis(0))))
    }

    /// Returns an error unless input and output gradient have the same number of rows, there are whole examples and at least one, and all
    /// values are finite.
    ///
    /// # Errors
    /// [`ArgumentError::Shape`], [`ArgumentError::NotFinite`]; [`ArgumentError::Rows`] if the number of rows is not a multiple of the positions.
    pub fn check(&self) -> Result<()> {
        self.check_rows()?;
        self.check_finite()
    }

    /// The first half of [`check`](Self::check): the rows.
    pub(crate) fn check_rows(&self) -> Result<()> {
        let (rows, positions) = (self.rows(), self.positions);
        ensure_count("positions", positions as u64)?;
        if rows == 0 || !rows.is_multiple_of(positions) {
            return Err(Error::Argument(ArgumentError::Rows { argument: "input", rows, positions }));
        }
        shaped("output_grad", (rows, self.output_grad.ncols()), &self.output_grad)
    }

    /// The second half of [`check`](Self::check): the values.
    pub(crate) fn check_finite(&self) -> Result<()> {
        finite("input", &self.input)?;
        finite("output_grad", &self.output_grad)
    }

    fn mean<D: ndarray::Dimension>(&self, mut sum: ndarray::Array<A, D>) -> ndarray::Array<A, D> {
        let examples = A::from_f64(self.examples() as f64);
        sum.mapv_inplace(|sum| sum / examples);
        sum
    }
}

/// Returns an error unless the matrix has this shape.
pub(crate) fn shaped<A>(argument: &'static str, expected: (usize, usize), matrix: &ArrayRef2<A>) -> Result<()> {
    match matrix.dim() == expected {
        true => Ok(()),
        false => {
            let expected = vec![expected.0, expected.1];
            Err(Error::Argument(ArgumentError::Shape { argument, expected, found: matrix.shape().to_vec() }))
        }
    }
}

/// Returns an error with the first element that is not finite, if there is one.
pub(crate) fn finite<A: Scalar>(argument: &'static str, matrix: &ArrayRef2<A>) -> Result<()> {
    // Without indices first, which is many times as fast.
    if matrix.as_slice_memory_order().is_some_and(norm::finite) {
        return Ok(());
    }
    match matrix.indexed_iter().find(|(_, value)| !value.is_finite()) {
        Some(((row, column), value)) => {
            Err(Error::Argument(ArgumentError::NotFinite { argument, index: vec![row, column], value: value.as_f64() }))
        }
        None => Ok(()),
    }
}

/// Reshapes the gradient of a convolution's output to that of a linear layer: from (batch, out, height, width) to (batch·positions, out), in
/// the order of the rows of [`unfold`].
///
/// ```
/// use gradus::{LinearTap, curvature::{rows, unfold}};
/// use ndarray::{Array4, array};
///
/// // One image, a kernel of 2 × 2, two outputs: two positions.
/// let (image, delta) = (Array4::ones((1, 1, 2, 3)), array![[[[1.0, 2.0]], [[3.0, 4.0]]]]);
/// let (patches, delta) = (unfold(image.view(), (2, 2), (1, 1), (0, 0))?, rows(delta.view()));
/// assert_eq!(delta, array![[1.0, 3.0], [2.0, 4.0]]);
/// let tap = LinearTap::new(&patches, &delta).positions(2);
/// assert_eq!(tap.bias_grad()?, array![3.0, 7.0]);
/// # Ok::<(), gradus::Error>(())
/// ```
pub fn rows<A: Scalar>(output_grad: ArrayView4<'_, A>) -> Array2<A> {
    let (batch, outputs, height, width) = output_grad.dim();
    let positions = height * width;
    Array2::from_shape_fn((batch * positions, outputs), |(row, output)| {
        let (example, position) = (row / positions, row % positions);
        output_grad[[example, output, position / width, position % width]]
    })
}

/// Reshapes the input of a convolution to that of a linear layer ("im2col"): one row per position, with the input values under the kernel.
///
/// The shape changes from (batch, channels, height, width) to (batch·positions, channels·kernel height·kernel width). The positions of an
/// example are in row-major order, and values beyond the edge are 0. The columns are in the order of a kernel of shape (out, channels,
/// height, width) that is reshaped to (out, channels·height·width). `stride` and `padding` are (vertical, horizontal).
///
/// ```
/// use gradus::curvature::unfold;
/// use ndarray::{Array, array};
///
/// let image = Array::from_iter(1..=6).into_shape_with_order((1, 1, 2, 3)).unwrap().mapv(f64::from);
/// let patches = unfold(image.view(), (2, 2), (1, 1), (0, 0))?;
/// assert_eq!(patches, array![[1.0, 2.0, 4.0, 5.0], [2.0, 3.0, 5.0, 6.0]]);
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// # Errors
/// [`ArgumentError::Shape`] if the kernel is larger than the padded image, or if a side of the kernel or a stride is 0;
/// [`ArgumentError::TooLarge`] if the padded image or the rows have more elements than an array can hold.
pub fn unfold<A: Scalar>(
    images: ArrayView4<'_, A>,
    kernel: (usize, usize),
    stride: (usize, usize),
    padding: (usize, usize),
) -> Result<Array2<A>> {
    let (batch, channels, height, width) = images.dim();
    let too_small = |argument, found: (usize, usize), expected: (usize, usize)| {
        Err(Error::Argument(ArgumentError::Shape {
            argument,
            expected: vec![expected.0, expected.1],
            found: vec![found.0, found.1],
        }))
    };
    if stride.0 == 0 || stride.1 == 0 {
        return too_small("stride", stride, (stride.0.max(1), stride.1.max(1)));
    }
    let with_edges = |side: usize, edge: usize| edge.checked_mul(2)?.checked_add(side);
    let too_large = || Error::Argument(ArgumentError::TooLarge { argument: "unfolded input" });
    let padded = with_edges(height, padding.0).zip(with_edges(width, padding.1)).ok_or_else(too_large)?;
    let fitting = (kernel.0.clamp(1, padded.0.max(1)), kernel.1.clamp(1, padded.1.max(1)));
    if kernel != fitting || padded.0 == 0 || padded.1 == 0 {
        return too_small("kernel", kernel, fitting);
    }
    let positions = ((padded.0 - kernel.0) / stride.0 + 1, (padded.1 - kernel.1) / stride.1 + 1);
    let product = |factors: [usize; 3]| factors.into_iter().try_fold(1_usize, usize::checked_mul);
    let shape = product([batch, positions.0, positions.1]).zip(product([channels, kernel.0, kernel.1]));
    let bytes =
        |(rows, columns)| product([rows, columns, size_of::<A>()]).filter(|bytes| isize::try_from(*bytes).is_ok());
    let shape = shape.filter(|shape| bytes(*shape).is_some()).ok_or_else(too_large)?;
    Ok(Array2::from_shape_fn(shape, |(row, column)| {
        let (example, position) = (row / (positions.0 * positions.1), row % (positions.0 * positions.1));
        let (channel, offset) = (column / (kernel.0 * kernel.1), column % (kernel.0 * kernel.1));
        let vertical = (position / positions.1 * stride.0 + offset / kernel.1).checked_sub(padding.0);
        let horizontal = (position % positions.1 * stride.1 + offset % kernel.1).checked_sub(padding.1);
        let inside = vertical.zip(horizontal).and_then(|(y, x)| images.get([example, channel, y, x]));
        inside.copied().unwrap_or_else(A::zero)
    }))
}
