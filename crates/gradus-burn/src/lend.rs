//! A module's parameters as a tree, and back.

use std::collections::VecDeque;
use std::fmt;
use std::mem::take;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::tensor::{Device, Tensor};
use gradus::params::{Params, ParamsMut, Visitor, VisitorMut};

use crate::leaf::{Leaf, placeholder};
use crate::way::Way;
use crate::{BurnElement, Result};

/// The `f32` parameters of a module as a tree of gradus: see [`Lent`].
///
/// # Errors
/// [`Error::Dtype`](crate::Error::Dtype), [`Error::NotFlex`](crate::Error::NotFlex),
/// [`Error::Computed`](crate::Error::Computed), [`Error::Lent`](crate::Error::Lent).
pub fn lend(module: &mut impl Module) -> Result<Lent<'_>> {
    lend_as(module)
}

/// [`lend`] for parameters of another element type, `lend_as::<f64>(&mut model)`.
///
/// # Errors
/// Those of [`lend`].
pub fn lend_as<A: BurnElement>(module: &mut impl Module) -> Result<Lent<'_, A>> {
    let mut survey = Survey { way: Way::default(), leaves: Ok(Vec::new()) };
    module.visit(&mut survey);
    let leaves = survey.leaves?;
    let ids = leaves.iter().map(Leaf::id).collect();
    *module = module.clone().map(&mut Empty { ids, device: Device::flex() });
    let home = Box::new(|leaves: Vec<Leaf<A>>| *module = module.clone().map(&mut PutBack { leaves: leaves.into() }));
    Ok(Lent { leaves, home: Some(home) })
}

/// The parameters of a module, lent by [`lend`]: a tree for everything in gradus that takes one, such as a checkpoint.
///
/// The paths are those of the module, `hidden.weight`, in its order. The module has the parameters back when the tree is
/// dropped, also by a panic; until then its tensors are empty. What is not written comes back as the very tensor it was. What
/// is written comes back as a leaf that no graph knows: do not write between a forward pass and its `backward`.
///
/// Frozen parameters and running statistics are tensors of the tree as well. Parameters of integers or booleans and
/// quantized ones are not: they stay in the module. Clones of a module share its running statistics: while it is lent, these
/// are empty in the clones too.
///
/// # Example
/// ```
/// use burn::{module::Param, tensor::{Device, Tensor}};
///
/// let mut weight = Param::from_data([1.0, 2.0], &Device::flex().autodiff());
/// let mut lent = gradus_burn::lend(&mut weight)?;
/// gradus::params::for_each_mut(&mut lent, |_, shape, values| values.unwrap().view_mut(shape).fill(3.0));
/// drop(lent);
/// let weight: Tensor<1> = weight.val();
/// assert_eq!(weight.into_data().try_to_vec::<f32>().unwrap(), [3.0, 3.0]);
/// # Ok::<(), gradus_burn::Error>(())
/// ```
pub struct Lent<'m, A: BurnElement = f32> {
    leaves: Vec<Leaf<A>>,
    home: Option<Home<'m, A>>,
}

/// Gives the module its parameters back.
type Home<'m, A> = Box<dyn FnOnce(Vec<Leaf<A>>) + Send + 'm>;

impl<A: BurnElement> Lent<'_, A> {
    /// The paths of what was copied for being written, because its memory was shared: see
    /// [`Report::copied`](crate::Report::copied).
    pub fn copied(&self) -> impl Iterator<Item = &str> {
        self.leaves.iter().filter(|leaf| leaf.is_copied()).map(Leaf::path)
    }
}

impl<A: BurnElement> Params for Lent<'_, A> {
    type Elem = A;

    fn visit<'a>(&'a self, visitor: &mut Visitor<'_, 'a, A>) {
        for leaf in &self.leaves {
            leaf.visit(visitor);
        }
    }
}

impl<A: BurnElement> ParamsMut for Lent<'_, A> {
    fn visit_mut<'a>(&'a mut self, visitor: &mut VisitorMut<'_, 'a, A>) {
        for leaf in &mut self.leaves {
            leaf.visit_mut(visitor);
        }
    }
}

impl<A: BurnElement> Drop for Lent<'_, A> {
    fn drop(&mut self) {
        if let Some(home) = self.home.take() {
            home(take(&mut self.leaves));
        }
    }
}

impl<A: BurnElement> fmt::Debug for Lent<'_, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Lent").field(&self.leaves).finish()
    }
}

/// The walk that looks at every parameter, and initializes the lazy ones.
struct Survey<A> {
    way: Way,
    leaves: Result<Vec<Leaf<A>>>,
}

impl<A: BurnElement> ModuleVisitor for Survey<A> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.way.enter(name);
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.way.leave();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Ok(leaves) = &mut self.leaves else { return };
        match Leaf::new(param, self.way.path()) {
            Ok(leaf) => leaves.extend(leaf),
            Err(error) => self.leaves = Err(error),
        }
    }
}

/// The walk that leaves empty tensors where the lent ones were.
struct Empty {
    ids: VecDeque<ParamId>,
    device: Device,
}

impl ModuleMapper for Empty {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(at) = self.ids.iter().position(|id| *id == param.id) else { return param };
        self.ids.remove(at);
        param.map(|_| placeholder(&self.device))
    }
}

/// The walk that puts the tensors back. A walk may go its own way: they are known by id.
struct PutBack<A> {
    leaves: VecDeque<Leaf<A>>,
}

impl<A: BurnElement> ModuleMapper for PutBack<A> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let at = self.leaves.iter().position(|leaf| leaf.id() == param.id);
        match at.and_then(|at| self.leaves.remove(at)) {
            Some(leaf) => param.map(|_| leaf.into_tensor()),
            None => param,
        }
    }
}
