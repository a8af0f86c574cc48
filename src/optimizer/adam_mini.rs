//! Adam-mini.

use ndarray::{Array2, ArrayViewMut2};

use crate::error::{Error, Result, StepError, ensure_count};
use crate::hyper_parameters;
use crate::kernel::squares::sum_of_squares;
use crate::params::{Layout, Pattern, Scalar, TensorInfo};
use crate::rule::{At, MatrixRule, MatrixSlot, Matrixwise};
use crate::schedule::Hyper;

/// Adam-mini: AdamW with one second moment per row, head or tensor instead of one per element. Half of Adam's state.
///
/// # Update rule
/// ```text
/// m ← β₁m + (1 − β₁)g
/// v ← β₂v + (1 − β₂)·mean of g²                            the mean over a block; one v for each block
/// θ ← θ(1 − ηλ)
/// θ ← θ − η/(1 − β₁ᵗ) · m / (√v/√(1 − β₂ᵗ) + ε)
/// ```
/// A tensor is one block, unless [`blocks`](AdamMini::blocks) divides it.
///
/// # Hyper-parameters
/// Each is set by the method of its name and takes a number, a [schedule](crate::schedule) or a closure.
///
/// | name | default | range | meaning |
/// |---|---|---|---|
/// | `learning_rate` η | – | η ≥ 0 | that of AdamW |
/// | `beta1` β₁ | 0.9 | 0 ≤ β₁ < 1 | decay of the first moment |
/// | `beta2` β₂ | 0.999 | 0 ≤ β₂ < 1 | decay of the second moments |
/// | `eps` ε | 1e-8 | ε ≥ 0 | keeps the division finite; unit of the gradient |
/// | `weight_decay` λ | 0 | λ ≥ 0 | decoupled decay, per unit of learning rate |
/// | `blocks` | | a pattern and [`AdamMiniBlocks`] | the blocks of the tensors that the pattern matches |
///
/// # State
/// `exp_avg` m, of the parameter's size, and `exp_avg_sq` v, one element per block: 4 bytes per parameter in f32, and 4 bytes per block.
///
/// # Conventions
/// The authors' package adam-mini, which finds the blocks by parts of names. The same for a transformer, whose queries and keys have 8 heads:
///
/// ```
/// use gradus::{optimizer::AdamMiniBlocks, prelude::*};
///
/// let opt = AdamMini::<f32>::new(1e-3)
///     .blocks(["embed", "output", "**.{value,proj}.weight", "**.mlp.*.weight"], AdamMiniBlocks::Rows)
///     .blocks("**.{query,key}.weight", AdamMiniBlocks::Parts(8))
///     .blocks("**.bias", AdamMiniBlocks::Elements);
/// ```
/// If several patterns match a tensor, the last one wins. In the authors' package, `bias` wins over all, and then queries and keys do.
///
/// # Errors
/// A step returns [`StepError::PatternUnmatched`](crate::error::StepError::PatternUnmatched) or
/// [`StepError::PatternSyntax`](crate::error::StepError::PatternSyntax) for a pattern that matches no tensor at the first step or is invalid,
/// [`StepError::UnequalBlocks`] if `Parts` does not divide the rows, [`StepError::NonFiniteGradient`], [`StepError::NormOverflow`],
/// [`StepError::HyperParameter`], and the errors of [`Step::pair`](crate::Step::pair) and of changed parameters. A step of which this rank has only
/// parts of tensors is also an error: use `by_tensor` in `sharded`.
///
/// # Example
/// ```
/// use gradus::prelude::*;
/// use ndarray::array;
///
/// let mut opt = AdamMini::new(0.1).eps(0.0);
/// let mut w = array![1.0_f64, 1.0];
/// opt.step(&mut w, &array![1.0, 7.0])?; // √v = √((1 + 49)/2) = 5
/// assert!((w[0] - 0.98).abs() < 1e-12 && (w[1] - 0.86).abs() < 1e-12);
/// assert_eq!(opt.state_bytes(), 8 * (2 + 1));
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// # References
/// Y. Zhang et al., *Adam-mini: Use Fewer Learning Rates To Gain More* (2024), [arXiv:2406.16793](https://arxiv.org/abs/2406.16793), algorithms 1 to 3.
pub type AdamMini<A = f32> = Matrixwise<AdamMiniRule, A>;

/// The blocks of a tensor that have one second moment each in [`AdamMini`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum AdamMiniBlocks {
    /// One block: the tensor.
    Whole,
    /// Each index of the first axis: an output of a layer, or a token of an embedding.
    Rows,
    /// So many groups of equally many rows: the heads of queries and keys.
    Parts(usize),
    /// Each element, as in Adam.
    Elements,
}

impl AdamMiniBlocks {
    /// The number of blocks in a tensor; `None` if its rows cannot be divided.
    fn count(self, tensor: &TensorInfo) -> Option<usize> {
        let rows = rows(tensor);
        match self {
            Self::Whole => Some(1),
            Self::Rows => Some(rows),
            Self::Parts(parts) => (parts > 0 && rows.is_multiple_of(parts)).then_some(parts),
            Self::Elements => Some(tensor.elements()),
        }
    }
}

fn rows(tensor: &TensorInfo) -> usize {
    tensor.shape().first().copied().unwrap_or(1)
}

/// The patterns of [`AdamMini`], each with the blocks of the tensors that it matches.
#[derive(Debug, Clone, Default)]
#[cfg_attr(feature = "config", derive(serde::Deserialize))]
pub struct AdamMiniPartition(Vec<(Pattern, AdamMiniBlocks)>);

impl AdamMiniPartition {
    /// Adds a pattern, which wins over those before it.
    #[must_use]
    pub fn with(mut self, pattern: impl Into<Pattern>, blocks: AdamMiniBlocks) -> Self {
        self.0.push((pattern.into(), blocks));
        self
    }

    fn of(&self, tensor: &TensorInfo) -> AdamMiniBlocks {
        let matching = self.0.iter().rev().find(|(pattern, _)| pattern.matches(tensor.path(), tensor.shape()));
        matching.map_or(AdamMiniBlocks::Whole, |(_, blocks)| *blocks)
    }
}

hyper_parameters! {
    /// The rule of [`AdamMini`].
    pub struct AdamMiniRule => AdamMiniValues for Matrixwise {
        /// The decay β₁ of the first moment, 0 ≤ β₁ < 1.
        beta1 / set_beta1: 0.9, 0.0..1.0;
        /// The decay β₂ of the second moments, 0 ≤ β₂ < 1.
        beta2 / set_beta2: 0.999, 0.0..1.0;
        /// The ε ≥ 0 that keeps the division finite.
        eps / set_eps: 1e-8, 0.0..;
    }
    options {
        /// The blocks of all tensors, instead of those that [`blocks`](AdamMini::blocks) has set.
        partition: AdamMiniPartition = AdamMiniPartition::default();
    }
}

impl<A: Scalar> AdamMini<A> {
    /// Adam-mini with the authors' defaults: β 0.9 and 0.999, ε 1e-8, no weight decay, one block per tensor.
    pub fn new(learning_rate: impl Into<Hyper>) -> Self {
        Self::from_rule(AdamMiniRule::default(), learning_rate)
    }

    /// Divides the tensors that the pattern matches into these blocks. If several patterns match a tensor, the last one wins.
    pub fn blocks(mut self, pattern: impl Into<Pattern>, blocks: AdamMiniBlocks) -> Self {
        let partition = std::mem::take(&mut self.rule.partition);
        self.rule.partition = partition.with(pattern, blocks);
        self
    }
}

impl<A: Scalar> MatrixRule<A> for AdamMiniRule {
    fn name(&self) -> &'static str {
        "adammini"
    }

    fn slots(&self, (rows, columns): (usize, usize)) -> Vec<MatrixSlot> {
        MatrixRule::<A>::slots_for(self, &TensorInfo::new("", &[rows, columns]))
    }

    fn slots_for(&self, tensor: &TensorInfo) -> Vec<MatrixSlot> {
        let (rows, elements) = (rows(tensor), tensor.elements());
        let blocks = if elements == 0 { 0 } else { self.partition.of(tensor).count(tensor).unwrap_or(1) };
        let moment = MatrixSlot::new("exp_avg", (rows, elements / rows.max(1)));
        vec![moment, MatrixSlot::new("exp_avg_sq", (blocks, 1))]
    }

    fn accepts_all(&self, tensors: &Layout) -> Result<()> {
        self.partition.0.iter().try_for_each(|(pattern, _)| pattern.select(tensors).map(drop))
    }

    fn accepts(&self, tensor: &TensorInfo) -> Result<()> {
        let blocks = self.partition.of(tensor);
        if let AdamMiniBlocks::Parts(parts) = blocks {
            ensure_count("blocks", parts as u64)?;
        }
        match (blocks.count(tensor), blocks) {
            (None, AdamMiniBlocks::Parts(blocks)) => {
                let (path, rows) = (tensor.path().into(), rows(tensor));
                Err(Error::Step(StepError::UnequalBlocks { path, rows, blocks }))
            }
            _ => Ok(()),
        }
    }

    fn direction(
        &self,
        &AdamMiniValues { beta1, beta2, eps }: &AdamMiniValues,
        at: &At,
        _: &TensorInfo,
        mut grad: ArrayViewMut2<'_, A>,
        slots: &mut [Array2<A>],
    ) {
        let [mean, square] = slots else { unreachable!("there are two moments") };
        let (Some(grad), Some(mean)) = (grad.as_slice_mut(), mean.as_slice_mut()) else {
            unreachable!("gradients and slots lie row by row")
        };
        let length = grad.len() / square.len().max(1);
        let [kept, fresh] = [beta1, 1.0 - beta1].map(A::from_f64);
        let (first, root) = (at.bias_correction(beta1), at.bias_correction(beta2).sqrt());
        let blocks = grad.chunks_mut(length.max(1)).zip(mean.chunks_mut(length.max(1)));
        for ((grad, mean), square) in blocks.zip(square.iter_mut()) {
            let fresh_square = sum_of_squares(grad) / length as f64;
            *square = A::from_f64(beta2 * square.as_f64() + (1.0 - beta2) * fresh_square);
            let divisor = first * (square.as_f64().sqrt() / root + eps);
            let factor = A::from_f64(if divisor > 0.0 { (1.0 / divisor).min(A::max_value().as_f64()) } else { 0.0 });
            for (grad, mean) in grad.iter_mut().zip(mean) {
                *mean = kept * *mean + fresh * *grad;
                *grad = factor * *mean;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array1, Array2, array};

    use super::AdamMiniBlocks::{Elements, Parts, Rows, Whole};
    use super::*;
    use crate::optimizer::OptimizerExt;
    use crate::step::Optimizer;

    /// Without momentum, the first step divides by the root mean square of the block.
    fn first_step(blocks: AdamMiniBlocks) -> Array2<f64> {
        let mut opt = AdamMini::new(1.0).beta1(0.0).eps(0.0).blocks("**", blocks);
        let mut w = Array2::zeros((4, 2));
        opt.step(&mut w, &array![[3.0, 4.0], [0.0, 0.0], [1.0, 7.0], [5.0, 5.0]]).unwrap();
        -w
    }

    #[test]
    fn each_block_has_its_root_mean_square() {
        let close = |found: Array2<f64>, expected: Array2<f64>| {
            assert!((&found - &expected).iter().all(|d| d.abs() < 1e-14), "{found} {expected}");
        };
        let grad = array![[3.0, 4.0], [0.0, 0.0], [1.0, 7.0], [5.0, 5.0]];
        close(first_step(Whole), &grad / (125.0_f64 / 8.0).sqrt());
        close(first_step(Rows), &grad / &array![[12.5_f64.sqrt()], [1.0], [5.0], [5.0]]);
        close(first_step(Parts(2)), &grad / &array![[2.5], [2.5], [5.0], [5.0]]);
        close(first_step(Elements), array![[1.0, 1.0], [0.0, 0.0], [1.0, 1.0], [1.0, 1.0]]);
    }

    #[test]
    fn the_last_pattern_wins_and_state_has_its_size() {
        let mut opt = AdamMini::<f32>::new(0.1).blocks("**", Rows).blocks("1", Parts(2)).blocks("2", Elements);
        let mut w = (Array2::zeros((4, 3)), Array2::zeros((4, 3)), Array1::zeros(5), Array2::zeros((0, 3)));
        let grads = w.clone();
        opt.step(&mut w, &grads).unwrap();
        assert_eq!(opt.state_bytes(), 4 * (12 + 4 + 12 + 2 + 5 + 5));
        assert_eq!(opt.slot("1", "exp_avg_sq").unwrap().dim(), (2, 1));
    }

    #[test]
    fn patterns_and_parts_that_are_wrong() {
        let step = |opt: AdamMini<f64>| {
            let (mut opt, mut w) = (opt, (Array2::<f64>::ones((4, 2)), Array1::<f64>::ones(3)));
            let (grads, before) = (w.clone(), w.clone());
            let result = opt.step(&mut w, &grads).map(drop);
            assert!(result.is_ok() || (w == before && opt.state_bytes() == 0 && opt.steps() == 0));
            result.map_err(|error| error.to_string())
        };
        assert!(step(AdamMini::new(0.1).blocks("0", Parts(2))).is_ok());
        let misspelled = || AdamMini::new(0.1).blocks("weight", Rows);
        assert!(step(misspelled()).unwrap_err().contains("weight"));
        // A state may know the tensors before the first step.
        let mut w = (Array2::<f64>::ones((4, 2)), Array1::<f64>::ones(3));
        let grads = w.clone();
        let (mut saved, mut resumed) = (AdamMini::new(0.1).accumulate(2), misspelled().accumulate(2));
        saved.step(&mut w, &grads).unwrap();
        resumed.load_state_dict(&saved.state_dict()).unwrap();
        assert!(resumed.step(&mut w, &grads).unwrap_err().to_string().contains("weight"));
        let error = step(AdamMini::new(0.1).blocks("0", Parts(3))).unwrap_err();
        assert!(error.contains('0') && error.contains('3') && error.contains('4'), "{error}");
        assert!(step(AdamMini::new(0.1).blocks("0", Parts(0))).unwrap_err().contains("blocks"));
    }
}
