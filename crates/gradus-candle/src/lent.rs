//! Values of variables, moved out of candle for as long as gradus works on them.

use std::cell::{Cell, RefCell};
use std::mem::swap;
use std::sync::Arc;

use candle_core::{CpuStorage, InplaceOp1, Layout, Var};
use gradus::params::{Params, ParamsMut, Visitor, VisitorMut};
use ndarray::{ArrayView, ArrayViewMut};

use crate::{CandleElement, Error, Result};

/// The values of variables as a tree, made by [`Vars::lend`](crate::Vars::lend). Dropping it gives them back, also in a panic.
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
    elements: Vec<A>,
    shape: Vec<usize>,
}

impl<A: CandleElement> Lent<A> {
    pub(crate) fn new(named: Arc<[(String, Var)]>) -> Result<Self> {
        let mut lent = Self { values: Vec::with_capacity(named.len()), named };
        for (path, var) in lent.named.iter() {
            let mut values = Values { elements: Vec::new(), shape: var.dims().to_vec() };
            // A variable owns its storage as a whole, so only one that is moved out already has fewer elements.
            if !exchange(var, &mut values.elements, var.elem_count())? {
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
            // What could be taken out can be put back: nothing is asked but the type and that the place is empty.
            _ = exchange(var, &mut values.elements, 0);
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
        // It has as many elements as its shape says: they were counted when they were taken.
        if let Ok(view) = ArrayView::from_shape(&*self.shape, &self.elements) {
            visitor.tensor(view);
        }
    }
}

impl<A: CandleElement> ParamsMut for Values<A> {
    fn visit_mut<'a>(&'a mut self, visitor: &mut VisitorMut<'_, 'a, A>) {
        if let Ok(view) = ArrayViewMut::from_shape(&*self.shape, &mut self.elements) {
            visitor.tensor(view);
        }
    }
}

/// Exchanges the elements that a variable owns for others, if it has so many; whether it had.
fn exchange<A: CandleElement>(var: &Var, elements: &mut Vec<A>, expected: usize) -> candle_core::Result<bool> {
    // candle takes the strides of some shapes without elements for those of a broadcast tensor, and refuses them.
    if var.elem_count() == 0 {
        return Ok(true);
    }
    let exchange = Exchange { elements: RefCell::new(elements), expected, is_done: Cell::new(false) };
    var.inplace_op1(&exchange)?;
    Ok(exchange.is_done.get())
}

struct Exchange<'v, A> {
    elements: RefCell<&'v mut Vec<A>>,
    expected: usize,
    is_done: Cell<bool>,
}

impl<A: CandleElement> InplaceOp1 for Exchange<'_, A> {
    fn name(&self) -> &'static str {
        "gradus-candle"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, _: &Layout) -> candle_core::Result<()> {
        if let Some(vector) = A::vector(storage).filter(|vector| vector.len() == self.expected) {
            swap(vector, *self.elements.borrow_mut());
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
    fn what_is_not_as_long_as_expected_stays_where_it_is() -> candle_core::Result<()> {
        let var = Var::new(&[1f32, 2.0], &Device::Cpu)?;
        let mut elements = vec![3f32];
        assert!(!exchange(&var, &mut elements, 0)?);
        assert!(!exchange(&var, &mut vec![3f64], 2)?, "another type");
        assert_eq!((var.to_vec1::<f32>()?, &elements), (vec![1.0, 2.0], &vec![3.0]));
        assert!(exchange(&var, &mut elements, 2)?);
        assert_eq!(elements, [1.0, 2.0]);
        Ok(())
    }
}
