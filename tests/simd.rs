//! Which SIMD level is there, and which is in use.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::Command;

use gradus::simd::{self, Level};

/// What the processor says, not `pulp`: a level that this build was made without is missing.
#[test]
fn every_level_of_the_machine_is_compiled() {
    let mut expected = vec![Level::Baseline];
    #[cfg(target_arch = "x86_64")]
    {
        let v3 = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("bmi1")
            && is_x86_feature_detected!("bmi2")
            && is_x86_feature_detected!("lzcnt");
        let v4 = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512cd")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl");
        expected.extend(v3.then_some(Level::V3));
        expected.extend((v3 && v4).then_some(Level::V4));
    }
    #[cfg(target_arch = "aarch64")]
    expected.extend(std::arch::is_aarch64_feature_detected!("neon").then_some(Level::Neon));
    assert_eq!(simd::available(), expected);
}

/// In a process of its own, for which [`says`] is asked about its level.
fn level_with(variable: Option<&str>) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--ignored", "--exact", "says", "--nocapture"]).env_remove(simd::VARIABLE);
    let output = command.envs(variable.map(|value| (simd::VARIABLE, value))).output().unwrap();
    let output = String::from_utf8(output.stdout).unwrap();
    let level = output.lines().find_map(|line| line.split_once("the level is "));
    level.map_or_else(|| output.clone(), |(_, level)| level.into())
}

#[test]
#[ignore = "the answer of the processes that level_with starts"]
fn says() {
    println!("the level is {}", simd::level());
}

#[test]
fn the_variable_asks_for_a_level_and_what_is_none_changes_nothing() {
    let available = simd::available();
    let highest = available.last().unwrap().name();
    assert_eq!(level_with(None), highest);
    for level in &available {
        assert_eq!(level_with(Some(level.name())), level.name());
    }
    // No level at all, and one of another processor.
    let foreign = if cfg!(target_arch = "aarch64") { Level::V3 } else { Level::Neon };
    for value in ["", "V3", "avx2", "v3,v4", foreign.name()] {
        assert_eq!(level_with(Some(value)), highest, "{value:?}");
    }
}

#[test]
fn a_lower_level_can_be_used_and_a_missing_one_is_refused() {
    let available = simd::available();
    for level in available.iter().chain(available.iter().rev()) {
        simd::use_level(*level).unwrap();
        assert_eq!(simd::level(), *level);
        let foreign = if cfg!(target_arch = "aarch64") { Level::V3 } else { Level::Neon };
        let error = simd::use_level(foreign).unwrap_err();
        assert_eq!(
            error,
            gradus::Error::Argument(gradus::error::ArgumentError::SimdLevel {
                level: foreign,
                available: available.clone()
            })
        );
        assert_eq!(simd::level(), *level);
    }
}
