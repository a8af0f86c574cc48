//! 16-bit parameters without f32 copies.

use std::fmt;
use std::sync::Arc;

use ndarray::ArrayD;

use super::{around, count_inner};
use crate::error::Result;
use crate::kernel::simd;
use crate::kernel::sixteen_bits::{RandomBits, SixteenBits};
use crate::params::{Layout, Owned, Values, ValuesMut};
use crate::state::digest::Digest;
use crate::state::{Commit, StateReader, StateWriter};
use crate::step::memo::Note;
use crate::step::narrow::{Lent, Rounded, Widening};
use crate::step::{Optimizer, PerTensor, Report, Step, Tensor};

/// Steps parameters of 16 bits, `half::bf16` or `half::f16`, without f32 copies. Created by
/// [`OptimizerExt::stochastic_rounding`](crate::OptimizerExt::stochastic_rounding) and [`OptimizerExt::kahan`](crate::OptimizerExt::kahan).
///
/// Most steps are smaller than the spacing of 16-bit numbers, and rounding to nearest would lose them.
/// [`master_weights`](crate::OptimizerExt::master_weights) keeps them in copies of 4 bytes per parameter. This adaptor needs 0 or 2 bytes. The optimizer
/// inside computes in f32: blocks of the parameters are widened in the cache, stepped, and rounded as follows.
///
/// # Update rule
/// θ′ is the f32 that the optimizer inside makes of θ.
///
/// ```text
/// stochastic rounding:  θ ← one of the two neighbors of θ′, with probabilities that make it θ′ on average
/// Kahan summation:      c ← round(c + (θ′ − θ))
///                       θ_new ← round(θ + c)
///                       c ← round(c + (θ − θ_new))
///                       θ ← θ_new
/// ```
///
/// The random bits depend only on the seed, the step's number, the tensor's path and the element's index. Results are bit-identical for any threads, SIMD
/// width and memory layout, and after resuming. Use another seed per run, the same on all ranks.
///
/// Stochastic rounding has no memory, but adds noise of at most one spacing per step. Kahan summation rounds each change to
/// 16 bits, and keeps what is lost when it is added to the parameter. Parameter and remainder together are about as exact as one number with twice as many
/// bits.
///
/// **Order.** Everything written before works in f32: clipping, accumulation, averages, which then follow θ′. So write this adaptor last.
/// [`accumulate`](crate::OptimizerExt::accumulate) after it is an error, because gradients of 16 bits are not summed.
///
/// **Optimizers.** Element-wise optimizers need no f32 memory for the parameters. Optimizers of whole matrices, such as Muon, and L-BFGS widen
/// a tensor for the time of the step.
///
/// # State
/// | | slots | bytes per parameter |
/// |---|---|---|
/// | `stochastic_rounding` | none | 0 |
/// | `kahan` | `compensation`, in the parameters' type | 2 |
///
/// And the state of the optimizer inside, for which [`StatePrecision`](crate::rule::StatePrecision) has fewer bits.
///
/// # Conventions
/// torchao (`bf16_stochastic_round`) rounds in the same way, with the random bits of PyTorch's generator. The Kahan summation is that of torch-optimi, which also
/// rounds gradients and moments to 16 bits, and decays weights without the compensation.
///
/// # Errors
/// Those of the optimizer inside. Loading a state that was saved by the other method, or for another element type, is an error.
///
/// # Example
/// ```
/// use gradus::prelude::*;
/// use half::bf16;
/// use ndarray::Array1;
///
/// let (mut rounded, mut kahan) = (Sgd::new(1e-3).stochastic_rounding(1), Sgd::new(1e-3).kahan());
/// let (mut w, mut v) = (Array1::from_elem(1000, bf16::ONE), Array1::from_elem(1000, bf16::ONE));
/// for _ in 0..100 {
///     rounded.step(&mut w, &Array1::from_elem(1000, bf16::ONE))?; // 1 − 0.001 is 1 in bf16
///     kahan.step(&mut v, &Array1::from_elem(1000, bf16::ONE))?;
/// }
/// let mean = w.iter().map(|x| x.to_f32()).sum::<f32>() / 1000.0;
/// assert!((mean - 0.9).abs() < 3e-3 && (v[0].to_f32() - 0.9).abs() < 4e-3);
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// # References
/// - P. Zamirai, J. Zhang, C. R. Aberger, C. De Sa, *Revisiting BFloat16 Training* (2020), [arXiv:2010.06192](https://arxiv.org/abs/2010.06192), section 4.
/// - W. Kahan, *Further remarks on reducing truncation errors* (1965).
#[must_use = "an optimizer moves nothing until `step` is called"]
#[derive(Clone)]
pub struct NarrowWeights<O, H> {
    inner: O,
    rounding: WeightRounding<H>,
}

#[derive(Clone)]
enum WeightRounding<H> {
    Stochastic { seed: u64 },
    Kahan(PerTensor<Owned<H>>),
}

around!(NarrowWeights<O, H>);

impl<O, H> NarrowWeights<O, H> {
    pub(crate) fn stochastic(inner: O, seed: u64) -> Self {
        Self { inner, rounding: WeightRounding::Stochastic { seed } }
    }

    pub(crate) fn kahan(inner: O) -> Self {
        Self { inner, rounding: WeightRounding::Kahan(PerTensor::new()) }
    }

    /// The name of the node in a saved state.
    fn name(&self) -> &'static str {
        match self.rounding {
            WeightRounding::Stochastic { .. } => "stochastic_rounding",
            WeightRounding::Kahan(_) => "kahan",
        }
    }
}

impl<O, H: SixteenBits> NarrowWeights<O, H> {
    /// The compensation of the tensor at `path`, which Kahan summation adds to its next change; `None` before the first step, and with stochastic rounding.
    pub fn compensation(&self, path: &str) -> Option<ArrayD<H>> {
        let WeightRounding::Kahan(compensations) = &self.rounding else { return None };
        let (info, compensation) = compensations.entry(path)?;
        Some(compensation.to_array(info.shape()))
    }
}

impl<H: SixteenBits, O: Optimizer<f32>> Optimizer<H> for NarrowWeights<O, H> {
    fn check(&self, step: &Step<'_, H>) -> Result<()> {
        step.note_whole(|| Note::Part(format!("{}()", self.name())));
        if let WeightRounding::Kahan(compensations) = &self.rounding {
            compensations.ensure_known(step)?;
        }
        let tensors = step.iter().map(|(info, tensor)| {
            let param = ValuesMut::preview(Values::of_viewed(Widening::new(tensor.param(), info.shape())));
            let changes = ([tensor.learning_rate, tensor.weight_decay], tensor.replaced.clone());
            Tensor::inside(param, tensor.grad.as_ref(), changes, (tensor.index(), [tensor.frozen, false]))
        });
        self.inner.check(&Step::in_context(step.context_of_check(), tensors.collect()))
    }

    fn apply(&mut self, mut step: Step<'_, H>) -> Result<Report> {
        step.ensure_writable()?;
        // Not the step's: a step that another rank's or the user's own code has paired has none.
        let (context, number, length) = (step.context(), self.inner.steps(), step.len());
        let mut made = None;
        let (seed, compensations): (u64, Vec<Option<&mut Owned<H>>>) = match &mut self.rounding {
            WeightRounding::Stochastic { seed } => (*seed, step.layout().tensors().iter().map(|_| None).collect()),
            WeightRounding::Kahan(all) => {
                all.ensure_known(&step)?;
                made = Some(all.begin(&step, |info, tensor| Owned::zeros(info.elements(), tensor.param().order(), 0)));
                (0, all.all_mut().collect())
            }
        };
        let (mut lent, mut others) = (Vec::with_capacity(length), Vec::with_capacity(length));
        for (info, tensor, compensation) in step.zip_mut(compensations) {
            let rounded = match compensation {
                Some(compensation) => Rounded::Kahan(compensation.as_values_mut()),
                None => {
                    let mut path = Digest::new();
                    path.bytes(info.path().as_bytes());
                    Rounded::Stochastic { bits: RandomBits::new(seed, number, path.finish()), start: info.start() }
                }
            };
            let changes = ([tensor.learning_rate, tensor.weight_decay], tensor.replaced.clone());
            others.push((tensor.grad.as_ref(), changes, (tensor.index, [tensor.frozen, tensor.clipped])));
            lent.push(Lent::new(tensor.param.reborrow(), rounded, info.shape()));
        }
        let tensors = lent.iter_mut().zip(others);
        let tensors =
            tensors.map(|(lent, (grad, changes, place))| Tensor::inside(ValuesMut::narrow(lent), grad, changes, place));
        let result = self.inner.apply(Step::in_context(context, tensors.collect()));
        let arch = simd::arch();
        let moved: Vec<bool> = lent.iter_mut().map(|lent| result.is_ok() && lent.settle(arch)).collect();
        drop(lent);
        let report = match (&mut self.rounding, made) {
            (WeightRounding::Kahan(all), Some(made)) => all.settle(made, result)?,
            _ => result?,
        };
        for ((info, tensor), _) in step.iter_mut().zip(moved).filter(|(_, moved)| *moved) {
            tensor.let_follow(info);
        }
        Ok(report)
    }

    fn conclude(&mut self, result: Result<Report>) -> Result<Report> {
        self.inner.conclude(result)
    }

    count_inner!();

    fn layout(&self) -> Option<&Arc<Layout>> {
        match &self.rounding {
            WeightRounding::Stochastic { .. } => self.inner.layout(),
            WeightRounding::Kahan(compensations) => compensations.layout(),
        }
    }

    fn write_state(&self, state: &mut StateWriter<'_>) {
        let mut node = state.node(self.name());
        node.value("dtype", H::DTYPE);
        if let WeightRounding::Kahan(compensations) = &self.rounding {
            compensations.write(&mut node, "compensation");
        }
        self.inner.write_state(state);
    }

    fn read_state<'s>(&'s mut self, state: &mut StateReader<'_>) -> Result<Commit<'s>> {
        let node = state.node(self.name())?;
        node.value_where("dtype", H::DTYPE, |dtype: &String| dtype == H::DTYPE)?;
        let Self { inner, rounding } = self;
        Ok(match rounding {
            WeightRounding::Stochastic { .. } => inner.read_state(state)?,
            WeightRounding::Kahan(compensations) => {
                let read = PerTensor::read(&node, "compensation")?;
                inner.read_state(state)?.and(Commit::new(move || *compensations = read))
            }
        })
    }
}

impl<O: fmt::Debug, H> fmt::Debug for NarrowWeights<O, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("NarrowWeights");
        match self.rounding {
            WeightRounding::Stochastic { seed } => shown.field("seed", &seed),
            WeightRounding::Kahan(_) => shown.field("kahan", &true),
        };
        shown.field("inner", &self.inner).finish_non_exhaustive()
    }
}
