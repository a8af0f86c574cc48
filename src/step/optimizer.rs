//! The core trait: what every optimizer and every adaptor implements.

use std::any::{Any, TypeId};
use std::sync::Arc;

use super::{Report, Step};
use crate::error::Result;
use crate::params::{Element, Layout, Params, ParamsMut};
use crate::schedule::Hyper;
use crate::state::{Commit, StateDict, StateReader, StateWriter, load};

/// An optimizer: it moves parameters against their gradients. Every adaptor is an optimizer too.
///
/// In a training loop you need one method, [`step`](Optimizer::step). To save and restore the state, use
/// [`state_dict`](Optimizer::state_dict) and [`load_state_dict`](Optimizer::load_state_dict). The other methods are for those who write an
/// optimizer.
///
/// The methods that add an adaptor, such as `clip_global_norm`, are in [`OptimizerExt`](crate::OptimizerExt). `Box<dyn Optimizer<f32>>` and
/// `&mut O` are optimizers too.
///
/// To write an element-wise optimizer, see [`Rule`](crate::rule::Rule). For other optimizers, see the [guide](crate::guide::extending).
#[must_use = "an optimizer moves nothing until `step` is called"]
pub trait Optimizer<A: Element>: Send {
    /// Whether [`apply`](Optimizer::apply) would accept this step. Changes nothing.
    ///
    /// An optimizer that moves something before it hands the step on, as a router between two optimizers does, asks
    /// first. An adaptor asks the optimizer inside about the step as it would pass it on, described on a
    /// [`preview`](Step::preview).
    ///
    /// # Errors
    /// What `apply` would return.
    fn check(&self, step: &Step<'_, A>) -> Result<()>;

    /// Takes the step, all of it or, on an error, none.
    ///
    /// What `check` accepts must not be refused here: beside other optimizers, in a [`Router`](crate::adaptor::Router), an error at this point comes when
    /// those may have moved, and nothing that they were is kept. The router then says
    /// [`RefusedTooLate`](crate::Error::RefusedTooLate). A panic, in a rule, a schedule or a closure of the user's, goes through
    /// to whoever called, and leaves a part of the elements moved: parameters and optimizer are then to be replaced by saved ones.
    ///
    /// # Errors
    /// [`StepError::HyperParameter`](crate::error::StepError::HyperParameter), [`StepError::Schedule`](crate::error::StepError::Schedule) and
    /// [`StepError::ParametersChanged`](crate::error::StepError::ParametersChanged), and those of the adaptors on the way.
    fn apply(&mut self, step: Step<'_, A>) -> Result<Report>;

    /// The learning rate that the next step will use, before any group's change to it.
    fn learning_rate(&self) -> f64;

    /// Replaces the learning rate, from the next step on. For those who write an optimizer; a training loop calls
    /// [`set_learning_rate`](crate::OptimizerExt::set_learning_rate).
    ///
    /// An adaptor passes it to the optimizer inside, a router to the optimizer whose [`learning_rate`](Optimizer::learning_rate) it
    /// returns.
    fn replace_learning_rate(&mut self, learning_rate: Hyper);

    /// The part of this type: the optimizer or adaptor itself, or what an optimizer inside has. For those who write an optimizer; a
    /// training loop calls [`find`](crate::OptimizerExt::find).
    ///
    /// An optimizer returns itself if `of` is its type, and `None` if it is another. An adaptor asks the optimizer inside if it is none
    /// of its own.
    fn part(&self, of: TypeId) -> Option<&dyn Any>;

    /// [`part`](Optimizer::part), to be changed: the same one.
    fn part_mut(&mut self, of: TypeId) -> Option<&mut dyn Any>;

    /// The number of steps taken; the counter that schedules are evaluated at.
    ///
    /// A call that accumulated, was skipped or failed is no step.
    fn steps(&self) -> u64;

    /// The layout of the parameters: `None` before the first step and from then on that of the [`Step`]s applied, whether they
    /// moved anything or not; an adaptor answers with that of the optimizer inside.
    ///
    /// By it [`step`](Optimizer::step) refuses other parameters than before, a state is refused that is not of these, and pairing
    /// the next step builds no paths. An optimizer that always answers `None` steps any parameters with what it remembers of others.
    fn layout(&self) -> Option<&Arc<Layout>>;

    /// Writes what the optimizer remembers from step to step, and has the optimizer inside do the same.
    ///
    /// For those who write an optimizer; whoever uses one calls [`state_dict`](Optimizer::state_dict).
    fn write_state(&self, state: &mut StateWriter<'_>);

    /// Reads what [`write_state`](Optimizer::write_state) wrote, in the same order, and checks it; changes nothing before
    /// the [`Commit`] that it returns is made.
    ///
    /// # Errors
    /// Those of [`StateReader`].
    fn read_state<'s>(&'s mut self, state: &mut StateReader<'_>) -> Result<Commit<'s>>;

    /// A copy of everything that is remembered from step to step: counters, every slot, gathered gradients, averages.
    ///
    /// Hyper-parameters and schedules are not saved: they are code. The exception is the state of a schedule that has one, as
    /// [`Plateau`](crate::schedule::Plateau): it is saved wherever the schedule is in the chain.
    fn state_dict(&self) -> StateDict {
        let mut state = StateDict::new(self.layout().cloned());
        self.write_state(&mut StateWriter::new(&mut state));
        state
    }

    /// Goes on from a state that was saved, bit for bit as if it had never stopped. All of it or, on an error, nothing.
    ///
    /// The optimizer is built as it was before: the same algorithms in the same order. It may have taken steps.
    ///
    /// # Errors
    /// [`StateError::WrongAlgorithm`](crate::error::StateError::WrongAlgorithm), [`StateError::MissingEntry`](crate::error::StateError::MissingEntry),
    /// [`StateError::UnexpectedEntry`](crate::error::StateError::UnexpectedEntry), [`StateError::EntryShape`](crate::error::StateError::EntryShape),
    /// [`StateError::EntryType`](crate::error::StateError::EntryType), [`StateError::EntryValue`](crate::error::StateError::EntryValue), and
    /// [`StepError::ParametersChanged`](crate::error::StepError::ParametersChanged) if the optimizer has stepped other parameters;
    /// [`StateError::SettingChanged`](crate::error::StateError::SettingChanged) where a setting that the state has already taken part in is another:
    /// what is frozen, and which steps a mean is of.
    fn load_state_dict(&mut self, state: &StateDict) -> Result<()> {
        load(state, state.layout(), self.layout().cloned(), |reader| self.read_state(reader))
    }

    /// Moves `params` along `grads`, a tree of the same tensors. The gradients are not changed.
    ///
    /// # Errors
    /// Those of [`Step::pair`] and of [`apply`](Optimizer::apply). Parameters, state and counters are then bit for
    /// bit what they were.
    #[doc(alias = "zero_grad")]
    fn step(&mut self, params: &mut dyn ParamsMut<Elem = A>, grads: &dyn Params<Elem = A>) -> Result<Report> {
        let mut step = Step::pair_known(params, grads, self.layout())?;
        step.set_number(self.steps());
        self.apply(step)
    }
}

macro_rules! forward {
    ($($optimizer:tt)*) => {
        impl<A: Element, O: Optimizer<A> + ?Sized> Optimizer<A> for $($optimizer)* {
            fn check(&self, step: &Step<'_, A>) -> Result<()> {
                (**self).check(step)
            }

            fn apply(&mut self, step: Step<'_, A>) -> Result<Report> {
                (**self).apply(step)
            }

            fn step(&mut self, params: &mut dyn ParamsMut<Elem = A>, grads: &dyn Params<Elem = A>) -> Result<Report> {
                (**self).step(params, grads)
            }

            fn learning_rate(&self) -> f64 {
                (**self).learning_rate()
            }

            fn steps(&self) -> u64 {
                (**self).steps()
            }

            fn replace_learning_rate(&mut self, learning_rate: Hyper) {
                (**self).replace_learning_rate(learning_rate);
            }

            fn part(&self, of: TypeId) -> Option<&dyn Any> {
                (**self).part(of)
            }

            fn part_mut(&mut self, of: TypeId) -> Option<&mut dyn Any> {
                (**self).part_mut(of)
            }

            fn layout(&self) -> Option<&Arc<Layout>> {
                (**self).layout()
            }

            fn write_state(&self, state: &mut StateWriter<'_>) {
                (**self).write_state(state);
            }

            fn read_state<'s>(&'s mut self, state: &mut StateReader<'_>) -> Result<Commit<'s>> {
                (**self).read_state(state)
            }
        }
    };
}

forward!(Box<O>);
forward!(&mut O);
