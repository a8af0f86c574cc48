//! What a training loop imports: `use gradus::prelude::*;`.

/// Derives [`Params`](trait@Params) and [`ParamsMut`] for a struct of arrays.
#[cfg(feature = "derive")]
pub use gradus_derive::Params;

pub use crate::adaptor::{Group, NonFinite};
#[doc(hidden)]
pub use crate::optimizer::features_off::FeaturesOff as _;
pub use crate::optimizer::{Adam, AdamW, Lbfgs, Momentum, Muon, Nesterov, OptimizerExt, RmsProp, Sgd};
#[cfg(feature = "second-order")]
pub use crate::optimizer::{Shampoo, Soap};
pub use crate::params::{Element, Params, ParamsMut, Scalar};
pub use crate::rule::Elementwise;
pub use crate::schedule::Schedule;
pub use crate::step::Optimizer;
