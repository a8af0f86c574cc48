//! Gradient compression with error feedback.
//!
//! A [`Compression`] sends a part C(v) of its input v. The rest is added to the gradient of the next step (error feedback), so over many
//! steps the whole gradient is sent:
//!
//! ```text
//! v ← g + e            g: the rank's gradient;  e: its residual, 0 at first
//! e ← v − C(v)
//! θ ← the step of the optimizer inside along the mean of C(v) over all ranks
//! ```
//! [`DataParallel::compress`](super::DataParallel::compress) keeps the residuals. They change only if the step succeeds. A residual that
//! would not be finite is set to 0.
//!
//! ```
//! use gradus::distributed::{Alone, compress::TopK};
//! use gradus::prelude::*;
//! use ndarray::array;
//!
//! let mut opt = Sgd::new(1.0).data_parallel(Alone).compress(TopK::new(0.5));
//! let mut w = array![0.0, 0.0];
//! opt.step(&mut w, &array![3.0, 2.0])?;
//! assert_eq!(w, array![-3.0, 0.0]); // the residual is now (0, 2)
//! opt.step(&mut w, &array![3.0, 2.0])?;
//! assert_eq!(w, array![-3.0, -4.0]);
//! # Ok::<(), gradus::Error>(())
//! ```
//!
//! # References
//! S. P. Karimireddy, Q. Rebjock, S. U. Stich and M. Jaggi, *Error Feedback Fixes SignSGD and other Gradient Compression
//! Schemes* (2019), [arXiv:1901.09847](https://arxiv.org/abs/1901.09847), algorithm 2.

mod bf16;
mod low_rank;
mod power_sgd;
mod top_k;

use std::fmt;
use std::sync::Arc;

use super::group::Collective;
use super::packed::{self, Place};
use crate::error::Result;
use crate::params::{Element, Layout};
use crate::state::{Commit, StateReader, StateWriter};
use crate::step::{PerTensor, Step};

pub use bf16::Bf16;
pub use power_sgd::PowerSgd;
pub use top_k::TopK;

/// A method for sending gradients in fewer bytes.
///
/// All ranks have the same compression and the same tensors, and must compute the same bits.
pub trait Compression<A: Element>: Send {
    /// The name of the algorithm, used in the saved state.
    fn name(&self) -> &'static str;

    /// The name and every setting that must be the same on all ranks.
    fn describe(&self) -> String {
        self.name().into()
    }

    /// Returns an error unless the hyper-parameters are valid.
    ///
    /// # Errors
    /// [`ArgumentError::Range`](crate::error::ArgumentError::Range).
    fn check(&self) -> Result<()> {
        Ok(())
    }

    /// Replaces `values` by the mean over all ranks of the compressed values, and writes this rank's residual, its values minus its
    /// compressed values, to `rest`. Returns the number of bytes passed to the group.
    ///
    /// `places` lists the tensors that the values belong to. State must not change before [`commit`](Self::commit).
    ///
    /// # Errors
    /// Those of the group.
    fn reduce(
        &mut self,
        group: &dyn Collective<A>,
        places: &[Place<'_>],
        values: &mut [A],
        rest: &mut [A],
    ) -> Result<u64>;

    /// Updates the state after the step of the last reduction has succeeded.
    fn commit(&mut self) {}

    /// Writes the state. Before the first step the layout has no tensors; a state that is read later may have all of them.
    fn write_state(&self, state: &mut StateWriter<'_>, layout: &Layout) {
        let _ = (state, layout);
    }

    /// Reads the state that [`write_state`](Self::write_state) wrote, as [`Optimizer::read_state`](crate::Optimizer::read_state) does.
    ///
    /// # Errors
    /// Those of [`StateReader`].
    fn read_state<'s>(&'s mut self, state: &StateReader<'_>) -> Result<Commit<'s>> {
        let _ = state;
        Ok(Commit::nothing())
    }
}

/// A compression and what it has not sent yet.
pub(super) struct Feedback<A> {
    compression: Box<dyn Compression<A>>,
    /// Empty for tensors that have had no gradient.
    residuals: PerTensor<Vec<A>>,
    /// What the last reduction has left, packed.
    rest: Vec<A>,
}

impl<A: Element> Feedback<A> {
    pub(super) fn new(compression: Box<dyn Compression<A>>) -> Self {
        Self { compression, residuals: PerTensor::new(), rest: Vec::new() }
    }

    pub(super) fn compression(&self) -> &dyn Compression<A> {
        &*self.compression
    }

    /// Puts the mean of what all ranks send in the place of the gradients. Returns the bytes sent.
    pub(super) fn reduce(&mut self, group: &dyn Collective<A>, places: &[Place<'_>], grads: &mut [A]) -> Result<u64> {
        for place in places {
            let residual = self.residuals.at(place.index()).into_iter().flatten();
            grads[place.range()].iter_mut().zip(residual).for_each(|(grad, residual)| *grad += *residual);
        }
        let rest = packed::room(&mut self.rest, grads.len());
        let bytes = self.compression.reduce(group, places, grads, rest)?;
        // A NaN that was let through must not come back at every step.
        rest.iter_mut().filter(|rest| !rest.is_finite()).for_each(|rest| *rest = A::zero());
        Ok(bytes)
    }

    /// The step was taken: what was left is what will be added.
    pub(super) fn commit(&mut self, step: &mut Step<'_, A>, places: &[Place<'_>]) {
        let Self { compression, residuals, rest } = self;
        let (made, mut places) = (residuals.begin(step, |_, _| Vec::new()), places.iter());
        residuals.each(step, |_, tensor, residual| {
            if let Some(place) = tensor.grad.as_ref().and_then(|_| places.next()) {
                residual.clear();
                residual.extend_from_slice(&rest[place.range()]);
            }
        });
        _ = residuals.settle(made, Ok(()));
        compression.commit();
    }

    pub(super) fn write_state(&self, state: &mut StateWriter<'_>) {
        let mut node = state.node(self.compression.name());
        let residuals = || self.residuals.iter().filter(|(_, residual)| !residual.is_empty());
        node.value("residuals", residuals().count());
        residuals().for_each(|(info, residual)| node.tensor("residual", info, residual.iter().copied()));
        // Before the first step there are no tensors, but what is read without any must be there.
        let nothing = Arc::default();
        self.compression.write_state(&mut node, self.residuals.layout().unwrap_or(&nothing));
    }

    pub(super) fn read_state<'s>(&'s mut self, state: &mut StateReader<'_>) -> Result<Commit<'s>> {
        let node = state.node(self.compression.name())?;
        let read = PerTensor::read_state(&node, |info| node.tensor("residual", info))?;
        let count = read.iter().count();
        node.value_where("residuals", "the number of residuals", |number: &usize| *number == count)?;
        let Self { compression, residuals, .. } = self;
        Ok(compression.read_state(&node)?.and(Commit::new(move || *residuals = read)))
    }
}

impl<A> fmt::Debug for Feedback<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Feedback")
    }
}
