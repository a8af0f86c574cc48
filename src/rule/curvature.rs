//! Rules that also average the Hessian's diagonal.

use std::sync::Arc;

use super::diagonals::Diagonals;
use super::{Elementwise, Rule};
use crate::error::Result;
use crate::params::{Params, Scalar};

/// A rule whose slots also average the diagonal of the loss's Hessian: it implements [`Rule::absorb`], and [`Rule::absorbs`] names these slots.
/// [`Elementwise`] then has the method [`curvature`](Elementwise::curvature).
pub trait Curved<A: Scalar>: Rule<A> {}

impl<A: Scalar, R: Curved<A>> Elementwise<R, A> {
    /// Passes an estimate of the diagonal of the loss's Hessian, a tree as that of the gradients. The next step averages it, and uses the average.
    ///
    /// The tree is copied. A tensor whose diagonal is `None`, or that has no gradient in the next step, keeps its average; in the latter case, the
    /// diagonal waits for the tensor's next gradient. A second call before the step replaces the first. In a chain, call it with
    /// [`find_mut`](crate::OptimizerExt::find_mut). On several ranks, pass the mean of the ranks' diagonals: nothing averages them. Inside
    /// `sharded`, pass whole diagonals too; each rank keeps its part.
    ///
    /// # Errors
    /// Those of [`Step::pair`](crate::Step::pair) for gradients, and [`StepError::NonFiniteGradient`](crate::error::StepError::NonFiniteGradient), if
    /// the diagonal does not fit the parameters or is not finite. Nothing has changed then.
    ///
    /// Before the first step the parameters are not known: that step returns
    /// [`StepError::UnfitDiagonal`](crate::error::StepError::UnfitDiagonal) if the diagonal does not fit, until another replaces it. It must be
    /// dense, without [`Rows`](crate::Rows).
    pub fn curvature(&mut self, diagonal: &dyn Params<Elem = A>) -> Result<()> {
        self.diagonals = Diagonals::of(diagonal, self.state.layout().map(Arc::as_ref))?;
        Ok(())
    }
}
