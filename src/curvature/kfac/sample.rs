//! Targets sampled from the model's own output distribution, for the Fisher information.
//!
//! The Fisher information is the mean of ∇log p(y|x)·∇log p(y|x)ᵀ over y sampled from the *model*, not over the targets in the data. The
//! taps for [`Kfac::observe`](super::Kfac::observe) therefore come from a second backward pass, from the gradient of a sampled target. The
//! functions here sample one target per row and return the gradient of the output, row by row and not divided by the batch size, as a
//! [`LinearTap`](crate::LinearTap) needs it.
//!
//! ```
//! use gradus::curvature::sample;
//! use ndarray::array;
//! use rand::SeedableRng; // rand 0.10
//!
//! let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(0);
//!
//! let grad = sample::categorical(&array![[2.0_f64, 0.0, -2.0]], &mut rng);
//! assert!(grad.sum().abs() < 1e-12); // softmax − one-hot
//! ```

use ndarray::{Array2, ArrayRef2};
use rand::{Rng, RngExt};
use rand_distr::StandardNormal;

use crate::params::Scalar;

/// For softmax and cross-entropy over the columns: `p − onehot(y)`, y sampled from p = softmax(logits).
pub fn categorical<A: Scalar>(logits: &ArrayRef2<A>, rng: &mut impl Rng) -> Array2<A> {
    let mut grads = logits.to_owned();
    for mut row in grads.rows_mut() {
        let largest = row.iter().fold(A::neg_infinity(), |largest, x| largest.max(*x));
        row.mapv_inplace(|x| (x - largest).exp());
        let sum = row.iter().map(|x| x.as_f64()).sum::<f64>();
        row.mapv_inplace(|x| A::from_f64(x.as_f64() / sum));
        let mut left = rng.random::<f64>();
        let last = row.len().saturating_sub(1);
        let drawn = row.iter().position(|p| {
            left -= p.as_f64();
            left < 0.0
        });
        if let Some(drawn) = row.get_mut(drawn.unwrap_or(last)) {
            *drawn -= A::one();
        }
    }
    grads
}

/// For sigmoid and cross-entropy of every column: `p − y`, y sampled from Bernoulli(p), p = 1/(1 + exp(−logit)).
pub fn bernoulli<A: Scalar>(logits: &ArrayRef2<A>, rng: &mut impl Rng) -> Array2<A> {
    logits.mapv(|logit| {
        let p = 1.0 / (1.0 + (-logit.as_f64()).exp());
        A::from_f64(p - if rng.random::<f64>() < p { 1.0 } else { 0.0 })
    })
}

/// For the squared error ½‖output − y‖²: standard normal noise, independent of the output.
pub fn gaussian<A: Scalar>(outputs: &ArrayRef2<A>, rng: &mut impl Rng) -> Array2<A> {
    outputs.mapv(|_| A::from_f64(rng.sample::<f64, _>(StandardNormal)))
}

#[cfg(test)]
mod tests {
    use ndarray::array;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    /// Means over 200,000 draws are this close, five standard deviations.
    const CLOSE: f64 = 0.006;

    fn moments(
        logits: &Array2<f64>,
        draw: impl Fn(&ArrayRef2<f64>, &mut ChaCha8Rng) -> Array2<f64>,
    ) -> (Vec<f64>, Array2<f64>) {
        let rows = 200_000;
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let many = logits.broadcast((rows, logits.ncols())).unwrap().to_owned();
        let grads = draw(&many, &mut rng);
        ((0..logits.ncols()).map(|at| grads.column(at).mean().unwrap()).collect(), grads.t().dot(&grads) / rows as f64)
    }

    #[test]
    fn scores_have_mean_0_and_the_fisher_as_covariance() {
        let (logits, p) = (array![[0.5_f64.ln(), 0.3_f64.ln(), 0.2_f64.ln()]], [0.5, 0.3, 0.2]);
        let (means, fisher) = moments(&logits, categorical);
        assert!(means.iter().all(|mean| mean.abs() < CLOSE), "{means:?}");
        for ((i, j), found) in fisher.indexed_iter() {
            let expected = if i == j { p[i] - p[i] * p[j] } else { -p[i] * p[j] };
            assert!((found - expected).abs() < CLOSE, "{fisher}");
        }

        let (means, fisher) = moments(&array![[0.0, 2.0]], bernoulli);
        let p = 1.0 / (1.0 + (-2.0_f64).exp());
        assert!(means.iter().all(|mean| mean.abs() < CLOSE), "{means:?}");
        assert!((fisher[[0, 0]] - 0.25).abs() < CLOSE && (fisher[[1, 1]] - p * (1.0 - p)).abs() < CLOSE, "{fisher}");

        let (means, fisher) = moments(&array![[7.0]], gaussian);
        assert!(means[0].abs() < 2.0 * CLOSE && (fisher[[0, 0]] - 1.0).abs() < 3.0 * CLOSE, "{means:?} {fisher}");
    }
}
