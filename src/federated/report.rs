//! The report of a round, client by client.

use std::fmt;

use crate::step::Report;

/// The result of a round.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq)]
pub struct RoundReport {
    /// The number of the round, 0 for the first. After a round without a valid answer, the next round has the same number.
    pub round: u64,
    /// Whether the model moved. It does not move without a valid answer, or if the server's optimizer only
    /// [accumulated](crate::OptimizerExt::accumulate).
    pub moved: bool,
    /// The clients whose answers were used, in their order.
    pub counted: Vec<Counted>,
    /// All other clients that were chosen or have answered, each with the reason why its answer was not used.
    pub left_out: Vec<LeftOut>,
    /// The report of the server's optimizer, if it has taken a step.
    pub step: Option<Report>,
    /// With a [private](crate::federated::Server::private) server, the expected norm of the noise divided by the largest possible norm of the
    /// mean change. If it is above 1, a round has more noise than change, and the report's text says how many clients would be enough: see
    /// [`noise_ratio`](crate::federated::privacy::GaussianMechanism::noise_ratio).
    pub noise: Option<f64>,
}

/// A client whose answer was used.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Counted {
    /// The client's number.
    pub client: usize,
    /// The weight of its change in the sum.
    pub weight: f64,
}

/// A client whose answer was not used in a round.
#[derive(Debug, Clone, PartialEq)]
pub struct LeftOut {
    /// The client's number.
    pub client: usize,
    /// The reason.
    pub reason: Reason,
    /// Details: the text of an error or panic, the tensor and its value, or the weight.
    pub detail: String,
}

/// The reason why a client's answer was not used.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// It returned an error.
    Failed,
    /// It panicked. It can be chosen again in later rounds, with the state that the panic left.
    Panicked,
    /// It did not answer before the deadline. A late answer is discarded.
    Late,
    /// It was still training for an earlier round, so it did not get a task.
    Busy,
    /// No answer, for an unknown reason.
    Silent,
    /// Its parameters have other paths or shapes than the model.
    OtherLayout,
    /// A parameter or its change is NaN or infinite, or the weighted change is so large that the sum could become infinite.
    NotFinite,
    /// Its weight is not a positive number, or it is so large that the sum could become infinite.
    Weight,
    /// With SCAFFOLD, the change of its control variate is missing, has other shapes than the model, or is not finite or too large. Without
    /// SCAFFOLD, the answer has a control variate.
    Control,
    /// It answered more than once.
    Duplicate,
    /// It was not chosen, or there is no such client.
    Unasked,
}

impl Reason {
    /// All, in an order that stays: their numbers go from rank to rank.
    pub(super) const ALL: [Self; 11] = [
        Self::Failed,
        Self::Panicked,
        Self::Late,
        Self::Busy,
        Self::Silent,
        Self::OtherLayout,
        Self::NotFinite,
        Self::Weight,
        Self::Control,
        Self::Duplicate,
        Self::Unasked,
    ];

    fn words(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Panicked => "panicked",
            Self::Late => "is late",
            Self::Busy => "is still at an earlier round",
            Self::Silent => "gave no answer",
            Self::OtherLayout => "returned other parameters",
            Self::NotFinite => "returned numbers that cannot be added up",
            Self::Weight => "has a weight that cannot be used",
            Self::Control => "returned no control change that fits",
            Self::Duplicate => "answered more than once",
            Self::Unasked => "was not asked",
        }
    }
}

impl LeftOut {
    pub(super) fn new(client: usize, reason: Reason, detail: impl ToString) -> Self {
        Self { client, reason, detail: detail.to_string() }
    }
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "client {} {}", self.client, self.reason.words())?;
        match self.detail.as_str() {
            "" => Ok(()),
            detail => write!(f, ": {detail}"),
        }
    }
}

impl fmt::Display for RoundReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let moved = if self.moved { "" } else { ", the model did not move" };
        write!(f, "round {}: {} clients counted{moved}", self.round, self.counted.len())?;
        if let Some(noise) = self.noise.filter(|noise| *noise > 1.0) {
            write!(
                f,
                "; the noise is {noise:.1} times as large as the largest mean change: {noise:.1} times as many "
            )?;
            f.write_str("clients would make them equal")?;
        }
        self.left_out.iter().try_for_each(|out| write!(f, "; {out}"))
    }
}
