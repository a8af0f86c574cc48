//! A client, its task and its answer.

use std::sync::Arc;

use super::tensors::Tensors;
use crate::params::Params;

/// The reason why a client has no answer: any error, or a text, converted with `?` or `.into()`.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// An owner of data, with its own training loop.
///
/// Closures implement this trait. A client starts from a copy of the task's model, trains it on its own data, and returns the model and
/// the number of examples. It may keep an optimizer or other state from round to round.
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
    /// Any error that keeps the client from answering. The round continues without the client, and the report contains the error's text.
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

/// A client's task in a round: train this model.
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
    /// Creates a task with the number of the round (0 for the first) and the server's model.
    pub fn new(round: u64, model: T) -> Self {
        Self { round, accepted: None, model: Arc::new(model), control: None }
    }

    /// Adds the server's control variate, for SCAFFOLD.
    #[must_use]
    pub fn with_control(mut self, control: impl Into<Arc<Tensors<T::Elem>>>) -> Self {
        self.control = Some(control.into());
        self
    }

    /// Sets the last round in which the client's answer was used.
    #[must_use]
    pub fn with_accepted(mut self, round: Option<u64>) -> Self {
        self.accepted = round;
        self
    }

    /// The number of the round, 0 for the first.
    pub fn round(&self) -> u64 {
        self.round
    }

    /// The last round in which this client's answer was used. Only a server with SCAFFOLD sets it.
    pub fn accepted(&self) -> Option<u64> {
        self.accepted
    }

    /// The server's model, from which the client starts.
    pub fn model(&self) -> &T {
        &self.model
    }

    /// The server's control variate; `None` without SCAFFOLD.
    pub fn control(&self) -> Option<&Tensors<T::Elem>> {
        self.control.as_deref()
    }
}

/// A client's answer: its model after training, and the weight of its change.
#[derive(Debug, Clone)]
pub struct Update<T: Params> {
    params: T,
    weight: f64,
    control: Option<Tensors<T::Elem>>,
}

impl<T: Params> Update<T> {
    /// Creates an answer from the parameters after training and their weight in the mean, usually the number of examples. The weight must
    /// be above 0.
    pub fn new(params: T, weight: f64) -> Self {
        Self { params, weight, control: None }
    }

    /// Adds the change of the client's control variate, for SCAFFOLD.
    #[must_use]
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
