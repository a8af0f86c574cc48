//! SM3.

use ndarray::{Array2, ArrayViewMut2};

use crate::hyper_parameters;
use crate::params::{Scalar, TensorInfo};
use crate::rule::{At, MatrixRule, MatrixSlot, Matrixwise};
use crate::schedule::Hyper;

/// SM3: Adagrad whose sums of squares are bounded by one number per row and one per column, or per index of each axis.
///
/// # Update rule
/// ```text
/// νᵢⱼ ← min(rᵢ, cⱼ) + gᵢⱼ²                                 with beta2(β₂) β₂·min(rᵢ, cⱼ) + (1 − β₂)gᵢⱼ²
/// rᵢ ← max over j of νᵢⱼ,  cⱼ ← max over i of νᵢⱼ
/// u ← g / √(ν + ε)                                         0 where ν is 0
/// θ ← θ(1 − ηλ)
/// θ ← θ − ηu                                               with momentum(μ) m ← μm + (1 − μ)u,  θ ← θ − ηm
/// ```
/// A tensor of more axes has a number per index of each axis. A vector has one per element, and is Adagrad.
///
/// # Hyper-parameters
/// Each is set by the method of its name and takes a number, a [schedule](crate::schedule) or a closure.
///
/// | name | default | range | meaning |
/// |---|---|---|---|
/// | `learning_rate` η | – | η ≥ 0 | 0.1 is usual |
/// | `eps` ε | 1e-8 | ε ≥ 0 | is added to ν; unit of the gradient's square |
/// | `momentum` μ | none | 0 ≤ μ < 1 | averages the steps |
/// | `beta2` β₂ | none | 0 ≤ β₂ < 1 | averages instead of sums |
/// | `weight_decay` λ | 0 | λ ≥ 0 | decoupled decay, per unit of learning rate |
///
/// # State
/// `accumulator_0`, `accumulator_1`, …, one element per index of each axis: a matrix of 1000 × 1000 has 8 kB in f32, where Adam has 8 MB. Vectors have
/// 4 bytes per parameter. With `momentum` also `momentum_buffer`, 4 bytes per parameter.
///
/// # Conventions
/// optax's `sm3` is `.momentum(0.9)`. pytorch-optimizer's `SM3` is `.eps(1e-30)`; with its `beta`, numbers never fall. This is the paper's SM3-II.
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
/// let mut opt = Sm3::new(0.1).eps(0.0);
/// let mut w = array![[1.0_f64, 1.0], [1.0, 1.0]];
/// opt.step(&mut w, &array![[3.0, 4.0], [0.0, 5.0]])?; // r = (16, 25), c = (9, 25)
/// opt.step(&mut w, &array![[4.0, 0.0], [4.0, 0.0]])?; // ν = 9 + 16 in both rows
/// assert!((w[[1, 0]] - 0.92).abs() < 1e-12);
/// assert_eq!(opt.state_bytes(), 8 * (2 + 2));
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// # References
/// R. Anil et al., *Memory-Efficient Adaptive Optimization* (2019), [arXiv:1901.11150](https://arxiv.org/abs/1901.11150), algorithm SM3-II.
pub type Sm3<A = f32> = Matrixwise<Sm3Rule, A>;

hyper_parameters! {
    /// The rule of [`Sm3`].
    pub struct Sm3Rule => Sm3Values for Matrixwise {
        /// The ε ≥ 0 that is added to sums of squares.
        eps / set_eps: 1e-8, 0.0..;
    }
    optional {
        /// The part μ of a momentum that is kept per step, 0 ≤ μ < 1. Without it there is no momentum.
        momentum / set_momentum: 0.0..1.0;
        /// The part β₂ of the squares that is kept per step, 0 ≤ β₂ < 1. Without it squares are summed up.
        beta2 / set_beta2: 0.0..1.0;
    }
}

impl<A: Scalar> Sm3<A> {
    /// SM3 with ε 1e-8, without momentum and weight decay.
    pub fn new(learning_rate: impl Into<Hyper>) -> Self {
        Self::from_rule(Sm3Rule::default(), learning_rate)
    }
}

/// The lengths of the axes; a number has one of length 1.
fn axes(shape: &[usize]) -> &[usize] {
    if shape.is_empty() { &[1] } else { shape }
}

impl<A: Scalar> MatrixRule<A> for Sm3Rule {
    fn name(&self) -> &'static str {
        "sm3"
    }

    fn slots(&self, (rows, columns): (usize, usize)) -> Vec<MatrixSlot> {
        MatrixRule::<A>::slots_for(self, &TensorInfo::new("", &[rows, columns]))
    }

    fn slots_for(&self, tensor: &TensorInfo) -> Vec<MatrixSlot> {
        let axes = axes(tensor.shape());
        let accumulator = |(axis, side): (usize, &usize)| MatrixSlot::new(format!("accumulator_{axis}"), (*side, 1));
        let mut slots: Vec<_> = axes.iter().enumerate().map(accumulator).collect();
        let size = (axes[0], axes[1..].iter().product());
        slots.extend(self.momentum.is_some().then(|| MatrixSlot::new("momentum_buffer", size)));
        slots
    }

    fn direction(
        &self,
        values: &Sm3Values,
        _: &At,
        tensor: &TensorInfo,
        mut grad: ArrayViewMut2<'_, A>,
        slots: &mut [Array2<A>],
    ) {
        let axes = axes(tensor.shape());
        let (accumulators, momentum) = slots.split_at_mut(axes.len());
        let Some(grad) = grad.as_slice_mut() else { unreachable!("a gradient lies row by row") };
        precondition(values, axes, grad, accumulators);
        if let ([buffer], Some(momentum)) = (momentum, values.momentum) {
            let [kept, fresh] = [momentum, 1.0 - momentum].map(A::from_f64);
            for (grad, mean) in grad.iter_mut().zip(buffer) {
                *mean = kept * *mean + fresh * *grad;
                *grad = *mean;
            }
        }
    }
}

/// Divides a gradient by the roots of its sums of squares, and updates their bounds.
fn precondition<A: Scalar>(values: &Sm3Values, axes: &[usize], grad: &mut [A], bounds: &mut [Array2<A>]) {
    let [kept, fresh] = values.beta2.map_or([1.0; 2], |beta2| [beta2, 1.0 - beta2]).map(A::from_f64);
    let eps = A::from_f64(values.eps);
    let least = |a: A, b: A| if b < a { b } else { a };
    let most = |a: A, b: A| if b > a { b } else { a };
    let mut updated: Vec<Array2<A>> = bounds.iter().map(|bound| Array2::zeros(bound.dim())).collect();
    let (Some((last, outer)), Some((last_updated, outer_updated))) = (bounds.split_last(), updated.split_last_mut())
    else {
        return;
    };
    let length = axes[axes.len() - 1];
    let mut index = vec![0; outer.len()];
    for line in grad.chunks_mut(length.max(1)) {
        // A vector's elements have bounds of their own.
        let of_line = outer.iter().zip(&index).map(|(bound, at)| bound[[*at, 0]]).fold(A::infinity(), least);
        let mut largest = A::zero();
        for ((grad, bound), updated) in line.iter_mut().zip(last).zip(last_updated.iter_mut()) {
            let sum = kept * least(of_line, *bound) + fresh * (*grad * *grad);
            *grad = if sum > A::zero() { *grad / (sum + eps).sqrt() } else { A::zero() };
            *updated = most(*updated, sum);
            largest = most(largest, sum);
        }
        for (updated, at) in outer_updated.iter_mut().zip(&index) {
            updated[[*at, 0]] = most(updated[[*at, 0]], largest);
        }
        advance(&mut index, axes);
    }
    bounds.clone_from_slice(&updated);
}

/// The index of the next line, in row-major order.
fn advance(index: &mut [usize], axes: &[usize]) {
    for (at, side) in index.iter_mut().zip(axes).rev() {
        *at += 1;
        if *at < *side {
            return;
        }
        *at = 0;
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{ArrayD, arr0, array};

    use super::*;
    use crate::optimizer::Adagrad;
    use crate::step::Optimizer;

    #[test]
    fn a_vector_and_a_number_are_adagrad() {
        let (mut sm3, mut adagrad) = (Sm3::new(0.1).eps(0.0), Adagrad::new(0.1).eps(0.0));
        let mut w = (array![1.0_f64, 2.0], arr0(3.0));
        let mut expected = w.clone();
        for step in 1..4 {
            let grads = (array![f64::from(step), -0.5], arr0(0.25));
            sm3.step(&mut w, &grads).unwrap();
            adagrad.step(&mut expected, &grads).unwrap();
        }
        assert!((&w.0 - &expected.0).iter().all(|d| d.abs() < 1e-15) && (w.1[()] - expected.1[()]).abs() < 1e-15);
    }

    #[test]
    fn momentum_and_averages_by_hand() {
        let (mut opt, mut w) = (Sm3::new(1.0).eps(0.0).momentum(0.5).beta2(0.75), array![[0.0]]);
        opt.step(&mut w, &array![[4.0]]).unwrap(); // ν = 4, u = 2, m = 1
        assert_eq!(w, array![[-1.0]]);
        opt.step(&mut w, &array![[2.0]]).unwrap(); // ν = 3 + 1, u = 1, m = 1
        assert_eq!((w, opt.slot("", "accumulator_1")), (array![[-2.0]], Some(array![[4.0]])));
    }

    /// By the formula, element by element.
    #[test]
    fn three_axes_have_the_least_of_three_bounds() {
        let shape = [2, 3, 4];
        let grad =
            |step: usize| ArrayD::from_shape_fn(shape.to_vec(), |i| ((step + i[0] * 5 + i[1] * 3 + i[2]) as f64).sin());
        let (mut opt, mut w) = (Sm3::new(0.1), ArrayD::<f64>::zeros(shape.to_vec()));
        let (mut bounds, mut expected) = (shape.map(|side| vec![0.0_f64; side]), w.clone());
        for step in 0..3 {
            let grad = grad(step);
            opt.step(&mut w, &grad).unwrap();
            let mut next = shape.map(|side| vec![0.0_f64; side]);
            for (index, g) in grad.indexed_iter() {
                let least = (0..3).map(|axis| bounds[axis][index[axis]]).fold(f64::INFINITY, f64::min);
                let sum = least + g * g;
                (0..3).for_each(|axis| next[axis][index[axis]] = next[axis][index[axis]].max(sum));
                expected[&index] -= 0.1 * g / (sum + 1e-8).sqrt();
            }
            bounds = next;
        }
        assert!((&w - &expected).iter().all(|d| d.abs() < 1e-15));
        assert_eq!(opt.slot("", "accumulator_2").unwrap().into_raw_vec_and_offset().0, bounds[2]);
        assert_eq!(opt.state_bytes(), 8 * (2 + 3 + 4));
    }

    #[test]
    fn state_has_the_size_of_the_docs() {
        for (opt, bytes) in [(Sm3::<f32>::new(0.1), 8000), (Sm3::new(0.1).momentum(0.9), 4_008_000)] {
            let (mut opt, mut w) = (opt, Array2::zeros((1000, 1000)));
            opt.step(&mut w, &Array2::zeros((1000, 1000))).unwrap();
            assert_eq!(opt.state_bytes(), bytes);
        }
    }
}
