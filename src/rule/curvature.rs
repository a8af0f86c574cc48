//! Rules that also average the Hessian's diagonal.

use std::sync::Arc;

use super::{Elementwise, Rule};
use crate::error::Result;
use crate::params::{Layout, Params, Scalar};
use crate::step::{PerTensor, Step, norm};

/// A rule whose slots also average the diagonal of the loss's Hessian: it implements [`Rule::absorb`], and [`Rule::absorbs`] returns `true`.
/// [`Elementwise`] then has the method [`curvature`](Elementwise::curvature).
pub trait Curved<A: Scalar>: Rule<A> {}

impl<A: Scalar, R: Curved<A>> Elementwise<R, A> {
    /// Passes an estimate of the diagonal of the loss's Hessian, a tree as that of the gradients. The next step averages it, and uses the average.
    ///
    /// The tree is copied. A tensor whose diagonal is `None`, or that has no gradient in the next step, keeps its average; in the latter case, the
    /// diagonal waits for the tensor's next gradient. A second call before the step replaces the first. A call before the first step fixes the layout of
    /// the parameters, so it needs all tensors. In a chain, call it with [`find_mut`](crate::OptimizerExt::find_mut). On several ranks, pass the mean
    /// of the ranks' diagonals: nothing averages them.
    ///
    /// # Errors
    /// Those of [`Step::pair`] for gradients, and [`StepError::NonFiniteGradient`](crate::error::StepError::NonFiniteGradient), if the
    /// diagonal does not fit the parameters or is not finite. Nothing has changed then.
    pub fn curvature(&mut self, diagonal: &dyn Params<Elem = A>) -> Result<()> {
        let layout = match self.state.layout() {
            Some(known) => Arc::clone(known),
            None => Arc::new(Layout::of(diagonal)?),
        };
        let step = Step::of_grads(diagonal, (*layout).clone())?;
        let named: Vec<_> = step.grads().collect();
        if !norm::all_finite(&named) {
            return Err(norm::non_finite(&named));
        }
        self.diagonals.keep(&step);
        if self.state.layout().is_none() {
            self.state = PerTensor::of(layout);
        }
        Ok(())
    }
}
