//! Rounds that keep secret which clients took part.

use std::ops::Deref;

use ndarray::ArrayViewMut1;

use super::GaussianMechanism;
use crate::error::{Error, Result};
use crate::federated::{Aggregation, Sample, Selection, Server};
use crate::params::Element;
use crate::state::{Commit, StateReader, StateWriter};
use crate::step::Optimizer;

impl<A: Element, O: Optimizer<A>> Server<O, A> {
    /// Keeps secret which clients took part: DP-FedAvg, in which a client's whole change is one part of the sum.
    ///
    /// # Update rule
    /// ```text
    /// S  each of the N clients with probability q, independently
    /// Δ = (Σ over S of min(1, C/‖yᵢ − θ‖)·(yᵢ − θ) + z)/(q·N)        z ~ N(0, (σC)²) for every element
    /// θ ← the optimizer's step with ∇J(θ) = −Δ
    /// ```
    /// All clients have the same weight; the weights in their answers are ignored. (An answer whose weight is not a positive number is still
    /// invalid.) A round without an answer moves the model by noise, because it must be secret that no client was chosen. The mechanism
    /// chooses the clients, with random numbers from the operating system, and replaces an earlier [`select`](Self::select). N, the number of
    /// rounds and the server's optimizer are public.
    ///
    /// # Accounting
    /// `server.aggregation().epsilon(δ)` returns the [`epsilon`](GaussianMechanism::epsilon) of all rounds. A round is counted as soon as its
    /// sum is computed. If it fails later, for example in the optimizer's step, model and optimizer are unchanged, but the round stays
    /// counted.
    ///
    /// The spending is part of the server's state and never decreases in [`load_state_dict`](Self::load_state_dict), because loading an older
    /// state does not undo what was revealed. A newly created server knows only the state that it loads. Load the latest state, or add later
    /// spending with [`resume`](GaussianMechanism::resume). Choices and noise after loading are new.
    ///
    /// # Limits
    /// The model after each round is private, and so is everything computed from it. The following is not private:
    /// - data of the server: the clients' answers; the reports, which name the chosen clients; on [`Ranks`](crate::federated::Ranks), the sums
    ///   of all ranks but the first, which are sent **without noise**. Every rank must be trusted like the server;
    /// - a client's effect on the answers of *other* clients. With a [`deadline`](crate::federated::Simulation::deadline), a slow client can
    ///   make another one late, which the accounting does not cover. Use no deadline, or give each client its own time;
    /// - the duration of a round.
    ///
    /// # Number of clients
    /// The noise hides one client's change, so it must be small relative to the mean of all changes. For a model of d parameters the norm of
    /// the noise is about σC√d/(q·N), and the norm of the mean change is at most C. The two are equal for q·N ≈ σ√d clients per round: 32 for
    /// 1,000 parameters and σ = 1, and 1,000 for a million parameters. With five clients only the smallest models learn anything. Each
    /// [report](crate::federated::RoundReport::noise) contains the ratio and a warning if it is above 1.
    /// [`noise_ratio`](GaussianMechanism::noise_ratio) returns it before the first round.
    ///
    /// # Errors
    /// A round returns [`ArgumentError::Range`](crate::error::ArgumentError::Range) if the number of clients is not N or if the counter is full, [`FederatedError::ControlNotPrivate`](crate::error::FederatedError::ControlNotPrivate), or
    /// [`FederatedError::Entropy`](crate::error::FederatedError::Entropy).
    ///
    /// # Example
    /// ```
    /// use gradus::federated::{Failure, Server, Simulation, Task, Update, privacy::GaussianMechanism};
    /// use gradus::prelude::*;
    /// use ndarray::{Array1, array};
    ///
    /// let client = |_| |task: &Task<Array1<f64>>| Ok::<_, Failure>(Update::new(task.model() + 5.0, 1.0));
    /// let mut clients = Simulation::new((0..100).map(client));
    /// let mut server = Server::new(Sgd::new(1.0)).private(GaussianMechanism::new(1.0, 0.5, 0.5, 100)?);
    /// let mut model = array![0.0];
    /// server.round(&mut model, &mut clients)?;
    /// assert!((model[0] - 1.0).abs() < 0.6); // about 50 changes of 1, over 50
    /// assert!(server.aggregation().epsilon(1e-5)?.epsilon > 1.0);
    /// # Ok::<(), gradus::Error>(())
    /// ```
    ///
    /// # References
    /// H. B. McMahan, D. Ramage, K. Talwar and L. Zhang, *Learning differentially private recurrent language models* (2018),
    /// [arXiv:1710.06963](https://arxiv.org/abs/1710.06963), algorithm 1.
    pub fn private(self, mechanism: GaussianMechanism) -> Server<O, A, Private> {
        let (sample, population) = (Sample::poisson(mechanism.rate()), mechanism.population());
        self.select(Members { sample, population }).aggregate_by(Private(mechanism))
    }
}

/// The aggregation of a [private](Server::private) server. The accounting is valid only if the mechanism itself chooses the clients.
///
/// Another choice does not compile, and neither does the mechanism as an aggregation of its own:
/// ```compile_fail,E0599
/// # use gradus::{federated::{Sample, Server, privacy::GaussianMechanism}, prelude::*};
/// # let mechanism = GaussianMechanism::new(1.0, 0.5, 0.5, 100).unwrap();
/// # let server: Server<Sgd<f64>, f64> = Server::new(Sgd::new(1.0));
/// server.private(mechanism).select(Sample::count(10));
/// ```
/// ```compile_fail,E0277
/// # use gradus::{federated::{Sample, Server, privacy::GaussianMechanism}, prelude::*};
/// # let mechanism = GaussianMechanism::new(1.0, 0.5, 0.5, 100).unwrap();
/// # let server: Server<Sgd<f64>, f64> = Server::new(Sgd::new(1.0));
/// server.aggregate_by(mechanism);
/// ```
#[derive(Debug)]
pub struct Private(GaussianMechanism);

impl Deref for Private {
    type Target = GaussianMechanism;

    fn deref(&self) -> &GaussianMechanism {
        &self.0
    }
}

/// Each of so many clients, independently.
struct Members {
    sample: Sample,
    population: usize,
}

impl Selection for Members {
    fn select(&mut self, clients: usize, draw: u64) -> Result<Vec<usize>> {
        match clients == self.population {
            true => self.sample.select(clients, draw),
            false => {
                let accepted = format!("the number of clients, {clients}");
                Err(Error::argument("population", self.population as f64, accepted))
            }
        }
    }
}

impl Aggregation for Private {
    fn settings(&self) -> Vec<f64> {
        vec![self.clip(), self.noise_multiplier(), self.rate(), self.population() as f64]
    }

    fn prepare(&mut self, change: &mut [f64], _: f64) -> f64 {
        // A change beyond all numbers is none.
        if self.clip_change(&mut ArrayViewMut1::from(&mut *change)).is_err() {
            change.fill(0.0);
        }
        1.0
    }

    fn complete(&mut self, sum: &mut [f64]) {
        sum.iter_mut().for_each(|sum| *sum += self.0.draw());
    }

    fn moves_without_answers(&self) -> bool {
        true
    }

    fn allows_controls(&self) -> bool {
        false
    }

    fn check(&self) -> Result<()> {
        self.0.ensure_countable()
    }

    fn noise(&self, elements: usize) -> Option<f64> {
        Some(self.noise_ratio(elements))
    }

    fn divisor(&self, _: f64) -> f64 {
        self.expected()
    }

    fn released(&mut self) {
        let recorded = self.0.record();
        debug_assert!(recorded.is_ok(), "rate and noise were checked when the mechanism was made");
    }

    fn write_state(&self, state: &mut StateWriter<'_>) {
        let mut node = state.node("privacy");
        let spendings = self.accountant().spendings();
        node.value("spendings", spendings.len());
        for (at, spending) in spendings.iter().enumerate() {
            node.value(&format!("rate/{at}"), spending.rate);
            node.value(&format!("noise_multiplier/{at}"), spending.noise_multiplier);
            node.value(&format!("spent_steps/{at}"), spending.steps);
        }
    }

    fn read_state<'s>(&'s mut self, state: &mut StateReader<'_>) -> Result<Commit<'s>> {
        let node = state.node("privacy")?;
        let mut read = self.accountant().anew();
        for at in 0..node.value("spendings", "a count")? {
            let rate = node.value(&format!("rate/{at}"), "a probability")?;
            let noise_multiplier = node.value(&format!("noise_multiplier/{at}"), "a number above 0")?;
            read.steps(rate, noise_multiplier, node.value(&format!("spent_steps/{at}"), "a count")?)?;
        }
        read.raise(self.accountant());
        Ok(Commit::new(move || *self.0.accountant_mut() = read))
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array1, array};

    use super::*;
    use crate::federated::{Failure, Simulation, Task, Update};
    use crate::optimizer::Sgd;

    /// The deviation of the model's element is σC/(qN); five of them.
    #[test]
    fn a_round_is_the_clipped_sum_with_noise_over_the_expected_number() {
        let changes = [array![3.0, 4.0], array![0.3, 0.4], array![0.0, -0.5]];
        let client = |change: Array1<f64>| {
            move |task: &Task<Array1<f64>>| Ok::<_, Failure>(Update::new(task.model() + &change, 7.0 + change[0]))
        };
        let mechanism = GaussianMechanism::seeded(1, 1.0, 1e-3, 1.0, 3).unwrap();
        let mut server = Server::new(Sgd::new(1.0)).private(mechanism);
        let mut model = array![1.0, 1.0];
        server.round(&mut model, &mut Simulation::new(changes.map(client))).unwrap();
        for (found, sum) in model.iter().zip([0.6 + 0.3, 0.8 + 0.4 - 0.5]) {
            assert!((found - 1.0 - sum / 3.0).abs() < 5.0 * 1e-3 / 3.0, "{model}");
            assert_ne!(*found, 1.0 + sum / 3.0);
        }
        assert_eq!(server.aggregation().accountant().spendings()[0].steps, 1);
    }

    #[test]
    fn the_noise_of_rounds_has_its_deviation() {
        let nothing = |task: &Task<Array1<f64>>| Ok::<_, Failure>(Update::new(task.model().clone(), 1.0));
        let mechanism = GaussianMechanism::seeded(2, 2.0, 3.0, 1.0, 4).unwrap();
        let mut server = Server::new(Sgd::new(1.0)).private(mechanism);
        let mut model = Array1::zeros(20_000);
        server.round(&mut model, &mut Simulation::new([nothing; 4])).unwrap();
        let deviation = (model.dot(&model) / 2e4).sqrt();
        // Five standard errors: 1/√(2n) = 0.5 %.
        assert!((deviation / 1.5 - 1.0).abs() < 0.025, "{deviation}");
    }
}
