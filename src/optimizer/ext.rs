//! The chain: methods that wrap an optimizer in an adaptor.

use crate::adaptor::{
    Accumulate, Clip, Ema, Finite, Freeze, Group, Grouped, LayerwiseDecay, Lookahead, Maximize, NonFinite, Router, Swa,
    Unscale,
};
use crate::clip::{Adaptive, Clipper, Norm, Value};
use crate::params::{Element, Pattern};
use crate::schedule::Hyper;
use crate::step::Optimizer;

/// The methods that wrap an optimizer in another: every [`Optimizer`] has them.
///
/// They chain, as those of `Iterator` do; the last in a chain sees the gradient first.
pub trait OptimizerExt<A: Element>: Optimizer<A> {
    /// The optimizer in a box, as a chain whose type is not to be written.
    fn boxed<'o>(self) -> Box<dyn Optimizer<A> + 'o>
    where
        Self: Sized + 'o,
    {
        Box::new(self)
    }

    /// Clips the norm of all gradients together to `max_norm`, a number or a schedule: see [`Norm`].
    #[doc(alias("clip_grad_norm_", "clip_by_global_norm", "global_clipnorm"))]
    fn clip_global_norm(self, max_norm: impl Into<Hyper>) -> Clip<Self, Norm>
    where
        Self: Sized,
    {
        self.clip(Norm::global(max_norm))
    }

    /// Clips every tensor's own norm to `max_norm`, a number or a schedule: see [`Norm`].
    #[doc(alias = "clipnorm")]
    fn clip_per_tensor_norm(self, max_norm: impl Into<Hyper>) -> Clip<Self, Norm>
    where
        Self: Sized,
    {
        self.clip(Norm::per_tensor(max_norm))
    }

    /// Limits every element of the gradients to −`limit` … `limit`, a number or a schedule: see
    /// [`Value`].
    #[doc(alias("clip_grad_value_", "clipvalue"))]
    fn clip_value(self, limit: impl Into<Hyper>) -> Clip<Self, Value>
    where
        Self: Sized,
    {
        self.clip(Value::new(limit))
    }

    /// Limits every unit's gradient norm to `clipping` times its parameter norm (AGC): see
    /// [`Adaptive`].
    #[doc(alias("AGC", "adaptive_grad_clip"))]
    fn clip_adaptive(self, clipping: impl Into<Hyper>) -> Clip<Self, Adaptive>
    where
        Self: Sized,
    {
        self.clip(Adaptive::new(clipping))
    }

    /// Clips as `clipper` says.
    fn clip<C: Clipper>(self, clipper: C) -> Clip<Self, C>
    where
        Self: Sized,
    {
        Clip::new(self, clipper)
    }

    /// Moves the parameters once every `every` calls, by the mean of the gradients: see [`Accumulate`].
    #[doc(alias("MultiSteps", "gradient_accumulation_steps"))]
    fn accumulate(self, every: u64) -> Accumulate<Self, A>
    where
        Self: Sized,
    {
        Accumulate::new(self, every)
    }

    /// Keeps a running average of the parameters, with this decay: see [`Ema`].
    #[doc(alias("AveragedModel", "get_ema_multi_avg_fn"))]
    fn ema(self, decay: impl Into<Hyper>) -> Ema<Self, A>
    where
        Self: Sized,
    {
        Ema::new(self, decay)
    }

    /// Keeps the mean of the parameters after step `start` and every `every` steps from there on: see [`Swa`].
    #[doc(alias("AveragedModel", "SWALR"))]
    fn swa(self, start: u64, every: u64) -> Swa<Self, A>
    where
        Self: Sized,
    {
        Swa::new(self, start, every)
    }

    /// After every `every` steps goes back to slow weights that have gone `slow_step` of the way: see [`Lookahead`].
    fn lookahead(self, every: u64, slow_step: impl Into<Hyper>) -> Lookahead<Self, A>
    where
        Self: Sized,
    {
        Lookahead::new(self, every, slow_step)
    }

    /// Gives each of the layers, which patterns choose from the input to the output, `rate` times the learning rate of the
    /// one after it: see [`LayerwiseDecay`].
    #[doc(alias("LLRD", "layer_decay"))]
    fn layerwise_decay(
        self,
        rate: impl Into<Hyper>,
        layers: impl IntoIterator<Item = impl Into<Pattern>>,
    ) -> LayerwiseDecay<Self>
    where
        Self: Sized,
    {
        LayerwiseDecay::new(self, rate, layers)
    }

    /// Keeps the tensors that the pattern chooses as they are: see [`Freeze`]. Write it last, after clipping.
    #[doc(alias("no_grad", "set_to_zero"))]
    #[doc(alias = "requires_grad")]
    fn freeze(self, pattern: impl Into<Pattern>) -> Freeze<Self>
    where
        Self: Sized,
    {
        Freeze::new(self, pattern)
    }

    /// Gives the tensors that the pattern chooses a learning rate or weight decay of their own: see [`Grouped`].
    #[doc(alias("param_groups", "add_param_group"))]
    fn group(self, pattern: impl Into<Pattern>, group: Group) -> Grouped<Self>
    where
        Self: Sized,
    {
        Grouped::new(self, pattern, group)
    }

    /// Gives the tensors that the pattern chooses to another optimizer: see [`Router`].
    #[doc(alias = "multi_transform")]
    fn route(self, pattern: impl Into<Pattern>, optimizer: impl Optimizer<A> + 'static) -> Router<A>
    where
        Self: Sized + 'static,
    {
        Router::new(self).route(pattern, optimizer)
    }

    /// Refuses steps with NaN or infinities in a gradient: see [`Finite`].
    fn check_finite(self) -> Finite<Self>
    where
        Self: Sized,
    {
        Finite::new(self, NonFinite::Error)
    }

    /// Skips steps with NaN or infinities in a gradient: see [`Finite`]. After [`accumulate`](crate::OptimizerExt::accumulate) it
    /// leaves out a bad micro-batch, before it the whole sum.
    fn skip_nonfinite(self) -> Finite<Self>
    where
        Self: Sized,
    {
        Finite::new(self, NonFinite::Skip)
    }

    /// Shares the optimizer's state and work between the ranks of a group, ZeRO-1: see
    /// [`Sharded`](crate::distributed::Sharded).
    #[doc(alias("ZeroRedundancyOptimizer", "ZeRO"))]
    #[cfg(feature = "distributed")]
    fn sharded<G: crate::distributed::Collective<A>>(self, group: G) -> crate::distributed::Sharded<Self, G, A>
    where
        Self: Sized,
    {
        crate::distributed::Sharded::new(self, group)
    }

    /// Preconditions gradients with the curvature of the layers: see [`Kfac`](crate::curvature::Kfac).
    #[cfg(feature = "second-order")]
    fn kfac(self) -> crate::curvature::Kfac<Self, A>
    where
        Self: Sized,
        A: crate::Scalar,
    {
        crate::curvature::Kfac::new(self)
    }

    /// Stays near the server's model, as strongly as `mu` says: see [`Proximal`](crate::federated::Proximal).
    #[cfg(feature = "federated")]
    #[doc(alias = "FedProx")]
    fn proximal(self, mu: impl Into<Hyper>) -> crate::federated::Proximal<Self, A>
    where
        Self: Sized,
    {
        crate::federated::Proximal::new(self, mu)
    }

    /// Corrects gradients by control variates of client and server: see [`Scaffold`](crate::federated::Scaffold).
    #[cfg(feature = "federated")]
    fn scaffold(self) -> crate::federated::Scaffold<Self, A>
    where
        Self: Sized,
    {
        crate::federated::Scaffold::new(self)
    }

    /// Moves the parameters of all ranks of a group by the mean of their gradients: see
    /// [`DataParallel`](crate::distributed::DataParallel).
    #[doc(alias("DistributedDataParallel", "DDP"))]
    #[cfg(feature = "distributed")]
    fn data_parallel<G>(self, group: G) -> crate::distributed::DataParallel<Self, G, A>
    where
        Self: Sized,
        G: crate::distributed::Collective<A>,
    {
        crate::distributed::DataParallel::new(self, group)
    }

    /// Takes `every` steps alone, then a step of `outer` along the mean change over all ranks, which are those given to
    /// [`across`](crate::distributed::LocalSteps::across), or without it this one alone: see
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

    /// Steps parameters of 16 bits through f32 copies: see [`MasterWeights`](crate::adaptor::MasterWeights).
    #[doc(alias("autocast", "mixed_precision"))]
    #[cfg(feature = "half")]
    fn master_weights<H: Element>(self) -> crate::adaptor::MasterWeights<Self, H>
    where
        Self: Sized + Optimizer<f32>,
    {
        crate::adaptor::MasterWeights::new(self)
    }

    /// Divides the gradients by the factor that the loss was multiplied with: a number or a schedule. See [`Unscale`].
    #[doc(alias = "GradScaler")]
    fn unscale(self, loss_scale: impl Into<Hyper>) -> Unscale<Self>
    where
        Self: Sized,
    {
        Unscale::new(self, loss_scale)
    }

    /// Climbs instead of descending: see [`Maximize`].
    fn maximize(self) -> Maximize<Self>
    where
        Self: Sized,
    {
        Maximize::new(self)
    }
}

impl<A: Element, O: Optimizer<A> + ?Sized> OptimizerExt<A> for O {}
