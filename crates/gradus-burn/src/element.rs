//! The element types that both libraries know.

use bytemuck::Pod;

/// An element type of parameters: `f32`, `f64`, `bf16`, `f16`.
///
/// 16-bit parameters need [`master_weights`](gradus::OptimizerExt::master_weights). The trait is implemented for every type that qualifies.
pub trait BurnElement: gradus::Element + burn::tensor::Element + Pod {}

impl<A: gradus::Element + burn::tensor::Element + Pod> BurnElement for A {}
