//! What the adaptors that average parameters have in common: the averages themselves.

use std::iter::repeat_n;
use std::mem::swap;
use std::sync::Arc;

use crate::error::{Error, Result, StepError};
use crate::params::{Element, Layout, Owned, ParamsMut};
use crate::state::{StateReader, StateWriter};
use crate::step::{Follower, Made, Optimizer, PerTensor, Report, Step, follow};

/// What the average of a tensor does in a step that does not move the tensor: because it is a buffer, such as a running mean, whose gradient is
/// `None`, because it is frozen, or because this step has no gradient for it. Set with `.buffers(…)` of [`Ema`](super::Ema) and
/// [`Swa`](super::Swa).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Buffers {
    /// It stays. The average of a tensor that never has a gradient keeps the tensor's first value.
    #[default]
    Stay,
    /// It follows the tensor's value with the same weight as other averages: PyTorch's `AveragedModel(use_buffers=True)`.
    Follow,
    /// It becomes the tensor's value: PyTorch's `AveragedModel` for buffers, unless `use_buffers=True`.
    Copy,
}

/// One value for each element of the parameters that steps have held.
#[derive(Debug, Clone)]
pub(super) struct Averages<A> {
    pub(super) tensors: PerTensor<Owned<A>>,
    /// Whether the parameters are here and the averages where the parameters were.
    swapped: bool,
}

impl<A> Default for Averages<A> {
    fn default() -> Self {
        Self { tensors: PerTensor::new(), swapped: false }
    }
}

impl<A: Element> Averages<A> {
    pub(super) fn layout(&self) -> Option<&Arc<Layout>> {
        self.tensors.layout()
    }

    /// Returns an error unless a step may be taken: on the parameters known, and not on their averages.
    pub(super) fn check(&self, step: &Step<'_, A>) -> Result<()> {
        if self.swapped {
            return Err(Error::Step(StepError::Swapped));
        }
        self.tensors.ensure_known(step)
    }

    /// Has the averages follow the parameters in the sweep of `inner`: `average + weight·(param − average)`. What is not moved is for `buffers`.
    pub(super) fn follow(
        &mut self,
        inner: &mut dyn Optimizer<A>,
        mut step: Step<'_, A>,
        (weight, buffers): (f64, Buffers),
    ) -> Result<Report> {
        let made = self.begin(&step);
        if buffers == Buffers::Stay {
            let mut step: Step<'_, A> = step; // a shorter lifetime: from here on it borrows from the averages
            self.let_follow(&mut step, weight);
            let report = inner.apply(step);
            return self.tensors.settle(made, report);
        }
        let tensors = step.len();
        let mut lent = step.lend(true);
        self.let_follow(&mut lent, weight);
        let result = lent.watched(repeat_n(true, tensors), |step| inner.apply(step));
        let (report, moved) = self.tensors.settle(made, result)?;
        let mut moved = moved.into_iter();
        self.tensors.each(&mut step, |info, tensor, average| {
            if moved.next() == Some(true) || !report.moved {
                return;
            }
            let (param, mut average) = (tensor.param(), average.as_values_mut());
            match buffers {
                Buffers::Copy => average.view_mut(info.shape()).assign(&param.view(info.shape())),
                _ => follow(&mut [Follower::average_in(average, weight)], &param, info.shape()),
            }
        });
        Ok(report)
    }

    fn let_follow<'s>(&'s mut self, step: &mut Step<'s, A>, weight: f64) {
        self.tensors.each(step, |_, tensor, average| {
            tensor.followers.push(Follower::average_in(average.as_values_mut(), weight));
        });
    }

    /// Makes the averages that there are not yet, of the parameters as they are.
    pub(super) fn begin(&mut self, step: &Step<'_, A>) -> Made {
        self.tensors.begin(step, |info, tensor| Owned::copy(&tensor.param(), info.shape()))
    }

    /// Writes the averages into a tree.
    pub(super) fn read(&self, tree: &mut dyn ParamsMut<Elem = A>) -> Result<()> {
        if self.swapped {
            return Err(Error::Step(StepError::Swapped));
        }
        let Some(layout) = self.layout() else { return Ok(()) };
        for (at, (info, mut values)) in layout.tensors().iter().zip(layout.values_mut(tree)?).enumerate() {
            if let Some(average) = self.tensors.at(at) {
                values.view_mut(info.shape()).assign(&average.as_values().view(info.shape()));
            }
        }
        Ok(())
    }

    /// Exchanges the averages and the values of a tree.
    pub(super) fn swap(&mut self, tree: &mut dyn ParamsMut<Elem = A>) -> Result<()> {
        let Some(layout) = self.layout().cloned() else { return Ok(()) };
        let tensors = layout.tensors().iter().zip(layout.values_mut(tree)?);
        for ((info, mut values), average) in tensors.zip(self.tensors.all_mut()) {
            let Some(average) = average else { continue };
            let (mut values, mut average) = (values.view_mut(info.shape()), average.as_values_mut());
            values.iter_mut().zip(average.view_mut(info.shape())).for_each(|(a, b)| swap(a, b));
        }
        self.swapped = !self.swapped;
        Ok(())
    }

    pub(super) fn write_state(&self, node: &mut StateWriter<'_>) {
        node.value("swapped", self.swapped);
        self.tensors.write_copies(node, "average");
    }

    pub(super) fn read_state(node: &StateReader<'_>) -> Result<Self> {
        let swapped = node.value("swapped", "true or false")?;
        Ok(Self { tensors: PerTensor::read(node, "average")?, swapped })
    }
}

/// The methods with which an adaptor shows its averages.
macro_rules! shows_averages {
    ($adaptor:ident, $what:literal) => {
        impl<A: Element> $adaptor<A> {
            #[doc = concat!("Writes ", $what, " into a tree of the parameters' layout.")]
            ///
            /// Tensors without an average are unchanged. Before the first step these are all tensors; later they are the tensors that a
            /// [`route`](crate::OptimizerExt::route) gives to another optimizer.
            ///
            /// # Errors
            /// [`StepError::ParametersChanged`](crate::error::StepError::ParametersChanged) if the tree has another layout, and
            /// [`StepError::Swapped`](crate::error::StepError::Swapped) while the averages are swapped in.
            pub fn read(&self, tree: &mut dyn ParamsMut<Elem = A>) -> Result<()> {
                self.averages.read(tree)
            }

            #[doc = concat!("Exchanges the parameters and ", $what, ", bit for bit.")]
            ///
            /// Call it once to evaluate the model, and again to continue training. Between the two calls, `step` returns an error. Before
            /// the first step, it does nothing.
            ///
            /// # Errors
            /// [`StepError::ParametersChanged`](crate::error::StepError::ParametersChanged) if the tree has another layout. Nothing is
            /// exchanged then.
            pub fn swap(&mut self, params: &mut dyn ParamsMut<Elem = A>) -> Result<()> {
                self.averages.swap(params)
            }
        }
    };
}

pub(super) use shows_averages;
