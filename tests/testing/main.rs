//! Every law of [`gradus::testing`] catches something that breaks it, and nothing that keeps it.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by panicking")]

mod adaptors;
mod messages;
mod optimizers;
mod schedules;

use std::panic::{AssertUnwindSafe, catch_unwind};

use gradus::simd;
use gradus::testing::Law;

/// Asserts that a law catches what breaks it. With one SIMD level there is nothing to compare.
fn assert_caught(law: Law, run: impl FnOnce()) {
    if law != Law::SimdLevels || simd::available().len() > 1 {
        let panic = catch_unwind(AssertUnwindSafe(run)).expect_err(&format!("Law::{law} is kept"));
        let message = panic.downcast::<String>().unwrap();
        assert!(message.contains(&format!("breaks Law::{law}. {}", law.statement())), "Law::{law}: {message}");
        assert!(message.contains("found:") && message.contains(law.hint()), "Law::{law}: {message}");
    }
}

#[test]
fn every_law_has_something_that_breaks_it() {
    let broken: Vec<Law> = [Law::OF_OPTIMIZERS, Law::OF_ADAPTORS, Law::OF_SCHEDULES].concat();
    let missing: Vec<_> = Law::ALL.iter().filter(|law| !broken.contains(law)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
