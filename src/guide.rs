//! The guide: how to train with gradus, step by step. Its code is tested.

#[doc = include_str!("../guide/training.md")]
pub mod training {}

#[doc = include_str!("../guide/fine_tuning.md")]
pub mod fine_tuning {}

#[doc = include_str!("../guide/curvature.md")]
pub mod curvature {}

#[doc = include_str!("../guide/distributed.md")]
pub mod distributed {}

#[doc = include_str!("../guide/coming_from.md")]
pub mod coming_from {}

#[doc = include_str!("../guide/speed.md")]
#[doc = ""]
#[doc = include_str!("../guide/speed.svg")]
pub mod speed {}

#[doc = include_str!("../guide/extending.md")]
pub mod extending {}
