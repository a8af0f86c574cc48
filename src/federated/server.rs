//! The server: it sends out the model, collects the clients' answers, and moves the model.

use std::fmt;
use std::sync::Arc;

use super::aggregation::{Aggregation, Mean};
use super::answers::{Answers, Sums};
use super::client::Task;
use super::clients::Clients;
use super::report::RoundReport;
use super::selection::{All, Selection};
use super::tensors::Tensors;
use crate::distributed::{Before, ensure_finite};
use crate::error::{ArgumentError, Error, FederatedError, RankError, Result, StepError};
use crate::params::{Element, Layout, Params, ParamsMut};
use crate::step::{Optimizer, Report, Step};

/// Trains a model in rounds with clients, without access to their data.
///
/// In a round the chosen clients train the model on their own data. The server's optimizer then takes a step with the negative mean of
/// their changes as the gradient. Any gradus optimizer can be the server's optimizer.
///
/// | server optimizer | algorithm |
/// |---|---|
/// | `Sgd::new(1.0)` | FedAvg |
/// | `Momentum::new(1.0, 0.9)` | FedAvgM |
/// | [`FedAdagrad`](super::FedAdagrad), [`FedAdam`](super::FedAdam), [`FedYogi`](super::FedYogi) | FedAdagrad, FedAdam, FedYogi |
///
/// # Update rule
/// ```text
/// S  the chosen clients whose answers yᵢ, with their weights nᵢ, are valid
/// Δ = Σ nᵢ(yᵢ − θ) / Σ nᵢ                          in f64, in the order of the clients
/// θ ← the optimizer's step with ∇J(θ) = −Δ
/// c ← c + Σ Δcᵢ / N                                with SCAFFOLD, N clients in all
/// ```
/// # Failures
/// The round continues with the valid answers. [`left_out`](RoundReport::left_out) lists all other clients with a
/// [reason](super::Reason): failed, panicked, late, other shapes, NaN, invalid weight, answered twice, no answer, or numbers so large that
/// a sum could overflow. If no answer is valid, model and server are unchanged, bit for bit, and the report has `moved: false`; the next
/// round has the same number and chooses clients again. Wrong but finite updates are not detected; a mean is not robust against
/// malicious clients.
///
/// Finite changes can still make the model or the optimizer's state overflow. The round then returns [`StepError::NonFiniteParameter`] or, for
/// an entry of the state, [`StateError::EntryValue`](crate::error::StateError::EntryValue), and model and server are unchanged. A single client can cause this in every round, if the
/// optimizer amplifies changes: FedAdam in f32 squares a change, which must stay below 1.8e19. Use an [`Aggregation`] that limits each
/// change to prevent it.
///
/// With [`Ranks`](super::Ranks) every rank has its own server, built in the same way, and all ranks end a round with the same bits. An
/// error on one rank is an error on all. At the start of a round, the ranks compare the model, their settings and the server's state. The
/// optimizer's state is not compared; a difference in it shows in the model of the next round. If a rank is lost in the last exchange, the
/// remaining ranks may end up a round apart, each in a consistent state. A later round then returns [`RankError::RanksDisagree`]; load the same
/// state and model on all ranks.
///
/// # State
/// [`state_dict`](Server::state_dict) contains the optimizer's state, the number of the round, the state of the aggregation, and, with
/// SCAFFOLD, the control variate. It does not contain the model and the clients' own state. During a round, copies of the model and of the
/// optimizer's state are kept, to restore them after an error. A round without valid answers is repeated with another choice of clients;
/// the number of repetitions is not saved.
///
/// # Errors
/// Before any client trains: those of the optimizer's [`check`](Optimizer::check), of the [`Selection`] ([`StepError::HyperParameter`],
/// [`FederatedError::Entropy`]) and of the [`Aggregation`]; [`StepError::DuplicatePath`] and, with SCAFFOLD, [`StepError::ParametersChanged`] of the
/// model; [`FederatedError::ControlNotPrivate`]; [`StepError::CounterFull`].
///
/// After the clients have trained: [`StepError::NonFiniteGradient`] if your own aggregation produces a change that is not finite, or if more
/// clients than a private server expects send large changes; [`ArgumentError::NotFinite`] if the control variate is not finite;
/// [`StepError::NonFiniteParameter`] and [`StateError::EntryValue`](crate::error::StateError::EntryValue) if the model or the optimizer's state would not be finite; those of the
/// optimizer's [`apply`](Optimizer::apply).
///
/// In a group of ranks, before and after: [`RankError::RankRefused`], [`RankError::RanksDisagree`], [`RankError::RankLeft`], [`RankError::RankTimeout`],
/// [`RankError::Transport`].
///
/// # Example
/// ```
/// use gradus::federated::{Failure, Server, Simulation, Task, Update};
/// use gradus::prelude::*;
/// use ndarray::{Array1, array};
///
/// // Two clients whose own minima are 1 and 4; the second has twice the data.
/// let client = |(minimum, examples): (f64, f64)| {
///     move |task: &Task<Array1<f64>>| {
///         let (mut model, mut opt) = (task.model().clone(), Sgd::new(0.5));
///         let grad = &model - minimum;
///         opt.step(&mut model, &grad)?;
///         Ok::<_, Failure>(Update::new(model, examples))
///     }
/// };
/// let mut clients = Simulation::new([(1.0, 1.0), (4.0, 2.0)].map(client));
/// let (mut server, mut model) = (Server::new(Sgd::new(1.0)), array![0.0]);
/// let report = server.round(&mut model, &mut clients)?;
/// assert!(report.moved && report.left_out.is_empty());
/// assert_eq!(model, array![1.5]); // 1/3 of 0.5 and 2/3 of 2
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// # References
/// H. B. McMahan et al., *Communication-Efficient Learning of Deep Networks from Decentralized Data* (2017), [arXiv:1602.05629](https://arxiv.org/abs/1602.05629),
/// algorithm 1; S. J. Reddi et al., *Adaptive Federated Optimization* (2021), [arXiv:2003.00295](https://arxiv.org/abs/2003.00295), algorithm 1;
/// S. P. Karimireddy et al., *SCAFFOLD* (2020), [arXiv:1910.06378](https://arxiv.org/abs/1910.06378), algorithm 1.
#[must_use = "a server trains nothing until `round` is called"]
pub struct Server<O, A, G = Mean> {
    pub(super) optimizer: O,
    pub(super) aggregation: G,
    selection: Box<dyn Selection>,
    pub(super) scaffold: bool,
    pub(super) round: u64,
    /// How often the round was tried before: not in the state, which is that of the last round that moved.
    pub(super) attempts: u64,
    /// With SCAFFOLD, for each client 0 or one more than the round in which its last answer counted.
    pub(super) accepted: Vec<u64>,
    pub(super) control: Option<Arc<Tensors<A>>>,
    pub(super) sums: Sums,
    change: Option<Tensors<A>>,
}

impl<O: fmt::Debug, A: Element, G: fmt::Debug> fmt::Debug for Server<O, A, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("optimizer", &self.optimizer)
            .field("aggregation", &self.aggregation)
            .field("round", &self.round)
            .finish_non_exhaustive()
    }
}

impl<A: Element, O: Optimizer<A>> Server<O, A> {
    /// Creates a server with this optimizer. It chooses every client in every round and uses the weighted mean of their changes.
    pub fn new(optimizer: O) -> Self {
        Self {
            optimizer,
            aggregation: Mean,
            selection: Box::new(All),
            scaffold: false,
            round: 0,
            attempts: 0,
            accepted: Vec::new(),
            control: None,
            sums: Sums::default(),
            change: None,
        }
    }

    /// Chooses only some of the clients in each round: see [`Sample`](super::Sample). Call it before
    /// [`aggregate_by`](Self::aggregate_by). A [private](Self::private) server chooses its clients itself.
    pub fn select(mut self, selection: impl Selection + 'static) -> Self {
        self.selection = Box::new(selection);
        self
    }

    /// Combines the changes in another way than by their weighted mean. For privacy, see [`private`](Self::private).
    pub fn aggregate_by<G: Aggregation>(self, aggregation: G) -> Server<O, A, G> {
        let Self { optimizer, selection, scaffold, round, attempts, accepted, control, sums, change, .. } = self;
        Server { optimizer, aggregation, selection, scaffold, round, attempts, accepted, control, sums, change }
    }
}

impl<A: Element, O: Optimizer<A>, G: Aggregation> Server<O, A, G> {
    /// Keeps a control variate for clients that step with [`scaffold`](crate::OptimizerExt::scaffold).
    pub fn scaffold(mut self) -> Self {
        self.scaffold = true;
        self
    }

    /// The number of the next round, which is the number of rounds in which the optimizer has taken a step.
    ///
    /// If the optimizer [accumulates](crate::OptimizerExt::accumulate), not all of these rounds have moved the model.
    pub fn rounds(&self) -> u64 {
        self.round
    }

    /// The server's optimizer.
    pub fn optimizer(&self) -> &O {
        &self.optimizer
    }

    /// The aggregation of the changes.
    pub fn aggregation(&self) -> &G {
        &self.aggregation
    }

    /// The server's control variate; `None` before the first round with SCAFFOLD.
    pub fn control(&self) -> Option<&Tensors<A>> {
        self.control.as_deref()
    }

    /// Runs one round.
    ///
    /// # Errors
    /// Those listed at [`Server`]. Model and server are then unchanged, except for the accountant of a [private](Self::private) server: it
    /// counts a sum that was already computed.
    pub fn round<T, C>(&mut self, model: &mut T, clients: &mut C) -> Result<RoundReport>
    where
        T: ParamsMut<Elem = A> + Clone + Send + Sync,
        C: Clients<T> + ?Sized,
    {
        let count = clients.count();
        let (layout, chosen) = self.agree(model, clients)?;
        // From here on another try of this round makes another choice.
        self.attempts = self.attempts.wrapping_add(1);

        let zeros = || Arc::new(Tensors::zeros(Arc::clone(&layout)));
        let control = self.scaffold.then(|| self.control.clone().unwrap_or_else(zeros));
        let task = Task::new(self.round, model.clone());
        let task = control.iter().fold(task, |task, control| task.with_control(Arc::clone(control)));
        let accepted = |client: usize| self.accepted.get(client).and_then(|round| round.checked_sub(1));
        let tasks = chosen.iter().map(|&client| (client, task.clone().with_accepted(accepted(client)))).collect();
        drop(task);
        let replies = clients.train(tasks);

        let own = self.sums.add(&layout, &chosen, replies, control.as_deref(), &mut self.aggregation);
        let all = clients.exchange(&own.to_bytes())?.into_iter().map(|bytes| Answers::of_bytes(&bytes));
        let unread = || {
            Error::Ranks(RankError::Transport {
                operation: "exchange",
                reason: "the answers of a rank are cut off".into(),
            })
        };
        let all = all.collect::<Option<Vec<_>>>().ok_or_else(unread)?;
        let Answers { counted, left_out } = Answers::join(all, &chosen);
        let elements = layout.elements();
        let noise = self.aggregation.noise(elements);
        let mut report = RoundReport { round: self.round, moved: false, counted, left_out, step: None, noise };
        if report.counted.is_empty() && !self.aggregation.moves_without_answers() {
            return Ok(report);
        }

        self.aggregation.released();
        if clients.rank() == 0 {
            self.aggregation.complete(&mut self.sums.sums[..elements]);
        }
        clients.add(&mut self.sums.sums)?;
        let divisor = self.aggregation.divisor(report.counted.iter().map(|counted| counted.weight).sum());
        let (step, control) = self.step(model, &layout, divisor, (control, count), clients)?;

        if self.scaffold {
            self.accepted.resize(count, 0);
        }
        for counted in &report.counted {
            if let Some(accepted) = self.accepted.get_mut(counted.client) {
                *accepted = self.round + 1;
            }
        }
        (self.control, self.attempts) = (control, 0);
        self.round += 1;
        (report.moved, report.step) = (step.moved, Some(step));
        Ok(report)
    }

    /// Whether this rank can take part, and which clients are to.
    fn prepare<T: ParamsMut<Elem = A>>(
        &mut self,
        model: &mut T,
        layout: &Arc<Layout>,
        count: usize,
    ) -> Result<Vec<usize>> {
        if self.round == u64::MAX {
            return Err(Error::Step(StepError::CounterFull { counter: "rounds", path: None }));
        }
        self.aggregation.check()?;
        if self.scaffold && !self.aggregation.allows_controls() {
            return Err(Error::Federated(FederatedError::ControlNotPrivate));
        }
        if let Some(control) = &self.control {
            control.layout().ensure_same(layout)?;
        }
        let change = match self.change.take() {
            Some(change) if change.layout() == layout => change,
            _ => Tensors::zeros(Arc::clone(layout)),
        };
        let change = self.change.insert(change);
        change.values_mut().fill(A::zero());
        self.optimizer.check(&Step::pair(model, &*change, self.optimizer.layout())?)?;
        let mut chosen = self.selection.select(count, self.round ^ self.attempts.rotate_left(32))?;
        chosen.retain(|client| *client < count);
        chosen.sort_unstable();
        chosen.dedup();
        Ok(chosen)
    }

    /// The model's layout and the choice of the first rank, if all ranks can take part with the same model.
    fn agree<T, C>(&mut self, model: &mut T, clients: &C) -> Result<(Arc<Layout>, Vec<usize>)>
    where
        T: ParamsMut<Elem = A>,
        C: Clients<T> + ?Sized,
    {
        let layout = self.sums.begin(model, if self.scaffold { 2 } else { 1 }).map(Arc::new);
        let own = layout.clone().and_then(|layout| self.prepare(model, &layout, clients.count()));
        let digest = self.digest(layout.as_deref().ok(), clients.count());
        let mut message = vec![u8::from(own.is_err())];
        message.extend(digest.to_le_bytes());
        match &own {
            Ok(chosen) => message.extend(chosen.iter().flat_map(|client| (*client as u64).to_le_bytes())),
            Err(error) => message.extend(error.to_string().bytes()),
        }
        let all = clients.exchange(&message)?;
        let (layout, _) = (layout?, own?);
        let mut chosen = Vec::new();
        for (rank, message) in all.iter().enumerate() {
            let Some(([refused], rest)) = message.split_first_chunk() else { continue };
            let Some((found, rest)) = rest.split_first_chunk() else { continue };
            if *refused != 0 {
                return Err(Error::Ranks(RankError::RankRefused {
                    rank,
                    reason: String::from_utf8_lossy(rest).into_owned(),
                }));
            }
            let other = |digest: [u8; 8]| format!("a model and server of digest {:016x}", u64::from_le_bytes(digest));
            if rank == 0 {
                let (numbers, _) = rest.as_chunks();
                chosen.extend(numbers.iter().map(|number| u64::from_le_bytes(*number) as usize));
            }
            let expected = all[0].get(1..9).and_then(|bytes| bytes.try_into().ok()).unwrap_or(*found);
            if *found != expected {
                return Err(Error::Ranks(RankError::RanksDisagree {
                    rank,
                    expected: other(expected),
                    found: other(*found),
                }));
            }
        }
        Ok((layout, chosen))
    }

    /// The control variate after this round.
    fn next_control(&self, control: &Tensors<A>, clients: usize) -> Result<Arc<Tensors<A>>> {
        let mut next = control.clone();
        let sums = self.sums.sums.iter().skip(control.values().len());
        for (at, (value, sum)) in next.values_mut().iter_mut().zip(sums).enumerate() {
            *value = A::from_f64(value.as_f64() + sum / clients as f64);
            if !value.is_finite() {
                let (argument, value) = ("the control variate", value.as_f64());
                return Err(Error::Argument(ArgumentError::NotFinite { argument, index: vec![at], value }));
            }
        }
        Ok(Arc::new(next))
    }

    /// The optimizer's step by the mean change, and the control variate after it: on all ranks or, without a trace, on none.
    fn step<T, C>(
        &mut self,
        model: &mut T,
        layout: &Arc<Layout>,
        divisor: f64,
        (control, count): (Option<Arc<Tensors<A>>>, usize),
        clients: &C,
    ) -> Result<(Report, Option<Arc<Tensors<A>>>)>
    where
        T: ParamsMut<Elem = A>,
        C: Clients<T> + ?Sized,
    {
        let control = control.map(|control| self.next_control(&control, count)).transpose();
        let Self { optimizer, change, sums, .. } = self;
        let change = change.get_or_insert_with(|| Tensors::zeros(Arc::clone(layout)));
        let attempt = control.and_then(|control| {
            sums.gradient(divisor, change)?;
            let mut step = Step::pair(model, &*change, optimizer.layout())?;
            let before = Before::of(optimizer, &step);
            match optimizer.apply(step.lend(true)) {
                Ok(report) => Ok((report, control, step, before)),
                // One that consists of several may have moved a part.
                Err(error) => Err(before.restore(optimizer, &mut step, error.taken_back())),
            }
        });
        let told = optimizer.conclude(attempt.as_ref().map(|(report, ..)| report.clone()).map_err(Error::clone));
        let own = told.and_then(|_| attempt.as_ref().map_or(Ok(()), |(_, _, step, _)| ensure_finite(optimizer, step)));
        match (agree_on_end(clients, own), attempt) {
            (Ok(()), Ok((report, control, ..))) => Ok((report, control)),
            (Err(error), Ok((.., mut step, before))) => Err(before.restore(optimizer, &mut step, error)),
            (_, Err(error)) => Err(error),
        }
    }
}

/// Returns an error unless all ranks have taken the step.
fn agree_on_end<T: Params, C: Clients<T> + ?Sized>(clients: &C, own: Result<()>) -> Result<()> {
    let mut message = vec![u8::from(own.is_err())];
    message.extend(own.as_ref().err().map(Error::to_string).unwrap_or_default().bytes());
    let all = clients.exchange(&message);
    own?;
    for (rank, message) in all?.iter().enumerate() {
        if let [1, reason @ ..] = &**message {
            return Err(Error::Ranks(RankError::RankRefused {
                rank,
                reason: String::from_utf8_lossy(reason).into_owned(),
            }));
        }
    }
    Ok(())
}
