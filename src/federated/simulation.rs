//! Clients on the threads of this process.

use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::client::{Client, Failure, Task, Update};
use super::clients::{Clients, Reply};
use super::report::Reason;
use crate::params::Params;

/// Clients that train on threads of this process: for research, for tests, and for the clients of one rank.
///
/// The number of [threads](Simulation::threads) limits how many clients train at the same time. If a client panics, the report names it
/// and the others continue. With a [deadline](Simulation::deadline) a round ends without clients that are late. A late client that has
/// not started yet does not start. A late client that has started keeps its thread until it returns, and the other clients get a new
/// thread. Until then it is reported as busy, and its answer is discarded.
///
/// ```
/// use gradus::federated::{Client, Failure, Reason, Server, Simulation, Task, Update};
/// use gradus::prelude::*;
/// use ndarray::{Array1, array};
///
/// let clients: Vec<Box<dyn Client<Array1<f64>>>> = vec![
///     Box::new(|task: &Task<Array1<f64>>| Ok(Update::new(task.model() + 1.0, 1.0))),
///     Box::new(|_: &Task<Array1<f64>>| Err(Failure::from("no data yet"))),
/// ];
/// let mut model = array![0.0];
/// let report = Server::new(Sgd::new(1.0)).round(&mut model, &mut Simulation::new(clients).threads(2))?;
/// assert_eq!(model, array![1.0]);
/// assert_eq!(report.left_out[0].to_string(), "client 1 failed: no data yet");
/// # Ok::<(), gradus::Error>(())
/// ```
pub struct Simulation<T: Params, C> {
    shared: Arc<Shared<T, C>>,
    threads: usize,
    deadline: Option<Duration>,
    ticket: u64,
    sender: Sender<Told<T>>,
    receiver: Receiver<Told<T>>,
}

/// What a thread tells: of which task, by which client, and how it ended.
type Told<T> = (u64, usize, thread::Result<Result<Update<T>, Failure>>);

struct Shared<T: Params, C> {
    clients: Vec<Mutex<C>>,
    board: Mutex<Board<T>>,
    changed: Condvar,
}

/// Where tasks wait for threads.
struct Board<T: Params> {
    waiting: VecDeque<(usize, Task<T>)>,
    /// For every client the ticket of the round whose task it is at.
    busy: Vec<Option<u64>>,
    /// The ticket of the round that tasks are given out for.
    ticket: u64,
    /// How many threads take tasks of it: not those that are still at one of an earlier round, which end with that.
    threads: usize,
    closed: bool,
}

impl<T: Params, C> fmt::Debug for Simulation<T, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Simulation({} clients, {} threads)", self.shared.clients.len(), self.threads)
    }
}

impl<T: Params, C> Shared<T, C> {
    fn board(&self) -> MutexGuard<'_, Board<T>> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Params, C: Client<T>> Shared<T, C> {
    /// What a thread does until the simulation is gone.
    fn work(&self, sender: &Sender<Told<T>>) {
        loop {
            let board = self.changed.wait_while(self.board(), |board| board.waiting.is_empty() && !board.closed);
            let mut board = board.unwrap_or_else(PoisonError::into_inner);
            if board.closed {
                return;
            }
            let Some((number, task)) = board.waiting.pop_front() else { continue };
            let ticket = board.ticket;
            board.busy[number] = Some(ticket);
            drop(board);
            let end = {
                let mut client = self.clients[number].lock().unwrap_or_else(PoisonError::into_inner);
                catch_unwind(AssertUnwindSafe(|| client.train(&task)))
            };
            drop(task);
            let mut board = self.board();
            board.busy[number] = None;
            if board.ticket != ticket {
                return; // another thread has taken this one's place
            }
            drop(board);
            if sender.send((ticket, number, end)).is_err() {
                return; // the simulation is gone
            }
        }
    }
}

impl<T: Params, C: Client<T>> Simulation<T, C> {
    /// Creates a simulation of these clients, numbered in their order. For clients of different types, use `Box<dyn Client<T>>`.
    pub fn new(clients: impl IntoIterator<Item = C>) -> Self {
        let clients: Vec<_> = clients.into_iter().map(Mutex::new).collect();
        let busy = vec![None; clients.len()];
        let board = Board { waiting: VecDeque::new(), busy, ticket: 0, threads: 0, closed: false };
        let shared = Arc::new(Shared { clients, board: Mutex::new(board), changed: Condvar::new() });
        let (sender, receiver) = channel();
        let threads = thread::available_parallelism().map_or(1, usize::from);
        Self { shared, threads, deadline: None, ticket: 0, sender, receiver }
    }

    /// Sets how many clients train at the same time, at least 1; the default is the number of processors.
    #[must_use]
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads.max(1);
        self
    }

    /// Sets how long a round waits for all of its clients together; the default is to wait forever.
    ///
    /// Clients share the threads, so a slow client can make another one late. With a [private](super::Server::private) server, this can
    /// reveal who took part.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Gives access to a client between rounds, for example to save its state. Returns `None` if there is no such client, or if it is still
    /// training.
    pub fn with_client<R>(&self, client: usize, look: impl FnOnce(&mut C) -> R) -> Option<R> {
        let client = self.shared.clients.get(client)?;
        let mut client = match client.try_lock() {
            Ok(client) => client,
            Err(std::sync::TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(std::sync::TryLockError::WouldBlock) => return None,
        };
        Some(look(&mut client))
    }
}

impl<T, C> Simulation<T, C>
where
    T: Params + Send + Sync + 'static,
    C: Client<T> + 'static,
{
    /// Begins a round: who is still at an earlier one loses its place, and the threads that are not there yet are started. Some
    /// machines will not have as many.
    fn begin(&mut self) -> std::io::Result<()> {
        self.ticket += 1;
        let mut board = self.shared.board();
        let before = Some(std::mem::replace(&mut board.ticket, self.ticket));
        board.threads -= board.busy.iter().filter(|busy| **busy == before).count();
        while board.threads < self.threads.min(self.shared.clients.len()) {
            let (shared, sender) = (Arc::clone(&self.shared), self.sender.clone());
            let started = thread::Builder::new().name("client".into()).spawn(move || shared.work(&sender));
            match started {
                Ok(_) => board.threads += 1,
                Err(error) if board.threads == 0 => return Err(error),
                Err(_) => break,
            }
        }
        Ok(())
    }
}

impl<T, C> Clients<T> for Simulation<T, C>
where
    T: Params + Send + Sync + 'static,
    C: Client<T> + 'static,
{
    fn count(&self) -> usize {
        self.shared.clients.len()
    }

    fn train(&mut self, tasks: Vec<(usize, Task<T>)>) -> Vec<Reply<T>> {
        if let Err(error) = self.begin() {
            let failed = |(client, _)| Reply::left_out(client, Reason::Failed, format!("no thread: {error}"));
            return tasks.into_iter().map(failed).collect();
        }
        let mut replies = Vec::with_capacity(tasks.len());
        let mut expected = Vec::with_capacity(tasks.len());
        {
            let mut board = self.shared.board();
            for (client, task) in tasks {
                match board.busy.get(client) {
                    None => {} // nobody: silent
                    Some(Some(_)) => replies.push(Reply::left_out(client, Reason::Busy, "")),
                    Some(None) => {
                        expected.push(client);
                        board.waiting.push_back((client, task));
                    }
                }
            }
        }
        self.shared.changed.notify_all();

        // A deadline beyond all times is none.
        let end = self.deadline.and_then(|deadline| Instant::now().checked_add(deadline));
        while !expected.is_empty() {
            let told = match end {
                Some(end) => self.receiver.recv_timeout(end.saturating_duration_since(Instant::now())),
                None => self.receiver.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            let Ok((ticket, client, end)) = told else { break };
            if ticket != self.ticket {
                continue; // an answer to an earlier round
            }
            expected.retain(|other| *other != client);
            replies.push(match end {
                Ok(Ok(update)) => Reply::new(client, update),
                Ok(Err(failure)) => Reply::left_out(client, Reason::Failed, failure),
                Err(panic) => Reply::left_out(client, Reason::Panicked, text(&*panic)),
            });
        }
        self.shared.board().waiting.clear();
        let waited = self.deadline.unwrap_or_default();
        let late = |client| Reply::left_out(client, Reason::Late, format!("no answer in {waited:?}"));
        replies.extend(expected.into_iter().map(late));
        replies
    }
}

/// The text of a panic, if it has one.
fn text(panic: &(dyn Any + Send)) -> String {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => (*text).into(),
        (_, Some(text)) => text.clone(),
        _ => String::new(),
    }
}

impl<T: Params, C> Drop for Simulation<T, C> {
    fn drop(&mut self) {
        // Nobody waits for the threads: one may be at a task without end. Each ends when it is done with its own.
        self.shared.board().closed = true;
        self.shared.changed.notify_all();
    }
}
