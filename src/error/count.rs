//! The check of every count.

use super::argument::ArgumentError;
use super::{Error, Result};

/// Returns an error if a count is 0. Every count of this crate is checked here.
pub(crate) fn ensure_count(argument: &'static str, count: u64) -> Result<()> {
    match count {
        0 => Err(Error::Argument(ArgumentError::Zero { argument })),
        _ => Ok(()),
    }
}
