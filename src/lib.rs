#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod adaptor;
pub mod check;
#[cfg(feature = "checkpoint")]
pub mod checkpoint;
pub mod clip;
pub mod curvature;
#[cfg(feature = "distributed")]
pub mod distributed;
pub mod error;
#[cfg(feature = "federated")]
pub mod federated;
pub mod guide;
mod kernel;
#[cfg(feature = "lora")]
pub mod lora;
pub mod optimizer;
pub mod params;
pub mod prelude;
pub mod rule;
pub mod schedule;
mod state;
mod step;
#[cfg(feature = "testing")]
pub mod testing;

pub use curvature::LinearTap;
pub use error::{Error, Result};
#[cfg(feature = "derive")]
pub use gradus_derive::Params;
pub use kernel::simd;
pub use ndarray;
#[cfg(feature = "config")]
#[doc(inline)]
pub use optimizer::config;
pub use optimizer::list::*;
pub use optimizer::{GuardExt, OptimizerExt, StepExt};
pub use params::{Element, Params, ParamsMut, Pattern, Rows, Scalar};
pub use schedule::Hyper;
pub use state::{Commit, StateDict, StateReader, StateWriter};
pub use step::{
    Adjust, ChainDescription, Follower, Grad, Made, Optimizer, PerTensor, Preview, Replaced, Report, Step, StopReason,
    Tensor, TensorReport,
};
pub use step::{set, tree};
