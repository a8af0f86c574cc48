//! Data-parallel training: every rank computes the gradient of its part of the batch, and all ranks take the same step.

use std::fmt::{self, Write};
use std::sync::Arc;

use super::agreement::{Word, refuse};
use super::ahead::{ahead, are_finite};
use super::beginning::{Beginning, broadcast};
use super::compress::{Compression, Feedback};
use super::description::{agree_about, describe_grads, describe_params};
use super::group::Collective;
use super::packed::{self, Packed, Place};
use super::traffic::{BUCKET_BYTES, Traffic, bucket_elements};
use crate::adaptor::{NonFinite, around, count_inner};
use crate::error::{Result, ensure_count};
use crate::params::{Element, Layout, Order, Params, ParamsMut, Values};
use crate::state::{Commit, StateReader, StateWriter};
use crate::step::{Grad, Optimizer, Ranks, Report, Step, Tensor};

/// Moves the parameters of every rank along the mean gradient of all ranks: made by [`OptimizerExt::data_parallel`](crate::OptimizerExt::data_parallel).
///
/// # Update rule
/// ```text
/// first step:  θ ← θ of rank 0
/// g ← (g₀ + g₁ + … + gₙ₋₁)/n          gᵣ: the gradient of rank r, after the adaptors outside
/// θ ← the step of the optimizer inside along g
/// ```
/// If every rank has the mean gradient of an equal part of a batch, this is the step on the whole batch. Every rank computes
/// the same bits, so the parameters stay equal without being sent.
///
/// Gradients are packed tensor by tensor, in row-major order. They are sent in buckets of [`bucket_bytes`](Self::bucket_bytes), or
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
/// A buffer of one element per parameter (4 bytes in f32), which is not saved. [Compression](Self::compress) adds two such buffers and
/// the residuals. The residuals are saved; they differ between ranks, so every rank must save its own file. Without compression the
/// saved state is that of the optimizer inside and is the same on all ranks.
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
/// | `check_finite`, `skip_nonfinite` | of the mean | leaves the other ranks waiting: use [`non_finite`](Self::non_finite) |
/// | `accumulate` | communicates in every call | communicates once per combined step |
/// | averages, `lookahead` | the same on all ranks | the same if ranks start from the same parameters |
/// | `freeze`, `group` | as without ranks | as without ranks; must be the same on every rank |
/// | `route` | as without ranks | a rejected step leaves the other ranks waiting: write it inside |
/// | `master_weights` | – | sends the mean in f32 |
/// | K-FAC | rejected, because it would see only its own batch | uses each rank's own batch |
///
/// Averages, `lookahead` and other adaptors outside that store parameters store those before the first broadcast, so call
/// [`broadcast`](Self::broadcast) first. If an adaptor outside rejects or skips a step for a reason that exists on one rank only, such
/// as a missing gradient, the other ranks wait until the timeout of their group.
///
/// Every rank computes the step itself. Element-wise optimizers give the same bits on any processor. Matrix optimizers (Muon, Shampoo,
/// SOAP) may round differently if ranks run on different processors: detect this with [`verify_every`](Self::verify_every), or use
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
    group: G,
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
            group,
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
        &self.group
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
        let known = broadcast(&self.group, params, self.layout(), bucket, |step| self.check_own(step))?;
        (self.layout, self.is_loaded) = (Some(known), false);
        Ok(())
    }

    fn check_own(&self, step: &Step<'_, A>) -> Result<()> {
        step.ensure_outermost("data_parallel")?;
        self.verify_every.map_or(Ok(()), |every| ensure_count("verify_every", every))?;
        self.feedback.as_ref().map_or(Ok(()), Feedback::check)?;
        Layout::ensure_known(self.layout.as_ref(), step.layout())
    }

    /// Whether all ranks have begun with the same parameters: not where a state was loaded that was saved before the first step, as inside
    /// `accumulate` between micro-batches.
    fn has_begun(&self) -> bool {
        self.layout.is_some() && !(self.is_loaded && self.inner.steps() == 0)
    }

    /// What the optimizer inside is to know of the ranks.
    fn inside<'s>(&self, step: &Step<'s, A>) -> Option<&'s dyn Ranks> {
        let joined: Option<&dyn Ranks> = (self.group.size() > 1).then_some(&Joined);
        step.ranks().or(joined)
    }

    /// Whether the optimizer inside would take the step, but for its gradients.
    fn check_ahead(&self, step: &Step<'_, A>) -> Result<()> {
        self.check_own(step)?;
        let mut ahead = ahead(step);
        ahead.set_ranks(self.inside(step));
        self.inner.check(&ahead)
    }

    /// Packs the gradients, and says what this rank makes of the step.
    fn prepare(&mut self, step: &Step<'_, A>, places: &[Place<'_>]) -> Result<Word> {
        step.ensure_writable()?;
        self.check_ahead(step)?;
        let packed = packed::room(&mut self.packed, packed::elements(places));
        packed::pack_grads(step, places, packed);
        judge(self.non_finite, places, packed)
    }

    /// All that must be the same on all ranks.
    fn describe(&self, step: &Step<'_, A>, text: &mut dyn Write) -> fmt::Result {
        let begins = if self.has_begun() { "" } else { ", the first with this group" };
        writeln!(text, "step number {}{begins}", self.inner.steps())?;
        writeln!(text, "the learning rate {}", self.inner.learning_rate())?;
        match &self.feedback {
            Some(feedback) => writeln!(text, "gradients by {}", feedback.describe())?,
            None => writeln!(text, "gradients in buckets of {} bytes", self.bucket_bytes)?,
        }
        writeln!(text, "verify_every {:?}, non_finite {:?}", self.verify_every, self.non_finite)?;
        describe_grads(step, text)?;
        // Before the first step they may differ: those of rank 0 will hold.
        let due = self.verify_every.is_some_and(|every| self.inner.steps().is_multiple_of(every)) || self.is_loaded;
        if due && self.has_begun() { describe_params(step, text) } else { Ok(()) }
    }

    /// Puts the mean of all ranks in the place of the packed gradients. Returns the bytes sent.
    fn reduce(&mut self, places: &[Place<'_>]) -> Result<u64> {
        let values = &mut self.packed[..packed::elements(places)];
        match &mut self.feedback {
            Some(feedback) => feedback.reduce(&self.group, places, values),
            None => {
                packed::mean(&self.group, values, bucket_elements::<A>(self.bucket_bytes))?;
                Ok(size_of_val(values) as u64)
            }
        }
    }

    /// The step of the optimizer inside, along the means.
    fn step_inside(&mut self, step: &mut Step<'_, A>, places: &[Place<'_>]) -> Result<Report> {
        let (layout, ranks, mut means) = (Arc::clone(step.layout()), self.inside(step), places.iter());
        let tensors = step.iter_mut().map(|(_, tensor)| {
            let mean = tensor.grad.as_ref().and_then(|_| means.next());
            let mean = mean.map(|place| Grad::new(Values::Contiguous(&self.packed[place.range()], Order::C)));
            Tensor { grad: mean, ..tensor.lend() }
        });
        self.inner.apply(Step::from_parts(layout, tensors.collect(), ranks))
    }
}

/// The ranks of a step whose gradients are already those of all.
#[derive(Debug)]
struct Joined;

impl Ranks for Joined {
    fn are_tensors_cut(&self) -> bool {
        false
    }

    fn has_all_tensors(&self) -> bool {
        true
    }

    fn norm(&self, own: f64, _: f64) -> Result<f64> {
        Ok(own)
    }
}

/// What a policy makes of gradients.
fn judge<A: Element>(policy: NonFinite, places: &[Place<'_>], values: &[A]) -> Result<Word> {
    match policy {
        NonFinite::Allow => Ok(Word::Go),
        NonFinite::Skip => Ok(if packed::all_finite(values) { Word::Go } else { Word::Skip }),
        NonFinite::Error => packed::ensure_finite(places, values, Packed::Grads).map(|()| Word::Go),
    }
}

impl<A: Element, O: Optimizer<A>, G: Collective<A>> Optimizer<A> for DataParallel<O, G, A> {
    /// Whether `apply` would accept this step, but for what only one of several ranks knows: whether its gradients are finite. An
    /// `accumulate` around this one asks on every call, and returns if the answer is no. On this rank only, that would leave
    /// it a call behind the others, who would wait for it.
    fn check(&self, step: &Step<'_, A>) -> Result<()> {
        self.check_own(step)?;
        // One rank alone knows whether all gradients are finite.
        let alone = self.group.size() == 1;
        let skips = alone && Word::of(self.non_finite, are_finite(step), step)? == Word::Skip;
        if skips { Ok(()) } else { self.check_ahead(step) }
    }

    fn apply(&mut self, mut step: Step<'_, A>) -> Result<Report> {
        let layout = Arc::clone(step.layout());
        let places = packed::places(&layout, &step, |tensor| tensor.grad.is_some());
        let own = self.prepare(&step, &places);
        let mut word = agree_about(&self.group, own, |text| self.describe(&step, text))?;
        let skipped = Report::new(self.inner.learning_rate(), false);
        if word == Word::Skip {
            return Ok(skipped);
        }
        let bytes = self.reduce(&places)?;
        // A sum may be too large for a number where the gradients are not. All ranks see the same.
        word = judge(self.non_finite, &places, &self.packed[..packed::elements(&places)])?;
        if word == Word::Skip {
            return Ok(skipped);
        }
        let beginning = match self.has_begun() {
            true => None,
            false => Some(Beginning::receive(&self.group, &mut step, bucket_elements::<A>(self.bucket_bytes))?),
        };
        let result = self.step_inside(&mut step, &places);
        if let Some(beginning) = beginning {
            beginning.settle(&mut step, result.is_ok());
        }
        let report = result?;
        if let Some(feedback) = &mut self.feedback {
            feedback.commit(&places);
        }
        self.layout.get_or_insert(layout);
        self.is_loaded = false;
        self.traffic.add(bytes);
        Ok(report)
    }

    fn step(&mut self, params: &mut dyn ParamsMut<Elem = A>, grads: &dyn Params<Elem = A>) -> Result<Report> {
        match Step::pair_known(params, grads, self.layout()) {
            Ok(step) => self.apply(step),
            Err(error) => Err(refuse(&self.group, error)),
        }
    }

    count_inner!();

    fn layout(&self) -> Option<&Arc<Layout>> {
        self.layout.as_ref().or(self.inner.layout())
    }

    fn write_state(&self, state: &mut StateWriter<'_>) {
        if let Some(feedback) = &self.feedback {
            feedback.write_state(state, self.layout.as_deref());
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
            .field("group", &self.group)
            .field("bucket_bytes", &self.bucket_bytes)
            .field("verify_every", &self.verify_every)
            .field("non_finite", &self.non_finite)
            .finish_non_exhaustive()
    }
}
