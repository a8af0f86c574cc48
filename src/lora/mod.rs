//! Low-rank adapters (LoRA): a large weight is frozen, and a small product of two matrices that is added to it is trained.
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
//! [`Lora`] has the formulas. An adapter is a [`Params`](trait@crate::Params) tree of its own, so an optimizer has state only for the adapter.

mod adapter;
mod config;
mod dora;
mod embedding;
mod init;
mod layer;
mod passes;
#[cfg(feature = "checkpoint")]
pub mod peft;

use crate::adaptor::{Adapted, Group, Grouped, Transforming};
use crate::optimizer::OptimizerExt;
use crate::params::Element;
use crate::schedule::Hyper;
use crate::step::Optimizer;

pub use adapter::{Backward, Grads, Lora, Merged, NormGradient};
pub use config::Config;
pub use init::Init;
pub use layer::AdaptedLayer;

/// LoRA+: the learning rate of every B is `ratio` times that of A; the paper recommends 16.
///
/// S. Hayou, N. Ghosh and B. Yu, *LoRA+: Efficient Low Rank Adaptation of Large Models* (2024), [arXiv:2402.12354](https://arxiv.org/abs/2402.12354).
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
