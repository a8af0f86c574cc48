//! How far the quadratic model is trusted: Levenberg's and Marquardt's damping.

use super::Kfac;
use crate::error::{Error, Result};
use crate::params::Scalar;

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
    fn adapt(&mut self, change: f64) -> Result<f64> {
        let ratio = change / self.foretold.ok_or(Error::NoStep)?;
        if !ratio.is_finite() {
            return Err(Error::NoStep);
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

impl<A> Kfac<A> {
    /// Adapts the damping to how well the last step's model foretold its success (Levenberg and Marquardt), and returns the ratio ρ
    /// of the change of the loss to the one foretold.
    ///
    /// Both losses are those of the step's batch, before and after. With ρ > 3/4 the damping is multiplied by (19/20)ⁿ, with
    /// ρ < 1/4 divided by it, n being the steps since this was called last, at most 20; the paper has n = 5. All in all it is
    /// multiplied by 1e-6 … 1e6. [`current_damping`](Self::current_damping) tells what came of it.
    ///
    /// The model is `⟨∇, d⟩ + ½⟨d, (F + λI)d⟩`, **with the damping**, for d a plain step along the preconditioned gradient: for
    /// [`Sgd`](crate::Sgd) inside, and of the layers that have factors.
    ///
    /// # Errors
    /// [`Error::NotFinite`] for a loss; [`Error::NoStep`] before there has been a step of which the model foretold anything.
    pub fn adapt_damping(&mut self, loss_before: f64, loss_after: f64) -> Result<f64> {
        for (argument, value) in [("loss_before", loss_before), ("loss_after", loss_after)] {
            if !value.is_finite() {
                return Err(Error::NotFinite { argument, index: vec![], value });
            }
        }
        self.trust.adapt(loss_after - loss_before)
    }
}

impl<A: Scalar> Kfac<A> {
    /// The damping that the coming step uses: [`damping`](Self::damping) as
    /// [`adapt_damping`](Self::adapt_damping) has changed it.
    pub fn current_damping(&self) -> f64 {
        self.damping.at(self.steps) * self.trust.factor
    }
}
