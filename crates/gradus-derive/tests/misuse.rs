//! The compiler explains common mistakes: a struct that is not a tree, a learning rate that is not a schedule, a feature that is off.

#[test]
fn misuse_is_explained() {
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}
