//! FedProx: clients that stay near the server's model.

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

use super::client::Task;
use super::tensors::{Tensors, plus, ranges};
use crate::adaptor::Adaptor;
use crate::error::{Error, FederatedError, Result};
use crate::params::{Element, Layout, Order, Params};
use crate::schedule::Hyper;
use crate::state::{Commit, StateReader, StateWriter};
use crate::step::memo::new_ids;
use crate::step::{Optimizer, Report, Step};

/// Pulls a client's parameters towards the server's model. Created by [`OptimizerExt::proximal`](crate::OptimizerExt::proximal).
///
/// Clients with different data drift apart, and further the longer they train. The pull is the gradient of μ/2·‖θ − θₜ‖², where θₜ is
/// the model at the start of the round.
///
/// # Update rule
/// ```text
/// the optimizer inside steps with ∇J(θ) + μ(θ − θₜ)
/// ```
/// # Hyper-parameters
/// | name | default | range | meaning |
/// |---|---|---|---|
/// | `mu` μ | – | μ ≥ 0 | strength of the pull; 0 is FedAvg, the paper uses 0.001 to 1 |
///
/// # State
/// θₜ and the pull, two elements per parameter (8 bytes in f32).
///
/// # Conventions
/// The objective of the paper, as in Flower's FedProx. In the paper, clients may do different amounts of work; here that is up to the
/// client's own loop.
///
/// # Errors
/// [`FederatedError::NoRound`] for a step before the first [`begin_round`](Proximal::begin_round); [`StepError::HyperParameter`](crate::error::StepError::HyperParameter) if μ is out of range, or
/// becomes 0 or infinite in the element type.
///
/// # Example
/// ```
/// use gradus::{federated::Task, prelude::*};
/// use ndarray::array;
///
/// let mut opt = Sgd::new(0.5).proximal(1.0);
/// let task = Task::new(0, array![0.0]);
/// opt.begin_round(&task)?; // once in every round
/// let mut w = task.model().clone();
/// opt.step(&mut w, &array![-4.0])?; // to 2
/// opt.step(&mut w, &array![-4.0])?; // to 2 + 0.5·(4 − 2)
/// assert_eq!(w, array![3.0]);
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// # References
/// T. Li et al., *Federated Optimization in Heterogeneous Networks* (2020), [arXiv:1812.06127](https://arxiv.org/abs/1812.06127), eq. 2.
#[derive(Clone)]
pub struct Proximal<A> {
    mu: Hyper,
    start: Option<Tensors<A>>,
    /// Room for the pull, also of a step that is only looked at, and for the model of the next round.
    pull: RefCell<Vec<A>>,
}

impl<A> Proximal<A> {
    /// A pull of this strength: a number or a schedule.
    pub fn new(mu: impl Into<Hyper>) -> Self {
        Self { mu: mu.into(), start: None, pull: RefCell::default() }
    }
}

impl<A: Element> Proximal<A> {
    /// Starts a round: the pull is now towards the model of this task.
    ///
    /// # Errors
    /// [`StepError::ParametersChanged`](crate::error::StepError::ParametersChanged), [`StepError::DuplicatePath`](crate::error::StepError::DuplicatePath).
    pub fn begin_round<T: Params<Elem = A>>(&mut self, task: &Task<T>) -> Result<()> {
        Tensors::renew(&mut self.start, None, task.model(), self.pull.get_mut())
    }

    /// μ in the step of this number, and where the round began.
    fn check_own(&self, step: &Step<'_, A>, number: u64) -> Result<(f64, &Tensors<A>)> {
        let start = self.start.as_ref().ok_or(Error::Federated(FederatedError::NoRound))?;
        Layout::ensure_known(Some(start.layout()), step.layout())?;
        Ok((self.mu.within_as::<A>("mu", 0.0.., number)?, start))
    }
}

/// μ(θ − θₜ) of the tensors that have a gradient.
fn fill<A: Element>(pull: &mut Vec<A>, mu: f64, start: &Tensors<A>, step: &Step<'_, A>) {
    let mu = A::from_f64(mu);
    pull.resize(start.values().len(), A::zero());
    for (info, tensor, (_, range)) in step.zip(ranges(start.layout())) {
        let pairs = pull[range.clone()].iter_mut().zip(&start.values()[range]);
        let param = tensor.param();
        match param.as_slice(Order::C) {
            Some(param) => pairs.zip(param).for_each(|((pull, start), now)| *pull = mu * (*now - *start)),
            None => {
                let view = param.view(info.shape());
                pairs.zip(view).for_each(|((pull, start), now)| *pull = mu * (*now - *start));
            }
        }
    }
}

impl<A: Element> Adaptor<A> for Proximal<A> {
    fn check(&self, step: &Step<'_, A>, inner: &dyn Optimizer<A>) -> Result<()> {
        let (mu, start) = self.check_own(step, inner.steps())?;
        let mut pull = self.pull.borrow_mut();
        fill(&mut pull, mu, start, step);
        let mut step = step.preview();
        plus(&mut step, start.layout(), &pull, new_ids(1));
        inner.check(&step)
    }

    fn apply(&mut self, step: Step<'_, A>, inner: &mut dyn Optimizer<A>) -> Result<Report> {
        let (mu, start) = self.check_own(&step, inner.steps())?;
        let mut pull = self.pull.borrow_mut();
        fill(&mut pull, mu, start, &step);
        let mut step: Step<'_, A> = step; // a shorter lifetime: from here on it borrows the pull
        plus(&mut step, start.layout(), &pull, new_ids(1));
        inner.apply(step)
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
        let mut node = state.node("proximal");
        node.value("begun", self.start.is_some());
        self.mu.write_state("mu", &mut node);
        self.start.iter().for_each(|start| start.write(&mut node, "start"));
    }

    fn read_state<'s>(&'s mut self, state: &mut StateReader<'_>) -> Result<Commit<'s>> {
        let node = state.node("proximal")?;
        let begun: bool = node.value("begun", "true or false")?;
        let mu = self.mu.read_state("mu", &node)?;
        let read = if begun { Tensors::read(&node, "start")? } else { None };
        Ok(Commit::new(move || self.start = read).and(mu))
    }
}

impl<A> fmt::Debug for Proximal<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "proximal({:?})", self.mu)
    }
}
