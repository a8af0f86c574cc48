//! SOAP and KL-SOAP: Adam in the eigenbasis of Shampoo's preconditioner.

mod basis;
mod moments;

use ndarray::{Array2, ArrayViewMut2};

use crate::hyper_parameters;
use crate::kernel::squares::{divide, norm};
use crate::params::{Scalar, TensorInfo};
use crate::rule::{At, MatrixRule, MatrixSlot, Matrixwise};
use crate::schedule::Hyper;
use basis::{add, add_whitened, back, bases, begin, iterate, sides, turn};

/// SOAP: Adam in the eigenbasis of the gradients' second moments.
///
/// # Update rule
/// ```text
/// θ ← θ(1 − ηλ)
/// g′ = Pᵀ g Q
/// m ← β₁m + (1 − β₁)g′,  v ← β₂v + (1 − β₂)g′²
/// d = √(1 − β₂ᵗ)/(1 − β₁ᵗ) · m / (√v + ε)                                  without correct_bias  m / (√v + ε)
///     with nesterov  √(1 − β₂ᵗ)·(μₜ₊₁·m/(1 − μ₁⋯μₜ₊₁) + (1 − μₜ)·g′/(1 − μ₁⋯μₜ)) / (√v + ε),  μₜ = β₁(1 − ½·0.96^(tψ))
/// d ← P d Qᵀ                                                               with normalize_gradient d is divided by the RMS of m/(√v + ε)
/// θ ← θ − ηd
/// L ← β₃L + (1 − β₃)ggᵀ,  R ← β₃R + (1 − β₃)gᵀg
/// every `every` steps:  P ← QR(L·P), columns by falling eigenvalue, m and v rotated too; Q from R in the same way
/// ```
/// **The first step only initializes the preconditioners and applies weight decay**, so no gradient is projected onto a basis computed from itself. P and
/// Q start from eigen-decompositions of L and R; t counts the steps after the first. A side longer than `max_side` is not rotated. Vectors, and matrices
/// with a side of length 1, are rotated only with `precondition_1d`; without it they get Adam's steps. A tensor is reshaped to a matrix of its first axis
/// and all others.
///
/// # Hyper-parameters
/// | name | default | range | meaning |
/// |---|---|---|---|
/// | `learning_rate` η | – | ≥ 0 | 3e-3 is usual |
/// | [`beta1`](Self::beta1) β₁ | 0.95 | 0 ≤ β₁ < 1 | decay of m |
/// | [`beta2`](Self::beta2) β₂ | 0.95 | 0 ≤ β₂ < 1 | decay of v |
/// | [`shampoo_beta`](Self::shampoo_beta) β₃ | β₂ | 0 ≤ β₃ < 1 | decay of L and R |
/// | [`eps`](Self::eps) ε | 1e-8 | ≥ 0 | keeps the division finite; unit of the gradient |
/// | [`weight_decay`](Self::weight_decay) λ | 0.01 | ≥ 0 | decoupled |
/// | [`every`](Self::every) | 10 | ≥ 1 | steps per update of the basis; 1 updates it in every step |
/// | [`max_side`](Self::max_side) | 10000 | ≥ 1 | longest side that is rotated |
/// | [`nesterov`](Self::nesterov) | no | | momentum as in [`NAdam`](crate::NAdam) |
/// | [`momentum_decay`](Self::momentum_decay) ψ | 4e-3 | ≥ 0 | with `nesterov`: how fast μₜ approaches β₁; from 1e6 on, μₜ = β₁ in every step |
/// | [`correct_bias`](Self::correct_bias) | yes | | divides m and v by 1 − βᵗ |
/// | [`normalize_gradient`](Self::normalize_gradient) | no | | divides each tensor's m/(√v + ε) by its RMS + ε |
/// | [`precondition_1d`](Self::precondition_1d) | no | | also rotates vectors and the long side of matrices with a side of length 1 |
///
/// # State
/// `exp_avg` and `exp_avg_sq`, in the eigenbasis, one number per parameter each; `left` and `left_basis`, 2·rows² numbers; `right` and `right_basis`,
/// 2·columns² numbers.
///
/// # Conventions
/// The authors' implementation and pytorch-optimizer's `SOAP`, with these differences: there, weight decay is applied after the step, the long side of a
/// matrix whose other side is 1 is always rotated, and tensors of more axes are rotated axis by axis unless `merge_dims` makes matrices of them. As there, m
/// keeps its directions in parameter space when the basis changes. Without `correct_bias`, the divisors 1 − βᵗ and 1 − μ₁⋯μₜ are 1. Decompositions are
/// computed in f64.
///
/// `nesterov` is heavyball's `SOAPNAdam`. heavyball divides by max(√v̂, ε), starts β₁ at 0.9, and updates the basis in every second step, from the second on.
///
/// `max_side` and `precondition_1d` determine the state: see [`Matrixwise`] before you change them on a running optimizer.
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
pub type Soap<A = f32> = Matrixwise<SoapRule<false>, A>;

/// KL-SOAP: SOAP whose preconditioner is the best Kronecker product in the sense of the Kullback–Leibler divergence.
///
/// # Update rule
/// That of [`Soap`], but for L and R:
/// ```text
/// L ← (1 − w)L + w·g Q diag(1/b) Qᵀ gᵀ/columns,  b = max(diag(Qᵀ R Q), ε)
/// R ← (1 − w)R + w·gᵀ P diag(1/a) Pᵀ g/rows,     a = max(diag(Pᵀ L P), ε)
/// w = (1 − β₃)/(1 − β₃ˢ)
/// ```
/// Both sides use the L and R of the previous step. s counts all steps; the first sets L = ggᵀ and R = gᵀg. Each side weights the gradient by
/// the inverse of the other side, so that L ⊗ R approaches the covariance of the gradients. If only one side is rotated, its moment is that of
/// [`Soap`], with this w.
///
/// # Hyper-parameters
/// Those of [`Soap`], with its methods and defaults. ε is also the smallest eigenvalue in a and b.
///
/// # State
/// That of [`Soap`].
///
/// # Conventions
/// heavyball's `KLSOAP`, with the differences that [`Soap`] names. If g has fewer rows than columns, R has eigenvalues of 0 at first, and 1/ε is the weight
/// of their directions; the mean forgets it after some 1/(1 − β₃) steps. Only the eigenvectors of L and R enter the step. A contribution to L or R
/// that would overflow is left out.
///
/// `max_side` and `precondition_1d` determine the state: see [`Matrixwise`] before you change them on a running optimizer.
///
/// # Errors
/// Those of [`Soap`].
///
/// # Example
/// ```
/// use gradus::{optimizer::KlSoap, prelude::*};
/// use ndarray::array;
///
/// let mut opt = KlSoap::new(0.1).weight_decay(0.0);
/// let mut w = array![[0.0_f64, 0.0], [0.0, 0.0]];
/// (0..2).try_for_each(|_| opt.step(&mut w, &array![[2.0, 0.0], [0.0, 1.0]]).map(drop))?;
/// assert!((w[[0, 0]] + 0.1).abs() < 1e-6); // η in each direction
/// let left = opt.slot("", "left").unwrap_or_default();
/// assert!((left[[0, 0]] - (0.95 * 4.0 + 0.5) / 1.95).abs() < 1e-12); // the fresh one is 2·¼·2/2 = ½
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// # References
/// W. Lin et al., *Understanding and Improving Shampoo and SOAP via Kullback–Leibler Minimization* (2025),
/// [arXiv:2509.03378](https://arxiv.org/abs/2509.03378).
#[doc(alias = "KLSOAP")]
pub type KlSoap<A = f32> = Matrixwise<SoapRule<true>, A>;

hyper_parameters! {
    /// The rule of [`Soap`] and, with `KL`, of [`KlSoap`].
    pub struct SoapRule<const KL: bool> named (if KL { "KlSoap" } else { "Soap" }) => SoapValues for Matrixwise {
        /// The decay β₁ of the mean, 0 ≤ β₁ < 1.
        beta1 / set_beta1: 0.95, 0.0..1.0;
        /// The decay β₂ of the squares, 0 ≤ β₂ < 1.
        beta2 / set_beta2: 0.95, 0.0..1.0;
        /// The ε ≥ 0 that keeps the division finite.
        eps / set_eps: 1e-8, 0.0..;
        /// The speed ψ ≥ 0 with which the Nesterov momentum rises to β₁.
        momentum_decay / set_momentum_decay: 4e-3, 0.0..;
    }
    optional {
        /// The decay β₃ of L and R, 0 ≤ β₃ < 1, instead of β₂.
        shampoo_beta / set_shampoo_beta: 0.0..1.0;
    }
    options {
        /// Updates the basis every `every` steps.
        every: u64 = 10, at least 1;
        /// The longest side that is rotated.
        max_side: usize = 10_000, at least 1;
        /// Uses the momentum of [`NAdam`](crate::NAdam), which looks one step ahead.
        nesterov: bool = false;
        /// Divides the moments by 1 − βᵗ, which is the default.
        correct_bias: bool = true;
        /// Divides the direction of each tensor by its RMS.
        normalize_gradient: bool = false;
        /// Also rotates vectors, and the long side of matrices with a side of length 1.
        precondition_1d: bool = false;
    }
}

impl<A: Scalar> Soap<A> {
    /// SOAP with the authors' defaults, among them weight decay 0.01.
    pub fn new(learning_rate: impl Into<Hyper>) -> Self {
        Self::from_rule(SoapRule::default(), learning_rate).weight_decay(0.01)
    }
}

impl<A: Scalar> KlSoap<A> {
    /// KL-SOAP with the defaults of SOAP, among them weight decay 0.01.
    pub fn new(learning_rate: impl Into<Hyper>) -> Self {
        Self::from_rule(SoapRule::default(), learning_rate).weight_decay(0.01)
    }
}

impl<const KL: bool> SoapRule<KL> {
    /// Whether rows and columns are rotated.
    fn sides(&self, (rows, columns): (usize, usize)) -> [bool; 2] {
        let turned = |side: usize| (2..=self.max_side).contains(&side);
        match rows.min(columns) {
            0 => [false; 2],
            1 if !self.precondition_1d => [false; 2],
            _ => [turned(rows), turned(columns)],
        }
    }
}

impl<A: Scalar, const KL: bool> MatrixRule<A> for SoapRule<KL> {
    fn name(&self) -> &'static str {
        if KL { "klsoap" } else { "soap" }
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
        let beta = values.shampoo_beta.unwrap_or(values.beta2);
        match (KL, at.step) {
            (false, _) => add(&grad, 1.0 - beta, &mut sides),
            (true, 1) => add(&grad, 1.0, &mut sides),
            (true, _) => add_whitened(&grad, (1.0 - beta) / at.bias_correction(beta), values.eps, &mut sides),
        }
        if at.step == 1 {
            for side in sides.iter_mut().flatten() {
                begin(side);
            }
            return grad.fill(A::zero());
        }
        let mut direction = grad.to_owned();
        let mut room = Array2::zeros(direction.dim());
        turn(&mut direction, &mut room, bases(&sides));
        let correction = self.adam(values, &At { step: at.step - 1, ..*at }, &mut direction, [mean, square]);
        turn(&mut direction, &mut room, back(&sides));
        if self.normalize_gradient {
            normalize(&mut direction, correction, values.eps);
        }
        if (at.step - 1).is_multiple_of(self.every) {
            iterate(&mut sides, mean, square, &mut room);
        }
        grad.assign(&direction);
    }
}

/// d ← c·d/c / (RMS(d/c) + ε) for a direction that has been multiplied by c.
fn normalize<A: Scalar>(direction: &mut Array2<A>, correction: f64, eps: f64) {
    let divisor = norm(direction) / (direction.len() as f64).sqrt() / correction + eps;
    divide(direction, divisor, 1.0);
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

    /// Of gradients without full rank, with no ε to limit the inverse, and with numbers near the largest.
    #[test]
    fn moments_of_kl_stay_finite() {
        for (eps, scale) in [(0.0, 1.0_f32), (1e-30, 1.0), (1e-38, 1e15), (0.0, 0.0)] {
            let (mut opt, mut w) = (KlSoap::new(0.01).eps(eps).every(1), Array2::<f32>::ones((3, 5)));
            for t in 0..4 {
                let grad = Array2::from_shape_fn((3, 5), |(i, j)| scale * ((t * 7 + i * 3 + j * 5) as f32).sin());
                opt.step(&mut w, &grad).unwrap();
                let slots = ["left", "right", "left_basis", "exp_avg"].map(|slot| opt.slot("", slot).unwrap());
                assert!(w.iter().chain(slots.iter().flatten()).all(|x| x.is_finite()), "{eps} {scale}: {slots:?}");
            }
        }
    }

    /// Without rotation both elements would move by η.
    #[test]
    fn vectors_are_rotated_on_request() {
        let (mut opt, mut w) = (Soap::new(0.1).weight_decay(0.0).eps(1e-9).precondition_1d(true), array![0.0, 0.0]);
        (0..2).for_each(|_| _ = opt.step(&mut w, &array![3.0, 4.0]).unwrap());
        assert!((w + array![0.06, 0.08]).iter().all(|d: &f64| d.abs() < 1e-7), "η in the direction of the gradient");
        assert_eq!(opt.slot("", "left_basis").unwrap().dim(), (2, 2));
        assert!(opt.slot("", "right").is_none());
    }
}
