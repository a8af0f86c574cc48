#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

pub mod adaptor;
mod aligned;
pub mod check;
#[cfg(feature = "checkpoint")]
pub mod checkpoint;
pub mod clip;
mod counter;
#[cfg(feature = "second-order")]
mod decomposition;
#[cfg(feature = "distributed")]
mod digest;
#[cfg(feature = "distributed")]
pub mod distributed;
mod error;
#[cfg(feature = "federated")]
pub mod federated;
mod follower;
mod grad;
pub mod guide;
mod hyper;
#[cfg(feature = "second-order")]
pub mod kfac;
#[cfg(feature = "second-order")]
mod linalg;
#[cfg(feature = "lora")]
pub mod lora;
mod norm;
pub mod optimizer;
pub mod params;
mod pattern;
pub mod prelude;
mod product;
pub mod rule;
mod scalar;
pub mod schedule;
pub mod simd;
mod state;
mod step;
pub mod tap;
mod threads;

pub use error::{Error, Result};
pub use follower::Follower;
pub use grad::Grad;
#[cfg(feature = "derive")]
pub use gradus_derive::Params;
pub use hyper::Hyper;
pub use optimizer::{Adam, AdamW, Lbfgs, Momentum, Muon, Nesterov, Optimizer, RmsProp, Sgd};
#[cfg(feature = "second-order")]
pub use optimizer::{Shampoo, Soap};
pub use params::{Params, ParamsMut};
pub use pattern::Pattern;
pub use scalar::{Element, Scalar};
pub use state::{Commit, StateDict, StateReader, StateWriter};
pub use step::{Adjust, Preview, Report, Step, Tensor};
pub use tap::LinearTap;
