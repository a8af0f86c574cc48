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
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no optimizer of parameters of `{A}`",
    label = "does not step parameters of `{A}`",
    note = "an optimizer steps parameters of the element type that it was made for: write `Adam::<{A}>::new(…)`, or `Adam::new(…)` to leave the type to the compiler"
)]
#[must_use = "an optimizer moves nothing until `step` is called"]
pub trait Optimizer<A: Element>: Send {
    /// Returns an error if [`apply`](Optimizer::apply) would. Changes nothing.
    ///
    /// A router calls this method of all its optimizers before any of them moves. An adaptor changes a
    /// preview of the step as it will change the step, and passes it to `check` of the optimizer inside: see
    /// [`preview`](Step::preview).
    ///
    /// # Errors
    /// Those of `apply`.
    fn check(&self, step: &Step<'_, A>) -> Result<()>;

    /// Takes the step. On an error, nothing changes.
    ///
    /// It must accept every step that `check` accepts. In a [`Router`](crate::adaptor::Router), other optimizers may already have moved, and
    /// their old values are not kept. The router then returns
    /// [`RefusedTooLate`](crate::Error::RefusedTooLate). A panic in a rule, a schedule or your closure unwinds to the
    /// caller. Some elements have moved then: restore parameters and optimizer from a saved state.
    ///
    /// # Errors
    /// [`StepError::HyperParameter`](crate::error::StepError::HyperParameter), [`StepError::Schedule`](crate::error::StepError::Schedule) and
    /// [`StepError::ParametersChanged`](crate::error::StepError::ParametersChanged), and those of the adaptors.
    fn apply(&mut self, step: Step<'_, A>) -> Result<Report>;

    /// Receives the result of a call of [`step`](Optimizer::step), and returns it. `step` calls it last.
    ///
    /// The ranks of a group wait for each other. If one rank rejects a step before it has exchanged anything with the others, this
    /// method sends them the error. An optimizer returns `result`. An adaptor passes it to the optimizer inside, and a router passes it to all of its
    /// optimizers. An adaptor that skips the optimizer inside in some calls returns the errors of those calls itself, because no
    /// rank waits in them.
    ///
    /// If you pair a step yourself and [`apply`](Optimizer::apply) it, call this method with the result, or with the error of pairing.
    ///
    /// # Errors
    /// That of `result`, or of the group if sending it fails.
    fn conclude(&mut self, result: Result<Report>) -> Result<Report>;

    /// The learning rate of the next step, before changes by parameter groups.
    fn learning_rate(&self) -> f64;

    /// Replaces the learning rate, from the next step on. For those who write an optimizer; a training loop calls
    /// [`set_learning_rate`](crate::OptimizerExt::set_learning_rate).
    ///
    /// An adaptor passes it to the optimizer inside, a router to the optimizer whose [`learning_rate`](Optimizer::learning_rate) it
    /// returns.
    fn replace_learning_rate(&mut self, learning_rate: Hyper);

    /// The optimizer or adaptor of type `of`: this one or one inside it, or `None`. For those who write an optimizer; a
    /// training loop calls [`find`](crate::OptimizerExt::find).
    ///
    /// An optimizer returns itself if `of` is its type, and `None` otherwise. An adaptor passes any other type to the optimizer
    /// inside.
    fn part(&self, of: TypeId) -> Option<&dyn Any>;

    /// [`part`](Optimizer::part), mutable: the same part.
    fn part_mut(&mut self, of: TypeId) -> Option<&mut dyn Any>;

    /// The number of steps taken; the counter that schedules are evaluated at.
    ///
    /// Calls that accumulate, are skipped or fail do not count.
    fn steps(&self) -> u64;

    /// The layout of the parameters: `None` before the first step, and then that of the applied [`Step`]s, even if
    /// nothing moved. An adaptor without its own layout returns the inner one.
    ///
    /// Because of it, [`step`](Optimizer::step) and loading reject parameters and states with another layout, and pairing
    /// the next step builds no paths. If you always return `None`, the state may be used for other parameters.
    fn layout(&self) -> Option<&Arc<Layout>>;

    /// Writes the optimizer's state. An adaptor also calls `write_state` of the optimizer inside.
    ///
    /// For those who write an optimizer; a training loop calls [`state_dict`](Optimizer::state_dict).
    fn write_state(&self, state: &mut StateWriter<'_>);

    /// Reads and checks what [`write_state`](Optimizer::write_state) wrote, in the same order. Changes nothing until
    /// the returned [`Commit`] is made.
    ///
    /// # Errors
    /// Those of [`StateReader`].
    fn read_state<'s>(&'s mut self, state: &mut StateReader<'_>) -> Result<Commit<'s>>;

    /// A copy of the whole state: counters, every slot, accumulated gradients, averages.
    ///
    /// Hyper-parameters and schedules are not saved: they are code. The exception is the state of a schedule such as
    /// [`Plateau`](crate::schedule::Plateau): it is saved wherever the schedule is in the chain.
    fn state_dict(&self) -> StateDict {
        let mut state = StateDict::new(self.layout().cloned());
        self.write_state(&mut StateWriter::new(&mut state));
        state
    }

    /// Restores a saved state. Training then continues bit for bit as if uninterrupted. On an error, nothing changes.
    ///
    /// The optimizer must have the same algorithms in the same order. It may have taken steps.
    ///
    /// # Errors
    /// [`StateError::WrongAlgorithm`](crate::error::StateError::WrongAlgorithm), [`StateError::MissingEntry`](crate::error::StateError::MissingEntry),
    /// [`StateError::UnexpectedEntry`](crate::error::StateError::UnexpectedEntry), [`StateError::EntryShape`](crate::error::StateError::EntryShape),
    /// [`StateError::EntryType`](crate::error::StateError::EntryType), [`StateError::EntryValue`](crate::error::StateError::EntryValue), and
    /// [`StepError::ParametersChanged`](crate::error::StepError::ParametersChanged) if the optimizer has stepped other parameters;
    /// [`StateError::SettingChanged`](crate::error::StateError::SettingChanged) if a setting that the state depends on differs:
    /// the tensors of `freeze` or `route`, or the steps of `swa`.
    fn load_state_dict(&mut self, state: &StateDict) -> Result<()> {
        load(state, state.layout(), self.layout().cloned(), |reader| self.read_state(reader))
    }

    /// Moves `params` against `grads`, a tree of the same tensors. It does not change `grads`.
    ///
    /// # Errors
    /// Those of [`Step::pair`] and of [`apply`](Optimizer::apply). Parameters, state and counters are then bit for
    /// bit what they were.
    #[doc(alias = "zero_grad")]
    fn step(&mut self, params: &mut dyn ParamsMut<Elem = A>, grads: &dyn Params<Elem = A>) -> Result<Report> {
        let result = match Step::pair_next(params, grads, (self.layout(), self.steps())) {
            Ok(step) => self.apply(step),
            Err(error) => Err(error),
        };
        self.conclude(result)
    }
}

/// A [`step`](Optimizer::step) that something is said of before it is taken.
pub(crate) fn take_step<A: Element, O: Optimizer<A> + ?Sized>(
    chain: &mut O,
    (params, grads): (&mut dyn ParamsMut<Elem = A>, &dyn Params<Elem = A>),
    say: impl FnOnce(&mut Step<'_, A>) -> Result<()>,
) -> Result<Report> {
    let paired = Step::pair_next(params, grads, (chain.layout(), chain.steps()));
    let result = paired.and_then(|mut step| {
        say(&mut step)?;
        chain.apply(step)
    });
    chain.conclude(result)
}

/// The part of a chain that has this type.
pub(crate) fn find<T: 'static, A: Element>(chain: &(impl Optimizer<A> + ?Sized)) -> Option<&T> {
    chain.part(TypeId::of::<T>())?.downcast_ref()
}

/// [`find`], mutable.
pub(crate) fn find_mut<T: 'static, A: Element>(chain: &mut (impl Optimizer<A> + ?Sized)) -> Option<&mut T> {
    chain.part_mut(TypeId::of::<T>())?.downcast_mut()
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

            fn conclude(&mut self, result: Result<Report>) -> Result<Report> {
                (**self).conclude(result)
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
