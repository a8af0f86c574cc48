//! Masked values and their sum.

use std::collections::BTreeSet;

use super::fixed_point::FixedPoint;
use crate::error::{ArgumentError, Error, FederatedError, Result, StepError};
use crate::params::{Element, ParamsMut, for_each_mut};
use crate::step::norm::unravel;

/// The message of one client in one round. It looks random until the messages of all other clients are added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Masked {
    client: usize,
    round: u64,
    words: Vec<u32>,
}

impl Masked {
    /// Creates a message from its parts, as received over a network.
    pub fn new(client: usize, round: u64, words: Vec<u32>) -> Self {
        Self { client, round, words }
    }

    /// The client's number.
    pub fn client(&self) -> usize {
        self.client
    }

    /// The round of its masks.
    pub fn round(&self) -> u64 {
        self.round
    }

    /// The masked integers.
    pub fn words(&self) -> &[u32] {
        &self.words
    }
}

/// The server's sum of all clients' messages in one round.
#[derive(Debug, Clone, PartialEq)]
pub struct MaskedSum {
    fixed: FixedPoint,
    round: u64,
    /// Those of the members who are not in it yet.
    missing: BTreeSet<usize>,
    clients: BTreeSet<usize>,
    words: Vec<u32>,
}

impl MaskedSum {
    /// Creates an empty sum for a round, with its members and the number of elements per message.
    ///
    /// # Errors
    /// [`ArgumentError::Range`] if the number of members is not the number of clients of `fixed`.
    pub fn new(
        fixed: FixedPoint,
        round: u64,
        members: impl IntoIterator<Item = usize>,
        elements: usize,
    ) -> Result<Self> {
        let missing: BTreeSet<_> = members.into_iter().collect();
        if missing.len() != fixed.clients() {
            let accepted = format!("the number of clients, {}", fixed.clients());
            return Err(Error::argument("number of members", missing.len() as f64, accepted));
        }
        Ok(Self { fixed, round, missing, clients: BTreeSet::new(), words: vec![0; elements] })
    }

    /// Adds a client's message. After an error, the client may send another message.
    ///
    /// # Errors
    /// [`ArgumentError::Range`] if the message is of another round or has another number of elements, or if the client is not a member or is
    /// already in the sum.
    pub fn add(&mut self, masked: &Masked) -> Result<()> {
        let Masked { client, round, words } = masked;
        if *round != self.round {
            let accepted = format!("{}, that of the sum, for client {client}", self.round);
            return Err(Error::argument("round", *round as f64, accepted));
        }
        if self.clients.contains(client) {
            return Err(Error::argument("client", *client as f64, "one that is not in the sum yet"));
        }
        if !self.missing.contains(client) {
            return Err(Error::argument("client", *client as f64, "a member of the sum"));
        }
        if words.len() != self.words.len() {
            let accepted = format!("{}, for client {client} as for all", self.words.len());
            return Err(Error::argument("number of elements", words.len() as f64, accepted));
        }
        self.missing.remove(client);
        self.clients.insert(*client);
        self.words.iter_mut().zip(words).for_each(|(sum, word)| *sum = sum.wrapping_add(*word));
        Ok(())
    }

    /// The clients whose messages are missing.
    pub fn missing(&self) -> impl ExactSizeIterator<Item = usize> + '_ {
        self.missing.iter().copied()
    }

    /// The clients in the sum.
    pub fn clients(&self) -> impl ExactSizeIterator<Item = usize> + '_ {
        self.clients.iter().copied()
    }

    /// The sum as integers: the sum of [`FixedPoint::encode`] over all clients.
    ///
    /// # Errors
    /// [`FederatedError::MaskedSum`] if a client is missing.
    pub fn integers(&self) -> Result<Vec<i32>> {
        self.complete()?;
        Ok(self.words.iter().map(|word| word.cast_signed()).collect())
    }

    /// Writes the sum into a tree of the clients' shapes.
    ///
    /// # Errors
    /// [`FederatedError::MaskedSum`] if a client is missing; [`ArgumentError::Shape`] if the tree has another number of elements;
    /// [`StepError::NonFiniteParameter`] if a sum overflows the tree's element type, as above 65,504 in f16.
    pub fn unmask<T: ParamsMut + ?Sized>(&self, tree: &mut T) -> Result<()> {
        self.complete()?;
        let mut tensors = Vec::new();
        for_each_mut(tree, |path, shape, values| {
            tensors.extend(values.map(|values| (path.to_string(), shape.to_vec(), values)));
        });
        let elements = tensors.iter().map(|(_, shape, _)| shape.iter().product::<usize>()).sum();
        if elements != self.words.len() {
            let (expected, found) = (vec![self.words.len()], vec![elements]);
            return Err(Error::Argument(ArgumentError::Shape { argument: "tree", expected, found }));
        }
        let decoded = self.words.iter().map(|word| T::Elem::from_f64(self.fixed.decode(word.cast_signed())));
        let (decoded, mut begin) = (decoded.collect::<Vec<_>>(), 0);
        for (path, shape, _) in &tensors {
            let part = &decoded[begin..begin + shape.iter().product::<usize>()];
            begin += part.len();
            if let Some(at) = part.iter().position(|value| !value.as_f64().is_finite()) {
                let (path, index) = (path.clone(), unravel(at, shape));
                return Err(Error::Step(StepError::NonFiniteParameter { path, index, value: part[at].as_f64() }));
            }
        }
        let mut decoded = decoded.into_iter();
        for (_, shape, mut values) in tensors {
            values.view_mut(&shape).iter_mut().zip(&mut decoded).for_each(|(to, value)| *to = value);
        }
        Ok(())
    }

    /// Returns an error unless the masks have cancelled.
    fn complete(&self) -> Result<()> {
        match self.missing.is_empty() {
            true => Ok(()),
            false => Err(Error::Federated(FederatedError::MaskedSum {
                clients: self.fixed.clients(),
                found: self.clients.len(),
            })),
        }
    }
}
