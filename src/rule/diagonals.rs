//! Diagonals of the Hessian, until a step averages them.

use std::sync::Arc;

use pulp::Arch;

use super::Rule;
use super::lanes::{Goal, Lanes, Prelude};
use super::memory::State;
use super::stored::StoredMut;
use crate::error::Result;
use crate::kernel::narrow::seed;
use crate::params::{Layout, Order, Owned, Scalar, TensorInfo};
use crate::state::{StateReader, StateWriter};
use crate::step::Step;
use crate::step::grad::{WIDE_BLOCK, read};

/// Diagonals of the Hessian for the next step, by tensor.
#[derive(Debug, Clone)]
pub(super) struct Diagonals<A>(Vec<Option<Owned<A>>>);

impl<A> Default for Diagonals<A> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<A: Scalar> Diagonals<A> {
    /// Copies the gradients of a step of all tensors, which are diagonals, in the place of those that wait.
    pub(super) fn keep(&mut self, step: &Step<'_, A>) {
        let copies = step.iter().map(|(info, tensor)| {
            let mut own = Owned::zeros(info.elements(), Order::C, 0);
            tensor.grad.as_ref()?.read(info.shape(), Order::C, 0, own.as_mut_slice());
            Some(own)
        });
        self.0 = copies.collect();
    }

    /// Whether no diagonal waits.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Frees the memory once none waits.
    pub(super) fn settle(&mut self) {
        if self.0.iter().all(Option::is_none) {
            self.0.clear();
        }
    }

    /// Gives the slots of a tensor its diagonal, if one waits. Apart from the loop, which it must not slow.
    #[cold]
    pub(super) fn absorb<R: Rule<A>>(
        &mut self,
        (rule, values): (&R, &R::Values),
        arch: Arch,
        (info, index): (&TensorInfo, usize),
        state: &mut State<A>,
    ) {
        let Some(diagonal) = self.0.get_mut(index).and_then(Option::take) else { return };
        let (mut own, mut param) = (vec![A::zero(); WIDE_BLOCK.min(info.elements())], Vec::new());
        param.clone_from(&own);
        let (order, seed) = (state.order, !seed(index, state.steps));
        let mut slots = state.slots.as_mut();
        let (prelude, goal, slot_count) = (Prelude::none(), Goal::Move { step_size: A::zero() }, rule.slots().len());
        for start in (0..info.elements()).step_by(WIDE_BLOCK) {
            let length = WIDE_BLOCK.min(info.elements() - start);
            let (grad, param) = (&mut own[..length], &mut param[..length]);
            read(&diagonal.as_values(), info.shape(), order, start, grad);
            let slots: StoredMut<'_, A> = slots.range(start, length);
            let seed = seed.wrapping_add((info.start() + start) as u32);
            let (streams, measuring) = (false, None);
            let lanes = Lanes { arch, prelude, grad, slot_count, goal, param, slots, seed, streams, measuring };
            rule.absorb(values, lanes);
        }
    }

    pub(super) fn write_state(&self, node: &mut StateWriter<'_>, layout: Option<&Arc<Layout>>) {
        if self.is_empty() {
            return;
        }
        let mut node = node.node("diagonals");
        let tensors = layout.iter().flat_map(|layout| layout.tensors()).zip(&self.0);
        for (info, diagonal) in tensors {
            if let Some(diagonal) = diagonal.as_ref().filter(|diagonal| !diagonal.is_empty()) {
                diagonal.write(&mut node, "diagonal", info);
            }
        }
    }

    pub(super) fn read_state(node: &mut StateReader<'_>) -> Result<Self> {
        let node = node.branch("diagonals");
        let read = |info: &TensorInfo| Owned::read(&node, "diagonal", info);
        let mut read = Self(node.tensors().iter().map(read).collect::<Result<_>>()?);
        read.settle();
        Ok(read)
    }
}
