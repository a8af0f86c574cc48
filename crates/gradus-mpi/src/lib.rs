#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod call;
mod group;
mod pieces;

pub use group::MpiGroup;
