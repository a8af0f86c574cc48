//! Modules of burn, stepped by gradus.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod checkpoint;
mod errors;
mod half;
mod memory;
mod modules;
mod safety;
mod sharing;
mod support;
mod trajectory;
mod zero_size;
