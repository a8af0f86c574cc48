//! What is measured of the gradients of a step.

use std::sync::Arc;

use super::memo::{self, Described, Quantity};
use super::{Step, norm};
use crate::error::Result;
use crate::params::Element;

impl<'a, A: Element> Step<'a, A> {
    /// The p-norm of all gradients together, for 1 ≤ p ≤ ∞. It is infinite or NaN if an element is.
    ///
    /// If a step is checked and then taken, the gradients are read only once. Inside `sharded`, the result is the norm over all ranks;
    /// every rank must call this method the same number of times, with the same `p`.
    ///
    /// # Errors
    /// Inside `sharded`, those of the [`RankGroup`](crate::distributed::RankGroup). Otherwise none.
    pub fn grad_norm(&self, p: f64) -> Result<f64> {
        self.context.share.norm(self.measured(Quantity::Norm { p }, |grads| norm::norm(grads, p)), p)
    }

    /// A quantity of the gradients as described now. It is not measured again after a check of this step.
    pub(crate) fn measured(&self, quantity: Quantity, measure: impl FnOnce(&[norm::Named<'_, 'a, A>]) -> f64) -> f64 {
        let grads: Vec<_> = self.grads().collect();
        let measure = || memo::measured(|| measure(&grads));
        let Some(memo) = self.context.memo.get() else { return measure() };
        let measured = memo.find_or(quantity, A::DTYPE, self.described(), || [measure()].into());
        measured.first().copied().unwrap_or(f64::NAN)
    }

    /// Whether every gradient is finite.
    pub(crate) fn are_finite(&self) -> bool {
        self.measured(Quantity::Finite, |grads| if norm::all_finite(grads) { 0.0 } else { f64::NAN }) == 0.0
    }

    /// The gradients' descriptions, by tensor position.
    fn described(&self) -> Vec<(usize, Described)> {
        self.iter().filter_map(|(_, tensor)| Some((tensor.index, tensor.grad.as_ref()?.described()))).collect()
    }

    /// [`measured`](Self::measured) for a quantity of many numbers.
    pub(crate) fn measured_each(
        &self,
        quantity: Quantity,
        measure: impl FnOnce(&[norm::Named<'_, 'a, A>]) -> Vec<f64>,
    ) -> Arc<[f64]> {
        let measure = || memo::measured(|| measure(&self.grads().collect::<Vec<_>>())).into();
        match self.context.memo.get() {
            Some(memo) => memo.find_or(quantity, A::DTYPE, self.described(), measure),
            None => measure(),
        }
    }
}
