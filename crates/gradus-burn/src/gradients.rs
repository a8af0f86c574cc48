//! The gradients of a backward pass, as a tree.

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use gradus::params::{Params, Visitor};

use crate::flat::Flat;
use crate::way::Way;
use crate::{BurnElement, Error, Result};

/// The gradients of a module's parameters, by path; those without one say so.
#[derive(Debug)]
pub(crate) struct Gradients<A>(Vec<(String, Option<Flat<A>>)>);

impl<A: BurnElement> Gradients<A> {
    /// Takes the gradients of this module's parameters.
    pub(crate) fn of<M: Module>(module: &M, grads: GradientsParams) -> Result<Self> {
        let mut gather = Gather { way: Way::default(), grads, found: Ok(Vec::new()) };
        module.visit(&mut gather);
        let found = gather.found?;
        match gather.grads.len() {
            0 => Ok(Self(found)),
            count => Err(Error::UnexpectedGradients { count }),
        }
    }
}

impl<A: BurnElement> Params for Gradients<A> {
    type Elem = A;

    fn visit<'a>(&'a self, visitor: &mut Visitor<'_, 'a, A>) {
        for (path, gradient) in &self.0 {
            visitor.field(path, gradient);
        }
    }
}

/// The walk that takes every parameter's gradient out of burn's container.
struct Gather<A> {
    way: Way,
    grads: GradientsParams,
    found: Result<Vec<(String, Option<Flat<A>>)>>,
}

impl<A: BurnElement> ModuleVisitor for Gather<A> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.way.enter(name);
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.way.leave();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Ok(found) = &mut self.found else { return };
        let path = self.way.path();
        let gradient = self.grads.remove::<D>(param.id);
        match gradient.map(|gradient| readable(gradient, &path)).transpose() {
            Ok(gradient) => found.push((path, gradient)),
            Err(error) => self.found = Err(error),
        }
    }
}

/// A gradient that can be read where it is, or else a copy in order.
fn readable<A: BurnElement, const D: usize>(gradient: Tensor<D>, path: &str) -> Result<Flat<A>> {
    let mut gradient = Flat::new(gradient, path, "gradient")?;
    if !gradient.is_forward() {
        gradient.rearrange();
    }
    Ok(gradient)
}
