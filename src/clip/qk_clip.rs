//! QK-Clip: limits the logits of attention by the weights that make them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use ndarray::Axis;

use crate::adaptor::Adaptor;
use crate::error::{ArgumentError, Error, Result, StepError};
use crate::params::{Element, Layout, TensorInfo};
use crate::schedule::Hyper;
use crate::state::{Commit, StateReader, StateWriter};
use crate::step::follower::follow;
use crate::step::share::Extent;
use crate::step::{Optimizer, Report, Step, Tensor};

/// QK-Clip: after a step, scales the query and key weights of each attention head whose largest logit was above a threshold. Created by
/// [`OptimizerExt::qk_clip`](crate::OptimizerExt::qk_clip). Around [`Muon`](crate::Muon) it is MuonClip.
///
/// # Update rule
/// ```text
/// θ ← the step of the optimizer inside
/// γ ← min(1, τ/S)                       S, the largest logit qᵀk/√d of the head since the last step
/// W_q ← √γ·W_q,  W_k ← √γ·W_k           the rows of the head; of a rotary query alone W_q ← γ·W_q
/// ```
/// If several query heads share a key head (grouped-query attention), S is the largest logit of the group, and all heads of the group are scaled. Heads up to
/// the threshold keep their bits. A tensor that the step does not move, because it is frozen or has no gradient, is not scaled.
///
/// # Hyper-parameters
/// | name | default | range | meaning |
/// |---|---|---|---|
/// | `threshold` τ | – | > 0 | the largest logit that is let through; Kimi K2 has 100 |
///
/// # State
/// The logits observed since the last step.
///
/// # Conventions
/// pytorch-optimizer's `MuonClip` with `qk_clip_alpha=0.5`, whose Muon is `Muon::new(lr).nesterov(false).match_rms_adamw(true).weight_decay(0.0)`.
///
/// A logit is qᵀk/√d, before the softmax; the largest is taken over all positions that attention does not mask. The rows of a weight (the elements of its
/// first axis) are the heads one after the other, with equally many rows each; a first axis of heads also fits. Query and key are two tensors: divide a
/// fused weight into views of its rows in the tree of parameters.
///
/// You may observe the logits of several micro-batches before a step: the largest counts. A call that takes no step, as with `accumulate` inside, keeps
/// them. With several [ranks](crate::distributed), each rank must observe the same numbers, the largest over all ranks.
///
/// Averages follow the scaled weights. Write `qk_clip` before `master_weights`. If there are adaptors or a box around it, call `observe` on
/// [`find_mut::<QkClip>()`](crate::OptimizerExt::find_mut).
///
/// # Errors
/// [`StepError::UnequalHeads`] if rows do not fit the heads, [`StepError::FusedHeads`] if query and key are one tensor, [`StepError::PatternUnmatched`]
/// for a path without a tensor, and [`StepError::HyperParameter`]. The step that returns them changes nothing; call [`discard`](Self::discard) to continue.
/// [`CutTensors`](crate::error::RankError::CutTensors) inside `sharded` without `by_tensor`.
///
/// # Example
/// ```
/// use gradus::prelude::*;
/// use ndarray::array;
///
/// let mut opt = Muon::new(0.0).weight_decay(0.0).qk_clip(100.0);
/// let mut w = (array![[1.0], [1.0]], array![[1.0], [1.0]]); // two heads of one row each
/// for _ in 0..2 {
///     let grads = (array![[0.5], [0.5]], array![[0.5], [0.5]]);
///     opt.observe("0", "1", [400.0, 20.0])?; // the largest logits of both heads
///     opt.step(&mut w, &grads)?;
/// }
/// assert_eq!(w, (array![[0.25], [1.0]], array![[0.25], [1.0]]));
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// # References
/// Kimi Team, *Kimi K2: Open Agentic Intelligence* (2025), [arXiv:2507.20534](https://arxiv.org/abs/2507.20534), section 2.1, algorithm 1.
#[doc(alias = "MuonClip")]
#[derive(Clone)]
pub struct QkClip {
    threshold: Hyper,
    /// The largest logits, by the paths of query and key; a rotary query has no key.
    observed: BTreeMap<(String, Option<String>), Vec<f64>>,
}

/// The factors of a tensor's rows.
struct Clip {
    /// The position in the layout.
    tensor: usize,
    /// One for each head, all heads having equally many rows.
    factors: Vec<f64>,
}

impl QkClip {
    /// Lets logits up to `threshold` through: a number or a schedule.
    pub fn new(threshold: impl Into<Hyper>) -> Self {
        Self { threshold: threshold.into(), observed: BTreeMap::new() }
    }

    /// Adds the largest logit of each query head, in the order of the heads. `query` and `key` are the paths of the weights.
    ///
    /// The number of key heads follows from the rows of both. Heads of the queries that share a key head follow one another.
    ///
    /// # Errors
    /// [`Empty`](ArgumentError::Empty), [`NotFinite`](ArgumentError::NotFinite), and [`Shape`](ArgumentError::Shape) if earlier logits of this pair since
    /// the last step were of another number of heads. Paths and rows are checked by the step.
    pub fn observe(&mut self, query: &str, key: &str, largest: impl IntoIterator<Item: Into<f64>>) -> Result<()> {
        self.take((query.into(), Some(key.into())), largest)
    }

    /// Adds the largest logit of each head for the rotary part of the queries in multi-head latent attention. All heads share its key, which
    /// stays as it is: the query is scaled by γ. For the other part of queries and keys, use [`observe`](Self::observe) with the same logits.
    ///
    /// # Errors
    /// Those of [`observe`](Self::observe).
    pub fn observe_rotary(&mut self, query: &str, largest: impl IntoIterator<Item: Into<f64>>) -> Result<()> {
        self.take((query.into(), None), largest)
    }

    /// Forgets the logits observed since the last step.
    pub fn discard(&mut self) {
        self.observed.clear();
    }

    fn take(&mut self, of: (String, Option<String>), largest: impl IntoIterator<Item: Into<f64>>) -> Result<()> {
        let mut largest: Vec<f64> = largest.into_iter().map(Into::into).collect();
        ensure_logits(&largest)?;
        if let Some(known) = self.observed.get(&of) {
            if known.len() != largest.len() {
                let (expected, found) = (vec![known.len()], vec![largest.len()]);
                return Err(Error::Argument(ArgumentError::Shape { argument: "largest", expected, found }));
            }
            largest.iter_mut().zip(known).for_each(|(logit, known)| *logit = logit.max(*known));
        }
        self.observed.insert(of, largest);
        Ok(())
    }

    /// The rows to be scaled after the step with this number.
    fn clips<A: Element>(&self, step: &Step<'_, A>, number: u64) -> Result<Vec<Clip>> {
        step.share().ensure(Extent::Tensors, "qk_clip")?;
        let threshold = self.threshold.within("threshold", f64::MIN_POSITIVE.., number)?;
        let layout = step.layout();
        let mut clips = Vec::new();
        for ((query, key), largest) in &self.observed {
            if key.as_ref() == Some(query) {
                return Err(Error::Step(StepError::FusedHeads { path: query.clone() }));
            }
            let tensor = position(layout, query)?;
            let per_head = rows_per_head(&layout.tensors()[tensor], largest.len())?;
            let (key, heads) = match key {
                None => (None, largest.len()),
                Some(key) => {
                    let at = position(layout, key)?;
                    (Some(at), key_heads(&layout.tensors()[at], per_head, largest.len())?)
                }
            };
            let gamma = |group: &[f64]| threshold / group.iter().fold(threshold, |most, logit| most.max(*logit));
            let gammas: Vec<f64> = largest.chunks(largest.len() / heads).map(gamma).collect();
            if gammas.iter().all(|gamma| *gamma == 1.0) {
                continue;
            }
            match key {
                None => clips.push(Clip { tensor, factors: gammas }),
                Some(key) => {
                    let factors: Vec<f64> = gammas.into_iter().map(f64::sqrt).collect();
                    clips.extend([tensor, key].map(|tensor| Clip { tensor, factors: factors.clone() }));
                }
            }
        }
        Ok(clips)
    }
}

/// Returns an error unless there is a logit and all are finite.
fn ensure_logits(largest: &[f64]) -> Result<()> {
    let argument = "largest";
    match largest.iter().enumerate().find(|(_, logit)| !logit.is_finite()) {
        _ if largest.is_empty() => Err(Error::Argument(ArgumentError::Empty { argument })),
        Some((head, value)) => {
            Err(Error::Argument(ArgumentError::NotFinite { argument, index: vec![head], value: *value }))
        }
        None => Ok(()),
    }
}

fn position(layout: &Layout, path: &str) -> Result<usize> {
    layout.position(path).ok_or_else(|| {
        let paths = layout.paths().map(str::to_owned).collect();
        Error::Step(StepError::PatternUnmatched { pattern: path.into(), paths })
    })
}

/// The rows of the whole tensor, which may be on another rank.
fn rows(info: &TensorInfo) -> usize {
    info.whole_shape().first().copied().unwrap_or(0)
}

fn unequal(info: &TensorInfo, heads: usize, head_rows: Option<usize>) -> Error {
    let (path, rows) = (info.path().into(), rows(info));
    Error::Step(StepError::UnequalHeads { path, rows, heads, head_rows })
}

/// The rows of a head of the query.
fn rows_per_head(query: &TensorInfo, heads: usize) -> Result<usize> {
    match rows(query) {
        rows if rows > 0 && rows.is_multiple_of(heads) => Ok(rows / heads),
        _ => Err(unequal(query, heads, None)),
    }
}

/// The number of heads of the key, each for equally many heads of the query.
fn key_heads(key: &TensorInfo, head_rows: usize, heads: usize) -> Result<usize> {
    let own = rows(key) / head_rows;
    let fits = rows(key).is_multiple_of(head_rows) && own > 0 && heads.is_multiple_of(own);
    if fits { Ok(own) } else { Err(unequal(key, heads, Some(head_rows))) }
}

impl Clip {
    /// Scales the rows of the heads.
    fn scale<A: Element>(&self, info: &TensorInfo, tensor: &mut Tensor<'_, A>) {
        let per_head = rows(info) / self.factors.len();
        for (row, mut values) in tensor.param.view_mut(info.shape()).axis_iter_mut(Axis(0)).enumerate() {
            let factor = self.factors[row / per_head];
            if factor != 1.0 {
                values.mapv_inplace(|value| A::from_f64(value.as_f64() * factor));
            }
        }
    }
}

impl<A: Element> Adaptor<A> for QkClip {
    fn check(&self, step: &Step<'_, A>, inner: &dyn Optimizer<A>) -> Result<()> {
        self.clips(step, inner.steps())?;
        inner.check(step)
    }

    fn apply(&mut self, mut step: Step<'_, A>, inner: &mut dyn Optimizer<A>) -> Result<Report> {
        let clips = self.clips(&step, inner.steps())?;
        let report = if clips.is_empty() {
            inner.apply(step)?
        } else {
            let is_clipped = |tensor: &Tensor<'_, A>| clips.iter().any(|clip| clip.tensor == tensor.index());
            // Averages of these tensors follow them after they are scaled.
            let mut followers = Vec::with_capacity(step.len());
            for (_, tensor) in step.iter_mut() {
                let own = if is_clipped(tensor) { std::mem::take(&mut tensor.followers) } else { Vec::new() };
                followers.push(own);
            }
            let watch: Vec<bool> = step.iter().map(|(_, tensor)| is_clipped(tensor)).collect();
            let (report, moved) = step.lend(true).watched(watch, |step| inner.apply(step))?;
            for (((info, tensor), moved), mut followers) in step.iter_mut().zip(moved).zip(followers) {
                let at = tensor.index();
                if moved {
                    for clip in clips.iter().filter(|clip| clip.tensor == at && !info.is_elsewhere()) {
                        clip.scale(info, tensor);
                    }
                    tensor.project(info);
                    follow(&mut followers, &tensor.param.as_values(), info.shape());
                }
            }
            report
        };
        if report.moved {
            self.observed.clear();
        }
        Ok(report)
    }

    fn describe(&self) -> String {
        format!("{self:?}")
    }

    fn layout(&self) -> Option<&Arc<Layout>> {
        None
    }

    fn write_state(&self, state: &mut StateWriter<'_>) {
        let mut node = state.node("qk_clip");
        self.threshold.write_state("threshold", &mut node);
        node.value("observed", self.observed.len());
        for (at, ((query, key), largest)) in self.observed.iter().enumerate() {
            node.value(&format!("query/{at}"), query);
            if let Some(key) = key {
                node.value(&format!("key/{at}"), key);
            }
            let logits: Vec<String> = largest.iter().map(f64::to_string).collect();
            node.value(&format!("largest/{at}"), logits.join(" "));
        }
    }

    fn read_state<'s>(&'s mut self, state: &mut StateReader<'_>) -> Result<Commit<'s>> {
        let node = state.node("qk_clip")?;
        let threshold = self.threshold.read_state("threshold", &node)?;
        let count: usize = node.value("observed", "a count")?;
        let mut observed = BTreeMap::new();
        for at in 0..count {
            let [query, key, largest] = ["query", "key", "largest"].map(|name| format!("{name}/{at}"));
            let path = |name: &str| node.value::<String>(name, "a path");
            let key = if node.has(&key) { Some(path(&key)?) } else { None };
            let logits: Logits = node.value(&largest, "finite numbers")?;
            observed.insert((path(&query)?, key), logits.0);
        }
        Ok(Commit::new(move || self.observed = observed).and(threshold))
    }
}

/// Logits in a saved state.
struct Logits(Vec<f64>);

impl std::str::FromStr for Logits {
    type Err = ();

    fn from_str(text: &str) -> std::result::Result<Self, ()> {
        let logits =
            text.split(' ').map(|logit| logit.parse().map_err(|_| ())).collect::<std::result::Result<Vec<_>, _>>()?;
        ensure_logits(&logits).map_err(|_| ())?;
        Ok(Self(logits))
    }
}

impl fmt::Debug for QkClip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "qk_clip({:?})", self.threshold)
    }
}
