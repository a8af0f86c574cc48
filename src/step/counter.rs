//! Counters that end with an error instead of wrapping around.

use crate::error::{Error, Result, StepError};
use crate::params::TensorInfo;

/// Returns an error if there is no number after this one. `counter` is what is counted.
pub(crate) fn ensure_next(counter: &'static str, count: u64) -> Result<()> {
    match count {
        u64::MAX => Err(Error::Step(StepError::CounterFull { counter, path: None })),
        _ => Ok(()),
    }
}

/// [`ensure_next`] for the steps of one tensor.
pub(crate) fn ensure_next_of(info: &TensorInfo, steps: u64) -> Result<()> {
    match steps {
        u64::MAX => Err(Error::Step(StepError::CounterFull { counter: "steps", path: Some(info.path().into()) })),
        _ => Ok(()),
    }
}
