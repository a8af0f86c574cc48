//! Values of variables, moved out of candle for as long as gradus works on them.

use std::cell::RefCell;
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
            exchange(var, &mut values.elements)?;
            lent.values.push(values);
            // A variable owns its storage as a whole, so only one that is moved out already has fewer elements.
            if lent.values.last().is_none_or(|values| values.elements.len() != var.elem_count()) {
                return Err(Error::Lent { path: path.clone() });
            }
        }
        Ok(lent)
    }
}

impl<A: CandleElement> Drop for Lent<A> {
    fn drop(&mut self) {
        for ((_, var), values) in self.named.iter().zip(&mut self.values) {
            // It could be taken out, so it can be put back: nothing is read but the type of what is there.
            _ = exchange(var, &mut values.elements);
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
        match ArrayView::from_shape(&*self.shape, &self.elements) {
            Ok(view) => visitor.tensor(view),
            Err(_) => unreachable!("a variable has as many elements as its shape says"),
        }
    }
}

impl<A: CandleElement> ParamsMut for Values<A> {
    fn visit_mut<'a>(&'a mut self, visitor: &mut VisitorMut<'_, 'a, A>) {
        match ArrayViewMut::from_shape(&*self.shape, &mut self.elements) {
            Ok(view) => visitor.tensor(view),
            Err(_) => unreachable!("a variable has as many elements as its shape says"),
        }
    }
}

/// Exchanges the elements that a variable owns for others.
fn exchange<A: CandleElement>(var: &Var, elements: &mut Vec<A>) -> candle_core::Result<()> {
    var.inplace_op1(&Exchange(RefCell::new(elements)))
}

struct Exchange<'v, A>(RefCell<&'v mut Vec<A>>);

impl<A: CandleElement> InplaceOp1 for Exchange<'_, A> {
    fn name(&self) -> &'static str {
        "gradus-candle"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, _: &Layout) -> candle_core::Result<()> {
        match A::vector(storage) {
            Some(vector) => swap(vector, *self.0.borrow_mut()),
            None => candle_core::bail!("a variable has changed its type"),
        }
        Ok(())
    }
}
