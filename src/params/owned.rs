//! Values that an adaptor keeps for a tensor: a sum, an average, a copy.

#[cfg(feature = "half")]
use ndarray::{ArrayD, IxDyn, ShapeBuilder};

use super::{Order, TensorInfo, Values, ValuesMut};
use crate::error::Result;
use crate::kernel::aligned::{Aligned, before_line};
use crate::params::Element;
use crate::state::data::{in_order, row_major};
use crate::state::{StateReader, StateWriter};

/// One tensor's values in an order of their own, at the cache lines of another's.
#[derive(Debug, Clone)]
pub(crate) struct Owned<A> {
    values: Aligned<A>,
    order: Order,
}

impl<A> Default for Owned<A> {
    fn default() -> Self {
        Self { values: Aligned::default(), order: Order::C }
    }
}

impl<A: Element> Owned<A> {
    /// Zeros in this order, of which element `line` begins a cache line.
    pub(crate) fn zeros(elements: usize, order: Order, line: usize) -> Self {
        Self { values: Aligned::zeros(elements, line), order }
    }

    /// The values of a tensor, laid out as they are there, so that both are swept as one.
    pub(crate) fn copy<B: Element>(from: &Values<'_, B>, shape: &[usize]) -> Self {
        let line = match from {
            Values::Contiguous(slice, _) => before_line(slice),
            Values::Strided(_) | Values::Rows(..) => 0,
        };
        let mut copy = Self::zeros(shape.iter().product(), from.order(), line);
        let view = from.view(shape);
        let view = if copy.order == Order::F { view.reversed_axes() } else { view };
        copy.values.iter_mut().zip(view).for_each(|(to, from)| *to = A::from_f64(from.as_f64()));
        copy
    }

    /// Writes the values of one tensor into a state.
    pub(crate) fn write(&self, state: &mut StateWriter<'_>, name: &str, info: &TensorInfo) {
        state.order(info, self.order);
        state.tensor(name, info, row_major(&self.values, self.order, info.shape()));
    }

    /// [`write`](Self::write) for values that begin as the parameters.
    pub(crate) fn write_copy(&self, state: &mut StateWriter<'_>, name: &str, info: &TensorInfo) {
        state.order(info, self.order);
        state.copy(name, info, row_major(&self.values, self.order, info.shape()));
    }

    /// Reads what [`write`](Self::write) wrote, if there is anything.
    pub(crate) fn read(state: &StateReader<'_>, name: &str, info: &TensorInfo) -> Result<Option<Self>> {
        let order = state.order(info)?;
        let Some(values) = state.tensor::<A>(name, info)? else { return Ok(None) };
        let values = Aligned::of(in_order(&values, order, info.shape()), values.len());
        Ok(Some(Self { values, order }))
    }

    pub(crate) fn order(&self) -> Order {
        self.order
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    pub(crate) fn as_values(&self) -> Values<'_, A> {
        Values::Contiguous(&self.values, self.order)
    }

    pub(crate) fn as_values_mut(&mut self) -> ValuesMut<'_, A> {
        ValuesMut::Contiguous(&mut self.values, self.order)
    }

    /// The elements, in their order.
    #[cfg(feature = "distributed")]
    pub(crate) fn as_slice(&self) -> &[A] {
        &self.values
    }

    /// The elements, in their order, to be changed.
    pub(crate) fn as_mut_slice(&mut self) -> &mut [A] {
        &mut self.values
    }

    #[cfg(feature = "half")]
    pub(crate) fn to_array(&self, shape: &[usize]) -> ArrayD<A> {
        let mut array = ArrayD::zeros(IxDyn(shape).set_f(self.order == Order::F));
        array.assign(&self.as_values().view(shape));
        array
    }
}
