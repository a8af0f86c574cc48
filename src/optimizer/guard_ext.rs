//! The methods that add guards against bad gradients to an optimizer.

use crate::adaptor::{
    Adapted, Finite, LossScaling, MaxSkipped, NonFinite, SkipSpikes, Transforming, Unscale, ZeroNans,
};
use crate::params::Element;
use crate::schedule::Hyper;
use crate::step::Optimizer;

/// The methods that add guards against bad gradients. Every [`Optimizer`] has them. They are used as those of
/// [`OptimizerExt`](crate::OptimizerExt), which has clipping.
pub trait GuardExt<A: Element>: Optimizer<A> {
    /// Returns an error if a gradient has NaN or infinite elements. See [`Finite`].
    fn check_finite(self) -> Adapted<Self, Finite>
    where
        Self: Sized,
    {
        Adapted::new(self, Finite::new(NonFinite::Error))
    }

    /// Skips a step if a gradient has NaN or infinite elements. After [`accumulate`](crate::OptimizerExt::accumulate) it skips single micro-batches,
    /// before it the whole sum. See [`Finite`].
    fn skip_nonfinite(self) -> Adapted<Self, Finite>
    where
        Self: Sized,
    {
        Adapted::new(self, Finite::new(NonFinite::Skip))
    }

    /// Divides the gradients by the factor that the loss was multiplied by: a number or a schedule. See [`Unscale`].
    #[doc(alias = "GradScaler")]
    fn unscale(self, loss_scale: impl Into<Hyper>) -> Adapted<Self, Transforming<Unscale>>
    where
        Self: Sized,
    {
        Adapted::new(self, Transforming::new(Unscale::new(loss_scale)))
    }

    /// Divides gradients by the factor of the loss, and adapts that factor: dynamic loss scaling. See [`LossScaling`].
    #[doc(alias("GradScaler", "DynamicLossScale"))]
    fn loss_scaling(self) -> Adapted<Self, LossScaling>
    where
        Self: Sized,
    {
        Adapted::new(self, LossScaling::new())
    }

    /// Replaces NaN in the gradients by 0. See [`ZeroNans`].
    fn zero_nans(self) -> Adapted<Self, ZeroNans>
    where
        Self: Sized,
    {
        Adapted::new(self, ZeroNans::new())
    }

    /// Skips a step whose gradient norm is more than `threshold` times the mean of the norms before it: a number or a schedule. See [`SkipSpikes`].
    #[doc(alias("ZClip", "SkipStep"))]
    fn skip_spikes(self, threshold: impl Into<Hyper>) -> Adapted<Self, SkipSpikes>
    where
        Self: Sized,
    {
        Adapted::new(self, SkipSpikes::new(threshold))
    }

    /// Returns an error if more than `most` steps in a row are skipped. See [`MaxSkipped`].
    #[doc(alias("apply_if_finite", "max_consecutive_errors"))]
    fn max_skipped(self, most: u64) -> Adapted<Self, MaxSkipped>
    where
        Self: Sized,
    {
        Adapted::new(self, MaxSkipped::new(most))
    }
}

impl<A: Element, O: Optimizer<A> + ?Sized> GuardExt<A> for O {}
