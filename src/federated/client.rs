//! What a client is given and what it gives back.

use std::sync::Arc;

use super::tensors::Tensors;
use crate::params::Params;

/// Why a client has no answer: any error, also a text with `?` or `.into()`.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// An owner of data, with a training loop of its own.
///
/// A closure is one, too. The client begins with a copy of the task's model, trains it on data that stay with it, and returns it
/// with the number of examples. What it keeps from round to round, an optimizer and its state say, is its own.
///
/// ```
/// use gradus::federated::{Client, Failure, Task, Update};
/// use gradus::prelude::*;
/// use ndarray::{Array1, array};
///
/// struct Mean { examples: Vec<f64> }
///
/// impl Client<Array1<f64>> for Mean {
///     fn train(&mut self, task: &Task<Array1<f64>>) -> Result<Update<Array1<f64>>, Failure> {
///         let (mut model, mut opt) = (task.model().clone(), Sgd::new(0.1));
///         for example in &self.examples {
///             let grad = &model - *example;
///             opt.step(&mut model, &grad)?;
///         }
///         Ok(Update::new(model, self.examples.len() as f64))
///     }
/// }
///
/// let update = Mean { examples: vec![1.0, 1.0] }.train(&Task::new(0, array![0.0]))?;
/// assert!((update.params()[0] - 0.19).abs() < 1e-15);
/// # Ok::<(), Failure>(())
/// ```
pub trait Client<T: Params>: Send {
    /// Trains the model of a task on the client's own data.
    ///
    /// # Errors
    /// Whatever keeps the client from answering. The round goes on without it, and its report has the error's text.
    fn train(&mut self, task: &Task<T>) -> Result<Update<T>, Failure>;
}

impl<T: Params, F: FnMut(&Task<T>) -> Result<Update<T>, Failure> + Send> Client<T> for F {
    fn train(&mut self, task: &Task<T>) -> Result<Update<T>, Failure> {
        self(task)
    }
}

impl<T: Params> Client<T> for Box<dyn Client<T>> {
    fn train(&mut self, task: &Task<T>) -> Result<Update<T>, Failure> {
        (**self).train(task)
    }
}

/// What a client is to do in a round: train this model.
#[derive(Debug)]
pub struct Task<T: Params> {
    round: u64,
    accepted: Option<u64>,
    model: Arc<T>,
    control: Option<Arc<Tensors<T::Elem>>>,
}

impl<T: Params> Clone for Task<T> {
    fn clone(&self) -> Self {
        Self { model: Arc::clone(&self.model), control: self.control.clone(), ..*self }
    }
}

impl<T: Params> Task<T> {
    /// A task of this round, 0 for the first, with the server's model.
    pub fn new(round: u64, model: T) -> Self {
        Self { round, accepted: None, model: Arc::new(model), control: None }
    }

    /// The same with the server's control variate, for SCAFFOLD.
    pub fn with_control(mut self, control: impl Into<Arc<Tensors<T::Elem>>>) -> Self {
        self.control = Some(control.into());
        self
    }

    /// The same for a client whose last answer that counted was that of this round.
    pub fn with_accepted(mut self, round: Option<u64>) -> Self {
        self.accepted = round;
        self
    }

    /// The number of the round, 0 for the first.
    pub fn round(&self) -> u64 {
        self.round
    }

    /// The last round in which an answer of this client counted. Only a server of SCAFFOLD says so.
    pub fn accepted(&self) -> Option<u64> {
        self.accepted
    }

    /// The server's model, from which the client begins.
    pub fn model(&self) -> &T {
        &self.model
    }

    /// The server's control variate; `None` without SCAFFOLD.
    pub fn control(&self) -> Option<&Tensors<T::Elem>> {
        self.control.as_deref()
    }
}

/// What a client answers: its model after training, and how much it counts.
#[derive(Debug, Clone)]
pub struct Update<T: Params> {
    params: T,
    weight: f64,
    control: Option<Tensors<T::Elem>>,
}

impl<T: Params> Update<T> {
    /// The parameters after training, and the weight > 0 that they have in the mean: the number of examples.
    pub fn new(params: T, weight: f64) -> Self {
        Self { params, weight, control: None }
    }

    /// The same with the change of the client's control variate, for SCAFFOLD.
    pub fn with_control(mut self, change: Tensors<T::Elem>) -> Self {
        self.control = Some(change);
        self
    }

    /// The parameters after training.
    pub fn params(&self) -> &T {
        &self.params
    }

    /// The weight.
    pub fn weight(&self) -> f64 {
        self.weight
    }

    /// The change of the client's control variate.
    pub fn control(&self) -> Option<&Tensors<T::Elem>> {
        self.control.as_ref()
    }
}
