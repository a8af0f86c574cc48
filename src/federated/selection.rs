//! The choice of clients for a round.

use std::fmt;

use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha20Rng;

use super::privacy::noise::system_key;
use crate::error::{ArgumentError, Error, Result};

/// Chooses the clients of a round.
pub trait Selection: Send {
    /// Chooses clients from 0 … `clients` − 1. `draw` is the number of the choice; another number gives another choice.
    ///
    /// # Errors
    /// [`StepError::HyperParameter`](crate::error::StepError::HyperParameter) if the settings are invalid, [`FederatedError::Entropy`](crate::error::FederatedError::Entropy) if the operating system has no randomness. Nothing has
    /// been drawn then.
    fn select(&mut self, clients: usize, draw: u64) -> Result<Vec<usize>>;
}

/// Every client, in every round.
#[derive(Debug, Clone, Copy, Default)]
pub struct All;

impl Selection for All {
    fn select(&mut self, clients: usize, _: u64) -> Result<Vec<usize>> {
        Ok((0..clients).collect())
    }
}

/// A random sample of the clients.
///
/// Random numbers come from ChaCha20 with a key from the operating system, unless a seed or a generator is given. With a
/// [`seed`](Sample::seed) the choice is a function of seed and round, so a resumed server makes the same choices as an uninterrupted one.
///
/// ```
/// use gradus::federated::{Sample, Selection};
///
/// let mut sample = Sample::count(3).seed(7);
/// let chosen = sample.select(10, 0)?;
/// assert!(chosen.len() == 3 && chosen.is_sorted() && chosen[2] < 10);
/// assert_eq!(sample.select(10, 0)?, chosen);
/// # Ok::<(), gradus::Error>(())
/// ```
pub struct Sample {
    how: How,
    chance: Chance,
}

#[derive(Debug, Clone, Copy)]
enum How {
    Count(usize),
    Poisson(f64),
}

enum Chance {
    System,
    Seed(u64),
    Generator(Box<dyn Rng + Send>),
}

impl Sample {
    /// Chooses this many clients; every set of this size is equally likely.
    pub fn count(count: usize) -> Self {
        Self { how: How::Count(count), chance: Chance::System }
    }

    /// Chooses each client independently with this probability, as the accounting of privacy requires. The choice can be empty.
    pub fn poisson(probability: f64) -> Self {
        Self { how: How::Poisson(probability), chance: Chance::System }
    }

    /// Makes the choices reproducible with this seed.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.chance = Chance::Seed(seed);
        self
    }

    /// Draws from a generator. The generator's state is not saved with the server.
    #[must_use]
    pub fn generator(mut self, generator: impl Rng + Send + 'static) -> Self {
        self.chance = Chance::Generator(Box::new(generator));
        self
    }
}

impl fmt::Debug for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sample({:?})", self.how)
    }
}

impl How {
    fn check(self, clients: usize) -> Result<()> {
        let (argument, value, accepted) = match self {
            Self::Count(count) if count == 0 || count > clients => {
                ("count", count as f64, format!("from 1 to the number of clients, {clients}"))
            }
            Self::Poisson(probability) if !(probability > 0.0 && probability <= 1.0) => {
                ("probability", probability, "a number in 0 < probability ≤ 1".into())
            }
            _ => return Ok(()),
        };
        Err(Error::Argument(ArgumentError::Range { argument, value, accepted }))
    }

    fn draw(self, clients: usize, generator: &mut (dyn Rng + Send)) -> Vec<usize> {
        let mut all: Vec<_> = (0..clients).collect();
        match self {
            Self::Poisson(probability) => all.retain(|_| generator.random_bool(probability)),
            Self::Count(count) => {
                for place in 0..count {
                    let other = generator.random_range(place..clients);
                    all.swap(place, other);
                }
                all.truncate(count);
                all.sort_unstable();
            }
        }
        all
    }
}

impl Selection for Sample {
    fn select(&mut self, clients: usize, draw: u64) -> Result<Vec<usize>> {
        self.how.check(clients)?;
        Ok(match &mut self.chance {
            Chance::Generator(generator) => self.how.draw(clients, &mut **generator),
            Chance::Seed(seed) => {
                let mut generator = ChaCha20Rng::seed_from_u64(*seed);
                generator.set_stream(draw);
                self.how.draw(clients, &mut generator)
            }
            Chance::System => self.how.draw(clients, &mut ChaCha20Rng::from_seed(system_key()?)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Four standard deviations of a mean of 4,000 draws of probability 0.3.
    const TOLERANCE: f64 = 4.0 * 0.0073;

    #[test]
    fn every_client_is_as_likely() {
        const ROUNDS: u64 = 4000;
        for (mut sample, often) in [(Sample::count(3).seed(1), 0.3), (Sample::poisson(0.3).seed(1), 0.3)] {
            let mut counts = [0.0; 10];
            for draw in 0..ROUNDS {
                sample.select(10, draw).unwrap().into_iter().for_each(|client| counts[client] += 1.0);
            }
            assert!(counts.iter().all(|count| (count / ROUNDS as f64 - often).abs() < TOLERANCE), "{counts:?}");
        }
    }

    #[test]
    fn a_choice_is_that_of_the_seed_or_new() {
        let draws = |sample: &mut Sample| (0..20).map(|draw| sample.select(9, draw).unwrap()).collect::<Vec<_>>();
        let seeded = draws(&mut Sample::count(4).seed(3));
        assert_eq!(seeded, draws(&mut Sample::count(4).seed(3)));
        assert_ne!(seeded, draws(&mut Sample::count(4).seed(4)));
        assert_ne!(draws(&mut Sample::count(4)), draws(&mut Sample::count(4)));
        let generator = || Sample::count(4).generator(ChaCha20Rng::seed_from_u64(5));
        assert_eq!(draws(&mut generator()), draws(&mut generator()));
        assert!(seeded.iter().all(|chosen| chosen.len() == 4 && chosen.windows(2).all(|pair| pair[0] < pair[1])));
    }

    #[test]
    fn what_cannot_be_chosen_is_refused() {
        for (mut sample, sentence) in [
            (Sample::count(0), "count is 0; it must be from 1 to the number of clients, 3"),
            (Sample::count(4), "count is 4; it must be from 1 to the number of clients, 3"),
            (Sample::poisson(0.0), "probability is 0; it must be a number in 0 < probability ≤ 1"),
            (Sample::poisson(f64::NAN), "probability is NaN; it must be a number in 0 < probability ≤ 1"),
        ] {
            assert_eq!(sample.select(3, 0).unwrap_err().to_string(), sentence);
        }
        assert_eq!(Sample::poisson(1.0).select(3, 0).unwrap(), [0, 1, 2]);
    }
}
