//! MARS.

use super::lion::sign;
use crate::hyper_parameters;
use crate::params::Scalar;
use crate::rule::{At, Decay, Elementwise, Lanes, Rule, TensorNorm};
use crate::schedule::Hyper;

/// MARS-AdamW: AdamW with gradients that are corrected by the change since the last step, which reduces their variance.
///
/// # Update rule
/// ```text
/// c ← ∇J(θ) + γβ₁/(1 − β₁)·(∇J(θ) − g₋)
/// c ← c/max(1, ‖c‖)                       the norm of the tensor
/// m ← β₁m + (1 − β₁)c
/// v ← β₂v + (1 − β₂)c²
/// θ ← θ(1 − ηλ)
/// θ ← θ − η·m/(1 − β₁ᵗ) / (√(v/(1 − β₂ᵗ)) + ε)
/// g₋ ← ∇J(θ)
/// ```
/// t is the number of steps in which the tensor had a gradient, starting at 1. Tensors with fewer than two axes have `c = ∇J(θ)`, which is AdamW; with
/// [`vectors(true)`](Mars::vectors) they are corrected and clipped, too. Give them hyper-parameters of their own in a
/// [group](crate::OptimizerExt::group).
///
/// # Hyper-parameters
/// Each is set by the method of its name and takes a number, a [schedule](crate::schedule) or a closure.
///
/// | name | default | range | meaning |
/// |---|---|---|---|
/// | `learning_rate` η | – | η ≥ 0 | length of the step, in units of the parameter; the authors' default is 3e-3 |
/// | `beta1` β₁ | 0.95 | 0 ≤ β₁ < 1 | fraction of the first moment kept per step |
/// | `beta2` β₂ | 0.99 | 0 ≤ β₂ < 1 | fraction of the second moment kept per step |
/// | `gamma` γ | 0.025 | γ ≥ 0 | strength of the correction |
/// | `eps` ε | 1e-8 | ε ≥ 0 | keeps the division finite; unit of the gradient |
/// | `weight_decay` λ | 0 | λ ≥ 0 | decay per step and unit of learning rate |
///
/// # State
/// `exp_avg` m, `exp_avg_sq` v and `last_grad` g₋, of the parameter's shape: three elements per parameter (12 bytes in f32). A step reads parameter,
/// gradient and state of a corrected tensor twice.
///
/// # Conventions
/// The authors' code and pytorch-optimizer: g₋ is 0 in the first step, so that c is (1 + γβ₁/(1 − β₁))·∇J(θ). timm's `Mars` has c = ∇J(θ) then, which is
/// [`plain_first_step(true)`](Mars::plain_first_step), and β₁ 0.9. pytorch-optimizer adds ε before the bias correction of v, and gives vectors a weight
/// decay of 0.1 and β of (0.9, 0.95). The exact form of the paper, with two gradients per step, is not available.
///
/// If ‖c‖ is not finite, the finite elements of c count as 0. Clip the norm of gradients, which is part of the authors' training, with
/// [`clip_global_norm`](crate::OptimizerExt::clip_global_norm); g₋ is then the clipped gradient.
///
/// # Errors
/// A step returns [`StepError::HyperParameter`](crate::error::StepError::HyperParameter) if a value is out of range, and the errors of
/// [`Step::pair`](crate::Step::pair) and of changed parameters. A step of which this rank has only parts of tensors is also an error, and so is a gradient
/// of [`Rows`](crate::Rows) for a corrected tensor.
///
/// # Example
/// ```
/// use gradus::prelude::*;
/// use ndarray::array;
///
/// let mut opt = Mars::new(0.25).beta1(0.5).gamma(1.0).eps(0.0);
/// let mut w = array![[1.0, 1.0]];
/// opt.step(&mut w, &array![[3.0, -4.0]])?; // c = (6, −8), clipped to (0.6, −0.8); then the first step of AdamW
/// assert!((w[[0, 0]] - 0.75_f64).abs() < 1e-12 && (w[[0, 1]] - 1.25_f64).abs() < 1e-12);
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// # References
/// H. Yuan et al., *MARS: Unleashing the Power of Variance Reduction for Training Large Models* (2024),
/// [arXiv:2411.10438](https://arxiv.org/abs/2411.10438), algorithm 2.
pub type Mars<A = f32> = Elementwise<MarsRule<false>, A>;

/// MARS-Lion: [`Mars`] with a step by the sign of the momentum.
///
/// # Update rule
/// ```text
/// c, m, g₋ as those of Mars
/// θ ← θ(1 − ηλ)
/// θ ← θ − η·sign(m)
/// ```
/// Tensors with fewer than two axes take AdamW, unless [`vectors(true)`](MarsLion::vectors).
///
/// # Hyper-parameters
/// Those of [`Mars`], with its methods and defaults. β₂ and ε are those of AdamW.
///
/// # State
/// That of [`Mars`]. With `vectors(true)` there is no `exp_avg_sq`: two elements per parameter (8 bytes in f32).
///
/// # Conventions
/// Those of [`Mars`]; timm's `Mars(mars_type="lion")`, pytorch-optimizer's `MARS(mars_type="lion")`. The momentum has one β, unlike
/// [`Lion`](crate::Lion)'s. sign(0) is 0.
///
/// To save the memory of v, write `vectors(true)` and give vectors to another optimizer:
/// `.route(|_: &str, shape: &[usize]| shape.len() < 2, AdamW::new(lr))`.
///
/// # Errors
/// Those of [`Mars`].
///
/// # Example
/// ```
/// use gradus::prelude::*;
/// use ndarray::array;
///
/// let mut opt = MarsLion::new(0.25);
/// let mut w = array![[1.0, 1.0]];
/// opt.step(&mut w, &array![[3.0, -4.0]])?;
/// assert_eq!(w, array![[0.75, 1.25]]);
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// # References
/// Those of [`Mars`], algorithm 3.
pub type MarsLion<A = f32> = Elementwise<MarsRule<true>, A>;

hyper_parameters! {
    /// The rule of [`Mars`] and, with steps by the sign, of [`MarsLion`].
    pub struct MarsRule<const SIGN: bool> named (if SIGN { "MarsLion" } else { "Mars" }) => MarsValues for Elementwise {
        /// The decay β₁ of the first moment, 0 ≤ β₁ < 1.
        beta1 / set_beta1: 0.95, 0.0..1.0;
        /// The decay β₂ of the second moment, 0 ≤ β₂ < 1.
        beta2 / set_beta2: 0.99, 0.0..1.0;
        /// The strength γ ≥ 0 of the correction.
        gamma / set_gamma: 0.025, 0.0..;
        /// The ε ≥ 0 that keeps the division finite.
        eps / set_eps: 1e-8, 0.0..;
    }
    options {
        /// Also corrects the gradients of tensors with fewer than two axes.
        #[doc(alias = "optimize_1d")]
        vectors: bool = false;
        /// Leaves the gradient of a tensor's first step uncorrected, as timm does. It is clipped.
        plain_first_step: bool = false;
    }
}

impl<A: Scalar> Mars<A> {
    /// MARS-AdamW with the authors' defaults: β₁ 0.95, β₂ 0.99, γ 0.025, ε 1e-8, no weight decay.
    pub fn new(learning_rate: impl Into<Hyper>) -> Self {
        Self::from_rule(MarsRule::default(), learning_rate)
    }
}

impl<A: Scalar> MarsLion<A> {
    /// MARS-Lion with the authors' defaults: β₁ 0.95, γ 0.025, no weight decay.
    pub fn new(learning_rate: impl Into<Hyper>) -> Self {
        Self::from_rule(MarsRule::default(), learning_rate)
    }
}

/// How the direction of a tensor is computed.
#[allow(unnameable_types, reason = "a part of the rule's coefficients")]
#[derive(Debug, Clone, Copy)]
pub enum Form {
    /// The direction is c before it is clipped.
    Correction,
    /// That of AdamW, with the gradient.
    AdamW,
    /// That of AdamW, with c.
    MarsAdamW,
    /// The sign of the momentum of c.
    MarsLion,
}

/// β₁, 1 − β₁, β₂, 1 − β₂, the factor of √v and ε; the factors of ∇J(θ) − g₋ and of c.
type Numbers<A> = [A; 8];

impl<const SIGN: bool> MarsRule<SIGN> {
    /// γβ₁/(1 − β₁), or 0 in a plain first step.
    fn correction(&self, values: &MarsValues, at: &At) -> f64 {
        let is_plain = self.plain_first_step && at.step == 1;
        if is_plain { 0.0 } else { values.gamma * (values.beta1 / (1.0 - values.beta1)) }
    }

    fn has_second_moment(&self) -> bool {
        !SIGN || !self.vectors
    }
}

impl<A: Scalar, const SIGN: bool> Rule<A> for MarsRule<SIGN> {
    type Coefficients = (Numbers<A>, Form);

    fn name(&self) -> &'static str {
        if SIGN { "marslion" } else { "mars" }
    }

    fn slots(&self) -> &'static [&'static str] {
        if self.has_second_moment() { &["exp_avg", "last_grad", "exp_avg_sq"] } else { &["exp_avg", "last_grad"] }
    }

    fn non_negative(&self) -> &'static [&'static str] {
        &["exp_avg_sq"]
    }

    fn decay(&self) -> Decay {
        Decay::Decoupled
    }

    fn tensor_norm(&self, values: &MarsValues, at: &At, shape: &[usize]) -> Option<TensorNorm<(Numbers<A>, Form)>> {
        let mut numbers = [A::zero(); 8];
        numbers[6] = A::from_f64(self.correction(values, at));
        (self.vectors || shape.len() > 1).then_some(TensorNorm::Directions((numbers, Form::Correction)))
    }

    fn coefficients(&self, values: &MarsValues, at: &At) -> (f64, (Numbers<A>, Form)) {
        let &MarsValues { beta1, beta2, eps, .. } = values;
        let clip = match at.norm {
            Some(norm) if norm.is_finite() => 1.0 / norm.max(1.0),
            Some(_) => 0.0,
            None => 1.0,
        };
        let scale = 1.0 / at.bias_correction(beta2).sqrt();
        let numbers = [beta1, 1.0 - beta1, beta2, 1.0 - beta2, scale, eps, self.correction(values, at), clip];
        let corrected = at.learning_rate / at.bias_correction(beta1);
        let (step_size, form) = match at.norm {
            None => (corrected, Form::AdamW),
            Some(_) if SIGN => (at.learning_rate, Form::MarsLion),
            Some(_) => (corrected, Form::MarsAdamW),
        };
        (step_size, (numbers.map(A::from_f64), form))
    }

    fn sweep(&self, (c, form): (Numbers<A>, Form), lanes: Lanes<'_, A>) {
        match (form, self.has_second_moment()) {
            (Form::AdamW, _) => lanes.each(c, |&[b1, r1, b2, r2, scale, eps, ..], _, grad, [m, _, v]: [A; 3]| {
                let (m, v) = (b1 * m + r1 * grad, b2 * v + r2 * grad * grad);
                (m / (v.sqrt() * scale + eps), [m, grad, v])
            }),
            (Form::MarsAdamW, _) => {
                lanes.each(c, |&[b1, r1, b2, r2, scale, eps, k, clip], _, grad, [m, last, v]: [A; 3]| {
                    let c = (grad + k * (grad - last)) * clip;
                    let (m, v) = (b1 * m + r1 * c, b2 * v + r2 * c * c);
                    (m / (v.sqrt() * scale + eps), [m, grad, v])
                });
            }
            (Form::MarsLion, true) => {
                lanes.each(c, |&[b1, r1, .., k, clip], _, grad, [m, last, v]: [A; 3]| {
                    let m = b1 * m + r1 * ((grad + k * (grad - last)) * clip);
                    (sign(m), [m, grad, v])
                });
            }
            (Form::MarsLion, false) => lanes.each(c, |&[b1, r1, .., k, clip], _, grad, [m, last]: [A; 2]| {
                let m = b1 * m + r1 * ((grad + k * (grad - last)) * clip);
                (sign(m), [m, grad])
            }),
            (Form::Correction, true) => {
                lanes.each(c, |&[.., k, _], _, grad, [m, last, v]: [A; 3]| (grad + k * (grad - last), [m, last, v]));
            }
            (Form::Correction, false) => {
                lanes.each(c, |&[.., k, _], _, grad, [m, last]: [A; 2]| (grad + k * (grad - last), [m, last]));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use crate::prelude::*;

    #[test]
    fn second_step_by_hand() {
        let mut opt = Mars::new(0.5).beta1(0.5).beta2(0.75).gamma(1.0).eps(0.0).weight_decay(0.5);
        let mut w = array![[4.0, 4.0]];
        opt.step(&mut w, &array![[0.125, 0.25]]).unwrap(); // c = (0.25, 0.5), not clipped; 4 decays to 3
        assert_eq!(w, array![[2.5, 2.5]]);
        assert_eq!(opt.slot("", "exp_avg"), Some(array![[0.125, 0.25]].into_dyn()));
        opt.step(&mut w, &array![[1.5625, 2.125]]).unwrap(); // c = (3, 4)/5
        let (c, m, v) = ([0.6, 0.8], [0.125, 0.25], [0.015625, 0.0625]);
        for i in 0..2 {
            let (m, v) = (0.5 * m[i] + 0.5 * c[i], 0.75 * v[i] + 0.25 * c[i] * c[i]);
            let expected = 2.5 * 0.75 - 0.5 * (m / 0.75) / (v / 0.4375_f64).sqrt();
            assert!((w[[0, i]] - expected).abs() < 1e-14, "{w} {expected}");
        }
        assert_eq!(opt.slot("", "last_grad"), Some(array![[1.5625, 2.125]].into_dyn()));
    }

    #[test]
    fn vectors_take_adamw() {
        let (mut adamw, mut expected) = (AdamW::new(0.1).beta1(0.95).beta2(0.99), array![1.0, -2.0]);
        let (mut mars, mut w) = (Mars::new(0.1).weight_decay(0.01), expected.clone());
        let (mut lion, mut v) = (MarsLion::new(0.1).weight_decay(0.01), expected.clone());
        for grad in [array![3.0, 0.5], array![-1.0, 2.0], array![0.25, 0.0]] {
            adamw.step(&mut expected, &grad).unwrap();
            mars.step(&mut w, &grad).unwrap();
            lion.step(&mut v, &grad).unwrap();
            assert_eq!((&w, &v), (&expected, &expected));
        }
        // Corrected vectors move as matrices do.
        let mut opt = Mars::new(0.1).vectors(true);
        let (mut both, grads) = ((array![1.0, -2.0], array![[1.0, -2.0]]), (array![3.0, 0.5], array![[3.0, 0.5]]));
        (0..3).for_each(|_| _ = opt.step(&mut both, &grads).unwrap());
        assert_eq!(both.0, both.1.row(0));
    }

    #[test]
    fn signs_of_the_momentum() {
        let mut opt = MarsLion::new(0.5).beta1(0.5).gamma(1.0).vectors(true);
        let mut w = array![1.0, 1.0];
        opt.step(&mut w, &array![0.25, 0.0]).unwrap(); // c = 0.5, m = 0.25
        opt.step(&mut w, &array![-0.125, 0.0]).unwrap(); // c = −0.5, m = −0.125
        assert_eq!((w, opt.slot("", "exp_avg")), (array![1.0, 1.0], Some(array![-0.125, 0.0].into_dyn())));
        assert_eq!(opt.slot("", "exp_avg_sq"), None);
    }

    #[test]
    fn a_plain_first_step() {
        let start = || (Mars::new(0.5).beta1(0.5).gamma(1.0), array![[1.0]]);
        let ((opt, mut w), grad) = (start(), array![[0.25]]);
        let mut opt = opt.plain_first_step(true);
        opt.step(&mut w, &grad).unwrap();
        assert_eq!(opt.slot("", "exp_avg"), Some(array![[0.125]].into_dyn()));
        let (mut opt, mut w) = start();
        opt.step(&mut w, &grad).unwrap();
        assert_eq!(opt.slot("", "exp_avg"), Some(array![[0.25]].into_dyn()));
    }

    #[test]
    fn one_element_that_is_not_finite_stays_alone() {
        for bad in [f64::NAN, f64::INFINITY] {
            let (mut opt, mut w) = (Mars::new(0.5), array![[1.0, 1.0]]);
            opt.step(&mut w, &array![[0.5, bad]]).unwrap();
            assert!(w[[0, 0]] == 1.0 && w[[0, 1]].is_nan(), "{w}");
        }
    }

    /// The norm of c may exceed the numbers that have squares.
    #[test]
    fn large_gradients_are_clipped() {
        let (mut opt, mut w) = (Mars::<f64>::new(0.5).beta1(0.0), array![[1.0, 1.0]]);
        opt.step(&mut w, &array![[3e200, -4e200]]).unwrap();
        let c = opt.slot("", "exp_avg").unwrap() - array![[0.6, -0.8]];
        assert!(c.iter().all(|difference| difference.abs() < 1e-15), "{c}");
    }
}
