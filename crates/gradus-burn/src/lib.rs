#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod element;
mod error;
mod flat;
mod gradients;
mod leaf;
mod lend;
mod step;
mod way;

pub use element::BurnElement;
pub use error::{Error, Result};
pub use lend::{Lent, lend, lend_as};
pub use step::{Report, step, step_as};
