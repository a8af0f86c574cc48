//! Federated learning: rounds, privacy, sums of which nobody sees a part.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod accountant;
mod per_example;
mod secure;
