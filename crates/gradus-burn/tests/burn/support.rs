//! The model of these tests, and what they ask of tensors.

use burn::backend::Flex;
use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::nn::{Linear, LinearConfig};
use burn::optim::GradientsParams;
use burn::tensor::{DType, Device, Tensor, TensorData};
use gradus::prelude::*;
use ndarray::ArrayD;

/// Two layers.
#[derive(Module, Debug)]
pub(crate) struct Mlp {
    pub(crate) hidden: Linear,
    pub(crate) output: Linear,
}

impl Mlp {
    pub(crate) fn new(width: usize, device: &Device) -> Self {
        Self {
            hidden: LinearConfig::new(width, width).init(device),
            output: LinearConfig::new(width, width).init(device),
        }
    }

    pub(crate) fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.output.forward(self.hidden.forward(x).tanh())
    }

    /// The mean square of what the model makes of a batch.
    pub(crate) fn loss(&self, x: Tensor<2>) -> Tensor<1> {
        self.forward(x).square().mean()
    }
}

/// Where the tests' models live.
pub(crate) fn device() -> Device {
    Device::flex().autodiff()
}

/// Numbers between −1 and 1, others for every seed.
pub(crate) fn numbers<const D: usize>(shape: [usize; D], seed: usize, dtype: DType) -> TensorData {
    let count = shape.iter().product::<usize>();
    let number = |at: usize| ((at * 7919 + seed * 104_729) % 2003) as f64 / 1001.0 - 1.0;
    TensorData::new((0..count).map(number).collect(), shape).convert_dtype(dtype)
}

/// A batch of two.
pub(crate) fn batch(width: usize, seed: usize) -> Tensor<2> {
    Tensor::from_data(numbers([2, width], seed, DType::F32), &device())
}

/// The gradients of the model's loss.
pub(crate) fn grads(model: &Mlp, x: Tensor<2>) -> GradientsParams {
    GradientsParams::from_grads(model.loss(x).backward(), model)
}

/// A tree whose order is the module's. Two are equal if they are bit for bit.
#[derive(Debug, Clone)]
pub(crate) struct Named(pub(crate) Vec<(String, ArrayD<f32>)>);

impl PartialEq for Named {
    fn eq(&self, other: &Self) -> bool {
        let bits = |named: &Self| -> Vec<_> {
            named.0.iter().map(|(path, values)| (path.clone(), values.mapv(f32::to_bits))).collect()
        };
        bits(self) == bits(other)
    }
}

impl Params for Named {
    type Elem = f32;

    fn visit<'a>(&'a self, visitor: &mut gradus::params::Visitor<'_, 'a, f32>) {
        self.0.iter().for_each(|(path, values)| visitor.field(path, values));
    }
}

impl ParamsMut for Named {
    fn visit_mut<'a>(&'a mut self, visitor: &mut gradus::params::VisitorMut<'_, 'a, f32>) {
        self.0.iter_mut().for_each(|(path, values)| visitor.field(path, values));
    }
}

/// What there is to say of one parameter.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Facts {
    pub(crate) path: String,
    pub(crate) id: ParamId,
    pub(crate) data: TensorData,
    pub(crate) is_autodiff: bool,
    pub(crate) is_require_grad: bool,
}

/// The facts of every float parameter, in the module's order.
pub(crate) fn facts(module: &impl Module) -> Vec<Facts> {
    let mut seen = Look::default();
    module.visit(&mut seen);
    seen.facts
}

/// The values of every `f32` parameter, by path.
pub(crate) fn values(module: &impl Module) -> Named {
    let array = |data: TensorData| {
        let shape = data.shape().as_slice().to_vec();
        ArrayD::from_shape_vec(shape, data.try_to_vec().unwrap()).unwrap()
    };
    Named(facts(module).into_iter().map(|facts| (facts.path, array(facts.data))).collect())
}

/// Where in memory the elements of every float parameter are.
pub(crate) fn addresses(module: &impl Module) -> Vec<*const u8> {
    let mut seen = Look::default();
    module.visit(&mut seen);
    seen.addresses
}

#[derive(Default)]
struct Look {
    path: Vec<String>,
    facts: Vec<Facts>,
    addresses: Vec<*const u8>,
}

impl ModuleVisitor for Look {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.into());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let tensor = param.base();
        self.facts.push(Facts {
            path: self.path.join("."),
            id: param.id,
            data: tensor.to_data(),
            is_autodiff: tensor.is_autodiff(),
            is_require_grad: tensor.is_require_grad(),
        });
        if let Ok(flat) = tensor.inner().try_into_primitive::<Flex>() {
            self.addresses.push(flat.bytes().as_ptr());
        }
    }
}
