//! What became of a round, client by client.

use std::fmt;

use crate::step::Report;

/// What a round did.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq)]
pub struct RoundReport {
    /// The number of the round, 0 for the first. One that nobody answered validly has the number of the next.
    pub round: u64,
    /// Whether the model moved: not without a valid answer, nor where the server's optimizer only
    /// [accumulates](crate::Optimizer::accumulate), as `step` then says.
    pub moved: bool,
    /// The clients whose answers counted, in their order.
    pub counted: Vec<Counted>,
    /// The other clients that were asked, and whoever else answered, each with the reason.
    pub left_out: Vec<LeftOut>,
    /// What the server's optimizer says of its step, if it was asked for one.
    pub step: Option<Report>,
    /// With [privacy](crate::federated::Server::private): how large the noise of a round is, its expected norm in units of the largest
    /// norm that the mean of all changes can have. Above 1 a round is more noise than change, and the report's text says how many
    /// clients would be enough: see [`noise_ratio`](crate::federated::privacy::GaussianMechanism::noise_ratio).
    pub noise: Option<f64>,
}

/// A client whose answer counted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Counted {
    /// Which client.
    pub client: usize,
    /// The weight that its change has in the sum.
    pub weight: f64,
}

/// A client that was left out of a round.
#[derive(Debug, Clone, PartialEq)]
pub struct LeftOut {
    /// Which client.
    pub client: usize,
    /// Why.
    pub reason: Reason,
    /// What more there is to say: the text of an error or panic, the tensor and the value, the weight.
    pub detail: String,
}

/// Why a client was left out of a round.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// It returned an error.
    Failed,
    /// It panicked. It is asked again in later rounds, with whatever the panic left it.
    Panicked,
    /// It did not answer before the deadline. Should it still answer, nobody listens.
    Late,
    /// It was still at the task of an earlier round, and was not asked.
    Busy,
    /// There is no answer, and no word why.
    Silent,
    /// Its parameters are not the model's: other paths or shapes.
    OtherLayout,
    /// A parameter or its change is NaN or infinite, or the change times the weight so large that a sum could become so.
    NotFinite,
    /// Its weight is not a positive number, or so large that a sum could become infinite.
    Weight,
    /// With SCAFFOLD: there is no change of its control variate, or not one for this model, or one that is not finite or that would
    /// make a sum so; without: there is one.
    Control,
    /// It answered more than once: nobody knows which answer holds.
    Duplicate,
    /// It was not asked, or there is no such client.
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
