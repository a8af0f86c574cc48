//! Federated learning: rounds, their faults, and what goes on on servers and clients.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod drift;
mod faults;
mod golden;
mod messages;
mod ranks;
mod resume;
mod rounds;
