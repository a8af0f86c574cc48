//! Norms and clipped sums of per-example gradients, without forming these gradients.

use std::collections::{BTreeMap, BTreeSet};

use ndarray::{Array1, Array2, ArrayD, ArrayView1, Axis};

use crate::curvature::tap::{LinearTap, shaped};
use crate::error::{ArgumentError, Error, Result, StepError};
use crate::kernel::product::{gram, multiply};
use crate::params::{Element, Scalar};
use crate::step::norm::unravel;

/// The taps of all layers for one batch, from which norms and clipped sums of per-example gradients are computed.
///
/// # Update rule
/// ```text
/// ‖gᵢ‖² = Σ over layers ‖δᵢ‖²(‖aᵢ‖² + 1)                        without a bias: no + 1
/// ‖gᵢ‖² = Σ over layers Σ over positions t, s of (δₜ·δₛ)(aₜ·aₛ + 1)
/// grads = Σᵢ min(1, C/‖gᵢ‖)·gᵢ                                  weight (w ∘ δ)ᵀa, bias Σ wᵢδᵢ
/// ```
/// a are the inputs and δ the output gradients of the single losses in a [`LinearTap`]. The sum is one matrix product, as the gradient of the
/// batch is. Norms and sums are computed in f64 for every element type. If positions cancel, the norm includes a bound of the rounding
/// error, so that a clipped gradient is never longer than C.
///
/// # State
/// None. A call needs memory for two gradients of one layer in f64 and, with T positions, for 2T² numbers. It never needs memory for
/// batch × parameters.
///
/// # Conventions
/// Opacus' "flat" clipping with "ghost" norms, but with min(1, C/‖g‖) instead of min(1, C/(‖g‖ + 1e-6)). **Every trained tensor must be in a
/// tap**, because the norm is that of an example's whole gradient. If a weight is used at several places, make one layer with several
/// positions.
///
/// # Errors
/// [`Error::Layer`](crate::Error::Layer) with the error of [`LinearTap::check`], also if the number of examples differs from that of the other layers;
/// [`StepError::DuplicatePath`]; [`StepError::NormOverflow`] if a norm overflows f64. An empty batch, as Poisson sampling can draw it, is not an
/// error: its sums are 0.
///
/// # Example
/// ```
/// use gradus::LinearTap;
/// use gradus::federated::privacy::PerExample;
/// use ndarray::array;
///
/// let (a, delta) = (array![[2.0, 2.0], [0.0, 0.0]], array![[4.0], [0.5]]);
/// let clipped = PerExample::new().layer("output", LinearTap::new(&a, &delta))?.clip(1.0)?;
/// assert_eq!(clipped.norms, array![12.0, 0.5]); // 4·√(2² + 2² + 1)
/// assert_eq!(clipped.grads["output.weight"], array![[2.0 / 3.0, 2.0 / 3.0]].into_dyn());
/// assert_eq!(clipped.grads["output.bias"], array![1.0 / 3.0 + 0.5].into_dyn());
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// # References
/// I. Goodfellow, *Efficient per-example gradient computations* (2015), [arXiv:1510.01799](https://arxiv.org/abs/1510.01799). X. Li, F. Tramèr, P. Liang and
/// T. Hashimoto, *Large language models can be strong differentially private learners* (2022), [arXiv:2110.05679](https://arxiv.org/abs/2110.05679), sec. 4 (positions).
#[doc(alias = "GradSampleModule")]
#[derive(Debug, Clone)]
pub struct PerExample<'a, A> {
    layers: Vec<Layer<'a, A>>,
    paths: BTreeSet<String>,
}

#[derive(Debug, Clone)]
struct Layer<'a, A> {
    weight: String,
    bias: Option<String>,
    tap: LinearTap<'a, A>,
}

/// The result of clipping the examples of a batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Clipped<A> {
    /// The norm of each example's gradient before clipping.
    pub norms: Array1<f64>,
    /// The **sum** of the clipped gradients by path; weights have the shape (out, in). It is a gradient tree for parameters with these paths.
    pub grads: BTreeMap<String, ArrayD<A>>,
}

impl<A> Default for PerExample<'_, A> {
    fn default() -> Self {
        Self { layers: Vec::new(), paths: BTreeSet::new() }
    }
}

impl<'a, A: Scalar> PerExample<'a, A> {
    /// Creates a batch without layers.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a layer with the tensors `name.weight` and `name.bias`.
    ///
    /// # Errors
    /// Those of the [type](Self).
    pub fn layer(self, name: &str, tap: LinearTap<'a, A>) -> Result<Self> {
        let [weight, bias] = ["weight", "bias"].map(|field| match name {
            "" => field.to_owned(),
            name => format!("{name}.{field}"),
        });
        self.add(weight, Some(bias), tap)
    }

    /// Adds a layer with tensors of these paths.
    ///
    /// # Errors
    /// Those of the [type](Self).
    pub fn weight_and_bias(self, weight: &str, bias: &str, tap: LinearTap<'a, A>) -> Result<Self> {
        self.add(weight.into(), Some(bias.into()), tap)
    }

    /// Adds a layer without a bias, whose weight has this path.
    ///
    /// # Errors
    /// Those of the [type](Self).
    pub fn weight(self, weight: &str, tap: LinearTap<'a, A>) -> Result<Self> {
        self.add(weight.into(), None, tap)
    }

    fn add(mut self, weight: String, bias: Option<String>, tap: LinearTap<'a, A>) -> Result<Self> {
        let checked = match tap.rows() {
            0 => shaped("output_grad", (0, tap.output_grad.ncols()), &tap.output_grad),
            _ => tap.check(),
        };
        let examples = self.layers.first().map_or(tap.examples(), |first| first.tap.examples());
        let same = match tap.examples() == examples {
            true => Ok(()),
            false => {
                let (expected, found) = (vec![examples], vec![tap.examples()]);
                Err(Error::Argument(ArgumentError::Shape { argument: "the batch", expected, found }))
            }
        };
        if let Err(reason) = checked.and(same) {
            return Err(Error::Layer { layer: weight, reason: Box::new(reason) });
        }
        for path in [Some(&weight), bias.as_ref()].into_iter().flatten() {
            if !self.paths.insert(path.clone()) {
                return Err(Error::Step(StepError::DuplicatePath { path: path.clone() }));
            }
        }
        self.layers.push(Layer { weight, bias, tap });
        Ok(self)
    }

    /// The number of examples; 0 if there is no layer.
    pub fn examples(&self) -> usize {
        self.layers.first().map_or(0, |layer| layer.tap.examples())
    }

    /// The norm of each example's gradient over all layers together.
    ///
    /// # Errors
    /// [`StepError::NormOverflow`].
    pub fn norms(&self) -> Result<Array1<f64>> {
        Ok(self.squares()?.0.mapv_into(f64::sqrt))
    }

    /// The squared norms, and by how much rounding may have made each too small.
    fn squares(&self) -> Result<(Array1<f64>, Array1<f64>)> {
        let (mut squares, mut rounding) = (Array1::zeros(self.examples()), Array1::zeros(self.examples()));
        for layer in &self.layers {
            layer.add_squares(&mut squares, &mut rounding);
            if squares.iter().any(|square| !square.is_finite()) {
                return Err(Error::Step(StepError::NormOverflow { path: layer.weight.clone() }));
            }
        }
        Ok((squares, rounding))
    }

    /// Clips each example's gradient to the norm `max_norm` and returns their sum.
    ///
    /// # Errors
    /// [`StepError::NormOverflow`]; [`StepError::NonFiniteGradient`] if the sum overflows the element type; [`ArgumentError::Range`] unless `max_norm` is a
    /// finite number above 0.
    pub fn clip(&self, max_norm: f64) -> Result<Clipped<A>> {
        super::check_clip(max_norm)?;
        let (squares, rounding) = self.squares()?;
        let norms = squares.mapv(f64::sqrt);
        let factors = (squares + rounding).mapv(|square| f64::min(1.0, max_norm / square.sqrt()));
        let mut grads = BTreeMap::new();
        for layer in &self.layers {
            let (weight, bias) = layer.weighted_sum(&factors);
            grads.insert(layer.weight.clone(), finite(&layer.weight, weight.into_dyn())?);
            if let Some(path) = &layer.bias {
                grads.insert(path.clone(), finite(path, bias.into_dyn())?);
            }
        }
        Ok(Clipped { norms, grads })
    }
}

/// A sum, unless it exceeds the element type.
fn finite<A: Scalar>(path: &str, sum: ArrayD<A>) -> Result<ArrayD<A>> {
    match sum.iter().position(|value| !value.is_finite()) {
        None => Ok(sum),
        Some(at) => {
            let index = unravel(at, sum.shape());
            let value = sum.iter().nth(at).map_or(f64::NAN, |value| value.as_f64());
            Err(Error::Step(StepError::NonFiniteGradient { path: path.into(), index, value }))
        }
    }
}

impl<A: Scalar> Layer<'_, A> {
    fn positions(&self) -> usize {
        self.tap.rows() / self.tap.examples().max(1)
    }

    /// Adds the squared norm of each example's gradient of this layer, and a bound of what rounding may have taken from it.
    fn add_squares(&self, squares: &mut Array1<f64>, rounding: &mut Array1<f64>) {
        let (input, output_grad) = (&self.tap.input, &self.tap.output_grad);
        let bias = if self.bias.is_some() { 1.0 } else { 0.0 };
        let positions = self.positions();
        if positions <= 1 {
            let square = |row: ArrayView1<'_, A>| row.iter().map(|x| x.as_f64() * x.as_f64()).sum::<f64>();
            for ((sum, a), delta) in squares.iter_mut().zip(input.rows()).zip(output_grad.rows()) {
                *sum += square(delta) * (square(a) + bias);
            }
            return;
        }
        let wide = |columns: usize| Array2::<f64>::zeros((positions, columns));
        let (mut a, mut delta) = (wide(input.ncols()), wide(output_grad.ncols()));
        let (mut inputs, mut grads) = (wide(positions), wide(positions));
        let examples = input.axis_chunks_iter(Axis(0), positions).zip(output_grad.axis_chunks_iter(Axis(0), positions));
        // As many roundings as the sums of a product of three have terms; half an ε each.
        let roundings = (input.ncols() + output_grad.ncols() + 2 * positions + 4) as f64;
        for ((sum, lost), (own_input, own_grad)) in squares.iter_mut().zip(rounding).zip(examples) {
            a.zip_mut_with(&own_input, |to, from| *to = from.as_f64());
            delta.zip_mut_with(&own_grad, |to, from| *to = from.as_f64());
            gram((1.0, a.view()), 0.0, inputs.view_mut());
            gram((1.0, delta.view()), 0.0, grads.view_mut());
            let square: f64 = inputs.iter().zip(&grads).map(|(input, grad)| grad * (input + bias)).sum();
            // Positions that cancel leave the rounding of terms that are as large as if they did not, and less than nothing of the
            // square itself; NaN, of an overflow, must stay.
            let each: f64 =
                inputs.diag().iter().zip(grads.diag()).map(|(input, grad)| (grad * (input + bias)).sqrt()).sum();
            *sum += if square < 0.0 { 0.0 } else { square };
            *lost += roundings * f64::EPSILON * each * each;
        }
    }

    /// Σ wᵢgᵢ: of the weight and of the bias. In f64, or positions that cancel would leave more of their rounding than the limit.
    fn weighted_sum(&self, factors: &Array1<f64>) -> (Array2<A>, Array1<A>) {
        /// Rows that are converted at a time.
        const ROWS: usize = 256;
        let positions = self.positions().max(1);
        let (input, output_grad) = (&self.tap.input, &self.tap.output_grad);
        let mut weight = Array2::<f64>::zeros((output_grad.ncols(), input.ncols()));
        let mut bias = Array1::<f64>::zeros(output_grad.ncols());
        let rows = ROWS.div_ceil(positions) * positions;
        let blocks = input.axis_chunks_iter(Axis(0), rows).zip(output_grad.axis_chunks_iter(Axis(0), rows));
        for ((input, output_grad), factors) in blocks.zip(factors.axis_chunks_iter(Axis(0), rows / positions)) {
            let (input, mut weighted) = (input.mapv(Element::as_f64), output_grad.mapv(Element::as_f64));
            for (mut rows, factor) in weighted.axis_chunks_iter_mut(Axis(0), positions).zip(factors) {
                rows.mapv_inplace(|x| x * *factor);
            }
            multiply((1.0, weighted.t(), input.view()), 1.0, weight.view_mut());
            bias += &weighted.sum_axis(Axis(0));
        }
        (weight.mapv(A::from_f64), bias.mapv(A::from_f64))
    }
}
