//! The parameters before the ascent.

use std::mem::swap;
use std::sync::Arc;

use super::arithmetic::Climb;
use crate::error::{Error, Result, StepError};
use crate::kernel::threads;
use crate::params::{Element, Layout, Owned, ParamsMut, TensorInfo};
use crate::state::{StateReader, StateWriter};
use crate::step::{PerTensor, Step, Tensor};

/// A copy of each tensor that the ascent has moved.
#[derive(Debug, Clone)]
pub(super) struct Starts<A> {
    tensors: PerTensor<Start<A>>,
}

/// The copy of one tensor. Its memory is kept from step to step.
#[derive(Debug, Clone)]
struct Start<A> {
    values: Option<Owned<A>>,
    /// Whether the ascent has moved the tensor.
    is_held: bool,
}

impl<A> Default for Start<A> {
    fn default() -> Self {
        Self { values: None, is_held: false }
    }
}

impl<A> Default for Starts<A> {
    fn default() -> Self {
        Self { tensors: PerTensor::new() }
    }
}

impl<A: Element> Start<A> {
    /// Copies a tensor, and moves it.
    fn keep_and(&mut self, info: &TensorInfo, tensor: &mut Tensor<'_, A>, climb: Climb) {
        self.is_held = tensor.grad.is_some();
        if !self.is_held {
            return;
        }
        match &mut self.values {
            Some(values) => {
                values.as_values_mut().view_mut(info.shape()).assign(&tensor.param.as_values().view(info.shape()));
            }
            None => self.values = Some(Owned::copy(&tensor.param.as_values(), info.shape())),
        }
        climb.perturb(info, tensor);
    }

    /// The copy, if the ascent has moved the tensor.
    fn held(&mut self) -> Option<&mut Owned<A>> {
        self.values.as_mut().filter(|_| self.is_held)
    }
}

impl<A: Element> Starts<A> {
    pub(super) fn layout(&self) -> Option<&Arc<Layout>> {
        self.tensors.layout()
    }

    pub(super) fn ensure_known(&self, step: &Step<'_, A>) -> Result<()> {
        self.tensors.ensure_known(step)
    }

    /// Keeps the layout of a step.
    pub(super) fn know(&mut self, step: &Step<'_, A>) {
        let made = self.tensors.begin(step, |_, _| Start::default());
        _ = self.tensors.settle(made, Ok(()));
    }

    /// Copies the tensors that have a gradient, and moves them.
    pub(super) fn keep_and(&mut self, step: &mut Step<'_, A>, climb: Climb) {
        self.know(step);
        let mut tasks: Vec<_> = step.zip_mut(self.tensors.all_mut()).collect();
        let elements = tasks.iter().map(|(info, ..)| info.elements()).sum();
        threads::for_each_tensor(elements, &mut tasks, &|(info, tensor, start)| {
            if let Some(start) = start {
                start.keep_and(info, tensor, climb);
            }
        });
    }

    /// Returns an error unless the step has every tensor that the ascent has moved.
    pub(super) fn ensure_all_in(&self, step: &Step<'_, A>) -> Result<()> {
        self.ensure_known(step)?;
        let held = |start: Option<&Start<A>>| start.is_some_and(|start| start.is_held);
        let here = step.zip(self.tensors.all()).filter(|(_, _, start)| held(*start)).count();
        if here == self.tensors.all().filter(|start| held(*start)).count() {
            return Ok(());
        }
        Err(Error::Step(StepError::CannotAscend {
            reason: "an adaptor has removed tensors from the step that `ascend` has moved",
        }))
    }

    /// Exchanges the copies and the parameters.
    pub(super) fn exchange(&mut self, step: &mut Step<'_, A>) {
        self.tensors.each(step, |info, tensor, start| {
            if let Some(values) = start.held() {
                let (mut values, mut param) = (values.as_values_mut(), tensor.param.view_mut(info.shape()));
                values.view_mut(info.shape()).iter_mut().zip(&mut param).for_each(|(a, b)| swap(a, b));
            }
        });
    }

    /// The copies are no longer needed.
    pub(super) fn release(&mut self) {
        self.tensors.all_mut().flatten().for_each(|start| start.is_held = false);
    }

    /// Writes the copies into the parameters.
    pub(super) fn write_to(&mut self, params: &mut dyn ParamsMut<Elem = A>) -> Result<()> {
        let Some(layout) = self.layout().cloned() else { return Ok(()) };
        let tensors = layout.tensors().iter().zip(layout.values_mut(params)?);
        for ((info, mut values), start) in tensors.zip(self.tensors.all_mut()) {
            if let Some(start) = start.and_then(Start::held) {
                values.view_mut(info.shape()).assign(&start.as_values().view(info.shape()));
            }
        }
        self.release();
        Ok(())
    }

    pub(super) fn write_state(&self, node: &mut StateWriter<'_>) {
        for (info, start) in self.tensors.iter().filter(|(_, start)| start.is_held) {
            if let Some(values) = start.values.as_ref().filter(|values| !values.is_empty()) {
                values.write(node, "start", info);
            }
        }
    }

    pub(super) fn read_state(node: &StateReader<'_>) -> Result<Self> {
        let read = |info: &TensorInfo| {
            let values = Owned::read(node, "start", info)?;
            Ok(Some(Start { is_held: values.is_some(), values }))
        };
        Ok(Self { tensors: PerTensor::read_state(node, read)? })
    }
}
