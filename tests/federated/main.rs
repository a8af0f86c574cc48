//! Federated learning: rounds, their faults, what goes on on servers and clients, privacy, sums of which nobody sees a part.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod accountant;
mod drift;
mod faults;
mod golden;
mod liars;
mod limits;
mod local_steps;
mod messages;
mod per_example;
mod private;
mod ranks;
mod resume;
mod rounds;
mod secure;
