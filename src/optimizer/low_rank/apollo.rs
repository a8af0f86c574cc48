//! APOLLO and APOLLO-Mini.

use ndarray::{Array2, ArrayRef2, ArrayViewMut2, Axis};

use super::random::projection;
use super::{moments, project, sides};
use crate::error::Result;
use crate::hyper_parameters;
use crate::kernel::adam::adam;
use crate::kernel::squares;
use crate::params::{Scalar, TensorInfo};
use crate::rule::{At, MatrixRule, MatrixSlot, Matrixwise, ensure_matrix};
use crate::schedule::Hyper;

/// APOLLO: gradient descent whose rows have the lengths that AdamW gives to the gradient in a random subspace.
///
/// # Update rule
/// ```text
/// every `update_proj_gap` steps, from the first on:  P ← random numbers of variance 1/rank
/// r ← gP
/// m ← β₁m + (1 − β₁)r,  v ← β₂v + (1 − β₂)r²
/// sᵢ ← ‖(m/(√v + ε))ᵢ‖ / (‖rᵢ‖ + 1e-8)                     one for each row i
/// uᵢ ← sᵢgᵢ
/// c ← max(1, ‖u‖/(1.01·n)),  u ← u/c,  n ← ‖u‖             the norm n of the step before grows by at most 1 %; 0 and the first step have no limit
/// θ ← θ(1 − ηλ)
/// θ ← θ − η·√scale·√(1 − β₂ᵗ)/(1 − β₁ᵗ)·u
/// ```
/// A matrix with more columns than rows has r = Pᵀg and one s for each column. m and v are not changed when P is. A tensor of more axes is reshaped to a
/// matrix of its first axis and all others.
///
/// # Hyper-parameters
/// | name | default | range | meaning |
/// |---|---|---|---|
/// | `learning_rate` η | – | η ≥ 0 | 0.01 is usual |
/// | `beta1` β₁ | 0.9 | 0 ≤ β₁ < 1 | decay of the first moment |
/// | `beta2` β₂ | 0.999 | 0 ≤ β₂ < 1 | decay of the second moment |
/// | `eps` ε | 1e-6 | ε ≥ 0 | keeps the division finite; unit of the gradient |
/// | `scale` | 1 | ≥ 0 | its root is a factor of the direction |
/// | `weight_decay` λ | 0 | λ ≥ 0 | decoupled decay, per unit of learning rate |
/// | `rank` | 256 | ≥ 1 | dimensions of the subspace; at most the shorter side is used |
/// | `update_proj_gap` | 200 | ≥ 1 | steps per projection |
/// | `limit_growth` | `true` | | limits the growth of ‖u‖ |
/// | `seed` | 0 | | which random numbers P has |
///
/// # State
/// `exp_avg` m and `exp_avg_sq` v, rank × longer side each, and `update_norm` n, one number; P is made again in each step. In f32 a matrix of
/// 1000 × 1000 has 2 MB, which is 2 bytes per parameter, where Adam has 8.
///
/// # Conventions
/// apollo-torch's `APOLLOAdamW` with `proj="random"`, `scale_type="channel"` and `scale_front=False`. There weight decay is applied after the step, the
/// numbers of P are normal and those of each tensor others, and a first gradient of 0 limits the steps that follow to nearly 0. Here the numbers of P are
/// sums of four uniform ones, which have the same bits on every machine, and tensors of one shape have one P.
///
/// Choose the matrices of attention and MLP layers, and give all other tensors to AdamW, as the example shows. Changing `rank` on a running optimizer
/// resets the state.
///
/// # Errors
/// [`NotAMatrix`](crate::error::StepError::NotAMatrix) for tensors of fewer than two axes,
/// [`NonFiniteGradient`](crate::error::StepError::NonFiniteGradient), [`NormOverflow`](crate::error::StepError::NormOverflow),
/// [`HyperParameter`](crate::error::StepError::HyperParameter), [`Zero`](crate::error::ArgumentError::Zero) for `rank` and `update_proj_gap`, and the
/// errors of [`Step::pair`](crate::Step::pair) and of changed parameters. A step of which this rank has only parts of tensors is also an error: use
/// `by_tensor` in `sharded`.
///
/// # Example
/// ```
/// use gradus::prelude::*;
/// use ndarray::array;
///
/// let matrices = |_: &str, shape: &[usize]| shape.len() >= 2;
/// let mut opt = AdamW::new(1e-3).route(matrices, Apollo::new(0.1).rank(1).eps(0.0));
/// let mut w = (array![[0.0_f64], [0.0]], array![0.0]);
/// opt.step(&mut w, &(array![[3.0], [-0.5]], array![1.0]))?;
/// assert!(w.0[[0, 0]] < 0.0 && (w.0[[0, 0]] + w.0[[1, 0]]).abs() < 1e-6); // the gradient's direction, one length for both rows
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// # References
/// H. Zhu et al., *APOLLO: SGD-like Memory, AdamW-level Performance* (2024), [arXiv:2412.05270](https://arxiv.org/abs/2412.05270), algorithm 1.
pub type Apollo<A = f32> = Matrixwise<ApolloRule<false>, A>;

/// APOLLO-Mini: [`Apollo`] with a subspace of one dimension and one length for the whole tensor.
///
/// # Update rule
/// That of [`Apollo`] with
/// ```text
/// s ← ‖m/(√v + ε)‖ / (‖r‖ + 1e-8),  u ← sg
/// ```
///
/// # Hyper-parameters
/// Those of [`Apollo`], with a `rank` of 1 and a `scale` of 128.
///
/// # State
/// `exp_avg` and `exp_avg_sq`, one element each per index of the longer side, and `update_norm`, one number. In f32 a matrix of 1000 × 1000 has 8 kB.
///
/// # Conventions
/// apollo-torch's `APOLLOAdamW` with `proj="random"`, `scale_type="tensor"`, rank 1 and scale 128; see [`Apollo`] for what differs.
///
/// # Errors
/// Those of [`Apollo`].
///
/// # Example
/// ```
/// use gradus::prelude::*;
/// use ndarray::Array2;
///
/// let mut opt = ApolloMini::new(0.01);
/// let mut w = Array2::<f32>::ones((50, 100));
/// opt.step(&mut w, &Array2::ones((50, 100)))?;
/// assert_eq!(opt.state_bytes(), 4 * (2 * 100 + 1));
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// # References
/// Those of [`Apollo`].
pub type ApolloMini<A = f32> = Matrixwise<ApolloRule<true>, A>;

hyper_parameters! {
    /// The rule of [`Apollo`] and, with `MINI`, of [`ApolloMini`].
    pub struct ApolloRule<const MINI: bool> named (if MINI { "ApolloMini" } else { "Apollo" }) => ApolloValues for Matrixwise {
        /// The decay β₁ of the first moment, 0 ≤ β₁ < 1.
        beta1 / set_beta1: 0.9, 0.0..1.0;
        /// The decay β₂ of the second moment, 0 ≤ β₂ < 1.
        beta2 / set_beta2: 0.999, 0.0..1.0;
        /// The ε ≥ 0 that keeps the division finite.
        eps / set_eps: 1e-6, 0.0..;
        /// The square of the factor of the direction, ≥ 0.
        scale / set_scale: if MINI { 128.0 } else { 1.0 }, 0.0..;
    }
    options {
        /// The dimensions of the subspace, at least 1.
        rank: usize = if MINI { 1 } else { 256 }, at least 1;
        /// Computes the projection every `update_proj_gap` steps.
        update_proj_gap: u64 = 200, at least 1;
        /// Limits the growth of the norm of the steps to 1 %, which is the default.
        limit_growth: bool = true;
        /// Which random numbers the projections have.
        seed: u64 = 0;
    }
}

/// How much the norm of a step may exceed that of the step before.
const GROWTH: f64 = 1.01;

/// Is added to norms that are divided by.
const SMALLEST_NORM: f64 = 1e-8;

impl<A: Scalar> Apollo<A> {
    /// APOLLO with the authors' defaults: β 0.9 and 0.999, ε 1e-6, scale 1, rank 256, a projection every 200 steps, no weight decay.
    pub fn new(learning_rate: impl Into<Hyper>) -> Self {
        Self::from_rule(ApolloRule::default(), learning_rate)
    }
}

impl<A: Scalar> ApolloMini<A> {
    /// APOLLO-Mini with the authors' defaults: those of [`Apollo`], with rank 1 and scale 128.
    pub fn new(learning_rate: impl Into<Hyper>) -> Self {
        Self::from_rule(ApolloRule::default(), learning_rate)
    }
}

impl<const MINI: bool, A: Scalar> MatrixRule<A> for ApolloRule<MINI> {
    fn name(&self) -> &'static str {
        if MINI { "apollomini" } else { "apollo" }
    }

    fn slots(&self, shape: (usize, usize)) -> Vec<MatrixSlot> {
        moments(shape, self.rank).into_iter().chain([MatrixSlot::new("update_norm", (1, 1))]).collect()
    }

    fn accepts(&self, tensor: &TensorInfo) -> Result<()> {
        ensure_matrix(MatrixRule::<A>::name(self), tensor)
    }

    fn direction(
        &self,
        &ApolloValues { beta1, beta2, eps, scale }: &ApolloValues,
        at: &At,
        _: &TensorInfo,
        mut grad: ArrayViewMut2<'_, A>,
        slots: &mut [Array2<A>],
    ) {
        let [mean, square, norm] = slots else { unreachable!("there are three slots") };
        if grad.is_empty() {
            return;
        }
        let (short, _) = sides(grad.dim());
        let nth = (at.step - 1) / self.update_proj_gap;
        let low = project(grad.view(), projection((short, self.rank.min(short)), self.seed, nth).view());
        let mut direction = low.clone();
        adam([beta1, beta2, eps, 1.0], None, &mut direction, [mean, square]);
        let is_tall = grad.nrows() >= grad.ncols();
        let axis = if is_tall { Axis(0) } else { Axis(1) };
        let lengths = if MINI { of_tensor } else { of_channels };
        let ratios = lengths(&direction, is_tall).into_iter().zip(lengths(&low, is_tall));
        let ratios: Vec<A> = ratios.map(|(to, from)| A::from_f64(to / (from + SMALLEST_NORM))).collect();
        match &ratios[..] {
            [ratio] => grad.mapv_inplace(|g| g * *ratio),
            _ => grad
                .axis_iter_mut(axis)
                .zip(&ratios)
                .for_each(|(mut channel, ratio)| channel.mapv_inplace(|g| g * *ratio)),
        }
        let limiter = if self.limit_growth { limiter(&grad, &mut norm[[0, 0]]) } else { 1.0 };
        let correction = at.bias_correction(beta2).sqrt() / at.bias_correction(beta1);
        let factor = A::from_f64(scale.sqrt() * correction / limiter);
        grad.mapv_inplace(|g| g * factor);
    }
}

/// The norm of a matrix.
fn of_tensor<A: Scalar>(matrix: &Array2<A>, _: bool) -> Vec<f64> {
    vec![squares::norm(matrix)]
}

/// The norms of the rows, or of the columns.
fn of_channels<A: Scalar>(matrix: &Array2<A>, are_rows: bool) -> Vec<f64> {
    if are_rows {
        return matrix.rows().into_iter().map(|row| squares::norm(&row)).collect();
    }
    let mut sums = vec![0.0; matrix.ncols()];
    for row in matrix.rows() {
        sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += x.as_f64() * x.as_f64());
    }
    sums.into_iter().zip(matrix.columns()).map(|(sum, column)| squares::root(sum, &column)).collect()
}

/// What an update is divided by, so that its norm does not grow too fast. Updates the norm of the last step.
fn limiter<A: Scalar>(update: &ArrayRef2<A>, last: &mut A) -> f64 {
    let norm = squares::norm(update);
    let limiter = match last.as_f64() {
        0.0 => 1.0,
        last => (norm / (last + SMALLEST_NORM)).max(GROWTH) / GROWTH,
    };
    *last = A::from_f64(norm / limiter);
    limiter
}

#[cfg(test)]
mod tests {
    use ndarray::{Array1, array};

    use super::*;
    use crate::step::Optimizer;

    fn wave(shape: (usize, usize), phase: f64) -> Array2<f64> {
        Array2::from_shape_fn(shape, |(i, j)| ((i * 7 + j * 3 + i * j) as f64 * 0.7 + phase).sin())
    }

    fn moved<const MINI: bool>(opt: Matrixwise<ApolloRule<MINI>, f64>, shape: (usize, usize)) -> Array2<f64> {
        let (mut opt, mut w) = (opt, Array2::zeros(shape));
        opt.step(&mut w, &wave(shape, 0.3)).unwrap();
        -w
    }

    /// Without ε, each element of the first direction is ±1 in the subspace: a channel of rank 4 has length 2.
    #[test]
    fn channels_have_the_length_of_adam() {
        for shape in [(9, 6), (6, 9)] {
            let grad = wave(shape, 0.3);
            let low = project(grad.view(), projection::<f64>((6, 4), 5, 0).view());
            let ratio = &moved(Apollo::new(1.0).rank(4).eps(0.0).seed(5), shape) / &grad;
            for ((i, j), ratio) in ratio.indexed_iter() {
                let low = if shape.0 > shape.1 { low.row(i) } else { low.column(j) };
                assert!((ratio - 2.0 / (low.dot(&low).sqrt() + 1e-8)).abs() < 1e-10 * ratio, "{ratio}");
            }
            let mini = &moved(ApolloMini::new(1.0).rank(4).eps(0.0).scale(9.0).seed(5), shape) / &grad;
            let expected = 3.0 * 6.0 / (low.iter().map(|x| x * x).sum::<f64>().sqrt() + 1e-8);
            assert!(mini.iter().all(|ratio| (ratio - expected).abs() < 1e-10 * expected), "{mini} {expected}");
        }
    }

    #[test]
    fn the_norm_grows_by_a_hundredth() {
        let norms = |opt: ApolloMini<f64>| {
            let (mut opt, mut w, mut norms) = (opt.beta1(0.0).beta2(0.0).eps(1.0), wave((4, 4), 0.0), vec![]);
            for scale in [0.0, 1e-3, 1.0, 1.0] {
                let before = w.clone();
                opt.step(&mut w, &(wave((4, 4), 0.0) * scale)).unwrap();
                norms.push((w.clone() - before).mapv(|x| x * x).sum().sqrt());
            }
            norms
        };
        let limited = norms(ApolloMini::new(0.1));
        assert!(limited[0] == 0.0 && limited[1] > 0.0, "a gradient of 0 sets no limit");
        assert!(
            (limited[2] / limited[1] - 1.01).abs() < 1e-4 && (limited[3] / limited[2] - 1.01).abs() < 1e-4,
            "{limited:?}"
        );
        assert!(norms(ApolloMini::new(0.1).limit_growth(false))[2] > 10.0 * limited[2]);
    }

    #[test]
    fn seed_and_number_choose_the_projection() {
        let shape = (4, 6);
        let own = |seed| moved(Apollo::new(0.1).rank(2).seed(seed), shape);
        assert!(own(0) == own(0) && own(0) != own(1));
        let after = |gap: u64| {
            let (mut opt, mut w) = (Apollo::new(0.1).rank(2).update_proj_gap(gap), wave(shape, 0.0));
            (0..3).for_each(|_| _ = opt.step(&mut w, &wave(shape, 1.0)).unwrap());
            w
        };
        assert!(after(3) == after(200) && after(3) != after(2));
    }

    #[test]
    fn state_has_the_size_of_the_docs() {
        let (mut opt, mut w) = (Apollo::<f32>::new(0.1), (Array2::ones((300, 400)), Array2::ones((20, 10))));
        let grads = w.clone();
        opt.step(&mut w, &grads).unwrap();
        assert_eq!(opt.state_bytes(), 4 * (2 * 256 * 400 + 1) + 4 * (2 * 10 * 20 + 1));
        let (mut opt, mut w) = (ApolloMini::<f32>::new(0.1), Array2::ones((1000, 1000)));
        opt.step(&mut w, &Array2::ones((1000, 1000))).unwrap();
        assert_eq!(opt.state_bytes(), 8004);
    }

    #[test]
    fn a_vector_is_refused_by_name() {
        for (opt, name) in [
            (Box::new(Apollo::new(0.1)) as Box<dyn Optimizer<f64>>, "apollo needs"),
            (Box::new(ApolloMini::new(0.1)), "apollomini needs"),
        ] {
            let (mut opt, mut w) = (opt, (array![[1.0]], Array1::<f64>::ones(2)));
            let grads = w.clone();
            assert!(opt.step(&mut w, &grads).unwrap_err().to_string().contains(name));
        }
    }
}
