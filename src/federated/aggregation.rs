//! How the changes of clients become one.

use crate::error::Result;
use crate::state::{Commit, StateReader, StateWriter};

/// How the changes of the clients become the change of the model: [`prepare`](Aggregation::prepare) each,
/// add up, [`complete`](Aggregation::complete) the sum, divide by the [`divisor`](Aggregation::divisor).
///
/// What is written here is the weighted mean. Privacy limits every change, adds noise to the sum and divides by a number that does
/// not depend on who answered.
pub trait Aggregation: Send {
    /// Whether this round can be: called before any client is asked. Changes nothing.
    ///
    /// # Errors
    /// [`StepError::HyperParameter`](crate::error::StepError::HyperParameter).
    fn check(&self) -> Result<()> {
        Ok(())
    }

    /// What must be the same on all ranks of a group and can be seen neither in the [state](Aggregation::write_state) nor in the
    /// [divisor](Aggregation::divisor): a limit, say. Ranks that differ in it do not begin a round.
    fn settings(&self) -> Vec<f64> {
        Vec::new()
    }

    /// Changes what one client has changed, in place, and returns the weight that it has in the sum.
    ///
    /// `change` is finite and holds the tensors one after the other; `weight` is the client's own.
    fn prepare(&mut self, change: &mut [f64], weight: f64) -> f64 {
        let _ = change;
        weight
    }

    /// Changes the weighted sum, in place: once in every round with a valid answer, and in a group of ranks on one of them, before
    /// the sums of the ranks are added up. What may fail, to find a seed say, belongs before the first round: here one rank would leave
    /// the others waiting.
    fn complete(&mut self, sum: &mut [f64]) {
        let _ = sum;
    }

    /// Whether a round moves the model though nobody answered validly, by what [`complete`](Aggregation::complete) adds to nothing.
    ///
    /// No, unless the accounting of privacy takes it for granted: that nobody was chosen is a secret, too.
    fn moves_without_answers(&self) -> bool {
        false
    }

    /// Whether the sum of control variates, which is not completed, may be known: not with privacy.
    fn allows_controls(&self) -> bool {
        true
    }

    /// What the sum is divided by, given the sum of the weights.
    fn divisor(&self, weights: f64) -> f64 {
        weights
    }

    /// How large the noise is that [`complete`](Aggregation::complete) adds, in a model of this many elements: its expected norm, in
    /// units of the largest norm that the mean change can have. `None` where there is no noise. The round's
    /// [report](crate::federated::RoundReport::noise) has it.
    fn noise(&self, elements: usize) -> Option<f64> {
        let _ = elements;
        None
    }

    /// Called on every rank when the sum of a round is about to be put together: from here on it counts as known, whether or not the
    /// model moves by it. What is changed here stays changed if the round fails.
    fn released(&mut self) {}

    /// Writes what is remembered from round to round, into a [node](StateWriter::node) of its own.
    fn write_state(&self, state: &mut StateWriter<'_>) {
        let _ = state;
    }

    /// Reads what [`write_state`](Aggregation::write_state) wrote; changes nothing before the [`Commit`] is made.
    ///
    /// # Errors
    /// Those of [`StateReader`].
    fn read_state<'s>(&'s mut self, state: &mut StateReader<'_>) -> Result<Commit<'s>> {
        let _ = state;
        Ok(Commit::nothing())
    }
}

/// The mean of all changes, each with the client's weight.
#[derive(Debug, Clone, Copy, Default)]
pub struct Mean;

impl Aggregation for Mean {}
