//! The SIMD instructions that steps use.
//!
//! The loops over memory are compiled once for every [`Level`] of the target's processors. The first step chooses the highest level of this
//! machine. Parameters and state have the same bits at every level; only the time differs.
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
//! `ndarray` and `faer` compute matrix products and decompositions (Muon, curvature), and choose their instructions themselves. The level
//! does not change the bits of these results, but they may differ between machines.

use std::sync::atomic::{AtomicU8, Ordering};

use pulp::Arch;

use crate::error::{ArgumentError, Error, Result};
use crate::params::Element;

pub use crate::kernel::level::Level;

/// The name of the environment variable that chooses a level.
pub const VARIABLE: &str = "GRADUS_SIMD";

/// The lowest first.
const ALL: [Level; 5] = [Level::Baseline, Level::Neon, Level::Simd128, Level::V3, Level::V4];

/// The levels of this machine, the lowest first.
pub fn available() -> Vec<Level> {
    ALL.into_iter().filter(|level| level.arch().is_some()).collect()
}

/// The level in use.
#[inline]
pub fn level() -> Level {
    ALL.get(usize::from(IN_USE.load(Ordering::Relaxed))).copied().unwrap_or_else(first)
}

/// Uses this level for all later steps of the process. A step that has already started in another thread keeps its level.
///
/// # Errors
/// [`ArgumentError::SimdLevel`] if the level is not [`available`].
pub fn use_level(level: Level) -> Result<()> {
    match level.arch() {
        Some(_) => {
            IN_USE.store(level as u8, Ordering::Relaxed);
            Ok(())
        }
        None => Err(Error::Argument(ArgumentError::SimdLevel { level, available: available() })),
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

/// Fewer than `N` elements, and zeros behind them. A loop over what remains, of unknown length, would keep the sums of the loop before it in memory, and
/// that from being SIMD.
#[inline(always)]
pub(crate) fn padded<A: Element, const N: usize>(rest: &[A]) -> [A; N] {
    let mut all = [A::zero(); N];
    all.iter_mut().zip(rest).for_each(|(all, value)| *all = *value);
    all
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
