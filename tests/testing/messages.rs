//! What the author of an optimizer reads if it breaks a law.

use gradus::testing::Law;

use crate::optimizers::laws;

#[test]
#[should_panic(expected = "Average in f64 breaks Law::ZeroGradient. A gradient that was always 0 moves nothing")]
fn run_panics_with_the_law() {
    laws(Some(Law::ZeroGradient)).run();
}

#[test]
#[should_panic(expected = "case:  shape [7], parameter Sliced, gradient C, 2 steps\n  found: (root) is 0.78")]
fn run_one_panics_with_the_case() {
    laws(Some(Law::MemoryLayouts)).run_one(Law::MemoryLayouts);
}
