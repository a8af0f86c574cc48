//! Quantities of a tensor that a rule tells its driver.

/// The slot in which a rule averages the squared gradient: v̂ = scale·slot.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SecondMoment {
    /// Its position in [`Rule::slots`](super::Rule::slots).
    pub slot: usize,
    /// The factor that corrects its bias, such as 1/(1 − β₂ᵗ).
    pub scale: f64,
    /// The ε of the rule. v̂ counts as at least ε².
    pub eps: f64,
}

/// A norm of a tensor that a rule needs before it computes its coefficients.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum TensorNorm<C> {
    /// The Euclidean norm of the gradient, with its scale and limit.
    Gradient,
    /// The Euclidean norm of the directions that the rule computes with these coefficients. Nothing moves, and no slot changes.
    Directions(C),
}

/// A ratio φ = c‖θ‖/(‖g‖ + λ‖θ‖ + ε) of a tensor, 1 if θ or g is 0. λ is that of coupled weight decay.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GradientRatio {
    /// c.
    pub coefficient: f64,
    /// ε.
    pub eps: f64,
}

impl GradientRatio {
    /// φ, from the norms of parameter and gradient and λ.
    pub(super) fn of(self, param: f64, grad: f64, decay: f64) -> f64 {
        let ratio = self.coefficient * (param / (grad + decay * param + self.eps));
        if param > 0.0 && grad > 0.0 { ratio } else { 1.0 }
    }
}
