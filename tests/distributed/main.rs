//! Training on several ranks. What every rank does is a function of its group, whatever engine that is; here ranks are threads.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, and some ranks do so by intent")]

mod compression;
mod data_parallel;
mod digits;
mod faults;
mod limits;
mod local_steps;
mod ranks;
mod refusals;
mod sharded;
