//! What a training loop imports: `use gradus::prelude::*;`.

/// Derives [`Params`](trait@Params) and [`ParamsMut`] for a struct of arrays.
#[cfg(feature = "derive")]
pub use gradus_derive::Params;

pub use crate::adaptor::{Group, NonFinite};
#[doc(hidden)]
pub use crate::optimizer::features_off::FeaturesOff as _;
pub use crate::optimizer::list::*;
pub use crate::optimizer::{GuardExt, OptimizerExt, StepExt};
pub use crate::params::{Element, Params, ParamsMut, Rows, Scalar};
pub use crate::rule::Elementwise;
pub use crate::schedule::{Schedule, ScheduleExt};
pub use crate::step::Optimizer;
