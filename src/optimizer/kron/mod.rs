//! PSGD Kron: a preconditioner for each side of a matrix, learned by gradient descent.

mod factor;
mod memory;
mod probe;

use std::f64::consts::E;
use std::ops::Bound;

use ndarray::{Array2, ArrayViewMut2};

use crate::hyper_parameters;
use crate::kernel::squares;
use crate::params::{Scalar, TensorInfo};
use crate::rule::{At, MatrixRule, MatrixSlot, Matrixwise};
use crate::schedule::{Exponential, Hyper, Schedule, ScheduleExt};
use crate::step::norm;
use factor::{Factor, Side};
pub use memory::KronMemory;
pub use probe::KronProbe;

/// PSGD Kron: gradients preconditioned by a Kronecker product that is learned while training, so that they become white.
///
/// # Update rule
/// ```text
/// m ← μm + (1 − μ)g,  m̂ = m/(1 − μᵗ)
/// if an update is due:
///     A = P m̂ Qᵀ,  B = P⁻ᵀ V Q⁻¹                               V: a matrix of random numbers; without momentum_into_precond_update A = P g Qᵀ
///     P ← P − ρ·triu(AAᵀ − BBᵀ)/‖AAᵀ + BBᵀ‖ · P                ‖·‖: a lower bound of the spectral norm
///     Q ← Q − ρ·triu(AᵀA − BᵀB)/‖AᵀA + BᵀB‖ · Q                of a diagonal factor only the diagonals, divided by the largest element
/// d = PᵀP m̂ QᵀQ
/// θ ← θ(1 − ηλ)
/// θ ← θ − η·min(1, c/(RMS(d) + 1e-6))·d
/// ```
/// P and Q start from multiples of the identity and stay upper triangular. In the optimum d is white: the mean of its outer products is the identity, so its
/// elements are about 1, whatever the scale of the gradients.
///
/// An update is due when at least 1/`update_probability` steps have passed since the last one: by default in each of the first 500 steps, and after 4000 steps in
/// every 34th. V depends only on the seed, the tensor's step and the element.
///
/// A tensor is reshaped to a matrix of its first axis and all others. A side of length 1 has no factor. Vectors, and matrices with a side of length 1, have a
/// diagonal factor.
///
/// # Hyper-parameters
/// | name | default | range | meaning |
/// |---|---|---|---|
/// | `learning_rate` η | – | ≥ 0 | about a third of Adam's |
/// | [`momentum`](Self::momentum) μ | 0.9 | 0 ≤ μ < 1 | decay of m |
/// | [`weight_decay`](Self::weight_decay) λ | 0 | ≥ 0 | decoupled |
/// | [`update_probability`](Self::update_probability) | e^(−(t − 500)/1000), at least 0.03 and at most 1 | 0 … 1 | updates of P and Q per step; 0 for none |
/// | [`precond_lr`](Self::precond_lr) ρ | 0.1 | 0 ≤ ρ < 1 | length of the updates of P and Q |
/// | [`precond_init_scale`](Self::precond_init_scale) | 1 | > 0 | the first P ⊗ Q is this multiple of the identity |
/// | [`clip_rms`](Self::clip_rms) c | 1.1 | > 0 | largest RMS of a tensor's direction |
/// | [`max_size_triangular`](Self::max_size_triangular) | 8192 | | longer sides have a diagonal factor |
/// | [`min_ndim_triangular`](Self::min_ndim_triangular) | 2 | | matrices with fewer sides longer than 1 have diagonal factors |
/// | [`memory_save_mode`](Self::memory_save_mode) | none | [`KronMemory`] | sides with a diagonal factor |
/// | [`momentum_into_precond_update`](Self::momentum_into_precond_update) | yes | | P and Q learn from m̂ instead of g |
/// | [`seed`](Self::seed) | 0 | | decides V |
/// | [`probe`](Self::probe) | normal | [`KronProbe`] | the numbers of V |
///
/// # State
/// `momentum_buffer`, one number per parameter; `left` P, rows² numbers or, if it is diagonal, rows; `right` Q, columns² or columns; `update_counter`,
/// one number per tensor.
///
/// # Conventions
/// The authors' implementation and pytorch-optimizer's `Kron`, with these differences: there, tensors of more axes have a factor for each axis, vectors do
/// not decay, and matrices with a side of length 1 have a triangular factor for the other side. A random one in a hundred updates there balances the
/// largest elements of P and Q; here each update does, by powers of two, which change no result. A gradient of 0 does not update P and Q, which would grow
/// without limit. Triangular systems are solved in f64.
///
/// timm's `Kron` has `max_size_triangular` 2048, adds 1e-8 to the RMS, and by default adds the decay λθ to the direction, which is the same up to rounding.
/// heavyball's `PSGDKron` is a variant with another norm, initial scale and schedule.
///
/// `max_size_triangular`, `min_ndim_triangular` and `memory_save_mode` determine the state: see [`Matrixwise`] before you change them on a running
/// optimizer.
///
/// # Errors
/// [`NonFiniteGradient`](crate::error::StepError::NonFiniteGradient), [`NormOverflow`](crate::error::StepError::NormOverflow),
/// [`HyperParameter`](crate::error::StepError::HyperParameter). If an update is not finite, the previous factor is kept; if d is not, m̂ is the direction.
///
/// # Example
/// ```
/// use gradus::{optimizer::Kron, prelude::*};
/// use ndarray::array;
///
/// let mut opt = Kron::new(0.01).seed(7);
/// let mut w = array![[0.0, 0.0], [0.0, 0.0]];
/// for _ in 0..200 {
///     opt.step(&mut w, &array![[30.0, 0.0], [0.0, 0.01]])?;
/// }
/// assert!(w[[0, 0]] / w[[1, 1]] < 10.0_f64); // the gradients differ by a factor of 3000
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// # References
/// X.-L. Li, *Preconditioned Stochastic Gradient Descent* (2018), [arXiv:1512.04202](https://arxiv.org/abs/1512.04202).
/// O. Pooladzandi and X.-L. Li, *Curvature-Informed SGD via General Purpose Lie-Group Preconditioners* (2024),
/// [arXiv:2402.04553](https://arxiv.org/abs/2402.04553); X.-L. Li, *Stochastic Hessian Fittings with Lie Groups* (2024),
/// [arXiv:2402.11858](https://arxiv.org/abs/2402.11858).
#[doc(alias("PSGD", "PSGDKron"))]
pub type Kron<A = f32> = Matrixwise<KronRule, A>;

hyper_parameters! {
    /// The rule of [`Kron`].
    pub struct KronRule => KronValues for Matrixwise {
        /// The momentum μ, 0 ≤ μ < 1.
        momentum / set_momentum: 0.9, 0.0..1.0;
        /// The updates of the preconditioner per step, 0 … 1.
        update_probability / set_update_probability: falling(), 0.0..=1.0;
        /// The length ρ of the updates of the preconditioner, 0 ≤ ρ < 1.
        precond_lr / set_precond_lr: 0.1, 0.0..1.0;
        /// The multiple of the identity from which the preconditioner starts, above 0.
        precond_init_scale / set_precond_init_scale: 1.0, (Bound::Excluded(0.0), Bound::Unbounded);
        /// The largest RMS of a tensor's direction, above 0.
        clip_rms / set_clip_rms: 1.1, (Bound::Excluded(0.0), Bound::Unbounded);
    }
    options {
        /// The longest side that has a triangular factor.
        max_size_triangular: usize = 8192;
        /// The number of sides longer than 1 from which on a matrix has triangular factors.
        min_ndim_triangular: usize = 2;
        /// Gives some sides a diagonal factor, which takes less memory.
        memory_save_mode: KronMemory = KronMemory::None;
        /// Learns the preconditioner from the momentum, which is the default, instead of the gradient.
        momentum_into_precond_update: bool = true;
        /// Decides the random numbers with which the preconditioner is learned.
        seed: u64 = 0;
        /// The numbers with which the preconditioner is learned, in place of normal ones.
        probe: KronProbe = KronProbe::normal();
    }
}

/// The authors' schedule of updates: 1 for 500 steps, and then falling to 0.03.
fn falling() -> impl Schedule {
    Exponential::new(1.0, 1.0 / E).over(1000).delay(500).clamp(0.03, 1.0)
}

impl<A: Scalar> Kron<A> {
    /// PSGD Kron with the authors' defaults, without weight decay.
    pub fn new(learning_rate: impl Into<Hyper>) -> Self {
        Self::from_rule(KronRule::default(), learning_rate)
    }
}

impl KronRule {
    /// The sides that have a factor, and whether it is diagonal.
    fn sides(&self, shape: (usize, usize)) -> impl Iterator<Item = (Side, usize, bool)> {
        let (rows, columns) = shape;
        let axes = [rows, columns].iter().filter(|side| **side > 1).count();
        let saved = self.memory_save_mode.diagonal(shape);
        let small = axes < self.min_ndim_triangular;
        let longest = self.max_size_triangular;
        // A single number has the factor of a row.
        let has = [rows > 1 || rows * columns == 1, columns > 1].map(|has| has && rows * columns > 0);
        let sides = [(Side::Rows, rows), (Side::Columns, columns)].into_iter().zip(saved).zip(has);
        sides
            .filter(|(_, has)| *has)
            .map(move |(((at, side), saved), _)| (at, side, saved || small || side == 1 || side > longest))
    }

    /// Updates the factors with a gradient.
    fn learn<A: Scalar>(&self, grad: Array2<A>, mut probe: Array2<A>, rate: f64, factors: &mut [Factor<'_, A>]) {
        if grad.iter().all(|x| x.is_zero()) || !probe.iter().all(|x| x.is_finite()) {
            return;
        }
        let (mut turned, mut room) = (grad, Array2::zeros(probe.dim()));
        for factor in &*factors {
            factor.apply(false, &mut turned, &mut room);
            factor.solve(&mut probe);
        }
        for factor in &mut *factors {
            factor.learn(&turned, &probe, rate);
        }
        if let [left, right] = factors {
            balance(left, right);
        }
    }
}

/// Multiplies two factors by powers of two whose product is 1, so that their largest elements are about the same.
fn balance<'s, A: Scalar>(left: &mut Factor<'s, A>, right: &mut Factor<'s, A>) {
    let exponent = |largest: f64| (largest.to_bits() >> 52) as i32;
    let half = (exponent(left.largest()) - exponent(right.largest())) / 2;
    for (factor, power) in [(left, -half), (right, half)] {
        factor.values.mapv_inplace(|x| A::from_f64(x.as_f64() * 2.0_f64.powi(power)));
    }
}

impl<A: Scalar> MatrixRule<A> for KronRule {
    fn name(&self) -> &'static str {
        "kron"
    }

    fn slots(&self, shape: (usize, usize)) -> Vec<MatrixSlot> {
        let mut slots = vec![MatrixSlot::new("momentum_buffer", shape), MatrixSlot::new("update_counter", (1, 1))];
        slots.extend(self.sides(shape).map(|(at, side, diagonal)| {
            let name = if at == Side::Rows { "left" } else { "right" };
            MatrixSlot::new(name, (if diagonal { 1 } else { side }, side))
        }));
        slots
    }

    fn direction(
        &self,
        values: &KronValues,
        at: &At,
        tensor: &TensorInfo,
        mut grad: ArrayViewMut2<'_, A>,
        slots: &mut [Array2<A>],
    ) {
        let [momentum, counter, factors @ ..] = slots else { unreachable!("there are a momentum and a counter") };
        let shape = grad.dim();
        let mut factors: Vec<_> = (self.sides(shape).zip(factors))
            .map(|((at, _, diagonal), values)| Factor { at, diagonal, values })
            .collect();
        if at.step == 1 {
            let scale = values.precond_init_scale.powf(1.0 / factors.len().max(1) as f64);
            factors.iter_mut().for_each(|factor| factor.begin(scale));
        }
        let [kept, fresh] = [values.momentum, 1.0 - values.momentum].map(A::from_f64);
        momentum.zip_mut_with(&grad, |m, g| *m = kept * *m + fresh * *g);
        let bias = A::from_f64(at.bias_correction(values.momentum));
        let mean = momentum.mapv(|m| m / bias);
        let (waited, probability) = (counter.sum().as_f64() + 1.0, values.update_probability);
        let due = probability > 0.0 && waited >= 1.0 / probability;
        counter.fill(A::from_f64(if due { 0.0 } else { waited }));
        if due {
            let learned = if self.momentum_into_precond_update { mean.clone() } else { grad.to_owned() };
            let probe = self.probe.matrix(self.seed, tensor.path(), at.step, shape);
            self.learn(learned, probe, values.precond_lr, &mut factors);
        }
        let (mut direction, mut room) = (mean.clone(), Array2::zeros(shape));
        for factor in &factors {
            factor.apply(false, &mut direction, &mut room);
            factor.apply(true, &mut direction, &mut room);
        }
        if !direction.as_slice().is_some_and(norm::finite) {
            direction = mean;
        }
        let rms = squares::norm(&direction) / (direction.len().max(1) as f64).sqrt();
        let scale = A::from_f64((values.clip_rms / (rms + 1e-6)).min(1.0));
        grad.zip_mut_with(&direction, |to, d| *to = scale * *d);
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;
    use crate::step::Optimizer;

    /// Of one element, with a probe of 2: A = qg, B = v/q, q ← q − ρ(A² − B²)/(A² + B²)·q.
    #[test]
    fn first_steps_by_hand() {
        let mut opt = Kron::new(0.5).momentum(0.5).clip_rms(1e6).probe(KronProbe::from_fn(|_, _, _| 2.0));
        let mut w = array![1.0_f64];
        opt.step(&mut w, &array![3.0]).unwrap(); // m̂ = 3
        let first = 1.0 - 0.1 * (9.0 - 4.0) / (9.0 + 4.0);
        assert!((w[0] - (1.0 - 0.5 * first * first * 3.0)).abs() < 1e-14, "{w}");
        let before = w[0];
        opt.step(&mut w, &array![-1.0]).unwrap(); // m = 0.25, m̂ = 1/3
        let (a, b) = (first / 3.0, 2.0 / first);
        let second = first * (1.0 - 0.1 * (a * a - b * b) / (a * a + b * b));
        assert!((before - w[0] - 0.5 * second * second / 3.0).abs() < 1e-14, "{w}");
        assert!((opt.slot("", "left").unwrap()[[0, 0]] - second).abs() < 1e-14);

        let (mut opt, mut w) = (Kron::new(0.5).update_probability(0.0).weight_decay(0.5), array![[1.0], [-1.0]]);
        opt.step(&mut w, &array![[30.0], [40.0]]).unwrap(); // its RMS is √1250
        let clipped = array![[30.0], [40.0]] * (0.5 * 1.1 / (1250.0_f64.sqrt() + 1e-6));
        assert!((w - (array![[0.75], [-0.75]] - clipped)).iter().all(|d: &f64| d.abs() < 1e-14));
    }

    /// The steps of the updates, and the state in between.
    #[test]
    fn updates_come_at_the_schedule() {
        let updated = |opt: Kron<f64>, steps: u64| {
            let (mut opt, mut w, mut due) = (opt, Array2::zeros((3, 2)), Vec::new());
            for step in 1..=steps {
                let before = opt.slot("", "left");
                opt.step(&mut w, &Array2::from_shape_fn((3, 2), |(i, j)| (step as f64 + (2 * i + j) as f64).sin()))
                    .unwrap();
                let left = opt.slot("", "left").unwrap();
                if before.unwrap_or_else(|| Array2::eye(3)) != left {
                    due.push(step);
                }
                assert!(left.indexed_iter().all(|((i, j), q)| i <= j || *q == 0.0));
            }
            due
        };
        assert_eq!(updated(Kron::new(0.1), 6), [1, 2, 3, 4, 5, 6]);
        assert_eq!(updated(Kron::new(0.1).update_probability(0.4), 9), [3, 6, 9]);
        assert_eq!(
            updated(Kron::new(0.1).update_probability(|t| if t < 4 { 1.0 } else { 0.25 }), 12),
            [1, 2, 3, 4, 8, 12]
        );
        let default = falling();
        assert_eq!([0, 500, 501, 9999].map(|t| default.at(t)), [1.0, 1.0, (-0.001_f64).exp(), 0.03]);
    }

    /// Which sides have which factor.
    #[test]
    fn factors_of_shapes() {
        let shapes = |rule: KronRule, shape: (usize, usize)| {
            let slots = MatrixRule::<f64>::slots(&rule, shape);
            slots[2..].iter().map(|slot| (slot.name.to_string(), slot.shape)).collect::<Vec<_>>()
        };
        let [left, right] = ["left", "right"].map(|name| move |shape| (name.to_owned(), shape));
        let rule = KronRule::default;
        assert_eq!(shapes(rule(), (3, 2)), [left((3, 3)), right((2, 2))]);
        assert_eq!(shapes(rule().max_size_triangular(2), (3, 2)), [left((1, 3)), right((2, 2))]);
        assert_eq!(shapes(rule().min_ndim_triangular(3), (3, 2)), [left((1, 3)), right((1, 2))]);
        assert_eq!(shapes(rule(), (3, 1)), [left((1, 3))]);
        assert_eq!(shapes(rule().min_ndim_triangular(1), (3, 1)), [left((3, 3))]);
        assert_eq!(shapes(rule(), (1, 3)), [right((1, 3))]);
        assert_eq!(shapes(rule(), (1, 1)), [left((1, 1))]);
        assert_eq!(shapes(rule(), (0, 3)), []);
        let saved = |mode, shape| shapes(rule().memory_save_mode(mode), shape);
        assert_eq!(saved(KronMemory::OneDiag, (3, 2)), [left((1, 3)), right((2, 2))]);
        assert_eq!(saved(KronMemory::OneDiag, (3, 3)), [left((3, 3)), right((1, 3))]);
        assert_eq!(saved(KronMemory::SmartOneDiag, (2, 3)), [left((2, 2)), right((1, 3))]);
        assert_eq!(saved(KronMemory::SmartOneDiag, (3, 3)), [left((3, 3)), right((3, 3))]);
        assert_eq!(saved(KronMemory::AllDiag, (2, 3)), [left((1, 2)), right((1, 3))]);
    }

    /// Gradients of 0 and probes that are not finite leave the factors alone; balancing changes no product.
    #[test]
    fn factors_stay_finite() {
        let (mut opt, mut w) = (Kron::new(0.1), Array2::<f32>::zeros((2, 2)));
        (0..50).for_each(|_| _ = opt.step(&mut w, &Array2::zeros((2, 2))).unwrap());
        assert_eq!(opt.slot("", "left").unwrap(), Array2::<f32>::eye(2));
        let mut opt = Kron::new(0.1).probe(KronProbe::from_fn(|_, step, _| if step == 2 { f64::NAN } else { 1.0 }));
        opt.step(&mut w, &Array2::eye(2)).unwrap();
        let left = opt.slot("", "left").unwrap();
        opt.step(&mut w, &Array2::eye(2)).unwrap();
        assert_eq!(opt.slot("", "left").unwrap(), left);

        let (mut left, mut right) = (array![[64.0, 1.0], [0.0, 3.0]], array![[0.25, 0.125]]);
        let mut factors = [(Side::Rows, false, &mut left), (Side::Columns, true, &mut right)]
            .map(|(at, diagonal, values)| Factor { at, diagonal, values });
        let [first, second] = &mut factors;
        balance(first, second);
        assert_eq!((left, right), (array![[4.0, 0.0625], [0.0, 0.1875]], array![[4.0, 2.0]]));
    }

    /// From a gradient near the smallest number to one near the largest.
    #[test]
    fn a_jump_of_the_gradient_stays_finite() {
        let (mut opt, mut w) = (Kron::new(0.1).precond_init_scale(1e15), Array2::<f32>::zeros((3, 2)));
        let grad = |scale: f32| Array2::from_shape_fn((3, 2), |(i, j)| scale * (1.0 + (i + 2 * j) as f32));
        for scale in [1e-18, 1e12, 1e15, 1e-30, 1.0] {
            opt.step(&mut w, &grad(scale)).unwrap();
            let slots = ["left", "right"].map(|slot| opt.slot("", slot).unwrap());
            assert!(w.iter().chain(slots.iter().flatten()).all(|x| x.is_finite()), "{scale}: {w} {slots:?}");
        }
    }
}
