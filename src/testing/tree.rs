//! Trees of named tensors in any order, and what there is after a step.

use ndarray::{ArrayD, ArrayViewD, Dimension, IxDyn};

use super::tensors::{bits, numbers};
use super::violation::{Held, broken, ensure};
use crate::error::Name;
use crate::params::{Element, Params, ParamsMut, Visitor, VisitorMut};
use crate::state::StateDict;
use crate::step::Optimizer;

/// Named tensors in the order of the list; `None` is a tensor without a gradient.
#[derive(Debug, Clone)]
pub(super) struct Tree<A>(pub(super) Vec<(&'static str, Option<ArrayD<A>>)>);

impl<A: Element> Tree<A> {
    /// Tensors with known numbers, other ones for each tensor.
    pub(super) fn new(shapes: &[(&'static str, &[usize])], stream: u64) -> Self {
        let tensor = |(at, (name, shape)): (usize, &(&'static str, &[usize]))| {
            (*name, Some(numbers(shape, 16 * stream + at as u64)))
        };
        Self(shapes.iter().enumerate().map(tensor).collect())
    }

    /// The tree without the values of these tensors.
    pub(super) fn without(mut self, absent: &[&str]) -> Self {
        self.0.iter_mut().filter(|(name, _)| absent.contains(name)).for_each(|(_, tensor)| *tensor = None);
        self
    }

    /// The tree of the tensor at `path` alone.
    pub(super) fn only(&self, path: &str) -> Self {
        Self(self.0.iter().filter(|(name, _)| *name == path).cloned().collect())
    }

    /// The tree with its tensors in the opposite order.
    pub(super) fn reversed(mut self) -> Self {
        self.0.reverse();
        self
    }

    pub(super) fn map(mut self, change: impl Fn(A) -> A) -> Self {
        self.0.iter_mut().filter_map(|(_, tensor)| tensor.as_mut()).for_each(|tensor| tensor.mapv_inplace(&change));
        self
    }

    /// Returns an error unless all tensors have the bits of the other's tensors of the same names.
    pub(super) fn same(&self, expected: &Self, why: &str) -> Held {
        for (name, tensor) in &self.0 {
            let other = expected.0.iter().find(|(other, _)| other == name).and_then(|(_, other)| other.as_ref());
            let (Some(tensor), Some(other)) = (tensor, other) else { continue };
            same(name, tensor.view(), other.view(), why)?;
        }
        Ok(())
    }
}

impl<A: Element> Params for Tree<A> {
    type Elem = A;

    fn visit<'a>(&'a self, visitor: &mut Visitor<'_, 'a, A>) {
        self.0.iter().for_each(|(name, tensor)| visitor.field(name, tensor));
    }
}

impl<A: Element> ParamsMut for Tree<A> {
    fn visit_mut<'a>(&'a mut self, visitor: &mut VisitorMut<'_, 'a, A>) {
        self.0.iter_mut().for_each(|(name, tensor)| visitor.field(name, tensor));
    }
}

/// Returns an error unless the tensor at `path` has the bits of the expected one, which is described by `why`.
pub(super) fn same<A: Element>(path: &str, found: ArrayViewD<'_, A>, expected: ArrayViewD<'_, A>, why: &str) -> Held {
    if found.shape() != expected.shape() {
        return broken(format!("{} has shape {:?}, not {:?} ({why})", Name(path), found.shape(), expected.shape()));
    }
    if bits(&found) == bits(&expected) {
        return Ok(());
    }
    let pairs = found.indexed_iter().zip(&expected);
    let different = |((_, found), expected): &((IxDyn, &A), &A)| found.integer_decode() != expected.integer_decode();
    match pairs.into_iter().find(different) {
        Some(((at, found), expected)) => {
            broken(format!("{} is {found:?} at {:?}, not {expected:?} ({why})", Name(path), at.slice()))
        }
        None => Ok(()),
    }
}

/// Returns an error unless two states have the same entries, bit for bit.
pub(super) fn same_state(found: &StateDict, expected: &StateDict, why: &str) -> Held {
    if let Some(key) = expected.keys().find(|key| found.keys().all(|other| other != *key)) {
        return broken(format!("the state has no entry {key:?} ({why})"));
    }
    for key in found.keys() {
        if expected.keys().all(|other| other != key) {
            return broken(format!("the state has the entry {key:?} ({why} has none)"));
        }
        ensure(found.text(key) == expected.text(key), || {
            let text = |state: &StateDict| state.text(key).unwrap_or_default().to_owned();
            format!("the state entry {key:?} is {}, not {} ({why})", text(found), text(expected))
        })?;
        ensure(found.tensors.get(key) == expected.tensors.get(key), || {
            format!("the state entry {key:?} has other numbers ({why})")
        })?;
    }
    ensure(found.layout() == expected.layout(), || format!("the state has another layout ({why})"))
}

/// The entries of a state that belong to the tensor at this path.
pub(super) fn state_of(state: &StateDict, path: &str) -> StateDict {
    let mut own = state.clone();
    own.layout = None;
    let others: Vec<_> = state.keys().filter(|key| key.rsplit('/').next() != Some(path)).map(str::to_owned).collect();
    others.iter().for_each(|key| _ = own.remove(key));
    own
}

/// A tree, and everything that an optimizer has to show.
pub(super) struct End<A> {
    params: Tree<A>,
    state: StateDict,
    counters: (u64, f64),
}

impl<A: Element> End<A> {
    pub(super) fn of(opt: &(impl Optimizer<A> + ?Sized), params: &Tree<A>) -> Self {
        let counters = (opt.steps(), opt.learning_rate());
        Self { params: params.clone(), state: opt.state_dict(), counters }
    }

    /// Returns an error unless both are the same, bit for bit.
    pub(super) fn same(&self, expected: &Self, why: &str) -> Held {
        self.params.same(&expected.params, why)?;
        same_state(&self.state, &expected.state, why)?;
        let ((found, _), (steps, _)) = (self.counters, expected.counters);
        ensure(found == steps, || format!("`steps` is {found}, not {steps} ({why})"))?;
        let ((_, found), (_, rate)) = (self.counters, expected.counters);
        ensure(found.to_bits() == rate.to_bits(), || format!("`learning_rate` is {found:?}, not {rate:?} ({why})"))
    }

    /// Returns an error unless the tensor at `path` and its state are the same.
    pub(super) fn same_tensor(&self, expected: &Self, path: &str, why: &str) -> Held {
        self.params.only(path).same(&expected.params, why)?;
        same_state(&state_of(&self.state, path), &state_of(&expected.state, path), why)
    }
}

/// A tree of one tensor, "w".
pub(super) fn single<A: Element>(tensor: ArrayD<A>) -> Tree<A> {
    Tree(vec![("w", Some(tensor))])
}
