//! Every error: what provokes it, what it says, and that it leaves everything as it was.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod asked;
mod atomic;
mod every_adaptor;
mod messages;
mod ranges;
