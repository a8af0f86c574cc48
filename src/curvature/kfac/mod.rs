//! Kronecker-factored curvature (K-FAC): natural gradient descent with a few small matrices per layer.
//!
//! [`Kfac`] is an adaptor around any optimizer. The training loop passes it a tap of each layer, and steps:
//!
//! ```
//! use gradus::curvature::sample;
//! use gradus::{LinearTap, prelude::*};
//! use ndarray::{Array1, Array2, Axis};
//! use rand::SeedableRng; // rand 0.10
//! let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(0);
//!
//! let x = Array2::from_shape_fn((64, 4), |(i, j)| ((i * (j + 1)) as f64).sin());
//! let y = x.dot(&ndarray::array![[2.0], [-1.0], [0.5], [3.0]]) + 0.5;
//! let (mut w, mut b) = (Array2::zeros((1, 4)), Array1::zeros(1));
//!
//! let mut opt = Sgd::new(1.0).kfac().damping(1e-6).no_kl_clip().layer("linear", gradus::curvature::Layer::new("0").bias("1"));
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
mod scratch;
mod settings;
mod state;
mod trust;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use ndarray::ArrayD;

use crate::adaptor::{around, count_inner};
use crate::curvature::tap::{LinearTap, shaped};
use crate::error::Result;
use crate::kernel::product::faer::dot;
use crate::kernel::threads;
use crate::params::{Layout, Scalar, Values};
use crate::schedule::Hyper;
use crate::state::{Commit, StateReader, StateWriter};
use crate::step::{Grad, Optimizer, Report, Step, norm};

use factors::{Factors, Pending, Solver};
use scratch::Scratch;
use settings::{Settings, apart, of_layer};
use trust::Trust;

pub use layer::Layer;

/// Preconditions the gradients of layers with their curvature: made by [`Optimizer::kfac`].
///
/// # Update rule
/// ```text
/// A ← εA + (1 − ε)·Σāāᵀ/examples        ā = (a, 1), the inputs; of the k-th update ε = min(1 − 1/k, decay)
/// G ← εG + (1 − ε)·Σδδᵀ/rows            δ, the gradients of single examples at the pre-activation
/// V = (G + √λ/π·I)⁻¹ ∇ (A + π√λ·I)⁻¹    π = √((tr A/dim A)/(tr G/dim G)), ∇ of shape (out, in + 1), the bias last
/// V = Q_G ((Q_Gᵀ∇Q_A) / (s_G s_Aᵀ + λ)) Q_Aᵀ     with eigen: the exact (G⊗A + λI)⁻¹∇
/// ν = min(1, √(κ/|Ση²⟨V, ∇⟩|))          over all layers that have factors, η the learning rate of each tensor
/// ∇ ← νV, and the step of the optimizer inside
/// ```
/// A layer is linear, or a convolution as a [linear layer of its unfolded input](crate::curvature::unfold), with Ω and Γ of Grosse and Martens
/// as A and G. Gradients of tensors without a tap are passed to the optimizer inside unchanged.
///
/// # Hyper-parameters
/// | name | default | range | meaning |
/// |---|---|---|---|
/// | [`damping`](Self::damping) λ | 1e-3 | > 0 | added to the curvature; unit of the loss by parameter² |
/// | [`decay`](Self::decay) | 0.95 | 0 ≤ decay < 1 | largest fraction of the factors that an update keeps |
/// | [`kl_clip`](Self::kl_clip) κ | 1e-3 | > 0 | the largest η²⟨V, ∇⟩, which is twice the Kullback–Leibler divergence of a step |
/// | [`factor_period`](Self::factor_period) | 1 | ≥ 1 | steps per update of the factors |
/// | [`inverse_period`](Self::inverse_period) | 10 | ≥ 1 | steps per decomposition |
/// | [`eigen`](Self::eigen) | no | | eigen-decompositions instead of inverses |
///
/// # State
/// Per layer A, G and their inverses, 2(in + 1)² + 2·out² numbers; with `eigen` in + 1 + out more. Taps of an unfinished step are part of the
/// state. Scratch memory of about the same size is kept between steps.
///
/// # Conventions
/// Both factors are means over the batch and start from those of the first batch. Some other implementations average the gradients of a mean
/// loss, so their G is too small by a factor of batch²; others start from the identity, which stays in the factors for many steps.
/// [`LinearTap`] has gradients of single examples, and [`observe_empirical`](Self::observe_empirical) detects most mistakes. The gradients of
/// the step are those of the mean loss. The defaults of λ and κ are common for classifiers. Both should grow with the loss; see the
/// [guide](crate::guide::curvature).
///
/// Write clipping, accumulation and groups after `kfac`, and routes before it. Adaptors outside see the gradients first, and κ uses the
/// learning rate of each tensor's group. To pass taps through adaptors, call [`inner_mut`](crate::adaptor::Clip::inner_mut) once per adaptor
/// outside:
///
/// ```
/// # use gradus::{LinearTap, prelude::*};
/// # use ndarray::array;
/// # let (x, delta) = (array![[1.0, 2.0], [0.0, 1.0]], array![[1.0], [-1.0]]);
/// # let (mut w, grad) = (array![[0.0, 0.0]], array![[0.5, 1.5]]);
/// let mut opt = Momentum::new(0.1, 0.9).kfac().clip_global_norm(1.0).accumulate(2);
/// for _ in 0..2 {
///     opt.inner_mut().inner_mut().observe("", LinearTap::new(&x, &delta))?; // of the accumulation, of the clipping
///     opt.step(&mut w, &grad)?;
/// }
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// The type of `Momentum::new(…).kfac()` over f64 is `gradus::curvature::Kfac<Momentum<f64>, f64>`.
///
/// # Errors
/// [`Layer`](crate::Error::Layer) with the layer's name and the problem with the layer or its tap;
/// [`NonFiniteGradient`](crate::Error::NonFiniteGradient) for a layer's gradient, [`HyperParameter`](crate::Error::HyperParameter).
/// The gradient of a tensor outside all observed layers is passed on unchanged, even if it is NaN.
///
/// [`check`](Optimizer::check) does not precondition: it checks the optimizer inside with the original gradients. If numbers are close to
/// overflow or underflow, its result may therefore differ from that of the step. Write `route` before `kfac`, where all optimizers are
/// checked with the gradients that they get.
///
/// Fallbacks: damping makes the factors of any batch invertible, even of one example. If G is 0, π is 1. A factor that rounding has made
/// indefinite is inverted through its eigenvalues, with negative ones set to 0. A layer without a tap keeps its factors; if its preconditioned
/// gradient would not be finite, the original gradient is used.
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
    scratch: Scratch<A>,
}

/// The method of dividing by the curvature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Inverse,
    Eigen,
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
            trust: Trust::default(),
            scratch: Scratch::default(),
        }
    }

    /// Sets the damping λ > 0: a number or a schedule. The inverses use the damping of the step that computes them.
    pub fn damping(mut self, damping: impl Into<Hyper>) -> Self {
        self.damping = damping.into();
        self
    }

    /// Sets the largest fraction of the factors that an update keeps: a number or a schedule.
    pub fn decay(mut self, decay: impl Into<Hyper>) -> Self {
        self.decay = decay.into();
        self
    }

    /// Sets the limit κ > 0 of a step: a number or a schedule.
    pub fn kl_clip(mut self, kl_clip: impl Into<Hyper>) -> Self {
        self.kl_clip = Some(kl_clip.into());
        self
    }

    /// Removes the limit κ.
    pub fn no_kl_clip(mut self) -> Self {
        self.kl_clip = None;
        self
    }

    /// Updates the factors every `steps` steps and ignores taps in between. See [`wants_taps`](Self::wants_taps).
    pub fn factor_period(mut self, steps: u64) -> Self {
        self.factor_period = steps;
        self
    }

    /// Computes inverses, or decompositions, every `steps` steps.
    pub fn inverse_period(mut self, steps: u64) -> Self {
        self.inverse_period = steps;
        self
    }

    /// Divides by the Kronecker product plus λI exactly, in its eigenbasis. An eigen-decomposition costs about ten times as much as an inverse.
    pub fn eigen(mut self) -> Self {
        self.mode = Mode::Eigen;
        self
    }

    /// Defines a layer whose tensors are not called `name.weight` and `name.bias`.
    pub fn layer(mut self, name: impl Into<String>, layer: Layer) -> Self {
        self.named.insert(name.into(), layer);
        self
    }

    /// Discards the taps observed since the last step. Use it after a step has rejected a tap.
    pub fn discard(&mut self) {
        self.pending.clear();
    }
}

impl<A: Scalar, O: Optimizer<A>> Kfac<O, A> {
    /// Whether the next step uses taps. With a [`factor_period`](Self::factor_period) only some steps do, and the others need no second
    /// backward pass.
    pub fn wants_taps(&self) -> bool {
        self.layers.is_empty() || self.inner.steps().is_multiple_of(self.factor_period.max(1))
    }

    /// Adds a tap of a layer, with gradients of targets **sampled from the model**: see [`sample`]. Several taps of a layer before a step, as
    /// from micro-batches, are added up.
    ///
    /// `layer` is the path of a [`Params`](trait@crate::Params) struct with the field `weight` and possibly `bias`, the path of a single weight,
    /// or a name given to [`layer`](Self::layer).
    ///
    /// # Errors
    /// [`Layer`](crate::Error::Layer) if the tap is invalid, is not finite, has values whose squares overflow, or does not match the weight's
    /// shape; or if there is no such weight, or it was already observed under another name. Before the first step, names and shapes of the
    /// weights cannot be checked. The first step then returns the error, and so does every other step until [`discard`](Self::discard) is
    /// called.
    pub fn observe(&mut self, layer: &str, tap: LinearTap<'_, A>) -> Result<()> {
        self.take(layer, &tap, false)
    }

    /// Adds a tap of a layer, with the gradients of the **real targets**. The resulting curvature is the empirical Fisher. It needs no second
    /// backward pass, but far from the minimum it differs from the Fisher of [`observe`](Self::observe).
    ///
    /// The next step returns [`NotTheMean`](crate::Error::NotTheMean) if its gradient is a multiple of the mean gradient of the examples in
    /// the taps. This happens if a tap is divided by the batch size, if the gradient is that of a sum, or if the tap lacks its
    /// [`positions`](LinearTap::positions). A smaller gradient is accepted, because clipping produces one. If a layer has fewer than three
    /// outputs, only the gradient of a sum is detected.
    ///
    /// # Errors
    /// Those of [`observe`](Self::observe).
    pub fn observe_empirical(&mut self, layer: &str, tap: LinearTap<'_, A>) -> Result<()> {
        self.take(layer, &tap, true)
    }

    fn take(&mut self, layer: &str, tap: &LinearTap<'_, A>, empirical: bool) -> Result<()> {
        let wanted = self.wants_taps() || !self.layers.contains_key(layer);
        let sums = || -> Result<Option<Pending<A>>> {
            tap.check_rows()?;
            if let Some(layout) = self.layout.as_ref().or(self.inner.layout()) {
                let place = self.place(layer, layout)?;
                let others = self.layers.keys().chain(self.pending.keys());
                let others = others.filter_map(|name| Some((name, self.place(name, layout).ok()?)));
                apart(layer, &place, others.collect::<Vec<_>>().iter().map(|(name, place)| (*name, place)))?;
                shaped("input", (tap.rows(), place.inputs), &tap.input)?;
                shaped("output_grad", (tap.rows(), place.outputs), &tap.output_grad)?;
            }
            let known = self.pending.get(layer);
            if let Some(known) = known {
                shaped("input", (tap.rows(), known.input.nrows()), &tap.input)?;
                shaped("output_grad", (tap.rows(), known.output.nrows()), &tap.output_grad)?;
            }
            if !wanted {
                return tap.check_finite().map(|()| None);
            }
            let mut sums = known.cloned().unwrap_or_else(|| Pending::new(tap, empirical, &self.scratch));
            if !empirical {
                sums.row_sums = None;
            }
            sums.add(tap)?;
            // The products have read the tap once already: what is not finite makes its square on the diagonal so.
            if let Err(too_large) = sums.ensure_finite() {
                return Err(tap.check_finite().err().unwrap_or(too_large));
            }
            Ok(Some(sums))
        };
        if let Some(sums) = sums().map_err(|reason| of_layer(layer, reason))? {
            self.pending.insert(layer.to_owned(), sums);
        }
        Ok(())
    }

    /// The factors that this step changes, as they will be after it: with decompositions where it is time.
    fn advance(&self, settings: &Settings) -> BTreeMap<String, Factors<A>> {
        let due = settings.at.is_multiple_of(self.inverse_period);
        let mut changed: Vec<_> = settings.places.iter().map(|(name, place)| (name, place, None)).collect();
        let Self { layers, pending, scratch, mode, .. } = self;
        threads::for_each(&mut changed, &|(name, place, changed)| {
            let known = layers.get(*name);
            let updated = match pending.get(*name) {
                Some(pending) => Some(Factors::updated(known, pending, place.bias.is_some(), settings.decay, scratch)),
                None => known.filter(|_| due).cloned(),
            };
            *changed = updated.map(|mut factors| {
                if due || matches!(*factors.solver, Solver::None) {
                    factors.refresh(*mode, settings.damping);
                }
                factors
            });
        });
        changed.into_iter().filter_map(|(name, _, factors)| Some((name.clone(), factors?))).collect()
    }

    /// The preconditioned gradients by tensor, and [Ση⟨V, ∇⟩, Ση²⟨V, ∇⟩] with the learning rate η of each.
    fn precondition(
        &self,
        settings: &Settings,
        changed: &BTreeMap<String, Factors<A>>,
        step: &Step<'_, A>,
    ) -> (Vec<Option<ArrayD<A>>>, [f64; 2]) {
        let grads = settings.places.iter().filter_map(|(name, place)| {
            let factors = changed.get(name).or(self.layers.get(name))?;
            Some((factors, place, place.gradient(step)?, None))
        });
        let mut grads: Vec<_> = grads.collect();
        let scratch = &self.scratch;
        threads::for_each(&mut grads, &|(factors, place, grad, preconditioned)| {
            let mut whole = factors.precondition(grad, settings.damping, scratch);
            let mut product = match (whole.as_slice(), grad.as_slice()) {
                (Some(whole), Some(grad)) => dot(whole, grad),
                _ => unreachable!("they lie row by row"),
            };
            // What is not finite makes the product so, whatever it is multiplied with.
            if !product.is_finite() && !whole.as_slice().is_some_and(norm::finite) {
                whole.assign(grad);
                product = 0.0;
            }
            let products = if product == 0.0 { [0.0; 2] } else { place.products(product, &whole, grad) };
            *preconditioned = Some((whole, products));
        });
        let mut rates = vec![0.0; step.layout().len()];
        for (_, tensor) in step.iter() {
            rates[tensor.index()] = tensor.learning_rate.apply(self.inner.learning_rate());
        }
        let (mut parts, mut sums) = (vec![None; step.layout().len()], [0.0; 2]);
        for (_, place, _, preconditioned) in grads {
            let Some((whole, products)) = preconditioned else { continue };
            for (at, product) in [Some(place.weight), place.bias].into_iter().flatten().zip(products) {
                sums[0] += rates[at] * product;
                sums[1] += rates[at] * rates[at] * product;
            }
            let (weight, bias) = place.part(whole, &step.layout().tensors()[place.weight]);
            parts[place.weight] = Some(weight);
            if let Some(at) = place.bias {
                parts[at] = bias;
            }
        }
        (parts, sums)
    }

    /// The step is made: it leaves its memory to the next, and frees what that before it left unused.
    fn keep(&mut self, changed: BTreeMap<String, Factors<A>>, grads: Vec<Option<ArrayD<A>>>) {
        let sums = std::mem::take(&mut self.pending).into_values().flat_map(|sums| [sums.input, sums.output]);
        let replaced = changed.into_iter().filter_map(|(name, factors)| self.layers.insert(name, factors));
        let matrices = sums.chain(replaced.flat_map(|factors| [factors.input, factors.output]));
        let buffers = matrices.map(|matrix| matrix.into_raw_vec_and_offset().0);
        let grads = grads.into_iter().flatten().map(|grad| grad.into_raw_vec_and_offset().0);
        buffers.chain(grads).for_each(|buffer| self.scratch.give(buffer));
        self.scratch.renew();
    }
}

impl<A: Scalar, O: Optimizer<A>> Optimizer<A> for Kfac<O, A> {
    // The optimizer inside is checked with the original gradients: to precondition them is most of a step's work, and `accumulate` checks in
    // every call.
    fn check(&self, step: &Step<'_, A>) -> Result<()> {
        self.settings(step)?;
        self.inner.check(step)
    }

    fn apply(&mut self, step: Step<'_, A>) -> Result<Report> {
        let settings = self.settings(&step)?;
        let changed = self.advance(&settings);
        let (grads, [slope, size]) = self.precondition(&settings, &changed, &step);
        let scale = settings.kl_clip.map_or(1.0, |kl_clip| {
            let scale = (kl_clip / size.abs()).sqrt();
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
            self.trust.stepped(-scale * slope + 0.5 * scale * scale * size);
        }
        self.layout.get_or_insert(layout);
        self.keep(changed, grads);
        Ok(report)
    }

    count_inner!();

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
