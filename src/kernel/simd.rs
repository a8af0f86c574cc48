//! Which SIMD instructions steps are taken with.
//!
//! The loops over memory are compiled once for every [`Level`] that a processor of the target may have. The first step chooses the
//! highest level that the machine has. Parameters and state have the same bits at every level; only the time differs.
//!
//! You can choose a lower level, to compare levels or to reproduce the time of another machine: with [`use_level`] for the whole
//! process, or with the environment variable `GRADUS_SIMD`, which is read once, before the first step. Its value is the
//! [name](Level::name) of a level. An unknown name, or a level that is not [`available`], is ignored; [`level`] returns the level
//! in use.
//!
//! ```
//! use gradus::simd::{self, Level};
//!
//! println!("{} of {:?}", simd::level(), simd::available()); // v4 of [Baseline, V3, V4]
//! simd::use_level(Level::Baseline)?;
//! assert_eq!(simd::level(), Level::Baseline);
//! # Ok::<(), gradus::Error>(())
//! ```
//!
//! Products and decompositions of matrices (Muon, curvature) are made by `ndarray` and `faer`, which choose their instructions
//! themselves: the level does not change their bits, but the machine may.

use std::fmt;
use std::sync::atomic::{AtomicU8, Ordering};

use pulp::Arch;

use crate::error::{Error, Result};

/// The environment variable that asks for a level.
pub const VARIABLE: &str = "GRADUS_SIMD";

/// A set of SIMD instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum Level {
    /// What the compiler was told to expect of the target: SSE2 on x86-64.
    Baseline,
    /// ARM's NEON, 128 bits.
    Neon,
    /// WebAssembly's `simd128`, 128 bits.
    Simd128,
    /// x86-64-v3, 256 bits: AVX2, FMA, BMI and LZCNT. Intel from Haswell (2013), AMD from Excavator (2015).
    V3,
    /// x86-64-v4, 512 bits: v3 and AVX-512 F, BW, CD, DQ and VL. Intel's servers from Skylake (2017), AMD from Zen 4 (2022).
    V4,
}

/// The lowest first.
const ALL: [Level; 5] = [Level::Baseline, Level::Neon, Level::Simd128, Level::V3, Level::V4];

impl Level {
    /// The name, as `GRADUS_SIMD` has it: `baseline`, `neon`, `simd128`, `v3` or `v4`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Baseline => "baseline",
            Self::Neon => "neon",
            Self::Simd128 => "simd128",
            Self::V3 => "v3",
            Self::V4 => "v4",
        }
    }

    /// The instructions, if the machine has them. Each is named, so that a level that `pulp` was built without does not
    /// compile, and one that another crate adds to it (wasm's relaxed SIMD, whose bits may differ) is not used.
    #[inline]
    pub(crate) fn arch(self) -> Option<Arch> {
        match self {
            Self::Baseline => Some(Arch::Scalar),
            #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
            Self::V3 => pulp::x86::V3::try_new().map(Arch::V3),
            #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
            Self::V4 => pulp::x86::V4::try_new().map(Arch::V4),
            #[cfg(target_arch = "aarch64")]
            Self::Neon => pulp::aarch64::Neon::try_new().map(Arch::Neon),
            #[cfg(target_arch = "wasm32")]
            Self::Simd128 => pulp::wasm::Simd128::try_new().map(Arch::Simd128),
            _ => None,
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The levels that this machine has, the lowest first.
pub fn available() -> Vec<Level> {
    ALL.into_iter().filter(|level| level.arch().is_some()).collect()
}

/// The level in use.
#[inline]
pub fn level() -> Level {
    ALL.get(usize::from(IN_USE.load(Ordering::Relaxed))).copied().unwrap_or_else(first)
}

/// Takes all steps of this process from now on with the instructions of this level. Steps that other threads have begun keep
/// the level that they began with.
///
/// # Errors
/// [`Error::SimdLevel`] if the level is not [`available`].
pub fn use_level(level: Level) -> Result<()> {
    match level.arch() {
        Some(_) => {
            IN_USE.store(level as u8, Ordering::Relaxed);
            Ok(())
        }
        None => Err(Error::SimdLevel { level, available: available() }),
    }
}

/// The instructions of the level in use.
#[inline]
pub(crate) fn arch() -> Arch {
    level().arch().unwrap_or(Arch::Scalar)
}

/// No level has been chosen.
const NONE: u8 = u8::MAX;

/// The level in use, by its place in [`ALL`].
static IN_USE: AtomicU8 = AtomicU8::new(NONE);

/// Chooses the level that is used at first.
#[cold]
fn first() -> Level {
    let wanted = std::env::var(VARIABLE).unwrap_or_default();
    let available = available();
    let named = available.iter().find(|level| level.name() == wanted);
    let level = named.or(available.last()).copied().unwrap_or(Level::Baseline);
    // A level that another thread has chosen in the meantime holds.
    match IN_USE.compare_exchange(NONE, level as u8, Ordering::Relaxed, Ordering::Relaxed) {
        Ok(_) => level,
        Err(other) => ALL.get(usize::from(other)).copied().unwrap_or(level),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_at_its_place() {
        for (place, level) in ALL.into_iter().enumerate() {
            assert_eq!(level as usize, place);
            assert_eq!(format!("{level:>9}").trim_start(), level.name());
        }
    }
}
