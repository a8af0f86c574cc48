//! State dictionaries: a run that stops and goes on is the run that never stopped, and a wrong state changes nothing.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod chains;
mod changed;
mod memory;
mod resized;
mod resume;
mod settings;
mod strict;
