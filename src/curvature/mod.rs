//! Curvature: taps of layers, and K-FAC.
//!
//! A [`LinearTap`] holds a layer's inputs and output gradients from a backward pass. With the feature `second-order`, `Kfac` uses taps to
//! precondition gradients. Low-rank adapters and per-example norms use them too.

#[cfg(feature = "second-order")]
mod kfac;
pub(crate) mod tap;

#[cfg(feature = "second-order")]
pub use kfac::{Kfac, Layer, sample};
pub use tap::{LinearTap, rows, unfold};
