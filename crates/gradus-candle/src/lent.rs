//! Values of variables, moved out of candle for as long as gradus works on them.

use std::cell::{Cell, RefCell};
use std::marker::PhantomData;
use std::mem::swap;
use std::sync::Arc;

use candle_core::{CpuStorage, InplaceOp1, Layout, Var};
use gradus::params::{Params, ParamsMut, Visitor, VisitorMut};
use ndarray::{ArrayView, ArrayViewMut};

use crate::{CandleElement, Error, Result};

/// The values of variables as a tree, made by [`Vars::lend`](crate::Vars::lend). When it is dropped, even by a panic, the variables have their
/// values back.
///
/// ```
/// use candle_core::{Device, Var};
/// use gradus_candle::Vars;
///
/// let weight = Var::new(&[3f32, 4.0], &Device::Cpu)?;
/// let mut vars = Vars::<f32>::named([("weight", weight.clone())])?;
/// gradus::clip::global_norm(&mut vars.lend()?, 2.5)?;
/// assert!((weight.sqr()?.sum_all()?.sqrt()?.to_scalar::<f32>()? - 2.5).abs() < 1e-4);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[must_use = "dropped at once, it lends nothing"]
pub struct Lent<A: CandleElement = f32> {
    named: Arc<[(String, Var)]>,
    /// Of the first variables or, when all are there, of each.
    values: Vec<Values<A>>,
}

/// The values of one variable, row-major.
#[derive(Debug)]
struct Values<A> {
    storage: CpuStorage,
    shape: Vec<usize>,
    element: PhantomData<A>,
}

/// What stands in a variable while its values are lent. candle computes nothing with elements of this type, so whatever reads the
/// variable gets an error; an empty vector of its own type would be read beyond its end by candle's products.
const fn nothing() -> CpuStorage {
    CpuStorage::F4(Vec::new())
}

fn is_nothing(storage: &CpuStorage) -> bool {
    matches!(storage, CpuStorage::F4(_))
}

impl<A: CandleElement> Lent<A> {
    pub(crate) fn new(named: Arc<[(String, Var)]>) -> Result<Self> {
        let mut lent = Self { values: Vec::with_capacity(named.len()), named };
        for (path, var) in lent.named.iter() {
            let mut values = Values { storage: nothing(), shape: var.dims().to_vec(), element: PhantomData };
            if !exchange(var, &mut values.storage, |storage| A::elements(storage).is_some())? {
                return Err(Error::Lent { path: path.clone() });
            }
            lent.values.push(values);
        }
        Ok(lent)
    }
}

impl<A: CandleElement> Drop for Lent<A> {
    fn drop(&mut self) {
        for ((_, var), values) in self.named.iter().zip(&mut self.values) {
            // What could be taken out can be put back.
            _ = exchange(var, &mut values.storage, is_nothing);
        }
    }
}

impl<A: CandleElement> Params for Lent<A> {
    type Elem = A;

    fn visit<'a>(&'a self, visitor: &mut Visitor<'_, 'a, A>) {
        for ((path, _), values) in self.named.iter().zip(&self.values) {
            visitor.field(path, values);
        }
    }
}

impl<A: CandleElement> ParamsMut for Lent<A> {
    fn visit_mut<'a>(&'a mut self, visitor: &mut VisitorMut<'_, 'a, A>) {
        for ((path, _), values) in self.named.iter().zip(&mut self.values) {
            visitor.field(path, values);
        }
    }
}

impl<A: CandleElement> Params for Values<A> {
    type Elem = A;

    fn visit<'a>(&'a self, visitor: &mut Visitor<'_, 'a, A>) {
        // A variable owns its storage as a whole: it has as many elements as its shape says.
        let elements = A::elements(&self.storage).unwrap_or_default();
        if let Ok(view) = ArrayView::from_shape(&*self.shape, elements) {
            visitor.tensor(view);
        }
    }
}

impl<A: CandleElement> ParamsMut for Values<A> {
    fn visit_mut<'a>(&'a mut self, visitor: &mut VisitorMut<'_, 'a, A>) {
        let elements = A::elements_mut(&mut self.storage).unwrap_or_default();
        if let Ok(view) = ArrayViewMut::from_shape(&*self.shape, elements) {
            visitor.tensor(view);
        }
    }
}

/// Exchanges the storage of a variable for another, if it is as expected; whether it was.
fn exchange(var: &Var, storage: &mut CpuStorage, is_expected: fn(&CpuStorage) -> bool) -> candle_core::Result<bool> {
    // candle takes the strides of some shapes without elements for those of a broadcast tensor, and refuses them.
    if var.elem_count() == 0 {
        return Ok(true);
    }
    let exchange = Exchange { storage: RefCell::new(storage), is_expected, is_done: Cell::new(false) };
    var.inplace_op1(&exchange)?;
    Ok(exchange.is_done.get())
}

struct Exchange<'v> {
    storage: RefCell<&'v mut CpuStorage>,
    is_expected: fn(&CpuStorage) -> bool,
    is_done: Cell<bool>,
}

impl InplaceOp1 for Exchange<'_> {
    fn name(&self) -> &'static str {
        "gradus-candle"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, _: &Layout) -> candle_core::Result<()> {
        if (self.is_expected)(storage) {
            swap(storage, *self.storage.borrow_mut());
            self.is_done.set(true);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn what_is_not_as_expected_stays_where_it_is() -> candle_core::Result<()> {
        let var = Var::new(&[1f32, 2.0], &Device::Cpu)?;
        let mut storage = nothing();
        assert!(!exchange(&var, &mut storage, is_nothing)?);
        assert!(is_nothing(&storage));
        assert_eq!(var.to_vec1::<f32>()?, [1.0, 2.0]);
        assert!(exchange(&var, &mut storage, |storage| !is_nothing(storage))?);
        assert_eq!(storage.as_slice::<f32>()?, [1.0, 2.0]);
        assert!(exchange(&var, &mut storage, is_nothing)?);
        assert_eq!(var.to_vec1::<f32>()?, [1.0, 2.0]);
        Ok(())
    }
}
