//! Schedule-free learning: optimizers that need no learning-rate schedule, because what they evaluate is an average.

mod adamw;
mod radam;
mod sgd;

pub use adamw::{AdamWScheduleFree, AdamWScheduleFreeRule, AdamWScheduleFreeValues};
pub use radam::{RAdamScheduleFree, RAdamScheduleFreeRule, RAdamScheduleFreeValues};
pub use sgd::{SgdScheduleFree, SgdScheduleFreeRule, SgdScheduleFreeValues};

use crate::params::Scalar;
use crate::rule::{At, Lanes, real_power};

/// The numbers that a tensor remembers: the sum of the weights of all steps, divided by that of the last one; the largest learning rate; and the
/// fraction β of x in y.
const NUMBERS: &[&str] = &["weight_sum", "lr_max", "beta"];

/// The weight wₜ = tʳ·ηmaxᵖ of a step in the average.
#[derive(Clone, Copy)]
struct Weight {
    /// r.
    time_power: f64,
    /// p.
    lr_power: f64,
}

impl Weight {
    /// Adds a step of learning rate `eta` and fraction `beta` to the numbers.
    ///
    /// Only ratios of weights are computed, because the powers may be too large or too small for a number.
    fn add(self, at: &At, [eta, beta]: [f64; 2], numbers: &mut [f64]) {
        let [sum, largest, fraction] = numbers else { return };
        *fraction = beta;
        let grown = largest.max(eta);
        let (step, before) = (at.step as f64, *largest);
        *largest = grown;
        if *sum > 0.0 {
            *sum *= real_power((step - 1.0) / step, self.time_power);
        }
        if *sum > 0.0 && grown > before {
            *sum *= real_power(before / grown, self.lr_power);
        }
        // At learning rate 0, nothing has a weight; unless learning rates do not matter.
        if grown > 0.0 || self.lr_power == 0.0 {
            *sum += 1.0;
        }
    }

    /// c = wₜ/(w₁ + … + wₜ), from the numbers of this step.
    fn fraction(at: &At) -> f64 {
        let [sum, ..] = at.numbers;
        if sum > 0.0 { 1.0 / sum } else { 0.0 }
    }
}

/// The factors of the move `y ← y − (along·d − c·s)`, `s ← keep·(s − inside·d)`, where s = z − y.
#[derive(Clone, Copy)]
struct StepFactors {
    c: f64,
    keep: f64,
    along: f64,
    inside: f64,
}

impl StepFactors {
    /// For a step of learning rate `eta`, and the fraction β of the average x in y.
    fn of(eta: f64, beta: f64, c: f64) -> Self {
        let keep = 1.0 - c;
        Self { c, keep, along: eta * (1.0 - beta * keep), inside: beta * eta }
    }
}

/// β₂, 1 − β₂, the factor of √v, ε and λ; c, 1 − c, and the factors of d in y and in s.
type Adaptive<A> = [A; 9];

/// The coefficients of a step of learning rate `eta` whose d is divided by √v.
fn adaptive<A: Scalar>(eta: f64, [beta1, beta2, eps]: [f64; 3], at: &At) -> Adaptive<A> {
    let scale = 1.0 / at.bias_correction(beta2).sqrt();
    let StepFactors { c, keep, along, inside } = StepFactors::of(eta, beta1, Weight::fraction(at));
    [beta2, 1.0 - beta2, scale, eps, at.weight_decay, c, keep, along, inside].map(A::from_f64)
}

/// A step whose d is divided by √v.
fn sweep_adaptive<A: Scalar>(c: Adaptive<A>, lanes: Lanes<'_, A>) {
    lanes.each(c, |&[b2, r2, scale, eps, decay, c, keep, along, inside], y, grad, [s, v]: [A; 2]| {
        let v = b2 * v + r2 * grad * grad;
        let divisor = v.sqrt() * scale + eps;
        let d = if divisor == A::zero() { divisor } else { grad / divisor } + decay * y;
        (along * d - c * s, [keep * (s - inside * d), v])
    });
}

/// κ of x = y − κ·s, from the numbers of the last step.
fn factor(numbers: &[f64]) -> f64 {
    let &[_, _, beta] = numbers else { return 0.0 };
    (1.0 - beta) / beta
}

#[cfg(test)]
mod tests {
    use ndarray::{Array1, Array2, ShapeBuilder, array};

    use super::Weight;
    use crate::error::{Error, StateError, StepError};
    use crate::prelude::*;
    use crate::rule::{At, Rounding, StatePrecision};

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
            let (weight, mut numbers) = (Weight { time_power, lr_power }, [0.0; 3]);
            for ((step, eta), expected) in etas.iter().enumerate().zip(naive(&etas, weight)) {
                let at = At { step: step as u64 + 1, ..At::default() };
                weight.add(&at, [*eta, 0.9], &mut numbers);
                let fraction = Weight::fraction(&At { numbers, ..at });
                assert!((fraction - expected).abs() < 1e-14, "{step}: {fraction}, {expected}");
            }
        }
    }

    #[test]
    fn the_smallest_learning_rates_have_weights() {
        let (weight, mut numbers) = (Weight { time_power: 0.0, lr_power: 2.0 }, [0.0; 3]);
        for step in 1..=4 {
            let at = At { step, ..At::default() };
            weight.add(&at, [1e-200, 0.9], &mut numbers);
            assert_eq!(Weight::fraction(&At { numbers, ..at }), 1.0 / step as f64);
        }
    }

    #[test]
    fn the_largest_powers_have_weights() {
        let (weight, mut numbers) = (Weight { time_power: 1e6, lr_power: 1e6 }, [0.0; 3]);
        for step in 1..=4 {
            let at = At { step, ..At::default() };
            weight.add(&at, [step as f64, 0.9], &mut numbers);
            assert_eq!(Weight::fraction(&At { numbers, ..at }), 1.0);
        }
    }

    #[test]
    fn without_eps_an_element_that_has_had_no_gradient_rests() {
        let gradient = array![1.0, 0.0];
        let (mut w, mut v) = (array![1.0, 1.0], array![1.0, 1.0]);
        let mut adamw = AdamWScheduleFree::new(0.1).eps(0.0).weight_decay(0.5);
        let mut radam = RAdamScheduleFree::new(0.1).eps(0.0);
        for _ in 0..9 {
            adamw.step(&mut w, &gradient).unwrap();
            radam.step(&mut v, &gradient).unwrap();
        }
        assert!(w[0] < w[1] && w[1] < 1.0, "{w}");
        assert!(v[0] < 1.0 && v[1] == 1.0, "{v}");
    }

    /// In a tree, in any order of memory, with state of any precision, and with a tensor that has no gradient.
    #[test]
    fn every_tensor_that_has_moved_is_swapped() {
        for precision in [StatePrecision::Full, StatePrecision::Bf16(Rounding::Nearest), StatePrecision::Blockwise8] {
            let mut opt = RAdamScheduleFree::new(0.1).beta1(0.5).silent(false).state_precision(precision);
            let start = Array2::from_shape_fn((3, 4).f(), |(i, j)| (i + 2 * j) as f32);
            let mut w = (start.clone(), array![2.0_f32]);
            for _ in 0..3 {
                opt.step(&mut w, &(&start, None::<Array1<f32>>)).unwrap();
            }
            let trained = w.clone();
            let slot = opt.slot("0", "z_minus_y").unwrap();
            opt.swap(&mut w).unwrap();
            let expected =
                Array2::from_shape_fn((3, 4), |at| (f64::from(trained.0[at]) - f64::from(slot[[at.0, at.1]])) as f32);
            assert!(w.0 == expected && w.0 != trained.0 && w.1 == trained.1, "{precision:?}");
            opt.swap(&mut w).unwrap();
            assert!(w == trained);
        }
    }

    #[test]
    fn numbers_of_a_state_are_checked() {
        let mut opt = SgdScheduleFree::new(0.5);
        opt.step(&mut array![1.0], &array![1.0]).unwrap();
        let state = opt.state_dict();
        for number in [f64::NAN, f64::INFINITY, -1.0] {
            let mut wrong = state.clone();
            wrong.insert_tensor("sgd_schedule_free/lr_max.number/", ndarray::arr0(number).view());
            let error = opt.load_state_dict(&wrong).unwrap_err().to_string();
            assert!(error.contains("sgd_schedule_free/lr_max.number/") && error.contains("≥ 0"), "{error}");
        }
    }

    #[test]
    fn only_what_averages_can_be_swapped() {
        let (mut adam, mut w) = (Adam::new(0.1), array![1.0]);
        adam.step(&mut w, &array![1.0]).unwrap();
        let mut state = adam.state_dict();
        state.insert_text("adam/evaluated/swapped", true);
        state.insert_tensor("adam/evaluated/trained/", w.view());
        assert!(matches!(adam.load_state_dict(&state), Err(Error::State(StateError::UnexpectedEntry { .. }))));
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
