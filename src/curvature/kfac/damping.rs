//! Damping that follows the loss.

use super::adaptor::Kfac;
use crate::error::{ArgumentError, Error, Result};
use crate::params::Scalar;
use crate::step::Optimizer;

impl<O, A> Kfac<O, A> {
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
    /// [`ArgumentError::NotFinite`] for a loss; [`StepError::NoStep`](crate::error::StepError::NoStep) before there has been a step of which the model foretold anything.
    pub fn adapt_damping(&mut self, loss_before: f64, loss_after: f64) -> Result<f64> {
        for (argument, value) in [("loss_before", loss_before), ("loss_after", loss_after)] {
            if !value.is_finite() {
                return Err(Error::Argument(ArgumentError::NotFinite { argument, index: vec![], value }));
            }
        }
        self.trust.adapt(loss_after - loss_before)
    }
}

impl<A: Scalar, O: Optimizer<A>> Kfac<O, A> {
    /// The damping that the coming step uses: [`damping`](Self::damping) as
    /// [`adapt_damping`](Self::adapt_damping) has changed it.
    pub fn current_damping(&self) -> f64 {
        self.damping.at(self.inner.steps()) * self.trust.factor
    }
}
