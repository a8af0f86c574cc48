//! The element types that both libraries know.

use bytemuck::Pod;

/// An element type of parameters: `f32`, `f64`, `bf16`, `f16`.
///
/// The 16-bit ones are stepped through [`Optimizer::master_weights`](gradus::Optimizer::master_weights). Implemented for
/// all that it asks for.
pub trait BurnElement: gradus::Element + burn::tensor::Element + Pod {}

impl<A: gradus::Element + burn::tensor::Element + Pod> BurnElement for A {}
