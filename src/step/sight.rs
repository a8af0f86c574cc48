//! What is seen of a step from outside: each tensor as the optimizer inside gets it.

use std::sync::Mutex;

use super::memo::Described;

/// What the optimizers inside report about the tensors that they step, for a monitor.
#[derive(Debug)]
pub(crate) struct Sight<'a> {
    /// The gradients as they were on the outside, by tensor position.
    pub(super) given: Vec<Option<Described>>,
    pub(super) seen: Mutex<Vec<Option<Seen>>>,
    /// Whether all moves are sweeps that are compared.
    pub(super) is_swept: bool,
    /// The sight of a monitor further outside.
    pub(super) outer: Option<&'a Sight<'a>>,
}

/// A tensor as an optimizer steps it.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// With the changes of groups.
    pub(crate) learning_rate: f64,
    pub(crate) used: Used,
    /// The quotient of the used gradient and that on the outside, if they are the same but for a factor.
    pub(crate) factor: Option<f64>,
    pub(crate) clipped: bool,
}

/// The norm of the gradient that an optimizer uses.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Used {
    /// This factor times that of the gradient as it is swept.
    OfSwept(f64),
    /// As the [factor](Seen::factor) says.
    OfGiven,
    Norm(f64),
    /// It has only a part of the tensor.
    Part,
}
