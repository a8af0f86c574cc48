//! The setters after `kfac()`.

use super::{Kfac, Layer, Mode};
use crate::adaptor::Adapted;
use crate::schedule::Hyper;

impl<O, A> Adapted<O, Kfac<A>> {
    /// The damping λ > 0: a number or a schedule. The inverses have that of the step in which they were computed.
    pub fn damping(mut self, damping: impl Into<Hyper>) -> Self {
        self.damping = damping.into();
        self
    }

    /// How much of the factors an update keeps at most: a number or a schedule.
    pub fn decay(mut self, decay: impl Into<Hyper>) -> Self {
        self.decay = decay.into();
        self
    }

    /// The κ > 0 that limits a step: a number or a schedule.
    pub fn kl_clip(mut self, kl_clip: impl Into<Hyper>) -> Self {
        self.kl_clip = Some(kl_clip.into());
        self
    }

    /// Limits nothing.
    pub fn no_kl_clip(mut self) -> Self {
        self.kl_clip = None;
        self
    }

    /// Updates the factors every `every` steps; taps observed in between are not computed with. See
    /// [`wants_taps`](Kfac::wants_taps).
    pub fn factors_every(mut self, every: u64) -> Self {
        self.factors_every = every;
        self
    }

    /// Computes inverses, or decompositions, every `every` steps.
    pub fn inverses_every(mut self, every: u64) -> Self {
        self.inverses_every = every;
        self
    }

    /// Whether to divide by the Kronecker product plus λI exactly, in its eigenbasis: eigen-decompositions cost about ten times an
    /// inverse.
    pub fn eigen(mut self, eigen: bool) -> Self {
        self.mode = if eigen { Mode::Eigen } else { Mode::Inverse };
        self
    }

    /// The tensors of a layer that are not called `name.weight` and `name.bias`.
    pub fn layer(mut self, name: impl Into<String>, layer: Layer) -> Self {
        self.named.insert(name.into(), layer);
        self
    }
}
