//! SCAFFOLD: clients that correct their gradients by control variates.

use std::fmt;
use std::sync::Arc;

use super::client::Task;
use super::tensors::{Tensors, plus};
use crate::adaptor::{self, Adaptor, Outcome};
use crate::error::{ArgumentError, Error, FederatedError, Result, StepError};
use crate::params::{Element, Layout, Params};
use crate::state::{Commit, StateReader, StateWriter};
use crate::step::memo::{SourceId, new_ids};
use crate::step::{Optimizer, Report, Step};

/// Corrects a client's gradients by control variates. Created by [`OptimizerExt::scaffold`](crate::OptimizerExt::scaffold).
///
/// Each client keeps an estimate cᵢ of its own mean gradient, and the server an estimate c of the mean gradient of all clients. Every
/// client adds the difference c − cᵢ to its gradients. It then steps as if it had all data, and clients do not drift apart.
///
/// # Update rule
/// ```text
/// the optimizer inside steps with ∇J(θ) − cᵢ + c
/// end of the round:   cᵢ⁺ = cᵢ − c + (θₜ − θ)/Ση       Ση the sum of the learning rates since θₜ
///                     Δcᵢ = cᵢ⁺ − cᵢ                   to the server: c ← c + Σ Δcᵢ / N
/// ```
/// cᵢ⁺ replaces cᵢ if the client's next task shows that the server has used the answer. If the answer was late or rejected, cᵢ is kept,
/// because c has not changed either.
///
/// # State
/// cᵢ, c − cᵢ and θₜ: three elements per parameter (12 bytes in f32), and a scratch buffer of one more, which is not saved.
///
/// # Conventions
/// Option II of the paper's algorithm 1, with Ση in place of Kη. The optimizer inside must be plain gradient descent with one learning
/// rate for all tensors; with momentum or Adam, (θₜ − θ)/Ση is not a mean of gradients. The paper gives all clients the same weight, and so
/// does c. Weights of an [`Update`](super::Update) change the path of the model, but not its limit: the minimum of the unweighted mean of the
/// clients' losses. For another mean, scale the clients' losses.
///
/// # Errors
/// [`FederatedError::NoRound`] for a step or [`end_round`](Scaffold::end_round) before [`begin_round`](Scaffold::begin_round); [`StepError::NoStep`] for a
/// round without steps; [`FederatedError::NoControl`] for a task from a server without [`scaffold`](super::Server::scaffold).
///
/// # Example
/// ```
/// use gradus::{federated::{Task, Tensors, Update}, prelude::*};
/// use ndarray::array;
///
/// let mut opt = Sgd::new(0.5).scaffold();
/// let task = Task::new(0, array![0.0]).with_control(Tensors::of(&array![1.0])?);
/// opt.begin_round(&task)?;
/// let mut w = task.model().clone();
/// opt.step(&mut w, &array![3.0])?; // by 3 − 0 + 1
/// let change = opt.end_round(&w)?; // 0 − 1 + 2/0.5
/// assert_eq!((w[0], change.values()), (-2.0, &[3.0][..]));
/// let answer = Update::new(w, 1.0).with_control(change);
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// # References
/// S. P. Karimireddy et al., *SCAFFOLD: Stochastic Controlled Averaging for Federated Learning* (2020), [arXiv:1910.06378](https://arxiv.org/abs/1910.06378),
/// algorithm 1.
#[derive(Clone)]
pub struct Scaffold<A> {
    /// cᵢ.
    control: Option<Tensors<A>>,
    /// c − cᵢ in a round, cᵢ⁺ after it.
    spare: Option<Tensors<A>>,
    /// Stands for c − cᵢ of this round.
    id: SourceId,
    /// θₜ.
    start: Option<Tensors<A>>,
    /// Room for the next θₜ.
    room: Vec<A>,
    rates: f64,
    round: u64,
    phase: Phase,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Phase {
    Idle,
    Training,
    Ended,
}

impl std::str::FromStr for Phase {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        [Self::Idle, Self::Training, Self::Ended].into_iter().find(|phase| phase.name() == text).ok_or(())
    }
}

impl Phase {
    fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Training => "training",
            Self::Ended => "ended",
        }
    }
}

impl<A> Default for Scaffold<A> {
    fn default() -> Self {
        Self {
            control: None,
            spare: None,
            id: new_ids(1),
            start: None,
            room: Vec::new(),
            rates: 0.0,
            round: 0,
            phase: Phase::Idle,
        }
    }
}

impl<A> Scaffold<A> {
    /// Control variates that are zero.
    pub fn new() -> Self {
        Self::default()
    }

    /// The client's control variate cᵢ, as last confirmed by the server.
    pub fn control(&self) -> Option<&Tensors<A>> {
        self.control.as_ref()
    }
}

impl<A: Element> Scaffold<A> {
    /// Starts a round with the model and the control variate of this task.
    ///
    /// # Errors
    /// [`FederatedError::NoControl`], [`StepError::ParametersChanged`], [`StepError::DuplicatePath`].
    pub fn begin_round<T: Params<Elem = A>>(&mut self, task: &Task<T>) -> Result<()> {
        let everybody = task.control().ok_or(Error::Federated(FederatedError::NoControl))?;
        Tensors::renew(&mut self.start, [everybody.layout()], task.model(), &mut self.room)?;
        self.id = new_ids(1);
        let layout = everybody.layout();
        if self.phase == Phase::Ended && task.accepted() == Some(self.round) {
            std::mem::swap(&mut self.control, &mut self.spare);
        }
        let own = self.control.get_or_insert_with(|| Tensors::zeros(Arc::clone(layout)));
        let correction = self.spare.get_or_insert_with(|| Tensors::zeros(Arc::clone(layout)));
        for ((correction, c), own) in correction.values_mut().iter_mut().zip(everybody.values()).zip(own.values()) {
            *correction = *c - *own;
        }
        (self.rates, self.round, self.phase) = (0.0, task.round(), Phase::Training);
        Ok(())
    }

    /// Ends the round with the parameters after training, and returns the change of the control variate for the server.
    ///
    /// # Errors
    /// [`FederatedError::NoRound`], [`StepError::NoStep`], [`StepError::ParametersChanged`]; [`ArgumentError::NotFinite`] if the change is not finite. The round
    /// has then not ended.
    pub fn end_round<T: Params<Elem = A>>(&mut self, params: &T) -> Result<Tensors<A>> {
        let (Phase::Training, Some(own), Some(correction), Some(start)) =
            (self.phase, &self.control, &self.spare, &self.start)
        else {
            return Err(Error::Federated(FederatedError::NoRound));
        };
        if self.rates == 0.0 {
            return Err(Error::Step(StepError::NoStep));
        }
        let now = Tensors::of(params)?;
        start.layout().ensure_same(now.layout())?;
        let (rates, mut next) = (A::from_f64(self.rates), correction.clone());
        for ((next, start), now) in next.values_mut().iter_mut().zip(start.values()).zip(now.values()) {
            *next = (*start - *now) / rates - *next;
        }
        let mut change = next.clone();
        change.values_mut().iter_mut().zip(own.values()).for_each(|(change, own)| *change -= *own);
        if let Some(at) = change.values().iter().position(|change| !change.is_finite()) {
            let (argument, value) = ("the change of the control variate", change.values()[at].as_f64());
            return Err(Error::Argument(ArgumentError::NotFinite { argument, index: vec![at], value }));
        }
        (self.spare, self.phase) = (Some(next), Phase::Ended);
        Ok(change)
    }

    /// What is added to the gradients.
    fn check_own(&self, step: &Step<'_, A>) -> Result<&Tensors<A>> {
        let (Phase::Training, Some(correction)) = (self.phase, &self.spare) else {
            return Err(Error::Federated(FederatedError::NoRound));
        };
        Layout::ensure_known(Some(correction.layout()), step.layout())?;
        Ok(correction)
    }
}

impl<A: Element> Scaffold<A> {
    /// Adds the correction to the gradients.
    fn correct<'s>(&'s self, step: &mut Step<'s, A>) -> Result<Outcome> {
        let correction = self.check_own(step)?;
        plus(step, correction.layout(), correction.values(), self.id);
        Ok(Outcome::pass())
    }
}

impl<A: Element> Adaptor<A> for Scaffold<A> {
    fn check(&self, step: &Step<'_, A>, inner: &dyn Optimizer<A>) -> Result<()> {
        adaptor::check(step, inner, |step| self.correct(step))
    }

    fn apply(&mut self, step: Step<'_, A>, inner: &mut dyn Optimizer<A>) -> Result<Report> {
        let (report, _) = adaptor::apply(step, inner, |step| self.correct(step))?;
        if report.moved {
            self.rates += report.learning_rate;
        }
        Ok(report)
    }

    fn describe(&self) -> String {
        format!("{self:?}")
    }

    fn moves_parameters(&self) -> bool {
        false
    }

    fn layout(&self) -> Option<&Arc<Layout>> {
        self.start.as_ref().map(Tensors::layout)
    }

    fn write_state(&self, state: &mut StateWriter<'_>) {
        let mut node = state.node("scaffold");
        node.value("phase", self.phase.name());
        node.value("round", self.round);
        node.value("rates", self.rates);
        for (name, tensors) in [("control", &self.control), ("spare", &self.spare), ("start", &self.start)] {
            tensors.iter().for_each(|tensors| tensors.write(&mut node, name));
        }
    }

    fn read_state<'s>(&'s mut self, state: &mut StateReader<'_>) -> Result<Commit<'s>> {
        let node = state.node("scaffold")?;
        let read_phase: Phase = node.value("phase", "idle, training or ended")?;
        let read_round = node.value("round", "a count")?;
        let read_rates = node.value_where("rates", "a number ≥ 0", |rates| *rates >= 0.0)?;
        let read = |name| if read_phase == Phase::Idle { Ok(None) } else { Tensors::read(&node, name) };
        let (read_control, read_spare, read_start) = (read("control")?, read("spare")?, read("start")?);
        Ok(Commit::new(move || {
            (self.control, self.spare, self.start) = (read_control, read_spare, read_start);
            (self.rates, self.round, self.phase) = (read_rates, read_round, read_phase);
            self.id = new_ids(1);
        }))
    }
}

impl<A> fmt::Debug for Scaffold<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("scaffold()")
    }
}
