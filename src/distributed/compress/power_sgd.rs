//! Compression by low-rank matrices.

use ndarray::linalg::general_mat_mul;
use ndarray::{Array2, ArrayView2, ArrayViewMut2};

use super::Compression;
use super::low_rank::low_rank;
use crate::distributed::packed::room;
use crate::distributed::{Collective, Place};
use crate::error::{Result, ensure_count};
use crate::kernel::orthonormal::{orthonormalise, random};
use crate::params::{Element, Layout, TensorInfo};
use crate::rule::as_matrix;
use crate::state::{Commit, StateReader, StateWriter};

/// Sends a low-rank approximation of every gradient, computed by one step of subspace iteration, for
/// [`DataParallel::compress`](crate::distributed::DataParallel::compress).
///
/// # Update rule
/// For each tensor of at least two axes, as an m × n matrix M of its first axis and the rest; Q is n × r:
/// ```text
/// P ← the sum over ranks of M·Q          in one all-reduce for all tensors
/// P ← P with orthonormal columns
/// Q ← the mean over ranks of Mᵀ·P        in another
/// mean = P·Qᵀ,   C(M) = P·(Mᵀ·P)ᵀ        with this rank's own M
/// Q ← Q with orthonormal columns          for the next step (warm start)
/// ```
/// Vectors, and matrices for which P and Q would not be smaller, are sent uncompressed in the first all-reduce.
///
/// # Hyper-parameters
/// | name | default | range | meaning |
/// |---|---|---|---|
/// | `rank` r | – | ≥ 1 | rank of the approximation; the paper uses 1 to 4 |
/// | `seed` | 0 | any | seed of the first Q; the same on all ranks |
///
/// # State
/// Q, n·r elements per matrix, and the residuals.
///
/// # Conventions
/// Vogels et al.: the residual of a rank is M − C(M). PyTorch's `powerSGD_hook` uses the difference to the mean instead; the sum over
/// all ranks is the same. Columns are orthonormalized by Gram–Schmidt in f64, twice. A column that vanishes is replaced by a fixed other
/// direction, so that a gradient of zero does no lasting harm.
///
/// A rank sends r(m + n) elements per m × n matrix.
///
/// # Errors
/// [`ArgumentError::Zero`](crate::error::ArgumentError::Zero).
///
/// # Example
/// ```
/// use gradus::distributed::{Alone, compress::PowerSgd};
/// use gradus::prelude::*;
/// use ndarray::Array2;
///
/// let mut opt = Sgd::new(1.0).data_parallel(Alone).compress(PowerSgd::new(1));
/// let mut w = Array2::<f64>::zeros((10, 10));
/// opt.step(&mut w, &Array2::ones((10, 10)))?; // of rank 1: nothing is lost
/// assert!(w.iter().all(|w| (w + 1.0).abs() < 1e-12));
/// assert_eq!(opt.traffic().last_step, 8 * (10 + 10));
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// # References
/// T. Vogels, S. P. Karimireddy and M. Jaggi, *PowerSGD: Practical Low-Rank Gradient Compression for Distributed Optimization*
/// (2019), [arXiv:1905.13727](https://arxiv.org/abs/1905.13727), algorithms 1 and 2.
#[derive(Debug, Clone)]
pub struct PowerSgd<A> {
    rank: usize,
    seed: u64,
    /// By the tensors' positions in the layout; none for those that have had no gradient or go as they are.
    bases: Vec<Option<Array2<A>>>,
    /// Those for the next step, with the same positions.
    next: Vec<(usize, Array2<A>)>,
    left: Vec<A>,
    own: Vec<A>,
    right: Vec<A>,
}

impl<A: Element> PowerSgd<A> {
    /// Gradients of this rank.
    pub fn new(rank: usize) -> Self {
        Self {
            rank,
            seed: 0,
            bases: Vec::new(),
            next: Vec::new(),
            left: Vec::new(),
            own: Vec::new(),
            right: Vec::new(),
        }
    }

    /// Sets the seed of the directions that the first step starts from; the default is 0.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Rows and columns of a tensor that is sent as P and Q.
    fn matrix(&self, info: &TensorInfo) -> Option<(usize, usize)> {
        let (rows, columns) = as_matrix(info.shape());
        let pays = rows.saturating_add(columns).saturating_mul(self.rank) < rows.saturating_mul(columns);
        (info.shape().len() > 1 && pays).then_some((rows, columns))
    }

    /// How many elements a tensor has in the first all-reduce, and in the second.
    fn lengths(&self, place: &Place<'_>) -> (usize, usize) {
        match self.matrix(place.info()) {
            Some((rows, columns)) => (rows * self.rank, columns * self.rank),
            None => (place.info().elements(), 0),
        }
    }
}

fn view<A>(values: &[A], shape: (usize, usize)) -> ArrayView2<'_, A> {
    match ArrayView2::from_shape(shape, values) {
        Ok(view) => view,
        Err(_) => unreachable!("{} elements are no matrix of shape {shape:?}", values.len()),
    }
}

fn view_mut<A>(values: &mut [A], shape: (usize, usize)) -> ArrayViewMut2<'_, A> {
    let elements = values.len();
    match ArrayViewMut2::from_shape(shape, values) {
        Ok(view) => view,
        Err(_) => unreachable!("{elements} elements are no matrix of shape {shape:?}"),
    }
}

impl<A: Element> Compression<A> for PowerSgd<A> {
    fn name(&self) -> &'static str {
        "power_sgd"
    }

    fn describe(&self) -> String {
        format!("power_sgd of rank {} from seed {}", self.rank, self.seed)
    }

    fn check(&self) -> Result<()> {
        ensure_count("rank", self.rank as u64)
    }

    fn reduce(
        &mut self,
        group: &dyn Collective<A>,
        places: &[Place<'_>],
        values: &mut [A],
        rest: &mut [A],
    ) -> Result<u64> {
        let (lefts, rights) = places.iter().fold((0, 0), |(left, right), place| {
            let lengths = self.lengths(place);
            (left + lengths.0, right + lengths.1)
        });
        let mut left = std::mem::take(&mut self.left);
        let mut right = std::mem::take(&mut self.right);
        let mut own = std::mem::take(&mut self.own);
        let result = self.exchange(
            group,
            places,
            (values, rest),
            room(&mut left, lefts),
            (room(&mut own, rights), room(&mut right, rights)),
        );
        (self.left, self.right, self.own) = (left, right, own);
        result.map(|()| ((lefts + rights) * size_of::<A>()) as u64)
    }

    fn commit(&mut self) {
        for (index, basis) in self.next.drain(..) {
            if self.bases.len() <= index {
                self.bases.resize(index + 1, None);
            }
            self.bases[index] = Some(basis);
        }
    }

    fn write_state(&self, state: &mut StateWriter<'_>, layout: &Layout) {
        let bases = layout.tensors().iter().zip(&self.bases).filter_map(|(info, basis)| Some((info, basis.as_ref()?)));
        state.value("bases", self.bases.iter().flatten().count());
        bases.for_each(|(info, basis)| state.matrix("basis", info.path(), basis));
    }

    fn read_state<'s>(&'s mut self, state: &StateReader<'_>) -> Result<Commit<'s>> {
        let basis = |info: &TensorInfo| match self.matrix(info) {
            Some((_, columns)) => state.matrix("basis", info.path(), (columns, self.rank)),
            None => Ok(None),
        };
        let read = state.tensors().iter().map(basis).collect::<Result<Vec<Option<Array2<A>>>>>()?;
        let count = read.iter().flatten().count();
        // Older states before a first step are without.
        if state.layout().is_some() || state.has("bases") {
            state.value_where("bases", "the number of bases", |number: &usize| *number == count)?;
        }
        Ok(Commit::new(move || self.bases = read))
    }
}

impl<A: Element> PowerSgd<A> {
    /// The two all-reduces and what is between them.
    fn exchange(
        &mut self,
        group: &dyn Collective<A>,
        places: &[Place<'_>],
        (values, rest): (&mut [A], &mut [A]),
        left: &mut [A],
        (own, right): (&mut [A], &mut [A]),
    ) -> Result<()> {
        let (rank, size) = (self.rank, A::from_f64(group.size() as f64));
        // P, or the tensor as it is.
        let mut at = 0;
        for place in places {
            let part = &mut left[at..at + self.lengths(place).0];
            at += part.len();
            let Some((rows, columns)) = self.matrix(place.info()) else {
                part.copy_from_slice(&values[place.range()]);
                continue;
            };
            let fresh;
            let basis = match self.bases.get(place.index()).and_then(Option::as_ref) {
                Some(basis) => basis,
                None => {
                    fresh = self.first_basis(place.index(), columns);
                    &fresh
                }
            };
            let matrix = view(&values[place.range()], (rows, columns));
            general_mat_mul(A::one(), &matrix, basis, A::zero(), &mut view_mut(part, (rows, rank)));
        }
        group.all_reduce(left)?;

        // Q of this rank.
        let (mut at, mut to) = (0, 0);
        for place in places {
            let (part, length) = self.lengths(place);
            let part = &mut left[at..at + part];
            at += part.len();
            let Some((rows, columns)) = self.matrix(place.info()) else { continue };
            orthonormalise(view_mut(part, (rows, rank)), self.seed);
            let (matrix, part) = (view(&values[place.range()], (rows, columns)), view(part, (rows, rank)));
            let mut product = view_mut(&mut own[to..to + length], (columns, rank));
            general_mat_mul(A::one(), &matrix.t(), &part, A::zero(), &mut product);
            to += length;
        }
        right.copy_from_slice(own);
        group.all_reduce(right)?;
        right.iter_mut().for_each(|value| *value /= size);

        self.next.clear();
        let (mut at, mut from) = (0, 0);
        for place in places {
            let (part, length) = self.lengths(place);
            let part = &left[at..at + part];
            at += part.len();
            let (values, rest) = (&mut values[place.range()], &mut rest[place.range()]);
            let Some((rows, columns)) = self.matrix(place.info()) else {
                values.iter_mut().zip(part).for_each(|(value, sum)| *value = *sum / size);
                rest.fill(A::zero());
                continue;
            };
            let part = view(part, (rows, rank));
            let range = from..from + length;
            from = range.end;
            low_rank(part, view(&own[range.clone()], (columns, rank)), rest);
            rest.iter_mut().zip(&*values).for_each(|(rest, value)| *rest = *value - *rest);
            let mean = view(&right[range], (columns, rank));
            low_rank(part, mean, values);
            if mean.iter().all(|value| value.is_finite()) {
                let mut basis = mean.to_owned();
                orthonormalise(basis.view_mut(), self.seed);
                self.next.push((place.index(), basis));
            }
        }
        Ok(())
    }

    /// The directions that a tensor begins with.
    fn first_basis(&self, index: usize, columns: usize) -> Array2<A> {
        let stream = self.seed.wrapping_add(index as u64 + 1);
        let number = |(row, column): (usize, usize)| A::from_f64(random(stream, (row * self.rank + column) as u64));
        let mut basis = Array2::from_shape_fn((columns, self.rank), number);
        orthonormalise(basis.view_mut(), self.seed);
        basis
    }
}
