//! Errors of federated rounds.

use super::text::Name;

/// Why a federated round cannot continue.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum FederatedError {
    /// No round has begun.
    #[error("no round has begun; call begin_round first")]
    NoRound,

    /// A client that runs SCAFFOLD got a task without the server's control variate.
    #[error("the task has no control variate; call scaffold() on the server")]
    NoControl,

    /// A server combines control variates with differential privacy.
    #[error("scaffold() and private() cannot be combined: control variates are sums without noise")]
    ControlNotPrivate,

    /// A value cannot be sent in fixed point: it is too large, or NaN.
    #[error("{} is {value} at element {index}; it must be in −{largest} to {largest}, the range of fixed point", Name(.path))]
    FixedPointRange {
        /// The tensor.
        path: String,
        /// The element, counted row by row.
        index: usize,
        /// Its value.
        value: f64,
        /// The largest absolute value that can be sent.
        largest: f64,
    },

    /// The sum of masked vectors lacks a client, so the masks do not cancel.
    #[error("the masked sum has {found} of {clients} clients; the masks cancel only in the sum of all")]
    MaskedSum {
        /// The number of clients.
        clients: usize,
        /// The number of clients in the sum.
        found: usize,
    },

    /// The operating system returned no random numbers.
    #[error("no random numbers from the operating system: {reason}")]
    Entropy {
        /// Its message.
        reason: String,
    },
}
