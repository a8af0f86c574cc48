//! The gradients of a backward pass, where candle has them.

use std::collections::HashSet;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use candle_core::backprop::GradStore;
use candle_core::{Layout, Storage, StorageRef, Var};
use gradus::params::{Params, Visitor};
use ndarray::{ArrayView, ArrayViewD, IxDyn, ShapeBuilder};

use crate::vars::ensure_fits;
use crate::{CandleElement, Error, Result};

/// The gradients of named variables as a tree, made by [`Vars::gradients`](crate::Vars::gradients). A variable may have no gradient.
///
/// Gradients are read in candle's own memory, even if they are transposed or broadcast.
pub struct Gradients<'g, A> {
    named: Arc<[(String, Var)]>,
    gradients: Vec<Option<Gradient<'g, A>>>,
}

/// One gradient, held for reading.
struct Gradient<'g, A> {
    storage: StorageRef<'g>,
    layout: &'g Layout,
    element: PhantomData<A>,
}

impl<'g, A: CandleElement> Gradients<'g, A> {
    pub(crate) fn new(named: &Arc<[(String, Var)]>, grads: &'g GradStore) -> Result<Self> {
        let variables: HashSet<_> = named.iter().map(|(_, var)| identity(&var.storage_and_layout().0)).collect();
        let gradient = |(path, var): &(String, Var)| {
            let Some(tensor) = grads.get(var) else { return Ok(None) };
            ensure_fits::<A>(path, "gradient", tensor)?;
            let (storage, layout) = tensor.storage_and_layout();
            let is_variable = variables.contains(&identity(&storage));
            let gradient = Gradient { storage, layout, element: PhantomData };
            // The memory of a variable that is lent, in whatever `Vars`, is not there to be viewed.
            if is_variable || gradient.view().is_none() {
                return Err(Error::GradientIsVariable { path: path.clone() });
            }
            Ok(Some(gradient))
        };
        let gradients = named.iter().map(gradient).collect::<Result<_>>()?;
        Ok(Self { named: Arc::clone(named), gradients })
    }
}

impl<A: CandleElement> Params for Gradients<'_, A> {
    type Elem = A;

    fn visit<'a>(&'a self, visitor: &mut Visitor<'_, 'a, A>) {
        for ((path, _), gradient) in self.named.iter().zip(&self.gradients) {
            visitor.field(path, gradient);
        }
    }
}

impl<A: CandleElement> Params for Gradient<'_, A> {
    type Elem = A;

    fn visit<'a>(&'a self, visitor: &mut Visitor<'_, 'a, A>) {
        if let Some(view) = self.view() {
            visitor.tensor(view);
        }
    }
}

impl<A: CandleElement> Gradient<'_, A> {
    /// `None` if the memory is not there.
    fn view(&self) -> Option<ArrayViewD<'_, A>> {
        let (elements, shape) = (elements(&self.storage)?, IxDyn(self.layout.dims()));
        if let Some((start, end)) = self.layout.contiguous_offsets() {
            return ArrayView::from_shape(shape, elements.get(start..end)?).ok();
        }
        let strided = shape.strides(IxDyn(self.layout.stride()));
        ArrayView::from_shape(strided, elements.get(self.layout.start_offset()..)?).ok()
    }
}

impl<A> fmt::Debug for Gradients<'_, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shapes = self.gradients.iter().map(|gradient| gradient.as_ref().map(|gradient| gradient.layout.dims()));
        f.debug_map().entries(self.named.iter().map(|(path, _)| path).zip(shapes)).finish()
    }
}

/// What tells a storage from others.
fn identity(storage: &Storage) -> *const Storage {
    storage
}

fn elements<A: CandleElement>(storage: &Storage) -> Option<&[A]> {
    if let Storage::Cpu(storage) = storage { A::elements(storage) } else { None }
}
