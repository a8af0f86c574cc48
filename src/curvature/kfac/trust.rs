//! How far the quadratic model is trusted: Levenberg's and Marquardt's damping.

use crate::error::{Error, Result, StepError};

/// What the damping is multiplied with in each step between two adaptations, and at most how many of these count.
const CHANGE: f64 = 0.95;
const MOST_STEPS: u64 = 20;

/// The least and the largest that the damping is multiplied with in the end.
pub(super) const BOUNDS: [f64; 2] = [1e-6, 1e6];

/// How well the model did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Trust {
    /// What the damping is multiplied by.
    pub(super) factor: f64,
    /// The change of the loss that the last step's model foretold.
    pub(super) foretold: Option<f64>,
    /// Steps since the factor was adapted.
    pub(super) since: u64,
}

impl Default for Trust {
    fn default() -> Self {
        Self { factor: 1.0, foretold: None, since: 0 }
    }
}

impl Trust {
    /// A step was made of which the model foretold this change: none where no layer had factors, or nothing to go.
    pub(super) fn stepped(&mut self, foretold: f64) {
        self.foretold = Some(foretold).filter(|foretold| foretold.is_normal());
        self.since = self.since.saturating_add(1);
    }

    /// Adapts the factor to a change of the loss and returns its ratio to the one foretold.
    pub(super) fn adapt(&mut self, change: f64) -> Result<f64> {
        let ratio = change / self.foretold.ok_or(Error::Step(StepError::NoStep))?;
        if !ratio.is_finite() {
            return Err(Error::Step(StepError::NoStep));
        }
        let change = CHANGE.powf(self.since.min(MOST_STEPS) as f64);
        if ratio > 0.75 {
            self.factor *= change;
        } else if ratio < 0.25 {
            self.factor /= change;
        }
        let [least, most] = BOUNDS;
        self.factor = self.factor.clamp(least, most);
        self.since = 0;
        Ok(ratio)
    }
}
