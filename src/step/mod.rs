//! One step: the list of parameter and gradient pairs that travels from the trees to the rule.

pub(crate) mod counter;
pub(crate) mod follower;
pub(crate) mod grad;
pub(crate) mod norm;
mod optimizer;

use std::fmt::{self, Write};
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use ndarray::{ArrayD, ArrayViewMutD};

use crate::error::{Error, RankError, Result, StepError};
use crate::params::{Element, Layout, Order, Params, ParamsMut, TensorInfo, Values, ValuesMut, collect_mut, for_each};
use follower::follow;

pub use follower::Follower;
pub use grad::Grad;
pub use optimizer::Optimizer;

/// What a step did.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Report {
    /// The learning rate of this step, before any group's change to it.
    pub learning_rate: f64,
    /// The norm of the gradients before clipping, where an adaptor computed one; `clip_global_norm(f64::INFINITY)` only
    /// computes it.
    pub grad_norm: Option<f64>,
    /// Whether the step was taken: `false` while gradients accumulate, when the step was skipped, and when no
    /// tensor had a gradient.
    pub moved: bool,
}

impl Report {
    /// A report without a norm.
    pub fn new(learning_rate: f64, moved: bool) -> Self {
        Self { learning_rate, grad_norm: None, moved }
    }
}

/// How a group changes a hyper-parameter of one tensor: replaced by `value` if there is one, then times `scale`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Adjust {
    /// Takes the place of the optimizer's own value.
    pub value: Option<f64>,
    /// Multiplies whichever value holds.
    pub scale: f64,
}

impl Default for Adjust {
    fn default() -> Self {
        Self { value: None, scale: 1.0 }
    }
}

impl Adjust {
    /// The value that holds for the tensor, given the optimizer's own.
    pub fn apply(&self, own: f64) -> f64 {
        self.value.unwrap_or(own) * self.scale
    }
}

/// One tensor of a step: the parameter to move and the gradient to move it by.
#[derive(Debug)]
pub struct Tensor<'a, A> {
    pub(crate) index: usize,
    pub(crate) param: ValuesMut<'a, A>,
    /// The gradient; `None` leaves the parameter, its state and its step count untouched.
    pub grad: Option<Grad<'a, A>>,
    /// A group's change to the learning rate.
    pub learning_rate: Adjust,
    /// A group's change to the weight decay.
    pub weight_decay: Adjust,
    /// What follows the parameter, while its new values are in the cache.
    pub followers: Vec<Follower<'a, A>>,
    pub(crate) frozen: bool,
}

impl<'a, A: Element> Tensor<'a, A> {
    pub(crate) fn new(index: usize, param: ValuesMut<'a, A>) -> Self {
        Self {
            index,
            param,
            grad: None,
            learning_rate: Adjust::default(),
            weight_decay: Adjust::default(),
            followers: Vec::new(),
            frozen: false,
        }
    }

    /// Whether a group changes anything for this tensor.
    pub(crate) fn is_adjusted(&self) -> bool {
        self.learning_rate != Adjust::default() || self.weight_decay != Adjust::default()
    }

    /// The tensor's position in the [layout](Step::layout).
    pub fn index(&self) -> usize {
        self.index
    }

    /// The parameter, to be read.
    pub fn param(&self) -> Values<'_, A> {
        self.param.as_values()
    }

    /// Moves the parameter as a whole, with its [followers](Self::followers): for optimizers that work on tensors
    /// instead of elements.
    ///
    /// `update` gets the parameter as a writable view and a copy of the gradient after scaling and limiting. Without a
    /// gradient nothing happens, and `false` is returned. `info` is the tensor's entry in the layout.
    pub fn update(&mut self, info: &TensorInfo, update: impl FnOnce(ArrayViewMutD<'_, A>, ArrayD<A>)) -> bool {
        let Some(grad) = &self.grad else { return false };
        let grad = grad.to_array(info.shape());
        update(self.param.view_mut(info.shape()), grad);
        follow(&mut self.followers, &self.param.as_values(), info.shape());
        true
    }

    /// The same tensor, borrowed from this one, without what follows it.
    pub(crate) fn reborrow(&mut self) -> Tensor<'_, A> {
        Tensor {
            grad: self.grad.as_ref().map(Grad::reborrow),
            learning_rate: self.learning_rate,
            weight_decay: self.weight_decay,
            frozen: self.frozen,
            ..Tensor::new(self.index, self.param.reborrow())
        }
    }

    /// The same tensor, borrowed from this one, with what follows it.
    #[cfg(feature = "distributed")]
    pub(crate) fn lend(&mut self) -> Tensor<'_, A> {
        let followers = self.followers.iter_mut().map(Follower::lend).collect();
        Tensor {
            grad: self.grad.as_ref().map(Grad::reborrow),
            learning_rate: self.learning_rate,
            weight_decay: self.weight_decay,
            frozen: self.frozen,
            followers,
            ..Tensor::new(self.index, self.param.reborrow())
        }
    }

    /// Keeps the parameter as it is, whatever gradients were gathered for it before.
    pub fn freeze(&mut self) {
        self.grad = None;
        self.frozen = true;
    }
}

/// The pairs of parameter and gradient that an optimizer is to move, checked against each other, in the order of the
/// layout.
///
/// Adaptors change what a tensor's [`Grad`] and [`Adjust`]s say, or take tensors out, and pass the step on.
/// The gradients themselves are never written.
#[derive(Debug)]
pub struct Step<'a, A> {
    layout: Arc<Layout>,
    tensors: Vec<Tensor<'a, A>>,
    ranks: Option<&'a dyn Ranks>,
    /// Whether nobody has been given a tensor to change since the trees were paired.
    is_as_paired: bool,
}

/// What a step that is one rank's share of a larger one knows of the others.
pub(crate) trait Ranks: fmt::Debug + Sync {
    /// Whether tensors may be divided between ranks, not only given to them.
    fn are_tensors_cut(&self) -> bool;

    /// Whether every rank has all tensors, and only the data is divided.
    fn has_all_tensors(&self) -> bool;

    /// The p-norm of all shares, of which this rank's is `own`. All ranks ask, and get the same bits.
    fn norm(&self, own: f64, p: f64) -> Result<f64>;
}

impl<'a, A: Element> Step<'a, A> {
    /// Pairs every parameter with its gradient.
    ///
    /// `known` is the layout of an earlier step: while the parameters keep it, no path is built and no shape
    /// copied. Gradients are matched by path; trees of the same order match without a search.
    ///
    /// `None` among the gradients speaks of the tensor at its path or, if none is there, of all below it. `None` where
    /// the parameters have nothing is no error: a tensor that it was meant for is missed.
    ///
    /// # Errors
    /// [`StepError::MissingGradient`], [`StepError::UnexpectedGradient`], [`StepError::ShapeMismatch`],
    /// [`StepError::DuplicatePath`].
    pub fn pair(
        params: &'a mut (dyn ParamsMut<Elem = A> + '_),
        grads: &'a (dyn Params<Elem = A> + '_),
        known: Option<&Arc<Layout>>,
    ) -> Result<Self> {
        let (layout, mut tensors) = walk_params(params, known)?;
        walk_grads(grads, &layout, &mut tensors)?;
        Ok(Self { layout, tensors, ranks: None, is_as_paired: true })
    }

    /// A step of these tensors, in the order of the layout.
    pub(crate) fn from_parts(layout: Arc<Layout>, tensors: Vec<Tensor<'a, A>>, ranks: Option<&'a dyn Ranks>) -> Self {
        Self { layout, tensors, ranks, is_as_paired: false }
    }

    /// Whether the step is what the trees have shown: every gradient the user's own, no group, and no parameter that is only looked at.
    /// Then there is no need to look for these tensor by tensor.
    pub(crate) fn is_as_paired(&self) -> bool {
        self.is_as_paired
    }

    /// The other ranks, if this is one's share of a step.
    pub(crate) fn ranks(&self) -> Option<&'a dyn Ranks> {
        self.ranks
    }

    /// Whether tensors may be parts of the parameters' tensors, each a vector of consecutive elements, as they are inside
    /// `sharded`. What needs whole tensors refuses such a step.
    pub fn is_cut(&self) -> bool {
        self.ranks.is_some_and(|ranks| ranks.are_tensors_cut())
    }

    /// Nothing if every tensor is a whole one. `name` is who asks.
    pub(crate) fn ensure_uncut(&self, name: &'static str) -> Result<()> {
        if self.is_cut() { Err(Error::Ranks(RankError::CutTensors { name })) } else { Ok(()) }
    }

    /// For the [`check`](crate::Optimizer::check) of an optimizer: returns an error unless these are the parameters that it knows, if it
    /// knows some, and every gradient's scale and limit can be applied in its element type.
    ///
    /// # Errors
    /// [`StepError::ParametersChanged`], [`StepError::GradientScale`].
    pub fn ensure_fit(&self, known: Option<&Arc<Layout>>) -> Result<()> {
        Layout::ensure_known(known, &self.layout)?;
        self.grads().try_for_each(|(info, grad)| grad.ensure_kept(info))
    }

    /// Returns an error if the parameters are those of a [`preview`](Self::preview), which must not be applied.
    pub(crate) fn ensure_writable(&self) -> Result<()> {
        let is_preview = !self.is_as_paired && self.tensors.iter().any(|tensor| tensor.param.is_preview());
        if is_preview { Err(Error::Step(StepError::Previewed)) } else { Ok(()) }
    }

    /// Nothing if all tensors are here. `name` is who asks.
    pub(crate) fn ensure_whole(&self, name: &'static str) -> Result<()> {
        match self.ranks {
            Some(ranks) if !ranks.has_all_tensors() => Err(Error::Ranks(RankError::NotShardable { name })),
            _ => Ok(()),
        }
    }

    /// Returns an error if other ranks have the rest of this step. `name` is an adaptor that talks to ranks itself: its errors would
    /// reach those ranks only.
    #[cfg(feature = "distributed")]
    pub(crate) fn ensure_outermost(&self, name: &'static str) -> Result<()> {
        match self.ranks {
            Some(ranks) if !ranks.has_all_tensors() => Err(Error::Ranks(RankError::InsideSharded { name })),
            _ => Ok(()),
        }
    }

    /// Nothing if the gradients are those of this rank's data alone. `name` is who asks.
    #[cfg(feature = "second-order")]
    pub(crate) fn ensure_own_data(&self, name: &'static str) -> Result<()> {
        if self.ranks.is_some() { Err(Error::Ranks(RankError::DataOfAllRanks { name })) } else { Ok(()) }
    }

    /// Makes it one rank's share of a step.
    #[cfg(feature = "distributed")]
    pub(crate) fn set_ranks(&mut self, ranks: Option<&'a dyn Ranks>) {
        self.ranks = ranks;
    }

    /// The p-norm of the gradients of the whole step, of which `own` is that of the tensors here.
    pub(crate) fn norm_of_all(&self, own: f64, p: f64) -> Result<f64> {
        self.ranks.map_or(Ok(own), |ranks| ranks.norm(own, p))
    }

    /// A step that only has parameters, for changing them as a whole.
    #[cfg(feature = "distributed")]
    pub(crate) fn of_params(
        params: &'a mut (dyn ParamsMut<Elem = A> + '_),
        known: Option<&Arc<Layout>>,
    ) -> Result<Self> {
        let (layout, tensors) = walk_params(params, known)?;
        Ok(Self::from_parts(layout, tensors, None))
    }

    /// A step that only has gradients, for measuring them.
    pub(crate) fn of_grads(grads: &'a (dyn Params<Elem = A> + '_), layout: Layout) -> Result<Self> {
        let nothing = |index| Tensor::new(index, ValuesMut::Contiguous(&mut [], Order::C));
        let mut tensors = (0..layout.len()).map(nothing).collect::<Vec<_>>();
        walk_grads(grads, &layout, &mut tensors)?;
        Ok(Self::from_parts(Arc::new(layout), tensors, None))
    }

    /// The tensors that have a gradient, with it.
    pub fn grads(&self) -> impl Iterator<Item = (&TensorInfo, &Grad<'a, A>)> {
        self.iter().filter_map(|(info, tensor)| Some((info, tensor.grad.as_ref()?)))
    }

    /// The paths and shapes of the whole parameter tree, also of tensors that this step does not hold.
    pub fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    /// The number of tensors in this step.
    pub fn len(&self) -> usize {
        self.tensors.len()
    }

    /// Whether the step holds no tensor.
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }

    /// The tensors, each with its path and shape.
    pub fn iter(&self) -> impl Iterator<Item = (&TensorInfo, &Tensor<'a, A>)> {
        let infos = self.layout.tensors();
        self.tensors.iter().map(move |tensor| (&infos[tensor.index], tensor))
    }

    /// The tensors, each with its path and shape, to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&TensorInfo, &mut Tensor<'a, A>)> {
        self.is_as_paired = false;
        let infos = self.layout.tensors();
        self.tensors.iter_mut().map(move |tensor| (&infos[tensor.index], tensor))
    }

    /// The step for looking at: what an adaptor describes in its [`check`](crate::Optimizer::check), to ask the
    /// optimizer inside about the step that it would be given.
    ///
    /// Gradients and parameters can be read. Followers are left out.
    pub fn preview(&self) -> Preview<'_, A> {
        let tensors = self.tensors.iter().map(|tensor| Tensor {
            index: tensor.index,
            param: ValuesMut::preview(tensor.param()),
            grad: tensor.grad.as_ref().map(Grad::reborrow),
            learning_rate: tensor.learning_rate,
            weight_decay: tensor.weight_decay,
            followers: Vec::new(),
            frozen: tensor.frozen,
        });
        Preview(Step::from_parts(Arc::clone(&self.layout), tensors.collect(), self.ranks))
    }

    /// Divides the step: tensor by tensor, `part` says to which of `parts` steps it goes. Every part keeps the
    /// layout of the whole.
    ///
    /// # Panics
    /// If `part` returns `parts` or more.
    pub fn split(self, parts: usize, mut part: impl FnMut(&TensorInfo, &Tensor<'a, A>) -> usize) -> Vec<Self> {
        let empty = || Self { layout: Arc::clone(&self.layout), tensors: Vec::new(), ..self };
        let mut steps: Vec<_> = (0..parts).map(|_| empty()).collect();
        for tensor in self.tensors {
            let to = part(&self.layout.tensors()[tensor.index], &tensor);
            steps[to].tensors.push(tensor);
        }
        steps
    }
}

/// A step to look at, made by [`Step::preview`]: read and described as a [`Step`], but not one that can be applied.
///
/// ```compile_fail,E0308
/// # use gradus::{Optimizer, Report, Result, Step};
/// fn ahead(optimizer: &mut dyn Optimizer<f32>, step: &Step<'_, f32>) -> Result<Report> {
///     optimizer.apply(step.preview()) // expected `Step`, found `Preview`
/// }
/// ```
/// What is written to its parameters is written to a copy. If its step or tensors are swapped into a step that is applied, the
/// optimizers of this crate return [`StepError::Previewed`].
#[derive(Debug)]
pub struct Preview<'a, A>(Step<'a, A>);

impl<'a, A: Element> Preview<'a, A> {
    /// Divides the preview as [`Step::split`] divides a step.
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

/// The parameters, still without gradients, with `known` as layout if it is theirs, else with a layout of their own.
fn walk_params<'a, A: Element>(
    params: &'a mut (dyn ParamsMut<Elem = A> + '_),
    known: Option<&Arc<Layout>>,
) -> Result<(Arc<Layout>, Vec<Tensor<'a, A>>)> {
    collect_mut(params, known, Tensor::new)
}

/// Gives every tensor its gradient, or none where the tree says so.
fn walk_grads<'a, A: Element>(
    grads: &'a (dyn Params<Elem = A> + '_),
    layout: &Layout,
    tensors: &mut [Tensor<'a, A>],
) -> Result<()> {
    let infos = layout.tensors();
    let (mut next, mut in_order) = (0, true);
    for_each(grads, |path, shape, values| match (values, infos.get(next)) {
        (Some(values), Some(info)) if in_order && path.is(info.path()) && shape == info.shape() => {
            _ = tensors[next].grad.get_or_insert_with(|| Grad::new(values));
            next += 1;
        }
        (None, Some(info)) if in_order && path.is(info.path()) => next += 1,
        (None, _) if in_order => {
            next += infos[next..].iter().take_while(|info| path.is_above(info.path())).count();
        }
        _ => in_order = false,
    });
    if in_order && next == infos.len() {
        return Ok(());
    }
    match_by_path(grads, layout, tensors)
}

/// [`walk_grads`] for a tree of another order, and the errors of one that is not the parameters'.
fn match_by_path<'a, A: Element>(
    grads: &'a (dyn Params<Elem = A> + '_),
    layout: &Layout,
    tensors: &mut [Tensor<'a, A>],
) -> Result<()> {
    let infos = layout.tensors();
    let mut seen = vec![false; infos.len()];
    let (mut error, mut name) = (None, String::new());
    tensors.iter_mut().for_each(|tensor| tensor.grad = None);
    for_each(grads, |path, shape, values| {
        name.clear();
        _ = write!(name, "{path}"); // a `String` takes all
        let at = layout.position(&name);
        let Some(values) = values else {
            match at {
                Some(at) => seen[at] = true,
                None if path.is_above("*") => seen.fill(true), // the root is above every name
                None => {
                    name.push('.');
                    layout.positions_below(&name).for_each(|at| seen[at] = true);
                }
            }
            return;
        };
        let result = match at {
            None => Err(Error::Step(StepError::UnexpectedGradient { path: name.clone() })),
            Some(at) if tensors[at].grad.is_some() => Err(Error::Step(StepError::DuplicatePath { path: name.clone() })),
            Some(at) if infos[at].shape() != shape => Err(Error::Step(StepError::ShapeMismatch {
                path: name.clone(),
                parameter: infos[at].shape().to_vec(),
                gradient: shape.to_vec(),
            })),
            Some(at) => {
                tensors[at].grad = Some(Grad::new(values));
                seen[at] = true;
                Ok(())
            }
        };
        if let Err(first) = result {
            error.get_or_insert(first);
        }
    });
    let missing = infos.iter().zip(seen).find(|(_, seen)| !seen);
    let missing = missing.map(|(info, _)| Error::Step(StepError::MissingGradient { path: info.path().into() }));
    error.or(missing).map_or(Ok(()), Err)
}
