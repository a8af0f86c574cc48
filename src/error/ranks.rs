//! Errors of training on several ranks.

use super::text::instead;

/// Why ranks cannot work together.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum RankError {
    /// The group has no such rank.
    #[error("there is no rank {rank} in a group of {size}")]
    NoRank {
        /// The rank.
        rank: usize,
        /// The number of ranks.
        size: usize,
    },

    /// A rank has left the group: its thread or process has ended.
    #[error("rank {rank} has left the group")]
    RankLeft {
        /// The rank.
        rank: usize,
    },

    /// A rank waited too long for others.
    #[error("{operation}: timed out after {waited:?} waiting for ranks {missing:?}")]
    RankTimeout {
        /// The call in which it waited.
        operation: &'static str,
        /// How long it waited.
        waited: std::time::Duration,
        /// The ranks it waited for, as far as they are known.
        missing: Vec<usize>,
    },

    /// Ranks differ in something that must be the same on all of them.
    #[error("rank {rank} has {found} where rank 0 has {expected}")]
    RanksDisagree {
        /// The first rank that differs from rank 0.
        rank: usize,
        /// The description of rank 0.
        expected: String,
        /// The description of this rank.
        found: String,
    },

    /// Another rank rejected the step, so no rank took it.
    #[error("rank {rank} rejected the step: {reason}")]
    RankRefused {
        /// The first rank that rejected it.
        rank: usize,
        /// The message of its error.
        reason: String,
    },

    /// The message-passing library under a group returned an error.
    #[error("{operation}: {reason}")]
    Transport {
        /// The call that failed.
        operation: &'static str,
        /// The library's message.
        reason: String,
    },

    /// An optimizer or adaptor that needs whole tensors was given parts of them.
    #[error("{name} needs whole tensors; call `.by_tensor()` on `sharded`")]
    CutTensors {
        /// Its name, such as `"muon"`.
        name: &'static str,
    },

    /// An optimizer that needs all tensors was given one rank's share of them.
    #[error("{name} needs all tensors in one place; it cannot be used inside `sharded`")]
    NotShardable {
        /// Its name, such as `"lbfgs"`.
        name: &'static str,
    },

    /// An adaptor that exchanges messages itself is inside `sharded`, which could not undo the step if that adaptor rejected
    /// it.
    #[error("{name} cannot be used inside `sharded`; {}", instead(.name))]
    InsideSharded {
        /// Its name, such as `"local_steps"`.
        name: &'static str,
    },

    /// An adaptor for one rank's data was given the mean gradients of all ranks.
    #[error(
        "{name} needs the gradients of its own rank's data, not the mean over all ranks; write it after `data_parallel`"
    )]
    DataOfAllRanks {
        /// Its name, such as `"kfac"`.
        name: &'static str,
    },
}
