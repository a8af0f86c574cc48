//! Options of every optimizer: what a driver makes of a tensor's direction before it moves the tensor.

use super::lanes::Goal;
use super::measured::Measured;
use super::rates::Pull;
use crate::error::Result;
use crate::params::Element;
use crate::schedule::line::Line;
use crate::step::Step;

/// The options that are on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Options {
    pub(super) cautious: bool,
    pub(super) trust_ratio: bool,
}

impl Options {
    /// Whether a tensor is measured before it moves.
    pub(super) fn measure(self) -> bool {
        self != Self::default()
    }

    /// Returns an error if a tensor cannot be measured, because other ranks have parts of it. `name` is the rule's.
    pub(super) fn ensure<A: Element>(self, name: &'static str, step: &Step<'_, A>) -> Result<()> {
        if self.measure() { step.ensure_uncut(name) } else { Ok(()) }
    }

    pub(super) fn describe(self, line: Line) -> Line {
        line.unless("cautious", self.cautious, false).unless("trust_ratio", self.trust_ratio, false)
    }

    /// The step size and the pull of a tensor that has been measured, from those without options.
    pub(super) fn of(self, step_size: f64, pull: Pull, measured: &Measured) -> (f64, Pull) {
        let step_size =
            if self.cautious { step_size * measured.elements / (measured.agreeing() + 1.0) } else { step_size };
        if !self.trust_ratio || pull.learning_rate == 0.0 {
            return (step_size, pull);
        }
        let ratio = measured.ratio(step_size / pull.learning_rate, pull.decoupled);
        (step_size * ratio, Pull { shrink: 1.0 - pull.learning_rate * ratio * pull.decoupled, ..pull })
    }

    /// What becomes of a direction.
    pub(super) fn goal<A>(self, step_size: A) -> Goal<A> {
        if self.cautious { Goal::MoveAgreeing { step_size } } else { Goal::Move { step_size } }
    }
}
