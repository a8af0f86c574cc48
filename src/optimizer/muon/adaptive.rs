//! NorMuon and AdaMuon: Muon with a second moment of the orthogonal matrix.

use ndarray::{Array2, ArrayViewMut2, Axis, Zip};

use super::newton_schulz::blocks_of;
use super::{ITERATIONS, MuonBlocks, MuonCoefficients, MuonScale, average, orthogonalize};
use crate::error::Result;
use crate::hyper_parameters;
use crate::kernel::squares::{divide, norm, squares_of};
use crate::params::{Scalar, TensorInfo};
use crate::rule::{At, MatrixRule, MatrixSlot, Matrixwise, as_matrix, ensure_matrix};
use crate::schedule::Hyper;

/// NorMuon: [`Muon`](crate::Muon) whose rows are divided by the root of their mean square, averaged over the steps.
///
/// # Update rule
/// ```text
/// m ← μm + (1 − μ)g
/// u ← (1 − μ)g + μm                                        without Nesterov u ← m
/// X ← the Newton–Schulz iterations of u                    as in Muon
/// v ← β₂v + (1 − β₂)·mean(X²)                              a mean for each row
/// Y ← X/(√v + ε)
/// θ ← θ(1 − ηλ)
/// θ ← θ − η·0.2·√(rows·columns)·Y/(‖Y‖ + ε)                with another scale η·scale·‖X‖·Y/(‖Y‖ + ε)
/// ```
/// The rows of an orthogonal matrix that is wider than tall are equally long; those of the result of a few iterations, and of tall matrices, are not.
///
/// # Hyper-parameters
/// | name | default | range | meaning |
/// |---|---|---|---|
/// | `learning_rate` η | – | ≥ 0 | as AdamW's; with another scale as Muon's |
/// | [`momentum`](Self::momentum) μ | 0.95 | 0 ≤ μ < 1 | decay of the average gradient |
/// | [`beta2`](Self::beta2) β₂ | 0.95 | 0 ≤ β₂ < 1 | decay of the mean squares |
/// | [`eps`](Self::eps) ε | 1e-10 | > 0 | keeps divisions finite; the smallest ‖u‖ |
/// | [`nesterov`](Self::nesterov) | yes | | look-ahead; `false` uses the average itself |
/// | [`iterations`](Self::iterations) | 5 | ≥ 1 | Newton–Schulz iterations |
/// | [`coefficients`](Self::coefficients) | Jordan's | [`MuonCoefficients`] | a, b, c of each iteration |
/// | [`blocks`](Self::blocks) | whole | [`MuonBlocks`] | parts of a tensor that are matrices of their own: heads, experts |
/// | [`scale`](Self::scale) | match RMS | [`MuonScale`] | the length of the step |
/// | `weight_decay` λ | 0 | ≥ 0 | decoupled |
///
/// # State
/// `momentum_buffer`, a matrix of the parameter's size, and `second_momentum_buffer`, a number per row: 4 bytes per parameter in f32.
/// With `blocks`, the rows are those of the blocks.
///
/// # Conventions
/// The default is the paper's algorithm 1, with the look-ahead of the authors' code. Their code has `.scale(MuonScale::Original)`.
/// With `blocks`, ‖·‖, rows and columns are those of a block. [`MuonBlocks::LeadingAxes`] changes the number of rows and so the state: set it before the
/// first step.
///
/// # Errors
/// Those of [`Muon`](crate::Muon).
///
/// # Example
/// ```
/// use gradus::prelude::*;
/// use ndarray::array;
///
/// let mut opt = NorMuon::new(1e-2);
/// let mut w = array![[0.0_f64, 0.0], [0.0, 0.0]];
/// opt.step(&mut w, &array![[3.0, 0.0], [0.0, 4.0]])?;
/// assert!((w[[0, 0]] - w[[1, 1]]).abs() < 1e-12); // as far in both rows, with an RMS of 0.2 η
/// assert!((w.mapv(|x| x * x).mean().unwrap().sqrt() - 0.2e-2).abs() < 1e-9);
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// # References
/// Z. Li et al., *NorMuon: Making Muon more efficient and scalable* (2025), [arXiv:2510.05491](https://arxiv.org/abs/2510.05491), algorithm 1.
pub type NorMuon<A = f32> = Matrixwise<AdaptiveMuonRule<true>, A>;

/// AdaMuon: [`Muon`](crate::Muon) whose elements are divided by the root of their mean square over the steps.
///
/// # Update rule
/// ```text
/// m ← μm + (1 − μ)g
/// u ← (1 − μ)g + μm                                        without Nesterov u ← m
/// X ← the Newton–Schulz iterations of u                    as in Muon
/// v ← β₂v + (1 − β₂)X²                                     element by element
/// Y ← X/(√v + ε)
/// θ ← θ(1 − ηλ)
/// θ ← θ − η·0.2·√(rows·columns)·Y/(‖Y‖ + ε)                with another scale η·scale·‖X‖·Y/(‖Y‖ + ε)
/// ```
///
/// # Hyper-parameters
/// Those of [`NorMuon`].
///
/// # State
/// `momentum_buffer` and `second_momentum_buffer`, two matrices of the parameter's size: 8 bytes per parameter in f32.
///
/// # Conventions
/// timm's `adamuon` with `nesterov=True` and pytorch-optimizer's with `nesterov(false)`; v has no bias correction, which the division by ‖Y‖ undoes. The paper
/// orthogonalizes the sign of the momentum; these packages and this optimizer the momentum itself.
///
/// # Errors
/// Those of [`Muon`](crate::Muon).
///
/// # Example
/// ```
/// use gradus::prelude::*;
/// use ndarray::array;
///
/// let mut opt = AdaMuon::new(1e-2);
/// let mut w = array![[0.0_f64, 0.0], [0.0, 0.0]];
/// opt.step(&mut w, &array![[3.0, 0.0], [0.0, 4.0]])?;
/// assert!((w.mapv(|x| x * x).mean().unwrap().sqrt() - 0.2e-2).abs() < 1e-9); // an RMS of 0.2 η
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// # References
/// C. Si, D. Zhang and W. Shen, *AdaMuon: Adaptive Muon Optimizer* (2025), [arXiv:2507.11005](https://arxiv.org/abs/2507.11005).
pub type AdaMuon<A = f32> = Matrixwise<AdaptiveMuonRule<false>, A>;

hyper_parameters! {
    /// The rule of [`NorMuon`], with a second moment for each row, and of [`AdaMuon`], with one for each element.
    pub struct AdaptiveMuonRule<const ROWS: bool> named (if ROWS { "NorMuon" } else { "AdaMuon" }) => AdaptiveMuonValues for Matrixwise {
        /// The momentum μ, 0 ≤ μ < 1.
        momentum / set_momentum: 0.95, 0.0..1.0;
        /// The decay β₂ of the second moment, 0 ≤ β₂ < 1.
        beta2 / set_beta2: 0.95, 0.0..1.0;
        /// The ε > 0 that keeps divisions finite.
        eps / set_eps: 1e-10, (std::ops::Bound::Excluded(0.0), std::ops::Bound::Unbounded);
    }
    options {
        /// Uses the look-ahead, which is the default. With `false` the momentum itself is orthogonalized.
        nesterov: bool = true;
        /// The number of Newton–Schulz iterations in a step.
        iterations: usize = ITERATIONS, at least 1;
        /// The polynomials of the iterations: a named list, or an array or `Vec` of triples (a, b, c), of which the last repeats.
        coefficients from: MuonCoefficients = MuonCoefficients::Jordan;
        /// The parts of a tensor that are stepped each by itself.
        blocks: MuonBlocks = MuonBlocks::Whole;
        /// The length of the step: with [`MuonScale::MatchRmsAdamw`] an RMS of 0.2, with another scale that of Muon's step.
        scale: MuonScale = MuonScale::MatchRmsAdamw;
    }
}

impl<A: Scalar> NorMuon<A> {
    /// NorMuon with the authors' defaults: μ 0.95, β₂ 0.95, ε 1e-10, no weight decay.
    pub fn new(learning_rate: impl Into<Hyper>) -> Self {
        Self::from_rule(AdaptiveMuonRule::default(), learning_rate)
    }
}

impl<A: Scalar> AdaMuon<A> {
    /// AdaMuon with the defaults of pytorch-optimizer, with Nesterov: μ 0.95, β₂ 0.95, ε 1e-10, no weight decay.
    pub fn new(learning_rate: impl Into<Hyper>) -> Self {
        Self::from_rule(AdaptiveMuonRule::default(), learning_rate)
    }
}

impl<const ROWS: bool, A: Scalar> MatrixRule<A> for AdaptiveMuonRule<ROWS> {
    fn name(&self) -> &'static str {
        if ROWS { "normuon" } else { "adamuon" }
    }

    fn slots(&self, (rows, columns): (usize, usize)) -> Vec<MatrixSlot> {
        let moments = if ROWS { (rows, 1) } else { (rows, columns) };
        vec![MatrixSlot::new("momentum_buffer", (rows, columns)), MatrixSlot::new("second_momentum_buffer", moments)]
    }

    fn accepts(&self, tensor: &TensorInfo) -> Result<()> {
        ensure_matrix(<Self as MatrixRule<A>>::name(self), tensor)?;
        self.coefficients.ensure::<A>()?;
        self.blocks.ensure(tensor)
    }

    fn slots_for(&self, tensor: &TensorInfo) -> Vec<MatrixSlot> {
        let mut slots = <Self as MatrixRule<A>>::slots(self, as_matrix(tensor.shape()));
        if let (true, MuonBlocks::LeadingAxes, [rows @ .., _], [_, moments]) =
            (ROWS, self.blocks, tensor.shape(), &mut slots[..])
        {
            moments.shape.0 = rows.iter().product();
        }
        slots
    }

    fn direction(
        &self,
        values: &AdaptiveMuonValues,
        _: &At,
        tensor: &TensorInfo,
        mut grad: ArrayViewMut2<'_, A>,
        slots: &mut [Array2<A>],
    ) {
        let [buffer, moments] = slots else { unreachable!("there are two slots") };
        average(values.momentum, self.nesterov, &mut grad, buffer);
        if grad.is_empty() {
            return;
        }
        let block = self.blocks.shape(grad.dim(), tensor.shape());
        let triples = || self.coefficients.triples().take(self.iterations);
        orthogonalize(grad.view_mut(), block, &triples, values.eps, 1.0);
        let of_block = if ROWS { (block.0, 1) } else { block };
        let mut moments = blocks_of(moments.view_mut(), of_block);
        for (own, moments) in blocks_of(grad, block).outer_iter_mut().zip(moments.outer_iter_mut()) {
            self.adapt(values, own, moments);
        }
    }
}

impl<const ROWS: bool> AdaptiveMuonRule<ROWS> {
    /// Replaces the orthogonal matrix X of a block by the direction.
    fn adapt<A: Scalar>(
        &self,
        values: &AdaptiveMuonValues,
        mut x: ArrayViewMut2<'_, A>,
        moments: ArrayViewMut2<'_, A>,
    ) {
        let kept_norm = norm(&x);
        let [beta2, rest, eps] = [values.beta2, 1.0 - values.beta2, values.eps].map(A::from_f64);
        if ROWS {
            for (row, v) in x.axis_iter_mut(Axis(0)).zip(moments) {
                *v = beta2 * *v + rest * A::from_f64(squares_of(&row) / row.len() as f64);
                let divisor = v.sqrt() + eps;
                row.into_iter().for_each(|x| *x /= divisor);
            }
        } else {
            Zip::from(&mut x).and(moments).for_each(|x, v| {
                *v = beta2 * *v + rest * *x * *x;
                *x /= v.sqrt() + eps;
            });
        }
        let length = match self.scale {
            MuonScale::MatchRmsAdamw => 0.2 * (x.len() as f64).sqrt(),
            scale => scale.of(x.dim()) * kept_norm,
        };
        let divisor = norm(&x) + values.eps;
        divide(&mut x, divisor, length);
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array1, ArrayD};

    use super::*;
    use crate::prelude::*;

    fn stepped<const ROWS: bool>(opt: &Matrixwise<AdaptiveMuonRule<ROWS>, f64>, grad: &ArrayD<f64>) -> ArrayD<f64> {
        let (mut opt, mut w) = (opt.clone(), ArrayD::ones(grad.shape()));
        for factor in [1.0, -0.3, 2.0] {
            opt.step(&mut w, &grad.mapv(|g| g * factor + 0.1)).unwrap();
        }
        w
    }

    /// A block is stepped as a matrix of its own would be.
    fn has_blocks<const ROWS: bool>(new: impl Fn() -> Matrixwise<AdaptiveMuonRule<ROWS>, f64>) {
        for (shape, blocks, (rows, columns)) in [
            (vec![6, 4], MuonBlocks::Rows(2), (2, 4)),
            (vec![6, 4], MuonBlocks::Parts(2), (3, 4)),
            (vec![6, 2, 5], MuonBlocks::Parts(6), (1, 10)),
            (vec![6, 2, 5], MuonBlocks::LeadingAxes, (2, 5)),
            (vec![2, 3, 5, 2], MuonBlocks::LeadingAxes, (5, 2)),
            (vec![6, 4], MuonBlocks::LeadingAxes, (6, 4)),
            (vec![7, 0, 3], MuonBlocks::LeadingAxes, (0, 3)),
            (vec![7, 3, 0], MuonBlocks::LeadingAxes, (3, 0)),
        ] {
            for scale in [MuonScale::MatchRmsAdamw, MuonScale::RmsToRms] {
                let plain = new().scale(scale);
                let len: usize = shape.iter().product();
                let grad = Array1::from_shape_fn(len, |i| (i as f64 * 1.7).sin() * (1.0 + i as f64));
                let whole = grad.clone().into_shape_with_order(shape.clone()).unwrap();
                let found = stepped(&plain.clone().blocks(blocks), &whole);
                let mut expected = vec![];
                for block in grad.as_slice().unwrap().chunks((rows * columns).max(1)) {
                    let block = ArrayD::from_shape_vec(vec![rows, columns], block.to_vec()).unwrap();
                    expected.extend(stepped(&plain, &block));
                }
                assert_eq!(found.into_iter().collect::<Vec<_>>(), expected, "{plain:?} {blocks:?}");
            }
        }
    }

    #[test]
    fn blocks_are_matrices_of_their_own() {
        has_blocks(|| NorMuon::new(0.1));
        has_blocks(|| AdaMuon::new(0.1));
    }

    #[test]
    fn a_row_of_a_block_has_its_own_moment() {
        let grad = ArrayD::from_shape_fn(vec![3, 2, 5], |at| (at[0] + 3 * at[1] + 7 * at[2]) as f64);
        let mut w = ArrayD::ones(vec![3, 2, 5]);
        let opt = || NorMuon::new(0.1).blocks(MuonBlocks::LeadingAxes);
        let (mut running, mut resumed, mut other) = (opt(), opt(), NorMuon::<f64>::new(0.1));
        running.step(&mut w, &grad).unwrap();
        assert_eq!(running.slot("", "second_momentum_buffer").unwrap().dim(), (6, 1));
        resumed.load_state_dict(&running.state_dict()).unwrap();
        let mut again = w.clone();
        running.step(&mut w, &grad).unwrap();
        resumed.step(&mut again, &grad).unwrap();
        assert_eq!(w, again);
        assert!(other.load_state_dict(&running.state_dict()).is_err());
    }

    #[test]
    fn blocks_that_do_not_divide_the_rows() {
        let refused = |blocks| {
            let (mut opt, mut w) = (NorMuon::new(0.1).blocks(blocks), ArrayD::<f64>::ones(vec![4, 2]));
            let error = opt.step(&mut w, &ArrayD::ones(vec![4, 2])).unwrap_err().to_string();
            assert!(w == ArrayD::<f64>::ones(vec![4, 2]) && opt.steps() == 0);
            error
        };
        assert!(refused(MuonBlocks::Rows(3)).contains("blocks is 3, which is not a divisor of 4"));
        assert_eq!(refused(MuonBlocks::Parts(0)), "blocks is 0; it must be at least 1");
    }
}
