//! What there was before a step.

use crate::distributed::packed::{pack_params, put_params};
use crate::error::{Error, Result};
use crate::params::Element;
use crate::state::{self, StateDict};
use crate::step::{Optimizer, Step, norm};

/// The parameters of a step and the state of the optimizer that takes it, to put both back.
#[derive(Debug)]
pub(crate) struct Before<A> {
    params: Vec<A>,
    state: StateDict,
}

impl<A: Element> Before<A> {
    pub(crate) fn of(optimizer: &impl Optimizer<A>, step: &Step<'_, A>) -> Self {
        Self { params: pack_params(step), state: optimizer.state_dict() }
    }

    /// Puts back what there was, and returns the error of the step. It is too late if the optimizer does not read what it has written.
    pub(crate) fn restore(self, optimizer: &mut impl Optimizer<A>, step: &mut Step<'_, A>, error: Error) -> Error {
        put_params(step, &self.params);
        match optimizer.load_state_dict(&self.state) {
            Ok(()) => error,
            Err(_) => Error::RefusedTooLate { reason: Box::new(error.taken_back()) },
        }
    }
}

/// Returns an error unless the parameters of a step and the state of the optimizer that has taken it are finite.
///
/// An infinite number in the state would not be seen in the parameters at once: under a second moment that is infinite an element never
/// moves again.
pub(crate) fn ensure_finite<A: Element>(optimizer: &impl Optimizer<A>, step: &Step<'_, A>) -> Result<()> {
    ensure_finite_params(step)?;
    state::ensure_finite(|state| optimizer.write_state(state))
}

/// Returns an error with the first parameter that is not finite, of those that the step may move.
pub(in crate::distributed) fn ensure_finite_params<A: Element>(step: &Step<'_, A>) -> Result<()> {
    norm::non_finite_param(step.iter().filter(|(_, tensor)| !tensor.frozen)).map_or(Ok(()), Err)
}
