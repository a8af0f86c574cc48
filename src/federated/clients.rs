//! The connection between a server and its clients.

use super::client::{Task, Update};
use super::report::{LeftOut, Reason};
use crate::error::Result;
use crate::params::Params;

/// The clients of a server.
///
/// [`Simulation`](super::Simulation) runs them on threads of this process, [`Ranks`](super::Ranks) on all ranks of a group. For clients
/// behind your own network, implement [`count`](Clients::count) and [`train`](Clients::train).
pub trait Clients<T: Params> {
    /// The number of clients. They are numbered 0 … `count` − 1.
    fn count(&self) -> usize;

    /// Sends the tasks to the chosen clients, and returns when all have answered or no more answers are expected.
    ///
    /// The answers may be in any order. The server validates the answers: clients without one are reported as `Silent`, duplicates are
    /// dropped.
    fn train(&mut self, tasks: Vec<(usize, Task<T>)>) -> Vec<Reply<T>>;

    /// Sends a message to all ranks of the server and returns the messages of all ranks, in their order.
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

    /// This rank's number among the server's ranks.
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

/// The answer of one client, or the reason why there is none.
#[derive(Debug)]
pub struct Reply<T: Params> {
    pub(super) client: usize,
    pub(super) answer: Result<Update<T>, LeftOut>,
}

impl<T: Params> Reply<T> {
    /// Creates a reply from a client's answer.
    pub fn new(client: usize, update: Update<T>) -> Self {
        Self { client, answer: Ok(update) }
    }

    /// Creates a reply without an answer, from a reason and details such as the text of an error.
    pub fn left_out(client: usize, reason: Reason, detail: impl ToString) -> Self {
        Self { client, answer: Err(LeftOut::new(client, reason, detail)) }
    }
}
