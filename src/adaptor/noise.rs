//! Noise that is added to gradients.

use std::fmt;

use super::{Adapted, Outcome, Transform, Transforming};
use crate::error::Result;
use crate::kernel::normal::Normal;
use crate::params::Element;
use crate::rule::real_power;
use crate::schedule::Hyper;
use crate::step::{Grad, Step};

/// Adds noise to the gradients, less of it in later steps. Created by [`OptimizerExt::add_noise`](crate::OptimizerExt::add_noise).
///
/// The noise of an element depends on the seed, the step's number, the tensor's path and the element's index alone. It is the same on any number
/// of threads, in any memory layout, and after a run is resumed; nothing is stored.
///
/// # Update rule
/// In the step of number t = 0, 1, …, for each element i:
/// ```text
/// gᵢ ← gᵢ + σₜ·zᵢ        σₜ² = η/(1 + t)^γ,   zᵢ: a draw from the standard normal distribution
/// ```
///
/// # Hyper-parameters
/// | name | default | range | meaning | unit |
/// |---|---|---|---|---|
/// | `eta` η | – | ≥ 0 | the variance in the first step; the paper tries 0.01, 0.3 and 1 | that of the gradient, squared |
/// | [`gamma`](Adapted::gamma) γ | 0.55 | ≥ 0 | how fast the variance falls; with 0 it stays | |
/// | `seed` | – | any | other seeds have other noise | |
///
/// # Order in the chain
/// Write it before [`accumulate`](crate::OptimizerExt::accumulate): after it, all micro-batches of a step have the same noise. Write it after clipping
/// in the chain to clip the noise too, and before clipping to leave it as it is. Ranks with the same seed add the same noise, as
/// `data_parallel` needs it inside. Gradients of [`Rows`](crate::Rows) get noise in their rows.
///
/// # Cost
/// A copy of the gradients, made for the check and again for the step.
///
/// # Conventions
/// optax's `add_noise(eta, gamma, seed)`, with other random numbers. This noise does not make training private: for that, the feature `federated` has
/// `federated::privacy`.
///
/// # Errors
/// [`StepError::HyperParameter`](crate::error::StepError::HyperParameter) for η or γ outside its range.
///
/// # Example
/// ```
/// use gradus::prelude::*;
/// use ndarray::Array1;
///
/// let mut opt = Sgd::new(1.0).add_noise(0.25, 7);
/// let mut w = Array1::<f64>::zeros(10_000);
/// opt.step(&mut w, &Array1::zeros(10_000))?;
/// let variance: f64 = w.dot(&w) / 10_000.0;
/// assert!((variance - 0.25).abs() < 0.02);
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// # References
/// A. Neelakantan et al., *Adding Gradient Noise Improves Learning for Very Deep Networks* (2015),
/// [arXiv:1511.06807](https://arxiv.org/abs/1511.06807), eq. 1.
#[derive(Clone)]
pub struct AddNoise {
    eta: Hyper,
    gamma: Hyper,
    seed: u64,
}

impl AddNoise {
    /// Adds noise of the variance `eta` in the first step: a number or a schedule.
    pub fn new(eta: impl Into<Hyper>, seed: u64) -> Self {
        Self { eta: eta.into(), gamma: 0.55.into(), seed }
    }
}

impl<O> Adapted<O, Transforming<AddNoise>> {
    /// Sets how fast the variance falls.
    pub fn gamma(self, gamma: impl Into<Hyper>) -> Self {
        self.with(|own| own.with(|noise| AddNoise { gamma: gamma.into(), ..noise }))
    }
}

/// The largest γ: a variance of η/(1 + t)^100 is none from the second step on.
const LARGEST_GAMMA: f64 = 100.0;

impl<A: Element> Transform<A> for AddNoise {
    fn name(&self) -> &'static str {
        "add_noise"
    }

    fn describe(&self) -> String {
        format!("{self:?}")
    }

    fn hyper_parameters(&self) -> Vec<(&'static str, &Hyper)> {
        vec![("eta", &self.eta), ("gamma", &self.gamma)]
    }

    fn transform<'s>(&'s self, step: &mut Step<'s, A>) -> Result<Outcome> {
        let at = step.number();
        let eta = self.eta.within("eta", 0.0.., at)?;
        let gamma = self.gamma.within("gamma", 0.0..=LARGEST_GAMMA, at)?;
        let deviation = (eta / real_power(1.0 + at as f64, gamma)).sqrt();
        if deviation == 0.0 {
            return Ok(Outcome::pass());
        }
        for (whole, grad) in step.grads_mut() {
            let normal = Normal::new(self.seed, at, whole.path());
            let (start, (info, grad)) = (whole.start(), grad.compact_mut(whole));
            let mut values = grad.to_array(info.shape());
            for (element, value) in (start..).zip(values.iter_mut()) {
                *value = A::from_f64(value.as_f64() + deviation * normal.of(element as u64));
            }
            *grad = Grad::from_array(values);
        }
        Ok(Outcome::pass())
    }
}

impl fmt::Debug for AddNoise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "add_noise({:?}, {})", self.eta, self.seed)?;
        if self.gamma.at(0) == 0.55 { Ok(()) } else { write!(f, ".gamma({:?})", self.gamma) }
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array1, Array2, ShapeBuilder, array};
    use serde_json::Value;

    use crate::prelude::*;

    /// What the noise of each of these steps has added to gradients of 0.
    fn drawn(mut opt: impl Optimizer<f64>, steps: usize) -> Vec<Array1<f64>> {
        let mut w = Array1::zeros(1000);
        let taken = (0..steps).map(|_| {
            let before = w.clone();
            opt.step(&mut w, &Array1::zeros(1000)).unwrap();
            before - &w
        });
        taken.collect()
    }

    /// optax's deviations: as there, by the ratio to noise with a variance of 1.
    #[test]
    fn deviations_agree_with_optax() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/guards.json");
        let golden: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let cases = golden["cases"].as_array().unwrap().iter().filter(|case| case["kind"] == "noise");
        let cases: Vec<_> = cases.collect();
        assert_eq!(cases.len(), 3);
        let ones = drawn(Sgd::new(1.0).add_noise(1.0, 7).gamma(0.0), 10);
        for case in cases {
            let (eta, gamma) = (case["eta"].as_f64().unwrap(), case["gamma"].as_f64().unwrap());
            let noise = drawn(Sgd::new(1.0).add_noise(eta, 7).gamma(gamma), 10);
            let expected = case["deviations"].as_array().unwrap();
            assert_eq!(expected.len(), noise.len());
            for ((noise, one), expected) in noise.iter().zip(&ones).zip(expected) {
                // A parameter of some units is rounded before the noise is subtracted again.
                let (found, expected) = ((noise.dot(one) / one.dot(one)), expected.as_f64().unwrap());
                assert!((found - expected).abs() < 1e-13, "{found} {expected}");
            }
        }
    }

    #[test]
    fn seeds_steps_tensors_and_elements_have_noise_of_their_own() {
        let noise = drawn(Sgd::new(1.0).add_noise(1.0, 7).gamma(0.0), 3);
        assert_eq!(noise[0], drawn(Sgd::new(1.0).add_noise(1.0, 7), 1)[0]);
        let mut all: Vec<f64> =
            noise.iter().chain(&drawn(Sgd::new(1.0).add_noise(1.0, 8), 1)).flatten().copied().collect();
        let (mut pair, zero) = ((Array1::zeros(1000), Array1::zeros(1000)), Array1::<f64>::zeros(1000));
        Sgd::new(1.0).add_noise(1.0, 7).step(&mut pair, &(&zero, &zero)).unwrap();
        all.extend(pair.0.iter().chain(&pair.1));
        let count = all.len() as f64;
        let moment = |power: i32| all.iter().map(|x| x.powi(power)).sum::<f64>() / count;
        // Within four deviations of the mean of so many draws: 1, √2 and √96 by √6000.
        assert!(moment(1).abs() < 0.052 && (moment(2) - 1.0).abs() < 0.073 && (moment(4) - 3.0).abs() < 0.51);
        all.sort_by(f64::total_cmp);
        all.dedup();
        assert_eq!(all.len() as f64, count);
    }

    #[test]
    fn no_layout_and_no_number_of_threads_changes_the_bits() {
        let grad = Array2::from_shape_fn((30, 40), |(i, j)| (i * 40 + j) as f32);
        let mut columns = Array2::zeros((30, 40).f());
        columns.assign(&grad);
        let [mut w, mut v] = [(); 2].map(|()| Array2::zeros((30, 40)));
        Sgd::new(1.0).add_noise(1.0, 7).step(&mut w, &grad).unwrap();
        Sgd::new(1.0).add_noise(1.0, 7).step(&mut v, &columns).unwrap();
        assert_eq!(w, v);
    }

    /// A resumed run continues with the noise of the step that it has reached.
    #[test]
    fn a_resumed_run_has_the_same_noise() {
        let new = || Sgd::new(1.0).add_noise(1.0, 7);
        let (mut opt, mut w) = (new(), array![0.0]);
        opt.step(&mut w, &array![0.0]).unwrap();
        let (mut resumed, mut v) = (new(), w.clone());
        resumed.load_state_dict(&opt.state_dict()).unwrap();
        opt.step(&mut w, &array![0.0]).unwrap();
        resumed.step(&mut v, &array![0.0]).unwrap();
        assert_eq!(w, v);
        // Nothing is added without a variance.
        let mut none = array![1.0];
        Sgd::new(1.0).add_noise(0.0, 7).step(&mut none, &array![0.5]).unwrap();
        assert_eq!(none, array![0.5]);
    }

    /// Every rank adds what one process adds to its elements.
    #[cfg(feature = "distributed")]
    #[test]
    fn of_a_shard_it_is_that_of_the_whole() {
        let (mut expected, grads) = (Array1::<f64>::zeros(1000), Array1::zeros(1000));
        Sgd::new(1.0).add_noise(1.0, 7).step(&mut expected, &grads).unwrap();
        let ends = crate::distributed::ThreadGroup::run(2, |group| {
            let mut w = Array1::zeros(1000);
            Sgd::new(1.0).add_noise(1.0, 7).sharded(&group).step(&mut w, &grads).unwrap();
            w
        });
        assert_eq!(ends, [expected.clone(), expected]);
    }
}
