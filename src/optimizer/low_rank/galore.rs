//! GaLore.

use ndarray::{Array2, ArrayView2, ArrayViewMut2, Axis};

use super::{moments, project, sides};
use crate::error::Result;
use crate::hyper_parameters;
use crate::kernel::adam::adam;
use crate::kernel::decomposition::eigen;
use crate::kernel::product::faer::blend_gram;
use crate::kernel::product::multiply;
use crate::params::{Scalar, TensorInfo};
use crate::rule::{At, MatrixRule, MatrixSlot, Matrixwise, ensure_matrix};
use crate::schedule::Hyper;

/// GaLore: AdamW's state in the subspace of the gradient's largest singular values.
///
/// # Update rule
/// ```text
/// every `update_proj_gap` steps, from the first on:  P ← the first `rank` right singular vectors of g
/// r ← gP
/// m ← β₁m + (1 − β₁)r,  v ← β₂v + (1 − β₂)r²
/// θ ← θ(1 − ηλ)
/// θ ← θ − η·scale·√(1 − β₂ᵗ)/(1 − β₁ᵗ) · (m / (√v + ε))Pᵀ
/// ```
/// A matrix with more columns than rows has the left singular vectors, r = Pᵀg and P(m/(√v + ε)). A singular vector has the sign with which its
/// largest element is positive. m and v are not changed when P is. A tensor of more axes is reshaped to a matrix of its first axis and all others.
///
/// # Hyper-parameters
/// Each but the last two is set by the method of its name and takes a number, a [schedule](crate::schedule) or a closure.
///
/// | name | default | range | meaning |
/// |---|---|---|---|
/// | `learning_rate` η | – | η ≥ 0 | 0.01 is usual: `scale` makes the steps shorter |
/// | `beta1` β₁ | 0.9 | 0 ≤ β₁ < 1 | decay of the first moment |
/// | `beta2` β₂ | 0.999 | 0 ≤ β₂ < 1 | decay of the second moment |
/// | `eps` ε | 1e-6 | ε ≥ 0 | keeps the division finite; unit of the gradient |
/// | `scale` | 0.25 | ≥ 0 | factor of the direction |
/// | `weight_decay` λ | 0 | λ ≥ 0 | decoupled decay, per unit of learning rate |
/// | `rank` | 128 | ≥ 1 | dimensions of the subspace; at most the shorter side is used |
/// | `update_proj_gap` | 200 | ≥ 1 | steps per projection |
///
/// # State
/// `exp_avg` m and `exp_avg_sq` v, rank × longer side each, and `projection` P, shorter side × rank. In f32 a matrix of 1000 × 1000 has 1.5 MB, which
/// is 1.5 bytes per parameter, where Adam has 8.
///
/// # Conventions
/// galore-torch's `GaLoreAdamW` with `proj_type="std"`, whose users set `rank`, `scale` and `update_proj_gap`. There weight decay is applied after the
/// step, and the signs of the singular vectors are those of LAPACK. The singular vectors are computed in f64.
///
/// Choose the matrices of attention and MLP layers, and give all other tensors to AdamW, as the example shows. Changing `rank` on a running optimizer
/// resets the state.
///
/// # Errors
/// [`NotAMatrix`](crate::error::StepError::NotAMatrix) for tensors of fewer than two axes,
/// [`NonFiniteGradient`](crate::error::StepError::NonFiniteGradient), [`NormOverflow`](crate::error::StepError::NormOverflow),
/// [`HyperParameter`](crate::error::StepError::HyperParameter), [`Zero`](crate::error::ArgumentError::Zero) for `rank` and `update_proj_gap`, and the
/// errors of [`Step::pair`](crate::Step::pair) and of changed parameters. A step of which this rank has only parts of tensors is also an error: use
/// `by_tensor` in `sharded`. If the decomposition fails, P is made of the first columns of the identity.
///
/// # Example
/// ```
/// use gradus::{optimizer::GaLore, prelude::*};
/// use ndarray::array;
///
/// let mut opt = AdamW::new(1e-3).route(|_: &str, shape: &[usize]| shape.len() >= 2, GaLore::new(0.1).rank(1).scale(1.0).eps(0.0));
/// let mut w = (array![[0.0_f64, 0.0], [0.0, 0.0]], array![0.0]);
/// opt.step(&mut w, &(array![[3.0, 0.0], [0.0, 4.0]], array![1.0]))?;
/// assert!((w.0[[1, 1]] + 0.1).abs() < 1e-12 && w.0[[0, 0]].abs() < 1e-12); // the larger singular value alone
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// # References
/// J. Zhao et al., *GaLore: Memory-Efficient LLM Training by Gradient Low-Rank Projection* (2024), [arXiv:2403.03507](https://arxiv.org/abs/2403.03507),
/// algorithm 2.
pub type GaLore<A = f32> = Matrixwise<GaLoreRule, A>;

hyper_parameters! {
    /// The rule of [`GaLore`].
    pub struct GaLoreRule => GaLoreValues for Matrixwise {
        /// The decay β₁ of the first moment, 0 ≤ β₁ < 1.
        beta1 / set_beta1: 0.9, 0.0..1.0;
        /// The decay β₂ of the second moment, 0 ≤ β₂ < 1.
        beta2 / set_beta2: 0.999, 0.0..1.0;
        /// The ε ≥ 0 that keeps the division finite.
        eps / set_eps: 1e-6, 0.0..;
        /// The factor of the direction, ≥ 0.
        scale / set_scale: 0.25, 0.0..;
    }
    options {
        /// The dimensions of the subspace, at least 1.
        rank: usize = 128, at least 1;
        /// Computes the projection every `update_proj_gap` steps.
        update_proj_gap: u64 = 200, at least 1;
    }
}

impl<A: Scalar> GaLore<A> {
    /// GaLore with the authors' defaults: β 0.9 and 0.999, ε 1e-6, scale 0.25, rank 128, a projection every 200 steps, no weight decay.
    pub fn new(learning_rate: impl Into<Hyper>) -> Self {
        Self::from_rule(GaLoreRule::default(), learning_rate)
    }
}

impl<A: Scalar> MatrixRule<A> for GaLoreRule {
    fn name(&self) -> &'static str {
        "galore"
    }

    fn slots(&self, shape: (usize, usize)) -> Vec<MatrixSlot> {
        let (short, _) = sides(shape);
        let projection = MatrixSlot::new("projection", (short, self.rank.min(short)));
        moments(shape, self.rank).into_iter().chain([projection]).collect()
    }

    fn accepts(&self, tensor: &TensorInfo) -> Result<()> {
        ensure_matrix("galore", tensor)
    }

    fn direction(
        &self,
        &GaLoreValues { beta1, beta2, eps, scale }: &GaLoreValues,
        at: &At,
        _: &TensorInfo,
        mut grad: ArrayViewMut2<'_, A>,
        slots: &mut [Array2<A>],
    ) {
        let [mean, square, projection] = slots else { unreachable!("there are three slots") };
        if grad.is_empty() {
            return;
        }
        if (at.step - 1).is_multiple_of(self.update_proj_gap) {
            *projection = singular_vectors(grad.view(), projection.ncols());
        }
        let mut low = project(grad.view(), projection.view());
        adam([beta1, beta2, eps, 1.0], None, &mut low, [mean, square]);
        let factor = scale * at.bias_correction(beta2).sqrt() / at.bias_correction(beta1);
        project_back((A::from_f64(factor), low.view()), projection.view(), grad.view_mut());
    }
}

/// What [`project`] made of a matrix, back in its space and multiplied by a factor.
fn project_back<A: Scalar>(
    (factor, low): (A, ArrayView2<'_, A>),
    projection: ArrayView2<'_, A>,
    out: ArrayViewMut2<'_, A>,
) {
    match out.nrows() >= out.ncols() {
        true => multiply((factor, low, projection.t()), A::zero(), out),
        false => multiply((factor, projection, low), A::zero(), out),
    }
}

/// The singular vectors of the largest singular values, on the shorter side, as columns.
fn singular_vectors<A: Scalar>(grad: ArrayView2<'_, A>, rank: usize) -> Array2<A> {
    let grad = grad.mapv(|x| x.as_f64());
    let (short, _) = sides(grad.dim());
    let along = if grad.nrows() >= grad.ncols() { grad.t() } else { grad.view() };
    let mut gram = Array2::zeros((short, short));
    blend_gram(along, 1.0, 0.0, &mut gram);
    let Some((_, mut vectors)) = eigen::<f64>(&gram) else {
        return Array2::from_shape_fn((short, rank), |(row, column)| if row == column { A::one() } else { A::zero() });
    };
    vectors.invert_axis(Axis(1));
    let mut projection = Array2::zeros((short, rank));
    for (mut to, vector) in projection.columns_mut().into_iter().zip(vectors.columns()) {
        let largest = vector.iter().fold(0.0_f64, |largest, x| if x.abs() > largest.abs() { *x } else { largest });
        let sign = if largest < 0.0 { -1.0 } else { 1.0 };
        to.iter_mut().zip(vector).for_each(|(to, from)| *to = A::from_f64(sign * from));
    }
    projection
}

#[cfg(test)]
mod tests {
    use ndarray::{Array1, array};

    use super::*;
    use crate::optimizer::Adam;
    use crate::step::Optimizer;

    fn wave(shape: (usize, usize), phase: f64) -> Array2<f64> {
        Array2::from_shape_fn(shape, |(i, j)| ((i * 7 + j * 3 + i * j) as f64 * 0.7 + phase).sin())
    }

    #[test]
    fn projections_are_singular_vectors() {
        for shape in [(5, 8), (8, 5), (6, 6)] {
            let grad = wave(shape, 0.3);
            let p = singular_vectors(grad.view(), 3);
            assert!((p.t().dot(&p) - Array2::<f64>::eye(3)).iter().all(|d| d.abs() < 1e-12));
            let low = project(grad.view(), p.view());
            // The columns of gP, or the rows of Pᵀg, are orthogonal, and their lengths the falling singular values.
            let gram = if shape.0 >= shape.1 { low.t().dot(&low) } else { low.dot(&low.t()) };
            assert!((0..3).all(|i| (0..3).all(|j| i == j || gram[[i, j]].abs() < 1e-10)), "{gram}");
            assert!(gram[[0, 0]] > gram[[1, 1]] && gram[[1, 1]] > gram[[2, 2]]);
            let largest = p.column(1).iter().fold(0.0_f64, |most, x| if x.abs() > most.abs() { *x } else { most });
            assert!(largest > 0.0);
        }
        let whole = wave((6, 6), 0.3);
        let (p, mut back) = (singular_vectors(whole.view(), 6), Array2::zeros((6, 6)));
        project_back((1.0, project(whole.view(), p.view()).view()), p.view(), back.view_mut());
        assert!((back - whole).iter().all(|d| d.abs() < 1e-12));
    }

    /// A row has one singular vector, which is 1.
    #[test]
    fn a_row_is_adam() {
        let (mut galore, mut adam) = (GaLore::new(0.1).eps(0.0).scale(1.0), Adam::new(0.1).eps(0.0));
        let (mut w, mut expected) = (wave((1, 9), 0.0), wave((1, 9), 0.0));
        for step in 0..5 {
            galore.step(&mut w, &wave((1, 9), f64::from(step) + 0.1)).unwrap();
            adam.step(&mut expected, &wave((1, 9), f64::from(step) + 0.1)).unwrap();
        }
        assert!((&w - &expected).iter().all(|d| d.abs() < 1e-12), "{w} {expected}");
    }

    #[test]
    fn a_projection_is_kept_for_its_steps() {
        let (mut opt, mut w) = (GaLore::new(0.1).rank(2).update_proj_gap(3), wave((4, 6), 0.0));
        let projections: Vec<_> = (0..7)
            .map(|step| {
                opt.step(&mut w, &wave((4, 6), f64::from(step))).unwrap();
                opt.slot("", "projection").unwrap()
            })
            .collect();
        let changes = projections.windows(2).map(|pair| pair[0] != pair[1]);
        assert_eq!(changes.collect::<Vec<_>>(), [false, false, true, false, false, true]);
    }

    #[test]
    fn state_has_the_size_of_the_docs() {
        let (mut opt, mut w) = (GaLore::<f32>::new(0.1), (Array2::ones((150, 200)), Array2::ones((0, 3))));
        let grads = w.clone();
        opt.step(&mut w, &grads).unwrap();
        assert_eq!(opt.state_bytes(), 4 * 128 * (2 * 200 + 150));
        assert_eq!(4 * 128 * (2 * 1000 + 1000), 1_536_000);
    }

    #[test]
    fn a_vector_is_refused_by_name() {
        let (mut opt, mut w) = (GaLore::new(0.1), (array![[1.0]], Array1::<f64>::ones(2)));
        let grads = w.clone();
        let error = opt.step(&mut w, &grads).unwrap_err().to_string();
        assert!(error.contains("galore") && error.contains("\"1\""), "{error}");
    }
}
