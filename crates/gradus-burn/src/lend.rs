//! A module's parameters as a tree, and back.

use std::collections::VecDeque;
use std::fmt;
use std::mem::take;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::thread::panicking;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::tensor::{Device, Tensor};
use gradus::params::{Params, ParamsMut, Visitor, VisitorMut};

use crate::leaf::{Leaf, placeholder};
use crate::way::Way;
use crate::{BurnElement, Result};

/// Lends the `f32` parameters of a module to gradus, as a parameter tree: see [`Lent`].
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
    // Whole before anything is taken out: a panic in the module's own `map` then puts back what was.
    let mut lent = Lent { leaves, home: Box::new(|mut walk| *module = module.clone().map(&mut walk)) };
    (lent.home)(Walk::TakeOut { ids, device: Device::flex() });
    Ok(lent)
}

/// The parameters of a module, lent by [`lend`]: a tree for everything in gradus that takes parameters, such as a checkpoint.
///
/// Paths are the names of the module's fields, such as `hidden.weight`, in its order. When the tree is dropped, the module has the parameters
/// back; until then its tensors are empty. A panic puts the parameters back too, but some may have moved. (The parameters are lost only if a
/// hand-written `Module::map` panics while they are put back.)
///
/// A tensor that was only read comes back as the same tensor. A tensor that is written (in a step, every tensor) is copied first if something
/// else also holds its memory, and comes back as a leaf without a graph. Therefore do not write between a forward pass and its `backward`.
///
/// Frozen parameters and running statistics are part of the tree. Parameters of integers or booleans and quantized parameters are not; they
/// stay in the module. Clones of a module share its running statistics, which are empty in the clones too while the module is lent.
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
    home: Home<'m, A>,
}

/// The module, to be walked through.
type Home<'m, A> = Box<dyn FnMut(Walk<A>) + Send + 'm>;

impl<A: BurnElement> Lent<'_, A> {
    /// The paths of the tensors that were copied before they were written, because their memory was shared: see
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
        let walk = Walk::PutBack { leaves: take(&mut self.leaves).into() };
        let panicked = catch_unwind(AssertUnwindSafe(|| (self.home)(walk)));
        // While one panic unwinds, another would end the process. Where `map` panicked before, what it had reached is back.
        if let Err(panic) = panicked
            && !panicking()
        {
            resume_unwind(panic);
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

/// The walks that change the module. They may go another way than the survey: tensors are known by id.
enum Walk<A> {
    /// Leaves empty tensors where the lent ones were.
    TakeOut { ids: VecDeque<ParamId>, device: Device },
    /// Puts the tensors back.
    PutBack { leaves: VecDeque<Leaf<A>> },
}

impl<A: BurnElement> ModuleMapper for Walk<A> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        match self {
            Self::TakeOut { ids, device } => {
                let Some(at) = ids.iter().position(|id| *id == param.id) else { return param };
                ids.remove(at);
                param.map(|_| placeholder(device))
            }
            Self::PutBack { leaves } => {
                let at = leaves.iter().position(|leaf| leaf.id() == param.id);
                let Some(leaf) = at.and_then(|at| leaves.remove(at)) else { return param };
                param.map(|_| leaf.into_tensor())
            }
        }
    }
}
