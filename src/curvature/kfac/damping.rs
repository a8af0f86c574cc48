//! Damping that follows the loss.

use super::adaptor::Kfac;
use crate::error::{ArgumentError, Error, Result};
use crate::params::Scalar;
use crate::step::Optimizer;

impl<O, A> Kfac<O, A> {
    /// Adapts the damping (Levenberg–Marquardt), and returns ρ, the actual change of the loss divided by the predicted change.
    ///
    /// Pass the losses of the step's batch before and after the step. If ρ > 3/4, the damping is multiplied by (19/20)ⁿ; if ρ < 1/4, it is
    /// divided by it. n is the number of steps since the last call, at most 20; the paper uses n = 5. The total factor stays between 1e-6 and
    /// 1e6. [`current_damping`](Self::current_damping) returns the result.
    ///
    /// The prediction is `⟨∇, d⟩ + ½⟨d, (F + λI)d⟩`, **with the damping**, where d is a plain step along the preconditioned gradient. It is
    /// exact for [`Sgd`](crate::Sgd) inside, and covers only layers with factors.
    ///
    /// # Errors
    /// [`ArgumentError::NotFinite`] if a loss is not finite; [`StepError::NoStep`](crate::error::StepError::NoStep) before the first step with a prediction.
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
    /// The damping of the next step: [`damping`](Self::damping), adapted by [`adapt_damping`](Self::adapt_damping).
    pub fn current_damping(&self) -> f64 {
        self.damping.at(self.inner.steps()) * self.trust.factor
    }
}
