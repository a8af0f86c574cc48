//! Tensors in the memory of the flex backend, as arrays.

use std::marker::PhantomData;

use burn::backend::{BackendTypes, Flex};
use burn::tensor::Tensor;
use gradus::params::{Params, ParamsMut, Visitor, VisitorMut};
use ndarray::{
    ArrayView, ArrayViewD, ArrayViewMut, ArrayViewMutD, Dimension, IxDyn, ShapeBuilder, ShapeError, StrideShape,
};

use crate::{BurnElement, Error, Result};

/// A tensor as flex holds it: shared memory, shape and strides.
type FlexTensor = <Flex as BackendTypes>::FloatTensorPrimitive;

/// A tensor of flex whose elements are of type `A`.
#[derive(Debug)]
pub(crate) struct Flat<A> {
    tensor: FlexTensor,
    element: PhantomData<A>,
}

impl<A: BurnElement> Flat<A> {
    /// The memory of a tensor; `what` it is called in errors.
    pub(crate) fn new<const D: usize>(tensor: Tensor<D>, path: &str, what: &'static str) -> Result<Self> {
        let (found, expected, device) = (tensor.dtype(), A::dtype(), tensor.device());
        let not_flex = |_| Error::NotFlex { path: path.into(), what, device: device.into() };
        let tensor = tensor.inner().try_into_primitive::<Flex>().map_err(not_flex)?;
        if found != expected {
            return Err(Error::Dtype { path: path.into(), what, found, expected });
        }
        Ok(Self { tensor, element: PhantomData })
    }

    /// The tensor for burn.
    pub(crate) fn into_tensor<const D: usize>(self) -> Tensor<D> {
        Tensor::from_primitive::<Flex>(self.tensor)
    }

    /// Whether nothing else holds the memory, so that writing to it copies nothing.
    pub(crate) fn is_unique(&self) -> bool {
        self.tensor.is_unique()
    }

    /// Whether there is more in the memory than this tensor.
    pub(crate) fn is_part(&self) -> bool {
        self.tensor.bytes().len() > self.tensor.layout().num_elements() * size_of::<A>()
    }

    /// Whether the elements fill a stretch of memory, each in a place of its own, with the axes in any order.
    pub(crate) fn is_dense(&self) -> bool {
        let layout = self.tensor.layout();
        let mut axes: Vec<_> = layout.strides().iter().zip(layout.shape().as_slice()).collect();
        axes.retain(|(_, length)| **length != 1);
        axes.sort_unstable();
        let mut dense = 1;
        let is_next = |(stride, length): (&isize, &usize)| {
            let next = dense;
            dense *= length;
            usize::try_from(*stride) == Ok(next)
        };
        layout.num_elements() == 0 || axes.into_iter().all(is_next)
    }

    /// Copies the elements to memory where they lie in row-major order.
    pub(crate) fn rearrange(&mut self) {
        self.tensor = self.tensor.to_contiguous();
    }

    /// Whether a view can show the tensor to be read: it cannot if an axis runs backwards.
    pub(crate) fn is_forward(&self) -> bool {
        self.tensor.layout().strides().iter().all(|stride| *stride >= 0)
    }

    /// Where in the memory the tensor begins, and how it lies from there.
    fn place(&self) -> (usize, StrideShape<IxDyn>) {
        let layout = self.tensor.layout();
        let shape = IxDyn(layout.shape().as_slice());
        if shape.size() == 0 {
            return (0, shape.into()); // the strides that burn gives it may lead out of the memory
        }
        let mut strides = IxDyn::zeros(layout.num_dims());
        strides.slice_mut().iter_mut().zip(layout.strides()).for_each(|(to, stride)| *to = stride.unsigned_abs());
        (layout.start_offset(), shape.strides(strides))
    }

    fn view(&self) -> Result<ArrayViewD<'_, A>, ShapeError> {
        let (start, shape) = self.place();
        ArrayView::from_shape(shape, self.tensor.storage().get(start..).unwrap_or_default())
    }

    /// A view to write to, of a copy if the memory is held elsewhere.
    fn view_mut(&mut self) -> Result<ArrayViewMutD<'_, A>, ShapeError> {
        let (start, shape) = self.place();
        ArrayViewMut::from_shape(shape, self.tensor.storage_mut().get_mut(start..).unwrap_or_default())
    }
}

/// One tensor. What no view can show, which none of this crate is, would be missed by the walk.
impl<A: BurnElement> Params for Flat<A> {
    type Elem = A;

    fn visit<'a>(&'a self, visitor: &mut Visitor<'_, 'a, A>) {
        if let Ok(view) = self.view() {
            visitor.tensor(view);
        }
    }
}

impl<A: BurnElement> ParamsMut for Flat<A> {
    fn visit_mut<'a>(&'a mut self, visitor: &mut VisitorMut<'_, 'a, A>) {
        if let Ok(view) = self.view_mut() {
            visitor.tensor(view);
        }
    }
}
