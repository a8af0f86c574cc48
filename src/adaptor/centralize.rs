//! Gradient centralization.

use std::fmt;

use super::{Outcome, Transform};
use crate::error::Result;
use crate::params::Element;
use crate::schedule::Hyper;
use crate::step::share::Extent;
use crate::step::{Grad, Step};

/// Gradient centralization: subtracts from the gradient of each unit its mean. Created by
/// [`OptimizerExt::centralize`](crate::OptimizerExt::centralize).
///
/// A unit is one index of the first axis: a row of a linear layer's weight (out, in), or a filter of a convolution (out, in, height,
/// width). With SGD and without weight decay, the sum of a unit's weights then stays the same. Vectors and scalars do not change.
///
/// # Update rule
/// For each unit i of a tensor with two axes or more, with n elements j:
/// ```text
/// gᵢⱼ ← gᵢⱼ − (gᵢ₁ + … + gᵢₙ)/n
/// ```
/// The mean is computed in f64. Gradients of 16 bits are rounded once more.
///
/// # Errors
/// [`RankError::CutTensors`](crate::error::RankError::CutTensors) inside `sharded`; inside `sharded(…).by_tensor()` it works.
///
/// # Conventions
/// The paper's φ, and optax's `centralize`, for weights of the shape (out, in): the mean is that of one output's weights.
///
/// # Example
/// ```
/// use gradus::prelude::*;
/// use ndarray::array;
///
/// let mut opt = Sgd::new(1.0).centralize();
/// let mut w = (array![[0.0, 0.0], [0.0, 0.0]], array![0.0, 0.0]);
/// opt.step(&mut w, &(array![[1.0, 3.0], [5.0, 5.0]], array![1.0, 3.0]))?;
/// assert_eq!(w, (array![[1.0, -1.0], [0.0, 0.0]], array![-1.0, -3.0]));
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// # References
/// H. Yong, J. Huang, X. Hua and L. Zhang, *Gradient Centralization: A New Optimization Technique for Deep Neural Networks* (2020),
/// [arXiv:2004.01461](https://arxiv.org/abs/2004.01461), eq. 1.
#[derive(Clone, Copy, Default)]
pub struct Centralize;

impl<A: Element> Transform<A> for Centralize {
    fn name(&self) -> &'static str {
        "centralize"
    }

    fn describe(&self) -> String {
        format!("{self:?}")
    }

    fn hyper_parameters(&self) -> Vec<(&'static str, &Hyper)> {
        Vec::new()
    }

    fn transform<'s>(&'s self, step: &mut Step<'s, A>) -> Result<Outcome> {
        // A part of a tensor has no units.
        step.share().ensure(Extent::Tensors, "centralize")?;
        for (info, grad) in step.grads_mut().filter(|(info, _)| info.shape().len() > 1) {
            let (info, grad) = grad.compact_mut(info);
            let mut values = grad.to_array(info.shape());
            for mut unit in values.outer_iter_mut() {
                let mean = unit.iter().map(|g| g.as_f64()).sum::<f64>() / unit.len() as f64;
                unit.mapv_inplace(|g| A::from_f64(g.as_f64() - mean));
            }
            *grad = Grad::from_array(values);
        }
        Ok(Outcome::pass())
    }
}

impl fmt::Debug for Centralize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("centralize()")
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array3, ShapeBuilder, array};

    use crate::prelude::*;

    #[test]
    fn a_step_by_hand() {
        let mut opt = Sgd::new(0.5).centralize();
        let mut w = (array![[0.0, 0.0], [0.0, 0.0]], array![[8.0]], array![0.0], Array3::zeros((1, 2, 2)));
        let filter = Array3::from_shape_vec((1, 2, 2), vec![1.0, 2.0, 3.0, 6.0]).unwrap();
        opt.step(&mut w, &(array![[1.0, 3.0], [-2.0, 6.0]], array![[4.0]], array![4.0], filter)).unwrap();
        assert_eq!((w.0, w.1, w.2), (array![[0.5, -0.5], [2.0, -2.0]], array![[8.0]], array![-2.0]));
        assert_eq!(w.3.into_raw_vec_and_offset().0, [1.0, 0.5, 0.0, -1.5]);
    }

    #[test]
    fn no_layout_changes_the_bits() {
        let grad = array![[0.1_f32, 0.7, 1e7], [0.3, -0.9, 0.2]];
        let mut columns = ndarray::Array2::zeros((2, 3).f());
        columns.assign(&grad);
        let [mut w, mut v] = [ndarray::Array2::zeros((2, 3)), ndarray::Array2::zeros((2, 3))];
        Sgd::new(1.0).centralize().step(&mut w, &grad).unwrap();
        Sgd::new(1.0).centralize().step(&mut v, &columns).unwrap();
        assert_eq!(w, v);
    }
}
