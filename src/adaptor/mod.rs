//! Adaptors: optimizers around optimizers.
//!
//! They are made by methods of [`Optimizer`](crate::Optimizer) and change the [`Step`] on its way in. The
//! last in a chain is the outermost and sees the user's gradient first:
//!
//! ```
//! use gradus::prelude::*;
//!
//! // Four micro-batches are averaged, the average is clipped, Adam takes the step.
//! let mut opt = Adam::new(1e-3).clip_global_norm(1.0).accumulate(4);
//! # opt.step(&mut ndarray::array![1.0], &ndarray::array![1.0])?;
//! # Ok::<(), gradus::Error>(())
//! ```
//!
//! No adaptor copies or writes the gradients: what can be described is described, and the sweep that moves the
//! parameters does it in passing.

mod accumulate;
mod averages;
mod clip;
mod ema;
mod finite;
mod freeze;
mod group;
mod kept;
mod layerwise;
mod lookahead;
#[cfg(feature = "half")]
mod master_weights;
mod maximize;
mod router;
mod swa;
mod unscale;

use crate::error::Result;
use crate::params::Element;
use crate::step::{Report, Step, norm};

pub use accumulate::Accumulate;
pub use clip::Clip;
pub use ema::Ema;
pub use finite::Finite;
pub use freeze::Freeze;
pub use group::{Group, Grouped};
pub use layerwise::LayerwiseDecay;
pub use lookahead::Lookahead;
#[cfg(feature = "half")]
pub use master_weights::MasterWeights;
pub use maximize::Maximize;
pub use router::Router;
pub use swa::Swa;
pub use unscale::Unscale;

/// What to do with a step whose gradients, or their norm, are not finite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum NonFinite {
    /// Return an error that names the first offending tensor; change nothing.
    #[default]
    Error,
    /// Take no step; the report says `moved: false`. The parameters of the step are known from then on, as those of every call
    /// that is no error.
    Skip,
    /// Pass the gradients on. A norm that is not finite clips nothing; where tensors or units are clipped by norms of
    /// their own, the others still are.
    Allow,
}

/// What a policy makes of a step.
pub(crate) enum Verdict {
    Go,
    Skip,
}

impl NonFinite {
    /// Decides about a step, given whether its gradients are finite.
    pub(crate) fn judge<A: Element>(self, finite: bool, step: &Step<'_, A>) -> Result<Verdict> {
        match self {
            _ if finite => Ok(Verdict::Go),
            Self::Error => Err(norm::non_finite(&step.grads().collect::<Vec<_>>())),
            Self::Skip => Ok(Verdict::Skip),
            Self::Allow => Ok(Verdict::Go),
        }
    }
}

/// The report of a step not taken.
pub(crate) fn skipped(learning_rate: f64, grad_norm: Option<f64>) -> Report {
    Report { grad_norm, ..Report::new(learning_rate, false) }
}

/// What every adaptor around one optimizer passes through: access to it, and what it knows of the training.
macro_rules! around {
    ($adaptor:ident<O $(, $generic:ident)*>) => {
        impl<O $(, $generic)*> $adaptor<O $(, $generic)*> {
            /// The optimizer inside.
            pub fn inner(&self) -> &O {
                &self.inner
            }

            /// The optimizer inside, to be changed.
            pub fn inner_mut(&mut self) -> &mut O {
                &mut self.inner
            }

            /// Takes the adaptor off.
            pub fn into_inner(self) -> O {
                self.inner
            }
        }
    };
}

/// The methods of [`Optimizer`](crate::Optimizer) in which an adaptor only asks the optimizer inside.
macro_rules! ask_inner {
    () => {
        $crate::adaptor::count_inner!();

        fn layout(&self) -> Option<&std::sync::Arc<crate::params::Layout>> {
            self.inner.layout()
        }
    };
}

/// [`ask_inner`] for an adaptor that knows the layout itself.
macro_rules! count_inner {
    () => {
        fn learning_rate(&self) -> f64 {
            self.inner.learning_rate()
        }

        fn steps(&self) -> u64 {
            self.inner.steps()
        }
    };
}

/// The state of an adaptor that remembers nothing: that of the optimizer inside.
macro_rules! state_of_inner {
    () => {
        fn write_state(&self, state: &mut $crate::StateWriter<'_>) {
            self.inner.write_state(state);
        }

        fn read_state<'s>(&'s mut self, state: &mut $crate::StateReader<'_>) -> Result<$crate::Commit<'s>> {
            self.inner.read_state(state)
        }
    };
}

pub(crate) use {around, count_inner};
use {ask_inner, state_of_inner};
