//! The configuration of an adapter, and its creation.

use ndarray::linalg::general_mat_mul;
use ndarray::{Array2, ArrayRef, ArrayRef2, Dimension};
use rand::{Rng, RngExt};
use rand_distr::StandardNormal;

use super::adapter::{Lora, NormGradient};
use super::dora::norms;
use super::init::{Init, principal};
use super::layer::AdaptedLayer;
use crate::curvature::tap::finite;
use crate::error::{ArgumentError, Error, Result, ensure_count};
use crate::params::{Element, Scalar};

/// The configuration of an adapter: its rank, α, and the variant of LoRA.
///
/// # Hyper-parameters
/// | name | default | range | meaning |
/// |---|---|---|---|
/// | `rank` r | – | ≥ 1 | columns of B, rows of A |
/// | `alpha` α | – | finite | the scale is s = α/r |
/// | [`rank_stabilized`](Self::rank_stabilized) | no | | s = α/√r instead (rsLoRA) |
/// | [`dropout`](Self::dropout) | 0 | 0 ≤ p < 1 | fraction of the adapter's inputs that is dropped in training |
/// | [`init`](Self::init) | Kaiming | [`Init`] | initial values of A; B starts from 0 |
/// | [`dora`](Self::dora) | no | [`NormGradient`] | learns the length of every row separately (DoRA) |
/// | [`fan_in_fan_out`](Self::fan_in_fan_out) | no | | weights of two axes are stored as (in, out) |
#[doc(alias = "LoraConfig")]
#[must_use = "a configuration does nothing until `adapt` is called"]
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Config {
    pub(super) rank: usize,
    pub(super) alpha: f64,
    pub(super) rank_stabilized: bool,
    pub(super) dropout: f64,
    pub(super) init: Init,
    pub(super) dora: Option<NormGradient>,
    pub(super) fan_in_fan_out: bool,
}

impl Config {
    /// Creates a configuration from the rank r and α.
    pub fn new(rank: usize, alpha: f64) -> Self {
        let init = Init::Kaiming;
        Self { rank, alpha, rank_stabilized: false, dropout: 0.0, init, dora: None, fan_in_fan_out: false }
    }

    /// Whether the scale is α/√r, which shrinks less as the rank grows. Off by default.
    pub fn rank_stabilized(mut self, rank_stabilized: bool) -> Self {
        self.rank_stabilized = rank_stabilized;
        self
    }

    /// Sets the fraction of the adapter's inputs that [`Lora::mask`] drops.
    pub fn dropout(mut self, dropout: f64) -> Self {
        self.dropout = dropout;
        self
    }

    /// Sets the initial values of A.
    pub fn init(mut self, init: Init) -> Self {
        self.init = init;
        self
    }

    /// Learns the length of every row of the weight separately from its direction.
    pub fn dora(mut self, norm: NormGradient) -> Self {
        self.dora = Some(norm);
        self
    }

    /// Whether linear layers store their weight as (in, out), as GPT-2's `Conv1D` does. Off by default: (out, in).
    pub fn fan_in_fan_out(mut self, fan_in_fan_out: bool) -> Self {
        self.fan_in_fan_out = fan_in_fan_out;
        self
    }

    /// The factor s of the product BA.
    pub fn scale(&self) -> f64 {
        let rank = self.rank as f64;
        self.alpha / if self.rank_stabilized { rank.sqrt() } else { rank }
    }

    /// Creates an adapter for the weight of a linear layer or, if it has three axes or more, of a convolution. It does not change the layer's output yet.
    ///
    /// A linear layer's weight has the shape (out, in), or (in, out) with [`fan_in_fan_out`](Self::fan_in_fan_out). A convolution's has the shape
    /// (out, channels, kernel…). For an embedding, use [`adapt_embedding`](Self::adapt_embedding).
    ///
    /// # Errors
    /// [`StepError::HyperParameter`](crate::error::StepError::HyperParameter) if the rank is 0 or too large for memory, α is not finite in the element type, or the dropout is out of range;
    /// [`ArgumentError::NotFinite`] with DoRA if the weight is not finite; [`ArgumentError::Shape`] if the weight has less than two axes.
    pub fn adapt<A: Scalar, D: Dimension>(&self, weight: &ArrayRef<A, D>, rng: &mut impl Rng) -> Result<Lora<A>> {
        let layer = AdaptedLayer::of_weight(weight.shape(), self.fan_in_fan_out)?;
        let matrix = layer.matrix(weight)?;
        let (outputs, inputs) = self.check_size(&matrix)?;
        let lora_a = self.init.draw((self.rank, inputs), rng);
        let lora_b = Array2::zeros((outputs, self.rank));
        self.with(&matrix, lora_a, lora_b, layer)
    }

    /// Creates an adapter for an embedding, whose weight has the shape (tokens, width). It does not change the embedding yet.
    ///
    /// As in `peft`, A of shape (r, tokens) starts from 0, and B of shape (width, r) is drawn from the standard normal distribution.
    /// [`init`](Self::init) has no effect.
    ///
    /// # Errors
    /// Those of [`adapt`](Self::adapt).
    pub fn adapt_embedding<A: Scalar>(&self, weight: &ArrayRef2<A>, rng: &mut impl Rng) -> Result<Lora<A>> {
        let matrix = weight.t();
        let (width, tokens) = self.check_size(&matrix)?;
        let lora_b = Array2::from_shape_simple_fn((width, self.rank), || A::from_f64(rng.sample(StandardNormal)));
        self.with(&matrix, Array2::zeros((self.rank, tokens)), lora_b, AdaptedLayer::Embedding)
    }

    /// Creates an adapter from the largest singular values of the weight, and removes them from the weight (PiSSA).
    ///
    /// With `weight = U·diag(σ)·Vᵀ`, s·B·A is the part of the r largest σ: `B = U_r·√(σ_r/s)`, `A = √(σ_r/s)·V_rᵀ`. The rest stays in the weight, so the
    /// layer's output does not change.
    ///
    /// F. Meng, Z. Wang and M. Zhang, *PiSSA: Principal Singular Values and Singular Vectors Adaptation of Large Language
    /// Models* (2024), [arXiv:2404.02948](https://arxiv.org/abs/2404.02948), section 3.
    ///
    /// # Errors
    /// Those of [`adapt`](Self::adapt). α must be above 0, the rank at most the smaller side of the weight, and the weight finite. On an error the weight is
    /// unchanged.
    pub fn pissa<A: Scalar, D: Dimension>(&self, weight: &mut ArrayRef<A, D>) -> Result<Lora<A>> {
        self.check()?;
        within("alpha", self.alpha, self.alpha > 0.0, "above 0")?;
        let layer = AdaptedLayer::of_weight(weight.shape(), self.fan_in_fan_out)?;
        let matrix = layer.matrix(weight)?;
        let (outputs, inputs) = matrix.dim();
        within("rank", self.rank as f64, self.rank <= outputs.min(inputs), "at most the smaller side of the weight")?;
        finite("weight", &matrix)?;
        let (lora_a, lora_b) = principal(&matrix, self.rank, self.scale())?;
        let adapter = self.with(&matrix, lora_a, lora_b, layer)?;
        let mut residual = matrix.into_owned();
        general_mat_mul(-adapter.scale, &adapter.lora_b, &adapter.lora_a, A::one(), &mut residual);
        finite("the residual", &residual)?;
        // The magnitudes are those of the whole weight, which was here until now.
        adapter.layer.assign(&residual, weight);
        Ok(adapter)
    }

    pub(super) fn check(&self) -> Result<()> {
        ensure_count("rank", self.rank as u64)?;
        within("alpha", self.alpha, self.alpha.is_finite(), "a finite number")?;
        within("dropout", self.dropout, (0.0..1.0).contains(&self.dropout), "a number in 0 ≤ dropout < 1")
    }

    /// The scale as a number of the adapter's type, which has a smaller range than f64 or the same.
    pub(super) fn scale_as<A: Element>(&self) -> Result<A> {
        let scale = A::from_f64(self.scale());
        within("alpha", self.alpha, scale.is_finite(), &format!("finite as {}", A::DTYPE))?;
        Ok(scale)
    }

    /// The sides of W, if the configuration is valid and the matrices of its rank fit into memory.
    fn check_size<A: Scalar>(&self, matrix: &ArrayRef2<A>) -> Result<(usize, usize)> {
        self.check()?;
        let (outputs, inputs) = matrix.dim();
        // Of the largest matrix: A, B or, for DoRA, AAᵀ.
        let elements = self.rank.checked_mul(outputs.max(inputs).max(self.rank));
        let fits = elements.is_some_and(|elements| elements <= isize::MAX as usize / size_of::<A>());
        within("rank", self.rank as f64, fits, "a rank whose matrices fit into memory")?;
        Ok((outputs, inputs))
    }

    /// The adapter of these matrices. For DoRA `weight` is the W that the layer computes with now.
    fn with<A: Scalar>(
        &self,
        weight: &ArrayRef2<A>,
        lora_a: Array2<A>,
        lora_b: Array2<A>,
        layer: AdaptedLayer,
    ) -> Result<Lora<A>> {
        let magnitude = self.dora.map(|_| finite("weight", weight).map(|()| norms(weight))).transpose()?;
        let norm = self.dora.unwrap_or_default();
        Ok(Lora { lora_a, lora_b, magnitude, scale: self.scale_as()?, dropout: self.dropout, norm, layer })
    }
}

pub(super) fn within(argument: &'static str, value: f64, holds: bool, accepted: &str) -> Result<()> {
    match holds {
        true => Ok(()),
        false => Err(Error::Argument(ArgumentError::Range { argument, value, accepted: accepted.into() })),
    }
}
