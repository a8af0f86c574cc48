//! The methods that add guards against bad gradients to an optimizer.

use crate::adaptor::{Adapted, LossScaling, MaxSkipped, SkipSpikes, ZeroNans};
use crate::params::Element;
use crate::schedule::Hyper;
use crate::step::Optimizer;

/// The methods that add guards against bad gradients. Every [`Optimizer`] has them. They are used as those of
/// [`OptimizerExt`](crate::OptimizerExt), which has [`check_finite`](crate::OptimizerExt::check_finite),
/// [`skip_nonfinite`](crate::OptimizerExt::skip_nonfinite) and clipping.
pub trait GuardExt<A: Element>: Optimizer<A> {
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
