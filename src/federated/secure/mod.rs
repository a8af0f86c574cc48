//! Secure sums: the server learns the sum of all clients' values, but no client's own values.
//!
//! Each client sends its values as integers, plus a mask shared with each other client. One client's message alone is random. In the sum of
//! **all** clients the masks cancel exactly.
//!
//! ```
//! use gradus::federated::secure::{FixedPoint, MaskedSum, Masker};
//! use ndarray::array;
//!
//! let fixed = FixedPoint::new(16, 3)?; // 16 bits after the point, 3 clients
//! let mut clients = Masker::simulation(fixed)?; // real clients each call Masker::new
//! let mut sum = MaskedSum::new(fixed, 0, 0..3, 2)?; // round 0, clients 0, 1 and 2, two numbers each
//! for (client, change) in clients.iter_mut().zip([array![0.5, -1.0], array![0.25, 2.0], array![1.0, 3.5]]) {
//!     sum.add(&client.mask(0, &change)?)?;
//! }
//! let mut total = array![0.0, 0.0];
//! sum.unmask(&mut total)?;
//! assert_eq!(total, array![1.75, 4.5]);
//! # Ok::<(), gradus::Error>(())
//! ```
//!
//! # A round
//! A [`Server`](super::Server) validates every answer, which is not possible for masked answers. So write the round yourself: each client
//! sends its weighted change and its weight, and the server steps its optimizer with the negative mean as the gradient. With
//! `Sgd::new(1.0)` this is FedAvg, with [`FedAdam`](super::FedAdam) it is FedAdam.
//!
//! ```
//! use gradus::federated::secure::{FixedPoint, MaskedSum, Masker};
//! use gradus::prelude::*;
//! use ndarray::{Array1, array};
//!
//! let fixed = FixedPoint::new(16, 3)?;
//! let mut clients = Masker::simulation(fixed)?;
//! let (mut model, mut opt) = (array![1.0, 1.0], Sgd::new(1.0));
//! for round in 0..2 {
//!     let mut sum = MaskedSum::new(fixed, round, 0..3, model.len() + 1)?;
//!     for (client, (shift, weight)) in clients.iter_mut().zip([(1.0, 1.0), (2.0, 1.0), (0.5, 2.0)]) {
//!         let trained = &model + shift; // the client's own training
//!         let change = (&trained - &model) * weight;
//!         sum.add(&client.mask(round, &(change, array![weight]))?)?;
//!     }
//!     let mut total = (Array1::zeros(2), array![0.0]);
//!     sum.unmask(&mut total)?;
//!     let grads = total.0 / -total.1[0];
//!     opt.step(&mut model, &grads)?;
//! }
//! assert_eq!(model, array![3.0, 3.0]); // twice by (1 + 2 + 2·0.5)/4
//! # Ok::<(), gradus::Error>(())
//! ```
//!
//! # Limits
//! - **No recovery from drop-outs.** If one client does not send, its masks stay in the sum, which is then random. Repeat the round with a
//!   new number, among the remaining clients and with new secrets.
//! - **The server must be honest but may be curious.** It must follow the protocol; it may read every message. A server that lies about who
//!   takes part, or that cooperates with all clients but one, learns that client's values. Clients must know their number from another
//!   source.
//! - **No key exchange.** You provide the secret of each pair of clients. Agree on it (for example by X25519) over channels that the server
//!   cannot read or change, and use new secrets for each training.
//! - **No validation.** A client can send wrong values. Each value is limited to [`FixedPoint::largest`], and not checked otherwise.
//! - **The sum is not private.** The server sees it. See [`privacy`](super::privacy).
//! - **Secrets are not erased** from memory.
//!
//! # References
//! K. Bonawitz et al., *Practical secure aggregation for privacy-preserving machine learning* (2017), sec. 4.0.1: the masking. The rest of
//! their protocol, for drop-outs and malicious servers, is not implemented.

mod fixed_point;
mod sum;

use std::collections::BTreeMap;
use std::fmt;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;

use super::privacy::noise::system_key;
use crate::error::{Error, FederatedError, Result};
use crate::params::{Element, Params, for_each};

pub use fixed_point::FixedPoint;
pub use sum::{Masked, MaskedSum};

/// The secret of two clients.
pub type PairSecret = [u8; 32];

/// One client, with the secrets that it shares with each of the others.
///
/// # Update rule
/// ```text
/// yᵢ = xᵢ + Σ over j > i PRG(sᵢⱼ, round) − Σ over j < i PRG(sᵢⱼ, round)        in Z_2³²
/// ```
/// PRG is ChaCha20 with the secret as the key and the round as the stream, so no mask is used twice.
pub struct Masker {
    client: usize,
    secrets: BTreeMap<usize, PairSecret>,
    fixed: FixedPoint,
    last_round: Option<u64>,
}

impl Masker {
    /// Creates a client from its number and its secrets with the other clients, by their numbers.
    ///
    /// # Errors
    /// [`ArgumentError::Range`](crate::error::ArgumentError::Range) unless there is exactly one secret for each other client of `fixed`, or if there is only one client.
    pub fn new(client: usize, secrets: BTreeMap<usize, PairSecret>, fixed: FixedPoint) -> Result<Self> {
        if secrets.contains_key(&client) {
            return Err(Error::argument("client", client as f64, "a client without a secret with itself"));
        }
        if secrets.len() + 1 != fixed.clients() || secrets.is_empty() {
            let accepted = format!("one for each of the {} other clients, and at least one", fixed.clients() - 1);
            return Err(Error::argument("number of secrets", secrets.len() as f64, accepted));
        }
        Ok(Self { client, secrets, fixed, last_round: None })
    }

    /// Creates all clients of a simulation, with secrets from the operating system.
    ///
    /// # Errors
    /// [`FederatedError::Entropy`]; [`ArgumentError::Range`](crate::error::ArgumentError::Range) for a single client.
    pub fn simulation(fixed: FixedPoint) -> Result<Vec<Self>> {
        let mut secrets = vec![BTreeMap::new(); fixed.clients()];
        for one in 0..fixed.clients() {
            for other in one + 1..fixed.clients() {
                let secret = system_key()?;
                for (own, peer) in [(one, other), (other, one)] {
                    secrets.get_mut(own).map(|secrets| secrets.insert(peer, secret));
                }
            }
        }
        secrets.into_iter().enumerate().map(|(client, secrets)| Self::new(client, secrets, fixed)).collect()
    }

    /// Continues after this round, if a client was restarted with the same secrets.
    #[must_use]
    pub fn after(mut self, round: u64) -> Self {
        self.last_round = self.last_round.max(Some(round));
        self
    }

    /// This client's number.
    pub fn client(&self) -> usize {
        self.client
    }

    /// The last round whose masks were used.
    pub fn last_round(&self) -> Option<u64> {
        self.last_round
    }

    /// The numbers of all clients in a sum, this one included.
    pub fn members(&self) -> impl Iterator<Item = usize> + '_ {
        self.secrets.keys().copied().chain([self.client])
    }

    /// Converts a tree to masked integers, tensor by tensor, row by row. All clients must have trees of the same shapes.
    ///
    /// # Errors
    /// [`FederatedError::FixedPointRange`] if a value is NaN or beyond [`FixedPoint::largest`]; [`ArgumentError::Range`](crate::error::ArgumentError::Range) if the round is not after the last
    /// one, because using a mask twice would reveal the difference of the values.
    pub fn mask<T: Params + ?Sized>(&mut self, round: u64, tree: &T) -> Result<Masked> {
        if let Some(last) = self.last_round.filter(|last| round <= *last) {
            return Err(Error::argument("round", round as f64, format!("above {last}: masks are used once")));
        }
        let mut words = self.encode(tree)?;
        for (peer, secret) in &self.secrets {
            let mut masks = ChaCha20Rng::from_seed(*secret);
            masks.set_stream(round);
            match *peer > self.client {
                true => words.iter_mut().for_each(|word| *word = word.wrapping_add(masks.next_u32())),
                false => words.iter_mut().for_each(|word| *word = word.wrapping_sub(masks.next_u32())),
            }
        }
        self.last_round = Some(round);
        Ok(Masked::new(self.client, round, words))
    }

    fn encode<T: Params + ?Sized>(&self, tree: &T) -> Result<Vec<u32>> {
        let (mut words, mut out_of_range) = (Vec::new(), None);
        for_each(tree, |path, shape, values| {
            let Some(values) = values.filter(|_| out_of_range.is_none()) else { return };
            let view = values.view(shape);
            words.reserve(view.len());
            for (index, value) in view.iter().enumerate() {
                match self.fixed.encode(value.as_f64()) {
                    Some(integer) => words.push(integer.cast_unsigned()),
                    None => {
                        out_of_range = Some((path.to_string(), index, value.as_f64()));
                        return;
                    }
                }
            }
        });
        match out_of_range {
            Some((path, index, value)) => Err(Error::Federated(FederatedError::FixedPointRange {
                path,
                index,
                value,
                largest: self.fixed.largest(),
            })),
            None => Ok(words),
        }
    }
}

impl fmt::Debug for Masker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let peers: Vec<_> = self.secrets.keys().collect(); // the secrets are none of anyone's business
        f.debug_struct("Masker").field("client", &self.client).field("peers", &peers).finish_non_exhaustive()
    }
}
