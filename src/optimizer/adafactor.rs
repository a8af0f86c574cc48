//! Adafactor.

use std::ops::Bound;

use crate::hyper_parameters;
use crate::params::Scalar;
use crate::rule::{At, DecayRate, Factored, FactoredRule, Moments, Rms, real_power};
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
/// decay_offset(n):         wₜ ← max(1, t − n)^γ
/// beta2_cap(c):            wₜ ← max(1 − c, wₜ)
/// scale_parameter(false):  α ← min(η, 1/√t)
/// relative_step(false):    α ← max(s, rms(θ))·η
/// warmup_init(true):       η in α is at most 10⁻⁶t
/// clip_updates(false):     θ ← θ − α·u
/// beta1(β₁):               m ← β₁m + (1 − β₁)·α·u / max(1, rms(u)/d),  θ ← θ − m
/// momentum_first(true):    m ← β₁m + (1 − β₁)·u / max(1, rms(u)/d),  θ ← θ − α·m
/// scaled_decay(true):      θ ← θ(1 − αλ)
/// ```
/// The forms of other libraries are these options with their defaults:
/// ```text
/// hugging_face(η):  eps_inside_mean, scaled_decay                                    α ← max(s, rms(θ))·min(η, 1/√t)
/// optax(η):         eps_inside_mean, no relative_step, min_side 128, longest_axes    α ← max(s, rms(θ))·η,  θ ← θ(1 − λ)
/// big_vision(η):    eps_inside_mean, no relative_step, no scale_parameter,           α ← η
///                   no clip_updates, min_side 16, longest_axes,
///                   beta2_cap 0.999, beta1 0.9, momentum_first
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
/// | `beta2_cap` c | none | 0 ≤ c < 1 | largest part of the old means that is kept per step |
/// | `weight_decay` λ | 0 | λ ≥ 0 | decoupled decay, per unit of learning rate |
/// | `eps_inside_mean` | `false` | | adds ε to the squares, as the paper does |
/// | `scale_parameter` | `true` | | makes steps relative to the parameter's rms |
/// | `relative_step` | `true` | | limits the learning rate to 1/√t |
/// | `warmup_init` | `false` | | limits the learning rate to 10⁻⁶t |
/// | `clip_updates` | `true` | | limits the rms of an update to d |
/// | `momentum_first` | `false` | | averages updates before they are multiplied by α |
/// | `scaled_decay` | `false` | | multiplies λ by α instead of η; a [fixed decay](crate::rule::DecayRate::Fixed) stays λ |
/// | `decay_offset` | 0 | | first steps in which the means are those of the current gradient |
/// | `longest_axes` | `false` | | takes the two longest axes for rows and columns, and of equal ones the later |
/// | `min_side` | 0 | | a matrix with fewer rows or columns has one v per element |
///
/// # State
/// `row_var` and `col_var`, one element per row and one per column: a matrix of 1000 × 1000 has 8 kB in f32, where Adam has 8 MB. Vectors, numbers and
/// matrices below `min_side` have `variance`, one element per parameter. With `beta1` also `exp_avg`, one element per parameter.
///
/// # Conventions
/// PyTorch's `Adafactor`, which calls s and d `eps[1]` and `d`. The constructors for the others:
///
/// | | like | differences |
/// |---|---|---|
/// | [`hugging_face`](Adafactor::hugging_face) | transformers' `Adafactor`, also fairseq's | η 0.01 for its `lr=None`. With a learning rate, it needs `relative_step(false)` |
/// | [`optax`](Adafactor::optax) | `optax.adafactor` | none |
/// | [`big_vision`](Adafactor::big_vision) | timm's `AdafactorBigVision` (`adafactorbv`) | the momentum has the type of the parameter, and in timm bf16 |
///
/// Big Vision itself does not multiply λ by η: use `decoupled_decay(DecayRate::Fixed)`, which is timm's `unscaled_wd`.
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
/// [arXiv:1804.04235](https://arxiv.org/abs/1804.04235), algorithms 4 and 5. X. Zhai et al., *Scaling Vision Transformers* (2021),
/// [arXiv:2106.04560](https://arxiv.org/abs/2106.04560), section 3.4 (`big_vision`).
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
        /// The largest part of the old means that is kept per step, 0 to below 1. Without it the part grows towards 1.
        beta2_cap / set_beta2_cap: 0.0..1.0;
    }
    options {
        /// Adds ε to the squares of gradients, as the paper does, instead of limiting the divisor.
        eps_inside_mean: bool = false;
        /// Makes steps relative to the root mean square of the parameter, which is the default.
        scale_parameter: bool = true;
        /// Limits the learning rate to 1/√t, which is the default.
        relative_step: bool = true;
        /// Limits the learning rate to 10⁻⁶t.
        warmup_init: bool = false;
        /// Limits the root mean square of an update, which is the default.
        clip_updates: bool = true;
        /// Averages updates before they are multiplied by the step size, instead of after it. It needs `beta1`.
        momentum_first: bool = false;
        /// Multiplies the weight decay by α, which depends on the parameter and the step, instead of the learning rate.
        scaled_decay: bool = false;
        /// The number of first steps in which the means are those of the current gradient.
        decay_offset: u64 = 0;
        /// Takes the two longest axes for rows and columns, instead of the last two. Of equal ones, it takes the later.
        longest_axes: bool = false;
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

    /// Hugging Face's form: ε 1e-30 inside the mean, and weight decay per unit of α. `hugging_face(0.01)` is `Adafactor(params)` in transformers.
    ///
    /// ```text
    /// transformers                                                gradus
    /// Adafactor(params)                                           Adafactor::hugging_face(0.01)
    /// Adafactor(params, warmup_init=True)                         Adafactor::hugging_face(0.01).warmup_init(true)
    /// Adafactor(params, lr=η, relative_step=False)                Adafactor::hugging_face(η).relative_step(false)
    /// eps=(ε, s), clip_threshold=d, decay_rate=γ, beta1=β₁        .eps(ε).min_scale(s).clip_threshold(d).beta2_decay(γ).beta1(β₁)
    /// ```
    pub fn hugging_face(learning_rate: impl Into<Hyper>) -> Self {
        Self::new(learning_rate).eps_inside_mean(true).scaled_decay(true)
    }

    /// optax's form: ε 1e-30 inside the mean, the learning rate without the limit 1/√t, factors only for sides of at least 128, and weight decay that is
    /// not multiplied by the learning rate.
    ///
    /// ```text
    /// optax                                gradus
    /// decay_rate=r, decay_offset=n         .beta2_decay(−r).decay_offset(n)
    /// multiply_by_parameter_scale=False    .scale_parameter(false)
    /// clipping_threshold=d, None           .clip_threshold(d), .clip_updates(false)
    /// momentum=β₁                          .beta1(β₁)
    /// ```
    pub fn optax(learning_rate: impl Into<Hyper>) -> Self {
        let inside = Self::new(learning_rate).eps_inside_mean(true);
        inside.relative_step(false).min_side(128).longest_axes(true).decoupled_decay(DecayRate::Fixed)
    }

    /// Big Vision's form, as timm has it: ε 1e-30 inside the mean, a momentum of 0.9 before the learning rate, β₂ of at most 0.999, factors only for sides
    /// of at least 16, and neither limits nor scales of the update.
    ///
    /// ```text
    /// timm                                 gradus
    /// decay_rate=r, decay_offset=n         .beta2_decay(−r).decay_offset(n)
    /// clipping_threshold=d                 .clip_updates(true).clip_threshold(d)
    /// unscaled_wd=True                     .decoupled_decay(DecayRate::Fixed)
    /// corrected_weight_decay=True          .decoupled_decay(DecayRate::Corrected { … })
    /// ```
    pub fn big_vision(learning_rate: impl Into<Hyper>) -> Self {
        let inside = Self::new(learning_rate).eps_inside_mean(true).relative_step(false).scale_parameter(false);
        let inside = inside.min_side(16).longest_axes(true);
        inside.clip_updates(false).beta2_cap(0.999).beta1(0.9).momentum_first(true)
    }
}

/// With `warmup_init`, the growth of the largest learning rate per step.
const WARMUP: f64 = 1e-6;

impl AdafactorRule {
    /// The largest learning rate of a step.
    fn longest(&self, step: f64) -> f64 {
        let relative = if self.relative_step { 1.0 / step.sqrt() } else { f64::INFINITY };
        if self.warmup_init { relative.min(WARMUP * step) } else { relative }
    }

    /// The step size α without what clips an update.
    fn alpha(&self, values: &AdafactorValues, at: &At, rms: &Rms) -> f64 {
        let scale = if self.scale_parameter { rms.param.max(values.min_scale) } else { 1.0 };
        scale * at.learning_rate.min(self.longest(at.step as f64))
    }

    /// What an update is divided by so that it is not too long.
    fn excess(&self, values: &AdafactorValues, rms: &Rms) -> f64 {
        if self.clip_updates { (rms.direction / values.clip_threshold).max(1.0) } else { 1.0 }
    }
}

impl<A: Scalar> FactoredRule<A> for AdafactorRule {
    fn name(&self) -> &'static str {
        "adafactor"
    }

    fn is_factored(&self, shape: &[usize]) -> bool {
        let (rows, columns) = FactoredRule::<A>::axes(self, shape);
        shape[rows].min(shape[columns]) >= self.min_side
    }

    fn axes(&self, shape: &[usize]) -> (usize, usize) {
        let last = (shape.len().saturating_sub(2), shape.len().saturating_sub(1));
        if !self.longest_axes {
            return last;
        }
        let mut axes: Vec<usize> = (0..shape.len()).collect();
        axes.sort_by_key(|axis| shape[*axis]);
        let (rows, columns) = (axes[last.0], axes[last.1]);
        // Which of them are the rows makes no difference but for rounding.
        if (columns, rows) == last { last } else { (rows, columns) }
    }

    fn has_momentum(&self) -> bool {
        self.beta1.is_some()
    }

    fn moments(&self, values: &AdafactorValues, at: &At) -> Moments {
        let default = if self.eps_inside_mean { EPS_INSIDE_MEAN } else { A::epsilon().as_f64() };
        let eps = values.eps.unwrap_or(default);
        let (added, least) = if self.eps_inside_mean { (eps, 0.0) } else { (0.0, eps) };
        let counted = at.step.saturating_sub(self.decay_offset).max(1);
        let fresh = 1.0 / real_power(counted as f64, -values.beta2_decay);
        let fresh = values.beta2_cap.map_or(fresh, |cap| fresh.max(1.0 - cap));
        Moments { fresh, added, least, momentum: values.beta1.unwrap_or(0.0) }
    }

    fn step_size(&self, values: &AdafactorValues, at: &At, rms: &Rms) -> f64 {
        let is_later = self.momentum_first && self.beta1.is_some();
        let length = if is_later { 1.0 } else { self.alpha(values, at, rms) };
        length / self.excess(values, rms)
    }

    fn momentum_step_size(&self, values: &AdafactorValues, at: &At, rms: &Rms) -> f64 {
        if self.momentum_first { self.alpha(values, at, rms) } else { 1.0 }
    }

    fn decay_factor(&self, values: &AdafactorValues, at: &At, rms: &Rms) -> f64 {
        match at.learning_rate {
            0.0 => 1.0,
            rate if self.scaled_decay => self.alpha(values, at, rms) / rate,
            _ => 1.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array1, Array2, ArrayD, array};

    use crate::error::{Error, StepError};
    use crate::prelude::*;
    use crate::rule::DecayRate;

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

    /// rms(θ) = 2, and u = ±1.
    #[test]
    fn the_forms_by_hand() {
        let after = |mut opt: Adafactor<f64>, steps: usize| {
            let mut w = array![2.0, -2.0];
            (0..steps).for_each(|_| _ = opt.step(&mut w, &array![8.0, -8.0]).unwrap());
            assert_eq!(w[0], -w[1]);
            w[0]
        };
        let close = |found: f64, expected: f64| assert!((found - expected).abs() < 1e-14, "{found} {expected}");
        // α = 2·0.25 decays and moves.
        close(after(Adafactor::hugging_face(0.25).weight_decay(0.5), 1), 2.0 * 0.75 - 0.5);
        close(after(Adafactor::hugging_face(0.25).warmup_init(true), 1), 2.0 - 2e-6);
        close(after(Adafactor::hugging_face(0.0).weight_decay(0.5), 1), 2.0);
        close(after(Adafactor::hugging_face(0.25).weight_decay(0.5).decoupled_decay(DecayRate::Fixed), 1), 1.0 - 0.5);
        // λ alone decays.
        close(after(Adafactor::optax(0.25).weight_decay(0.5), 1), 1.0 - 0.5);
        // m = 0.1, then 0.19.
        close(after(Adafactor::big_vision(|step| if step == 0 { 0.5 } else { 1.0 }), 2), 2.0 - 0.05 - 0.19);
        // Without a momentum, there is none to be averaged before α.
        close(after(Adafactor::new(0.25).momentum_first(true), 1), 1.5);
    }

    #[test]
    fn the_weight_of_new_means() {
        let second = |mut opt: Adafactor<f64>| {
            let mut w = array![2.0];
            (0..2).for_each(|step| _ = opt.step(&mut w, &array![f64::from(2 * step)]).unwrap());
            opt.slot("", "variance").unwrap()[0]
        };
        let opt = || Adafactor::new(0.1).beta2_decay(-1.0);
        assert_eq!([second(opt()), second(opt().beta2_cap(0.25)), second(opt().decay_offset(1))], [2.0, 3.0, 4.0]);
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
    fn the_longest_axes_are_the_last_two_of_a_turned_tensor() {
        let grad = ArrayD::from_shape_fn(vec![6, 5, 3], |i| ((i[0] * 15 + i[1] * 3 + i[2]) as f64).sin());
        let (mut w, mut turned) = (grad.clone(), grad.t().as_standard_layout().into_owned());
        let (mut longest, mut last) =
            (Adafactor::new(0.1).longest_axes(true).beta1(0.5), Adafactor::new(0.1).beta1(0.5));
        for scale in [1.0, -2.0, 0.5] {
            longest.step(&mut w, &(&grad * scale)).unwrap();
            last.step(&mut turned, &(&grad.t() * scale)).unwrap();
        }
        assert!((&w.t() - &turned).iter().all(|d| d.abs() < 1e-14));
        let shape = |slot: &str| longest.slot("", slot).unwrap().shape().to_vec();
        assert_eq!(["row_var", "col_var", "exp_avg"].map(shape), [[1, 5, 3], [6, 1, 3], [6, 5, 3]]);
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
        for longest in [false, true] {
            for shape in [&[700, 300][..], &[3, 20_000], &[90, 50, 60], &[20_000, 3, 3], &[200_003]] {
                let run = |threads: usize| {
                    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                    pool.install(|| {
                        let (mut opt, mut w) = (Adafactor::new(0.1).beta1(0.5).longest_axes(longest), wave(shape, 0.0));
                        (0..3).for_each(|step| _ = opt.step(&mut w, &wave(shape, f64::from(step))).unwrap());
                        (w, opt.state_dict())
                    })
                };
                let expected = run(1);
                assert!((2..5).all(|threads| run(threads) == expected), "{shape:?}");
            }
        }
    }
}
