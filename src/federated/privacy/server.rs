//! Rounds of clients whose participation stays a secret.

use ndarray::ArrayViewMut1;

use super::GaussianMechanism;
use crate::error::{Error, Result};
use crate::federated::{Aggregation, Sample, Selection, Server};
use crate::optimizer::Optimizer;
use crate::scalar::Element;
use crate::state::{Commit, StateReader, StateWriter};

impl<A: Element, O: Optimizer<A>> Server<O, A> {
    /// Keeps secret who took part: DP-FedAvg, of which a client's whole change is one part of the sum.
    ///
    /// # Update rule
    /// ```text
    /// S  each of the N clients with probability q, independently
    /// Δ = (Σ over S of min(1, C/‖yᵢ − θ‖)·(yᵢ − θ) + z)/(q·N)        z ~ N(0, (σC)²) for every element
    /// θ ← the optimizer's step with ∇J(θ) = −Δ
    /// ```
    /// Weights of the clients do not count, and a round without an answer moves the model, by noise: that nobody was chosen is a
    /// secret, too. The choice, from the operating system's randomness, is the mechanism's: a [`select`](Self::select) after this one
    /// would make [`epsilon`](GaussianMechanism::epsilon), which [`aggregation`](Self::aggregation) tells, wrong. What was spent is in the
    /// server's state.
    ///
    /// A report names who was chosen: it is the server's own and not for publication.
    ///
    /// # Errors
    /// Of a round: [`Error::Argument`] if there are other than N clients; [`Error::ControlNotPrivate`].
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
    /// arXiv:1710.06963, algorithm 1.
    pub fn private(self, mechanism: GaussianMechanism) -> Server<O, A, GaussianMechanism> {
        let (sample, population) = (Sample::poisson(mechanism.rate()), mechanism.population());
        self.select(Members { sample, population }).aggregate_by(mechanism)
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

impl Aggregation for GaussianMechanism {
    fn prepare(&mut self, change: &mut [f64], _: f64) -> f64 {
        // A change beyond all numbers is none.
        if self.clip_change(&mut ArrayViewMut1::from(&mut *change)).is_err() {
            change.fill(0.0);
        }
        1.0
    }

    fn complete(&mut self, sum: &mut [f64]) {
        sum.iter_mut().for_each(|sum| *sum += self.draw());
    }

    fn moves_without_answers(&self) -> bool {
        true
    }

    fn allows_controls(&self) -> bool {
        false
    }

    fn divisor(&self, _: f64) -> f64 {
        self.expected()
    }

    fn moved(&mut self) {
        let recorded = self.record();
        debug_assert!(recorded.is_ok(), "rate and noise were checked when the mechanism was made");
    }

    fn write_state(&self, state: &mut StateWriter<'_>) {
        let spendings = self.accountant().spendings();
        state.value("spendings", spendings.len());
        for (at, spending) in spendings.iter().enumerate() {
            state.value(&format!("rate/{at}"), spending.rate);
            state.value(&format!("noise_multiplier/{at}"), spending.noise_multiplier);
            state.value(&format!("spent_steps/{at}"), spending.steps);
        }
    }

    fn read_state<'s>(&'s mut self, state: &mut StateReader<'_>) -> Result<Commit<'s>> {
        let mut read = self.accountant().anew();
        for at in 0..state.value("spendings", "a count")? {
            let rate = state.value(&format!("rate/{at}"), "a probability")?;
            let noise_multiplier = state.value(&format!("noise_multiplier/{at}"), "a number above 0")?;
            read.steps(rate, noise_multiplier, state.value(&format!("spent_steps/{at}"), "a count")?)?;
        }
        Ok(Commit::new(move || *self.accountant_mut() = read))
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
