//! Where the clients of a server are, and how their answers come in.

use super::client::{Task, Update};
use super::report::{LeftOut, Reason};
use crate::error::Result;
use crate::params::Params;

/// The clients of a server: threads of this process, [`Simulation`](super::Simulation); those of all ranks of a group,
/// [`Ranks`](super::Ranks); or whatever a network of your own reaches, for which [`count`](Clients::count) and
/// [`train`](Clients::train) are all there is to write.
pub trait Clients<T: Params> {
    /// How many clients there are. Their numbers are 0 … `count` − 1.
    fn count(&self) -> usize;

    /// Gives the chosen clients their tasks, and returns when all have answered or none will any more.
    ///
    /// In any order. Whoever is not among the answers is named as silent, whoever is there twice is left out: the server believes
    /// nothing.
    fn train(&mut self, tasks: Vec<(usize, Task<T>)>) -> Vec<Reply<T>>;

    /// Tells all ranks of the server something and returns what all have told, in their order.
    ///
    /// # Errors
    /// Those of [`RankGroup`](crate::distributed::RankGroup).
    fn exchange(&self, own: &[u8]) -> Result<Vec<Vec<u8>>> {
        Ok(vec![own.to_vec()])
    }

    /// Replaces the values by their sums over all ranks of the server.
    ///
    /// # Errors
    /// Those of [`RankGroup`](crate::distributed::RankGroup).
    fn add(&self, sums: &mut [f64]) -> Result<()> {
        let _ = sums;
        Ok(())
    }

    /// Which of the server's ranks this is.
    fn rank(&self) -> usize {
        0
    }
}

impl<T: Params, C: Clients<T> + ?Sized> Clients<T> for &mut C {
    fn count(&self) -> usize {
        (**self).count()
    }

    fn train(&mut self, tasks: Vec<(usize, Task<T>)>) -> Vec<Reply<T>> {
        (**self).train(tasks)
    }

    fn exchange(&self, own: &[u8]) -> Result<Vec<Vec<u8>>> {
        (**self).exchange(own)
    }

    fn add(&self, sums: &mut [f64]) -> Result<()> {
        (**self).add(sums)
    }

    fn rank(&self) -> usize {
        (**self).rank()
    }
}

/// What came back from one client, or why nothing did.
#[derive(Debug)]
pub struct Reply<T: Params> {
    pub(super) client: usize,
    pub(super) answer: Result<Update<T>, LeftOut>,
}

impl<T: Params> Reply<T> {
    /// A client's answer.
    pub fn new(client: usize, update: Update<T>) -> Self {
        Self { client, answer: Ok(update) }
    }

    /// The reason why there is none, with what more there is to say.
    pub fn left_out(client: usize, reason: Reason, detail: impl ToString) -> Self {
        Self { client, answer: Err(LeftOut::new(client, reason, detail)) }
    }
}
