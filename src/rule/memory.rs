//! What an element-wise optimizer remembers of one tensor.

use std::borrow::Cow;

use super::MAX_NUMBERS;
use super::names::Names;
use super::precision::StatePrecision;
use super::stored::Stored;
use crate::error::Result;
use crate::kernel::aligned::before_line;
use crate::params::{Order, Scalar, TensorInfo, ValuesMut};
use crate::state::{StateReader, StateWriter};

/// The state of one tensor.
#[derive(Clone)]
pub(super) struct State<A> {
    pub(super) steps: u64,
    pub(super) order: Order,
    /// The slots' names: a setter may give the rule other slots later.
    pub(super) names: &'static [&'static str],
    pub(super) slots: Stored<A>,
    pub(super) numbers: [f64; MAX_NUMBERS],
    /// The norm that the tensor keeps.
    pub(super) norm: Option<f64>,
}

impl<A> Default for State<A> {
    fn default() -> Self {
        Self {
            steps: 0,
            order: Order::C,
            names: &[],
            slots: Default::default(),
            numbers: [0.0; MAX_NUMBERS],
            norm: None,
        }
    }
}

impl<A: Scalar> State<A> {
    /// The state with the slots of these names: a setter may have changed them since the last step.
    pub(super) fn with(&self, names: Names, elements: usize) -> Cow<'_, Self> {
        if names.are(self.names) {
            return Cow::Borrowed(self);
        }
        let mut state = self.clone();
        state.slots.rename(self.names, names, elements, 0);
        Cow::Owned(state)
    }

    /// Makes the slots if this is the tensor's first gradient, and those that the rule has had no need of before.
    pub(super) fn prepare(
        &mut self,
        names: Names,
        precision: StatePrecision,
        param: &ValuesMut<'_, A>,
        info: &TensorInfo,
    ) {
        let line = match param {
            ValuesMut::Contiguous(param, _) => before_line(param),
            ValuesMut::Strided(_) => 0,
        };
        if self.steps == 0 {
            self.order = match param {
                ValuesMut::Contiguous(_, order) => *order,
                ValuesMut::Strided(_) => param.as_values().order(),
            };
            self.slots = Stored::zeros(names, info.elements(), line, precision.of(info.whole_elements()));
            self.names = names.all;
        } else if !names.are(self.names) {
            self.slots.rename(self.names, names, info.elements(), line);
            self.names = names.all;
        }
        self.steps += 1;
    }

    /// Writes it, with the slots that the rule has now, and its numbers.
    pub(super) fn write(&self, names: Names, numbers: &[&str], info: &TensorInfo, node: &mut StateWriter<'_>) {
        node.count("step", info, self.steps);
        numbers.iter().zip(self.numbers).for_each(|(name, number)| node.number(name, info, number));
        node.order(info, self.order);
        node.norm(info, self.norm);
        self.with(names, info.elements()).slots.write(node, info, names.all, self.order);
    }

    /// Reads what [`write`](Self::write) wrote, if there is something.
    pub(super) fn read(
        names: Names,
        number_names: &[&str],
        info: &TensorInfo,
        (precision, keeps_norm): (StatePrecision, bool),
        node: &StateReader<'_>,
    ) -> Result<Option<Self>> {
        let Some(steps) = node.count("step", info)? else { return Ok(None) };
        let order = node.order(info)?;
        let slots = Stored::read(node, info, names, order, precision)?;
        let mut numbers = [0.0; MAX_NUMBERS];
        for (name, number) in number_names.iter().zip(&mut numbers) {
            *number = node.number(name, info)?;
        }
        let norm = if keeps_norm { node.norm(info)? } else { None };
        Ok(Some(Self { steps, order, names: names.all, slots, numbers, norm }))
    }
}
