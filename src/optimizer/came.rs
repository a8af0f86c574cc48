//! CAME.

use std::ops::Bound;

use ndarray::{Array2, ArrayViewMut2};

use crate::hyper_parameters;
use crate::kernel::squares::sum_of_squares;
use crate::params::{Scalar, TensorInfo};
use crate::rule::{At, MatrixRule, MatrixSlot, Matrixwise};
use crate::schedule::Hyper;

/// CAME: [`Adafactor`](crate::Adafactor) with a momentum whose elements are divided by how far updates stray from it.
///
/// # Update rule
/// ```text
/// rᵢ ← β₂rᵢ + (1 − β₂)(mean over j of gᵢⱼ² + ε₁)
/// cⱼ ← β₂cⱼ + (1 − β₂)(mean over i of gᵢⱼ² + ε₁)
/// uᵢⱼ ← gᵢⱼ / √(rᵢcⱼ / mean of r)                          of vectors and numbers v ← β₂v + (1 − β₂)(g² + ε₁),  u ← g/√v
/// u ← u / max(1, rms(u)/d)                                 d is clip_threshold; rms is the root mean square over the tensor
/// m ← β₁m + (1 − β₁)u
/// Rᵢ ← β₃Rᵢ + (1 − β₃)(mean over j of (uᵢⱼ − mᵢⱼ)² + ε₂)
/// Cⱼ ← β₃Cⱼ + (1 − β₃)(mean over i of (uᵢⱼ − mᵢⱼ)² + ε₂)
/// θ ← θ(1 − ηλ)
/// θᵢⱼ ← θᵢⱼ − η·mᵢⱼ / √(RᵢCⱼ / mean of R)                  of vectors and numbers θ ← θ − ηm
/// ```
/// The last two axes of a tensor are its rows and columns; each index of the other axes is a matrix of its own. There is no bias correction.
///
/// # Hyper-parameters
/// Each is set by the method of its name and takes a number, a [schedule](crate::schedule) or a closure.
///
/// | name | default | range | meaning |
/// |---|---|---|---|
/// | `learning_rate` η | – | η ≥ 0 | 2e-4 is usual, half of AdamW's |
/// | `beta1` β₁ | 0.9 | 0 ≤ β₁ < 1 | decay of the momentum |
/// | `beta2` β₂ | 0.999 | 0 ≤ β₂ < 1 | decay of the means of squares |
/// | `beta3` β₃ | 0.9999 | 0 ≤ β₃ < 1 | decay of the means of squared differences |
/// | `eps1` ε₁ | 1e-30 | ε₁ > 0 | is added to squares of gradients |
/// | `eps2` ε₂ | 1e-16 | ε₂ > 0 | is added to squares of differences |
/// | `clip_threshold` d | 1 | d > 0 | largest rms of an update |
/// | `weight_decay` λ | 0 | λ ≥ 0 | decoupled decay, per unit of learning rate |
///
/// # State
/// `exp_avg` m, of the parameter's size, and `exp_avg_sq_row` r, `exp_avg_sq_col` c, `exp_avg_res_row` R, `exp_avg_res_col` C: 4 bytes per parameter in
/// f32, and 8 bytes per row and per column. Vectors and numbers have `exp_avg` and `exp_avg_sq` v, 8 bytes per parameter.
///
/// # Conventions
/// pytorch-optimizer's `CAME`, which is the authors' code with other names: there ε₁ and ε₂ are `eps[0]` and `eps[1]`.
///
/// # Errors
/// [`NonFiniteGradient`](crate::error::StepError::NonFiniteGradient), [`NormOverflow`](crate::error::StepError::NormOverflow),
/// [`HyperParameter`](crate::error::StepError::HyperParameter), and the errors of [`Step::pair`](crate::Step::pair) and of changed parameters. A step of
/// which this rank has only parts of tensors is also an error: use `by_tensor` in `sharded`.
///
/// # Example
/// ```
/// use gradus::prelude::*;
/// use ndarray::array;
///
/// let mut opt = Came::new(0.1).beta1(0.5).beta2(0.0).beta3(0.0);
/// let mut w = array![[1.0_f64, 1.0], [1.0, 1.0]];
/// opt.step(&mut w, &array![[2.0, 2.0], [2.0, 2.0]])?; // u = 1, m = ½, u − m = ½
/// assert!((w[[0, 0]] - 0.9).abs() < 1e-12);
/// assert_eq!(opt.state_bytes(), 8 * (4 + 2 * (2 + 2)));
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// # References
/// Y. Luo et al., *CAME: Confidence-guided Adaptive Memory Efficient Optimization* (2023), [arXiv:2307.02047](https://arxiv.org/abs/2307.02047),
/// algorithm 2.
pub type Came<A = f32> = Matrixwise<CameRule, A>;

hyper_parameters! {
    /// The rule of [`Came`].
    pub struct CameRule => CameValues for Matrixwise {
        /// The decay β₁ of the momentum, 0 ≤ β₁ < 1.
        beta1 / set_beta1: 0.9, 0.0..1.0;
        /// The decay β₂ of the means of squares, 0 ≤ β₂ < 1.
        beta2 / set_beta2: 0.999, 0.0..1.0;
        /// The decay β₃ of the means of squared differences, 0 ≤ β₃ < 1.
        beta3 / set_beta3: 0.9999, 0.0..1.0;
        /// The ε₁ > 0 that is added to squares of gradients.
        eps1 / set_eps1: 1e-30, (Bound::Excluded(0.0), Bound::Unbounded);
        /// The ε₂ > 0 that is added to squares of differences.
        eps2 / set_eps2: 1e-16, (Bound::Excluded(0.0), Bound::Unbounded);
        /// The largest root mean square d > 0 of an update.
        clip_threshold / set_clip_threshold: 1.0, (Bound::Excluded(0.0), Bound::Unbounded);
    }
}

impl<A: Scalar> Came<A> {
    /// CAME with the authors' defaults: β 0.9, 0.999 and 0.9999, ε 1e-30 and 1e-16, d 1, no weight decay.
    pub fn new(learning_rate: impl Into<Hyper>) -> Self {
        Self::from_rule(CameRule::default(), learning_rate)
    }
}

/// The number of matrices in a tensor, and their rows and columns; `None` if it has no matrices.
fn matrices(shape: &[usize]) -> Option<(usize, usize, usize)> {
    match shape {
        [others @ .., rows, columns] => Some((others.iter().product(), *rows, *columns)),
        _ => None,
    }
}

impl<A: Scalar> MatrixRule<A> for CameRule {
    fn name(&self) -> &'static str {
        "came"
    }

    fn slots(&self, (rows, columns): (usize, usize)) -> Vec<MatrixSlot> {
        MatrixRule::<A>::slots_for(self, &TensorInfo::new("", &[rows, columns]))
    }

    fn slots_for(&self, tensor: &TensorInfo) -> Vec<MatrixSlot> {
        let first = tensor.shape().first().copied().unwrap_or(1);
        let whole = |name| MatrixSlot::new(name, (first, tensor.elements() / first.max(1)));
        let Some((count, rows, columns)) = matrices(tensor.shape()) else {
            return vec![whole("exp_avg"), whole("exp_avg_sq")];
        };
        let sides = [
            ("exp_avg_sq_row", rows),
            ("exp_avg_sq_col", columns),
            ("exp_avg_res_row", rows),
            ("exp_avg_res_col", columns),
        ];
        let sides = sides.map(|(name, side)| MatrixSlot::new(name, (count, side)));
        std::iter::once(whole("exp_avg")).chain(sides).collect()
    }

    fn direction(
        &self,
        values: &CameValues,
        _: &At,
        tensor: &TensorInfo,
        mut grad: ArrayViewMut2<'_, A>,
        slots: &mut [Array2<A>],
    ) {
        let Some((mean, moments)) = slots.split_first_mut() else { unreachable!("there is a momentum") };
        let (Some(update), Some(mean)) = (grad.as_slice_mut(), mean.as_slice_mut()) else {
            unreachable!("gradients and slots lie row by row")
        };
        if update.is_empty() {
            return;
        }
        let [kept, fresh] = [values.beta1, 1.0 - values.beta1].map(A::from_f64);
        let average = |update: &[A], mean: &mut [A]| {
            mean.iter_mut().zip(update).for_each(|(mean, update)| *mean = kept * *mean + fresh * *update);
        };
        match (moments, matrices(tensor.shape())) {
            ([row, column, residual_row, residual_column], Some((_, rows, columns))) => {
                let size = (rows, columns);
                let squares = |element: usize| update[element].as_f64().powi(2);
                let mut means = Means { row, column, size };
                means.update(values.beta2, values.eps1, squares);
                means.divide(update);
                clip(values.clip_threshold, update);
                average(update, mean);
                let residuals = |element: usize| (update[element] - mean[element]).as_f64().powi(2);
                let mut means = Means { row: residual_row, column: residual_column, size };
                means.update(values.beta3, values.eps2, residuals);
                update.copy_from_slice(mean);
                means.divide(update);
            }
            ([square], _) => {
                for (update, square) in update.iter_mut().zip(square) {
                    let fresh = update.as_f64().powi(2) + values.eps1;
                    *square = A::from_f64(values.beta2 * square.as_f64() + (1.0 - values.beta2) * fresh);
                    *update *= inverse_root(square.as_f64());
                }
                clip(values.clip_threshold, update);
                average(update, mean);
                update.copy_from_slice(mean);
            }
            _ => unreachable!("there are moments of rows and columns, or of elements"),
        }
    }
}

/// 1/√x, a number also for the smallest x, so that a gradient of 0 does not become NaN.
fn inverse_root<A: Scalar>(square: f64) -> A {
    A::from_f64((1.0 / square.sqrt()).min(A::max_value().as_f64()))
}

/// Divides an update by what its root mean square exceeds the threshold by.
fn clip<A: Scalar>(threshold: f64, update: &mut [A]) {
    let rms = (sum_of_squares(update) / update.len() as f64).sqrt();
    let divisor = A::from_f64((rms / threshold).max(1.0));
    update.iter_mut().for_each(|update| *update /= divisor);
}

/// Means of the rows and of the columns of matrices of one size.
struct Means<'s, A> {
    row: &'s mut Array2<A>,
    column: &'s mut Array2<A>,
    size: (usize, usize),
}

impl<A: Scalar> Means<'_, A> {
    /// Averages the means of these squares over the steps.
    fn update(&mut self, beta: f64, eps: f64, squares: impl Fn(usize) -> f64) {
        let (rows, columns) = self.size;
        let blend = |mean: &mut A, sum: f64, count: usize| {
            *mean = A::from_f64(beta * mean.as_f64() + (1.0 - beta) * (sum / count as f64 + eps));
        };
        let matrices = self.row.rows_mut().into_iter().zip(self.column.rows_mut());
        for (at, (row, column)) in matrices.enumerate() {
            let mut of_columns = vec![0.0; columns];
            for (line, mean) in row.into_iter().enumerate() {
                let start = (at * rows + line) * columns;
                let mut of_row = 0.0;
                for (element, sum) in (start..).zip(&mut of_columns) {
                    let square = squares(element);
                    (of_row, *sum) = (of_row + square, *sum + square);
                }
                blend(mean, of_row, columns);
            }
            column.into_iter().zip(of_columns).for_each(|(mean, sum)| blend(mean, sum, rows));
        }
    }

    /// Divides by √(rᵢcⱼ / mean of r).
    fn divide(&self, values: &mut [A]) {
        let (rows, columns) = self.size;
        let most = A::max_value();
        let matrices = self.row.rows().into_iter().zip(self.column.rows());
        for (values, (row, column)) in values.chunks_mut((rows * columns).max(1)).zip(matrices) {
            let mean = row.iter().map(|row| row.as_f64()).sum::<f64>() / rows as f64;
            let of_columns: Vec<A> = column.iter().map(|column| inverse_root(column.as_f64())).collect();
            for (line, row) in values.chunks_mut(columns.max(1)).zip(row) {
                let of_row: A = inverse_root(row.as_f64() / mean);
                for (value, of_column) in line.iter_mut().zip(&of_columns) {
                    let factor = of_row * *of_column;
                    *value *= if factor > most { most } else { factor };
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array1, Array3, array};

    use super::*;
    use crate::step::Optimizer;

    #[test]
    fn first_step_by_hand() {
        // r = (4, 8), c = (2, 10), mean of r = 6; the update is not clipped.
        let mut opt = Came::new(0.5).beta1(0.5).beta2(0.0).beta3(0.0).clip_threshold(8.0).weight_decay(0.5);
        let mut w: Array2<f64> = array![[4.0, 4.0], [4.0, 4.0]];
        opt.step(&mut w, &array![[2.0, 2.0], [0.0, 4.0]]).unwrap();
        let u = array![
            [2.0 / (4.0 * 2.0 / 6.0_f64).sqrt(), 2.0 / (4.0 * 10.0 / 6.0_f64).sqrt()],
            [0.0, 4.0 / (80.0 / 6.0_f64).sqrt()]
        ];
        let half: Array2<f64> = &u * 0.5; // m, and the difference to it
        let squares = &half * &half;
        let (rows, columns) =
            (squares.mean_axis(ndarray::Axis(1)).unwrap(), squares.mean_axis(ndarray::Axis(0)).unwrap());
        let expected = 4.0 * 0.75 - 0.5 * half[[1, 1]] / (rows[1] * columns[1] / rows.mean().unwrap()).sqrt();
        assert!((w[[1, 1]] - expected).abs() < 1e-12, "{w} {expected}");
        assert!((&opt.slot("", "exp_avg_res_row").unwrap() - &rows).iter().all(|d| d.abs() < 1e-15));
    }

    #[test]
    fn vectors_have_no_confidence() {
        let (mut opt, mut w) = (Came::new(0.5).beta1(0.5).beta2(0.0).clip_threshold(0.5), array![2.0_f64, 2.0]);
        opt.step(&mut w, &array![8.0, -8.0]).unwrap(); // u = ±1, clipped to ½
        assert!((w[0] - 1.875).abs() < 1e-12 && (w[1] - 2.125).abs() < 1e-12, "{w}");
    }

    /// Matrices of a tensor have means of their own, but are clipped together.
    #[test]
    fn axes_before_the_last_two_are_matrices() {
        let grad = Array3::from_shape_fn((2, 3, 4), |(i, j, k)| ((i * 12 + j * 4 + k) as f64 + 0.5).sin());
        let opt = || Came::new(0.1).clip_threshold(100.0);
        let (mut whole, mut w) = (opt(), Array3::<f64>::zeros((2, 3, 4)));
        whole.step(&mut w, &grad).unwrap();
        for (w, grad) in w.outer_iter().zip(grad.outer_iter()) {
            let mut alone = Array2::zeros((3, 4));
            opt().step(&mut alone, &grad).unwrap();
            assert_eq!(w, alone);
        }
    }

    #[test]
    fn zeros_stay_and_state_has_the_size_of_the_docs() {
        let (mut opt, mut w) = (Came::<f32>::new(0.1), (Array2::ones((30, 20)), Array1::ones(7), Array2::ones((0, 3))));
        let mut grads = w.clone();
        grads.0.row_mut(3).fill(0.0);
        grads.1.fill(0.0);
        (0..3).for_each(|_| _ = opt.step(&mut w, &grads).unwrap());
        assert!(w.0[[3, 0]] == 1.0 && w.0[[4, 0]] < 1.0 && w.1.iter().all(|w| *w == 1.0), "{w:?}");
        assert_eq!(opt.state_bytes(), 4 * 600 + 8 * (30 + 20) + 8 * 7 + 8 * 3);
    }
}
