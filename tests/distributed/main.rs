//! Ranks that train together do what one process would.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod sharded;
