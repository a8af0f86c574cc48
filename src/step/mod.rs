//! One step: the list of parameter and gradient pairs that travels from the trees to the rule.

pub(crate) mod batch;
mod chain;
pub(crate) mod counter;
mod flush;
pub(crate) mod follower;
pub(crate) mod grad;
mod measure;
pub(crate) mod memo;
pub(crate) mod moves;
#[cfg(feature = "half")]
pub(crate) mod narrow;
pub(crate) mod norm;
pub(crate) mod notes;
mod optimizer;
mod pairing;
mod per_tensor;
pub(crate) mod projection;
mod replaced;
mod report;
pub mod set;
pub(crate) mod share;
mod show;
pub(crate) mod sight;
pub(crate) mod target;
mod tensor;
pub mod tree;

use std::cell::OnceCell;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use crate::error::{Error, Result, StepError};
use crate::params::{Element, Layout, Order, Params, ParamsMut, TensorInfo, ValuesMut};
use batch::Batch;
use memo::Memo;
use pairing::{walk_grads, walk_params};
use share::{Extent, Share};
use sight::Sight;

pub use chain::ChainDescription;
pub use follower::Follower;
pub(crate) use follower::follow;
pub use grad::Grad;
pub use optimizer::Optimizer;
pub(crate) use optimizer::{find, find_mut, take_step};
pub use per_tensor::{Made, PerTensor};
pub use replaced::Replaced;
pub use report::{Report, StopReason, TensorReport};
pub use tensor::{Adjust, Tensor};

/// One optimizer step: a list of [`Tensor`]s, each a parameter with its gradient. Paths and shapes have been checked. The tensors are in
/// the order of the [layout](Self::layout).
///
/// A step is the argument of [`Optimizer::check`](crate::Optimizer::check) and [`Optimizer::apply`](crate::Optimizer::apply). An adaptor
/// changes it and passes it to the optimizer inside: it changes how a [`Grad`] is computed, sets an [`Adjust`], or removes tensors. The
/// values of the user's gradients are never written.
///
/// To write an adaptor, see the [guide](crate::guide::extending#an-adaptor).
#[derive(Debug)]
pub struct Step<'a, A> {
    context: Context<'a>,
    tensors: Vec<Tensor<'a, A>>,
    /// Whether no tensor has been borrowed mutably since the trees were paired, and all gradients are dense.
    is_as_paired: bool,
}

/// A step's data other than its tensors.
#[derive(Debug, Clone)]
pub(crate) struct Context<'a> {
    layout: Arc<Layout>,
    number: u64,
    batch: Batch,
    share: Share<'a>,
    /// The loss of the parameters, if it is known.
    loss: Option<f64>,
    /// The sight of a monitor outside.
    sight: Option<&'a Sight<'a>>,
    /// Shared with the step's previews once there is one.
    memo: OnceCell<Memo>,
}

impl Context<'_> {
    fn new(layout: Arc<Layout>, number: u64) -> Self {
        Self { layout, number, batch: Batch::EQUAL, share: Share::ALL, loss: None, sight: None, memo: OnceCell::new() }
    }
}

impl<'a, A: Element> Step<'a, A> {
    /// Pairs every parameter with its gradient, by path. [`Optimizer::step`](crate::Optimizer::step) calls it.
    ///
    /// `known` is the layout of an earlier step, if there was one. If the parameters still have this layout, no path is built and no shape
    /// is copied. If both trees have the same order, no path is searched.
    ///
    /// A `None` in the gradient tree applies to the tensor at its path, or to every tensor below that path. A `None` that matches no
    /// parameter is ignored.
    ///
    /// # Errors
    /// [`StepError::MissingGradient`], [`StepError::UnexpectedGradient`], [`StepError::ShapeMismatch`], [`StepError::DuplicatePath`], and
    /// for [`Rows`](crate::Rows) [`StepError::RowShape`], [`StepError::RowCount`] and [`StepError::RowOutOfRange`].
    pub fn pair(
        params: &'a mut (dyn ParamsMut<Elem = A> + '_),
        grads: &'a (dyn Params<Elem = A> + '_),
        known: Option<&Arc<Layout>>,
    ) -> Result<Self> {
        let (layout, mut tensors) = walk_params(params, known)?;
        let is_as_paired = walk_grads(grads, &layout, &mut tensors)?;
        let context = Context::new(layout, 0);
        Ok(Self { context, tensors, is_as_paired })
    }

    /// [`pair`](Self::pair) for the step after so many, with an error if the layout is not the known one.
    #[inline]
    pub(crate) fn pair_next(
        params: &'a mut (dyn ParamsMut<Elem = A> + '_),
        grads: &'a (dyn Params<Elem = A> + '_),
        (known, steps): (Option<&Arc<Layout>>, u64),
    ) -> Result<Self> {
        // Not `pair`, whose step would be copied.
        let (layout, mut tensors) = walk_params(params, known)?;
        let is_as_paired = walk_grads(grads, &layout, &mut tensors)?;
        Layout::ensure_known(known, &layout)?;
        let context = Context::new(layout, steps);
        Ok(Self { context, tensors, is_as_paired })
    }

    /// A step of these tensors, in the order of the layout.
    pub(crate) fn from_parts(layout: Arc<Layout>, tensors: Vec<Tensor<'a, A>>, share: Share<'a>) -> Self {
        Self::in_context(Context { share, ..Context::new(layout, 0) }, tensors)
    }

    /// A step of these tensors with the context of another step: its share, number and measurements.
    pub(crate) fn in_context(context: Context<'a>, tensors: Vec<Tensor<'a, A>>) -> Self {
        Self { context, tensors, is_as_paired: false }
    }

    /// The step's data other than its tensors.
    pub(crate) fn context(&self) -> Context<'a> {
        self.context.clone()
    }

    /// [`context`](Self::context) for a check: the step reuses what the check measures.
    pub(crate) fn context_of_check(&self) -> Context<'a> {
        _ = self.context.memo.get_or_init(Memo::default);
        self.context()
    }

    /// The number of steps that the optimizer has taken before this one: 0 for the first step. Evaluate schedules at this number.
    ///
    /// Every optimizer counts its own steps. In a chain around one branch of a [`Router`](crate::adaptor::Router), this is the number of
    /// that branch.
    pub fn number(&self) -> u64 {
        self.context.number
    }

    /// The loss of the parameters before this step, if it was passed to [`step_with_loss`](crate::StepExt::step_with_loss).
    pub fn loss(&self) -> Option<f64> {
        self.context.loss
    }

    /// Sets the loss of the parameters before this step.
    pub(crate) fn set_loss(&mut self, loss: f64) {
        self.context.loss = Some(loss);
    }

    /// Sets the number of the step: the steps its optimizer has taken before.
    pub(crate) fn set_number(&mut self, number: u64) {
        self.context.number = number;
    }

    /// Whether the step is as it was paired: every gradient is the user's and dense, no group applies, and no parameter is a preview.
    /// If so, no tensor has to be examined for these.
    pub(crate) fn is_as_paired(&self) -> bool {
        self.is_as_paired
    }

    /// Which share of a larger step this is.
    pub(crate) fn share(&self) -> Share<'a> {
        self.context.share
    }

    /// Whether this step may contain only a part of a tensor, as it does inside `sharded`. A part is a vector of consecutive elements. An
    /// optimizer that needs whole tensors rejects such a step.
    pub fn is_cut(&self) -> bool {
        self.context.share.extent < Extent::Tensors
    }

    /// For the [`check`](crate::Optimizer::check) of your own optimizer. `known` is the layout of its earlier steps.
    ///
    /// # Errors
    /// [`StepError::ParametersChanged`] if the parameters have another layout than `known`, [`StepError::NotInGroup`] if a group replaces
    /// hyper-parameters other than learning rate and weight decay, and [`StepError::GradientScale`] if the scale or the limit of a gradient
    /// cannot be represented in the element type.
    pub fn ensure_fit(&self, known: Option<&Arc<Layout>>) -> Result<()> {
        Layout::ensure_known(known, &self.context.layout)?;
        self.ensure_none_replaced(
            "this optimizer",
            "groups change only learning rate and weight decay of an optimizer that has no rule",
        )?;
        self.grads().try_for_each(|(info, grad)| grad.ensure_kept(info))
    }

    /// Returns an error with this reason if a group replaces a hyper-parameter of any tensor.
    pub(crate) fn ensure_none_replaced(&self, optimizer: &'static str, reason: &'static str) -> Result<()> {
        self.iter().try_for_each(|(_, tensor)| tensor.replaced.ensure_empty(optimizer, reason))
    }

    /// Returns an error if a tensor is projected, which is not possible with this optimizer.
    pub(crate) fn ensure_free(&self, optimizer: &'static str, needs: &'static str) -> Result<()> {
        match self.iter().all(|(_, tensor)| tensor.projections.is_empty()) {
            true => Ok(()),
            false => Err(Error::Step(StepError::OptionNotPossible { option: "project", optimizer, needs })),
        }
    }

    /// Returns an error if the parameters are those of a [`preview`](Self::preview), which must not be applied.
    pub(crate) fn ensure_writable(&self) -> Result<()> {
        let is_preview = !self.is_as_paired && self.tensors.iter().any(|tensor| tensor.param.is_preview());
        if is_preview { Err(Error::Step(StepError::Previewed)) } else { Ok(()) }
    }

    /// Sets which share of a step it is.
    #[cfg(feature = "distributed")]
    pub(crate) fn set_share(&mut self, share: Share<'a>) {
        self.context.share = share;
    }

    /// Says that an adaptor may skip the step on this rank alone.
    #[cfg(feature = "distributed")]
    pub(crate) fn skip_alone(&mut self) {
        self.context.share.skips_alone = true;
    }

    /// A step that only has parameters, for changing them as a whole.
    #[cfg(feature = "distributed")]
    pub(crate) fn of_params(
        params: &'a mut (dyn ParamsMut<Elem = A> + '_),
        known: Option<&Arc<Layout>>,
    ) -> Result<Self> {
        let (layout, tensors) = walk_params(params, known)?;
        Ok(Self::from_parts(layout, tensors, Share::ALL))
    }

    /// A step that only has gradients, for measuring them.
    pub(crate) fn of_grads(grads: &'a (dyn Params<Elem = A> + '_), layout: Layout) -> Result<Self> {
        let nothing = |index| Tensor::new(index, ValuesMut::Contiguous(&mut [], Order::C));
        let mut tensors = (0..layout.len()).map(nothing).collect::<Vec<_>>();
        _ = walk_grads(grads, &layout, &mut tensors)?;
        Ok(Self::from_parts(Arc::new(layout), tensors, Share::ALL))
    }

    /// The same step, borrowed from this one, with or without its followers.
    pub(crate) fn lend(&mut self, with_followers: bool) -> Step<'_, A> {
        let context = self.context();
        Step::in_context(context, self.iter_mut().map(|(_, tensor)| tensor.lend(with_followers)).collect())
    }

    /// Calls `take` with the step. Returns its result and, per tensor, whether it is watched and has moved.
    pub(crate) fn watched<R>(
        self,
        watch: impl IntoIterator<Item = bool>,
        take: impl FnOnce(Step<'_, A>) -> Result<R>,
    ) -> Result<(R, Vec<bool>)> {
        let mut watches: Vec<_> = watch.into_iter().map(|watch| watch.then(Follower::watch)).collect();
        let mut step: Step<'_, A> = self; // a shorter lifetime: from here on it borrows from the watches
        for ((_, tensor), watch) in step.iter_mut().zip(&mut watches) {
            tensor.followers.extend(watch.as_mut().map(Follower::lend));
        }
        let result = take(step)?;
        Ok((result, watches.iter().map(|watch| watch.as_ref().is_some_and(Follower::has_followed)).collect()))
    }

    /// The tensors that have a gradient: path and shape, and the gradient.
    pub fn grads(&self) -> impl Iterator<Item = (&TensorInfo, &Grad<'a, A>)> {
        self.iter().filter_map(|(info, tensor)| Some((info, tensor.grad.as_ref()?)))
    }

    /// The gradients, to be changed, each with the path and shape of its tensor.
    pub fn grads_mut(&mut self) -> impl Iterator<Item = (&TensorInfo, &mut Grad<'a, A>)> {
        self.iter_mut().filter_map(|(info, tensor)| Some((info, tensor.grad.as_mut()?)))
    }

    /// The paths and shapes of the whole parameter tree, including tensors that are not in this step.
    pub fn layout(&self) -> &Arc<Layout> {
        &self.context.layout
    }

    /// The number of tensors in the step.
    pub fn len(&self) -> usize {
        self.tensors.len()
    }

    /// Whether the step has no tensors.
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }

    /// The tensors, each with its path and shape.
    pub fn iter(&self) -> impl Iterator<Item = (&TensorInfo, &Tensor<'a, A>)> {
        let infos = self.context.layout.tensors();
        self.tensors.iter().map(move |tensor| (&infos[tensor.index], tensor))
    }

    /// The tensors, to be changed, each with its path and shape.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&TensorInfo, &mut Tensor<'a, A>)> {
        self.is_as_paired = false;
        let infos = self.context.layout.tensors();
        self.tensors.iter_mut().map(move |tensor| (&infos[tensor.index], tensor))
    }

    /// The tensors, each with an item of `all`. `all` has one item for each tensor of the [layout](Self::layout), in that order; items for
    /// tensors that are not in this step are skipped.
    pub fn zip<M>(&self, all: impl IntoIterator<Item = M>) -> impl Iterator<Item = (&TensorInfo, &Tensor<'a, A>, M)> {
        beside(self.iter(), |tensor| tensor.index, all)
    }

    /// [`zip`](Self::zip), with tensors that can be changed.
    pub fn zip_mut<M>(
        &mut self,
        all: impl IntoIterator<Item = M>,
    ) -> impl Iterator<Item = (&TensorInfo, &mut Tensor<'a, A>, M)> {
        beside(self.iter_mut(), |tensor| tensor.index, all)
    }

    /// A copy of the step that cannot be applied. In its own [`check`](crate::Optimizer::check), an adaptor changes the preview as it would
    /// change the step, and passes it to the `check` of the optimizer inside.
    ///
    /// The preview borrows gradients and parameters, and has no [followers](Tensor::followers).
    pub fn preview(&self) -> Preview<'_, A> {
        let tensors = self.tensors.iter().map(|tensor| Tensor {
            index: tensor.index,
            param: ValuesMut::preview(tensor.param()),
            grad: tensor.grad.as_ref().map(Grad::reborrow),
            learning_rate: tensor.learning_rate,
            weight_decay: tensor.weight_decay,
            replaced: tensor.replaced.clone(),
            followers: Vec::new(),
            projections: tensor.projections.clone(),
            frozen: tensor.frozen,
            clipped: tensor.clipped,
        });
        Preview(Step::in_context(self.context_of_check(), tensors.collect()))
    }

    /// Divides the tensors among `parts` steps: `part` returns the number of the step for each tensor. Every part has the layout of the
    /// whole step.
    ///
    /// # Panics
    /// If `part` returns `parts` or more.
    pub fn split(self, parts: usize, mut part: impl FnMut(&TensorInfo, &Tensor<'a, A>) -> usize) -> Vec<Self> {
        let Self { context, tensors, is_as_paired } = self;
        let mut steps: Vec<_> =
            (0..parts).map(|_| Self { context: context.clone(), tensors: Vec::new(), is_as_paired }).collect();
        for tensor in tensors {
            let to = part(&context.layout.tensors()[tensor.index], &tensor);
            steps[to].tensors.push(tensor);
        }
        steps
    }
}

/// A step that can be read and changed, but not applied: the result of [`Step::preview`]. It has the methods of [`Step`].
///
/// ```compile_fail,E0308
/// # use gradus::{Optimizer, Report, Result, Step};
/// fn ahead(optimizer: &mut dyn Optimizer<f32>, step: &Step<'_, f32>) -> Result<Report> {
///     optimizer.apply(step.preview()) // expected `Step`, found `Preview`
/// }
/// ```
/// If you write to a parameter of a preview, a copy is written. If you swap the contents of a preview into a step and apply it, the
/// optimizers of this crate return [`StepError::Previewed`].
#[derive(Debug)]
pub struct Preview<'a, A>(Step<'a, A>);

impl<'a, A: Element> Preview<'a, A> {
    /// [`Step::split`] for a preview.
    ///
    /// # Panics
    /// If `part` returns `parts` or more.
    pub fn split(self, parts: usize, part: impl FnMut(&TensorInfo, &Tensor<'a, A>) -> usize) -> Vec<Self> {
        self.0.split(parts, part).into_iter().map(Self).collect()
    }
}

impl<'a, A> Deref for Preview<'a, A> {
    type Target = Step<'a, A>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl<A> DerefMut for Preview<'_, A> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}

/// Merges the tensors of a step, which are some of the layout's tensors, with one item per tensor of the layout.
#[inline]
fn beside<'i, T, M>(
    tensors: impl Iterator<Item = (&'i TensorInfo, T)>,
    index: impl Fn(&T) -> usize,
    all: impl IntoIterator<Item = M>,
) -> impl Iterator<Item = (&'i TensorInfo, T, M)> {
    let (mut all, mut next) = (all.into_iter(), 0);
    tensors.map_while(move |(info, tensor)| {
        let at = index(&tensor);
        let own = all.nth(at.checked_sub(next)?)?;
        next = at + 1;
        Some((info, tensor, own))
    })
}
