//! What the adaptors that average parameters have in common: the averages themselves.

use std::mem::swap;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::follower::Follower;
use crate::optimizer::Optimizer;
use crate::params::{Layout, Owned, ParamsMut, TensorInfo};
use crate::scalar::Element;
use crate::state::{StateReader, StateWriter};
use crate::step::{Report, Step, Tensor};

/// One value for each element of the parameters that steps have held.
#[derive(Debug, Clone)]
pub(super) struct Averages<A> {
    layout: Option<Arc<Layout>>,
    /// Empty for tensors that no step has held.
    tensors: Vec<Owned<A>>,
    /// Whether the parameters are here and the averages where the parameters were.
    swapped: bool,
}

impl<A> Default for Averages<A> {
    fn default() -> Self {
        Self { layout: None, tensors: Vec::new(), swapped: false }
    }
}

impl<A: Element> Averages<A> {
    pub(super) fn layout(&self) -> Option<&Arc<Layout>> {
        self.layout.as_ref()
    }

    /// Whether there are none yet.
    pub(super) fn is_empty(&self) -> bool {
        self.layout.is_none()
    }

    /// Nothing if a step may be taken: on the parameters known, and not on their averages.
    pub(super) fn check(&self, step: &Step<'_, A>) -> Result<()> {
        if self.swapped {
            return Err(Error::Swapped);
        }
        Layout::ensure_known(self.layout.as_ref(), step.layout())
    }

    /// Has the averages follow the parameters in the sweep of `inner`: `average + weight·(param − average)`.
    pub(super) fn follow(&mut self, inner: &mut impl Optimizer<A>, step: Step<'_, A>, weight: f64) -> Result<Report> {
        let first = self.is_empty();
        let mut step: Step<'_, A> = step; // a shorter lifetime: from here on it borrows from the averages
        self.with_each(&mut step, |_, tensor, average| {
            tensor.followers.push(Follower::average_in(average.as_values_mut(), weight));
        });
        let report = inner.apply(step);
        if first && report.is_err() {
            *self = Self::default(); // a step that was refused must not decide which parameters these are
        }
        report
    }

    /// Calls `f` with each tensor of the step and its values, which begin as a copy of the parameter.
    pub(super) fn with_each<'s, 'a>(
        &'s mut self,
        step: &mut Step<'a, A>,
        mut f: impl FnMut(&TensorInfo, &mut Tensor<'a, A>, &'s mut Owned<A>),
    ) {
        let layout = self.layout.get_or_insert_with(|| Arc::clone(step.layout()));
        self.tensors.resize_with(layout.len(), Owned::default);
        let (mut all, mut next) = (self.tensors.iter_mut(), 0);
        for (info, tensor) in step.iter_mut() {
            let Some(values) = all.nth(tensor.index() - next) else { break };
            next = tensor.index() + 1;
            if values.is_empty() {
                *values = Owned::copy(&tensor.param(), info.shape());
            }
            f(info, tensor, values);
        }
    }

    /// Writes the averages into a tree.
    pub(super) fn read(&self, tree: &mut dyn ParamsMut<Elem = A>) -> Result<()> {
        if self.swapped {
            return Err(Error::Swapped);
        }
        let Some(layout) = &self.layout else { return Ok(()) };
        let tensors = layout.tensors().iter().zip(layout.values_mut(tree)?);
        for ((info, mut values), average) in tensors.zip(&self.tensors).filter(|(_, average)| !average.is_empty()) {
            values.view_mut(info.shape()).assign(&average.as_values().view(info.shape()));
        }
        Ok(())
    }

    /// Exchanges the averages and the values of a tree.
    pub(super) fn swap(&mut self, tree: &mut dyn ParamsMut<Elem = A>) -> Result<()> {
        let Some(layout) = &self.layout else { return Ok(()) };
        let tensors = layout.tensors().iter().zip(layout.values_mut(tree)?);
        for ((info, mut values), average) in tensors.zip(&mut self.tensors).filter(|(_, average)| !average.is_empty()) {
            let (mut values, mut average) = (values.view_mut(info.shape()), average.as_values_mut());
            values.iter_mut().zip(average.view_mut(info.shape())).for_each(|(a, b)| swap(a, b));
        }
        self.swapped = !self.swapped;
        Ok(())
    }

    pub(super) fn write_state(&self, node: &mut StateWriter<'_>) {
        node.value("swapped", self.swapped);
        Owned::write_all(&self.tensors, self.layout.as_deref(), node, "average");
    }

    pub(super) fn read_state(node: &StateReader<'_>) -> Result<Self> {
        let swapped = node.value("swapped", "true or false")?;
        Ok(Self { layout: node.layout().cloned(), tensors: Owned::read_all(node, "average")?, swapped })
    }
}

/// The methods with which an adaptor shows its averages.
macro_rules! shows_averages {
    ($adaptor:ident, $what:literal) => {
        impl<A: Element, O: Optimizer<A>> $adaptor<O, A> {
            #[doc = concat!("Writes ", $what, " into a tree of the parameters' layout.")]
            ///
            /// Tensors that no step has held are left as they are: all of them before the first step, and those that a
            /// [`route`](Optimizer::route) gives to another optimizer.
            ///
            /// # Errors
            /// [`Error::ParametersChanged`](crate::Error::ParametersChanged) if the tree is another,
            /// [`Error::Swapped`](crate::Error::Swapped).
            pub fn read(&self, tree: &mut dyn ParamsMut<Elem = A>) -> Result<()> {
                self.averages.read(tree)
            }

            #[doc = concat!("Exchanges the parameters and ", $what, ", bit for bit: to evaluate the model, and to go back.")]
            ///
            /// Between the two calls no step can be taken. Before the first step there is nothing to exchange.
            ///
            /// # Errors
            /// [`Error::ParametersChanged`](crate::Error::ParametersChanged) if the tree is another; nothing is exchanged
            /// then.
            pub fn swap(&mut self, params: &mut dyn ParamsMut<Elem = A>) -> Result<()> {
                self.averages.swap(params)
            }
        }
    };
}

pub(super) use shows_averages;
