//! Scion: steps of fixed length in a norm of the layer's own.

use std::ops::Bound;

use ndarray::{Array2, ArrayViewMut1, ArrayViewMut2, Axis};

use super::{ITERATIONS, MuonCoefficients, average, orthogonalize};
use crate::error::Result;
use crate::hyper_parameters;
use crate::kernel::squares::{divide, norm};
use crate::params::{Scalar, TensorInfo};
use crate::rule::{At, MatrixRule, MatrixSlot, Matrixwise};
use crate::schedule::Hyper;

/// Scion, for all tensors of a model: momentum, and a step of length ηρ in a norm that fits the layer.
///
/// # Update rule
/// ```text
/// m ← μm + (1 − μ)g
/// d ← lmo(m)                                               see ScionNorm
/// θ ← θ(1 − ηλ)                                            constrained: λ = 1
/// θ ← θ − ηρd
/// ```
/// −ρd is the *linear minimization oracle*: of all steps that the norm measures as ρ, it is the one along which the loss falls most. With λ = 1 each tensor stays
/// within the radius ρ of its norm if it starts there (a Frank–Wolfe step).
///
/// # Hyper-parameters
/// | name | default | range | meaning |
/// |---|---|---|---|
/// | `learning_rate` η | – | ≥ 0 | the fraction of ρ that a step moves |
/// | [`momentum`](Self::momentum) μ | 0.9 | 0 ≤ μ < 1 | decay of the average gradient |
/// | [`norm`](Self::norm) | auto | [`ScionNorm`] | the norm of the layer |
/// | [`radius`](Self::radius) ρ | 1 | > 0 | length of a step per η; the authors use 50 for hidden layers and 3000 for heads |
/// | [`one_hot`](Self::one_hot) | no | | the inputs are one-hot, as those of an embedding: counts them as one input |
/// | [`transposed`](Self::transposed) | no | | the first axis is the inputs, as in an embedding (tokens, width) |
/// | [`constrained`](Self::constrained) | no | | λ = 1 |
/// | [`iterations`](Self::iterations) | 5 | ≥ 1 | Newton–Schulz iterations of the spectral norm |
/// | [`coefficients`](Self::coefficients) | Jordan's | [`MuonCoefficients`] | a, b, c of each iteration |
/// | [`eps`](Self::eps) ε | 1e-8 | > 0 | keeps divisions finite; the smallest ‖m‖ |
/// | `weight_decay` λ | 0 | ≥ 0 | decoupled |
///
/// # State
/// `momentum_buffer`, a matrix of the parameter's size: 4 bytes per parameter in f32.
///
/// # Conventions
/// pytorch-optimizer's `SCION`, which computes the iterations in bf16. Its `momentum` is 1 − μ, its `scale` is ρ, and `constraint=True` is `constrained(true)`.
/// `normalize=False` and `normalized=False` are `one_hot(true)`, `transpose=True` is `transposed(true)`. `SCIONLight` is the same rule with the momentum kept in
/// the gradients. Its norm `NONE` is [`Momentum`](crate::Momentum). The reference also initializes the parameters within the radius; here this is your code.
///
/// # Errors
/// [`StepError::NonFiniteGradient`](crate::error::StepError::NonFiniteGradient), [`StepError::NormOverflow`](crate::error::StepError::NormOverflow),
/// [`StepError::HyperParameter`](crate::error::StepError::HyperParameter); [`Empty`](crate::error::ArgumentError::Empty) and
/// [`NotFinite`](crate::error::ArgumentError::NotFinite) for `coefficients`, [`Zero`](crate::error::ArgumentError::Zero) for `iterations`.
///
/// # Example
/// ```
/// use gradus::{optimizer::ScionNorm, prelude::*};
/// use ndarray::array;
///
/// // Spectral for matrices, RMS for biases, and the sign for the head.
/// let head = Scion::new(4e-4).norm(ScionNorm::Sign).radius(3000.0);
/// let mut opt = Scion::new(4e-4).radius(50.0).route("1", head);
/// let (mut bias, mut head) = (array![0.0_f64, 0.0], array![[0.0_f64, 0.0]]);
/// opt.step(&mut (&mut bias, &mut head), &(array![3.0, 3.0], array![[5.0, -1.0]]))?;
/// assert!((bias[0] + 4e-4 * 50.0).abs() < 1e-9); // an RMS of ηρ
/// assert!((head[[0, 1]] - 4e-4 * 3000.0 / 2.0).abs() < 1e-9); // ηρ/inputs
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// # References
/// T. Pethick et al., *Training Deep Learning Models with Norm-Constrained LMOs* (2025), [arXiv:2502.07529](https://arxiv.org/abs/2502.07529), algorithms 1 and
/// 2, table 2.
pub type Scion<A = f32> = Matrixwise<ScionRule, A>;

/// The norm in which [`Scion`] measures its steps.
///
/// A tensor is a matrix of its first axis and all others. The first axis is the outputs, the second the inputs, and the others are the kernel with k elements;
/// a vector has one input, and k is 1 up to two axes. [`transposed`](Scion::transposed) swaps outputs and inputs, and rows and columns.
/// [`one_hot`](Scion::one_hot) sets the inputs to 1 in these formulas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum ScionNorm {
    /// [`Rms`](Self::Rms) for tensors of at most one axis, [`Spectral`](Self::Spectral) for all others.
    Auto,
    /// √(outputs/inputs)/k · the orthogonal matrix of m, as in [`Muon`](crate::Muon): for hidden layers and convolutions.
    Spectral,
    /// max(1, √(outputs/inputs))/k · the orthogonal matrix of m. pytorch-optimizer has it as `max_scale=True`.
    SpectralMax,
    /// sign(m)/inputs: for heads, and for embeddings that share their weights. The sign of 0 is 0.
    Sign,
    /// m divided by ‖row‖·√inputs + ε: for heads.
    Rows,
    /// m divided by RMS(column)·inputs + ε. With [`transposed`](Scion::transposed) and [`one_hot`](Scion::one_hot) for embeddings.
    Columns,
    /// m divided by its RMS + ε: for biases and gains.
    Rms,
}

hyper_parameters! {
    /// The rule of [`Scion`].
    pub struct ScionRule => ScionValues for Matrixwise {
        /// The momentum μ, 0 ≤ μ < 1.
        momentum / set_momentum: 0.9, 0.0..1.0;
        /// The radius ρ > 0: the length of a step for a learning rate of 1.
        radius / set_radius: 1.0, (Bound::Excluded(0.0), Bound::Unbounded);
        /// The ε > 0 that keeps divisions finite.
        eps / set_eps: 1e-8, (Bound::Excluded(0.0), Bound::Unbounded);
    }
    options {
        /// The norm in which a step has the length ηρ.
        norm: ScionNorm = ScionNorm::Auto;
        /// Counts the inputs as one, for layers whose inputs are one-hot.
        one_hot: bool = false;
        /// The first axis is the inputs, and the second the outputs.
        transposed: bool = false;
        /// The number of Newton–Schulz iterations in a step.
        iterations: usize = ITERATIONS, at least 1;
        /// The polynomials of the iterations: a named list, or an array or `Vec` of triples (a, b, c), of which the last repeats.
        coefficients from: MuonCoefficients = MuonCoefficients::Jordan;
    }
}

impl<A: Scalar> Scion<A> {
    /// Unconstrained Scion with the defaults of pytorch-optimizer: μ 0.9, ρ 1, ε 1e-8, no weight decay.
    pub fn new(learning_rate: impl Into<Hyper>) -> Self {
        Self::from_rule(ScionRule::default(), learning_rate)
    }

    /// Sets the weight decay to 1 (with `false` to 0), so that each tensor stays within the radius ρ.
    pub fn constrained(self, constrained: bool) -> Self {
        self.weight_decay(if constrained { 1.0 } else { 0.0 })
    }
}

impl<A: Scalar> MatrixRule<A> for ScionRule {
    fn name(&self) -> &'static str {
        "scion"
    }

    fn slots(&self, shape: (usize, usize)) -> Vec<MatrixSlot> {
        vec![MatrixSlot::new("momentum_buffer", shape)]
    }

    fn accepts(&self, _: &TensorInfo) -> Result<()> {
        self.coefficients.ensure::<A>()
    }

    fn direction(
        &self,
        values: &ScionValues,
        _: &At,
        tensor: &TensorInfo,
        mut grad: ArrayViewMut2<'_, A>,
        slots: &mut [Array2<A>],
    ) {
        let [buffer] = slots else { unreachable!("there is one slot") };
        average(values.momentum, false, &mut grad, buffer);
        if grad.is_empty() {
            return;
        }
        let (radius, eps) = (values.radius, values.eps);
        let (mut outputs, mut inputs, kernel) = match *tensor.shape() {
            [outputs, inputs, ref kernel @ ..] => (outputs, inputs, kernel.iter().product()),
            _ => (grad.len(), 1, 1),
        };
        let [mut rows, mut columns] = [Axis(0), Axis(1)];
        if self.transposed {
            (outputs, inputs, rows, columns) = (inputs, outputs, columns, rows);
        }
        let inputs = if self.one_hot { 1.0 } else { inputs as f64 };
        let spectral = |grad: ArrayViewMut2<'_, A>, least: f64| {
            let scale = radius * (outputs as f64 / inputs).sqrt().max(least) / kernel as f64;
            let triples = || self.coefficients.triples().take(self.iterations);
            let shape = grad.dim();
            orthogonalize(grad, shape, &triples, eps, scale);
        };
        match self.norm {
            ScionNorm::Auto if tensor.shape().len() > 1 => spectral(grad, 0.0),
            ScionNorm::Spectral => spectral(grad, 0.0),
            ScionNorm::SpectralMax => spectral(grad, 1.0),
            ScionNorm::Sign => {
                let length = A::from_f64(radius / inputs);
                grad.mapv_inplace(|m| if m == A::zero() { m } else { length * m.signum() });
            }
            ScionNorm::Rows => {
                shorten(grad.axis_iter_mut(rows), radius, |norm, _| norm * inputs.sqrt() + eps);
            }
            ScionNorm::Columns => {
                shorten(grad.axis_iter_mut(columns), radius, |norm, len| norm / len.sqrt() * inputs + eps);
            }
            ScionNorm::Rms | ScionNorm::Auto => {
                let len = grad.len();
                let all = grad.into_shape_with_order(len).into_iter();
                shorten(all, radius, |norm, len| norm / len.sqrt() + eps);
            }
        }
    }
}

/// Multiplies each lane by the radius, and divides it by the divisor for its norm and its number of elements.
fn shorten<'a, A: Scalar>(
    lanes: impl Iterator<Item = ArrayViewMut1<'a, A>>,
    radius: f64,
    divisor: impl Fn(f64, f64) -> f64,
) {
    for mut lane in lanes {
        let divisor = divisor(norm(&lane), lane.len() as f64);
        divide(&mut lane, divisor, radius);
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{ArrayD, array};

    use super::*;
    use crate::prelude::*;

    /// The first step of η = 1 and μ = 0 from 0, of a gradient 1, −2, 3, …
    fn step(opt: Scion<f64>, shape: &[usize]) -> ArrayD<f64> {
        let sign = |at: usize| if at.is_multiple_of(2) { 1.0 } else { -1.0 };
        let grad = (0..shape.iter().product()).map(|at| sign(at) * (at + 1) as f64).collect();
        let grad = ArrayD::from_shape_vec(shape, grad).unwrap();
        let mut w = ArrayD::zeros(shape);
        opt.momentum(0.0).eps(1e-20).step(&mut w, &grad).unwrap();
        -w
    }

    fn close(found: &ArrayD<f64>, expected: &[f64]) {
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-12, "{found} is not {expected}");
        }
    }

    #[test]
    fn norms_by_hand() {
        let opt = |norm| Scion::new(1.0).norm(norm).radius(6.0);
        let root = f64::sqrt;
        for vector in [opt(ScionNorm::Auto), opt(ScionNorm::Rms)] {
            let rms = root(2.5);
            close(&step(vector.clone(), &[2]), &[6.0 / rms, -12.0 / rms]);
            close(&step(vector, &[]), &[6.0]);
        }
        // Rows (1, −2), (3, −4) and (5, −6), and columns (1, 3, 5) and (−2, −4, −6).
        let rows = [5.0, 25.0, 61.0].map(root);
        let by_rows = [1.0 / rows[0], -2.0 / rows[0], 3.0 / rows[1], -4.0 / rows[1], 5.0 / rows[2], -6.0 / rows[2]];
        let columns = [root(35.0), root(56.0)];
        let by_columns = [
            1.0 / columns[0],
            -2.0 / columns[1],
            3.0 / columns[0],
            -4.0 / columns[1],
            5.0 / columns[0],
            -6.0 / columns[1],
        ];
        let check = |norm, one_hot, transposed, expected: [f64; 6], factor: f64| {
            let found = step(opt(norm).one_hot(one_hot).transposed(transposed), &[3, 2]);
            close(&found, &expected.map(|x| x * 6.0 * factor));
        };
        check(ScionNorm::Rows, false, false, by_rows, 1.0 / root(2.0));
        check(ScionNorm::Rows, true, false, by_rows, 1.0);
        check(ScionNorm::Rows, false, true, by_columns, 1.0 / root(3.0));
        check(ScionNorm::Columns, false, false, by_columns, root(3.0) / 2.0);
        check(ScionNorm::Columns, true, false, by_columns, root(3.0));
        check(ScionNorm::Columns, false, true, by_rows, root(2.0) / 3.0);
        let signs = [1.0, -1.0, 1.0, -1.0, 1.0, -1.0];
        check(ScionNorm::Sign, false, false, signs, 1.0 / 2.0);
        check(ScionNorm::Sign, false, true, signs, 1.0 / 3.0);
        check(ScionNorm::Sign, true, true, signs, 1.0);
        check(ScionNorm::Rms, true, true, [1.0, -2.0, 3.0, -4.0, 5.0, -6.0], 1.0 / root(91.0 / 6.0));
    }

    #[test]
    fn the_spectral_norm_scales_by_outputs_inputs_and_kernel() {
        let x = |shape: &[usize]| step(Scion::new(1.0).norm(ScionNorm::Spectral), shape);
        for (shape, outputs, inputs, kernel) in [(&[3, 2][..], 3.0_f64, 2.0_f64, 1.0), (&[2, 3, 2, 2], 2.0, 3.0, 4.0)] {
            let plain = x(shape) / ((outputs / inputs).sqrt() / kernel);
            let check = |opt: Scion<f64>, scale: f64| {
                let expected: Vec<f64> = plain.iter().map(|x| x * scale / kernel).collect();
                close(&step(opt, shape), &expected);
            };
            let opt = |norm| Scion::new(1.0).norm(norm);
            check(opt(ScionNorm::Auto), (outputs / inputs).sqrt());
            check(opt(ScionNorm::Spectral).transposed(true), (inputs / outputs).sqrt());
            check(opt(ScionNorm::Spectral).one_hot(true), outputs.sqrt());
            check(opt(ScionNorm::SpectralMax), (outputs / inputs).sqrt().max(1.0));
            check(opt(ScionNorm::SpectralMax).transposed(true), (inputs / outputs).sqrt().max(1.0));
        }
    }

    #[test]
    fn a_constrained_tensor_stays_within_its_radius() {
        let (mut opt, mut w) = (Scion::new(0.1).radius(2.0).constrained(true), array![1.0_f64, -1.0]);
        assert_eq!(format!("{opt:?}"), "Scion(learning_rate: 0.1, radius: 2, weight_decay: 1)");
        for _ in 0..500 {
            opt.step(&mut w, &array![1.0, -3.0]).unwrap();
            assert!((w[0] * w[0] + w[1] * w[1]).sqrt() <= 2.0 * 2.0_f64.sqrt() + 1e-9);
        }
        assert!((w[0] * w[0] + w[1] * w[1] - 8.0).abs() < 1e-6);
        assert_eq!(opt.constrained(false).step(&mut w, &array![1.0, -3.0]).unwrap().learning_rate, 0.1);
        assert!((w[0] * w[0] + w[1] * w[1]).sqrt() > 2.0 * 2.0_f64.sqrt());
    }

    #[test]
    fn eps_is_added_to_what_divides() {
        let step = |norm| {
            let (mut opt, mut w) = (Scion::new(1.0).momentum(0.0).norm(norm).eps(0.5), array![[0.0_f64, 0.0]]);
            opt.step(&mut w, &array![[3.0, 4.0]]).unwrap();
            -w[[0, 0]]
        };
        assert!((step(ScionNorm::Rows) - 3.0 / (5.0 * 2.0_f64.sqrt() + 0.5)).abs() < 1e-14);
        assert!((step(ScionNorm::Columns) - 3.0 / (3.0 * 2.0 + 0.5)).abs() < 1e-14);
        assert!((step(ScionNorm::Rms) - 3.0 / (12.5_f64.sqrt() + 0.5)).abs() < 1e-14);
    }

    #[test]
    fn the_sign_of_nothing_is_nothing() {
        for norm in [ScionNorm::Sign, ScionNorm::Rows, ScionNorm::Columns, ScionNorm::Rms, ScionNorm::Spectral] {
            let (mut opt, mut w) = (Scion::new(0.1).norm(norm), array![[1.0, 2.0]]);
            opt.step(&mut w, &array![[0.0, 0.0]]).unwrap();
            assert_eq!(w, array![[1.0, 2.0]], "{norm:?}");
            let mut nothing = Array2::<f64>::zeros((3, 0));
            Scion::new(0.1).norm(norm).step(&mut nothing, &Array2::zeros((3, 0))).unwrap();
        }
    }
}
