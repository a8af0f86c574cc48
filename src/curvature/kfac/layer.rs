//! The tensors of a layer.

use ndarray::{Array2, ArrayD, ArrayRef2, ArrayView2, Axis, CowArray, Ix2};

use crate::error::{ArgumentError, CurvatureError, Error, Result};
use crate::params::{Layout, Order, Scalar, TensorInfo};
use crate::step::Step;

/// The tensors of a layer whose paths are not `name.weight` and `name.bias`.
///
/// ```
/// use gradus::curvature::Layer;
/// use gradus::prelude::*;
/// # use ndarray::array;
///
/// // Parameters `(w, b)`, the weight of shape (in, out).
/// let mut opt = Sgd::new(0.1).kfac().layer("linear", Layer::new("0").bias("1").input_first());
/// # let (x, delta) = (array![[1.0, 2.0], [0.0, 1.0]], array![[1.0], [-1.0]]);
/// opt.observe("linear", gradus::LinearTap::new(&x, &delta))?;
/// # opt.step(&mut (array![[0.0], [0.0]], array![0.0]), &(array![[0.5], [0.5]], array![0.0]))?;
/// # Ok::<(), gradus::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Layer {
    weight: String,
    bias: Option<String>,
    input_first: bool,
}

impl Layer {
    /// Creates a layer with this weight, of shape (out, in), and no bias.
    pub fn new(weight: impl Into<String>) -> Self {
        Self { weight: weight.into(), bias: None, input_first: false }
    }

    /// Adds a bias of shape (out).
    #[must_use]
    pub fn bias(mut self, bias: impl Into<String>) -> Self {
        self.bias = Some(bias.into());
        self
    }

    /// Declares that the weight has the shape (in, out).
    #[must_use]
    pub fn input_first(mut self) -> Self {
        self.input_first = true;
        self
    }

    /// The layer of this name: the tensors `name.weight` and, if it is there, `name.bias`; else the tensor `name` alone.
    pub(super) fn named(name: &str, layout: &Layout) -> Result<Self> {
        let [weight, bias] = ["weight", "bias"].map(|field| match name {
            "" => field.to_owned(),
            name => format!("{name}.{field}"),
        });
        let bias = layout.position(&bias).is_some().then_some(bias);
        if layout.position(&weight).is_some() {
            return Ok(Self { weight, bias, input_first: false });
        }
        match layout.position(name).map(|at| layout.tensors()[at].shape()) {
            Some(shape @ ([] | [_])) => Err(not_a_weight(name, shape)),
            Some(_) => Ok(Self::new(name)),
            None => Err(no_weight([weight, name.to_owned()], layout)),
        }
    }

    /// Where the tensors are.
    pub(super) fn place(&self, layout: &Layout) -> Result<Place> {
        let find = |path: &String| {
            let at = layout.position(path).ok_or_else(|| no_weight([path.clone()], layout))?;
            Ok((at, &layout.tensors()[at]))
        };
        let (weight, info) = find(&self.weight)?;
        let (outputs, inputs) = match (info.shape(), self.input_first) {
            ([inputs, outputs], true) => (*outputs, *inputs),
            ([outputs, first, rest @ ..], false) => (*outputs, first * rest.iter().product::<usize>()),
            (shape, _) => return Err(not_a_weight(&self.weight, shape)),
        };
        let bias = self.bias.as_ref().map(find).transpose()?;
        if let Some((_, info)) = bias.filter(|(_, info)| info.shape() != [outputs]) {
            let (expected, found) = (vec![outputs], info.shape().to_vec());
            return Err(Error::Argument(ArgumentError::Shape { argument: "bias", expected, found }));
        }
        Ok(Place { weight, bias: bias.map(|(at, _)| at), outputs, inputs, input_first: self.input_first })
    }
}

fn not_a_weight(path: &str, shape: &[usize]) -> Error {
    Error::Curvature(CurvatureError::NotAWeight { path: path.into(), shape: shape.into() })
}

fn no_weight<const N: usize>(sought: [String; N], layout: &Layout) -> Error {
    Error::Curvature(CurvatureError::NoWeight {
        sought: sought.into(),
        paths: layout.paths().map(String::from).collect(),
    })
}

/// Where a layer's tensors stand in the layout, and how large the layer is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Place {
    pub(super) weight: usize,
    pub(super) bias: Option<usize>,
    pub(super) outputs: usize,
    pub(super) inputs: usize,
    input_first: bool,
}

impl Place {
    /// The columns of the layer's gradient as one matrix: the inputs, and one for the bias.
    pub(super) fn columns(&self) -> usize {
        self.inputs + usize::from(self.bias.is_some())
    }

    /// Whether another layer has a tensor of this one.
    pub(super) fn overlaps(&self, other: &Self) -> bool {
        let own = [Some(self.weight), self.bias];
        [Some(other.weight), other.bias].iter().any(|at| at.is_some() && own.contains(at))
    }

    /// ⟨a, b⟩ of the weight's part of two such matrices, and of the bias's, of the product of all.
    pub(super) fn products<A: Scalar>(&self, all: f64, a: &ArrayRef2<A>, b: &ArrayRef2<A>) -> [f64; 2] {
        let Some(_) = self.bias else { return [all, 0.0] };
        let last = a.column(self.inputs).into_iter().zip(b.column(self.inputs));
        let bias = last.map(|(a, b)| a.as_f64() * b.as_f64()).sum::<f64>();
        [all - bias, bias]
    }

    /// The gradients as one matrix (out, in + 1), if the weight has one; a bias that has none gets zeros.
    pub(super) fn gradient<'s, A: Scalar>(&self, step: &'s Step<'_, A>) -> Option<CowArray<'s, A, Ix2>> {
        let find = |at: usize| {
            let (info, tensor) = step.iter().find(|(_, tensor)| tensor.index() == at)?;
            Some((info, tensor.grad.as_ref()?))
        };
        let (info, weight) = find(self.weight)?;
        if self.is_weight_alone()
            && let Some(values) = weight.as_final_slice(Order::C)
            && let Ok(whole) = ArrayView2::from_shape((self.outputs, self.inputs), values)
        {
            return Some(whole.into());
        }
        let bias = self.bias.and_then(find).map(|(info, bias)| bias.to_array(info.shape()));
        Some(self.join(&weight.to_array(info.shape()), bias.as_ref()).into())
    }

    /// Whether the layer's gradient is that of the weight, as it lies in memory.
    fn is_weight_alone(&self) -> bool {
        self.bias.is_none() && !self.input_first
    }

    fn join<A: Scalar>(&self, weight: &ArrayD<A>, bias: Option<&ArrayD<A>>) -> Array2<A> {
        let mut joined = Array2::zeros((self.outputs, self.columns()));
        let (mut inputs, _) = joined.view_mut().split_at(Axis(1), self.inputs);
        let weight = weight.view();
        let weight = if self.input_first { weight.reversed_axes() } else { weight };
        inputs.rows_mut().into_iter().zip(weight.outer_iter()).for_each(|(mut to, from)| {
            to.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
        });
        if let Some(bias) = bias {
            let mut last = joined.column_mut(self.inputs);
            last.iter_mut().zip(bias).for_each(|(to, from)| *to = *from);
        }
        joined
    }

    /// Back to gradients of the shapes that the tensors have.
    pub(super) fn part<A: Scalar>(&self, joined: Array2<A>, weight: &TensorInfo) -> (ArrayD<A>, Option<ArrayD<A>>) {
        if self.is_weight_alone() {
            let part = ArrayD::from_shape_vec(weight.shape(), joined.into_raw_vec_and_offset().0);
            return (part.unwrap_or_default(), None);
        }
        let (inputs, last) = joined.view().split_at(Axis(1), self.inputs);
        let inputs = if self.input_first { inputs.reversed_axes() } else { inputs };
        let mut part = ArrayD::zeros(weight.shape());
        part.outer_iter_mut().zip(inputs.rows()).for_each(|(mut to, from)| {
            to.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
        });
        let bias = self.bias.map(|_| last.column(0).to_owned().into_dyn());
        (part, bias)
    }
}
