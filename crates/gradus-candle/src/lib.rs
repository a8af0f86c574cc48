#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod element;
mod error;
mod gradients;
mod lent;
mod vars;

pub use element::CandleElement;
pub use error::{Error, Result};
pub use gradients::Gradients;
pub use lent::Lent;
pub use vars::Vars;
