//! The methods that add adaptors to an optimizer.

use crate::adaptor::{
    Accumulate, Adapted, AddNoise, Centralize, Ema, Freeze, Group, Grouped, KeepBest, LayerwiseDecay, Lookahead,
    Maximize, Monitor, Project, Router, Sam, SamReport, Stop, Swa, Transform, Transforming, sam,
};
use crate::clip::{Adaptive, Norm, QkClip, Value};
use crate::error::Result;
use crate::params::{Element, Params, ParamsMut, Pattern, Scalar};
use crate::schedule::Hyper;
use crate::step::{Optimizer, Report, Step, find, find_mut, set::Set, tree::Summary};

/// The methods that add adaptors to an optimizer. Every [`Optimizer`] has them.
///
/// They take the optimizer and return a new one, so they can be chained. The last adaptor in a chain sees the gradient first.
pub trait OptimizerExt<A: Element>: Optimizer<A> {
    /// Puts the optimizer into a box, so that you do not have to write the type of the chain.
    fn boxed<'o>(self) -> Box<dyn Optimizer<A> + 'o>
    where
        Self: Sized + 'o,
    {
        Box::new(self)
    }

    /// Finds the part of the chain that has the type `T`: an average, K-FAC, an optimizer. Use it to call the methods of that part.
    ///
    /// It looks through adaptors, boxes and routers. If several parts have this type, it returns the outermost. In a router it looks into
    /// the base optimizer first.
    ///
    /// ```
    /// use gradus::{adaptor::Ema, prelude::*};
    /// use ndarray::array;
    ///
    /// let mut opt = Adam::new(0.1).ema(0.9).clip_global_norm(1.0).accumulate(1).boxed();
    /// let mut w = array![1.0];
    /// opt.step(&mut w, &array![1.0])?;
    /// let (mut average, mut first_moment) = (w.clone(), None);
    /// if let (Some(ema), Some(adam)) = (opt.find::<Ema<f64>>(), opt.find::<Adam<f64>>()) {
    ///     ema.read(&mut average)?;
    ///     first_moment = adam.slot("", "exp_avg");
    /// }
    /// assert!(average == w && first_moment.is_some());
    /// # Ok::<(), gradus::Error>(())
    /// ```
    fn find<T: 'static>(&self) -> Option<&T> {
        find(self)
    }

    /// [`find`](Self::find), mutable: `opt.find_mut::<Ema<f32>>()` to swap averages, `opt.find_mut::<Freeze>()` to unfreeze.
    fn find_mut<T: 'static>(&mut self) -> Option<&mut T> {
        find_mut(self)
    }

    /// Replaces the learning rate by another number or schedule, from the next step on. A schedule is evaluated at the optimizer's step
    /// counter, which does not start over.
    ///
    /// It works through adaptors and boxes. In a router it changes the base optimizer, whose rate is the router's
    /// [`learning_rate`](Optimizer::learning_rate). In `local_steps` it changes the optimizer inside, not the outer one.
    ///
    /// ```
    /// # use gradus::prelude::*;
    /// let mut opt = AdamW::<f32>::new(1e-3).clip_global_norm(1.0).boxed();
    /// opt.set_learning_rate(1e-4);
    /// assert_eq!(opt.learning_rate(), 1e-4);
    /// ```
    fn set_learning_rate(&mut self, learning_rate: impl Into<Hyper>) {
        self.replace_learning_rate(learning_rate.into());
    }

    /// A table of the parameters, with what the next step does with each: whether it is frozen, and its groups and routes. See [`Summary`].
    ///
    /// # Errors
    /// Those of [`check`](Optimizer::check).
    #[doc(alias("torchinfo", "print_trainable_parameters"))]
    fn summary<T: Params<Elem = A> + ?Sized>(&self, params: &T) -> Result<Summary> {
        let step = Step::to_note(params, self.steps())?;
        self.check(&step)?;
        Ok(Summary::noted(&step))
    }

    #[doc = include_str!("resize.md")]
    #[doc(alias("resize_token_embeddings", "densify", "prune", "cat_tensors_to_optimizer"))]
    fn resize<T: Params<Elem = A> + ?Sized>(&mut self, path: &str, rows: &[Option<usize>], params: &T) -> Result<()> {
        super::resize::resize(self, path, rows, params)
    }

    /// Adds an adaptor of your own, which changes each step before this optimizer gets it: a closure or a [`Transform`].
    fn transform<T: Transform<A>>(self, transform: T) -> Adapted<Self, Transforming<T>>
    where
        Self: Sized,
    {
        Adapted::new(self, Transforming::new(transform))
    }

    /// Clips the norm of all gradients together to `max_norm`: a number or a schedule. See [`Norm`].
    #[doc(alias("clip_grad_norm_", "clip_by_global_norm", "global_clipnorm"))]
    fn clip_global_norm(self, max_norm: impl Into<Hyper>) -> Adapted<Self, Transforming<Norm>>
    where
        Self: Sized,
    {
        self.transform(Norm::global(max_norm))
    }

    /// Clips the norm of each tensor to `max_norm`: a number or a schedule. See [`Norm`].
    #[doc(alias = "clipnorm")]
    fn clip_per_tensor_norm(self, max_norm: impl Into<Hyper>) -> Adapted<Self, Transforming<Norm>>
    where
        Self: Sized,
    {
        self.transform(Norm::per_tensor(max_norm))
    }

    /// Scales the query and key weights of each attention head whose largest logit was above `threshold`: a number or a schedule. See [`QkClip`].
    #[doc(alias("MuonClip", "QK-Clip"))]
    fn qk_clip(self, threshold: impl Into<Hyper>) -> Adapted<Self, QkClip>
    where
        Self: Sized,
    {
        Adapted::new(self, QkClip::new(threshold))
    }

    /// Limits every element of the gradients to the range −`limit` to `limit`: a number or a schedule. See [`Value`].
    #[doc(alias("clip_grad_value_", "clipvalue"))]
    fn clip_value(self, limit: impl Into<Hyper>) -> Adapted<Self, Transforming<Value>>
    where
        Self: Sized,
    {
        self.transform(Value::new(limit))
    }

    /// Limits the gradient norm of each unit, such as a row of a weight, to `clipping` times the norm of its parameters (AGC). See
    /// [`Adaptive`].
    #[doc(alias("AGC", "adaptive_grad_clip"))]
    fn clip_adaptive(self, clipping: impl Into<Hyper>) -> Adapted<Self, Transforming<Adaptive>>
    where
        Self: Sized,
    {
        self.transform(Adaptive::new(clipping))
    }

    /// Moves the parameters once every `every` calls, by the mean of the gradients. See [`Accumulate`].
    #[doc(alias("MultiSteps", "gradient_accumulation_steps"))]
    fn accumulate(self, every: u64) -> Adapted<Self, Accumulate<A>>
    where
        Self: Sized,
    {
        Adapted::new(self, Accumulate::new(every))
    }

    /// [`accumulate`](Self::accumulate) with a schedule: its integer part at the number of steps taken. See [`Accumulate`].
    #[doc(alias = "every_k_schedule")]
    fn accumulate_by(self, every: impl Into<Hyper>) -> Adapted<Self, Accumulate<A>>
    where
        Self: Sized,
    {
        Adapted::new(self, Accumulate::by(every))
    }

    /// Keeps a copy of the parameters of the lowest loss so far. Take steps with [`step_with_loss`](crate::StepExt::step_with_loss). See [`KeepBest`].
    #[doc(alias("ModelCheckpoint", "EarlyStopping"))]
    fn keep_best(self) -> Adapted<Self, KeepBest<A>>
    where
        Self: Sized,
    {
        Adapted::new(self, KeepBest::new())
    }

    /// Reports when to stop, by the norm of the gradient, the change of the loss, or patience. See [`Stop`].
    #[doc(alias = "EarlyStopping")]
    fn stop(self) -> Adapted<Self, Stop>
    where
        Self: Sized,
    {
        Adapted::new(self, Stop::new())
    }

    /// Keeps an exponential moving average of the parameters, with this decay. See [`Ema`].
    #[doc(alias("AveragedModel", "get_ema_multi_avg_fn"))]
    fn ema(self, decay: impl Into<Hyper>) -> Adapted<Self, Ema<A>>
    where
        Self: Sized,
    {
        Adapted::new(self, Ema::new(decay))
    }

    /// Keeps the mean of the parameters after step `start`, and then every `every` steps. See [`Swa`].
    #[doc(alias("AveragedModel", "SWALR"))]
    fn swa(self, start: u64, every: u64) -> Adapted<Self, Swa<A>>
    where
        Self: Sized,
    {
        Adapted::new(self, Swa::new(start, every))
    }

    /// Every `every` steps, moves a second set of weights a fraction `slow_step` of the way to the parameters, and resets the parameters to
    /// them. See [`Lookahead`].
    fn lookahead(self, every: u64, slow_step: impl Into<Hyper>) -> Adapted<Self, Lookahead<A>>
    where
        Self: Sized,
    {
        Adapted::new(self, Lookahead::new(every, slow_step))
    }

    /// Steps along the gradient at the worst point within a distance `rho`: a number or a schedule (sharpness-aware minimization). Take steps
    /// with [`step_with`](Self::step_with), or with [`ascend`](Self::ascend) and [`step`](Optimizer::step). See [`Sam`].
    #[doc(alias("SAM", "ASAM", "GSAM", "sharpness-aware minimization"))]
    fn sam(self, rho: impl Into<Hyper>) -> Adapted<Self, Sam<A>>
    where
        Self: Sized,
    {
        Adapted::new(self, Sam::new(rho))
    }

    /// Takes a step of a chain with [`sam`](Self::sam). `evaluate` returns the loss and its gradients; it is called at the parameters and at
    /// the perturbed point. Use the same data in both calls.
    ///
    /// # Errors
    /// Those of [`Sam`] and of [`step`](Optimizer::step). The parameters, also those of the optimizer, are then as before the call.
    fn step_with<P, G, L>(&mut self, params: &mut P, evaluate: impl FnMut(&P) -> (L, G)) -> Result<SamReport>
    where
        P: ParamsMut<Elem = A>,
        G: Params<Elem = A>,
        L: Into<f64>,
    {
        sam::step_with(self, params, evaluate)
    }

    /// The first of the two calls of a step with [`sam`](Self::sam): moves the parameters uphill along `grads`. Then compute the gradients at
    /// the new parameters, with the same data, and pass them to [`step`](Optimizer::step), which first puts the parameters back.
    ///
    /// The report has `moved: false` if the parameters have not moved uphill: if an `accumulate` gathers gradients, or the step is skipped.
    ///
    /// # Errors
    /// Those of [`Sam`] and of [`step`](Optimizer::step). Nothing has changed then.
    fn ascend(&mut self, params: &mut dyn ParamsMut<Elem = A>, grads: &dyn Params<Elem = A>) -> Result<Report> {
        sam::ascend(self, params, grads)
    }

    /// Takes [`ascend`](Self::ascend) back: puts the parameters back to where they were, for example because the second gradients cannot be
    /// computed. Without an `ascend` before it, it does nothing.
    ///
    /// If an `accumulate` after `sam` has gathered gradients of [`step`](Optimizer::step), it discards them. It keeps gradients of `ascend`: call its
    /// [`discard`](crate::adaptor::Accumulate::discard) to start over.
    ///
    /// # Errors
    /// [`StepError::CannotAscend`](crate::error::StepError::CannotAscend) if there is no `sam`, and
    /// [`StepError::ParametersChanged`](crate::error::StepError::ParametersChanged) for other parameters.
    fn retreat(&mut self, params: &mut dyn ParamsMut<Elem = A>) -> Result<()> {
        sam::retreat(self, params)
    }

    /// Multiplies the learning rate by `rate` for each layer further from the output. `layers` has one pattern per layer, from the input to
    /// the output. See [`LayerwiseDecay`].
    #[doc(alias("LLRD", "layer_decay"))]
    fn layerwise_decay(
        self,
        rate: impl Into<Hyper>,
        layers: impl IntoIterator<Item = impl Into<Pattern>>,
    ) -> Adapted<Self, Transforming<LayerwiseDecay>>
    where
        Self: Sized,
    {
        self.transform(LayerwiseDecay::new(rate, layers))
    }

    /// Keeps the tensors that the pattern matches unchanged. Write it last, after clipping. See [`Freeze`].
    #[doc(alias("no_grad", "set_to_zero", "requires_grad"))]
    fn freeze(self, pattern: impl Into<Pattern>) -> Adapted<Self, Freeze>
    where
        Self: Sized,
    {
        Adapted::new(self, Freeze::new(pattern))
    }

    /// Gives the tensors that the pattern matches their own learning rate, weight decay or other hyper-parameters. See [`Group`] and [`Grouped`].
    #[doc(alias("param_groups", "add_param_group"))]
    fn group(self, pattern: impl Into<Pattern>, group: Group) -> Adapted<Self, Transforming<Grouped>>
    where
        Self: Sized,
    {
        self.transform(Grouped::new(pattern, group))
    }

    /// Every n steps, measures the norms of gradient, parameter and update of each tensor, for the [`Report`], and for CSV, JSON and
    /// TensorBoard files. Write it last. See [`Monitor`].
    #[doc(alias("TensorBoard", "SummaryWriter", "watch"))]
    fn monitor(self, monitor: Monitor<A>) -> Adapted<Self, Monitor<A>>
    where
        Self: Sized,
    {
        Adapted::new(self, monitor)
    }

    /// Keeps the tensors that the pattern matches in a [set](crate::set), such as [`NonNegative`](crate::set::NonNegative): after every step they
    /// are moved to its nearest point. See [`Project`].
    #[doc(alias("constraint", "clamp", "keep_params_nonnegative", "MaxNorm"))]
    fn project(self, pattern: impl Into<Pattern>, set: impl Set<A>) -> Adapted<Self, Transforming<Project<A>>>
    where
        Self: Sized,
        A: Scalar,
    {
        self.transform(Project::new(pattern, set))
    }

    /// Gives the tensors that the pattern matches to another optimizer. See [`Router`].
    #[doc(alias = "multi_transform")]
    fn route(self, pattern: impl Into<Pattern>, optimizer: impl Optimizer<A> + 'static) -> Router<A>
    where
        Self: Sized + 'static,
    {
        Router::new(self).route(pattern, optimizer)
    }

    /// Divides the optimizer's state and work among the ranks of a group (ZeRO-1). See [`Sharded`](crate::distributed::Sharded).
    #[doc(alias("ZeroRedundancyOptimizer", "ZeRO"))]
    #[cfg(feature = "distributed")]
    fn sharded<G: crate::distributed::Collective<A>>(self, group: G) -> crate::distributed::Sharded<Self, G, A>
    where
        Self: Sized,
    {
        crate::distributed::Sharded::new(self, group)
    }

    /// Multiplies the gradients by the inverse of the layers' approximate curvature (K-FAC). See [`Kfac`](crate::curvature::Kfac).
    #[cfg(feature = "second-order")]
    fn kfac(self) -> Adapted<Self, crate::curvature::Kfac<A>>
    where
        Self: Sized,
        A: Scalar,
    {
        let kfac = crate::curvature::Kfac::beginning(self.steps(), self.layout().cloned());
        Adapted::new(self, kfac)
    }

    /// Keeps the model near the server's model; a larger `mu` keeps it nearer (FedProx). See [`Proximal`](crate::federated::Proximal).
    #[cfg(feature = "federated")]
    #[doc(alias = "FedProx")]
    fn proximal(self, mu: impl Into<Hyper>) -> Adapted<Self, crate::federated::Proximal<A>>
    where
        Self: Sized,
    {
        Adapted::new(self, crate::federated::Proximal::new(mu))
    }

    /// Corrects gradients by control variates of client and server (SCAFFOLD). See [`Scaffold`](crate::federated::Scaffold).
    #[cfg(feature = "federated")]
    fn scaffold(self) -> Adapted<Self, crate::federated::Scaffold<A>>
    where
        Self: Sized,
    {
        Adapted::new(self, crate::federated::Scaffold::new())
    }

    /// Moves the parameters of all ranks of a group by the mean of their gradients. See [`DataParallel`](crate::distributed::DataParallel).
    #[doc(alias("DistributedDataParallel", "DDP"))]
    #[cfg(feature = "distributed")]
    fn data_parallel<G>(self, group: G) -> crate::distributed::DataParallel<Self, G, A>
    where
        Self: Sized,
        G: crate::distributed::Collective<A>,
    {
        crate::distributed::DataParallel::new(self, group)
    }

    /// Takes `every` steps on this rank, then a step of `outer` along the mean change over all ranks. Set the ranks with
    /// [`across`](crate::distributed::LocalSteps::across); without it there is only this one. See
    /// [`LocalSteps`](crate::distributed::LocalSteps).
    #[doc(alias("DiLoCo", "PostLocalSGDOptimizer"))]
    #[cfg(feature = "distributed")]
    fn local_steps<U: Optimizer<A>>(
        self,
        every: u64,
        outer: U,
    ) -> crate::distributed::LocalSteps<Self, U, crate::distributed::Alone, A>
    where
        Self: Sized,
    {
        crate::distributed::LocalSteps::new(self, every, outer)
    }

    /// Steps parameters of 16 bits with f32 copies. See [`MasterWeights`](crate::adaptor::MasterWeights).
    #[doc(alias("autocast", "mixed_precision"))]
    #[cfg(feature = "half")]
    fn master_weights<H: Element>(self) -> crate::adaptor::MasterWeights<Self, H>
    where
        Self: Sized + Optimizer<f32>,
    {
        crate::adaptor::MasterWeights::new(self)
    }

    /// Steps parameters of 16 bits without f32 copies: new values are rounded up or down at random, so that they are right on average. The random bits
    /// depend on `seed` and the step. See [`NarrowWeights`](crate::adaptor::NarrowWeights).
    #[doc(alias = "bf16_stochastic_round")]
    #[cfg(feature = "half")]
    fn stochastic_rounding<H: Element>(self, seed: u64) -> crate::adaptor::NarrowWeights<Self, H>
    where
        Self: Sized + Optimizer<f32>,
    {
        crate::adaptor::NarrowWeights::stochastic(self, seed)
    }

    /// Steps parameters of 16 bits without f32 copies: what rounding loses is kept in 16 bits, and added to the next change. See
    /// [`NarrowWeights`](crate::adaptor::NarrowWeights).
    #[doc(alias = "kahan_sum")]
    #[cfg(feature = "half")]
    fn kahan<H: Element>(self) -> crate::adaptor::NarrowWeights<Self, H>
    where
        Self: Sized + Optimizer<f32>,
    {
        crate::adaptor::NarrowWeights::kahan(self)
    }

    /// Adds noise to the gradients, whose variance is `eta` in the first step and less in later ones. See [`AddNoise`].
    #[doc(alias("gradient noise", "annealed noise"))]
    fn add_noise(self, eta: impl Into<Hyper>, seed: u64) -> Adapted<Self, Transforming<AddNoise>>
    where
        Self: Sized,
    {
        self.transform(AddNoise::new(eta, seed))
    }

    /// Subtracts from the gradient of each unit, such as a row of a weight, its mean. See [`Centralize`].
    #[doc(alias("GC", "gradient centralization"))]
    fn centralize(self) -> Adapted<Self, Transforming<Centralize>>
    where
        Self: Sized,
    {
        self.transform(Centralize)
    }

    /// Maximizes instead of minimizing. See [`Maximize`].
    fn maximize(self) -> Adapted<Self, Transforming<Maximize>>
    where
        Self: Sized,
    {
        self.transform(Maximize)
    }
}

impl<A: Element, O: Optimizer<A> + ?Sized> OptimizerExt<A> for O {}
