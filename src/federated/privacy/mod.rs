//! Differential privacy: sampling, clipping, noise and accounting.
//!
//! Training is (ε, δ)-differentially private if adding or removing one example changes the probability of any outcome by at most a factor of
//! exp(ε), except with probability δ. Four parts are needed:
//!
//! | part | function |
//! |---|---|
//! | each example is sampled independently | [`GaussianMechanism::sample`] |
//! | the norm of each example's gradient is limited | [`PerExample::clip`]; for a client's change [`GaussianMechanism::clip_change`] |
//! | the sum gets noise that hides any one example | [`GaussianMechanism::finish`] |
//! | the privacy spent by all steps is added up | [`Accountant`], in the mechanism |
//!
//! A training loop that protects single examples (DP-SGD):
//!
//! ```
//! use gradus::federated::privacy::{GaussianMechanism, PerExample, noise_for};
//! use gradus::{LinearTap, prelude::*};
//! use ndarray::{Array1, Array2, Axis};
//! use std::collections::BTreeMap;
//!
//! // A line through 200 points, with squared loss. The parameters are named as the layer's tensors.
//! let x = Array2::from_shape_fn((200, 1), |(i, _)| i as f64 / 100.0 - 1.0);
//! let y = 3.0 * &x + 1.0;
//! let mut model = BTreeMap::from([
//!     ("line.weight", Array2::zeros((1, 1)).into_dyn()),
//!     ("line.bias", Array1::zeros(1).into_dyn()),
//! ]);
//!
//! let (steps, rate) = (300, 0.25);
//! let noise = noise_for(8.0, 1e-5, rate, steps)?;
//! let mut mechanism = GaussianMechanism::new(1.0, noise, rate, x.nrows())?;
//! let mut opt = Sgd::new(0.3);
//! for _ in 0..steps {
//!     let batch = mechanism.sample(); // may be empty: still a step
//!     let (x, y) = (x.select(Axis(0), &batch), y.select(Axis(0), &batch));
//!     // The backward pass: one row for each example, of its own loss, not divided by the batch.
//!     let output_grad: Array2<f64> = &x * model["line.weight"].sum() + model["line.bias"].sum() - &y;
//!     let taps = PerExample::new().layer("line", LinearTap::new(&x, &output_grad))?;
//!     let mut grads = taps.clip(mechanism.clip())?.grads;
//!     mechanism.finish(&mut grads)?; // noise, then divided by 50, the expected size of the batch
//!     opt.step(&mut model, &grads)?;
//! }
//! let spent = mechanism.epsilon(1e-5)?;
//! assert!(spent.epsilon <= 8.0 && (model["line.weight"].sum() - 3.0).abs() < 1.0);
//! # Ok::<(), gradus::Error>(())
//! ```
//!
//! To protect whole clients (DP-FedAvg), see [`Server::private`](super::Server::private).
//!
//! # Limits
//! - Choices that you make by looking at the data are not protected: hyper-parameters, when to stop, normalization by the mean of all data.
//! - The memory of the training machine is not protected.

mod accountant;
mod mechanism;
pub(crate) mod noise;
mod per_example;
mod rdp;
mod server;

use crate::error::{Error, Result};

pub use accountant::{Accountant, Spending, Spent, noise_for};
pub use mechanism::GaussianMechanism;
pub use per_example::{Clipped, PerExample};
pub use server::Private;

/// Returns an error unless this can be the largest norm of a part.
fn check_clip(max_norm: f64) -> Result<()> {
    match max_norm > 0.0 && max_norm.is_finite() {
        true => Ok(()),
        false => Err(Error::argument("clip", max_norm, "a finite number above 0")),
    }
}
