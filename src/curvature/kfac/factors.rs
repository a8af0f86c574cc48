//! The Kronecker factors of one layer's curvature, and what they make of a gradient.

use std::sync::Arc;

use ndarray::{Array1, Array2, ArrayRef2, Axis};

use super::scratch::Scratch;
use crate::curvature::tap::LinearTap;
use crate::error::{ArgumentError, Error, Result};
use crate::kernel::decomposition::{eigen, shifted_inverse};
use crate::kernel::product::faer::{lower_gram, multiplied, multiply};
use crate::kernel::product::mirror;
use crate::params::Scalar;

/// The method of dividing by the curvature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Inverse,
    Eigen,
}

/// The sums over the taps of one step. Σ aaᵀ and Σ δδᵀ are symmetric, and only up to the diagonal what they should be.
#[derive(Debug, Clone)]
pub(super) struct Pending<A> {
    /// Σ aaᵀ, and Σ a: without the homogeneous coordinate, which not every layer has.
    pub(super) input: Array2<A>,
    pub(super) input_sum: Array1<A>,
    /// Σ δδᵀ.
    pub(super) output: Array2<A>,
    pub(super) rows: u64,
    pub(super) examples: u64,
    /// Of taps from the real targets: Σ δ(Σa) and Σ δ, which are the row sums of the gradients of weight and bias.
    pub(super) row_sums: Option<Array2<f64>>,
}

impl<A: Scalar> Pending<A> {
    /// Nothing yet, of a tap's shapes.
    pub(super) fn new(tap: &LinearTap<'_, A>, empirical: bool, scratch: &Scratch<A>) -> Self {
        let (inputs, outputs) = (tap.input.ncols(), tap.output_grad.ncols());
        Self {
            input: scratch.matrix((inputs, inputs)),
            input_sum: Array1::zeros(inputs),
            output: scratch.matrix((outputs, outputs)),
            rows: 0,
            examples: 0,
            row_sums: empirical.then(|| Array2::zeros((2, outputs))),
        }
    }

    /// Adds a tap, or says that its rows are more than can be counted beside the others.
    pub(super) fn add(&mut self, tap: &LinearTap<'_, A>) -> Result<()> {
        let counts = [(self.rows, tap.rows()), (self.examples, tap.examples())];
        let [Some(rows), Some(examples)] = counts.map(|(known, more)| known.checked_add(more as u64)) else {
            let accepted = format!("at most {}, for {} are observed already", u64::MAX - self.rows, self.rows);
            return Err(Error::argument("rows", tap.rows() as f64, accepted));
        };
        // What there is before the first tap is no sum.
        let kept = if self.rows == 0 { A::zero() } else { A::one() };
        // Rows are examples; transposed they are the columns of the products.
        lower_gram(tap.input.t(), kept, &mut self.input);
        lower_gram(tap.output_grad.t(), kept, &mut self.output);
        self.input_sum += &tap.input.sum_axis(Axis(0));
        (self.rows, self.examples) = (rows, examples);
        if let Some(sums) = &mut self.row_sums {
            for (input, grad) in tap.input.rows().into_iter().zip(tap.output_grad.rows()) {
                for (mut sums, along) in sums.rows_mut().into_iter().zip([input.sum().as_f64(), 1.0]) {
                    sums.zip_mut_with(&grad, |sum, grad| *sum += along * grad.as_f64());
                }
            }
        }
        Ok(())
    }

    /// Returns an error if a sum has overflowed. If the traces are finite, so is every element and every eigenvalue.
    pub(super) fn ensure_finite(&self) -> Result<()> {
        for (argument, sum) in [("the sum of input²", &self.input), ("the sum of output_grad²", &self.output)] {
            let trace = sum.diag().sum().as_f64();
            if !trace.is_finite() {
                return Err(Error::Argument(ArgumentError::NotFinite { argument, index: vec![], value: trace }));
            }
        }
        Ok(())
    }

    /// Σ aaᵀ and Σ δδᵀ, whole.
    pub(super) fn sums(&self) -> [Array2<A>; 2] {
        [&self.input, &self.output].map(|lower| {
            let mut whole = lower.clone();
            mirror(whole.view_mut());
            whole
        })
    }

    /// Σ āāᵀ, ā = (a, 1), up to the diagonal.
    fn homogeneous(&self) -> Array2<A> {
        let inputs = self.input.nrows();
        let mut whole = Array2::zeros((inputs + 1, inputs + 1));
        let (mut above, mut last) = whole.view_mut().split_at(Axis(0), inputs);
        for ((mut to, from), sum) in above.rows_mut().into_iter().zip(self.input.rows()).zip(&self.input_sum) {
            to.iter_mut().zip(from.iter().chain([sum])).for_each(|(to, from)| *to = *from);
        }
        let rows = A::from_f64(self.rows as f64);
        last.iter_mut().zip(self.input_sum.iter().chain([&rows])).for_each(|(to, from)| *to = *from);
        whole
    }
}

/// The rows of a matrix, each up to the diagonal.
fn lower<A>(matrix: &Array2<A>) -> impl Iterator<Item = &[A]> {
    let rows = matrix.as_slice().unwrap_or_default().chunks(matrix.ncols().max(1));
    rows.enumerate().map(|(row, elements)| &elements[..=row])
}

/// The running averages of one layer and what is computed from them.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Factors<A> {
    /// How many times they were updated.
    pub(super) updates: u64,
    /// A, of shape (in, in), with a bias one more.
    pub(super) input: Array2<A>,
    /// G, of shape (out, out).
    pub(super) output: Array2<A>,
    pub(super) solver: Arc<Solver<A>>,
}

/// How a gradient is divided by the curvature.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Solver<A> {
    /// Nothing computed yet.
    None,
    /// (A + π√λ I)⁻¹ and (G + √λ/π I)⁻¹.
    Inverse { input: Array2<A>, output: Array2<A> },
    /// The eigenvectors, as columns, and eigenvalues of A and G.
    Eigen { input: (Array2<A>, Array1<A>), output: (Array2<A>, Array1<A>) },
}

impl<A: Scalar> Factors<A> {
    /// The factors after an update: with ε = min(1 − 1/k, decay) of what they were.
    pub(super) fn updated(
        known: Option<&Self>,
        pending: &Pending<A>,
        bias: bool,
        decay: f64,
        scratch: &Scratch<A>,
    ) -> Self {
        let updates = known.map_or(1, |known| known.updates.saturating_add(1));
        let kept = (1.0 - 1.0 / updates as f64).min(decay);
        // A = Σ āāᵀ / examples and G = Σ δδᵀ / rows, blended with what was known.
        let blend = |sum: &Array2<A>, count: u64, known: Option<&Array2<A>>| {
            let (kept, fresh) = (A::from_f64(kept), A::from_f64((1.0 - kept) / count as f64));
            let mut blended = scratch.matrix(sum.dim());
            let elements = blended.as_slice_mut().unwrap_or_default();
            let rows = elements.chunks_mut(sum.ncols().max(1)).zip(lower(sum));
            match known {
                Some(known) => rows.zip(lower(known)).for_each(|((blended, sum), known)| {
                    let both = sum.iter().zip(known);
                    blended.iter_mut().zip(both).for_each(|(to, (sum, known))| *to = kept * *known + fresh * *sum);
                }),
                None => rows.for_each(|(blended, sum)| {
                    blended.iter_mut().zip(sum).for_each(|(to, sum)| *to = *sum * fresh);
                }),
            }
            mirror(blended.view_mut());
            blended
        };
        let whole = bias.then(|| pending.homogeneous());
        Self {
            updates,
            input: blend(whole.as_ref().unwrap_or(&pending.input), pending.examples, known.map(|known| &known.input)),
            output: blend(&pending.output, pending.rows, known.map(|known| &known.output)),
            solver: known.map_or_else(|| Arc::new(Solver::None), |known| Arc::clone(&known.solver)),
        }
    }

    /// π, that divides the damping between the factors as their mean eigenvalues are; 1 where one of them is 0.
    pub(super) fn pi(&self) -> f64 {
        let mean =
            |factor: &Array2<A>| factor.diag().iter().map(|x| x.as_f64()).sum::<f64>() / factor.nrows().max(1) as f64;
        let pi = (mean(&self.input) / mean(&self.output)).sqrt();
        if pi.is_finite() && pi > 0.0 { pi } else { 1.0 }
    }

    /// Computes inverses or decompositions.
    pub(super) fn refresh(&mut self, mode: Mode, damping: f64) {
        self.solver = Arc::new(match mode {
            Mode::Inverse => {
                let (pi, root) = (self.pi(), damping.sqrt());
                Solver::Inverse { input: damped(&self.input, pi * root), output: damped(&self.output, root / pi) }
            }
            Mode::Eigen => Solver::Eigen { input: decomposed(&self.input), output: decomposed(&self.output) },
        });
    }

    /// The gradient (out, in) divided by the damped curvature.
    pub(super) fn precondition(&self, grad: &ArrayRef2<A>, damping: f64, scratch: &Scratch<A>) -> Array2<A> {
        match &*self.solver {
            Solver::None => grad.to_owned(),
            Solver::Inverse { input, output } => {
                let [mut half, mut whole] = [(); 2].map(|()| scratch.matrix(grad.dim()));
                multiply(output, grad, &mut half);
                multiply(&half, input, &mut whole);
                scratch.give(half.into_raw_vec_and_offset().0);
                whole
            }
            Solver::Eigen { input: (basis, values), output: (output_basis, output_values) } => {
                let mut turned = multiplied(&multiplied(&output_basis.t(), grad), basis);
                for (mut row, output) in turned.rows_mut().into_iter().zip(output_values) {
                    row.zip_mut_with(values, |x, input| {
                        *x = A::from_f64(x.as_f64() / (output.as_f64() * input.as_f64() + damping));
                    });
                }
                multiplied(&multiplied(output_basis, &turned), &basis.t())
            }
        }
    }
}

/// (factor + shift·I)⁻¹. Where rounding has made that indefinite, by its eigenvalues, of which none is below 0.
fn damped<A: Scalar>(factor: &Array2<A>, shift: f64) -> Array2<A> {
    shifted_inverse(factor, shift).unwrap_or_else(|| {
        let (basis, values) = decomposed(factor);
        let scaled = &basis * &values.mapv(|value| A::from_f64(1.0 / (value.as_f64() + shift)));
        multiplied(&scaled, &basis.t())
    })
}

/// Eigenvectors and eigenvalues, of which none is below 0; of a factor that has none, the identity and its diagonal.
fn decomposed<A: Scalar>(factor: &Array2<A>) -> (Array2<A>, Array1<A>) {
    match eigen(factor) {
        Some((values, basis)) => (basis, values.mapv(|value| A::from_f64(value.max(0.0)))),
        None => (Array2::eye(factor.nrows()), factor.diag().mapv(|x| if x.is_finite() { x } else { A::zero() })),
    }
}
