//! Kronecker-factored curvature (K-FAC): natural gradient descent at the price of a few small matrices a layer.
//!
//! [`Kfac`] is an adaptor around any optimizer. The training loop tells it what each layer saw, and steps:
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
mod setters;
mod settings;
mod state;
mod trust;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use ndarray::ArrayD;

use crate::adaptor::Adaptor;
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

/// Preconditions the gradients of layers with their curvature: made by
/// [`OptimizerExt::kfac`](crate::OptimizerExt::kfac).
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
/// Layers are linear, or convolutions as [linear layers of their unfolded inputs](crate::curvature::tap::unfold) with Ω and Γ of Grosse and
/// Martens as A and G. What no tap was given for passes through to the optimizer inside as it is.
///
/// # Hyper-parameters
/// | name | default | range | meaning |
/// |---|---|---|---|
/// | [`damping`](crate::adaptor::Adapted::damping) λ | 1e-3 | > 0 | added to the curvature; unit of the loss by parameter² |
/// | [`decay`](crate::adaptor::Adapted::decay) | 0.95 | 0 ≤ decay < 1 | how much of the factors an update keeps, at most |
/// | [`kl_clip`](crate::adaptor::Adapted::kl_clip) κ | 1e-3 | > 0 | the largest η²⟨V, ∇⟩, twice the Kullback–Leibler divergence that a step makes |
/// | [`factors_every`](crate::adaptor::Adapted::factors_every) | 1 | ≥ 1 | steps from one update of the factors to the next |
/// | [`inverses_every`](crate::adaptor::Adapted::inverses_every) | 10 | ≥ 1 | steps from one decomposition to the next |
/// | [`eigen`](crate::adaptor::Adapted::eigen) | no | | eigen-decompositions instead of inverses |
///
/// # State
/// Of every layer A and G and their inverses, 2(in + 1)² + 2·out² numbers; with `eigen` in + 1 + out more. Taps that have been
/// observed since the last step are part of it. Beside it a step leaves about as much memory to the next, without which that would
/// have to be asked for anew.
///
/// # Conventions
/// Both factors are means over the batch and begin as the first batch's. Ports that average the gradients of a mean loss have a G
/// that is batch² too small; those that begin with the identity keep a part of it for long. [`LinearTap`] has gradients of single
/// examples, and [`observe_empirical`](Self::observe_empirical) finds out most mistakes. The gradients of the step are those of the
/// mean loss. The defaults of λ and κ are those of common implementations, for classifiers; both grow with the loss, see the
/// [guide](crate::guide::curvature).
///
/// Write clipping, accumulation and groups after `kfac`, routes before it. What is outside sees the gradients first, and κ counts
/// every tensor with the learning rate of its group. Behind adaptors outside and in a box,
/// [`find_mut`](crate::OptimizerExt::find_mut) reaches the layers:
///
/// ```
/// # use gradus::{LinearTap, curvature::Kfac, prelude::*};
/// # use ndarray::array;
/// # let (x, delta) = (array![[1.0, 2.0], [0.0, 1.0]], array![[1.0], [-1.0]]);
/// # let (mut w, grad) = (array![[0.0, 0.0]], array![[0.5, 1.5]]);
/// let mut opt = Momentum::new(0.1, 0.9).kfac().clip_global_norm(1.0).accumulate(2);
/// for _ in 0..2 {
///     if let Some(kfac) = opt.find_mut::<Kfac<f64>>() {
///         kfac.observe("", LinearTap::new(&x, &delta))?;
///     }
///     opt.step(&mut w, &grad)?;
/// }
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// # Errors
/// [`Layer`](crate::Error::Layer) with the layer's name and what is wrong with it or its tap;
/// [`NonFiniteGradient`](crate::Error::NonFiniteGradient) for a layer's gradient, [`HyperParameter`](crate::Error::HyperParameter).
/// A gradient of a tensor that belongs to no observed layer is passed on as it is, NaN too.
///
/// [`check`](Optimizer::check) preconditions nothing and asks the optimizer inside about the gradients as they come. Near the ends of the
/// numbers, a norm that overflows or a scale that becomes 0, its answer may be another than that of the step. Beside other
/// optimizers write the route before `kfac`, where all are asked about the gradients that they get.
///
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
pub struct Kfac<A> {
    damping: Hyper,
    decay: Hyper,
    kl_clip: Option<Hyper>,
    factors_every: u64,
    inverses_every: u64,
    mode: Mode,
    named: BTreeMap<String, Layer>,
    layout: Option<Arc<Layout>>,
    /// The steps that the optimizer inside has taken, as far as this has seen them.
    steps: u64,
    layers: BTreeMap<String, Factors<A>>,
    pending: BTreeMap<String, Pending<A>>,
    trust: Trust,
    scratch: Scratch<A>,
}

/// What the curvature is divided out by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Inverse,
    Eigen,
}

impl<A> Default for Kfac<A> {
    fn default() -> Self {
        Self {
            damping: 1e-3.into(),
            decay: 0.95.into(),
            kl_clip: Some(1e-3.into()),
            factors_every: 1,
            inverses_every: 10,
            mode: Mode::Inverse,
            named: BTreeMap::new(),
            layout: None,
            steps: 0,
            layers: BTreeMap::new(),
            pending: BTreeMap::new(),
            trust: Trust::default(),
            scratch: Scratch::default(),
        }
    }
}

impl<A> Kfac<A> {
    /// Curvature with the settings of the table, for an optimizer that has taken no step.
    pub fn new() -> Self {
        Self::default()
    }

    /// Curvature for an optimizer that has taken so many steps, of parameters of this layout.
    pub(crate) fn beginning(steps: u64, layout: Option<Arc<Layout>>) -> Self {
        Self { steps, layout, ..Self::default() }
    }

    /// Forgets the taps that have been observed since the last step: after one that a step does not accept.
    pub fn discard(&mut self) {
        self.pending.clear();
    }
}

impl<A: Scalar> Kfac<A> {
    /// Whether the coming step takes taps: with [`factors_every`](crate::adaptor::Adapted::factors_every) one in so many. Otherwise a second
    /// backward pass need not be made.
    pub fn wants_taps(&self) -> bool {
        self.layers.is_empty() || self.steps.is_multiple_of(self.factors_every.max(1))
    }

    /// Takes in what a layer saw, with gradients of targets **drawn from the model**: see [`sample`]. Of several taps of a layer
    /// before a step, as of micro-batches, the sums are taken.
    ///
    /// `layer` is the path of a [`Params`](trait@crate::Params) struct with the fields `weight` and perhaps `bias`, the path of a weight
    /// alone, or a name given to [`layer`](crate::adaptor::Adapted::layer).
    ///
    /// # Errors
    /// [`Layer`](crate::Error::Layer): the tap is none, not finite, so large that its squares are not, or of other shapes than the
    /// weight; there is no such weight, or it has been observed under another name. What names and shapes the weights have, before the first step
    /// only that can tell: it is an error then, and every other step, until [`discard`](Self::discard) forgets the tap.
    pub fn observe(&mut self, layer: &str, tap: LinearTap<'_, A>) -> Result<()> {
        self.take(layer, &tap, false)
    }

    /// [`observe`](Self::observe) with the gradients of the **real targets**, whose curvature is called the empirical Fisher. No
    /// second backward pass is needed, but far from the minimum it is another matrix.
    ///
    /// The step that follows is an error, [`NotTheMean`](crate::Error::NotTheMean), if its gradient is a multiple of that of the mean
    /// over these examples: if the tap is divided by the batch, the gradient that of a sum, or the tap lacks its
    /// [`positions`](LinearTap::positions). What is shorter than the mean, as clipping makes it, is let through, and of layers with
    /// less than three outputs all but the sum.
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
            if let Some(layout) = &self.layout {
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
        let due = settings.at.is_multiple_of(self.inverses_every);
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
        learning_rate: f64,
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
            rates[tensor.index()] = tensor.learning_rate.apply(learning_rate);
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

impl<A: Scalar> Adaptor<A> for Kfac<A> {
    /// Returns an error unless the hyper-parameters, taps and gradients are in order, and the optimizer inside would accept the gradients
    /// **as they come**. Those that it will be given are not computed for a check: that is most of a step's work, and `accumulate` checks
    /// in every call.
    fn check(&self, step: &Step<'_, A>, inner: &dyn Optimizer<A>) -> Result<()> {
        self.settings(step, inner.steps())?;
        inner.check(step)
    }

    fn apply(&mut self, step: Step<'_, A>, inner: &mut dyn Optimizer<A>) -> Result<Report> {
        let settings = self.settings(&step, inner.steps())?;
        let changed = self.advance(&settings);
        let (grads, [slope, size]) = self.precondition(&settings, &changed, &step, inner.learning_rate());
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
        let report = inner.apply(step)?;
        if report.moved {
            self.trust.stepped(-scale * slope + 0.5 * scale * scale * size);
        }
        self.layout.get_or_insert(layout);
        self.steps = inner.steps();
        self.keep(changed, grads);
        Ok(report)
    }

    fn layout(&self) -> Option<&Arc<Layout>> {
        self.layout.as_ref()
    }

    fn write_state(&self, state: &mut StateWriter<'_>) {
        state::write(self, &mut state.node("kfac"));
    }

    fn read_state<'s>(&'s mut self, state: &mut StateReader<'_>) -> Result<Commit<'s>> {
        let (read, hypers) = state::read(self, &mut state.node("kfac")?)?;
        let Self { layout, steps, layers, pending, trust, .. } = self;
        Ok(Commit::new(move || (*layout, *steps, *layers, *pending, *trust) = read).and(hypers))
    }
}

impl<A> fmt::Debug for Kfac<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "kfac().damping({:?})", self.damping)?;
        if self.mode == Mode::Eigen { f.write_str(".eigen(true)") } else { Ok(()) }
    }
}
