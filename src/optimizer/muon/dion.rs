//! Dion: orthonormal steps of low rank, with the rest kept for later steps.

use std::ops::Bound;

use ndarray::{Array2, ArrayViewMut2, Axis};

use crate::error::{Error, Result};
use crate::hyper_parameters;
use crate::kernel::orthonormal::{orthonormal_columns, random};
use crate::kernel::product::multiply;
use crate::kernel::squares::{divide, norm};
use crate::params::{Scalar, TensorInfo};
use crate::rule::{At, MatrixRule, MatrixSlot, Matrixwise, ensure_matrix};
use crate::schedule::Hyper;

/// Dion, for the hidden matrices of a model: an orthonormal step of low rank, from one power iteration per step.
///
/// # Update rule
/// ```text
/// B ← M + g
/// P ← the orthonormal columns of BQ                       the Q of a QR decomposition
/// R ← BᵀP
/// M ← B − (1 − μ)PRᵀ                                      error feedback: M keeps what PRᵀ lacks
/// Q ← the columns of R, each divided by its norm + ε
/// θ ← θ(1 − ηλ)
/// θ ← θ − η·√(rows/columns)·PQᵀ
/// ```
/// P has ⌈`rank_fraction`·min(rows, columns)⌉ columns. M is 0 and Q is random at first. If B is 0, nothing changes but θ by its decay.
///
/// # Hyper-parameters
/// | name | default | range | meaning |
/// |---|---|---|---|
/// | `learning_rate` η | – | ≥ 0 | 0.01 is usual; it carries over between widths |
/// | [`momentum`](Self::momentum) μ | 0.95 | 0 ≤ μ < 1 | the share of the step that M keeps |
/// | [`rank_fraction`](Self::rank_fraction) | 1 | 0 < fraction ≤ 1 | the rank of a step; 1/4 to 1/16 for large matrices |
/// | [`seed`](Self::seed) | 0 | | another first Q |
/// | [`eps`](Self::eps) ε | 1e-8 | > 0 | keeps divisions finite |
/// | [`weight_decay`](Self::weight_decay) λ | 0.01 | ≥ 0 | decoupled |
///
/// # State
/// `momentum_buffer`, a matrix of the parameter's size, and `right_factor` Q, columns × rank numbers: up to 8 bytes per parameter in f32.
///
/// # Conventions
/// The paper's algorithm 1, and the authors' code with `qr`. They draw the first Q from a normal distribution; here it is uniform in −1 … 1, and
/// matrices with the same number of columns and the same rank start from the same Q. P is computed in f64. Use it for hidden layers, and
/// AdamW for embeddings, heads, biases and norms. `rank_fraction` determines the state: see [`Matrixwise`] before you change it.
///
/// # Errors
/// [`StepError::NotAMatrix`](crate::error::StepError::NotAMatrix) for tensors of fewer than two axes,
/// [`StepError::NonFiniteGradient`](crate::error::StepError::NonFiniteGradient), [`StepError::NormOverflow`](crate::error::StepError::NormOverflow),
/// [`StepError::HyperParameter`](crate::error::StepError::HyperParameter); [`Range`](crate::error::ArgumentError::Range) for `rank_fraction`.
///
/// # Example
/// ```
/// use gradus::prelude::*;
/// use ndarray::array;
///
/// let mut opt = Dion::new(0.01).weight_decay(0.0); // .rank_fraction(0.25) for large matrices
/// let mut w = array![[0.0_f64, 0.0], [0.0, 0.0]];
/// for _ in 0..20 {
///     opt.step(&mut w, &array![[3.0, 0.0], [0.0, 1.0]])?;
/// }
/// assert!((w[[0, 0]] + 0.2).abs() < 0.02 && (w[[1, 1]] + 0.2).abs() < 0.02); // as far in both directions
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// # References
/// K. Ahn et al., *Dion: Distributed Orthonormalized Updates* (2025), [arXiv:2504.05295](https://arxiv.org/abs/2504.05295), algorithm 1.
pub type Dion<A = f32> = Matrixwise<DionRule, A>;

hyper_parameters! {
    /// The rule of [`Dion`].
    pub struct DionRule => DionValues for Matrixwise {
        /// The momentum μ, 0 ≤ μ < 1.
        momentum / set_momentum: 0.95, 0.0..1.0;
        /// The ε > 0 that keeps divisions finite.
        eps / set_eps: 1e-8, (Bound::Excluded(0.0), Bound::Unbounded);
    }
    options {
        /// The rank of a step as a fraction of the shorter side, above 0 and at most 1.
        rank_fraction: f64 = 1.0;
        /// Chooses another first Q.
        seed: u64 = 0;
    }
}

impl<A: Scalar> Dion<A> {
    /// Dion with the authors' defaults: μ 0.95, full rank, ε 1e-8, weight decay 0.01.
    pub fn new(learning_rate: impl Into<Hyper>) -> Self {
        Self::from_rule(DionRule::default(), learning_rate).weight_decay(0.01)
    }
}

impl DionRule {
    fn rank(&self, (rows, columns): (usize, usize)) -> usize {
        let shorter = rows.min(columns);
        ((self.rank_fraction * shorter as f64).ceil() as usize).min(shorter)
    }
}

impl<A: Scalar> MatrixRule<A> for DionRule {
    fn name(&self) -> &'static str {
        "dion"
    }

    fn slots(&self, (rows, columns): (usize, usize)) -> Vec<MatrixSlot> {
        let rank = self.rank((rows, columns));
        vec![MatrixSlot::new("momentum_buffer", (rows, columns)), MatrixSlot::new("right_factor", (columns, rank))]
    }

    fn accepts(&self, tensor: &TensorInfo) -> Result<()> {
        ensure_matrix("dion", tensor)?;
        match self.rank_fraction > 0.0 && self.rank_fraction <= 1.0 {
            true => Ok(()),
            false => Err(Error::argument("rank_fraction", self.rank_fraction, "above 0 and at most 1")),
        }
    }

    fn direction(
        &self,
        values: &DionValues,
        at: &At,
        _: &TensorInfo,
        mut grad: ArrayViewMut2<'_, A>,
        slots: &mut [Array2<A>],
    ) {
        let [buffer, right] = slots else { unreachable!("there are two slots") };
        if at.step == 1 {
            (0..).zip(right.iter_mut()).for_each(|(index, q)| *q = A::from_f64(random(self.seed, index)));
        }
        *buffer += &grad;
        if norm(buffer) == 0.0 {
            return grad.fill(A::zero());
        }
        let (one, zero) = (A::one(), A::zero());
        let ((rows, columns), rank) = (grad.dim(), right.ncols());
        let mut sketch = Array2::zeros((rows, rank));
        multiply((one, buffer.view(), right.view()), zero, sketch.view_mut());
        let left = orthonormal_columns(sketch.view()).mapv(A::from_f64);
        multiply((one, buffer.t(), left.view()), zero, right.view_mut());
        let taken = A::from_f64(values.momentum - 1.0);
        multiply((taken, left.view(), right.t()), one, buffer.view_mut());
        for mut column in right.axis_iter_mut(Axis(1)) {
            let length = norm(&column) + values.eps;
            divide(&mut column, length, 1.0);
        }
        let scale = A::from_f64((rows as f64 / columns as f64).sqrt());
        multiply((scale, left.view(), right.t()), zero, grad.view_mut());
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array1, array};

    use super::*;
    use crate::prelude::*;

    fn wave(rows: usize, columns: usize) -> Array2<f64> {
        Array2::from_shape_fn((rows, columns), |(i, j)| ((i * columns + j).pow(2) as f64 * 1.7).sin())
    }

    fn step(opt: &Dion<f64>, grad: &Array2<f64>) -> (Dion<f64>, Array2<f64>) {
        let (mut opt, mut w) = (opt.clone().weight_decay(0.0), Array2::zeros(grad.dim()));
        opt.step(&mut w, grad).unwrap();
        (opt, w)
    }

    /// After many steps on one gradient, a step of full rank is the orthogonal matrix of the polar decomposition.
    #[test]
    fn full_rank_becomes_the_polar_factor() {
        let grad = array![[3.0, 0.0, 0.0], [0.0, -0.5, 0.0]];
        let (mut opt, mut w) = (Dion::new(1.0).weight_decay(0.0), Array2::zeros((2, 3)));
        (0..60).for_each(|_| _ = opt.step(&mut w, &grad).unwrap());
        let before = w.clone();
        opt.step(&mut w, &grad).unwrap();
        let expected = array![[-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]] * (2.0_f64 / 3.0).sqrt();
        assert!((&w - &before - &expected).iter().all(|x| x.abs() < 1e-7), "{}", &w - &before);
    }

    #[test]
    fn the_rank_is_the_fraction_rounded_up() {
        for (fraction, expected) in [(1.0, 5), (0.5, 3), (0.4, 2), (1e-9, 1)] {
            for shape in [(5, 8), (8, 5)] {
                let (opt, w) = step(&Dion::new(1.0).rank_fraction(fraction), &wave(shape.0, shape.1));
                assert_eq!(opt.slot("", "right_factor").unwrap().dim(), (shape.1, expected));
                // ‖PQᵀ‖² is the rank.
                let square = w.iter().map(|x| x * x).sum::<f64>() * shape.1 as f64 / shape.0 as f64;
                assert!((square - expected as f64).abs() < 1e-6, "{square} is not {expected}");
            }
        }
    }

    #[test]
    fn the_momentum_keeps_what_the_step_lacks() {
        let grad = wave(6, 4);
        let (opt, _) = step(&Dion::new(1.0).rank_fraction(0.5).momentum(0.75), &grad);
        let kept = opt.slot("", "momentum_buffer").unwrap();
        // A quarter of the projection PPᵀg has been taken, which is orthogonal to the rest.
        let taken = (&grad - &kept) * 4.0;
        let square = |m: &Array2<f64>| m.iter().map(|x| x * x).sum::<f64>();
        assert!((square(&grad) - square(&taken) - square(&(&grad - &taken))).abs() < 1e-9);
    }

    #[test]
    fn a_seed_is_another_first_factor() {
        let grad = wave(6, 4);
        let of = |seed| step(&Dion::new(1.0).rank_fraction(0.3).seed(seed), &grad).1;
        assert_eq!(of(0), step(&Dion::new(1.0).rank_fraction(0.3), &grad).1);
        assert_ne!(of(0), of(1));
    }

    #[test]
    fn nothing_is_no_direction() {
        let (opt, w) = step(&Dion::new(1.0), &Array2::zeros((3, 2)));
        assert_eq!(w, Array2::<f64>::zeros((3, 2)));
        let first = opt.slot("", "right_factor").unwrap();
        assert!(first.iter().all(|q| *q != 0.0 && q.abs() <= 1.0));
        for shape in [(0, 3), (3, 0)] {
            let (_, w) = step(&Dion::new(1.0), &Array2::zeros(shape));
            assert_eq!(w.dim(), shape);
        }
    }

    #[test]
    fn what_is_refused() {
        let mut w = array![[1.0]];
        let mut said = |opt: Dion<f64>| opt.clone().step(&mut w, &array![[1.0]]).unwrap_err().to_string();
        for fraction in [0.0, -1.0, 1.1, f64::NAN] {
            assert!(said(Dion::new(0.1).rank_fraction(fraction)).ends_with("it must be above 0 and at most 1"));
        }
        let vector = Array1::<f64>::ones(2);
        let error = Dion::new(0.1).step(&mut vector.clone(), &vector).unwrap_err().to_string();
        assert!(error.starts_with("dion needs tensors with at least two axes"), "{error}");
    }
}
