//! A parameter borrowed from burn.

use burn::backend::DispatchTensor;
use burn::module::{Param, ParamId};
use burn::tensor::{DType, Device, GradientCheckpointingStrategy, Tensor};
use gradus::params::{Params, ParamsMut, Visitor, VisitorMut};

use crate::flat::Flat;
use crate::{BurnElement, Error, Result};

/// The type of what lies in the place of a lent tensor: that of no [`BurnElement`], so that no parameter is taken for it.
const PLACEHOLDER: DType = DType::Flex32;

/// What lies in the place of a lent tensor.
pub(crate) fn placeholder<const D: usize>(device: &Device) -> Tensor<D> {
    Tensor::empty([0; D], (device, PLACEHOLDER))
}

/// A parameter borrowed from burn: its buffer, and what is needed to give it back.
#[derive(Debug)]
pub(crate) struct Leaf<A> {
    path: String,
    id: ParamId,
    autodiff: Option<Autodiff>,
    values: Held<A>,
}

/// How autodiff treats a tensor.
#[derive(Debug)]
struct Autodiff {
    is_require_grad: bool,
    checkpointing: Option<GradientCheckpointingStrategy>,
}

/// The memory of a parameter.
#[derive(Debug)]
struct Held<A> {
    flat: Flat<A>,
    /// The tensor itself, with its place in a graph, as long as nothing is written.
    original: Option<DispatchTensor>,
    is_copied: bool,
}

impl<A: BurnElement> Leaf<A> {
    /// The parameter at this path; nothing if it is quantized.
    pub(crate) fn new<const D: usize>(param: &Param<Tensor<D>>, path: String) -> Result<Option<Self>> {
        let tensor = param.base();
        if matches!(tensor.dtype(), DType::QFloat(_)) {
            return Ok(None);
        }
        if tensor.dims() == [0; D] && tensor.dtype() == PLACEHOLDER {
            return Err(Error::Lent { path });
        }
        let mut flat = Flat::new(tensor.clone(), &path, "parameter")?;
        if tensor.is_tracked() && !tensor.is_require_grad() {
            return Err(Error::Computed { path });
        }
        let is_copied = !flat.is_dense();
        if is_copied {
            flat.rearrange();
        }
        let autodiff = tensor.is_autodiff().then(|| Autodiff {
            is_require_grad: tensor.is_require_grad(),
            checkpointing: tensor.gradient_checkpointing_strategy(),
        });
        let values = Held { flat, original: Some(tensor.into_dispatch()), is_copied };
        Ok(Some(Self { path, id: param.id, autodiff, values }))
    }

    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    pub(crate) fn id(&self) -> ParamId {
        self.id
    }

    /// Whether the parameter has moved to memory of its own.
    pub(crate) fn is_copied(&self) -> bool {
        self.values.is_copied && self.values.original.is_none()
    }

    /// The tensor for burn: the very one it came from, or if it was written a leaf of no graph.
    pub(crate) fn into_tensor<const D: usize>(self) -> Tensor<D> {
        if let Some(original) = self.values.original {
            return Tensor::from_dispatch(original);
        }
        let mut tensor = self.values.flat.into_tensor();
        let Some(autodiff) = self.autodiff else { return tensor };
        tensor = tensor.autodiff();
        if let Some(strategy) = autodiff.checkpointing {
            tensor = tensor.with_gradient_checkpointing_strategy(strategy);
        }
        tensor.set_require_grad(autodiff.is_require_grad)
    }
}

/// The tensor under its path.
impl<A: BurnElement> Params for Leaf<A> {
    type Elem = A;

    fn visit<'a>(&'a self, visitor: &mut Visitor<'_, 'a, A>) {
        visitor.field(&self.path, &self.values);
    }
}

impl<A: BurnElement> ParamsMut for Leaf<A> {
    fn visit_mut<'a>(&'a mut self, visitor: &mut VisitorMut<'_, 'a, A>) {
        visitor.field(&self.path, &mut self.values);
    }
}

impl<A: BurnElement> Params for Held<A> {
    type Elem = A;

    fn visit<'a>(&'a self, visitor: &mut Visitor<'_, 'a, A>) {
        self.flat.visit(visitor);
    }
}

impl<A: BurnElement> ParamsMut for Held<A> {
    fn visit_mut<'a>(&'a mut self, visitor: &mut VisitorMut<'_, 'a, A>) {
        // The original shares the memory: without it, what is left of sharing is the user's.
        self.original = None;
        if !self.flat.is_unique() {
            self.is_copied = true;
            if self.flat.is_part() {
                self.flat.rearrange(); // or all of the larger memory would be copied
            }
        }
        self.flat.visit_mut(visitor);
    }
}
