//! What an adaptor keeps for each tensor, and takes back if the step that it was made for is refused.

use std::sync::Arc;

use crate::error::Result;
use crate::params::{Element, Layout, Owned, TensorInfo};
use crate::state::{StateReader, StateWriter};
use crate::step::{Step, Tensor};

/// Something for each tensor that steps have held, made by the first of them, and the parameters that these are.
#[derive(Debug, Clone)]
pub(super) struct Kept<T> {
    layout: Option<Arc<Layout>>,
    tensors: Vec<Option<T>>,
}

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self { layout: None, tensors: Vec::new() }
    }
}

impl<T> Kept<T> {
    /// The parameters, once a step has been taken.
    pub(super) fn layout(&self) -> Option<&Arc<Layout>> {
        self.layout.as_ref()
    }

    /// Returns an error unless a step is on these parameters, or there are none yet.
    pub(super) fn ensure_known<A: Element>(&self, step: &Step<'_, A>) -> Result<()> {
        Layout::ensure_known(self.layout.as_ref(), step.layout())
    }

    /// What is kept for one tensor.
    pub(super) fn get(&self, index: usize) -> Option<&T> {
        self.tensors.get(index)?.as_ref()
    }

    /// What is kept, with the tensors that it is kept for.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&TensorInfo, &T)> {
        let tensors = self.layout.iter().flat_map(|layout| layout.tensors()).zip(&self.tensors);
        tensors.filter_map(|(info, kept)| Some((info, kept.as_ref()?)))
    }

    /// For each tensor of the parameters what is kept for it.
    pub(super) fn all_mut(&mut self) -> impl Iterator<Item = Option<&mut T>> {
        self.tensors.iter_mut().map(Option::as_mut)
    }

    /// Makes what there is not yet for the tensors of a step that is to be tried.
    pub(super) fn begin<A: Element>(
        &mut self,
        step: &Step<'_, A>,
        make: impl Fn(&TensorInfo, &Tensor<'_, A>) -> T,
    ) -> Made {
        let mut made = Made { is_first: self.layout.is_none(), tensors: Vec::new() };
        let layout = self.layout.get_or_insert_with(|| Arc::clone(step.layout()));
        self.tensors.resize_with(layout.len(), || None);
        for (info, tensor) in step.iter() {
            if let Some(kept @ None) = self.tensors.get_mut(tensor.index()) {
                *kept = Some(make(info, tensor));
                made.tensors.push(tensor.index());
            }
        }
        made
    }

    /// Calls `f` with each tensor of the step and what is kept for it.
    pub(super) fn each<'s, 'a, A: Element>(
        &'s mut self,
        step: &mut Step<'a, A>,
        mut f: impl FnMut(&TensorInfo, &mut Tensor<'a, A>, &'s mut T),
    ) {
        let (mut all, mut next) = (self.tensors.iter_mut(), 0);
        for (info, tensor) in step.iter_mut() {
            let Some(kept) = all.nth(tensor.index() - next) else { break };
            next = tensor.index() + 1;
            kept.iter_mut().for_each(|kept| f(info, tensor, kept));
        }
    }

    /// Keeps what was made for a step, or takes it back: a step that was refused decides nothing.
    pub(super) fn settle<R>(&mut self, made: Made, result: Result<R>) -> Result<R> {
        if result.is_err() {
            for index in made.tensors {
                self.tensors.get_mut(index).into_iter().for_each(|kept| *kept = None);
            }
            if made.is_first {
                *self = Self::default();
            }
        }
        result
    }
}

impl<A: Element> Kept<Owned<A>> {
    /// Writes the values under a name. Those of tensors without elements say nothing.
    pub(super) fn write(&self, node: &mut StateWriter<'_>, name: &str) {
        self.iter().filter(|(_, values)| !values.is_empty()).for_each(|(info, values)| values.write(node, name, info));
    }

    /// Reads what [`write`](Self::write) wrote.
    pub(super) fn read(node: &StateReader<'_>, name: &str) -> Result<Self> {
        let tensors = node.tensors().iter().map(|info| Owned::read(node, name, info));
        Ok(Self { tensors: tensors.collect::<Result<_>>()?, layout: node.layout().cloned() })
    }
}

/// What [`Kept::begin`] made, until it is known whether the step is taken.
#[must_use = "a step that is refused must leave nothing"]
pub(super) struct Made {
    is_first: bool,
    tensors: Vec<usize>,
}
