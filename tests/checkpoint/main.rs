//! Checkpoints: what is saved comes back, whatever happens to the process or to the file.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../state/chains.rs"]
mod chains;
mod files;
mod foreign;
mod killed;
mod mutated;
mod part;
#[path = "../shared/parts.rs"]
mod parts;
mod places;
mod reordered;
mod structure;
mod torch;
