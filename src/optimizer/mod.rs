//! The optimizer trait and the optimizers, one algorithm a file.
//!
//! Every named optimizer is [`Elementwise`](crate::rule::Elementwise) over a rule of its own: the rule holds the
//! hyper-parameters and the arithmetic, `Elementwise` the state and the way over memory.

mod adam;
mod lbfgs;
mod momentum;
mod muon;
mod nesterov;
mod rmsprop;
mod sgd;
#[cfg(feature = "second-order")]
mod shampoo;
#[cfg(feature = "second-order")]
mod soap;

use std::sync::Arc;

use crate::adaptor::{
    Accumulate, Clip, Ema, Finite, Freeze, Group, Grouped, LayerwiseDecay, Lookahead, Maximize, NonFinite, Router, Swa,
    Unscale,
};
use crate::clip::{Adaptive, Clipper, Norm, Value};
use crate::error::Result;
use crate::hyper::Hyper;
use crate::params::{Layout, Params, ParamsMut};
use crate::pattern::Pattern;
use crate::scalar::Element;
use crate::state::{Commit, StateDict, StateReader, StateWriter, load};
use crate::step::{Report, Step};

pub use adam::{Adam, AdamRule, AdamW};
pub use lbfgs::{Lbfgs, LbfgsReport, Stop};
pub use momentum::{Momentum, MomentumRule};
pub use muon::{Muon, MuonRule, MuonValues, newton_schulz};
pub use nesterov::{Nesterov, NesterovRule};
pub use rmsprop::{RmsProp, RmsPropRule};
pub use sgd::{Sgd, SgdRule};
#[cfg(feature = "second-order")]
pub use shampoo::{Graft, Shampoo, ShampooRule, ShampooValues};
#[cfg(feature = "second-order")]
pub use soap::{Soap, SoapRule, SoapValues};

/// Moves parameters along their gradients.
///
/// A training loop calls [`step`](Optimizer::step). The adaptor methods wrap an optimizer in another, as those of
/// `Iterator` do; the last in a chain sees the gradient first. The trait is object safe: `Box<dyn Optimizer<f32>>`
/// is an optimizer, and so is `&mut O`.
///
/// To write an optimizer of your own, see [`Rule`](crate::rule::Rule) for element-wise algorithms and the
/// [guide](crate::guide::extending) for the others.
pub trait Optimizer<A: Element>: Send {
    /// Whether [`apply`](Optimizer::apply) would accept this step. Changes nothing.
    ///
    /// An optimizer that moves something before it hands the step on, as a router between two optimizers does, asks
    /// first. An adaptor asks the optimizer inside about the step as it would pass it on, described on a
    /// [`preview`](Step::preview).
    ///
    /// # Errors
    /// What `apply` would return.
    fn check(&self, step: &Step<'_, A>) -> Result<()>;

    /// Takes the step, all of it or, on an error, none.
    ///
    /// What `check` accepts must not be refused here: beside other optimizers, in a [`Router`], an error at this point comes when
    /// those may have moved, and nothing that they were is kept. The router then says
    /// [`RefusedTooLate`](crate::Error::RefusedTooLate). A panic, in a rule, a schedule or a closure of the user's, goes through
    /// to whoever called, and leaves a part of the elements moved: parameters and optimizer are then to be replaced by saved ones.
    ///
    /// # Errors
    /// [`Error::HyperParameter`](crate::Error::HyperParameter), [`Error::Schedule`](crate::Error::Schedule) and
    /// [`Error::ParametersChanged`](crate::Error::ParametersChanged), and those of the adaptors on the way.
    fn apply(&mut self, step: Step<'_, A>) -> Result<Report>;

    /// The learning rate that the next step will use, before any group's change to it.
    fn learning_rate(&self) -> f64;

    /// The number of steps taken; the counter that schedules are evaluated at.
    ///
    /// A call that accumulated, was skipped or failed is no step.
    fn steps(&self) -> u64;

    /// The layout of the parameters: `None` before the first step and from then on that of the [`Step`]s applied, whether they
    /// moved anything or not; an adaptor answers with that of the optimizer inside.
    ///
    /// By it [`step`](Optimizer::step) refuses other parameters than before, a state is refused that is not of these, and pairing
    /// the next step builds no paths. An optimizer that always answers `None` steps any parameters with what it remembers of others.
    fn layout(&self) -> Option<&Arc<Layout>>;

    /// Writes what the optimizer remembers from step to step, and has the optimizer inside do the same.
    ///
    /// For those who write an optimizer; whoever uses one calls [`state_dict`](Optimizer::state_dict).
    fn write_state(&self, state: &mut StateWriter<'_>);

    /// Reads what [`write_state`](Optimizer::write_state) wrote, in the same order, and checks it; changes nothing before
    /// the [`Commit`] that it returns is made.
    ///
    /// # Errors
    /// Those of [`StateReader`].
    fn read_state<'s>(&'s mut self, state: &mut StateReader<'_>) -> Result<Commit<'s>>;

    /// A copy of everything that is remembered from step to step: counters, every slot, gathered gradients, averages.
    ///
    /// Hyper-parameters and schedules are not in it, they are code. What a [`Plateau`](crate::schedule::Plateau) has seen is, if
    /// it is in a hyper-parameter of what remembers something itself: an optimizer (its learning rate, weight decay or one of its
    /// rule), an average, `kfac`, `proximal`. Of one elsewhere, in a group, a clip, `layerwise_decay` or `unscale`, save its
    /// [`state`](crate::schedule::Plateau::state).
    fn state_dict(&self) -> StateDict {
        let mut state = StateDict::new(self.layout().cloned());
        self.write_state(&mut StateWriter::new(&mut state));
        state
    }

    /// Goes on from a state that was saved, bit for bit as if it had never stopped. All of it or, on an error, nothing.
    ///
    /// The optimizer is built as it was before: the same algorithms in the same order. It may have taken steps.
    ///
    /// # Errors
    /// [`Error::WrongAlgorithm`](crate::Error::WrongAlgorithm), [`Error::MissingEntry`](crate::Error::MissingEntry),
    /// [`Error::UnexpectedEntry`](crate::Error::UnexpectedEntry), [`Error::EntryShape`](crate::Error::EntryShape),
    /// [`Error::EntryType`](crate::Error::EntryType), [`Error::EntryValue`](crate::Error::EntryValue), and
    /// [`Error::ParametersChanged`](crate::Error::ParametersChanged) if the optimizer has stepped other parameters;
    /// [`Error::SettingChanged`](crate::Error::SettingChanged) where a setting that the state has already taken part in is another:
    /// what is frozen, and which steps a mean is of.
    fn load_state_dict(&mut self, state: &StateDict) -> Result<()> {
        load(state, state.layout(), self.layout().cloned(), |reader| self.read_state(reader))
    }

    /// Moves `params` along `grads`, a tree of the same tensors. The gradients are not changed.
    ///
    /// # Errors
    /// Those of [`Step::pair`] and of [`apply`](Optimizer::apply). Parameters, state and counters are then bit for
    /// bit what they were.
    fn step(&mut self, params: &mut dyn ParamsMut<Elem = A>, grads: &dyn Params<Elem = A>) -> Result<Report> {
        let step = Step::pair(params, grads, self.layout())?;
        Layout::ensure_known(self.layout(), step.layout())?;
        self.apply(step)
    }

    /// Clips the norm of all gradients together to `max_norm`, a number or a schedule: see [`Norm`].
    fn clip_global_norm(self, max_norm: impl Into<Hyper>) -> Clip<Self, Norm>
    where
        Self: Sized,
    {
        self.clip(Norm::global(max_norm))
    }

    /// Clips every tensor's own norm to `max_norm`, a number or a schedule: see [`Norm`].
    fn clip_per_tensor_norm(self, max_norm: impl Into<Hyper>) -> Clip<Self, Norm>
    where
        Self: Sized,
    {
        self.clip(Norm::per_tensor(max_norm))
    }

    /// Limits every element of the gradients to −`limit` … `limit`, a number or a schedule: see
    /// [`Value`].
    fn clip_value(self, limit: impl Into<Hyper>) -> Clip<Self, Value>
    where
        Self: Sized,
    {
        self.clip(Value::new(limit))
    }

    /// Limits every unit's gradient norm to `clipping` times its parameter norm (AGC): see
    /// [`Adaptive`].
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
    fn accumulate(self, every: u64) -> Accumulate<Self, A>
    where
        Self: Sized,
    {
        Accumulate::new(self, every)
    }

    /// Keeps a running average of the parameters, with this decay: see [`Ema`].
    fn ema(self, decay: impl Into<Hyper>) -> Ema<Self, A>
    where
        Self: Sized,
    {
        Ema::new(self, decay)
    }

    /// Keeps the mean of the parameters after step `start` and every `every` steps from there on: see [`Swa`].
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
    #[doc(alias = "requires_grad")]
    fn freeze(self, pattern: impl Into<Pattern>) -> Freeze<Self>
    where
        Self: Sized,
    {
        Freeze::new(self, pattern)
    }

    /// Gives the tensors that the pattern chooses a learning rate or weight decay of their own: see [`Grouped`].
    fn group(self, pattern: impl Into<Pattern>, group: Group) -> Grouped<Self>
    where
        Self: Sized,
    {
        Grouped::new(self, pattern, group)
    }

    /// Gives the tensors that the pattern chooses to another optimizer: see [`Router`].
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

    /// Skips steps with NaN or infinities in a gradient: see [`Finite`]. After [`accumulate`](Optimizer::accumulate) it
    /// leaves out a bad micro-batch, before it the whole sum.
    fn skip_nonfinite(self) -> Finite<Self>
    where
        Self: Sized,
    {
        Finite::new(self, NonFinite::Skip)
    }

    /// Shares the optimizer's state and work between the ranks of a group, ZeRO-1: see
    /// [`Sharded`](crate::distributed::Sharded).
    #[cfg(feature = "distributed")]
    fn sharded<G: crate::distributed::Collective<A>>(self, group: G) -> crate::distributed::Sharded<Self, G, A>
    where
        Self: Sized,
    {
        crate::distributed::Sharded::new(self, group)
    }

    /// Preconditions gradients with the curvature of the layers: see [`Kfac`](crate::kfac::Kfac).
    #[cfg(feature = "second-order")]
    fn kfac(self) -> crate::kfac::Kfac<Self, A>
    where
        Self: Sized,
        A: crate::Scalar,
    {
        crate::kfac::Kfac::new(self)
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
    #[cfg(feature = "half")]
    fn master_weights<H: Element>(self) -> crate::adaptor::MasterWeights<Self, H>
    where
        Self: Sized + Optimizer<f32>,
    {
        crate::adaptor::MasterWeights::new(self)
    }

    /// Divides the gradients by the factor that the loss was multiplied with: a number or a schedule. See [`Unscale`].
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

macro_rules! forward {
    ($($optimizer:tt)*) => {
        impl<A: Element, O: Optimizer<A> + ?Sized> Optimizer<A> for $($optimizer)* {
            fn check(&self, step: &Step<'_, A>) -> Result<()> {
                (**self).check(step)
            }

            fn apply(&mut self, step: Step<'_, A>) -> Result<Report> {
                (**self).apply(step)
            }

            fn step(&mut self, params: &mut dyn ParamsMut<Elem = A>, grads: &dyn Params<Elem = A>) -> Result<Report> {
                (**self).step(params, grads)
            }

            fn learning_rate(&self) -> f64 {
                (**self).learning_rate()
            }

            fn steps(&self) -> u64 {
                (**self).steps()
            }

            fn layout(&self) -> Option<&Arc<Layout>> {
                (**self).layout()
            }

            fn write_state(&self, state: &mut StateWriter<'_>) {
                (**self).write_state(state);
            }

            fn read_state<'s>(&'s mut self, state: &mut StateReader<'_>) -> Result<Commit<'s>> {
                (**self).read_state(state)
            }
        }
    };
}

forward!(Box<O>);
forward!(&mut O);
