//! Adam and AdamW.

use crate::error::Result;
use crate::hyper::Hyper;
use crate::rule::{At, Decay, Elementwise, Lanes, Rule};
use crate::scalar::Scalar;

/// Adam
pub type Adam<A> = Elementwise<AdamRule<false>, A>;

/// AdamW
pub type AdamW<A> = Elementwise<AdamRule<true>, A>;

/// The rule of [`Adam`] and, with decoupled decay, of [`AdamW`].
#[derive(Debug, Clone)]
pub struct AdamRule<const DECOUPLED: bool> {
    beta1: Hyper,
    beta2: Hyper,
    eps: Hyper,
    amsgrad: bool,
    eps_hat: bool,
    bias_correction: bool,
}

impl<const DECOUPLED: bool> Default for AdamRule<DECOUPLED> {
    fn default() -> Self {
        Self {
            beta1: 0.9.into(),
            beta2: 0.999.into(),
            eps: 1e-8.into(),
            amsgrad: false,
            eps_hat: false,
            bias_correction: true,
        }
    }
}

impl<A: Scalar> Adam<A> {
    /// Adam with PyTorch's defaults: β₁ 0.9, β₂ 0.999, ε 1e-8, no weight decay.
    pub fn new(learning_rate: impl Into<Hyper>) -> Self {
        Self::from_rule(AdamRule::default(), learning_rate)
    }
}

impl<A: Scalar> AdamW<A> {
    /// AdamW with PyTorch's defaults: β₁ 0.9, β₂ 0.999, ε 1e-8, weight decay 0.01.
    pub fn new(learning_rate: impl Into<Hyper>) -> Self {
        Self::from_rule(AdamRule::default(), learning_rate).weight_decay(0.01)
    }
}

/// Adam's setters, and AdamW's.
impl<A: Scalar, const DECOUPLED: bool> Elementwise<AdamRule<DECOUPLED>, A> {
    /// The decay β₁ of the first moment, 0 ≤ β₁ < 1.
    pub fn beta1(mut self, beta1: impl Into<Hyper>) -> Self {
        self.rule.beta1 = beta1.into();
        self
    }

    /// The decay β₂ of the second moment, 0 ≤ β₂ < 1.
    pub fn beta2(mut self, beta2: impl Into<Hyper>) -> Self {
        self.rule.beta2 = beta2.into();
        self
    }

    /// The ε ≥ 0 that keeps the division finite.
    pub fn eps(mut self, eps: impl Into<Hyper>) -> Self {
        self.rule.eps = eps.into();
        self
    }

    /// Divides by the largest second moment seen (AMSGrad).
    pub fn amsgrad(mut self) -> Self {
        self.rule.amsgrad = true;
        self
    }

    /// Adds ε to √v before the bias correction (the paper's ε̂; Keras).
    pub fn eps_hat(mut self) -> Self {
        self.rule.eps_hat = true;
        self
    }

    /// Takes the moments as they are, biased towards zero in the first steps.
    pub fn no_bias_correction(mut self) -> Self {
        self.rule.bias_correction = false;
        self
    }
}

/// The hyper-parameters of one step.
#[derive(Debug)]
pub struct Values {
    beta1: f64,
    beta2: f64,
    eps: f64,
}

/// The numbers of one step and tensor.
#[derive(Debug)]
pub struct Coefficients<A> {
    beta1: A,
    one_minus_beta1: A,
    beta2: A,
    one_minus_beta2: A,
    step_size: A,
    root_scale: A,
    eps: A,
}

impl<A: Scalar, const DECOUPLED: bool> Rule<A> for AdamRule<DECOUPLED> {
    type Values = Values;
    type Coefficients = Coefficients<A>;

    fn name(&self) -> &'static str {
        if DECOUPLED { "adamw" } else { "adam" }
    }

    fn slots(&self) -> &'static [&'static str] {
        if self.amsgrad { &["exp_avg", "exp_avg_sq", "max_exp_avg_sq"] } else { &["exp_avg", "exp_avg_sq"] }
    }

    fn decay(&self) -> Decay {
        if DECOUPLED { Decay::Decoupled } else { Decay::Coupled }
    }

    fn values(&self, step: u64) -> Result<Values> {
        Ok(Values {
            beta1: self.beta1.within("beta1", 0.0..1.0, step)?,
            beta2: self.beta2.within("beta2", 0.0..1.0, step)?,
            eps: self.eps.within("eps", 0.0.., step)?,
        })
    }

    fn coefficients(&self, &Values { beta1, beta2, eps }: &Values, at: &At) -> Coefficients<A> {
        let correction = |beta: f64| if self.bias_correction { 1.0 - beta.powf(at.step as f64) } else { 1.0 };
        let (first, root) = (correction(beta1), correction(beta2).sqrt());
        let (step_size, root_scale) = match self.eps_hat {
            false => (at.learning_rate / first, 1.0 / root),
            true => (at.learning_rate * root / first, 1.0),
        };
        Coefficients {
            beta1: A::from_f64(beta1),
            one_minus_beta1: A::from_f64(1.0 - beta1),
            beta2: A::from_f64(beta2),
            one_minus_beta2: A::from_f64(1.0 - beta2),
            step_size: A::from_f64(step_size),
            root_scale: A::from_f64(root_scale),
            eps: A::from_f64(eps),
        }
    }

    fn sweep(&self, c: &Coefficients<A>, lanes: Lanes<'_, A>) {
        match self.amsgrad {
            false => lanes.each(|param, grad, [m, v]: [A; 2]| {
                let (m, v) = c.moments(grad, m, v);
                (c.moved(param, m, v), [m, v])
            }),
            true => lanes.each(|param, grad, [m, v, max]: [A; 3]| {
                let (m, v) = c.moments(grad, m, v);
                let max = if max > v { max } else { v };
                (c.moved(param, m, max), [m, v, max])
            }),
        }
    }
}

impl<A: Scalar> Coefficients<A> {
    #[inline(always)]
    fn moments(&self, grad: A, m: A, v: A) -> (A, A) {
        (self.beta1 * m + self.one_minus_beta1 * grad, self.beta2 * v + self.one_minus_beta2 * grad * grad)
    }

    #[inline(always)]
    fn moved(&self, param: A, m: A, v: A) -> A {
        param - self.step_size * (m / (v.sqrt() * self.root_scale + self.eps))
    }
}
