//! Sharded optimizer state: ZeRO, stage 1.

mod across;
mod cut;
mod shard;
mod state;

use std::borrow::Cow;
use std::sync::Arc;

use super::group::{Collective, RankGroup};
use super::joint::{Peers, Vote, ahead, describe_grads, end, non_finite, skips};
use super::traffic::{BUCKET_BYTES, bucket_elements};
use crate::adaptor::{NonFinite, around, count_inner};
use crate::error::{Error, Name, Result};
use crate::params::{Element, Layout, ParamsMut, TensorInfo};
use crate::state::{Commit, StateReader, StateWriter};
use crate::step::memo::Note;
use crate::step::share::{Extent, Share};
use crate::step::{Optimizer, Report, Step, norm};

use across::Across;
use cut::How;
use shard::{Buffers, Shard};
use state::{Fingerprint, split};

pub use state::unshard;

/// Divides an optimizer's state and work between the ranks of a group: made by [`OptimizerExt::sharded`](crate::OptimizerExt::sharded).
///
/// Every rank has all parameters and the gradients of its own part of the batch. Each rank keeps state for one share of the
/// parameters, moves that share, and sends it to the other ranks.
///
/// # Update rule
/// ```text
/// all ranks check their gradients and agree on the step
/// gᵢ ← (gᵢ of rank 0 + … + gᵢ of rank N − 1)/N     for the elements i of this rank's share: reduce-scatter
/// θᵢ, state ← the step of the optimizer inside     for these
/// θ ← the shares of all ranks                      all-gather: the same bits on every rank
/// ```
/// If the ranks' parts of the batch differ in size, give each its weight with [`step_weighted`](crate::StepExt::step_weighted).
///
/// The first step gives all ranks the parameters of rank 0. The gradients of that step were computed earlier, so call
/// [`broadcast`](Self::broadcast) first if ranks do not start from the same parameters.
///
/// Elements are split into N ranges of nearly equal length, cut only at multiples of 256 within a tensor. The inner optimizer sees the
/// local part of each tensor, flattened if it is not the whole tensor. Element-wise optimizers therefore compute the same as without
/// sharding. Patterns match the paths and shapes of whole tensors. [`by_tensor`](Self::by_tensor) gives each rank whole tensors
/// instead, for matrix optimizers.
///
/// # Hyper-parameters
/// | name | default | meaning |
/// |---|---|---|
/// | [`by_tensor`](Self::by_tensor) | no | whole tensors: the largest first, each to the rank with the fewest elements |
/// | [`non_finite`](Self::non_finite) | error | policy of all ranks for a NaN or an infinity in the gradients of one rank |
///
/// # State
/// The state of the optimizer inside, for at most 1/N of all elements (trained or frozen) plus a block of 256. Buffers for one copy of
/// all gradients or parameters, and for a share of both. A step sends as many bytes as an all-reduce of the gradients, half of them as
/// parameters, and three messages of 9 bytes; each norm inside needs two more messages. Each rank also sends one number that says
/// whether its optimizer has stepped.
///
/// A rank's [`state_dict`](Optimizer::state_dict) contains the entries of its share and needs no communication. [`unshard`] joins the
/// states of all ranks. A rank can load its own state, or its part of a joined state. A checkpoint of 4 ranks can therefore be resumed
/// on 4, 2 or 1.
///
/// # Conventions
/// Results agree bit for bit with one process that uses the mean gradient, summed in the order of the ranks as
/// [`ThreadGroup`](super::ThreadGroup) does. With state of 16 or 8 bits this holds for row-major parameters. A global norm is the norm of
/// the whole mean gradient, but it is summed in another order.
///
/// Adaptors inside see the mean gradient and the local share; adaptors outside see the rank's own gradient and all parameters:
///
/// | | inside, before `sharded` | outside, after it |
/// |---|---|---|
/// | clipping by global norm, by value | of the mean gradient: **what you want** | of each rank's own |
/// | clipping by tensor or unit, `centralize` | only with [`by_tensor`](Self::by_tensor) | of each rank's own |
/// | [`project`](crate::OptimizerExt::project) | bounds; other sets with [`by_tensor`](Self::by_tensor) | all sets, of whole tensors on every rank |
/// | `accumulate` | communicates in every call | communicates once per combined step |
/// | averages, `lookahead` | sharded; read them after [`unshard`] | whole on every rank |
/// | `freeze`, `group`, `route` | as without ranks | `freeze` and `group`: as without ranks |
/// | [`Lars`](crate::Lars), [`Mars`](crate::Mars), [`NovoGrad`](crate::NovoGrad) | with [`by_tensor`](Self::by_tensor) | – |
/// | [`Muon`](crate::Muon) and its family, `qk_clip`, Shampoo, SOAP, PSGD Kron, GaLore, [`Apollo`](crate::Apollo) | with [`by_tensor`](Self::by_tensor) | – |
/// | [`Adafactor`](crate::Adafactor), [`AdamMini`](crate::AdamMini), [`Came`](crate::Came), [`Sm3`](crate::Sm3) | with [`by_tensor`](Self::by_tensor) | – |
/// | [`Sophia`](crate::Sophia), [`AdaHessian`](crate::AdaHessian) | with whole diagonals, the same on all ranks | – |
/// | `sam` | rejected | a perturbation per rank, without the policy `Skip` |
/// | K-FAC, [`Lbfgs`](crate::Lbfgs) | rejected | K-FAC: uses each rank's own batch |
/// | `data_parallel`, `local_steps`, `sharded` | rejected | `data_parallel`, `local_steps`: with the same group or another |
///
/// Averages and other adaptors outside that store parameters store those before the first broadcast, so call
/// [`broadcast`](Self::broadcast) first.
///
/// [`check`](Optimizer::check) never communicates. It does not know the mean gradient or whether other ranks can step, so it may accept a
/// step that is rejected later. Write `route` inside, because a router relies on `check`. If an adaptor outside rejects a step on one rank, all
/// ranks return an error.
///
/// # Errors
/// All ranks return an error, and nothing has changed on any of them:
/// - [`RankError::RanksDisagree`](crate::error::RankError::RanksDisagree) if the ranks' steps differ;
/// - [`StepError::NonFiniteGradient`](crate::error::StepError::NonFiniteGradient), or another reason to reject the step, on the rank that has it, and [`RankError::RankRefused`](crate::error::RankError::RankRefused) on the others;
/// - [`RankError::InsideSharded`](crate::error::RankError::InsideSharded) if `sharded`, `data_parallel` or `local_steps` is inside, `local_steps` even without `across`;
/// - [`RankError::RankLeft`](crate::error::RankError::RankLeft), [`RankError::RankTimeout`](crate::error::RankError::RankTimeout), [`RankError::Transport`](crate::error::RankError::Transport) from the group.
///
/// In two cases the parameters are unchanged but the state has changed: if the group fails in the last call, after the optimizers have
/// stepped; or if your own optimizer inside returns an error from [`apply`](Optimizer::apply) for a step that its
/// [`check`](Optimizer::check) accepted, on some ranks only. All later steps are then rejected, and the state cannot be loaded.
///
/// If all ranks skip the first step, it leaves no trace; the next step is again the first.
///
/// # Example
/// ```
/// use gradus::{distributed::ThreadGroup, prelude::*};
/// use ndarray::array;
///
/// let ends = ThreadGroup::run(2, |group| {
///     let grads = if gradus::distributed::RankGroup::rank(&group) == 0 { array![3.0, 0.0] } else { array![3.0, 8.0] };
///     let (mut opt, mut w) = (Sgd::new(1.0).clip_global_norm(2.5).exact(true).sharded(group), array![0.0, 0.0]);
///     opt.step(&mut w, &grads).map(|report| (w, report.grad_norm)) // the mean gradient is (3, 4)
/// });
/// assert!(ends.into_iter().all(|end| end == Ok((array![-1.5, -2.0], Some(5.0)))));
/// ```
///
/// # References
/// S. Rajbhandari, J. Rasley, O. Ruwase and Y. He, *ZeRO: Memory Optimizations Toward Training Trillion Parameter Models* (2020),
/// [arXiv:1910.02054](https://arxiv.org/abs/1910.02054), section 5.1 (P_os).
#[doc(alias("ZeroRedundancyOptimizer", "ZeRO"))]
#[must_use = "an optimizer moves nothing until `step` is called"]
#[derive(Debug, Clone)]
pub struct Sharded<O, G, A> {
    inner: O,
    peers: Peers<G>,
    how: How,
    non_finite: NonFinite,
    shard: Option<Arc<Shard>>,
    buffers: Buffers<A>,
    /// Whether all ranks have the parameters of rank 0.
    broadcast: bool,
    fingerprint: Fingerprint,
    /// Why the parameters are a step behind the state.
    torn: Option<Error>,
}

around!(Sharded<O, G, A>);

impl<O, G, A> Sharded<O, G, A> {
    pub(crate) fn new(inner: O, group: G) -> Self {
        Self {
            inner,
            peers: Peers::new(group),
            how: How::ByElements,
            non_finite: NonFinite::Error,
            shard: None,
            buffers: Buffers::default(),
            broadcast: false,
            fingerprint: Fingerprint::default(),
            torn: None,
        }
    }

    /// Gives each rank whole tensors: for matrix optimizers, and for clipping by tensor or unit. Call it before the first step.
    pub fn by_tensor(mut self) -> Self {
        self.how = How::ByTensor;
        self.shard = None;
        self
    }

    /// Sets the policy of all ranks for a NaN or an infinity in the gradient of one of them, or in the mean; the default is an error.
    pub fn non_finite(mut self, policy: NonFinite) -> Self {
        self.non_finite = policy;
        self
    }

    /// The group of ranks.
    pub fn ranks(&self) -> &G {
        self.peers.group()
    }

    /// This rank's shard of such parameters.
    fn shard(&self, layout: &Arc<Layout>) -> Arc<Shard>
    where
        G: RankGroup,
    {
        self.shard.clone().unwrap_or_else(|| Arc::new(Shard::new(layout, self.peers.group(), self.how)))
    }

    /// Returns an error unless a step may be taken on parameters of this layout.
    fn ensure_ready(&self, layout: &Arc<Layout>) -> Result<()> {
        if let Some(torn) = &self.torn {
            return Err(torn.clone());
        }
        Layout::ensure_known(self.shard.as_ref().map(|shard| shard.cut.whole()), layout)
    }
}

impl<A: Element, O: Optimizer<A>, G: Collective<A>> Sharded<O, G, A> {
    /// Gives all ranks the parameters of rank 0. Every rank must call it. If ranks do not start from the same parameters, call it before
    /// the first gradients are computed; otherwise the first step does it.
    ///
    /// # Errors
    /// [`RankError::RanksDisagree`](crate::error::RankError::RanksDisagree) if the ranks' trees differ, [`StepError::ParametersChanged`](crate::error::StepError::ParametersChanged), and those of the group. The parameters are then
    /// unchanged.
    pub fn broadcast(&mut self, params: &mut dyn ParamsMut<Elem = A>) -> Result<()> {
        let bucket = bucket_elements::<A>(BUCKET_BYTES);
        self.peers.broadcast(params, self.layout(), bucket, |step| self.ensure_ready(step.layout()))?;
        self.broadcast = true;
        Ok(())
    }

    fn check_own(&self, step: &Step<'_, A>) -> Result<()> {
        self.peers.ensure_reached(step, "sharded")?;
        let instead = "use `data_parallel`, or pass a dense gradient";
        step.grads().try_for_each(|(info, grad)| grad.ensure_dense(info, "sharded", instead))?;
        self.ensure_ready(step.layout())
    }

    /// What the optimizer inside sees of a step.
    fn extent(&self) -> Extent {
        if self.how == How::ByElements && !self.peers.are_none() { Extent::Elements } else { Extent::Tensors }
    }

    /// What this rank makes of a step, with its gradients in the buffer.
    fn prepare(&mut self, shard: &Shard, step: &Step<'_, A>) -> Result<Vote> {
        step.ensure_writable()?;
        self.check_own(step)?;
        if self.shard.is_none() {
            self.buffers = Buffers::default(); // an earlier step that was refused may have been on other parameters
        }
        self.buffers.fit(self.peers.group().size(), shard.cut.part());
        shard.pack_grads(step, &mut self.buffers.all);
        let skips = skips(self.non_finite, || non_finite_of(&self.buffers.all, step))?;
        Ok(Vote { skips, batch: step.batch(), about: self.peers.tell(|| self.describe(step)) })
    }

    /// All that must be the same on all ranks.
    fn describe(&self, step: &Step<'_, A>) -> Vec<String> {
        let begins = if self.broadcast { "" } else { ", the first with these parameters" };
        let mut lines = vec![
            format!("step number {}{begins}{}", self.inner.steps(), end(step)),
            format!("the learning rate {}", self.inner.learning_rate()),
            format!("shares of {}, non_finite {:?}", self.how, self.non_finite),
        ];
        lines.extend(describe_grads(step));
        if step.len() < step.layout().len() {
            // What is not in the step has its place in the shares.
            let shape = |info: &TensorInfo| format!("shares of {} of shape {:?}", Name(info.path()), info.shape());
            lines.extend(step.layout().tensors().iter().map(shape));
        }
        lines
    }
}

/// The error of the first gradient of a step that is not finite, where they are packed, too.
fn non_finite_of<A: Element>(packed: &[A], step: &Step<'_, A>) -> Option<Error> {
    if norm::finite(packed) { None } else { Some(norm::non_finite(&step.grads().collect::<Vec<_>>())) }
}

impl<A: Element, O: Optimizer<A>, G: Collective<A>> Optimizer<A> for Sharded<O, G, A> {
    // A rank that refused here alone would leave the others waiting. So this checks only what is the same on all ranks: the layout, and
    // the step of the optimizer inside with gradients of 0. Before the first step, this rank's parameters stand for those of rank 0.
    fn check(&self, step: &Step<'_, A>) -> Result<()> {
        step.note_whole(|| Note::Part(format!("sharded({} ranks)", self.peers.group().size())));
        self.check_own(step)?;
        // One rank alone knows whether all gradients are finite.
        if self.peers.are_none() && skips(self.non_finite, || non_finite(step))? {
            step.note_whole(|| Note::Skipped);
            return Ok(());
        }
        let (shard, ahead) = (self.shard(step.layout()), ahead(step));
        let [mut params, grads] = [(); 2].map(|()| vec![A::zero(); shard.cut.part()]);
        shard.read_params(&ahead, &mut params);
        self.inner.check(&shard.step(&ahead, &mut params, &grads, Share { extent: self.extent(), ..Share::ALL }))
    }

    fn apply(&mut self, mut step: Step<'_, A>) -> Result<Report> {
        let shard = self.shard(step.layout());
        let own = self.prepare(&shard, &step);
        let skipped = Report::of_skipped(self.inner.learning_rate());
        let extent = self.extent();
        let begin = (!self.broadcast).then(|| bucket_elements::<A>(BUCKET_BYTES));
        let Some(joint) = self.peers.agree(own)? else { return Ok(skipped) };
        let Self { inner, non_finite: policy, buffers, torn, .. } = self;
        joint.weigh(&mut step, &mut buffers.all);
        buffers.reduce(joint.group())?;
        // The sum of finite gradients need not be finite. All know before anybody asks for a norm of them.
        let share = Share { extent, ..Share::ALL };
        let Buffers { grads, params, .. } = &mut *buffers;
        let own = skips(*policy, || non_finite_of(grads, &shard.step(&step, params, grads, share)));
        if !joint.confirm(own.map(|skips| Vote { skips, ..Vote::default() }))? {
            return Ok(skipped);
        }
        let report = joint.take(&mut step, begin, |joint, step| {
            shard.read_params(step, &mut buffers.params);
            let across = Across::new(joint.group());
            let own = shard.step(
                step,
                &mut buffers.params,
                &buffers.grads,
                Share { extent, larger: Some(&across), ..Share::ALL },
            );
            let accepted = inner.check(&own);
            across.ensure_sound()?;
            joint.confirm(accepted.map(|()| Vote::default()))?;
            // Whether an optimizer inside moves a tensor does not depend on which part of it a rank has.
            let watched = step.iter().map(|(_, tensor)| !tensor.followers.is_empty() || !tensor.projections.is_empty());
            let moved = own.watched(watched, |own| inner.apply(own));
            across.ensure_sound()?;
            let refusals = buffers.gather(joint.group(), moved.is_ok());
            let end = match refusals {
                // Those that have not stepped say why.
                Ok(1..) => joint.confirm(moved.clone().map(|_| Vote::default())).map(drop),
                _ => refusals.clone().map(drop),
            };
            let (report, moved) = end.and(moved).inspect_err(|error| {
                // Where no rank has stepped nothing has changed.
                *torn = (refusals.unwrap_or(0) < joint.group().size()).then(|| error.clone());
            })?;
            for ((info, tensor), moved) in step.iter_mut().zip(moved) {
                shard.unpack_params(info, tensor, &buffers.all);
                if moved {
                    tensor.let_follow(info);
                }
            }
            Ok(report)
        })?;
        self.fingerprint = Fingerprint::of(&self.buffers.all);
        (self.shard, self.broadcast) = (Some(shard), true);
        Ok(report)
    }

    fn conclude(&mut self, result: Result<Report>) -> Result<Report> {
        let result = self.peers.conclude(result, true);
        self.inner.conclude(result)
    }

    count_inner!(joins);

    fn layout(&self) -> Option<&Arc<Layout>> {
        self.shard.as_ref().map(|shard| shard.cut.whole())
    }

    fn write_state(&self, state: &mut StateWriter<'_>) {
        let mut node = state.node(state::NODE);
        node.refuse_resizing("resize the joined state of all ranks, in an optimizer without `sharded`");
        node.value(state::RANKS, self.peers.group().size());
        node.value(state::RANK, self.peers.group().rank());
        node.value(state::CUT, self.how);
        match &self.torn {
            None => node.value(state::PARAMETERS, self.fingerprint),
            Some(_) => node.value(state::PARAMETERS, state::TORN),
        }
        self.inner.write_state(state);
    }

    /// Reads what this rank wrote, or a state that is not divided.
    fn read_state<'s>(&'s mut self, state: &mut StateReader<'_>) -> Result<Commit<'s>> {
        let whole = state.layout().cloned();
        let group = self.peers.group();
        let read_shard = whole.map(|whole| Arc::new(Shard::new(&whole, group, self.how)));
        let (dict, read_fingerprint) = match (state.has_node(state::NODE), &read_shard) {
            (true, _) => {
                // A tensor's place decides which ranks have it.
                if let (Some(saved), Some(now)) = (state.dict().layout(), state.layout()) {
                    saved.ensure_same(now)?;
                }
                let node = state.node(state::NODE)?;
                let (size, own) = (group.size(), group.rank());
                let accepted =
                    "the number of ranks there are now; unshard joins the states of all ranks for another number";
                node.value_where(state::RANKS, accepted, |ranks: &usize| *ranks == size)?;
                node.value_where(state::RANK, "this rank", |rank: &usize| *rank == own)?;
                node.value_where(state::CUT, "how this optimizer is sharded", |how: &How| *how == self.how)?;
                let accepted = "a fingerprint of parameters that have taken the same steps";
                (Cow::Borrowed(state.dict()), node.value(state::PARAMETERS, accepted)?)
            }
            (false, Some(shard)) => (Cow::Owned(split(state.dict(), &shard.cut, shard.rank)?), Fingerprint::default()),
            (false, None) => (Cow::Borrowed(state.dict()), Fingerprint::default()),
        };
        let Self { inner, shard, buffers, broadcast, fingerprint, torn, .. } = self;
        let layout = read_shard.as_ref().map(|shard| Arc::clone(&shard.layout));
        let commit = state.with(&dict, layout.as_ref(), |reader| inner.read_state(reader))?;
        Ok(commit.and(Commit::new(move || {
            (*shard, *broadcast, *fingerprint, *torn) = (read_shard, false, read_fingerprint, None);
            *buffers = Buffers::default();
        })))
    }
}
