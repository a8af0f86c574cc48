//! Options of every optimizer: what a driver makes of a tensor's direction before it moves the tensor.

use super::lanes::Goal;
use super::measured::Measured;
use super::rates::Pull;
use crate::error::Result;
use crate::params::Element;
use crate::schedule::line::Line;
use crate::step::Step;
use crate::step::share::Extent;

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

    /// Returns an error if a tensor cannot be measured, because other ranks have parts of it.
    pub(super) fn ensure<A: Element>(self, step: &Step<'_, A>) -> Result<()> {
        let name = if self.cautious { "cautious" } else { "trust_ratio" };
        if self.measure() { step.share().ensure(Extent::Tensors, name) } else { Ok(()) }
    }

    pub(super) fn describe(self, line: Line) -> Line {
        line.unless("cautious", self.cautious, false).unless("trust_ratio", self.trust_ratio, false)
    }

    /// The step size and the pull of a tensor that has been measured, from those without options. Both are numbers of the type.
    pub(super) fn of<A: Element>(self, step_size: f64, pull: Pull, measured: &Measured) -> (f64, Pull) {
        let within = |value: f64| value.clamp(-A::max_value().as_f64(), A::max_value().as_f64());
        let step_size =
            if self.cautious { step_size * measured.elements / (measured.moving() + 1.0) } else { step_size };
        if !self.trust_ratio {
            return (within(step_size), pull);
        }
        if pull.learning_rate == 0.0 {
            return (0.0, pull);
        }
        let ratio = measured.ratio(step_size / pull.learning_rate, pull.decoupled);
        let shrink = if pull.decoupled > 0.0 { 1.0 - pull.learning_rate * ratio * pull.decoupled } else { 1.0 };
        (within(step_size * ratio), Pull { shrink: within(shrink), ..pull })
    }

    /// What becomes of a direction.
    pub(super) fn goal<A>(self, step_size: A) -> Goal<A> {
        if self.cautious { Goal::MoveAgreeing { step_size } } else { Goal::Move { step_size } }
    }
}
