//! The result of a transform.

use super::NonFinite;
use crate::error::Result;
use crate::params::Element;
use crate::step::{Step, norm};

/// The result of a [`Transform`](super::Transform), besides its changes to the step: whether to take the step, and a norm for the report.
#[must_use = "return it from the transform"]
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Outcome {
    /// Whether to skip the step. The optimizer inside does not get it then.
    pub skip: bool,
    /// The norm of the gradients, for the [`Report`](crate::Report).
    pub grad_norm: Option<f64>,
}

impl Outcome {
    /// Passes the step to the optimizer inside.
    pub fn pass() -> Self {
        Self::default()
    }

    /// Skips the step. The report has `moved: false`.
    pub fn skip() -> Self {
        Self { skip: true, grad_norm: None }
    }

    /// Adds a norm to the report.
    pub fn with_norm(self, norm: f64) -> Self {
        Self { grad_norm: Some(norm), ..self }
    }
}

impl NonFinite {
    /// Applies this policy to a step whose gradients have this norm: passes the step if the norm is finite.
    ///
    /// # Errors
    /// With [`NonFinite::Error`], [`StepError::NonFiniteGradient`](crate::error::StepError::NonFiniteGradient) if
    /// an element is not finite, and [`StepError::NormOverflow`](crate::error::StepError::NormOverflow) if only the norm is not.
    pub fn outcome<A: Element>(self, norm: f64, step: &Step<'_, A>) -> Result<Outcome> {
        match self {
            Self::Error if !norm.is_finite() => Err(norm::non_finite(&step.grads().collect::<Vec<_>>())),
            Self::Skip if !norm.is_finite() => Ok(Outcome::skip().with_norm(norm)),
            _ => Ok(Outcome::pass().with_norm(norm)),
        }
    }
}
