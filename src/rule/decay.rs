//! Forms of weight decay.

use crate::error::{Error, Result};

/// The form of weight decay λ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decay {
    /// L2 penalty: `g ← g + λθ` before the rule.
    Coupled,
    /// Decoupled: `θ ← θ(1 − ηλ)` before the rule.
    Decoupled,
    /// The rule itself: it finds λ in [`At::weight_decay`](super::At::weight_decay), and the driver does nothing.
    Own,
}

/// The form of weight decay in a step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Form {
    Coupled,
    Decoupled(DecayRate),
    Own,
}

/// The rate of decoupled weight decay λ: `θ ← θ − rate·λ·θ` in each step. Set by [`decoupled_decay`](super::Elementwise::decoupled_decay).
///
/// | | rate | elsewhere |
/// |---|---|---|
/// | `LearningRate` | η | PyTorch, Keras and optax |
/// | `Fixed` | 1 | pytorch-optimizer's `fixed_decay` |
/// | `Relative` | η/η_max | optimi's `decouple_lr`; the AdamW paper, where λ is multiplied by the schedule alone |
/// | `Corrected` | η²/η_max | AdamC ([arXiv:2506.02285](https://arxiv.org/abs/2506.02285)), timm's `corrected_weight_decay` |
///
/// η is the tensor's learning rate in the step, with its group's change. Options that change the learning rate of a tensor, such as the trust ratio,
/// change all rates but `Fixed` by the same factor.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub enum DecayRate {
    /// η. A smaller learning rate also decays less.
    LearningRate,
    /// 1. The decay does not depend on the learning rate.
    Fixed,
    /// η/η_max. The decay follows the schedule, but does not depend on its largest value.
    Relative {
        /// η_max > 0, the largest learning rate of the schedule.
        max_learning_rate: f64,
    },
    /// η²/η_max. At a small learning rate gradients no longer grow as the parameters do: AdamC has it for weights before a norm.
    Corrected {
        /// η_max > 0, the largest learning rate of the schedule.
        max_learning_rate: f64,
    },
}

impl DecayRate {
    /// The rate at a learning rate.
    pub(super) fn of(self, learning_rate: f64) -> f64 {
        match self {
            Self::LearningRate => learning_rate,
            Self::Fixed => 1.0,
            Self::Relative { max_learning_rate } => learning_rate / max_learning_rate,
            Self::Corrected { max_learning_rate } => learning_rate * (learning_rate / max_learning_rate),
        }
    }

    /// Returns an error unless the largest learning rate is a number above 0.
    pub(super) fn check(self) -> Result<()> {
        match self {
            Self::Relative { max_learning_rate } | Self::Corrected { max_learning_rate }
                if !(max_learning_rate.is_normal() && max_learning_rate > 0.0) =>
            {
                Err(Error::argument("max_learning_rate", max_learning_rate, "a finite number above 0"))
            }
            _ => Ok(()),
        }
    }
}
