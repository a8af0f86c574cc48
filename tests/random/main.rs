//! A random tester: programs, trees that lie, files and servers, made from a seed, and what the library promises of all of them.
//!
//! Every case has a number of its own from which all of it follows. A failure is printed with what was done and with the command
//! that repeats that one case. From the environment, each with a default that CI can afford:
//!
//! | variable | meaning |
//! |---|---|
//! | `GRADUS_RANDOM_PROGRAMS`, `…_RANKS`, `…_TREES`, `…_FILES`, `…_SERVERS` | how many cases of each kind |
//! | `GRADUS_RANDOM_SEED` | the number of the first case |
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod actions;
mod build;
mod chains;
mod dials;
mod faults;
mod files;
mod lying;
mod own;
#[path = "../shared/parts.rs"]
mod parts;
mod programs;
mod ranks;
mod report;
mod runs;
mod servers;
mod trees;

use report::Cases;

#[test]
fn programs() {
    Cases::of("programs", 2000).run_and_shrink(programs::case, programs::least);
}

#[test]
fn ranks() {
    Cases::of("ranks", 200).run(ranks::case);
}

#[test]
fn trees_that_lie() {
    Cases::of("trees", 400).run(lying::case);
}

/// Each case is four files or states.
#[test]
fn files() {
    Cases::of("files", 250).run(files::case);
}

#[test]
fn servers() {
    Cases::of("servers", 60).run(servers::case);
}

/// A tester that finds nothing could be one that looks at nothing.
#[test]
fn a_broken_adaptor_is_found() {
    let found = (0..60).filter_map(|seed| programs::broken(seed).err());
    assert!(found.filter(|failure| failure.kind.starts_with("state has changed after")).count() > 5);
}
