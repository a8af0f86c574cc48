//! What a server remembers, saved and compared.

use std::sync::Arc;

use super::aggregation::Aggregation;
use super::server::Server;
use super::tensors::Tensors;
use crate::error::Result;
use crate::params::{Element, Layout};
use crate::state::data::Data;
use crate::state::digest::Digest;
use crate::state::{Commit, StateDict, StateReader, StateWriter, load};
use crate::step::Optimizer;

impl<A: Element, O: Optimizer<A>, G: Aggregation> Server<O, A, G> {
    /// Returns a copy of the server's state.
    pub fn state_dict(&self) -> StateDict {
        let layout = self.optimizer.layout().or(self.control.as_ref().map(|control| control.layout()));
        let mut state = StateDict::new(layout.cloned());
        let mut writer = StateWriter::new(&mut state);
        self.write_own(&mut writer);
        self.optimizer.write_state(&mut writer);
        state
    }

    /// Everything but what the optimizer remembers.
    fn write_own(&self, writer: &mut StateWriter<'_>) {
        let mut node = writer.node("server");
        node.value("round", self.round);
        node.value("clients", self.accepted.len());
        if let Some(control) = &self.control {
            node.insert("accepted", "", &[self.accepted.len()], Data::U64(self.accepted.clone()));
            control.write(&mut node, "control");
        }
        self.aggregation.write_state(writer);
    }

    /// Restores a saved state. Training then continues bit for bit as if uninterrupted. On an error nothing changes.
    ///
    /// Build the server in the same way as before. A [`Sample`](super::Sample) with a seed continues its choices. Other random numbers, such
    /// as the choices and the noise of a [private](Server::private) server, are new. The accountant of a private server never decreases; see
    /// [`private`](Server::private).
    ///
    /// # Errors
    /// Those of [`Optimizer::load_state_dict`].
    pub fn load_state_dict(&mut self, state: &StateDict) -> Result<()> {
        load(state, state.layout(), self.optimizer.layout().cloned(), |reader| self.read_state(reader))
    }

    fn read_state<'s>(&'s mut self, state: &mut StateReader<'_>) -> Result<Commit<'s>> {
        let node = state.node("server")?;
        let read_round: u64 = node.value("round", "a count")?;
        let controlled = self.scaffold && read_round > 0;
        let clients: usize = node.value("clients", "a count")?;
        // As many as there are, whatever the count says.
        let accepted = node.numbers::<u64>("accepted", "", &[clients], "u64")?;
        if accepted.is_none() && (controlled || clients > 0) {
            return Err(node.absent("accepted", ""));
        }
        let (read_accepted, read_control) = match controlled {
            true => (accepted.unwrap_or_default(), Tensors::read(&node, "control")?.map(Arc::new)),
            false => (Vec::new(), None),
        };
        let Self { optimizer, aggregation, round, attempts, accepted, control, .. } = self;
        let own = Commit::new(move || {
            (*round, *attempts, *accepted, *control) = (read_round, 0, read_accepted, read_control);
        });
        let aggregation = aggregation.read_state(state)?;
        Ok(optimizer.read_state(state)?.and(aggregation).and(own))
    }

    /// A number for what must be the same on all ranks: the model, what the server remembers, and how it is set.
    ///
    /// Not what the optimizer remembers: one that is sharded has another part on every rank.
    pub(super) fn digest(&self, layout: Option<&Layout>, clients: usize) -> u64 {
        let mut digest = Digest::new();
        let (aggregation, optimizer) = (&self.aggregation, &self.optimizer);
        digest.text(A::DTYPE);
        for flag in [self.scaffold, aggregation.moves_without_answers(), aggregation.allows_controls()] {
            digest.number(u64::from(flag));
        }
        for number in [clients as u64, self.attempts, optimizer.steps(), optimizer.learning_rate().to_bits()] {
            digest.number(number);
        }
        let settings = aggregation.settings();
        digest.number(settings.len() as u64);
        let numbers = [aggregation.divisor(1.0), aggregation.divisor(2.0)].into_iter().chain(settings);
        numbers.for_each(|number| digest.number(number.to_bits()));
        for info in layout.iter().flat_map(|layout| layout.tensors()) {
            digest.text(info.path());
            shape(&mut digest, info.shape());
        }
        self.sums.start.iter().for_each(|value| digest.number(value.to_bits()));
        let mut state = StateDict::default();
        self.write_own(&mut StateWriter::new(&mut state));
        for (key, text) in &state.texts {
            digest.text(key);
            digest.text(text);
        }
        for (key, tensor) in &state.tensors {
            digest.text(key);
            digest.text(tensor.data.dtype());
            shape(&mut digest, &tensor.shape);
            match &tensor.data {
                Data::F32(values) => values.iter().for_each(|value| digest.number(value.to_bits().into())),
                Data::F64(values) => values.iter().for_each(|value| digest.number(value.to_bits())),
                Data::Bf16(values) | Data::F16(values) => values.iter().for_each(|bits| digest.number((*bits).into())),
                Data::U8(values) => digest.bytes(values),
                Data::U64(values) => values.iter().for_each(|value| digest.number(*value)),
            }
        }
        digest.finish()
    }
}

fn shape(digest: &mut Digest, shape: &[usize]) {
    digest.number(shape.len() as u64);
    shape.iter().for_each(|length| digest.number(*length as u64));
}
