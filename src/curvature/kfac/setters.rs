//! The setters after `kfac()`.

use super::adaptor::Kfac;
use super::factors::Mode;
use super::layer::Layer;
use crate::adaptor::Adapted;
use crate::schedule::Hyper;

impl<O, A> Adapted<O, Kfac<A>> {
    /// Sets the damping λ > 0: a number or a schedule. The inverses use the damping of the step that computes them.
    pub fn damping(mut self, damping: impl Into<Hyper>) -> Self {
        self.damping = damping.into();
        self
    }

    /// Sets the largest fraction of the factors that an update keeps: a number or a schedule.
    pub fn decay(mut self, decay: impl Into<Hyper>) -> Self {
        self.decay = decay.into();
        self
    }

    /// Sets the limit κ > 0 of a step: a number or a schedule.
    pub fn kl_clip(mut self, kl_clip: impl Into<Hyper>) -> Self {
        self.kl_clip = Some(kl_clip.into());
        self
    }

    /// Removes the limit κ.
    pub fn no_kl_clip(mut self) -> Self {
        self.kl_clip = None;
        self
    }

    /// Updates the factors every `every` steps and ignores taps in between. See [`wants_taps`](Kfac::wants_taps).
    pub fn factors_every(mut self, every: u64) -> Self {
        self.factors_every = every;
        self
    }

    /// Computes inverses, or decompositions, every `every` steps.
    pub fn inverses_every(mut self, every: u64) -> Self {
        self.inverses_every = every;
        self
    }

    /// Whether to divide by the Kronecker product plus λI exactly, in its eigenbasis. An eigen-decomposition costs about ten times as much as an inverse.
    pub fn eigen(mut self, eigen: bool) -> Self {
        self.mode = if eigen { Mode::Eigen } else { Mode::Inverse };
        self
    }

    /// Defines a layer whose tensors are not called `name.weight` and `name.bias`.
    pub fn layer(mut self, name: impl Into<String>, layer: Layer) -> Self {
        self.named.insert(name.into(), layer);
        self
    }
}
