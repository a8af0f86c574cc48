//! Muon: orthogonalized momentum.

mod adaptive;
mod blocks;
mod coefficients;
mod dion;
mod newton_schulz;
mod scale;
mod scion;

use std::ops::Bound;

use ndarray::{Array2, ArrayViewMut2};

pub use adaptive::{AdaMuon, AdaptiveMuonRule, AdaptiveMuonValues, NorMuon};
pub use blocks::MuonBlocks;
pub use coefficients::MuonCoefficients;
pub use dion::{Dion, DionRule, DionValues};
pub use newton_schulz::newton_schulz;
use newton_schulz::{ITERATIONS, orthogonalize};
pub use scale::MuonScale;
pub use scion::{Scion, ScionNorm, ScionRule, ScionValues};

use crate::error::Result;
use crate::hyper_parameters;
use crate::params::{Scalar, TensorInfo};
use crate::rule::{At, MatrixRule, MatrixSlot, Matrixwise, ensure_matrix};
use crate::schedule::Hyper;

/// Muon, for the hidden matrices of a model: momentum whose singular values are all made about 1.
///
/// # Update rule
/// ```text
/// m ← μm + (1 − μ)g
/// u ← (1 − μ)g + μm                                        without Nesterov u ← m
/// X ← u / max(‖u‖, ε)                                      ‖·‖ is Frobenius's; tall matrices are transposed
/// X ← aX + (bXXᵀ + c(XXᵀ)²)X                               `iterations` times; a, b, c = 3.4445, −4.7750, 2.0315
/// θ ← θ(1 − ηλ)
/// θ ← θ − η·√max(1, rows/columns)·X                        with match_rms_adamw η·0.2·√max(rows, columns)·X
/// ```
/// It computes in the parameters' type, f32 or f64. By default, singular values of at least 0.002‖u‖ become 0.68 to 1.21, smaller ones less.
///
/// # Hyper-parameters
/// | name | default | range | meaning |
/// |---|---|---|---|
/// | `learning_rate` η | – | ≥ 0 | 0.02 is usual; with `match_rms_adamw` the learning rate of AdamW |
/// | [`momentum`](Self::momentum) μ | 0.95 | 0 ≤ μ < 1 | decay of the average gradient |
/// | [`nesterov`](Self::nesterov) | yes | | look-ahead; `false` uses the average itself |
/// | [`weight_decay`](Self::weight_decay) λ | 0.1 | ≥ 0 | decoupled |
/// | [`iterations`](Self::iterations) | 5 | ≥ 1 | rounds of Newton–Schulz, each of three matrix products |
/// | [`coefficients`](Self::coefficients) | Jordan's | [`MuonCoefficients`] | a, b, c of each iteration |
/// | [`blocks`](Self::blocks) | whole | [`MuonBlocks`] | parts of a tensor that are matrices of their own: heads, experts |
/// | [`scale`](Self::scale) | original | [`MuonScale`] | the factor of X |
/// | [`match_rms_adamw`](Self::match_rms_adamw) | no | | the factor with the usual length of an AdamW step |
/// | [`eps`](Self::eps) ε | 1e-7 | > 0 | the smallest divisor |
///
/// # State
/// `momentum_buffer`, a matrix of the parameter's size: 4 bytes per parameter in f32.
///
/// # Conventions
/// `torch.optim.Muon`, which computes X in bf16. Use it for hidden layers. Embeddings, heads, biases and norms should use AdamW; the example shows how.
/// Convolutions are matrices (out, in·height·width). `blocks` does not change the state. With
/// [`qk_clip`](crate::OptimizerExt::qk_clip) it is MuonClip.
///
/// # Errors
/// [`NotAMatrix`](crate::error::StepError::NotAMatrix) for tensors of fewer than two axes,
/// [`UnequalBlocks`](crate::error::StepError::UnequalBlocks) if `blocks` does not divide the rows,
/// [`NonFiniteGradient`](crate::error::StepError::NonFiniteGradient), [`NormOverflow`](crate::error::StepError::NormOverflow),
/// [`HyperParameter`](crate::error::StepError::HyperParameter); [`Empty`](crate::error::ArgumentError::Empty) and
/// [`NotFinite`](crate::error::ArgumentError::NotFinite) for `coefficients`, [`Zero`](crate::error::ArgumentError::Zero) for `iterations`.
///
/// # Example
/// ```
/// use gradus::prelude::*;
/// use ndarray::array;
///
/// // Matrices to Muon, everything else and the embedding to AdamW.
/// let hidden = |path: &str, shape: &[usize]| shape.len() >= 2 && !path.starts_with("embedding");
/// let mut opt = AdamW::new(1e-3).route(hidden, Muon::new(0.02));
///
/// let mut w = (array![[1.0_f32, 0.0], [0.0, 1.0]], array![0.0]);
/// opt.step(&mut w, &(array![[3.0, 0.0], [0.0, 1e-2]], array![1.0]))?;
/// assert!((w.0[[0, 0]] - 0.98).abs() < 0.01 && (w.0[[1, 1]] - 0.98).abs() < 0.01); // as far in both directions
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// # References
/// K. Jordan et al., *Muon: An optimizer for hidden layers in neural networks* (2024), kellerjordan.github.io/posts/muon.
/// J. Liu et al., *Muon is Scalable for LLM Training* (2025), [arXiv:2502.16982](https://arxiv.org/abs/2502.16982), section 2.2 (`match_rms_adamw`).
/// N. Amsel et al., *The Polar Express* (2025), [arXiv:2505.16932](https://arxiv.org/abs/2505.16932) (coefficients).
/// J. Bernstein, *Deriving Muon* (2025), jeremybernste.in/writing/deriving-muon (`RmsToRms`).
pub type Muon<A = f32> = Matrixwise<MuonRule, A>;

hyper_parameters! {
    /// The rule of [`Muon`].
    pub struct MuonRule => MuonValues for Matrixwise {
        /// The momentum μ, 0 ≤ μ < 1.
        momentum / set_momentum: 0.95, 0.0..1.0;
        /// The smallest divisor ε > 0.
        eps / set_eps: 1e-7, (Bound::Excluded(0.0), Bound::Unbounded);
    }
    options {
        /// Uses the look-ahead, which is the default. With `false` the momentum itself is orthogonalized.
        nesterov: bool = true;
        /// The number of Newton–Schulz iterations in a step.
        iterations: usize = ITERATIONS, at least 1;
        /// The polynomials of the iterations: a named list, or an array or `Vec` of triples (a, b, c), of which the last repeats.
        coefficients from: MuonCoefficients = MuonCoefficients::Jordan;
        /// The parts of a tensor that are orthogonalized each by itself.
        blocks: MuonBlocks = MuonBlocks::Whole;
        /// The factor of the orthogonal matrix.
        scale: MuonScale = MuonScale::Original;
    }
}

impl<A: Scalar> Muon<A> {
    /// Muon with PyTorch's defaults: μ 0.95, ε 1e-7, weight decay 0.1.
    pub fn new(learning_rate: impl Into<Hyper>) -> Self {
        Self::from_rule(MuonRule::default(), learning_rate).weight_decay(0.1)
    }

    /// Scales by 0.2·√max(rows, columns), so that learning rate and weight decay of AdamW can be used for Muon: [`MuonScale::MatchRmsAdamw`] instead of
    /// [`MuonScale::Original`].
    pub fn match_rms_adamw(self, match_rms_adamw: bool) -> Self {
        self.scale(if match_rms_adamw { MuonScale::MatchRmsAdamw } else { MuonScale::Original })
    }
}

impl<A: Scalar> MatrixRule<A> for MuonRule {
    fn name(&self) -> &'static str {
        "muon"
    }

    fn slots(&self, shape: (usize, usize)) -> Vec<MatrixSlot> {
        vec![MatrixSlot::new("momentum_buffer", shape)]
    }

    fn accepts(&self, tensor: &TensorInfo) -> Result<()> {
        ensure_matrix("muon", tensor)?;
        self.coefficients.ensure::<A>()?;
        self.blocks.ensure(tensor)
    }

    fn direction(
        &self,
        values: &MuonValues,
        _: &At,
        tensor: &TensorInfo,
        mut grad: ArrayViewMut2<'_, A>,
        slots: &mut [Array2<A>],
    ) {
        let [buffer] = slots else { unreachable!("there is one slot") };
        average(values.momentum, self.nesterov, &mut grad, buffer);
        let block = self.blocks.shape(grad.dim(), tensor.shape());
        let triples = || self.coefficients.triples().take(self.iterations);
        orthogonalize(grad, block, &triples, values.eps, self.scale.of(block));
    }
}

/// Averages the gradient, and replaces it by the average or, with Nesterov, by the look-ahead.
fn average<A: Scalar>(momentum: f64, nesterov: bool, grad: &mut ArrayViewMut2<'_, A>, buffer: &mut Array2<A>) {
    let [momentum, rest] = [momentum, 1.0 - momentum].map(A::from_f64);
    buffer.zip_mut_with(grad, |m, g| *m = momentum * *m + rest * *g);
    match nesterov {
        true => grad.zip_mut_with(buffer, |g, m| *g = rest * *g + momentum * *m),
        false => grad.assign(buffer),
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array1, ArrayD, array};

    use super::*;
    use crate::step::Optimizer;

    /// The scalar polynomial: what happens to one singular value.
    fn quintic(x: f64) -> f64 {
        (0..5).fold(x, |x, _| {
            let (a, b, c) = (3.4445, -4.7750, 2.0315);
            a * x + b * x.powi(3) + c * x.powi(5)
        })
    }

    #[test]
    fn first_step_by_hand() {
        // m = 0.05 g and u = 0.05 g + 0.95 m = 0.0975 g; of a diagonal matrix every element goes its own way.
        let (mut opt, mut w) = (Muon::new(0.1).weight_decay(0.5), array![[1.0, 0.0], [0.0, 2.0]]);
        opt.step(&mut w, &array![[3.0, 0.0], [0.0, 4.0]]).unwrap();
        let expected = [1.0 * 0.95 - 0.1 * quintic(0.6), 2.0 * 0.95 - 0.1 * quintic(0.8)];
        assert!((w[[0, 0]] - expected[0]).abs() < 1e-12 && (w[[1, 1]] - expected[1]).abs() < 1e-12, "{w}");
        assert!((opt.slot("", "momentum_buffer").unwrap()[[1, 1]] - 0.2_f64).abs() < 1e-15);
    }

    #[test]
    fn tall_matrices_and_scales() {
        let wide = array![[3.0, 0.0, 0.0, 0.0], [0.0, 4.0, 0.0, 0.0]];
        let x = newton_schulz(wide.view());
        assert_eq!(newton_schulz(wide.t()), x.t());
        let step = |opt: Muon<f64>, grad: &Array2<f64>| {
            let (mut opt, mut w) = (opt.weight_decay(0.0), Array2::zeros(grad.dim()));
            opt.step(&mut w, grad).unwrap();
            w
        };
        let close = |w: Array2<f64>, expected: Array2<f64>| (&w - &expected).iter().all(|d| d.abs() < 1e-14);
        assert!(close(step(Muon::new(1.0), &wide), -&x));
        assert!(close(step(Muon::new(1.0), &wide.t().to_owned()), -&x.t() * 2.0_f64.sqrt()));
        for opt in [Muon::new(1.0).match_rms_adamw(true), Muon::new(1.0).scale(MuonScale::MatchRmsAdamw)] {
            assert!(close(step(opt, &wide), -&x * 0.4));
        }
        assert!(close(step(Muon::new(1.0).scale(MuonScale::RmsToRms), &wide), -&x * 0.5_f64.sqrt()));
        assert!(close(step(Muon::new(1.0).scale(MuonScale::Unscaled), &wide.t().to_owned()), -&x.t()));
    }

    /// What one step of Muon makes of the singular values 0.6 and 0.8.
    fn moved(opt: Muon<f64>) -> [f64; 2] {
        let (mut opt, mut w) = (opt.weight_decay(0.0), Array2::zeros((2, 2)));
        opt.step(&mut w, &array![[3.0, 0.0], [0.0, 4.0]]).unwrap();
        [-w[[0, 0]], -w[[1, 1]]]
    }

    #[test]
    fn triples_in_turn_and_the_last_again() {
        let list = [[2.0, -1.5, 0.5], [1.5, -0.5, 0.0]];
        let expected = |iterations: usize, x: f64| {
            let step = |x: f64, [a, b, c]: [f64; 3]| a * x + b * x.powi(3) + c * x.powi(5);
            (0..iterations).fold(x, |x, at| step(x, list[at.min(1)]))
        };
        for iterations in [1, 2, 3, 7] {
            let found = moved(Muon::new(1.0).coefficients(list).iterations(iterations));
            assert!((found[0] - expected(iterations, 0.6)).abs() < 1e-14, "{iterations}: {found:?}");
            assert!((found[1] - expected(iterations, 0.8)).abs() < 1e-14, "{iterations}: {found:?}");
            assert_eq!(found, moved(Muon::new(1.0).coefficients(list.to_vec()).iterations(iterations)));
        }
    }

    #[test]
    fn eight_iterations_of_polar_express_are_the_polar_factor() {
        let small = array![[1.0, 0.0], [0.0, 1.1e-3]];
        for (coefficients, iterations, error) in [
            (MuonCoefficients::PolarExpress, 8, 1e-12),
            (MuonCoefficients::PolarExpress, 5, 0.14),
            (MuonCoefficients::Dion, 6, 0.15),
        ] {
            let (mut opt, mut w) = (Muon::new(1.0).weight_decay(0.0), Array2::zeros((2, 2)));
            opt = opt.coefficients(coefficients).iterations(iterations);
            opt.step(&mut w, &small).unwrap();
            assert!((&w + &Array2::<f64>::eye(2)).iter().all(|d| d.abs() < error), "{opt:?}: {w}");
        }
    }

    /// A block is stepped as a matrix of its own would be, whatever the other blocks are.
    #[test]
    fn blocks_are_matrices_of_their_own() {
        let step = |opt: &Muon<f64>, grad: ArrayD<f64>| {
            let (mut opt, mut w) = (opt.clone(), ArrayD::ones(grad.shape()));
            (0..3).for_each(|_| _ = opt.step(&mut w, &grad).unwrap());
            w
        };
        let plain = Muon::new(0.1).scale(MuonScale::RmsToRms);
        for (shape, blocks, (rows, columns)) in [
            (vec![6, 4], MuonBlocks::Rows(2), (2, 4)),
            (vec![6, 4], MuonBlocks::Parts(2), (3, 4)),
            (vec![6, 2, 5], MuonBlocks::Parts(6), (1, 10)),
            (vec![6, 2, 5], MuonBlocks::Rows(6), (6, 10)),
            (vec![6, 2, 5], MuonBlocks::Whole, (6, 10)),
            (vec![6, 2, 5], MuonBlocks::LeadingAxes, (2, 5)),
            (vec![2, 3, 5, 2], MuonBlocks::LeadingAxes, (5, 2)),
            (vec![6, 4], MuonBlocks::LeadingAxes, (6, 4)),
            (vec![64, 20, 9], MuonBlocks::LeadingAxes, (20, 9)),
            (vec![7, 0, 3], MuonBlocks::LeadingAxes, (0, 3)),
        ] {
            let len: usize = shape.iter().product();
            let grad = Array1::from_shape_fn(len, |i| (i as f64 * 1.7).sin() * (1.0 + i as f64));
            let found = step(&plain.clone().blocks(blocks), grad.clone().into_shape_with_order(shape).unwrap());
            let mut expected = vec![];
            for block in grad.as_slice().unwrap().chunks((rows * columns).max(1)) {
                let block = ArrayD::from_shape_vec(vec![rows, columns], block.to_vec()).unwrap();
                expected.extend(step(&plain, block));
            }
            assert_eq!(found.into_iter().collect::<Vec<_>>(), expected, "{blocks:?}");
        }
    }

    #[test]
    fn blocks_that_do_not_divide_the_rows() {
        let refused = |blocks| {
            let (mut opt, mut w) = (Muon::new(0.1).blocks(blocks), [Array2::<f64>::ones((6, 2)), Array2::ones((4, 2))]);
            let error = opt.step(&mut w, &[Array2::ones((6, 2)), Array2::ones((4, 2))]).unwrap_err().to_string();
            assert!(w[0] == Array2::<f64>::ones((6, 2)) && opt.steps() == 0);
            error
        };
        let expected = "the rows of \"1\" cannot be divided equally: blocks is 3, which is not a divisor of 4; route the tensor to another optimizer";
        assert_eq!(refused(MuonBlocks::Rows(3)), expected);
        assert_eq!(refused(MuonBlocks::Parts(3)), expected);
        assert_eq!(refused(MuonBlocks::Parts(0)), "blocks is 0; it must be at least 1");
    }

    #[test]
    fn coefficients_that_are_none() {
        fn refused<A: Scalar>(list: Vec<[f64; 3]>) -> String {
            let (mut opt, mut w) = (Muon::<A>::new(0.1).coefficients(list), Array2::ones((2, 2)));
            let error = opt.step(&mut w, &Array2::ones((2, 2))).unwrap_err().to_string();
            assert!(w == Array2::<A>::ones((2, 2)) && opt.steps() == 0);
            error
        }
        assert_eq!(refused::<f64>(vec![]), "coefficients is empty; it must have at least one element");
        assert_eq!(refused::<f64>(vec![[1.0; 3], [1.0, f64::NAN, 1.0]]), "coefficients is NaN at index [1, 1]");
        assert_eq!(refused::<f32>(vec![[1.0, 1.0, -1e39]]), "coefficients is -inf at index [0, 2]");
        let error = Muon::<f64>::new(0.1).iterations(0).step(&mut array![[1.0]], &array![[1.0]]).unwrap_err();
        assert_eq!(error.to_string(), "iterations is 0; it must be at least 1");
    }

    /// Singular values from 0.002 to nearly 1 of the norm, between reflections: what becomes of each can be read off.
    #[test]
    fn singular_values_become_about_one() {
        let reflection = |n: usize, phase: f64| {
            let v = Array1::from_shape_fn(n, |i| (i as f64 + phase).sin());
            Array2::from_shape_fn((n, n), |(i, j)| f64::from(u8::from(i == j)) - 2.0 * v[i] * v[j] / v.dot(&v))
        };
        fn check<A: Scalar>(u: &Array2<f64>, sigma: &[f64], v: &Array2<f64>, tolerance: f64) {
            let norm = sigma.iter().map(|s| s * s).sum::<f64>().sqrt();
            let mut diagonal = Array2::zeros((u.nrows(), v.nrows()));
            sigma.iter().enumerate().for_each(|(at, s)| diagonal[[at, at]] = *s);
            let x = u.dot(&diagonal).dot(&v.t()).mapv(A::from_f64);
            let found = u.t().dot(&newton_schulz(x.view()).mapv(A::as_f64)).dot(v);
            for ((i, j), found) in found.indexed_iter() {
                let expected = if i == j { quintic(sigma[i] / norm) } else { 0.0 };
                assert!((found - expected).abs() < tolerance, "{i}, {j}: {found} is not {expected}");
                assert!(i != j || (0.68..=1.21).contains(found), "{found} of {}", sigma[i] / norm);
            }
        }
        // One large value and others that are down to 0.002 of the norm; and a grid of pairs.
        let many: Vec<f64> = (0..20).map(|at| (0.0021_f64.ln() * f64::from(at) / 19.0).exp() / 3.0).collect();
        let mut many = [vec![1.0], many].concat();
        let smallest = many.iter().map(|s| s * s).sum::<f64>().sqrt() * 0.002;
        many.iter_mut().for_each(|s| *s = s.max(smallest * 1.001));
        for (rows, columns) in [(21, 21), (21, 40), (40, 21)] {
            let (u, v) = (reflection(rows, 0.3), reflection(columns, 1.1));
            check::<f64>(&u, &many, &v, 1e-9);
            check::<f32>(&u, &many, &v, 2e-3); // f32's rounding of small values, 485 times as steep
        }
        let (u, v) = (reflection(2, 0.3), reflection(3, 1.1));
        for at in 0..2000 {
            let small = (0.002_f64.ln() * f64::from(at) / 2000.0).exp();
            let large = (1.0 - small * small).sqrt().max(0.002);
            check::<f64>(&u, &[large, small], &v, 1e-9);
        }
    }

    #[test]
    fn without_nesterov_the_momentum_is_followed() {
        let grads = [array![[1.0, 0.0], [0.0, 2.0]], array![[0.0, 0.0], [0.0, 1.0]]];
        let mut opt = Muon::new(1.0).weight_decay(0.0).momentum(0.5).nesterov(false);
        let mut w: Array2<f64> = Array2::zeros((2, 2));
        grads.iter().for_each(|grad| _ = opt.step(&mut w, grad).unwrap());
        // 0.5 g₁ = (0.5, 1), then (0.25, 1).
        let expected = [[0.5, 1.0], [0.25, 1.0]].map(|m: [f64; 2]| m.map(|x| quintic(x / m[0].hypot(m[1]))));
        assert!((w[[0, 0]] + expected[0][0] + expected[1][0]).abs() < 1e-12, "{w}");
        assert!((w[[1, 1]] + expected[0][1] + expected[1][1]).abs() < 1e-12, "{w}");
    }

    #[test]
    fn the_least_norm_is_divided_by() {
        let (mut opt, mut w) = (Muon::new(1.0).weight_decay(0.0).eps(2.0).momentum(0.0), array![[0.0, 0.0]]);
        opt.step(&mut w, &array![[0.5, 0.0]]).unwrap();
        assert!((w[[0, 0]] + quintic(0.25)).abs() < 1e-12, "{w}");
    }

    #[test]
    fn vectors_are_refused_by_name() {
        let (mut opt, mut w) = (Muon::new(0.1), (array![[1.0]], array![1.0]));
        let error = opt.step(&mut w, &(array![[1.0]], array![1.0])).unwrap_err();
        assert_eq!(
            error.to_string(),
            "muon needs tensors with at least two axes, and \"1\" has shape [1]; route it to another optimizer"
        );
        assert_eq!(w, (array![[1.0]], array![1.0]));
        let nothing: Array1<f64> = array![];
        assert!(Muon::new(0.1).step(&mut nothing.clone(), &nothing).is_err());
    }
}
