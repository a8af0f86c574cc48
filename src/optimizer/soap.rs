//! SOAP: Adam in the eigenbasis of Shampoo's preconditioner.

use std::mem::swap;

use ndarray::{Array2, ArrayRef2, ArrayView2, ArrayViewMut2, Axis};

use crate::hyper_parameters;
use crate::kernel::decomposition::{eigen, orthonormal};
use crate::kernel::product::faer::{blend_gram, multiplied, multiply};
use crate::kernel::simd;
use crate::params::{Scalar, TensorInfo};
use crate::rule::{At, MatrixRule, MatrixSlot, Matrixwise};
use crate::schedule::Hyper;

/// SOAP: Adam in the eigenbasis of the gradients' second moments.
///
/// # Update rule
/// ```text
/// θ ← θ(1 − ηλ)
/// g′ = Pᵀ g Q
/// m ← β₁m + (1 − β₁)g′,  v ← β₂v + (1 − β₂)g′²
/// θ ← θ − η·√(1 − β₂ᵗ)/(1 − β₁ᵗ) · P (m / (√v + ε)) Qᵀ
/// L ← β₂L + (1 − β₂)ggᵀ,  R ← β₂R + (1 − β₂)gᵀg
/// every `every` steps:  P ← QR(L·P), columns by falling eigenvalue, m and v rotated too; Q from R in the same way
/// ```
/// **The first step only initializes the preconditioners and applies weight decay**, so no gradient is projected onto a basis computed from itself. P and
/// Q start from eigen-decompositions of L and R; t counts the steps after the first. A side longer than `max_side` is not rotated. Vectors, and matrices
/// with a side of length 1, are not rotated at all and get Adam's steps. A tensor is reshaped to a matrix of its first axis and all others.
///
/// # Hyper-parameters
/// | name | default | range | meaning |
/// |---|---|---|---|
/// | `learning_rate` η | – | ≥ 0 | 3e-3 is usual |
/// | [`beta1`](Self::beta1) β₁ | 0.95 | 0 ≤ β₁ < 1 | decay of m |
/// | [`beta2`](Self::beta2) β₂ | 0.95 | 0 ≤ β₂ < 1 | decay of v, L and R |
/// | [`eps`](Self::eps) ε | 1e-8 | ≥ 0 | keeps the division finite; unit of the gradient |
/// | [`weight_decay`](Self::weight_decay) λ | 0.01 | ≥ 0 | decoupled |
/// | [`every`](Self::every) | 10 | ≥ 1 | steps per update of the basis |
/// | [`max_side`](Self::max_side) | 10000 | ≥ 1 | longest side that is rotated |
///
/// # State
/// `exp_avg` and `exp_avg_sq`, in the eigenbasis, one number per parameter each; `left` and `left_basis`, 2·rows² numbers; `right` and `right_basis`,
/// 2·columns² numbers.
///
/// # Conventions
/// The authors' implementation, with these differences: there, weight decay is applied after the step, the long side of a matrix whose other side is 1
/// is rotated too, and tensors of more axes are rotated axis by axis. As there, m keeps its directions in parameter space when the basis changes.
/// Decompositions are computed in f64.
///
/// `max_side` determines the state: see [`Matrixwise`] before you change it on a running optimizer.
///
/// # Errors
/// [`NonFiniteGradient`](crate::error::StepError::NonFiniteGradient), [`NormOverflow`](crate::error::StepError::NormOverflow),
/// [`HyperParameter`](crate::error::StepError::HyperParameter). If the first decomposition fails, the basis starts from the identity.
///
/// # Example
/// ```
/// use gradus::{optimizer::Soap, prelude::*};
/// use ndarray::array;
///
/// let mut opt = Soap::new(0.1).weight_decay(0.0);
/// let mut w = array![[1.0, 2.0], [3.0, 4.0]];
/// opt.step(&mut w, &array![[1.0, 1.0], [1.0, 1.0]])?;
/// assert_eq!(w, array![[1.0, 2.0], [3.0, 4.0]]); // the first step only begins
/// opt.step(&mut w, &array![[1.0, 1.0], [1.0, 1.0]])?;
/// assert!((w[[0, 0]] - 0.95_f64).abs() < 1e-6); // η in the one direction that has a gradient, (½, ½, ½, ½)
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// # References
/// N. Vyas et al., *SOAP: Improving and Stabilizing Shampoo using Adam* (2024), [arXiv:2409.11321](https://arxiv.org/abs/2409.11321), algorithm 3.
pub type Soap<A = f32> = Matrixwise<SoapRule, A>;

hyper_parameters! {
    /// The rule of [`Soap`].
    pub struct SoapRule => SoapValues for Matrixwise {
        /// The decay β₁ of the mean, 0 ≤ β₁ < 1.
        beta1 / set_beta1: 0.95, 0.0..1.0;
        /// The decay β₂ of the squares and of L and R, 0 ≤ β₂ < 1.
        beta2 / set_beta2: 0.95, 0.0..1.0;
        /// The ε ≥ 0 that keeps the division finite.
        eps / set_eps: 1e-8, 0.0..;
    }
    options {
        /// Updates the basis every `every` steps.
        every: u64 = 10, at least 1;
        /// The longest side that is rotated.
        max_side: usize = 10_000, at least 1;
    }
}

impl<A: Scalar> Soap<A> {
    /// SOAP with the authors' defaults, among them weight decay 0.01.
    pub fn new(learning_rate: impl Into<Hyper>) -> Self {
        Self::from_rule(SoapRule::default(), learning_rate).weight_decay(0.01)
    }
}

impl SoapRule {
    /// Whether rows and columns are turned.
    fn sides(&self, (rows, columns): (usize, usize)) -> [bool; 2] {
        let turned = |side: usize| (2..=self.max_side).contains(&side);
        match rows.min(columns) {
            0 | 1 => [false; 2],
            _ => [turned(rows), turned(columns)],
        }
    }
}

/// What is remembered of a side that is turned: the second moment of the gradient, and the basis.
struct Side<'s, A> {
    moment: &'s mut Array2<A>,
    basis: &'s mut Array2<A>,
}

/// The slots of the sides, where they are turned.
fn sides<A>(has: [bool; 2], slots: &mut [Array2<A>]) -> [Option<Side<'_, A>>; 2] {
    let mut pairs = slots.chunks_exact_mut(2);
    has.map(|has| match if has { pairs.next() } else { None } {
        Some([moment, basis]) => Some(Side { moment, basis }),
        _ => None,
    })
}

/// M ← PᵀMQ, the bases of the sides that are turned, with room for a product.
fn turn<A: Scalar>(matrix: &mut Array2<A>, room: &mut Array2<A>, [left, right]: [Option<ArrayView2<'_, A>>; 2]) {
    if let Some(left) = left {
        multiply(&left.t(), matrix, room);
        swap(matrix, room);
    }
    if let Some(right) = right {
        multiply(matrix, &right, room);
        swap(matrix, room);
    }
}

impl<A: Scalar> MatrixRule<A> for SoapRule {
    fn name(&self) -> &'static str {
        "soap"
    }

    fn slots(&self, shape: (usize, usize)) -> Vec<MatrixSlot> {
        let mut slots = vec![MatrixSlot::new("exp_avg", shape), MatrixSlot::new("exp_avg_sq", shape)];
        let names = [["left", "left_basis"], ["right", "right_basis"]];
        for ((names, side), _) in names.into_iter().zip([shape.0, shape.1]).zip(self.sides(shape)).filter(|x| x.1) {
            slots.extend(names.map(|name| MatrixSlot::new(name, (side, side))));
        }
        slots
    }

    fn direction(
        &self,
        values: &SoapValues,
        at: &At,
        _: &TensorInfo,
        mut grad: ArrayViewMut2<'_, A>,
        slots: &mut [Array2<A>],
    ) {
        let [mean, square, rest @ ..] = slots else { unreachable!("there are two moments") };
        let mut sides = sides(self.sides(grad.dim()), rest);
        let beta2 = values.beta2;
        if at.step == 1 {
            add(&grad, beta2, &mut sides);
            for side in sides.iter_mut().flatten() {
                begin(side);
            }
            return grad.fill(A::zero());
        }
        add(&grad, beta2, &mut sides);
        let mut direction = grad.to_owned();
        let mut room = Array2::zeros(direction.dim());
        turn(&mut direction, &mut room, bases(&sides));
        adam((values, at.step - 1), &mut direction, mean, square);
        turn(&mut direction, &mut room, back(&sides));
        if (at.step - 1).is_multiple_of(self.every) {
            iterate(&mut sides, mean, square, &mut room);
        }
        grad.assign(&direction);
    }
}

/// Rotates a matrix into the bases.
fn bases<'s, A: Scalar>(sides: &'s [Option<Side<'_, A>>; 2]) -> [Option<ArrayView2<'s, A>>; 2] {
    sides.each_ref().map(|side| side.as_ref().map(|side| side.basis.view()))
}

/// Rotates a matrix back from the bases.
fn back<'s, A: Scalar>(sides: &'s [Option<Side<'_, A>>; 2]) -> [Option<ArrayView2<'s, A>>; 2] {
    sides.each_ref().map(|side| side.as_ref().map(|side| side.basis.t()))
}

/// Adam's moments after so many steps, and its direction in the place of the gradient.
fn adam<A: Scalar>(
    (values, steps): (&SoapValues, u64),
    grad: &mut Array2<A>,
    mean: &mut Array2<A>,
    square: &mut Array2<A>,
) {
    let SoapValues { beta1, beta2, eps } = *values;
    let [b1, r1, b2, r2, eps] = [beta1, 1.0 - beta1, beta2, 1.0 - beta2, eps].map(A::from_f64);
    let steps = steps as f64;
    let correction = A::from_f64((1.0 - beta2.powf(steps)).sqrt() / (1.0 - beta1.powf(steps)));
    let (Some(grad), Some(mean), Some(square)) = (grad.as_slice_mut(), mean.as_slice_mut(), square.as_slice_mut())
    else {
        unreachable!("products and slots lie row by row")
    };
    simd::arch().dispatch(
        #[inline(always)]
        move || {
            for ((d, m), v) in grad.iter_mut().zip(mean).zip(square) {
                *m = b1 * *m + r1 * *d;
                *v = b2 * *v + r2 * (*d * *d);
                let root = v.sqrt() + eps;
                *d = if root > A::zero() { correction * (*m / root) } else { A::zero() };
            }
        },
    );
}

/// Adds a gradient to the second moments of the sides.
fn add<A: Scalar>(grad: &ArrayRef2<A>, beta2: f64, sides: &mut [Option<Side<'_, A>>; 2]) {
    for (along, side) in [grad.view(), grad.t()].into_iter().zip(sides) {
        if let Some(side) = side {
            blend_gram(along, A::from_f64(1.0 - beta2), A::from_f64(beta2), side.moment);
        }
    }
}

/// The first basis: eigenvectors, by falling eigenvalue.
fn begin<A: Scalar>(side: &mut Side<'_, A>) {
    match eigen(&**side.moment) {
        Some((_, mut vectors)) => {
            vectors.invert_axis(Axis(1));
            side.basis.assign(&vectors);
        }
        None => side.basis.diag_mut().fill(A::one()),
    }
}

/// One power iteration: the bases of both sides, and the moments in them.
fn iterate<A: Scalar>(
    sides: &mut [Option<Side<'_, A>>; 2],
    mean: &mut Array2<A>,
    square: &mut Array2<A>,
    room: &mut Array2<A>,
) {
    turn(mean, room, back(sides));
    for (axis, side) in [Axis(0), Axis(1)].into_iter().zip(sides.iter_mut()) {
        let Some(side) = side else { continue };
        let moved = multiplied(side.moment, side.basis);
        // How much of the moment lies along each column.
        let mut estimate = vec![A::zero(); moved.ncols()];
        for (basis, moved) in side.basis.rows().into_iter().zip(moved.rows()) {
            let products = basis.iter().zip(moved).map(|(basis, moved)| *basis * *moved);
            estimate.iter_mut().zip(products).for_each(|(sum, product)| *sum += product);
        }
        let mut order: Vec<usize> = (0..estimate.len()).collect();
        order.sort_by(|a, b| estimate[*b].as_f64().total_cmp(&estimate[*a].as_f64()));
        *square = reordered(square, axis, &order);
        *side.basis = orthonormal(&moved, &order);
    }
    turn(mean, room, bases(sides));
}

/// Rows or columns in another order; columns row by row, as they lie in memory.
fn reordered<A: Scalar>(matrix: &Array2<A>, axis: Axis, order: &[usize]) -> Array2<A> {
    if axis == Axis(0) {
        return matrix.select(axis, order);
    }
    let mut result = Array2::zeros(matrix.dim());
    for (mut to, from) in result.rows_mut().into_iter().zip(matrix.rows()) {
        to.iter_mut().zip(order).for_each(|(to, at)| *to = from[*at]);
    }
    result
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;
    use crate::optimizer::Adam;
    use crate::step::Optimizer;

    /// A vector, a row and what is longer than `max_side` have Adam's steps, one later.
    #[test]
    fn what_is_not_turned_is_adam() {
        let grads: Vec<_> =
            (0..5).map(|t| Array2::from_shape_fn((1, 6), |(_, j)| ((t * 7 + j) as f64).sin())).collect();
        let (mut adam, mut expected) = (Adam::new(0.1).beta1(0.9).beta2(0.8), grads[0].clone());
        let (mut soap, mut row) = (Soap::new(0.1).weight_decay(0.0).beta1(0.9).beta2(0.8), grads[0].clone());
        let (mut narrow, mut square) =
            (soap.clone().max_side(2), grads[0].clone().into_shape_with_order((3, 2)).unwrap());
        let mut column = grads[0].t().to_owned();
        soap.step(&mut row, &grads[4]).unwrap();
        narrow.clone().step(&mut square, &grads[4].clone().into_shape_with_order((3, 2)).unwrap()).unwrap();
        let mut columns = narrow.clone();
        columns.step(&mut column, &grads[4].t()).unwrap();
        assert_eq!(row, expected, "the first step only begins");
        for grad in &grads {
            adam.step(&mut expected, grad).unwrap();
            soap.step(&mut row, grad).unwrap();
            columns.step(&mut column, &grad.t()).unwrap();
        }
        // ε stands beside √v, not √v/√(1 − β₂ᵗ).
        assert!(row.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-6), "{row} {expected}");
        assert_eq!(row.t(), column);
        narrow.step(&mut square, &grads[4].clone().into_shape_with_order((3, 2)).unwrap()).unwrap();
        assert!(narrow.slot("", "left").is_none() && narrow.slot("", "right").is_some());
    }

    /// G = diag(3, 4) turns nothing but the order; the signs of eigenvectors cancel.
    #[test]
    fn second_step_by_hand() {
        let (mut opt, mut w) = (Soap::new(0.1).weight_decay(0.5).eps(1.0), array![[1.0, 2.0], [3.0, 4.0]]);
        opt.step(&mut w, &array![[3.0, 0.0], [0.0, 4.0]]).unwrap();
        let decayed = array![[1.0, 2.0], [3.0, 4.0]] * 0.95;
        assert!((&w - &decayed).iter().all(|d: &f64| d.abs() < 1e-15));
        let left = opt.slot("", "left").unwrap() - array![[0.45, 0.0], [0.0, 0.8]];
        assert!(left.iter().all(|d: &f64| d.abs() < 1e-12));
        opt.step(&mut w, &array![[1.0, 2.0], [0.0, -1.0]]).unwrap();
        // m = 0.05 g, v = 0.05 g², both corrected by √0.05/0.05.
        let expected = array![[1.0, 2.0], [0.0, -1.0]]
            .mapv(|g: f64| 0.1 * 0.05_f64.sqrt() / 0.05 * (0.05 * g / ((0.05 * g * g).sqrt() + 1.0)));
        let expected = decayed * 0.95 - expected;
        assert!((&w - &expected).iter().all(|d| d.abs() < 1e-12), "{w} {expected}");
    }

    /// Turning changes how the moments are written, not the mean that they stand for.
    #[test]
    fn the_mean_is_turned_with_the_basis() {
        let grad = |t: usize| Array2::from_shape_fn((4, 4), |(i, j)| ((t * 5 + i * 3 + j * 7) as f64).sin());
        let mean = |opt: &Soap<f64>| {
            let slot = |name| opt.slot("", name).unwrap();
            slot("left_basis").dot(&slot("exp_avg")).dot(&slot("right_basis").t())
        };
        let (mut opt, mut w) = (Soap::new(0.1).every(3), Array2::zeros((4, 4)));
        let mut expected: Array2<f64> = Array2::zeros((4, 4));
        let mut bases = vec![];
        for t in 0..8 {
            opt.step(&mut w, &grad(t)).unwrap();
            if t > 0 {
                expected = expected * 0.95 + grad(t) * 0.05;
            }
            assert!((mean(&opt) - &expected).iter().all(|d: &f64| d.abs() < 1e-12), "step {t}");
            let basis = opt.slot("", "left_basis").unwrap();
            assert!((basis.t().dot(&basis) - Array2::<f64>::eye(4)).iter().all(|d| d.abs() < 1e-12));
            bases.push(basis);
        }
        let changed: Vec<bool> = bases.windows(2).map(|pair| pair[0] != pair[1]).collect();
        assert_eq!(changed, [false, false, true, false, false, true, false]);
    }
}
