//! Kronecker-factored curvature (K-FAC): natural gradient descent at the price of a few small matrices a layer.
//!
//! [`Kfac`] is an adaptor around any optimizer. The training loop tells it what each layer saw, and steps:
//!
//! ```
//! use gradus::kfac::sample;
//! use gradus::{LinearTap, prelude::*};
//! use ndarray::{Array1, Array2, Axis};
//! # use rand::SeedableRng;
//! let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(0);
//!
//! let x = Array2::from_shape_fn((64, 4), |(i, j)| ((i * (j + 1)) as f64).sin());
//! let y = x.dot(&ndarray::array![[2.0], [-1.0], [0.5], [3.0]]) + 0.5;
//! let (mut w, mut b) = (Array2::zeros((1, 4)), Array1::zeros(1));
//!
//! let mut opt = Sgd::new(1.0).kfac().damping(1e-6).no_kl_clip().layer("linear", gradus::kfac::Layer::new("0").bias("1"));
//! for _ in 0..20 {
//!     let output = x.dot(&w.t()) + &b;
//!     let output_grad = sample::gaussian(&output, &mut rng); // of targets that the model itself would give
//!     opt.observe("linear", LinearTap::new(&x, &output_grad))?;
//!
//!     let error = (output - &y) / x.nrows() as f64; // the gradient of the mean of ½(output − y)²
//!     opt.step(&mut (&mut w, &mut b), &(error.t().dot(&x), error.sum_axis(Axis(0))))?;
//! }
//! assert!((b[0] - 0.5).abs() < 1e-2 && (w[[0, 3]] - 3.0_f64).abs() < 1e-2);
//! # Ok::<(), gradus::Error>(())
//! ```

mod factors;
mod layer;
pub mod sample;
mod state;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;
use std::sync::Arc;

use ndarray::{Array2, ArrayD, Axis};

use crate::adaptor::around;
use crate::error::{Error, Result};
use crate::grad::Grad;
use crate::hyper::Hyper;
use crate::norm;
use crate::optimizer::Optimizer;
use crate::params::{Layout, Values};
use crate::scalar::Scalar;
use crate::state::{Commit, StateReader, StateWriter};
use crate::step::{Report, Step};
use crate::tap::{LinearTap, shaped};
use crate::threads;

use factors::{Factors, Pending, Solver};
use layer::Place;

pub use layer::Layer;

/// Preconditions the gradients of layers with their curvature: made by [`Optimizer::kfac`].
///
/// # Update rule
/// ```text
/// A ← εA + (1 − ε)·Σāāᵀ/examples        ā = (a, 1), the inputs; of the k-th update ε = min(1 − 1/k, decay)
/// G ← εG + (1 − ε)·Σδδᵀ/rows            δ, the gradients of single examples at the pre-activation
/// V = (G + √λ/π·I)⁻¹ ∇ (A + π√λ·I)⁻¹    π = √((tr A/dim A)/(tr G/dim G)), ∇ of shape (out, in + 1), the bias last
/// V = Q_G ((Q_Gᵀ∇Q_A) / (s_G s_Aᵀ + λ)) Q_Aᵀ     with eigen: the exact (G⊗A + λI)⁻¹∇
/// ν = min(1, √(κ/(η²|Σ⟨V, ∇⟩|)))        over all layers that have factors
/// ∇ ← νV, and the step of the optimizer inside
/// ```
/// Layers are linear, or convolutions as [linear layers of their unfolded inputs](crate::tap::unfold) with Ω and Γ of Grosse and
/// Martens as A and G. What no tap was given for passes through to the optimizer inside as it is.
///
/// # Hyper-parameters
/// | name | default | range | meaning |
/// |---|---|---|---|
/// | [`damping`](Self::damping) λ | 1e-3 | > 0 | added to the curvature; unit of the loss by parameter² |
/// | [`decay`](Self::decay) | 0.95 | 0 ≤ decay < 1 | how much of the factors an update keeps, at most |
/// | [`kl_clip`](Self::kl_clip) κ | 1e-3 | > 0 | the largest η²⟨V, ∇⟩, twice the Kullback–Leibler divergence that a step makes |
/// | [`factor_period`](Self::factor_period) | 1 | ≥ 1 | steps from one update of the factors to the next |
/// | [`inverse_period`](Self::inverse_period) | 10 | ≥ 1 | steps from one decomposition to the next |
/// | [`eigen`](Self::eigen) | no | | eigen-decompositions instead of inverses |
///
/// # State
/// Of every layer A and G and their inverses, 2(in + 1)² + 2·out² numbers; with `eigen` in + 1 + out more. Taps that have been
/// observed since the last step are part of it.
///
/// # Conventions
/// Both factors are means over the batch and begin as the first batch's. Ports that average the gradients of a mean loss have a G
/// that is batch² too small; those that begin with the identity keep a part of it for long. [`LinearTap`] has gradients of single
/// examples, and [`observe_empirical`](Self::observe_empirical) checks that they are. The gradients of the step are those of the
/// mean loss.
///
/// Write clipping and accumulation after `kfac`: they then see the gradients first.
///
/// # Errors
/// [`Error::Layer`] with the layer's name and what is wrong with its tap; [`Error::NonFiniteGradient`], [`Error::HyperParameter`].
/// Fallbacks: a batch of any rank, or of one example, is damped; a zero G has π = 1; a factor that rounding has made indefinite is
/// inverted through its eigenvalues, those below 0 taken as 0. A layer without a tap keeps its factors; if its step would not be
/// finite, its gradient goes in as it is.
///
/// # References
/// J. Martens and R. Grosse, *Optimizing Neural Networks with Kronecker-factored Approximate Curvature* (2015), arXiv:1503.05671,
/// sections 3, 5 and 6.3.
/// R. Grosse and J. Martens, *A Kronecker-factored approximate Fisher matrix for convolution layers* (2016), arXiv:1602.01407.
/// J. Ba, R. Grosse and J. Martens, *Distributed Second-Order Optimization using Kronecker-Factored Approximations* (2017), section 5
/// (κ).
#[derive(Clone)]
pub struct Kfac<O, A> {
    inner: O,
    damping: Hyper,
    decay: Hyper,
    kl_clip: Option<Hyper>,
    factor_period: u64,
    inverse_period: u64,
    mode: Mode,
    named: BTreeMap<String, Layer>,
    layout: Option<Arc<Layout>>,
    layers: BTreeMap<String, Factors<A>>,
    pending: BTreeMap<String, Pending<A>>,
    trust: Trust,
}

/// What the curvature is divided out by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Inverse,
    Eigen,
}

/// How far the quadratic model is trusted: Levenberg's and Marquardt's damping.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Trust {
    /// What the damping is multiplied by.
    factor: f64,
    /// The change of the loss that the last step's model foretold.
    foretold: Option<f64>,
    /// Steps since the factor was adapted.
    since: u64,
}

around!(Kfac<O, A>);

impl<O, A> Kfac<O, A> {
    pub(crate) fn new(inner: O) -> Self {
        Self {
            inner,
            damping: 1e-3.into(),
            decay: 0.95.into(),
            kl_clip: Some(1e-3.into()),
            factor_period: 1,
            inverse_period: 10,
            mode: Mode::Inverse,
            named: BTreeMap::new(),
            layout: None,
            layers: BTreeMap::new(),
            pending: BTreeMap::new(),
            trust: Trust { factor: 1.0, foretold: None, since: 0 },
        }
    }

    /// The damping λ > 0: a number or a schedule. The inverses have that of the step in which they were computed.
    pub fn damping(mut self, damping: impl Into<Hyper>) -> Self {
        self.damping = damping.into();
        self
    }

    /// How much of the factors an update keeps at most: a number or a schedule.
    pub fn decay(mut self, decay: impl Into<Hyper>) -> Self {
        self.decay = decay.into();
        self
    }

    /// The κ > 0 that limits a step: a number or a schedule.
    pub fn kl_clip(mut self, kl_clip: impl Into<Hyper>) -> Self {
        self.kl_clip = Some(kl_clip.into());
        self
    }

    /// Limits nothing.
    pub fn no_kl_clip(mut self) -> Self {
        self.kl_clip = None;
        self
    }

    /// Updates the factors every `steps` steps; taps observed in between are not computed with. See
    /// [`wants_taps`](Self::wants_taps).
    pub fn factor_period(mut self, steps: u64) -> Self {
        self.factor_period = steps;
        self
    }

    /// Computes inverses, or decompositions, every `steps` steps.
    pub fn inverse_period(mut self, steps: u64) -> Self {
        self.inverse_period = steps;
        self
    }

    /// Divides by the Kronecker product plus λI, exactly, in its eigenbasis: eigen-decompositions cost about ten times an inverse.
    pub fn eigen(mut self) -> Self {
        self.mode = Mode::Eigen;
        self
    }

    /// The tensors of a layer that are not called `name.weight` and `name.bias`.
    pub fn layer(mut self, name: impl Into<String>, layer: Layer) -> Self {
        self.named.insert(name.into(), layer);
        self
    }

    /// Forgets the taps that have been observed since the last step.
    pub fn discard(&mut self) {
        self.pending.clear();
    }

    /// Adapts the damping to how well the last step's model foretold its success (Levenberg and Marquardt), and returns the ratio ρ
    /// of the change of the loss to the one foretold.
    ///
    /// Both losses are those of the step's batch, before and after. With ρ > 3/4 the damping is multiplied by (19/20)ⁿ, with
    /// ρ < 1/4 divided by it, n being the steps since this was called last; the paper has n = 5. The model is that of a plain step
    /// along the preconditioned gradient, of the layers that have factors: for [`Sgd`](crate::Sgd) inside.
    ///
    /// # Errors
    /// [`Error::NotFinite`] for a loss, [`Error::NoStep`] before there has been one.
    pub fn adapt_damping(&mut self, loss_before: f64, loss_after: f64) -> Result<f64> {
        for (argument, value) in [("loss_before", loss_before), ("loss_after", loss_after)] {
            if !value.is_finite() {
                return Err(Error::NotFinite { argument, index: vec![], value });
            }
        }
        let foretold = self.trust.foretold.ok_or(Error::NoStep)?;
        let ratio = (loss_after - loss_before) / foretold;
        let change = 0.95_f64.powf(self.trust.since as f64);
        if ratio > 0.75 {
            self.trust.factor *= change;
        } else if ratio < 0.25 {
            self.trust.factor /= change;
        }
        self.trust.since = 0;
        Ok(ratio)
    }
}

impl<A: Scalar, O: Optimizer<A>> Kfac<O, A> {
    /// Whether the coming step takes taps: with a [`factor_period`](Self::factor_period) one in so many. Otherwise a second
    /// backward pass need not be made.
    pub fn wants_taps(&self) -> bool {
        self.layers.is_empty() || self.inner.steps().is_multiple_of(self.factor_period.max(1))
    }

    /// Takes in what a layer saw, with gradients of targets **drawn from the model**: see [`sample`]. Of several taps of a layer
    /// before a step, as of micro-batches, the sums are taken.
    ///
    /// `layer` is the path of a [`Params`](trait@crate::Params) struct with the fields `weight` and perhaps `bias`, the path of a weight
    /// alone, or a name given to [`layer`](Self::layer).
    ///
    /// # Errors
    /// [`Error::Layer`]: the tap is none, not finite or of other shapes than the weight, or there is no such weight, which
    /// before the first step only that can tell.
    pub fn observe(&mut self, layer: &str, tap: LinearTap<'_, A>) -> Result<()> {
        self.take(layer, &tap, false)
    }

    /// [`observe`](Self::observe) with the gradients of the **real targets**, whose curvature is called the empirical Fisher. No
    /// second backward pass is needed, but far from the minimum it is another matrix.
    ///
    /// The step that follows checks that its gradient is that of the mean of these examples, not of their sum.
    ///
    /// # Errors
    /// Those of [`observe`](Self::observe).
    pub fn observe_empirical(&mut self, layer: &str, tap: LinearTap<'_, A>) -> Result<()> {
        self.take(layer, &tap, true)
    }

    fn take(&mut self, layer: &str, tap: &LinearTap<'_, A>, empirical: bool) -> Result<()> {
        let wanted = self.wants_taps() || !self.layers.contains_key(layer);
        let sums = || -> Result<Option<Pending<A>>> {
            tap.check()?;
            if let Some(layout) = self.layout.as_ref().or(self.inner.layout()) {
                let place = self.place(layer, layout)?;
                shaped("input", (tap.rows(), place.inputs), &tap.input)?;
                shaped("output_grad", (tap.rows(), place.outputs), &tap.output_grad)?;
            }
            let (inputs, outputs) = (tap.input.ncols(), tap.output_grad.ncols());
            let known = self.pending.get(layer);
            if let Some(known) = known {
                shaped("input", (tap.rows(), known.input.nrows()), &tap.input)?;
                shaped("output_grad", (tap.rows(), known.output.nrows()), &tap.output_grad)?;
            }
            Ok(wanted.then(|| {
                let mut sums = known.cloned().unwrap_or_else(|| Pending::new(inputs, outputs, empirical));
                if !empirical {
                    sums.row_sums = None;
                }
                sums.add(tap);
                sums
            }))
        };
        if let Some(sums) = sums().map_err(|reason| of_layer(layer, reason))? {
            self.pending.insert(layer.to_owned(), sums);
        }
        Ok(())
    }

    /// Where the tensors of a layer are.
    fn place(&self, layer: &str, layout: &Layout) -> Result<Place> {
        match self.named.get(layer) {
            Some(layer) => layer.place(layout),
            None => Layer::named(layer, layout)?.place(layout),
        }
    }

    /// The hyper-parameters of this step, and where every layer is, if all is in order.
    fn settings(&self, step: &Step<'_, A>) -> Result<Settings> {
        step.ensure_whole("kfac")?;
        step.ensure_own_data("kfac")?;
        let at = self.inner.steps();
        let above_0 = (Bound::Excluded(0.0), Bound::Unbounded);
        let damping = self.damping.within("damping", above_0, at)?;
        let decay = self.decay.within("decay", 0.0..1.0, at)?;
        let kl_clip = self.kl_clip.as_ref().map(|kl_clip| kl_clip.within("kl_clip", above_0, at)).transpose()?;
        for (name, period) in [("factor_period", self.factor_period), ("inverse_period", self.inverse_period)] {
            if period == 0 {
                let accepted = "at least 1".into();
                return Err(Error::HyperParameter { name, value: 0.0, step: at, path: None, accepted });
            }
        }
        Layout::ensure_known(self.layout.as_ref(), step.layout())?;
        let mut places = BTreeMap::new();
        for name in self.layers.keys().chain(self.pending.keys()) {
            let place = self.checked_place(name, step).map_err(|reason| of_layer(name, reason))?;
            places.insert(name.clone(), place);
        }
        Ok(Settings { damping: damping * self.trust.factor, decay, kl_clip, at, places })
    }

    /// Where a layer is, if what was observed of it has its shape and, from the real targets, its gradient.
    fn checked_place(&self, name: &str, step: &Step<'_, A>) -> Result<Place> {
        let place = self.place(name, step.layout())?;
        let of_layer = |at: usize| at == place.weight || Some(at) == place.bias;
        let tensors = step.iter().filter(|(_, tensor)| of_layer(tensor.index()));
        let grads: Vec<_> = tensors.filter_map(|(info, tensor)| Some((info, tensor.grad.as_ref()?))).collect();
        if !norm::all_finite(&grads) {
            return Err(norm::non_finite(&grads));
        }
        let Some(pending) = self.pending.get(name) else { return Ok(place) };
        let rows = pending.rows as usize;
        let seen = (pending.input.nrows(), pending.output.nrows());
        for (argument, expected, found) in [("input", place.inputs, seen.0), ("output_grad", place.outputs, seen.1)] {
            if expected != found {
                return Err(Error::ArgumentShape {
                    argument,
                    expected: vec![rows, expected],
                    found: vec![rows, found],
                });
            }
        }
        if let Some(sums) = &pending.row_sums
            && let Some(grad) = gradient(&place, step)
            && pending.examples > 1
        {
            let sums = if place.bias.is_some() { sums.sum_axis(Axis(0)) } else { sums.row(0).to_owned() };
            let found = grad.rows().into_iter().map(|row| row.iter().map(|x| x.as_f64()).sum::<f64>());
            let (mut size, mut difference) = (0.0, 0.0);
            found.zip(&sums).for_each(|(found, sum)| {
                size += found * found;
                difference += (found - sum).powi(2);
            });
            if difference < 1e-6 * size {
                return Err(Error::DividedByBatch { examples: pending.examples as usize });
            }
        }
        Ok(place)
    }

    /// The factors that this step changes, as they will be after it: with decompositions where it is time.
    fn advance(&self, settings: &Settings) -> BTreeMap<String, Factors<A>> {
        let due = settings.at.is_multiple_of(self.inverse_period);
        let mut changed: Vec<_> = settings.places.iter().map(|(name, place)| (name, place, None)).collect();
        let (layers, pending, mode) = (&self.layers, &self.pending, self.mode);
        threads::for_each(&mut changed, &|(name, place, changed)| {
            let known = layers.get(*name);
            let updated = match pending.get(*name) {
                Some(pending) => Some(Factors::updated(known, pending, place.bias.is_some(), settings.decay)),
                None => known.filter(|_| due).cloned(),
            };
            *changed = updated.map(|mut factors| {
                if due || matches!(*factors.solver, Solver::None) {
                    factors.refresh(mode, settings.damping);
                }
                factors
            });
        });
        changed.into_iter().filter_map(|(name, _, factors)| Some((name.clone(), factors?))).collect()
    }

    /// The preconditioned gradients by tensor, and Σ⟨V, ∇⟩.
    fn precondition(
        &self,
        settings: &Settings,
        changed: &BTreeMap<String, Factors<A>>,
        step: &Step<'_, A>,
    ) -> (Vec<Option<ArrayD<A>>>, f64) {
        let grads = settings.places.iter().filter_map(|(name, place)| {
            let factors = changed.get(name).or(self.layers.get(name))?;
            Some((factors, place, gradient(place, step)?, 0.0))
        });
        let mut grads: Vec<_> = grads.collect();
        threads::for_each(&mut grads, &|(factors, _, grad, product)| {
            let preconditioned = factors.precondition(grad, settings.damping);
            if preconditioned.iter().all(|x| x.is_finite()) {
                *product = preconditioned.iter().zip(&*grad).map(|(v, g)| v.as_f64() * g.as_f64()).sum::<f64>();
                *grad = preconditioned;
            }
        });
        let (mut parts, mut sum) = (vec![None; step.layout().len()], 0.0);
        for (_, place, preconditioned, product) in grads {
            sum += product;
            let (weight, bias) = place.part(&preconditioned, &step.layout().tensors()[place.weight]);
            parts[place.weight] = Some(weight);
            if let Some(at) = place.bias {
                parts[at] = bias;
            }
        }
        (parts, sum)
    }
}

/// What holds for one step.
struct Settings {
    damping: f64,
    decay: f64,
    kl_clip: Option<f64>,
    /// The number of the step.
    at: u64,
    places: BTreeMap<String, Place>,
}

fn of_layer(layer: &str, reason: Error) -> Error {
    Error::Layer { layer: layer.into(), reason: Box::new(reason) }
}

/// The gradient of a layer as one matrix, if its weight has one.
fn gradient<A: Scalar>(place: &Place, step: &Step<'_, A>) -> Option<Array2<A>> {
    let find = |at: usize| {
        let (info, tensor) = step.iter().find(|(_, tensor)| tensor.index() == at)?;
        Some(tensor.grad.as_ref()?.to_array(info.shape()))
    };
    Some(place.join(&find(place.weight)?, place.bias.and_then(find).as_ref()))
}

impl<A: Scalar, O: Optimizer<A>> Optimizer<A> for Kfac<O, A> {
    fn check(&self, step: &Step<'_, A>) -> Result<()> {
        self.settings(step)?;
        self.inner.check(step)
    }

    fn apply(&mut self, step: Step<'_, A>) -> Result<Report> {
        let settings = self.settings(&step)?;
        let changed = self.advance(&settings);
        let (grads, product) = self.precondition(&settings, &changed, &step);
        let learning_rate = self.inner.learning_rate();
        let scale = settings.kl_clip.map_or(1.0, |kl_clip| {
            let scale = (kl_clip / (learning_rate * learning_rate * product.abs())).sqrt();
            if scale < 1.0 { scale } else { 1.0 }
        });
        let layout = Arc::clone(step.layout());
        // The gradients of the step are those from here on: a shorter lifetime than the caller's.
        let mut step: Step<'_, A> = step;
        for (_, tensor) in step.iter_mut().filter(|(_, tensor)| tensor.grad.is_some()) {
            if let Some(grad) = &grads[tensor.index()] {
                let mut grad = Grad::new(Values::new(grad.view()));
                grad.scale_by(scale);
                tensor.grad = Some(grad);
            }
        }
        let report = self.inner.apply(step)?;
        if report.moved {
            let length = learning_rate * scale;
            self.trust.foretold = Some(-length * product + 0.5 * length * length * product);
            self.trust.since += 1;
        }
        self.layout.get_or_insert(layout);
        self.layers.extend(changed);
        self.pending.clear();
        Ok(report)
    }

    fn learning_rate(&self) -> f64 {
        self.inner.learning_rate()
    }

    fn steps(&self) -> u64 {
        self.inner.steps()
    }

    fn layout(&self) -> Option<&Arc<Layout>> {
        self.layout.as_ref().or(self.inner.layout())
    }

    fn write_state(&self, state: &mut StateWriter<'_>) {
        state::write(self, &mut state.node("kfac"));
        self.inner.write_state(state);
    }

    fn read_state<'s>(&'s mut self, state: &mut StateReader<'_>) -> Result<Commit<'s>> {
        let own = state::read(self, &mut state.node("kfac")?)?;
        let Self { inner, layout, layers, pending, trust, .. } = self;
        let commit = Commit::new(move || (*layout, *layers, *pending, *trust) = own.0);
        Ok(inner.read_state(state)?.and(commit).and(own.1))
    }
}

impl<O: fmt::Debug, A> fmt::Debug for Kfac<O, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kfac")
            .field("inner", &self.inner)
            .field("damping", &self.damping)
            .field("mode", &self.mode)
            .field("layers", &self.layers.keys().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}
