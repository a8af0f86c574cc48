//! Gradients of some rows of a tensor.

use ndarray::{Array, Axis, Dimension, Ix2, RemoveAxis};

use super::{Element, Params, Values, Visitor};

/// The gradient of some rows of a tensor, for embeddings: a batch uses few rows of the table, and the other rows have no gradient.
///
/// It stands in a gradient tree where the table's gradient would stand. A step then reads, moves and remembers only these rows. Its work,
/// time and memory grow with the number of rows in it, not with the size of the table.
///
/// `rows` are indices along the first axis of the parameter, in any order. `values` has one row for each index. If an index occurs
/// several times, its rows are added up, in f64 and in the order given, and rounded once. So a backward pass can write down the gradient of every token of a
/// batch as it comes. The rows of a tensor of more than two axes are its slices along the first axis, and those of a vector are its elements.
///
/// # Update rule
/// An element-wise optimizer steps the tensor that consists of these rows alone, and leaves all other rows and their state as they are:
/// ```text
/// t ← t + 1                                              one count for the whole tensor
/// θ[rows], state[rows] ← the dense step t of θ[rows], state[rows] along values
/// ```
/// - **State** has the tensor's shape, as for a dense gradient. Moments of a row that is not in `rows` do not decay, and its
///   momentum does not move it.
/// - **Steps.** Bias corrections and everything else that depends on the number of steps use the tensor's count. It counts every step in which
///   the tensor has a gradient, whichever rows are in it. So a row that first occurs late moves by less in Adam than in the first step.
///   `Rows` without any rows count as a step too; `None` does not.
/// - **Weight decay** and the options of an optimizer (`cautious`, `trust_ratio`) apply to these rows only.
/// - **State that does not start from 0** (the accumulator of Adagrad, the step sizes of Rprop) starts in the tensor's first step for all of
///   its rows. That step takes as long as a dense one.
/// - **First steps.** A rule that treats the first step in another way does so in the tensor's first step, and not where a row first occurs:
///   Adan takes a gradient's difference to 0, ADOPT divides by ε and is only held by its clipping, and momentum with dampening is damped.
///   The schedule-free optimizers weigh a row's step by its share in all steps of the tensor, so rows that occur seldom move little.
/// - **State that starts from the parameter** (MADGRAD) needs a dense gradient in the tensor's first step.
/// - **Norms**, clipping and checks see the summed rows, without the zeros of the others.
///
/// # What knows rows
/// | | |
/// |---|---|
/// | element-wise optimizers, groups, freezing, routing, `None`, [`master_weights`](crate::OptimizerExt::master_weights) and the other ways to step 16 bits, checkpoints | as described; state in `bf16` too |
/// | state in 8 or 4 bits | if a row is a multiple of 256 or 128 elements in row-major order, so that no two rows share a scale; else an error |
/// | clipping, centralizing, scaling, `check_finite`, `skip_nonfinite` | on the rows |
/// | [`accumulate`](crate::OptimizerExt::accumulate) | the sum has the union of the rows; together with a dense gradient it becomes dense |
/// | [`data_parallel`](crate::OptimizerExt::data_parallel) | the ranks exchange the union of their rows; with `compress` an error |
/// | [`ema`](crate::OptimizerExt::ema), [`swa`](crate::OptimizerExt::swa) | right, but a step takes as long as a dense one: an average moves in all rows |
/// | [`lookahead`](crate::OptimizerExt::lookahead), [`local_steps`](crate::OptimizerExt::local_steps) | right; the steps in which weights are synchronized visit all rows |
/// | terms that are added to gradients, as in federated learning | the gradient becomes dense |
/// | Muon, Shampoo, SOAP, PSGD Kron, Adafactor, L-BFGS, K-FAC, [`sharded`](crate::OptimizerExt::sharded) | an error that names it, before anything moves |
/// | an [`Optimizer`](crate::Optimizer) or [`Transform`](crate::adaptor::Transform) of your own | [`Grad::rows`](crate::Grad::rows) has the rows; other methods read zeros for the other rows |
///
/// # Conventions
/// With [`Adam::eps_hat`](crate::Adam), this is PyTorch's `SparseAdam`; with Adagrad and SGD, it is what PyTorch does for sparse gradients. With
/// momentum, PyTorch differs: it keeps moving every row that has ever had a gradient. For that, pass [`to_dense`](Self::to_dense).
/// PyTorch has no weight decay for sparse gradients, and no other optimizers for them. Keras moves all rows, as with zeros for the others.
///
/// # Errors
/// A step returns an error before anything moves: [`StepError::RowCount`](crate::error::StepError::RowCount),
/// [`StepError::RowShape`](crate::error::StepError::RowShape), [`StepError::RowOutOfRange`](crate::error::StepError::RowOutOfRange), and
/// [`StepError::RowsUnusable`](crate::error::StepError::RowsUnusable) from what cannot use rows.
///
/// # Example
/// ```
/// use gradus::prelude::*;
/// use ndarray::{Array1, Array2, array};
///
/// let mut params = (Array2::<f32>::zeros((5, 2)), Array1::zeros(2)); // a table of 5 rows, and a bias
/// let grads = (Rows::new(vec![3, 0, 3], array![[1.0, 1.0], [5.0, 0.0], [1.0, 2.0]]), array![1.0, 1.0]);
/// Sgd::new(0.5).step(&mut params, &grads)?;
/// assert_eq!(params.0, array![[-2.5, 0.0], [0.0, 0.0], [0.0, 0.0], [-1.0, -1.5], [0.0, 0.0]]);
/// # Ok::<(), gradus::Error>(())
/// ```
/// A struct with `Rows` in it is a gradient tree by `#[derive(Params)] #[params(read_only)]`.
#[derive(Debug, Clone, PartialEq)]
#[doc(alias = "sparse")]
#[doc(alias = "SparseAdam")]
#[doc(alias = "IndexedSlices")]
pub struct Rows<A, D: Dimension = Ix2> {
    /// The indices of the rows along the parameter's first axis, in any order, also several times.
    pub rows: Vec<usize>,
    /// One row for each index.
    pub values: Array<A, D>,
}

impl<A, D: Dimension> Rows<A, D> {
    /// The gradient `values` of these rows. A step returns an error if their numbers differ.
    pub const fn new(rows: Vec<usize>, values: Array<A, D>) -> Self {
        Self { rows, values }
    }
}

impl<A: Element, D: RemoveAxis> Rows<A, D> {
    /// The same gradient for a parameter of `rows` rows, with zeros in the other rows; `None` if an index is beyond them, or if there are
    /// not as many indices as rows of values.
    pub fn to_dense(&self, rows: usize) -> Option<Array<A, D>> {
        let mut shape = self.values.raw_dim();
        if shape[0] != self.rows.len() || self.rows.iter().any(|row| *row >= rows) {
            return None;
        }
        let values = Values::new(self.values.view());
        let sorted = SortedRows::of(&self.rows, &values, self.values.shape());
        let mut values = sorted.values(&values, self.values.shape()).into_iter();
        shape[0] = rows;
        let mut dense = Array::zeros(shape);
        for row in sorted.rows {
            dense.index_axis_mut(Axis(0), row).iter_mut().zip(&mut values).for_each(|(to, from)| *to = from);
        }
        Some(dense)
    }
}

impl<A: Element, D: Dimension> Params for Rows<A, D> {
    type Elem = A;

    fn visit<'a>(&'a self, visitor: &mut Visitor<'_, 'a, A>) {
        visitor.rows(&self.rows, self.values.view());
    }
}

/// Rows in increasing order, each once.
#[derive(Debug, Clone)]
pub(crate) struct SortedRows<A> {
    pub(crate) rows: Vec<usize>,
    /// For each row the place of its values among those given or, if it is not less than their number, behind them among the sums.
    pub(crate) places: Vec<usize>,
    /// The sums of the rows that occur several times.
    pub(crate) sums: Vec<A>,
}

impl<A: Element> SortedRows<A> {
    /// Sorts rows; `values` has one row for each of them, and `shape`.
    pub(crate) fn of(rows: &[usize], values: &Values<'_, A>, shape: &[usize]) -> Self {
        let mut all: Vec<(usize, usize)> = rows.iter().copied().zip(0..).collect();
        all.sort_unstable(); // by the rows, and of the same row by the places
        let width = shape[1..].iter().product::<usize>();
        let (mut sorted, mut places, mut sums) =
            (Vec::with_capacity(rows.len()), Vec::with_capacity(rows.len()), vec![]);
        let (view, mut sum, mut next) = (values.view(shape), vec![0.0; width], rows.len());
        for same in all.chunk_by(|left, right| left.0 == right.0) {
            sorted.push(same[0].0);
            if let &[(_, place)] = same {
                places.push(place);
                continue;
            }
            sum.fill(-0.0); // which changes nothing that it is added to
            for (_, place) in same {
                let row = view.index_axis(Axis(0), *place);
                sum.iter_mut().zip(row).for_each(|(sum, value)| *sum += value.as_f64());
            }
            sums.extend(sum.iter().map(|sum| A::from_f64(*sum)));
            places.push(next);
            next += 1;
        }
        Self { rows: sorted, places, sums }
    }

    /// The values of all rows one after the other; the arguments are those of [`of`](Self::of).
    pub(crate) fn values(&self, values: &Values<'_, A>, shape: &[usize]) -> Vec<A> {
        let (view, width) = (values.view(shape), shape[1..].iter().product::<usize>());
        let mut all = Vec::with_capacity(self.rows.len() * width);
        for place in &self.places {
            match place.checked_sub(shape[0]) {
                Some(sum) => all.extend_from_slice(&self.sums[sum * width..][..width]),
                None => all.extend(view.index_axis(Axis(0), *place)),
            }
        }
        all
    }
}
