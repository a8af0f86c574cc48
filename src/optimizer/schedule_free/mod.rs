//! Schedule-free learning: optimizers that need no learning-rate schedule, because what they evaluate is an average.

mod adamw;
mod radam;
mod sgd;

pub use adamw::{AdamWScheduleFree, AdamWScheduleFreeRule, AdamWScheduleFreeValues};
pub use radam::{RAdamScheduleFree, RAdamScheduleFreeRule, RAdamScheduleFreeValues};
pub use sgd::{SgdScheduleFree, SgdScheduleFreeRule, SgdScheduleFreeValues};

use crate::rule::{At, real_power};

/// The numbers that a tensor remembers: the sum of the weights of all steps, where tʳ is that of a step at the largest learning rate so far;
/// and that learning rate.
const NUMBERS: &[&str] = &["weight_sum", "lr_max"];

/// The weight wₜ = tʳ·ηmaxᵖ of a step in the average.
#[derive(Clone, Copy)]
struct Weight {
    /// r.
    time_power: f64,
    /// p.
    lr_power: f64,
}

impl Weight {
    /// Adds a step of learning rate `eta` to the numbers.
    ///
    /// The sum is divided by ηmaxᵖ, so that no learning rate is too small for its power.
    fn add(self, at: &At, eta: f64, numbers: &mut [f64]) {
        let [sum, largest] = numbers else { return };
        let grown = largest.max(eta);
        if grown > *largest && *sum > 0.0 {
            *sum *= real_power(*largest / grown, self.lr_power);
        }
        *largest = grown;
        // At learning rate 0, nothing has a weight; unless learning rates do not matter.
        if grown > 0.0 || self.lr_power == 0.0 {
            *sum += real_power(at.step as f64, self.time_power);
        }
    }

    /// c = wₜ/(w₁ + … + wₜ), from the numbers of this step.
    fn fraction(self, at: &At) -> f64 {
        let [sum, _] = at.numbers;
        if sum > 0.0 { real_power(at.step as f64, self.time_power) / sum } else { 0.0 }
    }
}

/// The factors of the move `y ← y − (along·d − c·s)`, `s ← keep·(s − inside·d)`, where s = z − y.
#[derive(Clone, Copy)]
struct Factors {
    c: f64,
    keep: f64,
    along: f64,
    inside: f64,
}

impl Factors {
    /// For a step of learning rate `eta`, and the fraction β of the average x in y.
    fn of(eta: f64, beta: f64, c: f64) -> Self {
        let keep = 1.0 - c;
        Self { c, keep, along: eta * (1.0 - beta * keep), inside: beta * eta }
    }
}

/// κ of x = y − κ·s.
fn factor(beta: f64) -> f64 {
    (1.0 - beta) / beta
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::Weight;
    use crate::error::{Error, StepError};
    use crate::prelude::*;
    use crate::rule::At;

    /// The fractions c of some steps, by the sums as they are written in the paper.
    fn naive(etas: &[f64], weight: Weight) -> Vec<f64> {
        let (mut sum, mut largest) = (0.0, 0.0_f64);
        let fraction = |(step, eta): (usize, &f64)| {
            largest = largest.max(*eta);
            let own = ((step + 1) as f64).powf(weight.time_power) * largest.powf(weight.lr_power);
            sum += own;
            if sum > 0.0 { own / sum } else { 0.0 }
        };
        etas.iter().enumerate().map(fraction).collect()
    }

    #[test]
    fn fractions_are_those_of_the_sums() {
        let etas = [0.0, 1e-3, 2e-3, 0.0, 1e-4, 0.5, 0.25, 0.6];
        for (time_power, lr_power) in [(0.0, 2.0), (0.5, 1.0), (2.0, 0.0), (1.0, 2.5)] {
            let (weight, mut numbers) = (Weight { time_power, lr_power }, [0.0; 2]);
            for ((step, eta), expected) in etas.iter().enumerate().zip(naive(&etas, weight)) {
                let at = At { step: step as u64 + 1, ..At::default() };
                weight.add(&at, *eta, &mut numbers);
                let fraction = weight.fraction(&At { numbers, ..at });
                assert!((fraction - expected).abs() < 1e-14, "{step}: {fraction}, {expected}");
            }
        }
    }

    #[test]
    fn the_smallest_learning_rates_have_weights() {
        let (weight, mut numbers) = (Weight { time_power: 0.0, lr_power: 2.0 }, [0.0; 2]);
        for step in 1..=4 {
            let at = At { step, ..At::default() };
            weight.add(&at, 1e-200, &mut numbers);
            assert_eq!(weight.fraction(&At { numbers, ..at }), 1.0 / step as f64);
        }
    }

    #[test]
    fn what_is_evaluated_is_not_trained() {
        let mut opt = SgdScheduleFree::new(0.5).momentum(0.5);
        let mut w = array![1.0, -1.0];
        opt.swap(&mut w).unwrap(); // before the first step, it does nothing
        for _ in 0..3 {
            opt.step(&mut w, &array![1.0, 0.5]).unwrap();
        }
        let (trained, mut average) = (w.clone(), w.clone());
        opt.average(&mut average).unwrap();
        opt.swap(&mut w).unwrap();
        assert_eq!(w, average);
        assert_ne!(w, trained);
        let state = opt.state_dict();
        for error in [opt.step(&mut w, &array![1.0, 0.5]).unwrap_err(), opt.average(&mut w).unwrap_err()] {
            assert_eq!(error, Error::Step(StepError::Swapped));
        }
        assert!(opt.swap(&mut array![1.0]).is_err());
        assert_eq!((&w, opt.state_dict()), (&average, state.clone()));

        // A state has what was swapped.
        let mut resumed = SgdScheduleFree::new(0.5).momentum(0.5);
        resumed.load_state_dict(&state).unwrap();
        for opt in [&mut opt, &mut resumed] {
            let mut w = w.clone();
            opt.swap(&mut w).unwrap();
            assert_eq!(w, trained);
            opt.step(&mut w, &array![1.0, 0.5]).unwrap();
        }
        assert_eq!(opt.state_dict(), resumed.state_dict());

        let mut incomplete = state.clone();
        assert!(incomplete.remove("sgd_schedule_free/evaluated/trained/"));
        let error = resumed.load_state_dict(&incomplete).unwrap_err();
        assert!(error.to_string().contains("sgd_schedule_free/evaluated/trained/"), "{error}");
    }

    /// The mean of z after each step, for a constant learning rate: by hand.
    #[test]
    fn the_average_is_that_of_z() {
        let mut opt = SgdScheduleFree::new(0.5).momentum(0.75);
        let mut w = array![0.0];
        for z in [[-0.5].as_slice(), &[-0.5, -1.0], &[-0.5, -1.0, -1.5], &[-0.5, -1.0, -1.5, -2.0]] {
            opt.step(&mut w, &array![1.0]).unwrap();
            let mut x = w.clone();
            opt.average(&mut x).unwrap();
            let mean = z.iter().sum::<f64>() / z.len() as f64;
            assert!((x[0] - mean).abs() < 1e-15, "{x}");
            assert!((w[0] - (0.75 * mean + 0.25 * z[z.len() - 1])).abs() < 1e-15, "{w}");
        }
    }
}
