//! The state of an optimizer divided between ranks: ZeRO, stage 1.

mod across;
mod cut;
mod share;
mod state;

use std::borrow::Cow;
use std::fmt::{self, Write};
use std::sync::Arc;

use super::agreement::{Word, agree, refuse};
use super::ahead::{ahead, are_finite};
use super::beginning::broadcast;
use super::description::{agree_about, describe_grads};
use super::group::{Collective, Group};
use super::packed;
use super::traffic::{BUCKET_BYTES, bucket_elements};
use crate::adaptor::{NonFinite, Verdict, around, count_inner, skipped};
use crate::error::{Error, Name, Result};
use crate::params::{Element, Layout, Params, ParamsMut};
use crate::state::{Commit, StateReader, StateWriter};
use crate::step::follower::{Follower, follow};
use crate::step::{Optimizer, Report, Step};

use across::{Across, Apart};
use cut::How;
use share::{Buffers, Share};
use state::{Fingerprint, split};

pub use state::unshard;

/// Shares an optimizer's state and work between the ranks of a group: made by [`Optimizer::sharded`].
///
/// Every rank has all parameters and the gradients of its own part of the batch. Each moves its share of the parameters, keeps
/// state for that share only, and sends it to the others.
///
/// # Update rule
/// ```text
/// all ranks check their gradients and agree on the step
/// gᵢ ← (gᵢ of rank 0 + … + gᵢ of rank N − 1)/N     for the elements i of this rank's share: reduce-scatter
/// θᵢ, state ← the step of the optimizer inside     for these
/// θ ← the shares of all ranks                      all-gather: the same bits on every rank
/// ```
/// With the first step all ranks take over the parameters of rank 0. That step's gradients have been computed before, so begin
/// with [`broadcast`](Self::broadcast) where ranks do not initialise alike.
///
/// The elements of all tensors, row by row, are divided into ranges of equal length up to a block of 256 elements; no range
/// begins within a block of its tensor. The optimizer inside sees of every tensor the part that is here, as a vector where it is not all of
/// it: what works element by element does what it would do unsharded. Patterns choose by the paths and shapes of the whole.
/// [`by_tensor`](Self::by_tensor) gives whole tensors to the ranks instead, for optimizers of matrices.
///
/// # Hyper-parameters
/// | name | default | meaning |
/// |---|---|---|
/// | [`by_tensor`](Self::by_tensor) | no | whole tensors, the largest first, each to the rank that has least |
/// | [`non_finite`](Self::non_finite) | error | what all ranks do about a NaN or an infinity in the gradients of one |
///
/// # State
/// That of the optimizer inside for a share of at most 1/N of the tensors' elements, trained or frozen, and a block of 256. Buffers for all gradients or
/// parameters once, and for a share of both. A step sends as much as an all-reduce of the gradients does, half of it as parameters,
/// and three messages of 9 bytes; each norm that is asked for inside takes two more. With its parameters each rank sends one number more,
/// which says whether its optimizer has stepped.
///
/// A rank's [`state_dict`](Optimizer::state_dict) has the entries of its share; nothing is sent for it. [`unshard`] joins those of
/// all ranks. A rank loads its own again, or a state that is not divided, of which it takes its part: so a checkpoint of 4 ranks
/// resumes on 4, 2 or 1.
///
/// # Conventions
/// With one process that steps with the mean gradient (summed in the order of the ranks, as [`ThreadGroup`](super::ThreadGroup) sums)
/// results agree bit for bit, also with state of 16 or 8 bits where parameters lie in row-major order. A global norm is that of the
/// whole mean gradient; only its sum has another order.
///
/// What is inside sees the mean gradient and the share, what is outside the rank's own gradient and all parameters:
///
/// | | inside, before `sharded` | outside, after it |
/// |---|---|---|
/// | clipping by global norm, by value | of the mean gradient: **what you want** | of each rank's own |
/// | clipping by tensor or unit | refused, but with [`by_tensor`](Self::by_tensor) | of each rank's own |
/// | `accumulate` | communicates in every call | communicates once for each large step |
/// | averages, `lookahead` | divided; to be read after [`unshard`] | whole on every rank |
/// | `freeze`, `group`, `route` | as unsharded | freeze and group: as unsharded |
/// | [`Muon`](crate::Muon), Shampoo, SOAP | with [`by_tensor`](Self::by_tensor) | – |
/// | K-FAC, [`Lbfgs`](crate::Lbfgs) | refused | K-FAC: of each rank's own batch |
/// | `data_parallel`, `local_steps`, `sharded` | refused | the first two: over other groups of ranks, or their own |
///
/// An adaptor outside that remembers parameters, as averages do, remembers those before the first broadcast: call
/// [`broadcast`](Self::broadcast) first.
///
/// [`check`](Optimizer::check) never communicates: it knows neither what other ranks will say nor what the mean gradient and its norm will
/// be, on which the optimizer inside may refuse, and on many ranks an answer of one leaves the others waiting. A router belongs inside.
///
/// # Errors
/// All ranks return an error, and nothing has changed on any: [`Error::RanksDisagree`] if their steps are not the same;
/// [`Error::NonFiniteGradient`] on the rank that has it, or whatever else one refuses the step for, and
/// [`Error::RankRefused`] on the others; [`Error::RankLeft`] and its like if the group is broken. If it breaks in the last call, after the
/// optimizers have stepped, or if an optimizer of your own refuses to [`apply`](Optimizer::apply) what its [`check`](Optimizer::check)
/// accepted, and not on all ranks, then parameters are unchanged but state is not: all later steps are refused, and the state does not
/// load. [`Error::InsideSharded`] for what speaks to ranks itself: `sharded`, `data_parallel` and `local_steps`, the last also alone.
///
/// If all ranks skip the first step, nothing is remembered of it, not even which parameters it was on: the ranks have not yet begun.
///
/// # Example
/// ```
/// use gradus::{distributed::ThreadGroup, prelude::*};
/// use ndarray::array;
///
/// let ends = ThreadGroup::run(2, |group| {
///     let grads = if gradus::distributed::Group::rank(&group) == 0 { array![3.0, 0.0] } else { array![3.0, 8.0] };
///     let (mut opt, mut w) = (Sgd::new(1.0).clip_global_norm(2.5).exact(true).sharded(group), array![0.0, 0.0]);
///     opt.step(&mut w, &grads).map(|report| (w, report.grad_norm)) // the mean gradient is (3, 4)
/// });
/// assert!(ends.into_iter().all(|end| end == Ok((array![-1.5, -2.0], Some(5.0)))));
/// ```
///
/// # References
/// S. Rajbhandari, J. Rasley, O. Ruwase and Y. He, *ZeRO: Memory Optimizations Toward Training Trillion Parameter Models* (2020),
/// arXiv:1910.02054, section 5.1 (P_os).
#[derive(Debug, Clone)]
pub struct Sharded<O, G, A> {
    inner: O,
    group: G,
    how: How,
    non_finite: NonFinite,
    share: Option<Arc<Share>>,
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
            group,
            how: How::ByElements,
            non_finite: NonFinite::Error,
            share: None,
            buffers: Buffers::default(),
            broadcast: false,
            fingerprint: Fingerprint::default(),
            torn: None,
        }
    }

    /// Gives whole tensors to the ranks: for optimizers of matrices, and for clipping by tensor or unit. Before the first step.
    pub fn by_tensor(mut self) -> Self {
        self.how = How::ByTensor;
        self.share = None;
        self
    }

    /// What all ranks do when a gradient of one of them has a NaN or an infinity, or the mean gradient has: an error unless this is
    /// called.
    pub fn non_finite(mut self, policy: NonFinite) -> Self {
        self.non_finite = policy;
        self
    }

    /// The group of ranks.
    pub fn ranks(&self) -> &G {
        &self.group
    }

    /// This rank's share of such parameters.
    fn share(&self, layout: &Arc<Layout>) -> Arc<Share>
    where
        G: Group,
    {
        self.share.clone().unwrap_or_else(|| Arc::new(Share::new(layout, &self.group, self.how)))
    }

    /// Nothing if a step may be taken on parameters of this layout.
    fn ensure_ready(&self, layout: &Arc<Layout>) -> Result<()> {
        if let Some(torn) = &self.torn {
            return Err(torn.clone());
        }
        Layout::ensure_known(self.share.as_ref().map(|share| share.cut.whole()), layout)
    }
}

impl<A: Element, O: Optimizer<A>, G: Collective<A>> Sharded<O, G, A> {
    /// Gives all ranks the parameters of rank 0; all of them call it. Where ranks do not initialise alike, call it before the first
    /// gradients are computed. Without it the first step does it.
    ///
    /// # Errors
    /// [`Error::RanksDisagree`] if the trees are not the same, [`Error::ParametersChanged`], and those of the group; the parameters are then
    /// what they were.
    pub fn broadcast(&mut self, params: &mut dyn ParamsMut<Elem = A>) -> Result<()> {
        let bucket = bucket_elements::<A>(BUCKET_BYTES);
        broadcast(&self.group, params, self.layout(), bucket, |step| self.ensure_ready(step.layout()))?;
        self.broadcast = true;
        Ok(())
    }

    fn check_own(&self, step: &Step<'_, A>) -> Result<()> {
        step.ensure_outermost("sharded")?;
        self.ensure_ready(step.layout())
    }

    fn are_tensors_cut(&self) -> bool {
        self.how == How::ByElements && self.group.size() > 1
    }

    /// This rank's word on a step, with its gradients in the buffer.
    fn own_word(&mut self, share: &Share, step: &Step<'_, A>) -> Result<Word> {
        step.ensure_writable()?;
        self.check_own(step)?;
        if self.share.is_none() {
            self.buffers = Buffers::default(); // an earlier step that was refused may have been on other parameters
        }
        self.buffers.fit(self.group.size(), share.cut.part());
        share.pack_grads(step, &mut self.buffers.all);
        word(self.non_finite, packed::all_finite(&self.buffers.all), step)
    }

    /// All that must be the same on all ranks.
    fn describe(&self, step: &Step<'_, A>, text: &mut dyn Write) -> fmt::Result {
        let begins = if self.broadcast { "" } else { ", the first with these parameters" };
        writeln!(text, "step number {}{begins}", self.inner.steps())?;
        writeln!(text, "the learning rate {}", self.inner.learning_rate())?;
        writeln!(text, "shares of {}, non_finite {:?}", self.how, self.non_finite)?;
        describe_grads(step, text)?;
        if step.len() == step.layout().len() {
            return Ok(());
        }
        // What is not in the step has its place in the shares.
        let mut all = step.layout().tensors().iter();
        all.try_for_each(|info| writeln!(text, "shares of {} of shape {:?}", Name(info.path()), info.shape()))
    }

    /// The mean gradients and the parameters of this rank's share, into the buffers.
    fn exchange(&mut self, share: &Share, step: &Step<'_, A>) -> Result<()> {
        let Buffers { all, grads, params } = &mut self.buffers;
        self.group.reduce_scatter(all, grads)?;
        let ranks = A::from_f64(self.group.size() as f64);
        grads.iter_mut().for_each(|grad| *grad /= ranks);
        if self.broadcast {
            share.read_params(step, params);
        } else {
            share.pack_params(step, all);
            self.group.broadcast(all, 0)?;
            let part = params.len();
            params.copy_from_slice(&all[share.rank * part..][..part]);
        }
        Ok(())
    }
}

/// What a policy makes of a step, given whether its gradients are finite.
fn word<A: Element>(policy: NonFinite, finite: bool, step: &Step<'_, A>) -> Result<Word> {
    match policy.judge(finite, step)? {
        Verdict::Go => Ok(Word::Go),
        Verdict::Skip => Ok(Word::Skip),
    }
}

impl<A: Element, O: Optimizer<A>, G: Collective<A>> Optimizer<A> for Sharded<O, G, A> {
    /// Whether the parameters are those of the steps before, and whether the optimizer inside would accept a step of this rank's share.
    /// It says nothing of the gradients, which are taken as 0, nor of norms across ranks, and before the first step it takes this rank's
    /// parameters for those of rank 0: a rank that refused here alone would leave the others waiting.
    fn check(&self, step: &Step<'_, A>) -> Result<()> {
        self.check_own(step)?;
        // One rank alone knows whether all gradients are finite.
        if self.group.size() == 1 && word(self.non_finite, are_finite(step), step)? == Word::Skip {
            return Ok(());
        }
        let (share, ahead) = (self.share(step.layout()), ahead(step));
        let [mut params, grads] = [(); 2].map(|()| vec![A::zero(); share.cut.part()]);
        share.read_params(&ahead, &mut params);
        let apart = Apart { are_tensors_cut: self.are_tensors_cut() };
        self.inner.check(&share.step(&ahead, &mut params, &grads, &apart))
    }

    fn apply(&mut self, mut step: Step<'_, A>) -> Result<Report> {
        let share = self.share(step.layout());
        let own = self.own_word(&share, &step);
        if agree_about(&self.group, own, |text| self.describe(&step, text))? == Word::Skip {
            return Ok(skipped(self.inner.learning_rate(), None));
        }
        self.exchange(&share, &step)?;

        let are_tensors_cut = self.are_tensors_cut();
        let Self { inner, group, non_finite, buffers: Buffers { all, grads, params }, .. } = self;
        let across = Across::new(&*group, are_tensors_cut);
        let own = share.step(&step, params, grads, &across);
        // The sum of finite gradients need not be finite. All know before anybody asks for a norm of them.
        if agree(group, word(*non_finite, packed::all_finite(grads), &own), 0, Vec::new)? == Word::Skip {
            return Ok(skipped(inner.learning_rate(), None));
        }
        let accepted = inner.check(&own);
        across.ensure_sound()?;
        agree(group, accepted.map(|()| Word::Go), 0, Vec::new)?;
        // Whether an optimizer inside moves a tensor does not depend on which part of it a rank has.
        let watched = step.iter().map(|(_, tensor)| !tensor.followers.is_empty());
        let mut watches: Vec<_> = watched.map(|watched| watched.then(Follower::watch)).collect();
        let mut own = own;
        for ((_, tensor), watch) in own.iter_mut().zip(&mut watches) {
            tensor.followers.extend(watch.as_mut().map(Follower::lend));
        }
        let moved = inner.apply(own);
        let followed: Vec<_> = watches.iter().map(|watch| watch.as_ref().is_some_and(Follower::has_followed)).collect();
        drop(watches);
        across.ensure_sound()?;
        let part = params.len();
        params.iter_mut().skip(part - 1).for_each(|word| *word = if moved.is_ok() { A::zero() } else { A::one() });
        let gathered = group.all_gather(params, all);
        // What stands in the buffer after a call that failed is not this step's.
        let refusals = match gathered {
            Ok(()) => all.chunks(part).filter(|part| part.last() != Some(&A::zero())).count(),
            Err(_) => 0,
        };
        let end = match gathered {
            // Those that have not stepped say why.
            Ok(()) if refusals > 0 => agree(group, moved.clone().map(|_| Word::Go), 0, Vec::new).map(drop),
            gathered => gathered,
        };
        let report = match end.and(moved) {
            Ok(report) => report,
            Err(error) => {
                // Where no rank has stepped nothing has changed.
                self.torn = (refusals < group.size()).then(|| error.clone());
                return Err(error);
            }
        };
        self.fingerprint = Fingerprint::of(all);
        for ((info, tensor), followed) in step.iter_mut().zip(followed) {
            // Those of rank 0 may be others than this rank's, moved or not.
            let received = !self.broadcast && share.is_other(info, tensor, all);
            share.unpack_params(info, tensor, all);
            if received || followed {
                follow(&mut tensor.followers, &tensor.param.as_values(), info.shape());
            }
        }
        (self.share, self.broadcast) = (Some(share), true);
        Ok(report)
    }

    fn step(&mut self, params: &mut dyn ParamsMut<Elem = A>, grads: &dyn Params<Elem = A>) -> Result<Report> {
        let known = self.layout();
        let step = Step::pair(params, grads, known);
        match step.and_then(|step| Layout::ensure_known(known, step.layout()).map(|()| step)) {
            Ok(step) => self.apply(step),
            Err(error) => Err(refuse(&self.group, error)),
        }
    }

    count_inner!();

    fn layout(&self) -> Option<&Arc<Layout>> {
        self.share.as_ref().map(|share| share.cut.whole())
    }

    fn write_state(&self, state: &mut StateWriter<'_>) {
        let mut node = state.node(state::NODE);
        node.value(state::RANKS, self.group.size());
        node.value(state::RANK, self.group.rank());
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
        let read_share = whole.map(|whole| Arc::new(Share::new(&whole, &self.group, self.how)));
        let (dict, read_fingerprint) = match (state.has_node(state::NODE), &read_share) {
            (true, _) => {
                // A tensor's place decides which ranks have it.
                if let (Some(saved), Some(now)) = (state.dict().layout(), state.layout()) {
                    saved.ensure_same(now)?;
                }
                let node = state.node(state::NODE)?;
                let (size, own) = (self.group.size(), self.group.rank());
                let accepted =
                    "the number of ranks there are now; unshard joins the states of all ranks for another number";
                node.value_where(state::RANKS, accepted, |ranks: &usize| *ranks == size)?;
                node.value_where(state::RANK, "this rank", |rank: &usize| *rank == own)?;
                node.value_where(state::CUT, "how this optimizer is sharded", |how: &How| *how == self.how)?;
                let accepted = "a fingerprint of parameters that have taken the same steps";
                (Cow::Borrowed(state.dict()), node.value(state::PARAMETERS, accepted)?)
            }
            (false, Some(share)) => (Cow::Owned(split(state.dict(), &share.cut, share.rank)?), Fingerprint::default()),
            (false, None) => (Cow::Borrowed(state.dict()), Fingerprint::default()),
        };
        let Self { inner, share, buffers, broadcast, fingerprint, torn, .. } = self;
        let layout = read_share.as_ref().map(|share| Arc::clone(&share.layout));
        let commit = state.with(&dict, layout.as_ref(), |reader| inner.read_state(reader))?;
        Ok(commit.and(Commit::new(move || {
            (*share, *broadcast, *fingerprint, *torn) = (read_share, false, read_fingerprint, None);
            *buffers = Buffers::default();
        })))
    }
}
