//! The adaptor and its settings.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::factors::{Factors, Mode, Pending};
use super::layer::Layer;
use super::scratch::Scratch;
use super::trust::Trust;
use crate::adaptor::around;
use crate::params::Layout;
use crate::schedule::Hyper;

/// Preconditions the gradients of layers with their curvature: made by [`OptimizerExt::kfac`](crate::OptimizerExt::kfac).
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
/// [`LinearTap`](crate::LinearTap) has gradients of single examples, and [`observe_empirical`](Self::observe_empirical) detects most mistakes. The gradients of
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
/// [`NonFiniteGradient`](crate::error::StepError::NonFiniteGradient) for a layer's gradient, [`HyperParameter`](crate::error::StepError::HyperParameter).
/// The gradient of a tensor outside all observed layers is passed on unchanged, even if it is NaN.
///
/// [`check`](crate::Optimizer::check) does not precondition: it checks the optimizer inside with the original gradients. If numbers are close to
/// overflow or underflow, its result may therefore differ from that of the step. Write `route` before `kfac`, where all optimizers are
/// checked with the gradients that they get.
///
/// Fallbacks: damping makes the factors of any batch invertible, even of one example. If G is 0, π is 1. A factor that rounding has made
/// indefinite is inverted through its eigenvalues, with negative ones set to 0. A layer without a tap keeps its factors; if its preconditioned
/// gradient would not be finite, the original gradient is used.
///
/// # References
/// J. Martens and R. Grosse, *Optimizing Neural Networks with Kronecker-factored Approximate Curvature* (2015), [arXiv:1503.05671](https://arxiv.org/abs/1503.05671),
/// sections 3, 5 and 6.3.
/// R. Grosse and J. Martens, *A Kronecker-factored approximate Fisher matrix for convolution layers* (2016), [arXiv:1602.01407](https://arxiv.org/abs/1602.01407).
/// J. Ba, R. Grosse and J. Martens, *Distributed Second-Order Optimization using Kronecker-Factored Approximations* (2017), section 5
/// (κ).
#[doc(alias("K-FAC", "natural gradient"))]
#[derive(Clone)]
pub struct Kfac<O, A> {
    pub(super) inner: O,
    pub(super) damping: Hyper,
    pub(super) decay: Hyper,
    pub(super) kl_clip: Option<Hyper>,
    pub(super) factor_period: u64,
    pub(super) inverse_period: u64,
    pub(super) mode: Mode,
    pub(super) named: BTreeMap<String, Layer>,
    pub(super) layout: Option<Arc<Layout>>,
    pub(super) layers: BTreeMap<String, Factors<A>>,
    pub(super) pending: BTreeMap<String, Pending<A>>,
    pub(super) trust: Trust,
    pub(super) scratch: Scratch<A>,
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
