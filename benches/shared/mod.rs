//! What more than one bench needs.

pub(crate) mod floor;
pub(crate) mod layouts;
pub(crate) mod optimizers;
pub(crate) mod tensors;
