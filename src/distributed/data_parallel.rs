//! Data-parallel training: every rank computes the gradient of its part of the batch, and all ranks take the same step.

use std::fmt;
use std::sync::Arc;

use super::compress::{Compression, Feedback};
use super::group::Collective;
use super::joint::{Peers, Vote, ahead, describe_grads, describe_values, end, non_finite, skips};
use super::packed::{self, Place};
use super::rows::{Exchange, has_rows};
use super::traffic::{BUCKET_BYTES, Traffic, bucket_elements};
use crate::adaptor::{NonFinite, around, count_inner};
use crate::error::{Error, Result, StepError, ensure_count};
use crate::params::{Element, Layout, ParamsMut};
use crate::state::{Commit, StateReader, StateWriter};
use crate::step::memo::Note;
use crate::step::share::{Extent, Share};
use crate::step::{Optimizer, Report, Step, Tensor, norm};

/// Moves the parameters of every rank along the mean gradient of all ranks: made by [`OptimizerExt::data_parallel`](crate::OptimizerExt::data_parallel).
///
/// # Update rule
/// ```text
/// first step:  θ ← θ of rank 0
/// g ← (g₀ + g₁ + … + gₙ₋₁)/n          gᵣ: the gradient of rank r, after the adaptors outside
/// θ ← the step of the optimizer inside along g
/// ```
/// If every rank has the mean gradient of an equal part of a batch, this is the step on the whole batch. If the parts differ in size, give
/// each its weight with [`step_weighted`](crate::StepExt::step_weighted); the mean is then (w₀g₀ + … + wₙ₋₁gₙ₋₁)/(w₀ + … + wₙ₋₁). Every
/// rank computes the same bits, so the parameters stay equal without being sent.
///
/// Gradients are packed tensor by tensor, in row-major order. Of gradients of [`Rows`](crate::Rows) the union of all ranks' rows is packed;
/// the ranks exchange their indices first. Gradients are sent in buckets of [`bucket_bytes`](Self::bucket_bytes), or
/// [compressed](Self::compress).
///
/// Before anything else is sent, the ranks exchange one short message. It establishes that every rank can take the step and that all
/// take the same one: same parameters, same step number and learning rate, same tensors with a gradient. It is an error if only some
/// ranks have a gradient for a tensor; pass zeros on the other ranks if that is the meaning.
///
/// # Hyper-parameters
/// | name | default | range | meaning | unit |
/// |---|---|---|---|---|
/// | `bucket_bytes` | 25 MiB | any | size of a message; at least one element | bytes |
/// | `verify_every` | never | ≥ 1 | number of steps between comparisons of all parameters | steps |
/// | `non_finite` | [`Error`](NonFinite::Error) | | policy of all ranks if the gradient of one rank, or the mean, is not finite | |
///
/// # State
/// A buffer of one element per parameter (4 bytes in f32), which is not saved; on one rank without compression there is none.
/// [Compression](Self::compress) adds two such buffers and the residuals. The residuals are saved; they differ between ranks, so every rank
/// must save its own file. Without compression the saved state is that of the optimizer inside and is the same on all ranks.
///
/// # Conventions
/// PyTorch's `DistributedDataParallel`: the mean over ranks, buckets of 25 MiB, parameters of rank 0 at the start. PyTorch sends the
/// parameters when a model is wrapped; here they are sent with the first step, whose gradients were computed from the rank's own
/// parameters. If ranks do not start from the same parameters, call [`broadcast`](Self::broadcast) before the loop.
///
/// Adaptors inside see the mean gradient; adaptors outside see the rank's own gradient:
///
/// | | inside, before `data_parallel` | outside, after it |
/// |---|---|---|
/// | clipping | of the mean gradient: **what you want** | of each rank's own |
/// | `check_finite` | of the mean | of each rank's own; an error on all ranks |
/// | `skip_nonfinite` | of the mean | leaves the other ranks waiting: use [`non_finite`](Self::non_finite) |
/// | `accumulate` | communicates in every call | communicates once per combined step |
/// | `sam` | ascends along the mean gradient | ascends along each rank's own gradient |
/// | averages, `lookahead` | the same on all ranks | the same if ranks start from the same parameters |
/// | `freeze`, `group` | as without ranks | as without ranks; must be the same on every rank |
/// | `route` | as without ranks | if another rank rejects the step, other branches have moved: write it inside |
/// | `master_weights` | – | sends the mean in f32 |
/// | K-FAC | rejected, because it would see only its own batch | uses each rank's own batch |
///
/// Averages, `lookahead` and other adaptors outside that store parameters store those before the first broadcast, so call
/// [`broadcast`](Self::broadcast) first. If an adaptor outside rejects a step on one rank, all ranks return an error. If it skips a step on
/// one rank only, the other ranks wait for that rank's next step, or until the timeout of their group.
///
/// Every rank computes the step itself. Element-wise optimizers give the same bits on any processor. Matrix optimizers (Muon, Shampoo,
/// SOAP, PSGD Kron) may round differently if ranks run on different processors: detect this with [`verify_every`](Self::verify_every), or use
/// [`sharded`](crate::OptimizerExt::sharded)`.by_tensor()`, which computes every tensor on one rank and sends the result.
///
/// # Errors
/// All ranks return an error, and parameters, state and residuals are unchanged on all of them:
/// - [`StepError::NonFiniteGradient`](crate::error::StepError::NonFiniteGradient) on the rank that has the gradient, and [`RankError::RankRefused`](crate::error::RankError::RankRefused) on the others. Any other reason of one
///   rank to reject the step is reported in the same way;
/// - [`RankError::RanksDisagree`](crate::error::RankError::RanksDisagree) if the ranks' steps differ;
/// - [`RankError::InsideSharded`](crate::error::RankError::InsideSharded) inside [`sharded`](crate::OptimizerExt::sharded);
/// - [`RankError::RankLeft`](crate::error::RankError::RankLeft), [`RankError::RankTimeout`](crate::error::RankError::RankTimeout), [`RankError::Transport`](crate::error::RankError::Transport) from the group.
///
/// If all ranks skip the first step, it leaves no trace; the next step is again the first.
///
/// Your own optimizer inside must make the same decision on all ranks in [`apply`](Optimizer::apply), where all ranks pass the same
/// gradients. If it returns an error there on one rank only, the other ranks have moved, and the next step is
/// [`RankError::RanksDisagree`](crate::error::RankError::RanksDisagree).
///
/// # Example
/// ```
/// use gradus::{distributed::ThreadGroup, prelude::*};
/// use ndarray::array;
///
/// let ends = ThreadGroup::run(2, |group| {
///     let grad = [1.0, 3.0][gradus::distributed::RankGroup::rank(&group)];
///     let mut opt = Sgd::new(1.0).data_parallel(group);
///     let mut w = array![0.0];
///     opt.step(&mut w, &array![grad]).map(|_| w)
/// });
/// assert!(ends.into_iter().all(|w| w == Ok(array![-2.0])));
/// ```
///
/// # References
/// S. Li et al., *PyTorch Distributed: Experiences on Accelerating Data Parallel Training* (2020), [arXiv:2006.15704](https://arxiv.org/abs/2006.15704).
#[doc(alias = "DistributedDataParallel")]
#[doc(alias = "DDP")]
#[doc(alias = "all_reduce")]
#[must_use = "an optimizer moves nothing until `step` is called"]
pub struct DataParallel<O, G, A> {
    inner: O,
    peers: Peers<G>,
    bucket_bytes: usize,
    verify_every: Option<u64>,
    non_finite: NonFinite,
    feedback: Option<Feedback<A>>,
    /// The layout, once all ranks have begun with the same parameters.
    layout: Option<Arc<Layout>>,
    /// Whether no step has been taken since a state was loaded.
    is_loaded: bool,
    packed: Vec<A>,
    traffic: Traffic,
}

around!(DataParallel<O, G, A>);

impl<O, G, A> DataParallel<O, G, A> {
    pub(crate) fn new(inner: O, group: G) -> Self {
        Self {
            inner,
            peers: Peers::new(group),
            bucket_bytes: BUCKET_BYTES,
            verify_every: None,
            non_finite: NonFinite::Error,
            feedback: None,
            layout: None,
            is_loaded: false,
            packed: Vec::new(),
            traffic: Traffic::default(),
        }
    }

    /// Sets the size of a message; the default is 25 MiB. A bucket holds several tensors or a part of one.
    pub fn bucket_bytes(mut self, bytes: usize) -> Self {
        self.bucket_bytes = bytes;
        self
    }

    /// Compares the parameters of all ranks, bit for bit, every `steps` steps. This costs a pass over the parameters. The first step
    /// does not compare, because it gives all ranks the parameters of rank 0. The first step after loading a state always compares.
    ///
    /// If the parameters differ, the step returns [`RankError::RanksDisagree`](crate::error::RankError::RanksDisagree). Possible causes are a hardware fault and a parameter that your
    /// code changed on one rank.
    pub fn verify_every(mut self, steps: u64) -> Self {
        self.verify_every = Some(steps);
        self
    }

    /// Sets the policy for a NaN or an infinity in the gradient of any rank or in the mean; the default is an error. All ranks act
    /// alike.
    pub fn non_finite(mut self, policy: NonFinite) -> Self {
        self.non_finite = policy;
        self
    }

    /// The group of ranks.
    pub fn ranks(&self) -> &G {
        self.peers.group()
    }

    /// The bytes of gradients that this rank has passed to the group.
    pub fn traffic(&self) -> Traffic {
        self.traffic
    }
}

impl<A: Element, O: Optimizer<A>, G: Collective<A>> DataParallel<O, G, A> {
    /// Compresses gradients before they are sent. The part that is not sent is added to the next gradient: see
    /// [`compress`](super::compress).
    pub fn compress(mut self, compression: impl Compression<A> + 'static) -> Self {
        self.feedback = Some(Feedback::new(Box::new(compression)));
        self
    }

    /// Gives all ranks the parameters of rank 0, so that the first gradients are computed from the same parameters. Every rank must
    /// call it.
    ///
    /// It is not needed if every rank has loaded the same parameters, or has initialized them from the same seed.
    ///
    /// # Errors
    /// [`RankError::RanksDisagree`](crate::error::RankError::RanksDisagree) if the ranks' parameters differ in shape, and those of the group. Nothing has changed then.
    pub fn broadcast(&mut self, params: &mut dyn ParamsMut<Elem = A>) -> Result<()> {
        let bucket = bucket_elements::<A>(self.bucket_bytes);
        let known = self.peers.broadcast(params, self.layout(), bucket, |step| self.check_own(step))?;
        (self.layout, self.is_loaded) = (Some(known), false);
        Ok(())
    }

    fn check_own(&self, step: &Step<'_, A>) -> Result<()> {
        self.peers.ensure_reached(step, "data_parallel")?;
        self.verify_every.map_or(Ok(()), |every| ensure_count("verify_every", every))?;
        if let Some(feedback) = &self.feedback {
            feedback.compression().check()?;
            let instead = "leave it out, or pass a dense gradient";
            step.grads().try_for_each(|(info, grad)| grad.ensure_dense(info, "compress", instead))?;
        }
        Layout::ensure_known(self.layout.as_ref(), step.layout())
    }

    /// Whether all ranks have begun with the same parameters: not where a state was loaded that was saved before the first step, as inside
    /// `accumulate` between micro-batches.
    fn has_begun(&self) -> bool {
        self.layout.is_some() && !(self.is_loaded && self.inner.steps() == 0)
    }

    /// Whether the optimizer inside would take the step, but for its gradients.
    fn check_ahead(&self, step: &Step<'_, A>) -> Result<()> {
        let mut ahead = ahead(step);
        ahead.set_share(self.share_of(step));
        self.inner.check(&ahead)
    }

    /// What the optimizer inside sees of the step: with other ranks, the gradients are not of its data alone.
    fn share_of<'s>(&self, step: &Step<'s, A>) -> Share<'s> {
        if self.peers.are_none() { step.share() } else { step.share().at_most(Extent::Parameters) }
    }

    /// Whether the gradients are the mean already.
    fn is_alone(&self) -> bool {
        self.peers.are_none() && self.feedback.is_none()
    }

    /// Says what this rank makes of the step. Packs the gradients, unless the other ranks' rows have to be known first.
    fn prepare(&mut self, step: &Step<'_, A>, exchange: Option<&Exchange>) -> Result<Vote> {
        step.ensure_writable()?;
        self.check_own(step)?;
        self.check_ahead(step)?;
        let skips = match exchange.map(|exchange| exchange.places(step)) {
            Some(places) => {
                let packed = packed::room(&mut self.packed, packed::elements(&places));
                packed::pack_grads(step, &places, packed);
                skips(self.non_finite, || non_finite_of(&places, packed))?
            }
            None => skips(self.non_finite, || non_finite(step))?,
        };
        Ok(Vote { skips, batch: step.batch(), about: self.peers.tell(|| self.describe(step)) })
    }

    /// All that must be the same on all ranks.
    fn describe(&self, step: &Step<'_, A>) -> Vec<String> {
        let begins = if self.has_begun() { "" } else { ", the first with this group" };
        let mut lines = vec![
            format!("step number {}{begins}{}", self.inner.steps(), end(step)),
            format!("the learning rate {}", self.inner.learning_rate()),
            match &self.feedback {
                Some(feedback) => format!("gradients by {}", feedback.compression().describe()),
                None => format!("gradients in buckets of {} bytes", self.bucket_bytes),
            },
            format!("verify_every {:?}, non_finite {:?}", self.verify_every, self.non_finite),
        ];
        lines.extend(describe_grads(step));
        // Before the first step they may differ: those of rank 0 will hold.
        let due = self.verify_every.is_some_and(|every| self.inner.steps().is_multiple_of(every)) || self.is_loaded;
        if due && self.has_begun() {
            lines.extend(step.iter().map(|(info, tensor)| describe_values("values", info, &tensor.param())));
        }
        lines
    }

    /// The step of a rank whose gradients are the mean already.
    fn apply_alone(&mut self, step: Step<'_, A>) -> Result<Report> {
        step.ensure_writable()?;
        self.check_own(&step)?;
        if skips(self.non_finite, || non_finite(&step))? {
            return Ok(Report::of_skipped(self.inner.learning_rate()));
        }
        let elements: usize = step.grads().map(|named| norm::elements(&named)).sum();
        let layout = Arc::clone(step.layout());
        let report = self.inner.apply(step)?;
        self.keep(layout, (elements * size_of::<A>()) as u64);
        Ok(report)
    }

    /// Remembers a step that was taken.
    fn keep(&mut self, layout: Arc<Layout>, bytes: u64) {
        self.layout.get_or_insert(layout);
        self.is_loaded = false;
        self.traffic.add(bytes);
    }
}

/// The error of the first packed gradient that is not finite.
fn non_finite_of<A: Element>(places: &[Place<'_>], packed: &[A]) -> Option<Error> {
    let (path, index, value) = packed::non_finite(places, packed)?;
    Some(Error::Step(StepError::NonFiniteGradient { path, index, value }))
}

/// The step along the means of all ranks.
fn along<'s, A: Element>(
    means: &'s [A],
    places: &[Place<'s>],
    step: &'s mut Step<'_, A>,
    share: Share<'s>,
) -> Step<'s, A> {
    let (layout, batch, mut places) = (Arc::clone(step.layout()), step.batch(), places.iter());
    let sight = step.sight();
    let tensors = step.iter_mut().map(|(info, tensor)| {
        let place = tensor.grad.as_ref().and_then(|_| places.next());
        let mean = place.map(|place| place.grad(info, means));
        Tensor { grad: mean, ..tensor.lend(true) }
    });
    let mut along = Step::from_parts(layout, tensors.collect(), share);
    along.set_batch(batch);
    along.set_sight(sight);
    along
}

impl<A: Element, O: Optimizer<A>, G: Collective<A>> Optimizer<A> for DataParallel<O, G, A> {
    /// Whether `apply` would accept this step. With other ranks it leaves out what only one of them knows: whether its gradients are finite. An
    /// `accumulate` around this one asks on every call, and returns if the answer is no. On this rank only, that would leave
    /// it a call behind the others, who would wait for it.
    fn check(&self, step: &Step<'_, A>) -> Result<()> {
        step.note_whole(|| Note::Part(format!("data_parallel({} ranks)", self.peers.group().size())));
        self.check_own(step)?;
        if self.peers.are_none() && skips(self.non_finite, || non_finite(step))? {
            step.note_whole(|| Note::Skipped);
            return Ok(());
        }
        if self.is_alone() { self.inner.check(step) } else { self.check_ahead(step) }
    }

    fn apply(&mut self, mut step: Step<'_, A>) -> Result<Report> {
        if self.is_alone() {
            return self.apply_alone(step);
        }
        let (layout, share) = (Arc::clone(step.layout()), self.share_of(&step));
        let mut exchange = if has_rows(&step) { None } else { Some(Exchange::whole(&layout)) };
        let own = self.prepare(&step, exchange.as_ref());
        let skipped = Report::of_skipped(self.inner.learning_rate());
        let bucket = bucket_elements::<A>(self.bucket_bytes);
        let begin = (!self.has_begun()).then_some(bucket);
        let Some(joint) = self.peers.agree(own)? else { return Ok(skipped) };
        let is_packed = exchange.is_some();
        let exchange = match exchange.take() {
            Some(exchange) => exchange,
            None => Exchange::of(joint.group(), &step)?,
        };
        let places = exchange.places(&step);
        let means = packed::room(&mut self.packed, packed::elements(&places));
        if !is_packed {
            packed::pack_grads(&step, &places, means);
        }
        joint.weigh(&mut step, means);
        let bytes = match &mut self.feedback {
            Some(feedback) => feedback.reduce(joint.group(), &places, means)?,
            None => packed::mean(joint.group(), means, bucket)?,
        };
        // A sum may be too large for a number where the gradients are not. All ranks see the same.
        if skips(self.non_finite, || non_finite_of(&places, means))? {
            return Ok(skipped);
        }
        let inner = &mut self.inner;
        let report = joint.take(&mut step, begin, |_, step| inner.apply(along(means, &places, step, share)))?;
        if let Some(feedback) = &mut self.feedback {
            feedback.commit(&mut step, &places);
        }
        self.keep(layout, bytes);
        Ok(report)
    }

    fn conclude(&mut self, result: Result<Report>) -> Result<Report> {
        let result = self.peers.conclude(result, true);
        self.inner.conclude(result)
    }

    count_inner!(joins);

    fn layout(&self) -> Option<&Arc<Layout>> {
        self.layout.as_ref().or(self.inner.layout())
    }

    fn write_state(&self, state: &mut StateWriter<'_>) {
        if let Some(feedback) = &self.feedback {
            feedback.write_state(state);
        }
        self.inner.write_state(state);
    }

    fn read_state<'s>(&'s mut self, state: &mut StateReader<'_>) -> Result<Commit<'s>> {
        let Self { inner, feedback, layout, is_loaded, .. } = self;
        let residuals = match feedback {
            Some(feedback) => feedback.read_state(state)?,
            None => Commit::nothing(),
        };
        // Whoever has saved it had begun with the others, and so will those who have loaded it.
        let known = state.layout().cloned();
        Ok(inner.read_state(state)?.and(residuals).and(Commit::new(move || (*layout, *is_loaded) = (known, true))))
    }
}

impl<O: fmt::Debug, G: fmt::Debug, A> fmt::Debug for DataParallel<O, G, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataParallel")
            .field("inner", &self.inner)
            .field("group", self.peers.group())
            .field("bucket_bytes", &self.bucket_bytes)
            .field("verify_every", &self.verify_every)
            .field("non_finite", &self.non_finite)
            .finish_non_exhaustive()
    }
}
