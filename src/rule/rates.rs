//! Learning rate and weight decay: the hyper-parameters that every rule's driver has.

use super::HyperParameters;
use super::decay::Form;
use crate::error::{Error, Result, StepError};
use crate::params::{Element, TensorInfo};
use crate::schedule::Hyper;
use crate::schedule::line::Line;
use crate::state::{Commit, StateReader, StateWriter};
use crate::step::{Adjust, Tensor};

pub(super) const LEARNING_RATE: &str = "learning_rate";
pub(super) const WEIGHT_DECAY: &str = "weight_decay";

/// The factor by which a learning rate may grow. Bias corrections divide it by 1 − βᵗ, which is at least 2⁻⁵³.
const ROOM: f64 = (1_u64 << 54) as f64;

/// Both settings.
#[derive(Clone)]
pub(super) struct Rates {
    pub(super) learning_rate: Hyper,
    pub(super) weight_decay: Hyper,
}

/// Both at one step.
#[derive(Clone, Copy)]
pub(super) struct RatesAt {
    pub(super) learning_rate: f64,
    pub(super) weight_decay: f64,
}

/// The driver's own changes to one tensor at one step.
#[derive(Clone, Copy)]
pub(super) struct Pull {
    /// With its group's change, if any.
    pub(super) learning_rate: f64,
    /// λ of weight decay in whatever form.
    pub(super) weight_decay: f64,
    /// λ of coupled weight decay: `g ← g + λθ`.
    pub(super) coupled: f64,
    /// The part of the parameter that decoupled weight decay takes away: `θ ← θ(1 − decay)`.
    pub(super) decay: f64,
}

impl Rates {
    pub(super) fn new(learning_rate: impl Into<Hyper>) -> Self {
        Self { learning_rate: learning_rate.into(), weight_decay: Hyper::from(0.0) }
    }

    /// The values of a step, if they are in range.
    #[inline]
    pub(super) fn at(&self, step: u64) -> Result<RatesAt> {
        let learning_rate = self.learning_rate.within(LEARNING_RATE, 0.0.., step)?;
        let weight_decay = self.weight_decay.within(WEIGHT_DECAY, 0.0.., step)?;
        Ok(RatesAt { learning_rate, weight_decay })
    }

    /// These and the rule's own.
    fn all<'h>(&'h self, rule: &'h impl HyperParameters) -> impl Iterator<Item = (&'static str, &'h Hyper)> {
        let both = [(LEARNING_RATE, &self.learning_rate), (WEIGHT_DECAY, &self.weight_decay)];
        both.into_iter().chain(rule.hyper_parameters())
    }

    /// Writes the state of all schedules, each under the name of its hyper-parameter.
    pub(super) fn write_state(&self, rule: &impl HyperParameters, node: &mut StateWriter<'_>) {
        self.all(rule).for_each(|(name, hyper)| hyper.write_state(name, node));
    }

    pub(super) fn read_state(&self, rule: &impl HyperParameters, node: &StateReader<'_>) -> Result<Commit<'static>> {
        let mut read = self.all(rule).map(|(name, hyper)| hyper.read_state(name, node));
        read.try_fold(Commit::nothing(), |all, commit| Ok(all.and(commit?)))
    }

    /// The optimizer in one line.
    pub(super) fn describe(&self, rule: &impl HyperParameters) -> Line {
        let line = Line::new(rule.title()).field(LEARNING_RATE, &self.learning_rate);
        let line = rule.changed().iter().fold(line, |line, (name, value)| line.text(name, value));
        line.unless(WEIGHT_DECAY, &self.weight_decay, &Hyper::from(0.0))
    }
}

impl RatesAt {
    /// The values for one tensor, with its group's changes.
    pub(super) fn of(self, form: Form, learning_rate: Adjust, weight_decay: Adjust) -> Pull {
        let learning_rate = learning_rate.apply(self.learning_rate);
        let weight_decay = weight_decay.apply(self.weight_decay);
        let (coupled, decay) = match form {
            Form::Coupled => (weight_decay, 0.0),
            Form::Decoupled(rate) => (0.0, rate.of(learning_rate) * weight_decay),
            Form::Own => (0.0, 0.0),
        };
        Pull { learning_rate, weight_decay, coupled, decay }
    }

    /// [`ensure`](Self::ensure) for one tensor's values after its group's changes and a range check.
    pub(super) fn ensure_adjusted<A: Element>(
        self,
        form: Form,
        (info, tensor): (&TensorInfo, &Tensor<'_, A>),
        step: u64,
    ) -> Result<()> {
        if !tensor.is_adjusted() {
            return Ok(());
        }
        let learning_rate = adjusted(LEARNING_RATE, tensor.learning_rate, self.learning_rate, info, step)?;
        let weight_decay = adjusted(WEIGHT_DECAY, tensor.weight_decay, self.weight_decay, info, step)?;
        Self { learning_rate, weight_decay }.ensure::<A>(form, Some(info), step)
    }

    /// Returns an error if a number derived from these overflows the element type. A learning rate or weight decay that
    /// rounds to 0 is no error: schedules end there, and the difference does not show in a parameter.
    pub(super) fn ensure<A: Element>(self, form: Form, info: Option<&TensorInfo>, step: u64) -> Result<()> {
        let largest = A::max_value().as_f64();
        let refused = |name, value, accepted| {
            Err(Error::Step(StepError::HyperParameter {
                name,
                value,
                step,
                path: info.map(|info| info.path().into()),
                pattern: None,
                accepted,
            }))
        };
        if self.learning_rate > largest / ROOM {
            let accepted = format!("a number in 0 ≤ {LEARNING_RATE} ≤ {:e} in {}", largest / ROOM, A::DTYPE);
            return refused(LEARNING_RATE, self.learning_rate, accepted);
        }
        let most = match form {
            Form::Coupled => largest,
            // 1 − ηλ is as finite then.
            Form::Decoupled(rate) => largest / rate.of(self.learning_rate).max(1.0),
            Form::Own => largest / self.learning_rate.max(1.0),
        };
        if self.weight_decay > most {
            let accepted = format!("a number in 0 ≤ {WEIGHT_DECAY} ≤ {most:e} in {}", A::DTYPE);
            return refused(WEIGHT_DECAY, self.weight_decay, accepted);
        }
        Ok(())
    }
}

/// A group's value for one tensor, if it is in range.
fn adjusted(name: &'static str, adjust: Adjust, own: f64, info: &TensorInfo, step: u64) -> Result<f64> {
    let value = adjust.apply(own);
    if value.is_finite() && value >= 0.0 {
        return Ok(value);
    }
    let accepted = "a finite number ≥ 0".into();
    let path = Some(info.path().into());
    Err(Error::Step(StepError::HyperParameter { name, value, step, path, pattern: None, accepted }))
}

/// In both drivers: the rule, and the setters of learning rate and weight decay.
macro_rules! driver {
    ($driver:ident) => {
        impl<R, A> $driver<R, A> {
            /// Sets the weight decay λ ≥ 0: a number, a schedule or a closure. The rule determines whether it is coupled or decoupled.
            pub fn weight_decay(mut self, weight_decay: impl Into<Hyper>) -> Self {
                self.set_weight_decay(weight_decay);
                self
            }

            /// Changes the weight decay from the next step on.
            pub fn set_weight_decay(&mut self, weight_decay: impl Into<Hyper>) {
                self.rates.weight_decay = weight_decay.into();
            }

            /// Changes the learning rate from the next step on: a number, a schedule or a closure. The step counter does not start over.
            pub fn set_learning_rate(&mut self, learning_rate: impl Into<Hyper>) {
                self.rates.learning_rate = learning_rate.into();
            }

            /// The rule, with its hyper-parameters.
            pub fn rule(&self) -> &R {
                &self.rule
            }

            /// The rule, mutable. Its hyper-parameters may be changed between steps.
            pub fn rule_mut(&mut self) -> &mut R {
                &mut self.rule
            }

            /// The number of steps in which the tensor at `path` had a gradient.
            pub fn tensor_steps(&self, path: &str) -> u64 {
                self.state.get(path).map_or(0, |state| state.steps)
            }
        }
    };
}

/// The methods of [`Optimizer`](crate::Optimizer) that all drivers have, except those that check, step or save state.
macro_rules! optimizer_of_driver {
    // With the method that returns an error if a step would, and whether all moves are sweeps.
    ($accepts:ident $(, $sweeps:ident)?) => {
        fn check(&self, step: &Step<'_, A>) -> Result<()> {
            step.note_whole(|| $crate::step::memo::Note::Part(format!("{self:?}")));
            self.$accepts(step).map(drop)
        }

        fn conclude(&mut self, result: $crate::Result<$crate::Report>) -> $crate::Result<$crate::Report> {
            result
        }

        fn learning_rate(&self) -> f64 {
            self.rates.learning_rate.at(self.steps)
        }

        fn replace_learning_rate(&mut self, learning_rate: $crate::Hyper) {
            self.rates.learning_rate = learning_rate;
        }

        fn part(&self, of: std::any::TypeId) -> Option<&dyn std::any::Any> {
            $(if of == std::any::TypeId::of::<$crate::step::moves::$sweeps>() {
                return Some(self);
            })?
            if of == std::any::TypeId::of::<Self>() { Some(self) } else { None }
        }

        fn part_mut(&mut self, of: std::any::TypeId) -> Option<&mut dyn std::any::Any> {
            if of == std::any::TypeId::of::<Self>() { Some(self) } else { None }
        }

        fn steps(&self) -> u64 {
            self.steps
        }

        fn layout(&self) -> Option<&std::sync::Arc<$crate::params::Layout>> {
            self.state.layout()
        }
    };
}

pub(super) use {driver, optimizer_of_driver};
