//! Shampoo: a preconditioner for each side of a matrix.

use std::mem::swap;
use std::ops::{Bound, Range};

use ndarray::{Array2, ArrayRef2, ArrayView2, ArrayViewMut2, Axis, Slice};

use crate::hyper_parameters;
use crate::kernel::decomposition::shifted_power;
use crate::kernel::product::faer::{blend_gram, multiply};
use crate::params::{Scalar, TensorInfo};
use crate::rule::{At, Decay, MatrixRule, MatrixSlot, Matrixwise};
use crate::schedule::Hyper;

/// Shampoo: gradients multiplied from both sides by inverse roots of their second moments.
///
/// # Update rule
/// ```text
/// g ← g + λθ
/// L ← L + ggᵀ,  R ← R + gᵀg                          with beta2  L ← β₂L + (1 − β₂)ggᵀ, divided by 1 − β₂ᵗ below
/// P = (L + εI)^(−1/4),  Q = (R + εI)^(−1/4)          every `every` steps; in the first `every` more often
/// d = PgQ                                            times ‖graft‖/‖d‖ with grafting
/// m ← μm + d                                         with momentum, which takes d's place
/// θ ← θ − ηd
/// ```
/// A tensor is reshaped to a matrix of its first axis and all others. A side of length 1 has no preconditioner, and the other side then has the exponent
/// −1/2; this includes vectors. Matrices with a side above `block_size` are divided into blocks, each with its own L and R.
///
/// # Hyper-parameters
/// | name | default | range | meaning |
/// |---|---|---|---|
/// | `learning_rate` η | – | ≥ 0 | start with 0.1, or with grafting, the learning rate of the grafted optimizer |
/// | [`eps`](Self::eps) ε | 1e-6 | > 0 | smallest eigenvalue; unit of the gradient squared |
/// | [`beta2`](Self::beta2) β₂ | – | 0 ≤ β₂ < 1 | averages L and R instead of summing |
/// | [`momentum`](Self::momentum) μ | 0 | 0 ≤ μ < 1 | momentum of the preconditioned gradients |
/// | [`graft`](Self::graft) | none | [`Graft`] | the optimizer whose step length is used |
/// | [`every`](Self::every) | 10 | ≥ 1 | steps per update of P and Q |
/// | [`block_size`](Self::block_size) | 1024 | ≥ 1 | longest side of a block |
/// | [`weight_decay`](Self::weight_decay) λ | 0 | ≥ 0 | coupled |
///
/// # State
/// Per block (rows, columns): `left` and `left_root`, 2·rows² numbers, and `right` and `right_root`, 2·columns² numbers. With several blocks the names
/// end in `.i.j`. Momentum and grafting from RMSProp have one number per parameter, grafting from Adam has two.
///
/// # Conventions
/// In the paper's algorithm 1, L starts from ε; for the sum this is the same. Roots are computed in f64. Grafting uses the norm of the whole tensor. Roots
/// of the first gradient alone would be far too large for later gradients. During the first `every` steps, the roots are therefore recomputed more often:
/// in each of the first ten steps, then in the 16th, the 32nd and so on.
///
/// `block_size`, `graft` and `momentum` determine the state: see [`Matrixwise`] before you change them on a running optimizer or load a state.
///
/// # Errors
/// [`NonFiniteGradient`](crate::error::StepError::NonFiniteGradient) and [`NormOverflow`](crate::error::StepError::NormOverflow), also if only the gradient
/// with the weight decay is too large; [`HyperParameter`](crate::error::StepError::HyperParameter). If a root cannot be computed, the previous one is kept. If
/// there is none, the gradient itself is the direction.
///
/// # Example
/// ```
/// use gradus::{optimizer::{Graft, Shampoo}, prelude::*};
/// use ndarray::array;
///
/// let mut opt = Shampoo::new(0.1).eps(1e-12).graft(Graft::Sgd);
/// let mut w = array![[0.0_f64, 0.0], [0.0, 0.0]];
/// opt.step(&mut w, &array![[3.0, 0.0], [0.0, 4.0]])?;
/// assert!((w[[0, 0]] - w[[1, 1]]).abs() < 1e-9); // as far in both directions,
/// assert!(((w[[0, 0]] * w[[0, 0]] + w[[1, 1]] * w[[1, 1]]).sqrt() - 0.5).abs() < 1e-9); // and together η‖g‖
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// # References
/// V. Gupta, T. Koren and Y. Singer, *Shampoo: Preconditioned Stochastic Tensor Optimization* (2018), [arXiv:1802.09568](https://arxiv.org/abs/1802.09568), algorithm 1.
/// R. Anil et al., *Scalable Second Order Optimization for Deep Learning* (2020), [arXiv:2002.09018](https://arxiv.org/abs/2002.09018) (blocks, periods, grafting).
pub type Shampoo<A = f32> = Matrixwise<ShampooRule, A>;

/// The optimizer whose step length [`Shampoo`] uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Graft {
    /// None: Shampoo's own step length.
    None,
    /// [`Sgd`](crate::Sgd): the length of the gradient.
    Sgd,
    /// [`RmsProp`](crate::RmsProp) with α = 0.99 and ε = 1e-8.
    RmsProp,
    /// [`Adam`](crate::Adam) with β₁ = 0.9, β₂ = 0.999 and ε = 1e-8.
    Adam,
}

hyper_parameters! {
    /// The rule of [`Shampoo`].
    pub struct ShampooRule => ShampooValues for Matrixwise {
        /// The ε > 0 added to the eigenvalues.
        eps / set_eps: 1e-6, (Bound::Excluded(0.0), Bound::Unbounded);
    }
    optional {
        /// Averages L and R with this decay β₂, 0 ≤ β₂ < 1, instead of summing.
        beta2 / set_beta2: 0.0..1.0;
        /// The momentum μ of the preconditioned gradients, 0 ≤ μ < 1.
        momentum / set_momentum: 0.0..1.0;
    }
    options {
        /// Uses the direction of Shampoo and the length of another optimizer.
        graft: Graft = Graft::None;
        /// Recomputes the roots every `every` steps, and more often during the first `every`.
        every: u64 = 10, at least 1;
        /// The longest side of a block.
        block_size: usize = 1024, at least 1;
    }
}

impl<A: Scalar> Shampoo<A> {
    /// Shampoo without grafting, momentum and weight decay.
    pub fn new(learning_rate: impl Into<Hyper>) -> Self {
        Self::from_rule(ShampooRule::default(), learning_rate)
    }
}

/// Within the first period roots are computed at each of so many steps, and then whenever the sums have about doubled.
const EARLY: u64 = 10;

/// The statistics and roots of one side of a block.
const SIDES: [[&str; 2]; 2] = [["left", "left_root"], ["right", "right_root"]];

impl ShampooRule {
    /// Rows and columns of every block.
    fn blocks(&self, (rows, columns): (usize, usize)) -> Vec<[Range<usize>; 2]> {
        let parts = |length: usize| {
            let size = self.block_size.max(1);
            (0..length).step_by(size).map(move |start| start..length.min(start + size))
        };
        parts(rows).flat_map(|rows| parts(columns).map(move |columns| [rows.clone(), columns])).collect()
    }

    /// Which sides of a block have a preconditioner: those that are longer than 1, at least one.
    fn sides(block: &[Range<usize>; 2]) -> [bool; 2] {
        let [rows, columns] = block;
        [rows.len() > 1 || columns.len() == 1, columns.len() > 1]
    }

    /// What `direction` multiplies the length of its direction with, before momentum.
    fn grafted<A: Scalar>(&self, at: &At, grad: &ArrayRef2<A>, slots: &mut [Array2<A>]) -> Option<f64> {
        let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
        let corrected = |beta: f64| 1.0 - beta.powf(at.step as f64);
        let average = |slot: &mut Array2<A>, beta: f64, of: fn(f64) -> f64| {
            slot.zip_mut_with(grad, |m, g| *m = A::from_f64(beta * m.as_f64() + (1.0 - beta) * of(g.as_f64())));
        };
        match (self.graft, slots) {
            (Graft::None, _) => None,
            (Graft::Sgd, _) => Some(norm(&mut grad.iter().map(|g| g.as_f64()))),
            (Graft::RmsProp, [square, ..]) => {
                average(square, 0.99, |g| g * g);
                let pairs = grad.iter().zip(&*square);
                Some(norm(&mut pairs.map(|(g, v)| g.as_f64() / (v.as_f64().sqrt() + 1e-8))))
            }
            (Graft::Adam, [square, mean, ..]) => {
                average(square, 0.999, |g| g * g);
                average(mean, 0.9, |g| g);
                let (first, second) = (corrected(0.9), corrected(0.999));
                let pairs = mean.iter().zip(&*square);
                Some(norm(&mut pairs.map(|(m, v)| m.as_f64() / first / ((v.as_f64() / second).sqrt() + 1e-8))))
            }
            _ => unreachable!("grafting has its slots"),
        }
    }
}

impl<A: Scalar> MatrixRule<A> for ShampooRule {
    fn name(&self) -> &'static str {
        "shampoo"
    }

    fn slots(&self, shape: (usize, usize)) -> Vec<MatrixSlot> {
        let mut slots = Vec::new();
        if self.momentum.is_some() {
            slots.push(MatrixSlot::new("momentum_buffer", shape));
        }
        let graft: &[&'static str] = match self.graft {
            Graft::None | Graft::Sgd => &[],
            Graft::RmsProp => &["graft_square_avg"],
            Graft::Adam => &["graft_exp_avg_sq", "graft_exp_avg"],
        };
        slots.extend(graft.iter().map(|name| MatrixSlot::new(*name, shape)));
        let blocks = self.blocks(shape);
        for block in &blocks {
            let place = match blocks.len() {
                1 => String::new(),
                _ => {
                    format!(".{}.{}", block[0].start / self.block_size.max(1), block[1].start / self.block_size.max(1))
                }
            };
            for ((names, range), _) in SIDES.iter().zip(block).zip(Self::sides(block)).filter(|(_, side)| *side) {
                let slot = |name| MatrixSlot::new(format!("{name}{place}"), (range.len(), range.len()));
                slots.extend(names.map(slot));
            }
        }
        slots
    }

    fn least_slots(&self, (rows, columns): (usize, usize)) -> usize {
        let size = self.block_size.max(1);
        // Each block has at least one side.
        rows.div_ceil(size).saturating_mul(columns.div_ceil(size)).saturating_mul(SIDES[0].len())
    }

    fn decay(&self) -> Decay {
        Decay::Coupled
    }

    fn direction(
        &self,
        values: &ShampooValues,
        at: &At,
        _: &TensorInfo,
        mut grad: ArrayViewMut2<'_, A>,
        slots: &mut [Array2<A>],
    ) {
        let (whole, blocks) = slots.split_at_mut(<Self as MatrixRule<A>>::slots(self, (0, 0)).len());
        let (momentum, graft) = whole.split_at_mut(usize::from(self.momentum.is_some()));
        let early = at.step <= self.every && (at.step <= EARLY || at.step.is_power_of_two());
        let due = early || (at.step - 1).is_multiple_of(self.every);
        let length = self.grafted(at, &grad, graft);
        let mut sides = blocks.chunks_exact_mut(2);
        let mut turned = |block: &[Range<usize>; 2], mut own: Array2<A>| {
            let has = Self::sides(block);
            let exponent = if has == [true; 2] { -0.25 } else { -0.5 };
            let mut pairs = has.map(|has| if has { sides.next() } else { None });
            for (pair, along) in pairs.iter_mut().zip([own.view(), own.t()]) {
                if let Some([statistics, root]) = pair {
                    precondition(along, statistics, root, (values, at, due, exponent));
                }
            }
            let mut room = Array2::zeros(own.dim());
            for (right, pair) in [false, true].into_iter().zip(&pairs) {
                let Some([_, root]) = pair else { continue };
                if right {
                    multiply(&own, root, &mut room)
                } else {
                    multiply(root, &own, &mut room)
                }
                swap(&mut own, &mut room);
            }
            own
        };
        let mut direction = match &self.blocks(grad.dim())[..] {
            [block] => turned(block, grad.to_owned()),
            blocks => {
                let mut direction = Array2::zeros(grad.dim());
                for block in blocks {
                    let own = part(grad.view(), block).as_standard_layout().into_owned();
                    part_mut(direction.view_mut(), block).assign(&turned(block, own));
                }
                direction
            }
        };
        if let Some(length) = length {
            let own = direction.iter().map(|d| d.as_f64().powi(2)).sum::<f64>().sqrt();
            let scale = if own > 0.0 { A::from_f64(length / own) } else { A::zero() };
            direction.mapv_inplace(|d| d * scale);
        }
        match momentum {
            [buffer] => {
                let momentum = A::from_f64(values.momentum.unwrap_or(0.0));
                buffer.zip_mut_with(&direction, |m, d| *m = momentum * *m + *d);
                grad.assign(buffer);
            }
            _ => grad.assign(&direction),
        }
    }
}

/// Adds the gradient, its side first, to the statistics, and computes the root if it is due.
fn precondition<A: Scalar>(
    grad: ArrayView2<'_, A>,
    statistics: &mut Array2<A>,
    root: &mut Array2<A>,
    (values, at, due, exponent): (&ShampooValues, &At, bool, f64),
) {
    let (kept, fresh) = values.beta2.map_or((1.0, 1.0), |beta2| (beta2, 1.0 - beta2));
    blend_gram(grad, A::from_f64(fresh), A::from_f64(kept), statistics);
    if at.step == 1 {
        root.diag_mut().fill(A::one());
    }
    if due {
        // (M/c + εI)^e = (M + εcI)^e · c^(−e), c being the bias of the average.
        let bias = values.beta2.map_or(1.0, |beta2| 1.0 - beta2.powf(at.step as f64));
        if let Some(power) = shifted_power(statistics, values.eps * bias, exponent) {
            let scale = A::from_f64(bias.powf(-exponent));
            *root = power.mapv_into(|x| x * scale);
        }
    }
}

fn part<'a, A>(matrix: ArrayView2<'a, A>, [rows, columns]: &[Range<usize>; 2]) -> ArrayView2<'a, A> {
    matrix.slice_axis_move(Axis(0), Slice::from(rows.clone())).slice_axis_move(Axis(1), Slice::from(columns.clone()))
}

fn part_mut<'a, A>(matrix: ArrayViewMut2<'a, A>, [rows, columns]: &[Range<usize>; 2]) -> ArrayViewMut2<'a, A> {
    matrix.slice_axis_move(Axis(0), Slice::from(rows.clone())).slice_axis_move(Axis(1), Slice::from(columns.clone()))
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;
    use crate::error::{Error, StepError};
    use crate::step::Optimizer;

    fn close(found: &Array2<f64>, expected: &Array2<f64>) -> bool {
        found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12)
    }

    #[test]
    fn first_steps_by_hand() {
        // Diagonal: every element by itself, d = g / √(Σg² + ε).
        let grads = [array![[3.0, 0.0], [0.0, 4.0]], array![[4.0, 0.0], [0.0, -3.0]]];
        let mut opt = Shampoo::new(0.1).eps(0.5).every(1);
        let mut w: Array2<f64> = Array2::zeros((2, 2));
        grads.iter().for_each(|grad| _ = opt.step(&mut w, grad).unwrap());
        let expected = [3.0 / 9.5_f64.sqrt() + 4.0 / 25.5_f64.sqrt(), 4.0 / 16.5_f64.sqrt() - 3.0 / 25.5_f64.sqrt()];
        assert!(close(&w, &array![[-0.1 * expected[0], 0.0], [0.0, -0.1 * expected[1]]]), "{w}");
        assert_eq!(opt.slot("", "left").unwrap(), array![[25.0, 0.0], [0.0, 25.0]]);

        // Averaged and corrected: the first step is that of the gradient alone.
        let (mut opt, mut w) = (Shampoo::new(0.1).eps(0.5).beta2(0.9), Array2::zeros((2, 2)));
        opt.step(&mut w, &grads[0]).unwrap();
        assert!(close(&w, &array![[-0.3 / 9.5_f64.sqrt(), 0.0], [0.0, -0.4 / 16.5_f64.sqrt()]]), "{w}");
    }

    /// The first two steps have roots of their own, the third one that the fourth has too; momentum adds up.
    #[test]
    fn periods_and_momentum() {
        let (mut opt, mut w) = (Shampoo::new(1.0).eps(1e-12).every(2).momentum(0.5), array![[0.0]]);
        let steps = [2.0, 1.0, 2.0, 6.0].map(|grad| {
            let before = w[[0, 0]];
            opt.step(&mut w, &array![[grad]]).unwrap();
            before - w[[0, 0]]
        });
        // A number has exponent −1/2: 2/√4, then 1/√(4 + 1), 2/√(4 + 1 + 4), and 6 by the same root.
        let second = 0.5 + 1.0 / 5.0_f64.sqrt();
        let third = 0.5 * second + 2.0 / 3.0;
        let expected: [f64; 4] = [1.0, second, third, 0.5 * third + 2.0];
        assert!(steps.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-10), "{steps:?}");
    }

    /// What decay makes of a parameter that is no number is no gradient: nothing moves, no sum is spoiled.
    #[test]
    fn decay_of_what_is_not_finite() {
        for broken in [f64::NAN, f64::INFINITY, 1e200] {
            let (mut opt, mut w) = (Shampoo::new(0.1).weight_decay(0.1), (array![[1.0, 2.0]], array![[broken, 1.0]]));
            let grad = array![[1.0, 1.0]];
            let error = opt.step(&mut w, &(&grad, &grad)).unwrap_err();
            let named = matches!(&error, Error::Step(StepError::NonFiniteGradient { path, .. }) | Error::Step(StepError::NormOverflow { path }) if path == "1");
            assert!(named && w.0 == array![[1.0, 2.0]] && opt.state_bytes() == 0, "{error}");
            opt.weight_decay(0.0).step(&mut w, &(&grad, &grad)).unwrap();
        }
    }

    /// The first root knows one gradient only; without grafting, ten steps with that go far astray.
    #[test]
    fn roots_are_fresh_at_the_beginning() {
        let grad = |t: usize| array![[(t as f64).sin(), 0.1], [0.2, (2.0 * t as f64).cos()]];
        let run = |period: u64, steps: usize| {
            let (mut opt, mut w) = (Shampoo::new(0.1).every(period), Array2::zeros((2, 2)));
            (0..steps).for_each(|t| _ = opt.step(&mut w, &grad(t)).unwrap());
            w
        };
        assert_eq!(run(10, 10), run(1, 10));
        assert_ne!(run(10, 13), run(1, 13)); // from then on every ten steps: the eleventh
        assert_eq!(run(10, 11), run(1, 11));
        assert_ne!(run(100, 15), run(1, 15));
        // The 16th step has the root of all that there were.
        let last = |period: u64| run(period, 16) - run(period, 15);
        assert!(close(&last(100), &last(1)));
    }

    #[test]
    fn vectors_have_one_side() {
        let (mut opt, mut w) = (Shampoo::new(1.0).eps(1e-12), array![0.0, 0.0]);
        opt.step(&mut w, &array![3.0, -4.0]).unwrap();
        assert!((w[0] + 0.6_f64).abs() < 1e-6 && (w[1] - 0.8).abs() < 1e-6, "{w}"); // g/‖g‖
        assert!(opt.slot("", "left").is_some() && opt.slot("", "right").is_none());
    }

    /// A matrix in blocks is its blocks.
    #[test]
    fn blocks_are_stepped_one_by_one() {
        let grad = Array2::from_shape_fn((5, 7), |(i, j)| ((3 * i + 5 * j) as f64).sin());
        let fresh = || Shampoo::new(0.1).block_size(3).beta2(0.9);
        let (mut opt, mut w) = (fresh(), Array2::<f64>::zeros((5, 7)));
        (0..3).for_each(|_| _ = opt.step(&mut w, &grad).unwrap());
        for (rows, columns) in [(0..3, 0..3), (0..3, 3..6), (0..3, 6..7), (3..5, 0..3), (3..5, 6..7)] {
            let block = [rows, columns];
            let own = part(grad.view(), &block).to_owned();
            let (mut opt, mut alone) = (fresh(), Array2::zeros(own.dim()));
            (0..3).for_each(|_| _ = opt.step(&mut alone, &own).unwrap());
            assert!(close(&part(w.view(), &block).to_owned(), &alone), "{block:?}");
        }
        assert!(opt.slot("", "left.1.2").is_some() && opt.slot("", "right.1.2").is_none());
    }

    #[test]
    fn grafting_takes_the_length() {
        let grad = array![[3.0, 1.0], [1.0, 4.0]];
        let step = |graft| {
            let (mut opt, mut w) = (Shampoo::new(0.1).graft(graft), Array2::<f64>::zeros((2, 2)));
            (0..2).for_each(|_| _ = opt.step(&mut w, &grad).unwrap());
            opt.step(&mut w, &Array2::zeros((2, 2))).unwrap();
            w.iter().map(|x| x * x).sum::<f64>().sqrt()
        };
        assert!((step(Graft::Sgd) - 0.2 * 27.0_f64.sqrt()).abs() < 1e-9);
        // √v = |g|·√0.01, then |g|·√0.0199: four elements each.
        let rmsprop = 2.0 * 0.1 * (1.0 / 0.01_f64.sqrt() + 1.0 / 0.0199_f64.sqrt());
        assert!((step(Graft::RmsProp) - rmsprop).abs() < 1e-6);
        // Adam's steps are 1 and 1; the third has no direction.
        assert!((step(Graft::Adam) - 0.4).abs() < 1e-6);
    }
}
