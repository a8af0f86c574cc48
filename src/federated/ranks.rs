//! Clients on all ranks of a group.

use std::ops::Range;

use super::client::Task;
use super::clients::{Clients, Reply};
use crate::distributed::{Collective, RankGroup, gather};
use crate::error::{Error, Result};
use crate::params::Params;

/// The clients of all ranks of a group; each rank runs some of them.
///
/// The clients are numbered rank by rank. Every rank has a [`Server`](super::Server), built in the same way, and the same model. It trains
/// and validates its own clients. Per round, ranks exchange the sum of their clients' changes in f64, and a few bytes per client.
///
/// While clients train, ranks wait for each other, at most for the group's timeout. Set the timeout to more than the clients'
/// [deadline](super::Simulation::deadline).
///
/// ```
/// use gradus::distributed::{RankGroup, ThreadGroup};
/// use gradus::federated::{Failure, Ranks, Server, Simulation, Task, Update};
/// use gradus::prelude::*;
/// use ndarray::{Array1, array};
///
/// let models = ThreadGroup::run(2, |group| {
///     let shift = 1.0 + 2.0 * group.rank() as f64;
///     let client = move |task: &Task<Array1<f64>>| Ok::<_, Failure>(Update::new(task.model() + shift, 1.0));
///     let mut clients = Ranks::new(group, Simulation::new([client]))?;
///     let mut model = array![0.0];
///     Server::new(Sgd::new(1.0)).round(&mut model, &mut clients)?;
///     Ok::<_, gradus::Error>(model)
/// });
/// assert!(models.into_iter().all(|model| model == Ok(array![2.0]))); // the mean of 1 and 3
/// ```
#[derive(Debug)]
pub struct Ranks<G, C> {
    group: G,
    clients: C,
    /// The numbers of this rank's clients, and how many all ranks have.
    own: Range<usize>,
    count: usize,
}

impl<G: RankGroup, C> Ranks<G, C> {
    /// Joins this rank's clients with those of the other ranks. Every rank must call it.
    ///
    /// # Errors
    /// Those of [`RankGroup`]; [`ArgumentError::Range`](crate::error::ArgumentError::Range) if there are more clients than a `usize` can count.
    pub fn new<T: Params>(group: G, clients: C) -> Result<Self>
    where
        C: Clients<T>,
    {
        let own = clients.count();
        let mut counts = vec![0; size_of::<u64>() * group.size()];
        group.all_gather_bytes(&(own as u64).to_le_bytes(), &mut counts)?;
        let (counts, _) = counts.as_chunks();
        let sum = |ranks: usize| {
            let mut counts = counts.iter().take(ranks).map(|count| usize::try_from(u64::from_le_bytes(*count)).ok());
            counts.try_fold(0_usize, |sum, count| sum.checked_add(count?))
        };
        let (Some(first), Some(end), Some(count)) = (sum(group.rank()), sum(group.rank() + 1), sum(group.size()))
        else {
            return Err(Error::argument("clients", own as f64, "so many that those of all ranks can be counted"));
        };
        Ok(Self { own: first..end, count, group, clients })
    }

    /// The group.
    pub fn group(&self) -> &G {
        &self.group
    }

    /// The clients of this rank.
    pub fn clients(&self) -> &C {
        &self.clients
    }

    /// The numbers of this rank's clients.
    pub fn own(&self) -> Range<usize> {
        self.own.clone()
    }
}

impl<T: Params, G: Collective<f64>, C: Clients<T>> Clients<T> for Ranks<G, C> {
    fn count(&self) -> usize {
        self.count
    }

    fn train(&mut self, tasks: Vec<(usize, Task<T>)>) -> Vec<Reply<T>> {
        let own = self.own();
        let tasks = tasks.into_iter().filter(|(client, _)| own.contains(client));
        let mut replies = self.clients.train(tasks.map(|(client, task)| (client - own.start, task)).collect());
        for reply in &mut replies {
            // A number that is not among the own must not be taken for one of another rank.
            let offset = if reply.client < own.len() { own.start } else { self.count };
            reply.client = reply.client.saturating_add(offset);
            if let Err(out) = &mut reply.answer {
                out.client = reply.client;
            }
        }
        replies
    }

    fn exchange(&self, own: &[u8]) -> Result<Vec<Vec<u8>>> {
        gather(&self.group, own)
    }

    fn add(&self, sums: &mut [f64]) -> Result<()> {
        self.group.all_reduce(sums)
    }

    fn rank(&self) -> usize {
        self.group.rank()
    }
}
