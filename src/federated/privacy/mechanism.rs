//! Sampling, clipping and noise, with the accountant of the privacy that they spend.

use super::accountant::{Accountant, Spent, check_mechanism};
use super::check_clip;
use super::noise::Noise;
use crate::clip::Norm;
use crate::error::{Error, Result, StepError, ensure_count};
use crate::params::{Element, Order, ParamsMut, ValuesMut, for_each_mut};
use crate::step::norm::unravel;

/// The sampled Gaussian mechanism: Poisson sampling, a limit on each part of a sum, and noise on the sum.
///
/// A part is an example's gradient (DP-SGD, with [`PerExample`](super::PerExample)) or a client's change (DP-FedAvg, with
/// [`clip_change`](Self::clip_change)). Every noisy sum is recorded, and [`epsilon`](Self::epsilon) covers all of them.
///
/// # Update rule
/// ```text
/// batch ← each of N examples with probability q, independently
/// sum ← Σ over the batch min(1, C/‖gᵢ‖)·gᵢ
/// grads ← (sum + z)/(q·N)                                       z ~ N(0, (σC)²) for every element
/// ```
/// The divisor is the **expected** batch size, because the actual size would reveal whether an example was in the batch. An empty batch is
/// therefore a normal step, which consists of noise only.
///
/// **N and q are public**, because the divisor contains them. Only *which* examples are among the N is private. If the number of examples is
/// a secret, use a round number near it. A client that protects its examples should also return the weight 1 instead of
/// [the number of examples](crate::federated::Update::new), to which no noise is added.
///
/// # Hyper-parameters
/// | name | default | range | meaning |
/// |---|---|---|---|
/// | `clip` C | – | C > 0 | the largest norm of one part; unit of the gradient |
/// | `noise_multiplier` σ | – | σ > 0 | the noise in units of C; computed by [`noise_for`](super::noise_for) |
/// | `rate` q | – | 0 < q ≤ 1 | the sampling probability of each part |
/// | `population` N | – | N ≥ 1 | the number of parts |
///
/// # State
/// The [`Accountant`]. Save it and pass it to [`resume`](Self::resume). The random generator, ChaCha20 with a key from the operating system,
/// cannot be seeded and is never saved, because reproducible noise could be subtracted.
///
/// # Conventions
/// Opacus' `DPOptimizer` with Poisson sampling and `loss_reduction="mean"`. Noise is drawn in f64, added, and rounded to the element type.
/// The theory assumes real numbers. With floating-point numbers, the last digits of a noisy sum can reveal more than ε (Mironov 2012). If
/// you must exclude this, round sums and noise to integers. A tensor that is absent (`None`) gets no noise, so whether it is absent must not
/// depend on the data.
///
/// # Batch size
/// The noise hides any one part, so it must be small relative to the sum of all parts: see [`noise_ratio`](Self::noise_ratio). For a model
/// of d parameters, the noise is as large as the largest possible sum if the expected batch q·N has about σ√d parts. With a handful of parts
/// nothing is learned.
///
/// # Errors
/// [`ArgumentError::Range`](crate::error::ArgumentError::Range); [`FederatedError::Entropy`](crate::error::FederatedError::Entropy) if the operating system has no randomness; those of [`clip::Norm`](crate::clip::Norm) for trees
/// that are not finite.
///
/// # Example
/// ```
/// use gradus::federated::privacy::GaussianMechanism;
/// use ndarray::array;
///
/// let mut mechanism = GaussianMechanism::new(1.0, 0.5, 0.1, 200)?;
/// let mut change = array![30.0, 40.0];
/// assert_eq!(mechanism.clip_change(&mut change)?, 50.0);
/// assert!((change[0] - 0.6_f64).abs() < 1e-15);
/// let mut sum = change; // of all clients that were sampled
/// mechanism.finish(&mut sum)?; // with noise, divided by 20
/// assert_eq!(mechanism.accountant().spendings()[0].steps, 1);
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// # References
/// M. Abadi et al., *Deep learning with differential privacy* (2016), [arXiv:1607.00133](https://arxiv.org/abs/1607.00133), algorithm 1. H. B. McMahan, D. Ramage,
/// K. Talwar and L. Zhang, *Learning differentially private recurrent language models* (2018), [arXiv:1710.06963](https://arxiv.org/abs/1710.06963). I. Mironov, *On
/// significance of the least significant bits for differential privacy* (2012).
#[derive(Debug)]
pub struct GaussianMechanism {
    clip: f64,
    noise_multiplier: f64,
    rate: f64,
    population: usize,
    noise: Noise,
    accountant: Accountant,
}

impl GaussianMechanism {
    /// Creates a mechanism from C, σ, q and N.
    ///
    /// # Errors
    /// [`ArgumentError::Range`](crate::error::ArgumentError::Range), [`FederatedError::Entropy`](crate::error::FederatedError::Entropy).
    pub fn new(clip: f64, noise_multiplier: f64, rate: f64, population: usize) -> Result<Self> {
        Self::with(Noise::from_system()?, (clip, noise_multiplier), rate, population)
    }

    fn with(noise: Noise, (clip, noise_multiplier): (f64, f64), rate: f64, population: usize) -> Result<Self> {
        check_clip(clip)?;
        check_mechanism(rate, noise_multiplier)?;
        if rate == 0.0 {
            return Err(Error::argument("rate", rate, "above 0, for anyone to be sampled"));
        }
        ensure_count("population", population as u64)?;
        Ok(Self { clip, noise_multiplier, rate, population, noise, accountant: Accountant::new() })
    }

    /// Noise that comes again with the same seed.
    #[cfg(test)]
    pub(crate) fn seeded(seed: u64, clip: f64, noise_multiplier: f64, rate: f64, population: usize) -> Result<Self> {
        Self::with(Noise::seeded(seed), (clip, noise_multiplier), rate, population)
    }

    /// Continues with the spending and the orders of a saved accountant.
    #[must_use]
    pub fn resume(mut self, accountant: Accountant) -> Self {
        self.accountant = accountant;
        self
    }

    /// Samples the parts of the next step: each of 0 … N − 1 independently with probability q. The result is in ascending order and may be
    /// empty.
    pub fn sample(&mut self) -> Vec<usize> {
        let (noise, rate) = (&mut self.noise, self.rate);
        (0..self.population).filter(|_| noise.chance(rate)).collect()
    }

    /// Clips one part to the norm C, over all of its tensors together. Returns the norm before clipping.
    ///
    /// # Errors
    /// [`StepError::NonFiniteGradient`], [`StepError::NormOverflow`].
    pub fn clip_change<T: ParamsMut + ?Sized>(&self, mut change: &mut T) -> Result<f64> {
        Norm::global(self.clip).exact(true).clip(&mut change)
    }

    /// Adds the noise to a sum of clipped parts and records the step. Call it **once** per sum, with all of its tensors.
    ///
    /// # Errors
    /// [`StepError::NonFiniteGradient`], also if the noisy sum overflows the element type; [`StepError::NormOverflow`]; [`ArgumentError::Range`](crate::error::ArgumentError::Range) if the
    /// step counter is full. Nothing is recorded then.
    pub fn add_noise<T: ParamsMut + ?Sized>(&mut self, sum: &mut T) -> Result<()> {
        self.noise(sum, 1.0)
    }

    /// Adds the noise as [`add_noise`](Self::add_noise) and divides by the [expected](Self::expected) number of parts.
    ///
    /// # Errors
    /// Those of [`add_noise`](Self::add_noise).
    pub fn finish<T: ParamsMut + ?Sized>(&mut self, sum: &mut T) -> Result<()> {
        self.noise(sum, self.expected())
    }

    fn noise<T: ParamsMut + ?Sized>(&mut self, mut sum: &mut T, divisor: f64) -> Result<()> {
        // Without a limit it only looks for what is not finite.
        Norm::global(f64::INFINITY).exact(true).clip(&mut sum)?;
        self.ensure_countable()?;
        let mut tensors = Vec::new();
        for_each_mut(sum, |path, shape, values| {
            tensors.extend(values.map(|values| (path.to_string(), shape.to_vec(), values)));
        });
        // All of it before any is written.
        let mut all = Vec::new();
        for (path, shape, values) in &tensors {
            let begin = all.len();
            let mut noisy = |value: &T::Elem| all.push(T::Elem::from_f64((value.as_f64() + self.draw()) / divisor));
            match values {
                ValuesMut::Contiguous(slice, _) => slice.iter().for_each(&mut noisy),
                ValuesMut::Strided(_) => values.as_values().view(shape).iter().for_each(&mut noisy),
            }
            if let Some(at) = all[begin..].iter().position(|value| !value.as_f64().is_finite()) {
                let (path, value) = (path.clone(), all[begin + at].as_f64());
                return Err(Error::Step(StepError::NonFiniteGradient { path, index: index(at, shape, values), value }));
            }
        }
        self.record()?;
        let mut all = all.into_iter();
        for (_, shape, mut values) in tensors {
            let write = |(to, noisy): (&mut T::Elem, T::Elem)| *to = noisy;
            match &mut values {
                ValuesMut::Contiguous(slice, _) => slice.iter_mut().zip(&mut all).for_each(write),
                ValuesMut::Strided(_) => values.view_mut(&shape).iter_mut().zip(&mut all).for_each(write),
            }
        }
        Ok(())
    }

    /// Returns an error unless another step can be counted.
    pub(super) fn ensure_countable(&self) -> Result<()> {
        self.accountant.after(self.rate, self.noise_multiplier, 1).map(drop)
    }

    /// The expected norm of the noise, σC√d for a model of d elements, divided by the largest possible norm of the sum, q·N·C.
    ///
    /// Above 1, a step has more noise than signal. Over R steps, noise grows as √R and steps in one direction grow as R. A ratio of 1 to 3
    /// therefore still trains in some hundred steps; at 10 or more hardly anything is learned. A ratio r needs a population of
    /// N ≥ σ√d/(q·r).
    ///
    /// ```
    /// use gradus::federated::privacy::GaussianMechanism;
    ///
    /// // A model of 10,000 parameters, σ = 1: five clients are too few.
    /// assert_eq!(GaussianMechanism::new(1.0, 1.0, 1.0, 5)?.noise_ratio(10_000), 20.0);
    /// assert_eq!(GaussianMechanism::new(1.0, 1.0, 0.1, 1_000)?.noise_ratio(10_000), 1.0);
    /// # Ok::<(), gradus::Error>(())
    /// ```
    pub fn noise_ratio(&self, elements: usize) -> f64 {
        self.noise_multiplier * (elements as f64).sqrt() / self.expected()
    }

    /// The noise of one element.
    pub(super) fn draw(&mut self) -> f64 {
        self.noise_multiplier * self.clip * self.noise.normal()
    }

    /// A noisy sum has been given away.
    pub(super) fn record(&mut self) -> Result<()> {
        self.accountant.step(self.rate, self.noise_multiplier)
    }

    /// The expected number of parts in a sum, q·N; the divisor of the sum.
    pub fn expected(&self) -> f64 {
        self.rate * self.population as f64
    }

    /// The sampling probability q.
    pub fn rate(&self) -> f64 {
        self.rate
    }

    /// The number of parts N.
    pub fn population(&self) -> usize {
        self.population
    }

    /// The largest norm C of one part.
    pub fn clip(&self) -> f64 {
        self.clip
    }

    /// The noise σ in units of C.
    pub fn noise_multiplier(&self) -> f64 {
        self.noise_multiplier
    }

    /// The accountant with the privacy spent so far.
    pub fn accountant(&self) -> &Accountant {
        &self.accountant
    }

    pub(super) fn accountant_mut(&mut self) -> &mut Accountant {
        &mut self.accountant
    }

    /// The ε spent so far at this δ. Choose a δ below 1/N.
    ///
    /// # Errors
    /// [`ArgumentError::Range`](crate::error::ArgumentError::Range) unless 0 < δ < 1.
    pub fn epsilon(&self, delta: f64) -> Result<Spent> {
        self.accountant.epsilon(delta)
    }
}

/// The index of the element that lies at this place in memory, or in row-major order if there are gaps.
fn index<A>(at: usize, shape: &[usize], values: &ValuesMut<'_, A>) -> Vec<usize> {
    match values {
        ValuesMut::Contiguous(_, Order::F) => {
            let reversed: Vec<_> = shape.iter().rev().copied().collect();
            unravel(at, &reversed).into_iter().rev().collect()
        }
        _ => unravel(at, shape),
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array1, Array2, Axis, Slice, array};

    use super::*;

    #[test]
    fn the_noise_is_sigma_times_clip_over_the_expected_number() {
        let mut mechanism = GaussianMechanism::seeded(1, 3.0, 0.5, 0.02, 500).unwrap();
        let mut sum = (Array2::<f32>::from_elem((1000, 500), 20.0), Array1::<f32>::from_elem(500_000, 20.0));
        mechanism.finish(&mut sum).unwrap();
        let all = || sum.0.iter().chain(&sum.1).map(|x| f64::from(*x));
        let mean = all().sum::<f64>() / 1e6;
        let deviation = (all().map(|x| (x - mean).powi(2)).sum::<f64>() / 1e6).sqrt();
        // σC/(qN) = 0.15 and 20/10; the mean within five standard errors, the deviation within 1 %.
        assert!((mean - 2.0).abs() < 5.0 * 0.15 / 1000.0, "{mean}");
        assert!((deviation / 0.15 - 1.0).abs() < 0.01, "{deviation}");
    }

    #[test]
    fn every_element_of_any_layout_has_noise_of_its_own() {
        let mut sums = Array2::<f64>::zeros((4, 6));
        let mut mechanism = GaussianMechanism::seeded(2, 1.0, 1.0, 1.0, 1).unwrap();
        let strided: &mut dyn ParamsMut<Elem = f64> = &mut sums.slice_axis_mut(Axis(1), Slice::new(0, None, 2));
        mechanism.add_noise(strided).unwrap();
        let mut drawn: Vec<f64> = sums.iter().copied().filter(|x| *x != 0.0).collect();
        drawn.sort_by(f64::total_cmp);
        drawn.dedup();
        assert_eq!(drawn.len(), 12);
        assert_eq!(mechanism.accountant().spendings()[0].steps, 1);
    }

    #[test]
    fn sampling_takes_each_independently() {
        let mut mechanism = GaussianMechanism::seeded(3, 1.0, 1.0, 0.3, 100).unwrap();
        let rounds = 10_000;
        let (mut each, mut both, mut sizes) = ([0_u32; 100], 0, 0.0);
        for _ in 0..rounds {
            let sample = mechanism.sample();
            assert!(sample.windows(2).all(|pair| pair[0] < pair[1]));
            sample.iter().for_each(|at| each[*at] += 1);
            both += u32::from(sample.contains(&4) && sample.contains(&5));
            sizes += (sample.len() as f64 - 30.0).powi(2);
        }
        // Five standard errors of frequencies of 0.3 and 0.09, and of the variance of a size, N·q·(1 − q) = 21.
        assert!(each.iter().all(|count| (f64::from(*count) / 1e4 - 0.3).abs() < 0.023), "{each:?}");
        assert!((f64::from(both) / 1e4 - 0.09).abs() < 0.0144, "{both}");
        assert!((sizes / 1e4 - 21.0).abs() < 1.5, "{sizes}");
        assert_eq!(GaussianMechanism::seeded(3, 1.0, 1.0, 1.0, 3).unwrap().sample(), [0, 1, 2]);
    }

    #[test]
    fn what_is_refused_changes_nothing() {
        let mut mechanism = GaussianMechanism::seeded(4, 1.0, 1.0, 0.5, 10).unwrap();
        let mut bad = (array![1.0, 2.0], array![f64::NAN]);
        assert!(matches!(mechanism.finish(&mut bad), Err(Error::Step(StepError::NonFiniteGradient { .. }))));
        assert!(matches!(mechanism.clip_change(&mut bad), Err(Error::Step(StepError::NonFiniteGradient { .. }))));
        assert_eq!(bad.0, array![1.0, 2.0]);
        assert_eq!(mechanism.accountant().spendings(), []);
        // The next noise is the first there is.
        let (mut one, mut other) = (array![0.0], array![0.0]);
        mechanism.add_noise(&mut one).unwrap();
        GaussianMechanism::seeded(4, 1.0, 1.0, 0.5, 10).unwrap().add_noise(&mut other).unwrap();
        assert_eq!(one, other);
        assert_ne!(one[0], 0.0);
    }
}
