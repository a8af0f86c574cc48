//! What becomes of a step on its way in.

use super::NonFinite;
use crate::error::Result;
use crate::params::Element;
use crate::step::{Step, norm};

/// What a [`Transform`](super::Transform) decides about a step, beside what it changes on it.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Outcome {
    /// Whether the step is not taken: the optimizer inside does not see it.
    pub skip: bool,
    /// The norm of the gradients, for the [`Report`](crate::Report).
    pub grad_norm: Option<f64>,
}

impl Outcome {
    /// The step goes on to the optimizer inside.
    pub fn pass() -> Self {
        Self::default()
    }

    /// The step is not taken. The report says `moved: false`.
    pub fn skip() -> Self {
        Self { skip: true, grad_norm: None }
    }

    /// The report has this norm.
    pub fn with_norm(self, norm: f64) -> Self {
        Self { grad_norm: Some(norm), ..self }
    }
}

impl NonFinite {
    /// Decides about a step of which this is the norm of the gradients: passed on if it is finite.
    ///
    /// # Errors
    /// [`StepError::NonFiniteGradient`](crate::error::StepError::NonFiniteGradient) or [`StepError::NormOverflow`](crate::error::StepError::NormOverflow), if the policy
    /// is an error.
    pub fn outcome<A: Element>(self, norm: f64, step: &Step<'_, A>) -> Result<Outcome> {
        match self {
            Self::Error if !norm.is_finite() => Err(norm::non_finite(&step.grads().collect::<Vec<_>>())),
            Self::Skip if !norm.is_finite() => Ok(Outcome::skip().with_norm(norm)),
            _ => Ok(Outcome::pass().with_norm(norm)),
        }
    }
}
