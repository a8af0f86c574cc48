//! Local SGD and DiLoCo: ranks train alone and average their changes every few steps.

mod round;

use std::fmt::{self, Write};
use std::sync::Arc;

use crate::adaptor::{around, count_inner};
use crate::distributed::agreement::{Word, refuse};
use crate::distributed::ahead::{ahead, ahead_for_all};
use crate::distributed::beginning::{Beginning, broadcast};
use crate::distributed::description::{agree_about, describe_tensors, describe_values};
use crate::distributed::group::{Alone, Collective};
use crate::distributed::packed;
use crate::distributed::traffic::{BUCKET_BYTES, Traffic, bucket_elements};
use crate::error::{Result, ensure_count};
use crate::params::{Element, Layout, Order, Owned, Params, ParamsMut, TensorInfo};
use crate::state::{Commit, StateReader, StateWriter};
use crate::step::{Follower, Optimizer, Report, Step};

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
    group: G,
    every: u64,
    /// Since the last round.
    taken: u64,
    /// The layout, once all ranks have begun with the same parameters.
    layout: Option<Arc<Layout>>,
    /// Row-major; empty for tensors that no step has held.
    anchors: Vec<Owned<A>>,
    /// Which tensors the optimizer inside has moved since they took part in a round.
    moved: Vec<bool>,
    /// Δ, packed.
    change: Vec<A>,
    traffic: Traffic,
}

around!(LocalSteps<O, U, G, A>);

impl<O, U, A> LocalSteps<O, U, Alone, A> {
    pub(crate) fn new(inner: O, every: u64, outer: U) -> Self {
        Self {
            inner,
            outer,
            group: Alone,
            every,
            taken: 0,
            layout: None,
            anchors: Vec::new(),
            moved: Vec::new(),
            change: Vec::new(),
            traffic: Traffic::default(),
        }
    }

    /// Averages over the ranks of a group. If steps have been taken or a state has been loaded before, training starts over with the
    /// parameters of rank 0 and a full round.
    pub fn across<G: Collective<A>>(self, group: G) -> LocalSteps<O, U, G, A> {
        let Self { inner, outer, every, change, traffic, .. } = self;
        let (anchors, moved) = (Vec::new(), Vec::new());
        LocalSteps { inner, outer, group, every, taken: 0, layout: None, anchors, moved, change, traffic }
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
        &self.group
    }

    /// The bytes that this rank has passed to the group at the end of rounds.
    pub fn traffic(&self) -> Traffic {
        self.traffic
    }

    /// Whether the next step ends with a round.
    fn is_round(&self) -> bool {
        self.taken + 1 >= self.every
    }

    /// Whether the next step speaks to the others.
    fn meets(&self) -> bool {
        self.layout.is_none() || self.is_round()
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
        let known = broadcast(&self.group, params, self.layout(), bucket, |step| self.check_own(step))?;
        self.layout = Some(known);
        (self.taken, self.anchors, self.moved) = (0, Vec::new(), Vec::new());
        Ok(())
    }

    fn check_own(&self, step: &Step<'_, A>) -> Result<()> {
        step.ensure_outermost("local_steps")?;
        ensure_count("every", self.every)?;
        Layout::ensure_known(self.layout.as_ref(), step.layout())
    }

    /// Whether both optimizers would take this step.
    fn check_all(&self, step: &Step<'_, A>) -> Result<()> {
        self.check_own(step)?;
        self.inner.check(step)?;
        if self.is_round() { self.outer.check(&ahead_for_all(step)) } else { Ok(()) }
    }

    /// All that must be the same on all ranks.
    fn describe(&self, step: &Step<'_, A>, text: &mut dyn Write) -> fmt::Result {
        let begins = if self.layout.is_none() { ", the first with this group" } else { "" };
        writeln!(text, "step {} of {} to round {}{begins}", self.taken + 1, self.every, self.outer.steps())?;
        writeln!(text, "the learning rate {}, outside {}", self.inner.learning_rate(), self.outer.learning_rate())?;
        describe_tensors(step, text, |tensor| if tensor.frozen { "frozen" } else { "to move" })?;
        step.iter().try_for_each(|(info, tensor)| match self.anchors.get(tensor.index()) {
            Some(anchor) if !anchor.is_empty() => describe_values("an anchor", info, &anchor.as_values(), text),
            _ => Ok(()),
        })
    }

    /// The anchors begin as the parameters. Returns which ones do so now, to be forgotten if the step is refused.
    fn anchor(&mut self, step: &Step<'_, A>) -> Vec<usize> {
        self.anchors.resize_with(step.layout().len(), Owned::default);
        let mut new = Vec::new();
        for (info, tensor) in step.iter() {
            let anchor = &mut self.anchors[tensor.index()];
            if anchor.is_empty() {
                *anchor = Owned::zeros(info.elements(), Order::C, 0);
                packed::read(tensor.param(), info, anchor.as_mut_slice());
                new.push(tensor.index());
            }
        }
        new
    }

    /// Forgets these anchors.
    fn forget(&mut self, new: &[usize]) {
        new.iter().for_each(|tensor| self.anchors[*tensor] = Owned::default());
    }

    /// The step of the optimizer inside, perhaps with what follows the parameters. On an error nothing has changed.
    fn step_inside(&mut self, step: &mut Step<'_, A>, with_followers: bool) -> Result<Report> {
        let (layout, ranks) = (Arc::clone(step.layout()), step.ranks());
        self.moved.resize(layout.len(), false);
        // What is known to have moved need not be watched.
        let watched = step.iter().map(|(_, tensor)| !self.moved[tensor.index()]);
        let mut watches: Vec<_> = watched.map(|watched| watched.then(Follower::watch)).collect();
        let tensors = step.iter_mut().zip(&mut watches).map(|((_, tensor), watch)| {
            let mut tensor = if with_followers { tensor.lend() } else { tensor.reborrow() };
            tensor.followers.extend(watch.as_mut().map(Follower::lend));
            tensor
        });
        let tensors = tensors.collect();
        let report = self.inner.apply(Step::from_parts(layout, tensors, ranks))?;
        for ((info, tensor), watch) in step.iter().zip(&watches) {
            // A tensor without elements has nothing to bring to a round.
            let moved = watch.as_ref().is_some_and(Follower::has_followed) && info.elements() > 0;
            self.moved[tensor.index()] |= moved;
        }
        Ok(report)
    }
}

/// Where a state says whether a tensor has moved since it took part in a round.
fn moved_key(info: &TensorInfo) -> String {
    format!("moved/{}", info.path())
}

impl<A: Element, O: Optimizer<A>, U: Optimizer<A>, G: Collective<A>> Optimizer<A> for LocalSteps<O, U, G, A> {
    /// Whether `apply` would accept this step, but before a round and the first for what only one rank knows, its gradients: an `accumulate`
    /// around this one that returned on one rank only would leave the others waiting.
    fn check(&self, step: &Step<'_, A>) -> Result<()> {
        if self.meets() && self.group.size() > 1 { self.check_all(&ahead(step)) } else { self.check_all(step) }
    }

    fn apply(&mut self, mut step: Step<'_, A>) -> Result<Report> {
        let (first, round) = (self.layout.is_none(), self.is_round());
        if !self.meets() {
            step.ensure_writable()?;
            self.check_all(&step)?;
            let new = self.anchor(&step);
            let report = self.step_inside(&mut step, true).inspect_err(|_| self.forget(&new))?;
            self.taken += 1;
            return Ok(report);
        }
        let own = step.ensure_writable().and_then(|()| self.check_all(&step)).map(|()| Word::Go);
        agree_about(&self.group, own, |text| self.describe(&step, text))?;
        let beginning = match first {
            true => Some(Beginning::receive(&self.group, &mut step, bucket_elements::<A>(BUCKET_BYTES))?),
            false => None,
        };
        let new = self.anchor(&step);
        let layout = Arc::clone(step.layout());
        let result = match round {
            true => self.round(&mut step),
            false => self.step_inside(&mut step, true),
        };
        if result.is_err() {
            self.forget(&new);
        }
        if let Some(beginning) = beginning {
            beginning.settle(&mut step, result.is_ok());
        }
        let report = result?;
        self.layout.get_or_insert(layout);
        self.taken = if round { 0 } else { self.taken + 1 };
        Ok(report)
    }

    fn step(&mut self, params: &mut dyn ParamsMut<Elem = A>, grads: &dyn Params<Elem = A>) -> Result<Report> {
        match Step::pair_known(params, grads, self.layout()) {
            Ok(step) => self.apply(step),
            Err(error) if self.meets() => Err(refuse(&self.group, error)),
            Err(error) => Err(error),
        }
    }

    count_inner!();

    fn layout(&self) -> Option<&Arc<Layout>> {
        self.layout.as_ref().or(self.inner.layout())
    }

    fn write_state(&self, state: &mut StateWriter<'_>) {
        let mut node = state.node("local_steps");
        node.value("taken", self.taken);
        Owned::write_all(&self.anchors, self.layout.as_deref(), &mut node, "anchor");
        let infos = self.layout.iter().flat_map(|layout| layout.tensors());
        for ((info, anchor), moved) in infos.zip(&self.anchors).zip(&self.moved) {
            if !anchor.is_empty() {
                node.value(&moved_key(info), moved);
            }
        }
        self.outer.write_state(&mut node);
        self.inner.write_state(state);
    }

    fn read_state<'s>(&'s mut self, state: &mut StateReader<'_>) -> Result<Commit<'s>> {
        let mut node = state.node("local_steps")?;
        let room = |taken: &u64| *taken == 0 || *taken < self.every;
        let count = node.value_where("taken", "less than the steps between rounds", room)?;
        let (read, known) = (Owned::read_all(&node, "anchor")?, node.layout().cloned());
        let mut read_moved = vec![false; read.len()];
        for ((info, anchor), moved) in node.tensors().iter().zip(&read).zip(&mut read_moved) {
            if !anchor.is_empty() {
                *moved = node.value(&moved_key(info), "true or false")?;
            }
        }
        let Self { inner, outer, taken, layout, anchors, moved, .. } = self;
        // Saved before the first step, inside `accumulate` between micro-batches: nobody has begun.
        let known = known.filter(|_| read.iter().any(|anchor| !anchor.is_empty()));
        let own = Commit::new(move || (*taken, *layout, *anchors, *moved) = (count, known, read, read_moved));
        Ok(inner.read_state(state)?.and(outer.read_state(&mut node)?).and(own))
    }
}

impl<O: fmt::Debug, U: fmt::Debug, G: fmt::Debug, A> fmt::Debug for LocalSteps<O, U, G, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalSteps")
            .field("inner", &self.inner)
            .field("outer", &self.outer)
            .field("group", &self.group)
            .field("every", &self.every)
            .field("taken", &self.taken)
            .finish_non_exhaustive()
    }
}
