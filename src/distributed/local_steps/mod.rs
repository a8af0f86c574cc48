//! Local SGD and DiLoCo: ranks train alone and average their changes every few steps.

mod round;

use std::fmt;
use std::sync::Arc;

use crate::adaptor::{Sam, around, count_inner};
use crate::distributed::group::{Alone, Collective};
use crate::distributed::joint::{Peers, Vote, ahead, describe_tensors, describe_values};
use crate::distributed::traffic::{BUCKET_BYTES, Traffic, bucket_elements};
use crate::error::{Result, ensure_count};
use crate::params::{Element, Layout, Owned, ParamsMut, TensorInfo};
use crate::state::{Commit, StateReader, StateWriter};
use crate::step::memo::Note;
use crate::step::{Adjust, Grad, Optimizer, PerTensor, Preview, Replaced, Report, Step, find};

/// Takes h steps on each rank alone, then one step of an outer optimizer along the mean change of all ranks: made by
/// [`OptimizerExt::local_steps`](crate::OptimizerExt::local_steps).
///
/// # Update rule
/// ```text
/// first step:   θ ← θ of rank 0,  φ ← θ                    φ: the anchor, the same on all ranks
/// every step:   θ ← the step of the optimizer inside
/// every h-th:   Δ ← the mean over ranks of φ − θ
///               φ ← the outer optimizer's step along Δ
///               θ ← φ
/// ```
/// Ranks communicate once in h steps; the step that communicates ends a *round*. With `Sgd::new(1.0)` as the outer optimizer, φ becomes
/// the mean of the parameters: local SGD. With `Nesterov::new(0.7, 0.9)` outside and AdamW inside, this is DiLoCo. Without
/// [`across`](Self::across) there is one rank, and the outer optimizer moves slow weights of a single run; with `Sgd::new(slow_step)`
/// that is [`lookahead`](crate::OptimizerExt::lookahead).
///
/// Every call that returns `Ok` counts as a step, even if an inner adaptor skipped it, so that ranks stay in sync. Write `accumulate`
/// outside: `.local_steps(50, outer).accumulate(4)`. If a call fails on one rank between two rounds, it does not count there, and the
/// other ranks wait at the end of the round until that rank has taken the missing step.
///
/// A tensor takes part in a round if the optimizer inside has moved it since the last round, on any rank, and no adaptor outside has
/// frozen it. Other tensors and their φ are unchanged. Tensors without a gradient may differ between ranks; frozen tensors must be the
/// same. Averages follow θ between rounds and φ at the end of a round. Each rank keeps the state of its own inner optimizer.
///
/// Averages, `lookahead` and other adaptors outside that store parameters store those before the first step gives all ranks the
/// parameters of rank 0. If ranks do not start from the same parameters, call [`broadcast`](Self::broadcast) first. Write `route`
/// inside. Write `master_weights` outside: θ and φ are then f32, and the 16-bit parameters follow them.
///
/// # Hyper-parameters
/// | name | default | range | meaning | unit |
/// |---|---|---|---|---|
/// | `every` h | – | ≥ 1 | steps per round; DiLoCo uses 500 | steps |
/// | `outer` | – | any | optimizer of the anchor; DiLoCo uses Nesterov with 0.7 and 0.9 | |
///
/// # State
/// φ and a buffer for Δ, two elements per parameter (8 bytes in f32), and the state of both optimizers. The saved state contains φ, the
/// number of steps since the last round, the tensors that moved in them, and the states of both optimizers. Each rank saves its own
/// state and parameters. While a round is being completed, copies of the parameters, φ and both states are kept, to restore them if it
/// fails.
///
/// # Conventions
/// DiLoCo's algorithm 1: Δ is "old minus new", so that the outer optimizer descends along it. PyTorch's `PostLocalSGDOptimizer` is
/// `Sgd::new(1.0)` outside.
///
/// # Errors
/// In the first step and at the end of a round, all ranks return the error and nothing has changed; the last step of the optimizer
/// inside is undone too.
/// - [`StepError::NonFiniteParameter`](crate::error::StepError::NonFiniteParameter) on a rank whose parameters are not finite after its last step, and [`RankError::RankRefused`](crate::error::RankError::RankRefused) on the
///   others. Any other reason of one rank is reported in the same way. The parameters may have been wrong for many steps, so reject bad
///   gradients early, with `check_finite` or `skip_nonfinite` inside;
/// - [`StepError::NonFiniteParameter`](crate::error::StepError::NonFiniteParameter) on all ranks if the mean change, or φ after the outer step, is not finite;
/// - [`StateError::EntryValue`](crate::error::StateError::EntryValue) on all ranks if the state of the outer optimizer is not finite;
/// - [`RankError::InsideSharded`](crate::error::RankError::InsideSharded) inside [`sharded`](crate::OptimizerExt::sharded);
/// - [`RankError::RanksDisagree`](crate::error::RankError::RanksDisagree) if the ranks differ in round, parameters, anchors or learning rates;
/// - [`RankError::RankLeft`](crate::error::RankError::RankLeft), [`RankError::RankTimeout`](crate::error::RankError::RankTimeout), [`RankError::Transport`](crate::error::RankError::Transport) from the group.
///
/// # Example
/// ```
/// use gradus::prelude::*;
/// use ndarray::array;
///
/// let mut opt = Sgd::new(1.0).local_steps(2, Sgd::new(0.5));
/// let mut w = array![0.0];
/// opt.step(&mut w, &array![1.0])?;
/// assert_eq!(w, array![-1.0]);
/// opt.step(&mut w, &array![1.0])?; // to −2; Δ = 2, of which the anchor goes half
/// assert_eq!(w, array![-1.0]);
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// # References
/// A. Douillard et al., *DiLoCo: Distributed Low-Communication Training of Language Models* (2023), [arXiv:2311.08105](https://arxiv.org/abs/2311.08105), algorithm 1;
/// S. U. Stich, *Local SGD Converges Fast and Communicates Little* (2018), [arXiv:1805.09767](https://arxiv.org/abs/1805.09767).
#[doc(alias = "PostLocalSGDOptimizer")]
#[doc(alias = "DiLoCo")]
#[doc(alias = "local SGD")]
#[must_use = "an optimizer moves nothing until `step` is called"]
pub struct LocalSteps<O, U, G, A> {
    inner: O,
    outer: U,
    peers: Peers<G>,
    every: u64,
    /// Since the last round.
    taken: u64,
    /// There is a layout once all ranks have begun with the same parameters.
    anchors: PerTensor<Anchor<A>>,
    /// Δ, packed.
    change: Vec<A>,
    traffic: Traffic,
}

/// What is kept for a tensor.
#[derive(Debug, Clone)]
struct Anchor<A> {
    /// φ, row-major.
    values: Owned<A>,
    /// Whether the optimizer inside has moved the tensor since it took part in a round.
    moved: bool,
}

around!(LocalSteps<O, U, G, A>);

impl<O, U, A> LocalSteps<O, U, Alone, A> {
    pub(crate) fn new(inner: O, every: u64, outer: U) -> Self {
        Self {
            inner,
            outer,
            peers: Peers::new(Alone),
            every,
            taken: 0,
            anchors: PerTensor::new(),
            change: Vec::new(),
            traffic: Traffic::default(),
        }
    }

    /// Averages over the ranks of a group. If steps have been taken or a state has been loaded before, training starts over with the
    /// parameters of rank 0 and a full round.
    pub fn across<G: Collective<A>>(self, group: G) -> LocalSteps<O, U, G, A> {
        let Self { inner, outer, every, change, traffic, .. } = self;
        let (peers, anchors) = (Peers::new(group), PerTensor::new());
        LocalSteps { inner, outer, peers, every, taken: 0, anchors, change, traffic }
    }
}

impl<O, U, G, A> LocalSteps<O, U, G, A> {
    /// The outer optimizer.
    pub fn outer(&self) -> &U {
        &self.outer
    }

    /// The outer optimizer, to be changed.
    pub fn outer_mut(&mut self) -> &mut U {
        &mut self.outer
    }

    /// The group of ranks.
    pub fn ranks(&self) -> &G {
        self.peers.group()
    }

    /// The bytes that this rank has passed to the group at the end of rounds.
    pub fn traffic(&self) -> Traffic {
        self.traffic
    }
}

impl<A: Element, O: Optimizer<A>, U: Optimizer<A>, G: Collective<A>> LocalSteps<O, U, G, A> {
    /// Gives all ranks the parameters of rank 0, so that the first gradients are computed from the same parameters. Every rank must
    /// call it. The next round then ends after `every` steps.
    ///
    /// # Errors
    /// [`RankError::RanksDisagree`](crate::error::RankError::RanksDisagree) if the ranks' parameters differ in shape, and those of the group. Nothing has changed then.
    pub fn broadcast(&mut self, params: &mut dyn ParamsMut<Elem = A>) -> Result<()> {
        let bucket = bucket_elements::<A>(BUCKET_BYTES);
        let known = self.peers.broadcast(params, self.layout(), bucket, |step| self.check_own(step))?;
        (self.taken, self.anchors) = (0, PerTensor::of(known));
        Ok(())
    }

    /// Whether this call is the ascent of a `sam` inside, which is not a step.
    fn ascends(&self) -> bool {
        find::<Sam<A>, A>(&self.inner).is_some_and(Sam::is_ascending)
    }

    /// Whether the next step ends with a round.
    fn is_round(&self) -> bool {
        self.taken + 1 >= self.every && !self.ascends()
    }

    /// Whether the next step speaks to the others.
    fn meets(&self) -> bool {
        self.anchors.layout().is_none() || self.is_round()
    }

    /// The number of steps in this round, after this call.
    fn taken_after(&self) -> u64 {
        if self.ascends() { self.taken } else { self.taken + 1 }
    }

    fn check_own(&self, step: &Step<'_, A>) -> Result<()> {
        self.peers.ensure_reached(step, "local_steps")?;
        ensure_count("every", self.every)?;
        self.anchors.ensure_known(step)
    }

    /// Whether both optimizers would take this step.
    fn check_all(&self, step: &Step<'_, A>) -> Result<()> {
        self.check_own(step)?;
        self.inner.check(step)?;
        if self.is_round() { self.outer.check(&ahead_outside(step)) } else { Ok(()) }
    }

    /// What this rank makes of a step.
    fn vote(&self, step: &Step<'_, A>) -> Result<Vote> {
        step.ensure_writable()?;
        self.check_all(step)?;
        Ok(Vote::about(self.peers.tell(|| self.describe(step))))
    }

    /// All that must be the same on all ranks.
    fn describe(&self, step: &Step<'_, A>) -> Vec<String> {
        let begins = if self.anchors.layout().is_none() { ", the first with this group" } else { "" };
        let mut lines = vec![
            format!("step {} of {} to round {}{begins}", self.taken + 1, self.every, self.outer.steps()),
            format!("the learning rate {}, outside {}", self.inner.learning_rate(), self.outer.learning_rate()),
        ];
        lines.extend(describe_tensors(step, |tensor| if tensor.frozen { "frozen" } else { "to move" }));
        lines.extend(step.iter().filter_map(|(info, tensor)| {
            let anchor = self.anchors.at(tensor.index()).filter(|_| info.elements() > 0)?;
            Some(describe_values("an anchor", info, &anchor.values.as_values()))
        }));
        lines
    }
}

/// The step of the outer optimizer, for which every tensor that is not frozen will have a gradient, and which no group outside speaks to.
fn ahead_outside<'s, A: Element>(step: &'s Step<'_, A>) -> Preview<'s, A> {
    let mut preview = step.preview();
    for (_, tensor) in preview.iter_mut() {
        tensor.grad = (!tensor.frozen).then(Grad::zero);
        (tensor.learning_rate, tensor.weight_decay) = (Adjust::default(), Adjust::default());
        tensor.replaced = Replaced::default();
    }
    preview
}

/// Where a state says whether a tensor has moved since it took part in a round.
fn moved_key(info: &TensorInfo) -> String {
    format!("moved/{}", info.path())
}

impl<A: Element, O: Optimizer<A>, U: Optimizer<A>, G: Collective<A>> Optimizer<A> for LocalSteps<O, U, G, A> {
    /// Whether `apply` would accept this step, but before a round and the first for what only one rank knows, its gradients: an `accumulate`
    /// around this one that returned on one rank only would leave the others waiting.
    fn check(&self, step: &Step<'_, A>) -> Result<()> {
        step.note_whole(|| Note::Part(format!("local_steps({})", self.every)));
        if self.meets() && !self.peers.are_none() { self.check_all(&ahead(step)) } else { self.check_all(step) }
    }

    fn apply(&mut self, mut step: Step<'_, A>) -> Result<Report> {
        let is_round = self.is_round();
        if !self.meets() {
            step.ensure_writable()?;
            self.check_own(&step)?;
            let taken = self.taken_after(); // after the step, the ascent is over
            let report = self.step_alone(&mut step)?;
            self.taken = taken;
            return Ok(report);
        }
        let (own, taken) = (self.vote(&step), self.taken_after());
        let begin = self.anchors.layout().is_none().then(|| bucket_elements::<A>(BUCKET_BYTES));
        let Some(joint) = self.peers.agree(own)? else { return Ok(Report::new(self.learning_rate(), false)) };
        let report = joint.take(&mut step, begin, |joint, step| match is_round {
            true => self.round(joint, step),
            false => self.step_alone(step),
        })?;
        self.taken = if is_round { 0 } else { taken };
        Ok(report)
    }

    fn conclude(&mut self, result: Result<Report>) -> Result<Report> {
        // An error has changed nothing, so these still are about the call that has failed.
        let mut result = self.peers.conclude(result, self.meets());
        if result.is_ok() || self.is_round() {
            result = self.outer.conclude(result);
        }
        self.inner.conclude(result)
    }

    count_inner!();

    fn layout(&self) -> Option<&Arc<Layout>> {
        self.anchors.layout().or(self.inner.layout())
    }

    fn write_state(&self, state: &mut StateWriter<'_>) {
        let mut node = state.node("local_steps");
        node.value("taken", self.taken);
        self.anchors.write_state(&mut node, |node, info, anchor| {
            if info.elements() > 0 {
                anchor.values.write_copy(node, "anchor", info);
                node.value(&moved_key(info), anchor.moved);
            }
        });
        self.outer.write_state(&mut node);
        self.inner.write_state(state);
    }

    fn read_state<'s>(&'s mut self, state: &mut StateReader<'_>) -> Result<Commit<'s>> {
        let mut node = state.node("local_steps")?;
        let room = |taken: &u64| *taken == 0 || *taken < self.every;
        let count = node.value_where("taken", "less than the steps between rounds", room)?;
        let mut read = PerTensor::read_state(&node, |info| {
            let Some(values) = Owned::read(&node, "anchor", info)? else { return Ok(None) };
            Ok(Some(Anchor { values, moved: node.value(&moved_key(info), "true or false")? }))
        })?;
        // Saved before the first step, inside `accumulate` between micro-batches: nobody has begun.
        if read.iter().next().is_none() {
            read = PerTensor::new();
        }
        let Self { inner, outer, taken, anchors, .. } = self;
        let own = Commit::new(move || (*taken, *anchors) = (count, read));
        Ok(inner.read_state(state)?.and(outer.read_state(&mut node)?).and(own))
    }
}

impl<O: fmt::Debug, U: fmt::Debug, G: fmt::Debug, A> fmt::Debug for LocalSteps<O, U, G, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalSteps")
            .field("inner", &self.inner)
            .field("outer", &self.outer)
            .field("group", self.peers.group())
            .field("every", &self.every)
            .field("taken", &self.taken)
            .finish_non_exhaustive()
    }
}
