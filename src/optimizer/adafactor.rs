//! Adafactor.

use std::ops::Bound;

use crate::hyper_parameters;
use crate::params::Scalar;
use crate::rule::{At, Factored, FactoredRule, Moments, Rms, real_power};
use crate::schedule::Hyper;

/// Adafactor: Adam's second moment from a mean per row and one per column, so that the state of a matrix is hardly larger than two of its sides.
///
/// # Update rule
/// ```text
/// wₜ ← t^γ
/// rᵢ ← rᵢ + wₜ(mean over j of gᵢⱼ² − rᵢ)
/// cⱼ ← cⱼ + wₜ(mean over i of gᵢⱼ² − cⱼ)
/// vᵢⱼ ← rᵢcⱼ / max(mean of r, ε)                    of vectors and numbers v ← v + wₜ(g² − v)
/// u ← g / max(√v, ε)
/// α ← max(s, rms(θ))·min(η, 1/√t)                    s is min_scale; rms is the root mean square over the tensor
/// θ ← θ(1 − ηλ)
/// θ ← θ − α·u / max(1, rms(u)/d)                     d is clip_threshold
/// ```
/// t is the number of steps in which the tensor had a gradient, starting at 1. The last two axes of a tensor are its rows and columns; each index of the
/// other axes is a matrix of its own. The options:
/// ```text
/// eps_inside_mean(true):   the means are those of g² + ε, and vᵢⱼ ← rᵢcⱼ / mean of r,  u ← g/√v
/// scale_parameter(false):  α ← min(η, 1/√t)
/// relative_step(false):    α ← max(s, rms(θ))·η
/// beta1(β₁):               m ← β₁m + (1 − β₁)·α·u / max(1, rms(u)/d),  θ ← θ − m
/// ```
///
/// # Hyper-parameters
/// Each is set by the method of its name and takes a number, a [schedule](crate::schedule) or a closure.
///
/// | name | default | range | meaning |
/// |---|---|---|---|
/// | `learning_rate` η | – | η ≥ 0 | largest step relative to the parameter's rms; PyTorch's default is 1e-2 |
/// | `beta2_decay` γ | −0.8 | γ ≤ 0 | exponent of the weight of new means |
/// | `eps` ε | 1.2e-7 in f32, 2.2e-16 in f64; 1e-30 with `eps_inside_mean` | ε > 0 | smallest divisor, unit of the gradient; with `eps_inside_mean` of its square |
/// | `min_scale` s | 1e-3 | s > 0 | smallest rms of the parameter that steps are relative to, unit of the parameter |
/// | `clip_threshold` d | 1 | d > 0 | largest rms of an update |
/// | `beta1` β₁ | none | 0 ≤ β₁ < 1 | adds a momentum of the steps |
/// | `weight_decay` λ | 0 | λ ≥ 0 | decoupled decay, per unit of learning rate |
/// | `eps_inside_mean` | `false` | | adds ε to the squares, as the paper does |
/// | `scale_parameter` | `true` | | makes steps relative to the parameter's rms |
/// | `relative_step` | `true` | | limits the learning rate to 1/√t |
/// | `min_side` | 0 | | a matrix with fewer rows or columns has one v per element |
///
/// # State
/// `row_var` and `col_var`, one element per row and one per column: a matrix of 1000 × 1000 has 8 kB in f32, where Adam has 8 MB. Vectors, numbers and
/// matrices below `min_side` have `variance`, one element per parameter. With `beta1` also `exp_avg`, one element per parameter.
///
/// # Conventions
/// PyTorch's `Adafactor`, which calls s and d `eps[1]` and `d`. The others compute
/// ```text
/// Hugging Face   Adafactor::new(0.01).eps_inside_mean(true)            relative_step=True; with warmup_init=True the learning rate is
///                                                                      |step| 1e-6 * (step + 1) as f64
///                Adafactor::new(η).eps_inside_mean(true).relative_step(false)    with a learning rate η
/// optax          the same with .min_side(128), and .scale_parameter(…) for multiply_by_parameter_scale
/// ```
/// Hugging Face multiplies λ by α instead of η, and optax does not multiply it. optax takes the two longest axes for rows and columns, which differs for
/// tensors of three axes or more.
///
/// # Errors
/// A step returns [`StepError::NonFiniteGradient`](crate::error::StepError::NonFiniteGradient) or
/// [`StepError::NormOverflow`](crate::error::StepError::NormOverflow) for a gradient that would make a whole tensor NaN,
/// [`StepError::HyperParameter`](crate::error::StepError::HyperParameter) if a value is out of range, and the errors of
/// [`Step::pair`](crate::Step::pair) and of changed parameters.
///
/// # Example
/// ```
/// use gradus::prelude::*;
/// use ndarray::Array2;
///
/// let mut opt = Adafactor::new(0.01);
/// let mut w = Array2::<f32>::ones((100, 50));
/// opt.step(&mut w, &Array2::from_elem((100, 50), 3.0))?;
/// assert!((w[[0, 0]] - 0.99).abs() < 1e-6); // a hundredth of its size
/// assert_eq!(opt.state_bytes(), 4 * (100 + 50));
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// # References
/// N. Shazeer and M. Stern, *Adafactor: Adaptive Learning Rates with Sublinear Memory Cost* (2018),
/// [arXiv:1804.04235](https://arxiv.org/abs/1804.04235), algorithms 4 and 5.
pub type Adafactor<A = f32> = Factored<AdafactorRule, A>;

hyper_parameters! {
    /// The rule of [`Adafactor`].
    pub struct AdafactorRule => AdafactorValues for Factored {
        /// The exponent γ ≤ 0 of the weight of new means.
        beta2_decay / set_beta2_decay: -0.8, ..=0.0;
        /// The smallest root mean square s > 0 of a parameter that steps are relative to.
        min_scale / set_min_scale: 1e-3, (Bound::Excluded(0.0), Bound::Unbounded);
        /// The largest root mean square d > 0 of an update.
        clip_threshold / set_clip_threshold: 1.0, (Bound::Excluded(0.0), Bound::Unbounded);
    }
    optional {
        /// The smallest divisor ε > 0, or with `eps_inside_mean` what is added to squares of gradients.
        eps / set_eps: (Bound::Excluded(0.0), Bound::Unbounded);
        /// The part β₁ of a momentum that is kept per step, 0 ≤ β₁ < 1. Without it there is no momentum.
        beta1 / set_beta1: 0.0..1.0;
    }
    options {
        /// Adds ε to the squares of gradients, as the paper does, instead of limiting the divisor.
        eps_inside_mean: bool = false;
        /// Makes steps relative to the root mean square of the parameter, which is the default.
        scale_parameter: bool = true;
        /// Limits the learning rate to 1/√t, which is the default.
        relative_step: bool = true;
        /// The fewest rows and columns of a matrix that is factored.
        min_side: usize = 0;
    }
}

/// The paper's ε₁, which is added to squares.
const EPS_INSIDE_MEAN: f64 = 1e-30;

impl<A: Scalar> Adafactor<A> {
    /// Adafactor with PyTorch's defaults: γ −0.8, ε of the type, s 1e-3, d 1, no weight decay.
    pub fn new(learning_rate: impl Into<Hyper>) -> Self {
        Self::from_rule(AdafactorRule::default(), learning_rate)
    }
}

impl<A: Scalar> FactoredRule<A> for AdafactorRule {
    fn name(&self) -> &'static str {
        "adafactor"
    }

    fn is_factored(&self, shape: &[usize]) -> bool {
        shape.iter().rev().take(2).all(|side| *side >= self.min_side)
    }

    fn has_momentum(&self) -> bool {
        self.beta1.is_some()
    }

    fn moments(&self, values: &AdafactorValues, at: &At) -> Moments {
        let default = if self.eps_inside_mean { EPS_INSIDE_MEAN } else { A::epsilon().as_f64() };
        let eps = values.eps.unwrap_or(default);
        let (added, least) = if self.eps_inside_mean { (eps, 0.0) } else { (0.0, eps) };
        let fresh = 1.0 / real_power(at.step as f64, -values.beta2_decay);
        Moments { fresh, added, least, momentum: values.beta1.unwrap_or(0.0) }
    }

    fn step_size(&self, values: &AdafactorValues, at: &At, rms: &Rms) -> f64 {
        let longest = if self.relative_step { 1.0 / (at.step as f64).sqrt() } else { f64::INFINITY };
        let scale = if self.scale_parameter { rms.param.max(values.min_scale) } else { 1.0 };
        scale * at.learning_rate.min(longest) / (rms.direction / values.clip_threshold).max(1.0)
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array1, Array2, ArrayD, array};

    use crate::error::{Error, StepError};
    use crate::prelude::*;

    #[test]
    fn first_steps_by_hand() {
        // r = (4, 8), c = (2, 10), mean of r = 6.
        let mut opt = Adafactor::new(0.5).beta2_decay(-1.0).clip_threshold(8.0).weight_decay(0.5);
        let mut w: Array2<f64> = array![[4.0, 4.0], [4.0, 4.0]];
        opt.step(&mut w, &array![[2.0, 2.0], [0.0, 4.0]]).unwrap();
        assert_eq!(opt.slot("", "row_var"), Some(array![[4.0], [8.0]].into_dyn()));
        assert_eq!(opt.slot("", "col_var"), Some(array![[2.0, 10.0]].into_dyn()));
        let expected = |g: f64, v: f64| 4.0 * 0.75 - 4.0 * 0.5 * g / v.sqrt();
        assert!((w[[0, 0]] - expected(2.0, 4.0 * 2.0 / 6.0)).abs() < 1e-14, "{w}");
        assert!((w[[1, 1]] - expected(4.0, 8.0 * 10.0 / 6.0)).abs() < 1e-14, "{w}");
        // The weight of the second means is a half.
        opt.step(&mut w, &Array2::zeros((2, 2))).unwrap();
        assert_eq!(opt.slot("", "row_var"), Some(array![[2.0], [4.0]].into_dyn()));
    }

    #[test]
    fn vectors_have_a_moment_per_element() {
        // v = g² and u = 1 for the first element, 0 for the second: rms(u) = √½ ≤ 1; α = rms(θ)·η = 2·0.25.
        let (mut opt, mut w) = (Adafactor::new(0.25), array![2.0, -2.0]);
        opt.step(&mut w, &array![8.0, 0.0]).unwrap();
        assert_eq!(w, array![1.5, -2.0]);
        assert_eq!(opt.slot("", "variance"), Some(array![64.0, 0.0].into_dyn()));
    }

    #[test]
    fn updates_are_clipped() {
        let (mut opt, mut w) = (Adafactor::new(0.25).clip_threshold(0.5), array![2.0, 2.0]);
        opt.step(&mut w, &array![8.0, -8.0]).unwrap();
        assert_eq!(w, array![1.75, 2.25]);
    }

    #[test]
    fn the_options_by_hand() {
        let step = |mut opt: Adafactor<f64>| {
            let mut w = array![2.0, -2.0];
            (0..2).for_each(|_| _ = opt.step(&mut w, &array![8.0, -8.0]).unwrap());
            w
        };
        let close = |w: Array1<f64>, expected: f64| (w[0] - expected).abs() < 1e-12 && (w[1] + expected).abs() < 1e-12;
        assert!(close(step(Adafactor::new(0.5).scale_parameter(false)), 1.0));
        // 1/√2 limits the second step.
        assert!(close(step(Adafactor::new(1.0).scale_parameter(false)), 1.0 - 0.5_f64.sqrt()));
        assert!(close(step(Adafactor::new(1.0).scale_parameter(false).relative_step(false)), 0.0));
        let means = Adafactor::new(0.5).scale_parameter(false).eps_inside_mean(true).eps(36.0);
        assert!(close(step(means), 2.0 - 0.8));
        // m = 0.25, then 0.375.
        assert!(close(step(Adafactor::new(0.5).scale_parameter(false).beta1(0.5)), 2.0 - 0.625));
    }

    #[test]
    fn a_short_side_is_not_factored() {
        for (min_side, bytes) in [(3, 8 * 7), (4, 8 * 12)] {
            let (mut opt, mut w) = (Adafactor::new(0.1).min_side(min_side), Array2::<f64>::ones((3, 4)));
            opt.step(&mut w, &Array2::ones((3, 4))).unwrap();
            assert_eq!(opt.state_bytes(), bytes);
        }
    }

    #[test]
    fn rows_of_zeros_stay() {
        for opt in [Adafactor::new(0.1), Adafactor::new(0.1).eps_inside_mean(true), Adafactor::new(0.1).eps(1e-45)] {
            let (mut opt, mut w) = (opt, Array2::<f32>::ones((2, 2)));
            opt.step(&mut w, &array![[0.0, 0.0], [0.0, 1.0]]).unwrap();
            assert!(w[[0, 0]] == 1.0 && w[[1, 1]] < 1.0, "{w}");
        }
    }

    #[test]
    fn what_would_make_a_matrix_nan_is_an_error() {
        let (mut opt, mut w) = (Adafactor::new(0.1), (Array2::<f64>::ones((2, 2)), Array1::<f64>::ones(1)));
        let good = w.clone();
        opt.step(&mut w, &good).unwrap();
        let (before, state) = (w.clone(), opt.state_dict());
        for value in [f64::NAN, f64::INFINITY] {
            let error = opt.step(&mut w, &(array![[1.0, 1.0], [value, 1.0]], array![1.0])).unwrap_err();
            assert!(
                matches!(error, Error::Step(StepError::NonFiniteGradient { ref index, .. }) if index[..] == [1, 0])
            );
        }
        let error = opt.step(&mut w, &(array![[1e160, 1.0], [1.0, 1.0]], array![1.0])).unwrap_err();
        assert_eq!(error, Error::Step(StepError::NormOverflow { path: "0".into() }));
        assert!(w == before && opt.state_dict() == state);
    }

    /// A tensor of many leaves and of lines that are cut into pieces, stepped on any number of threads.
    #[test]
    fn threads_do_not_change_the_bits() {
        let wave = |shape: &[usize], phase: f64| {
            let mut at = 0.0;
            ArrayD::from_shape_simple_fn(shape, || {
                at += 1.0;
                f32::sin(0.37 * at as f32 + phase as f32)
            })
        };
        for shape in [&[700, 300][..], &[3, 20_000], &[90, 50, 60], &[20_000, 3, 3], &[200_003]] {
            let run = |threads: usize| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                pool.install(|| {
                    let (mut opt, mut w) = (Adafactor::new(0.1).beta1(0.5), wave(shape, 0.0));
                    (0..3).for_each(|step| _ = opt.step(&mut w, &wave(shape, f64::from(step))).unwrap());
                    (w, opt.state_dict())
                })
            };
            let expected = run(1);
            assert!((2..5).all(|threads| run(threads) == expected), "{shape:?}");
        }
    }
}
