//! Gradient-descent optimizers over `ndarray` parameters.
#![forbid(unsafe_code)]

mod error;
mod grad;
mod hyper;
pub mod optimizer;
pub mod params;
pub mod prelude;
pub mod rule;
mod scalar;
pub mod schedule;
mod step;

pub use error::{Error, Result};
pub use grad::Grad;
#[cfg(feature = "derive")]
pub use gradus_derive::Params;
pub use hyper::Hyper;
pub use optimizer::{Adam, AdamW, Optimizer};
pub use scalar::Scalar;
pub use step::{Adjust, Report, Step, Tensor};
