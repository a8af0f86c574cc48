//! Low-rank adapters (LoRA): a large weight is kept, a small product of two matrices beside it learns.
//!
//! ```
//! use gradus::lora::Config;
//! use gradus::prelude::*;
//! use ndarray::Array2;
//! # use rand::SeedableRng;
//! # let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(0);
//!
//! let weight = Array2::<f32>::eye(16); // (out, in); yours, and never moved
//! let mut adapter = Config::new(2, 4.0).adapt(&weight, &mut rng)?;
//! let mut opt = AdamW::new(1e-2);
//!
//! let (x, target) = (Array2::eye(16), Array2::<f32>::eye(16).mapv(|w| 2.0 * w)); // (batch, in), (batch, out)
//! let loss = |y: &Array2<f32>| (y - &target).mapv(|error| error * error).sum();
//! let before = loss(&adapter.forward(&weight, &x)?);
//! for _ in 0..200 {
//!     let y = adapter.forward(&weight, &x)?;
//!     let output_grad = (&y - &target) * 2.0;
//!     let backward = adapter.backward(&weight, &x, &output_grad)?; // and backward.input, for the layer before
//!     opt.step(&mut adapter, &backward.grads)?;
//! }
//! assert!(loss(&adapter.forward(&weight, &x)?) < 0.9 * before);
//! # Ok::<(), gradus::Error>(())
//! ```
//!
//! [`Lora`] has the formulas. An adapter is a [`Params`] tree of its own, so that whatever optimizer steps it
//! has state for nothing else.

mod dora;
mod init;
#[cfg(feature = "checkpoint")]
pub mod peft;

use ndarray::linalg::general_mat_mul;
use ndarray::{Array1, Array2, ArrayRef2, Axis};
use rand::{Rng, RngExt};

use crate::adaptor::{Adapted, Group, Grouped, Transforming};
use crate::curvature::tap::{LinearTap, finite};
use crate::error::{Error, Result};
use crate::optimizer::OptimizerExt;
use crate::params::{Element, Params, ParamsMut, Scalar, Visitor, VisitorMut};
use crate::schedule::Hyper;
use crate::step::Optimizer;

pub use dora::Norm;
pub use init::Init;

/// What an adapter is to be: its rank and α, and the variants of LoRA.
///
/// # Hyper-parameters
/// | name | default | range | meaning |
/// |---|---|---|---|
/// | `rank` r | – | ≥ 1 | columns of B, rows of A |
/// | `alpha` α | – | finite | the scale is s = α/r |
/// | [`rank_stabilized`](Self::rank_stabilized) | no | | s = α/√r instead (rsLoRA) |
/// | [`dropout`](Self::dropout) | 0 | 0 ≤ p < 1 | share of the adapter's inputs left out in training |
/// | [`init`](Self::init) | Kaiming | [`Init`] | what A begins with; B begins with 0 |
/// | [`dora`](Self::dora) | no | [`Norm`] | learn the length of every row apart (DoRA) |
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Config {
    pub(crate) rank: usize,
    pub(crate) alpha: f64,
    pub(crate) rank_stabilized: bool,
    pub(crate) dropout: f64,
    pub(crate) init: Init,
    pub(crate) dora: Option<Norm>,
}

impl Config {
    /// Rank r and α.
    pub fn new(rank: usize, alpha: f64) -> Self {
        Self { rank, alpha, rank_stabilized: false, dropout: 0.0, init: Init::Kaiming, dora: None }
    }

    /// The scale is α/√r, so that it does not fade as the rank grows.
    pub fn rank_stabilized(mut self) -> Self {
        self.rank_stabilized = true;
        self
    }

    /// The share of the adapter's inputs that [`Lora::mask`] leaves out.
    pub fn dropout(mut self, dropout: f64) -> Self {
        self.dropout = dropout;
        self
    }

    /// What A begins with.
    pub fn init(mut self, init: Init) -> Self {
        self.init = init;
        self
    }

    /// Learns the length of every row of the weight apart from its direction.
    pub fn dora(mut self, norm: Norm) -> Self {
        self.dora = Some(norm);
        self
    }

    /// The factor s of the product BA.
    pub fn scale(&self) -> f64 {
        let rank = self.rank as f64;
        self.alpha / if self.rank_stabilized { rank.sqrt() } else { rank }
    }

    /// An adapter that changes nothing yet, for a weight of shape (out, in).
    ///
    /// # Errors
    /// [`Error::HyperParameter`] for a rank of 0 or beyond the memory, an α that is not finite in the element type, a dropout
    /// outside its range;
    /// [`Error::NotFinite`] for DoRA of a weight that is not finite.
    pub fn adapt<A: Scalar>(&self, weight: &ArrayRef2<A>, rng: &mut impl Rng) -> Result<Lora<A>> {
        self.check()?;
        let (outputs, inputs) = weight.dim();
        // Of the largest matrix: A, B or, for DoRA, AAᵀ.
        let elements = self.rank.checked_mul(outputs.max(inputs).max(self.rank));
        let fits = elements.is_some_and(|elements| elements <= isize::MAX as usize / size_of::<A>());
        within("rank", self.rank as f64, fits, "a rank whose matrices fit into memory")?;
        let lora_a = self.init.draw((self.rank, inputs), rng);
        self.with(weight, lora_a, Array2::zeros((outputs, self.rank)))
    }

    /// An adapter that begins with the largest singular values of the weight, which keeps the rest (PiSSA).
    ///
    /// With `weight = U·diag(σ)·Vᵀ`, s·B·A is the part of the r largest σ, divided evenly: `B = U_r·√(σ_r/s)`,
    /// `A = √(σ_r/s)·V_rᵀ`. The weight becomes what is left, so that the layer computes the same as before.
    ///
    /// F. Meng, Z. Wang and M. Zhang, *PiSSA: Principal Singular Values and Singular Vectors Adaptation of Large Language
    /// Models* (2024), arXiv:2404.02948, section 3.
    ///
    /// # Errors
    /// Those of [`adapt`](Self::adapt); α must be above 0, the rank at most the smaller side of the weight, and the weight
    /// finite. The weight is then as it was.
    pub fn pissa<A: Scalar>(&self, weight: &mut ArrayRef2<A>) -> Result<Lora<A>> {
        self.check()?;
        within("alpha", self.alpha, self.alpha > 0.0, "above 0")?;
        let (outputs, inputs) = weight.dim();
        within("rank", self.rank as f64, self.rank <= outputs.min(inputs), "at most the smaller side of the weight")?;
        finite("weight", weight)?;
        let (lora_a, lora_b) = init::principal(weight, self.rank, self.scale())?;
        let adapter = self.with(weight, lora_a, lora_b)?;
        let mut residual = weight.to_owned();
        general_mat_mul(-adapter.scale, &adapter.lora_b, &adapter.lora_a, A::one(), &mut residual);
        finite("the residual", &residual)?;
        // The magnitudes are those of the whole weight, which was here until now.
        weight.assign(&residual);
        Ok(adapter)
    }

    fn check(&self) -> Result<()> {
        within("rank", self.rank as f64, self.rank > 0, "at least 1")?;
        within("alpha", self.alpha, self.alpha.is_finite(), "a finite number")?;
        within("dropout", self.dropout, (0.0..1.0).contains(&self.dropout), "a number in 0 ≤ dropout < 1")
    }

    /// The scale as a number of the adapter's type, which has a smaller range than f64 or the same.
    fn scale_as<A: Element>(&self) -> Result<A> {
        let scale = A::from_f64(self.scale());
        within("alpha", self.alpha, scale.is_finite(), &format!("finite as {}", A::DTYPE))?;
        Ok(scale)
    }

    /// The adapter of these matrices. For DoRA `weight` is what the layer computes with now.
    fn with<A: Scalar>(&self, weight: &ArrayRef2<A>, lora_a: Array2<A>, lora_b: Array2<A>) -> Result<Lora<A>> {
        let magnitude = self.dora.map(|_| finite("weight", weight).map(|()| dora::norms(weight))).transpose()?;
        let norm = self.dora.unwrap_or_default();
        Ok(Lora { lora_a, lora_b, magnitude, scale: self.scale_as()?, dropout: self.dropout, norm })
    }
}

/// A low-rank adapter of one weight: made by [`Config::adapt`] or [`Config::pissa`].
///
/// # Update rule
/// ```text
/// y  = xWᵀ + s(xAᵀ)Bᵀ                       x (batch, in), W (out, in), A (r, in), B (out, r)
/// dB = s·δᵀ(xAᵀ)        = s·G·Aᵀ            δ = dL/dy, G = dL/dW
/// dA = s·(δB)ᵀx         = s·Bᵀ·G
/// dx = δW + s·(δB)A
/// ```
/// With dropout the x of the adapter, not that of W, is masked. With DoRA, row by row,
/// ```text
/// y = (m/n)(xWᵀ + s(xAᵀ)Bᵀ)                 n = ‖W + sBA‖, m begins as n
/// ```
/// and the gradients pass through n, or not: see [`Norm`]. Nothing of the size of W is formed: of W + sBA some rows at a time, in
/// `f64`, so that norm and direction are those of the same numbers also where W and sBA nearly cancel.
///
/// # State
/// `lora_a`, `lora_b` and with DoRA `magnitude` are its tensors, by these paths.
///
/// # Conventions
/// Hugging Face's peft, [`peft`] reads and writes its files. With DoRA and dropout together peft also masks the x of W for a part
/// of the sum; here it is never masked.
///
/// # References
/// E. J. Hu et al., *LoRA: Low-Rank Adaptation of Large Language Models* (2021), arXiv:2106.09685, section 4.1.
/// D. Kalajdzievski, *A Rank Stabilization Scaling Factor for Fine-Tuning with LoRA* (2023), arXiv:2312.03732.
/// S.-Y. Liu et al., *DoRA: Weight-Decomposed Low-Rank Adaptation* (2024), arXiv:2402.09353, equations 5 and 11.
#[derive(Debug, Clone, PartialEq)]
pub struct Lora<A> {
    /// A, of shape (r, in).
    pub lora_a: Array2<A>,
    /// B, of shape (out, r).
    pub lora_b: Array2<A>,
    /// m, of shape (out): with DoRA.
    pub magnitude: Option<Array1<A>>,
    scale: A,
    dropout: f64,
    norm: Norm,
}

/// The gradients of an adapter's tensors: a tree like the adapter.
#[derive(Debug, Clone, PartialEq)]
pub struct Grads<A> {
    /// dL/dA, of shape (r, in).
    pub lora_a: Array2<A>,
    /// dL/dB, of shape (out, r).
    pub lora_b: Array2<A>,
    /// dL/dm, of shape (out): with DoRA.
    pub magnitude: Option<Array1<A>>,
}

/// What the backward pass through an adapted layer finds.
#[derive(Debug, Clone, PartialEq)]
pub struct Backward<A> {
    /// For the optimizer.
    pub grads: Grads<A>,
    /// dL/dx, of shape (batch, in): for the layer before.
    pub input: Array2<A>,
}

/// What [`Lora::unmerge`] needs to know to find the weight that was.
#[derive(Debug, Clone, PartialEq)]
#[must_use = "without it the weight cannot be unmerged"]
pub struct Merged<A> {
    /// m/n of DoRA, what the rows have been multiplied by.
    factors: Option<Array1<A>>,
}

/// A tree of the fields, by their names.
macro_rules! tree {
    ($($tree:ident)*) => {
        $(
            impl<A: Element> Params for $tree<A> {
                type Elem = A;

                fn visit<'a>(&'a self, visitor: &mut Visitor<'_, 'a, A>) {
                    visitor.field("lora_a", &self.lora_a);
                    visitor.field("lora_b", &self.lora_b);
                    visitor.field("magnitude", &self.magnitude);
                }
            }

            impl<A: Element> ParamsMut for $tree<A> {
                fn visit_mut<'a>(&'a mut self, visitor: &mut VisitorMut<'_, 'a, A>) {
                    visitor.field("lora_a", &mut self.lora_a);
                    visitor.field("lora_b", &mut self.lora_b);
                    visitor.field("magnitude", &mut self.magnitude);
                }
            }
        )*
    };
}

tree!(Lora Grads);

impl<A: Scalar> Lora<A> {
    /// The factor s of the product BA.
    pub fn scale(&self) -> A {
        self.scale
    }

    /// What to multiply the adapter's x with in one pass of training: 0 with the probability p of the
    /// [dropout](Config::dropout), else 1/(1 − p).
    pub fn mask(&self, shape: (usize, usize), rng: &mut impl Rng) -> Array2<A> {
        let kept = A::from_f64(1.0 / (1.0 - self.dropout));
        Array2::from_shape_simple_fn(shape, || if rng.random_bool(self.dropout) { A::zero() } else { kept })
    }

    /// The output of the adapted layer, of shape (batch, out), for x of shape (batch, in).
    ///
    /// # Errors
    /// [`Error::ArgumentShape`].
    pub fn forward(&self, weight: &ArrayRef2<A>, x: &ArrayRef2<A>) -> Result<Array2<A>> {
        self.check(weight, x)?;
        Ok(self.outputs(weight, x, None))
    }

    /// [`forward`](Self::forward) with dropout: `mask` is of x's shape, from [`mask`](Self::mask).
    ///
    /// # Errors
    /// [`Error::ArgumentShape`].
    pub fn forward_masked(&self, weight: &ArrayRef2<A>, x: &ArrayRef2<A>, mask: &ArrayRef2<A>) -> Result<Array2<A>> {
        self.check(weight, x)?;
        shape("mask", &[x.nrows(), x.ncols()], mask.shape())?;
        Ok(self.outputs(weight, x, Some(&(x * mask))))
    }

    /// The gradients, from x of shape (batch, in) and dL/dy of shape (batch, out).
    ///
    /// # Errors
    /// [`Error::ArgumentShape`].
    pub fn backward(&self, weight: &ArrayRef2<A>, x: &ArrayRef2<A>, output_grad: &ArrayRef2<A>) -> Result<Backward<A>> {
        self.check(weight, x)?;
        shape("output_grad", &[x.nrows(), self.lora_b.nrows()], output_grad.shape())?;
        Ok(self.gradients(weight, x, None, output_grad))
    }

    /// The gradients of the mean loss, from what the layer saw: see [`LinearTap`], whose `output_grad` is that of single losses.
    ///
    /// # Errors
    /// [`Error::ArgumentShape`], and those of [`LinearTap::check`].
    pub fn backward_tap(&self, weight: &ArrayRef2<A>, tap: LinearTap<'_, A>) -> Result<Grads<A>> {
        tap.check()?;
        let examples = A::from_f64(tap.examples() as f64);
        let mean = tap.output_grad.mapv(|grad| grad / examples);
        Ok(self.backward(weight, &tap.input, &mean)?.grads)
    }

    /// [`backward`](Self::backward) of [`forward_masked`](Self::forward_masked), with the same mask.
    ///
    /// # Errors
    /// [`Error::ArgumentShape`].
    pub fn backward_masked(
        &self,
        weight: &ArrayRef2<A>,
        x: &ArrayRef2<A>,
        mask: &ArrayRef2<A>,
        output_grad: &ArrayRef2<A>,
    ) -> Result<Backward<A>> {
        self.check(weight, x)?;
        shape("mask", &[x.nrows(), x.ncols()], mask.shape())?;
        shape("output_grad", &[x.nrows(), self.lora_b.nrows()], output_grad.shape())?;
        Ok(self.gradients(weight, x, Some([&(x * mask), mask]), output_grad))
    }

    /// The gradients from dL/dW′ of shape (out, in), with W′ the [merged](Self::merge) weight: where that is what the backward
    /// pass has.
    ///
    /// # Errors
    /// [`Error::ArgumentShape`].
    pub fn backward_weight(&self, weight: &ArrayRef2<A>, weight_grad: &ArrayRef2<A>) -> Result<Grads<A>> {
        self.check_weight(weight)?;
        shape("weight_grad", weight.shape(), weight_grad.shape())?;
        if let Some(grads) = self.dora_gradients_by_weight(weight, weight_grad) {
            return Ok(grads);
        }
        let (a, b) = (&self.lora_a, &self.lora_b);
        Ok(Grads {
            lora_a: scaled(b.t().dot(weight_grad), self.scale),
            lora_b: scaled(weight_grad.dot(&a.t()), self.scale),
            magnitude: None,
        })
    }

    /// Makes the adapter part of the weight: `W ← W + sBA`, with DoRA `W ← (m/n)(W + sBA)`. Checked: the weight is as it was if
    /// the result is not finite.
    ///
    /// # Errors
    /// [`Error::ArgumentShape`], [`Error::NotFinite`].
    pub fn merge(&self, weight: &mut ArrayRef2<A>) -> Result<Merged<A>> {
        self.check_weight(weight)?;
        let mut merged = weight.to_owned();
        let factors = self.dora_merged(&mut merged);
        if factors.is_none() {
            general_mat_mul(self.scale, &self.lora_b, &self.lora_a, A::one(), &mut merged);
        }
        finite("the merged weight", &merged)?;
        weight.assign(&merged);
        Ok(Merged { factors })
    }

    /// Takes the adapter out of the weight again; the adapter must be as it was when it was merged.
    ///
    /// The weight is what it was but for rounding: about 10⁻⁷ relative in f32.
    ///
    /// # Errors
    /// [`Error::ArgumentShape`]; [`Error::NotFinite`] if a magnitude of DoRA is 0, which lets nothing through. The weight is
    /// then as it was.
    pub fn unmerge(&self, weight: &mut ArrayRef2<A>, merged: Merged<A>) -> Result<()> {
        self.check_weight(weight)?;
        shape("what was merged", lengths(&self.magnitude), lengths(&merged.factors))?;
        let mut base = weight.to_owned();
        if let Some(factors) = &merged.factors {
            base /= &column(factors);
        }
        general_mat_mul(-self.scale, &self.lora_b, &self.lora_a, A::one(), &mut base);
        finite("the unmerged weight", &base)?;
        weight.assign(&base);
        Ok(())
    }

    /// The output; `masked` is what the adapter sees of x, if that is not x itself.
    fn outputs(&self, weight: &ArrayRef2<A>, x: &ArrayRef2<A>, masked: Option<&ArrayRef2<A>>) -> Array2<A> {
        self.dora_outputs(weight, x, masked).unwrap_or_else(|| {
            let mut y = x.dot(&weight.t());
            let reduced = masked.unwrap_or(x).dot(&self.lora_a.t());
            general_mat_mul(self.scale, &reduced, &self.lora_b.t(), A::one(), &mut y);
            y
        })
    }

    /// The gradients; `masked` is what the adapter sees of x, and the mask.
    fn gradients(
        &self,
        weight: &ArrayRef2<A>,
        x: &ArrayRef2<A>,
        masked: Option<[&ArrayRef2<A>; 2]>,
        output_grad: &ArrayRef2<A>,
    ) -> Backward<A> {
        if let Some(backward) = self.dora_gradients(weight, x, masked, output_grad) {
            return backward;
        }
        let (a, b) = (&self.lora_a, &self.lora_b);
        let seen = masked.map_or(x, |[masked, _]| masked);
        let reduced = scaled(output_grad.dot(b), self.scale);
        let grads = Grads {
            lora_a: reduced.t().dot(seen),
            lora_b: scaled(output_grad.t().dot(&seen.dot(&a.t())), self.scale),
            magnitude: None,
        };
        let mut input = output_grad.dot(weight);
        match masked {
            None => general_mat_mul(A::one(), &reduced, a, A::one(), &mut input),
            Some([_, mask]) => input += &(reduced.dot(a) * mask),
        }
        Backward { grads, input }
    }

    fn check_weight(&self, weight: &ArrayRef2<A>) -> Result<()> {
        let (outputs, inputs) = (self.lora_b.nrows(), self.lora_a.ncols());
        shape("lora_b", &[outputs, self.lora_a.nrows()], self.lora_b.shape())?;
        if let Some(magnitude) = &self.magnitude {
            shape("magnitude", &[outputs], magnitude.shape())?;
        }
        shape("weight", &[outputs, inputs], weight.shape())
    }

    fn check(&self, weight: &ArrayRef2<A>, x: &ArrayRef2<A>) -> Result<()> {
        self.check_weight(weight)?;
        shape("x", &[x.nrows(), self.lora_a.ncols()], x.shape())
    }
}

/// LoRA+: the B of every adapter learns `ratio` times as fast as the A; 16 is the paper's advice.
///
/// S. Hayou, N. Ghosh and B. Yu, *LoRA+: Efficient Low Rank Adaptation of Large Models* (2024), arXiv:2402.12354.
///
/// ```
/// use gradus::lora::{self, Config};
/// use gradus::prelude::*;
/// # use rand::SeedableRng;
/// # let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(0);
///
/// let weight = ndarray::Array2::<f32>::zeros((3, 4));
/// let mut adapter = Config::new(2, 2.0).adapt(&weight, &mut rng)?;
/// let grads = adapter.clone();
/// let mut opt = lora::plus(Sgd::new(1e-3), 16.0);
/// opt.step(&mut adapter, &grads)?;
/// # Ok::<(), gradus::Error>(())
/// ```
pub fn plus<A: Element, O: Optimizer<A>>(optimizer: O, ratio: impl Into<Hyper>) -> Adapted<O, Transforming<Grouped>> {
    optimizer.group("**.lora_b", Group::new().scale_learning_rate(ratio))
}

/// A vector of one number for each row.
fn column<A: Element>(factors: &Array1<A>) -> ndarray::ArrayView2<'_, A> {
    factors.view().insert_axis(Axis(1))
}

/// The shape of what only DoRA has: that of a number where there is none.
fn lengths<A>(rows: &Option<Array1<A>>) -> &[usize] {
    rows.as_ref().map_or(&[], |rows| rows.shape())
}

fn scaled<A: Element>(mut matrix: Array2<A>, scale: A) -> Array2<A> {
    matrix.mapv_inplace(|x| x * scale);
    matrix
}

fn shape(argument: &'static str, expected: &[usize], found: &[usize]) -> Result<()> {
    match expected == found {
        true => Ok(()),
        false => Err(Error::ArgumentShape { argument, expected: expected.into(), found: found.into() }),
    }
}

fn within(name: &'static str, value: f64, holds: bool, accepted: &str) -> Result<()> {
    match holds {
        true => Ok(()),
        false => Err(Error::HyperParameter { name, value, step: 0, path: None, accepted: accepted.into() }),
    }
}
