//! Adaptors: optimizers that wrap another optimizer and change its [`Step`](crate::Step)s.
//!
//! The methods of [`OptimizerExt`](crate::OptimizerExt) create them. The last adaptor in a chain is the outermost, and sees the gradient
//! first:
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
//! Adaptors do not copy or write gradients. They set factors and limits, which the optimizer applies when it reads the gradients.
//!
//! To write an adaptor, implement [`Transform`] or [`Adaptor`]; see the [guide](crate::guide::extending#an-adaptor).

pub(crate) mod accumulate;
mod adapted;
mod averages;
mod centralize;
mod ema;
mod finite;
mod freeze;
mod group;
mod keep_best;
mod layerwise;
mod lookahead;
mod loss_scaling;
#[cfg(feature = "half")]
mod master_weights;
mod max_skipped;
mod maximize;
mod monitor;
#[cfg(feature = "half")]
mod narrow_weights;
mod noise;
mod outcome;
mod power_ema;
mod project;
mod router;
pub(crate) mod sam;
mod spikes;
mod stop;
mod swa;
mod transform;
mod unscale;
mod zero_nans;

pub use accumulate::Accumulate;
pub use adapted::{Adapted, Adaptor, apply, check};
pub use averages::Buffers;
pub use centralize::Centralize;
pub use ema::Ema;
pub use finite::Finite;
pub use freeze::Freeze;
pub use group::{Group, Grouped};
pub use keep_best::KeepBest;
pub use layerwise::LayerwiseDecay;
pub use lookahead::Lookahead;
pub use loss_scaling::LossScaling;
#[cfg(feature = "half")]
pub use master_weights::MasterWeights;
pub use max_skipped::MaxSkipped;
pub use maximize::Maximize;
pub use monitor::{Monitor, Record};
#[cfg(feature = "half")]
pub use narrow_weights::NarrowWeights;
pub use noise::AddNoise;
pub use outcome::Outcome;
pub use power_ema::{PowerEma, post_hoc_weights};
pub use project::Project;
pub use router::Router;
pub use sam::{Sam, SamReport};
pub use spikes::SkipSpikes;
pub use stop::Stop;
pub use swa::Swa;
pub use transform::{Transform, Transforming};
pub use unscale::Unscale;
pub use zero_nans::ZeroNans;

/// What to do if a gradient, or the norm of the gradients, is not finite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum NonFinite {
    /// Return an error that names the first such tensor, and change nothing.
    #[default]
    Error,
    /// Take no step; the report has `moved: false`. A skipped first step still fixes the layout of the parameters.
    Skip,
    /// Use the gradients as they are. A norm that is not finite does not clip; other tensors or units, which have norms of their own, are
    /// still clipped.
    Allow,
}

/// What every adaptor around one optimizer passes through: access to it, and what it knows of the training.
macro_rules! around {
    ($adaptor:ident<O $(, $generic:ident)*>) => {
        impl<O $(, $generic)*> $adaptor<O $(, $generic)*> {
            /// The optimizer inside.
            pub fn inner(&self) -> &O {
                &self.inner
            }

            /// The optimizer inside, mutable.
            pub fn inner_mut(&mut self) -> &mut O {
                &mut self.inner
            }

            /// Removes the adaptor, and returns the optimizer inside.
            pub fn into_inner(self) -> O {
                self.inner
            }
        }
    };
}

/// The part of an optimizer around which the moves of the parameters are others than its own.
#[cfg(any(feature = "distributed", feature = "half"))]
pub(crate) fn part_of_other_moves<A: crate::params::Element>(
    inner: &impl crate::Optimizer<A>,
    of: std::any::TypeId,
) -> Option<&dyn std::any::Any> {
    if of == std::any::TypeId::of::<crate::step::moves::Sweeps>() { None } else { inner.part(of) }
}

/// The methods of [`Optimizer`](crate::Optimizer) in which an adaptor only passes on.
#[cfg(any(feature = "distributed", feature = "half"))]
macro_rules! count_inner {
    () => {
        fn part(&self, of: std::any::TypeId) -> Option<&dyn std::any::Any> {
            $crate::adaptor::part_of_other_moves(&self.inner, of)
        }

        $crate::adaptor::count_inner!(counts);
    };
    // Its ranks take each step together.
    (joins) => {
        fn part(&self, of: std::any::TypeId) -> Option<&dyn std::any::Any> {
            let joins = of == std::any::TypeId::of::<$crate::step::batch::JoinsRanks>() && !self.peers.are_none();
            if joins { Some(&()) } else { $crate::adaptor::part_of_other_moves(&self.inner, of) }
        }

        $crate::adaptor::count_inner!(counts);
    };
    (counts) => {
        fn replace_learning_rate(&mut self, learning_rate: $crate::Hyper) {
            self.inner.replace_learning_rate(learning_rate);
        }

        fn part_mut(&mut self, of: std::any::TypeId) -> Option<&mut dyn std::any::Any> {
            self.inner.part_mut(of)
        }

        fn learning_rate(&self) -> f64 {
            self.inner.learning_rate()
        }

        fn steps(&self) -> u64 {
            self.inner.steps()
        }
    };
}

pub(crate) use around;
#[cfg(any(feature = "distributed", feature = "half"))]
pub(crate) use count_inner;
