//! The adaptor and its settings.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::factors::{Factors, Mode, Pending};
use super::layer::Layer;
use super::scratch::Scratch;
use super::trust::Trust;
use crate::params::Layout;
use crate::schedule::Hyper;

/// K-FAC: multiplies the gradient of each layer by the inverse of the layer's approximate curvature (*preconditioning*). Created by
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
/// A layer is linear, or a convolution as a [linear layer of its unfolded input](crate::curvature::unfold), with Ω and Γ of Grosse and Martens
/// as A and G. Gradients of tensors without a tap are passed to the optimizer inside unchanged.
///
/// # Hyper-parameters
/// | name | default | range | meaning |
/// |---|---|---|---|
/// | [`damping`](crate::adaptor::Adapted::damping) λ | 1e-3 | > 0 | added to the curvature; unit of the loss by parameter² |
/// | [`decay`](crate::adaptor::Adapted::decay) | 0.95 | 0 ≤ decay < 1 | largest fraction of the factors that an update keeps |
/// | [`kl_clip`](crate::adaptor::Adapted::kl_clip) κ | 1e-3 | > 0 | the largest η²⟨V, ∇⟩, which is twice the Kullback–Leibler divergence of a step |
/// | [`factors_every`](crate::adaptor::Adapted::factors_every) | 1 | ≥ 1 | steps per update of the factors |
/// | [`inverses_every`](crate::adaptor::Adapted::inverses_every) | 10 | ≥ 1 | steps per decomposition |
/// | [`eigen`](crate::adaptor::Adapted::eigen) | no | | eigen-decompositions instead of inverses |
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
/// learning rate of each tensor's group. To pass taps through adaptors outside or a
/// box, call [`find_mut`](crate::OptimizerExt::find_mut):
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
/// The type of `Momentum::new(…).kfac()` over f64 is `gradus::adaptor::Adapted<Momentum<f64>, gradus::curvature::Kfac<f64>>`.
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
pub struct Kfac<A> {
    pub(super) damping: Hyper,
    pub(super) decay: Hyper,
    pub(super) kl_clip: Option<Hyper>,
    pub(super) factors_every: u64,
    pub(super) inverses_every: u64,
    pub(super) mode: Mode,
    pub(super) named: BTreeMap<String, Layer>,
    pub(super) layout: Option<Arc<Layout>>,
    /// The steps of the optimizer inside, as of the last step that this has seen.
    pub(super) steps: u64,
    pub(super) layers: BTreeMap<String, Factors<A>>,
    pub(super) pending: BTreeMap<String, Pending<A>>,
    pub(super) trust: Trust,
    pub(super) scratch: Scratch<A>,
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
    /// Curvature with the default settings, for an optimizer that has not taken a step.
    pub fn new() -> Self {
        Self::default()
    }

    /// Curvature for an optimizer that has taken so many steps, of parameters of this layout.
    pub(crate) fn beginning(steps: u64, layout: Option<Arc<Layout>>) -> Self {
        Self { steps, layout, ..Self::default() }
    }

    /// Discards the taps observed since the last step. Use it after a step has rejected a tap.
    pub fn discard(&mut self) {
        self.pending.clear();
    }
}

impl<A> fmt::Debug for Kfac<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "kfac().damping({:?})", self.damping)?;
        if self.mode == Mode::Eigen { f.write_str(".eigen(true)") } else { Ok(()) }
    }
}
