//! The aggregation of the clients' changes.

use crate::error::Result;
use crate::state::{Commit, StateReader, StateWriter};

/// Combines the changes of the clients into the change of the model.
///
/// A round [prepares](Aggregation::prepare) each change, adds them up, [completes](Aggregation::complete) the sum, and divides it by the
/// [`divisor`](Aggregation::divisor). The provided methods compute the weighted mean. The private aggregation limits every change, adds
/// noise to the sum, and divides by a number that does not depend on who answered.
pub trait Aggregation: Send {
    /// Returns an error unless the round can take place. Called before any client trains; changes nothing.
    ///
    /// # Errors
    /// [`StepError::HyperParameter`](crate::error::StepError::HyperParameter).
    fn check(&self) -> Result<()> {
        Ok(())
    }

    /// Settings that must be the same on all ranks of a group and are neither in the [state](Aggregation::write_state) nor in the
    /// [divisor](Aggregation::divisor), such as a limit. If ranks differ in them, a round returns an error.
    fn settings(&self) -> Vec<f64> {
        Vec::new()
    }

    /// Modifies one client's change in place, and returns its weight in the sum.
    ///
    /// `change` is finite and contains the tensors one after the other; `weight` is the weight that the client returned.
    fn prepare(&mut self, change: &mut [f64], weight: f64) -> f64 {
        let _ = change;
        weight
    }

    /// Modifies the weighted sum in place.
    ///
    /// It is called once per round with a valid answer. In a group of ranks it is called on one rank only, before the sums of the ranks
    /// are added. It cannot fail, because the other ranks would be left waiting. Do work that can fail, such as drawing a seed, before the
    /// first round.
    fn complete(&mut self, sum: &mut [f64]) {
        let _ = sum;
    }

    /// Whether a round without a valid answer moves the model, by the result of [`complete`](Aggregation::complete) on a sum of 0.
    ///
    /// The default is `false`. A private aggregation returns `true`, because it must be secret that no client was chosen.
    fn moves_without_answers(&self) -> bool {
        false
    }

    /// Whether the sum of control variates may be revealed. A private aggregation returns `false`, because that sum gets no noise.
    fn allows_controls(&self) -> bool {
        true
    }

    /// The divisor of the sum, given the sum of the weights.
    fn divisor(&self, weights: f64) -> f64 {
        weights
    }

    /// The expected norm of the noise from [`complete`](Aggregation::complete), for a model of this many elements, divided by the largest
    /// possible norm of the mean change. `None` without noise. It is shown in [`RoundReport::noise`](crate::federated::RoundReport::noise).
    fn noise(&self, elements: usize) -> Option<f64> {
        let _ = elements;
        None
    }

    /// Called on every rank just before the sum of a round is computed. From then on the sum counts as revealed, whether or not the model
    /// moves. Changes made here are kept if the round fails.
    fn released(&mut self) {}

    /// Writes the aggregation's state to its own [node](StateWriter::node).
    fn write_state(&self, state: &mut StateWriter<'_>) {
        let _ = state;
    }

    /// Reads the state that [`write_state`](Aggregation::write_state) wrote. Changes nothing before the [`Commit`] is made.
    ///
    /// # Errors
    /// Those of [`StateReader`].
    fn read_state<'s>(&'s mut self, state: &mut StateReader<'_>) -> Result<Commit<'s>> {
        let _ = state;
        Ok(Commit::nothing())
    }
}

/// The weighted mean of all changes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Mean;

impl Aggregation for Mean {}
