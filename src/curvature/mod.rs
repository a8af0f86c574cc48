//! Curvature: what layers saw, and steps that use it.
//!
//! A [`LinearTap`] is what one layer saw in a backward pass. With the feature `second-order`, `Kfac` preconditions gradients by it;
//! adapters and norms of single examples read taps too.

#[cfg(feature = "second-order")]
mod kfac;
pub(crate) mod tap;

#[cfg(feature = "second-order")]
pub use kfac::{Kfac, Layer, sample};
pub use tap::{LinearTap, rows, unfold};
