//! The guide: how to train with gradus, step by step. Its code is tested.

#[doc = include_str!("../guide/training.md")]
pub mod training {}

#[doc = include_str!("../guide/gradients.md")]
pub mod gradients {}

#[doc = include_str!("../guide/fine_tuning.md")]
pub mod fine_tuning {}

#[cfg(feature = "config")]
#[doc = include_str!("../guide/settings.md")]
pub mod settings {}

#[doc = include_str!("../guide/curvature.md")]
pub mod curvature {}

#[cfg(feature = "distributed")]
#[doc = include_str!("../guide/distributed.md")]
pub mod distributed {}

#[cfg(feature = "federated")]
#[doc = include_str!("../guide/federated.md")]
pub mod federated {}

#[doc = include_str!("../guide/which_optimizer.md")]
pub mod which_optimizer {}

#[doc = include_str!("../guide/coming_from.md")]
pub mod coming_from {
    #[doc = include_str!("../guide/coming_from/optax.md")]
    pub mod optax {}

    #[doc = include_str!("../guide/coming_from/timm.md")]
    pub mod timm {}

    #[doc = include_str!("../guide/coming_from/hugging_face.md")]
    pub mod hugging_face {}
}

#[doc = include_str!("../guide/speed.md")]
#[doc = ""]
#[doc = include_str!("../guide/speed.svg")]
pub mod speed {}

#[doc = include_str!("../guide/memory.md")]
pub mod memory {}

#[doc = include_str!("../guide/extending.md")]
pub mod extending {}
