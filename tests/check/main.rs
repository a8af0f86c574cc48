//! The gradient checker: what it finds, what it lets pass, what it refuses, and what it leaves behind.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod findings;
mod layouts;
mod refusals;
mod report;
mod sampling;

/// Of a right gradient in f64, element by element.
const TOLERANCE: f64 = 1e-6;
