//! Compression by sending only the largest elements.

use super::Compression;
use crate::distributed::{Collective, Place};
use crate::error::{ArgumentError, Error, Result};
use crate::params::Element;

/// Sends the largest elements of every tensor, for
/// [`DataParallel::compress`](crate::distributed::DataParallel::compress).
///
/// # Update rule
/// ```text
/// C(v) = v where |v| is one of the k largest of its tensor, else 0          k = ⌈ratio · elements⌉
/// mean = (C(v₀) + C(v₁) + …)/n, summed in the order of the ranks
/// ```
/// If magnitudes are equal, the first in row-major order is sent; NaN counts as the largest. Each tensor has its own k, so tensors with
/// small gradients are sent too, and every rank sends the same number of bytes.
///
/// # Hyper-parameters
/// | name | default | range | meaning |
/// |---|---|---|---|
/// | `ratio` | – | 0 < ratio ≤ 1 | fraction of the elements that is sent |
///
/// # State
/// Only the residuals. An element may be sent only after 1/ratio steps or more. At the start of a run, a learning-rate warm-up and
/// clipping inside help.
///
/// # Conventions
/// Deep Gradient Compression without its momentum correction: momentum belongs to the optimizer inside.
///
/// For each of the k elements a rank sends 8 bytes in f32 (4 for the index, 4 for the value), and 12 in f64.
///
/// # Errors
/// [`ArgumentError::Range`].
///
/// # Example
/// ```
/// use gradus::distributed::{Alone, compress::TopK};
/// use gradus::prelude::*;
/// use ndarray::array;
///
/// let mut opt = Sgd::new(1.0).data_parallel(Alone).compress(TopK::new(0.25));
/// let mut w = array![0.0, 0.0, 0.0, 0.0];
/// opt.step(&mut w, &array![1.0, -4.0, 2.0, 3.0])?;
/// assert_eq!(w, array![0.0, 4.0, 0.0, 0.0]);
/// assert_eq!(opt.traffic().last_step, 12);
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// # References
/// Y. Lin, S. Han, H. Mao, Y. Wang and W. J. Dally, *Deep Gradient Compression* (2017), [arXiv:1712.01887](https://arxiv.org/abs/1712.01887), section 3; S. U. Stich,
/// J.-B. Cordonnier and M. Jaggi, *Sparsified SGD with Memory* (2018), [arXiv:1809.07599](https://arxiv.org/abs/1809.07599).
#[derive(Debug, Clone)]
pub struct TopK<A> {
    ratio: f64,
    candidates: Vec<u32>,
    /// The indices of what is sent, in the tensors' order, and their bytes.
    chosen: Vec<u32>,
    indices: Vec<u8>,
    all_indices: Vec<u8>,
    /// What is sent.
    own: Vec<A>,
    all: Vec<A>,
}

/// Bytes of an index.
const INDEX: usize = size_of::<u32>();

/// A tensor of more elements than an index can tell is sent in parts.
const PART: usize = u32::MAX as usize;

impl<A: Element> TopK<A> {
    /// Sends this fraction of the elements of every tensor, and at least one element.
    pub fn new(ratio: f64) -> Self {
        let (candidates, chosen, indices, all_indices) = Default::default();
        Self { ratio, candidates, chosen, indices, all_indices, own: Vec::new(), all: Vec::new() }
    }

    /// Chooses the indices of the largest elements, in ascending order.
    fn choose(&mut self, values: &[A], count: usize) {
        self.candidates.clear();
        self.candidates.extend(0..values.len() as u32);
        let magnitude = |index: &u32| values[*index as usize].abs().as_f64();
        let descending = |a: &u32, b: &u32| magnitude(b).total_cmp(&magnitude(a)).then(a.cmp(b));
        if count < values.len() {
            self.candidates.select_nth_unstable_by(count - 1, descending);
        }
        let largest = &mut self.candidates[..count];
        largest.sort_unstable();
        self.chosen.extend_from_slice(largest);
    }
}

/// Where the parts of all tensors begin, how long they are and how many elements of them are sent.
fn parts<'p>(places: &'p [Place<'_>], ratio: f64) -> impl Iterator<Item = (usize, usize, usize)> + use<'p> {
    places.iter().flat_map(move |place| {
        let range = place.range();
        range.clone().step_by(PART).map(move |start| {
            let length = PART.min(range.end - start);
            (start, length, ((ratio * length as f64).ceil() as usize).clamp(1, length))
        })
    })
}

impl<A: Element> Compression<A> for TopK<A> {
    fn name(&self) -> &'static str {
        "top_k"
    }

    fn describe(&self) -> String {
        format!("top_k of {}", self.ratio)
    }

    fn check(&self) -> Result<()> {
        if self.ratio > 0.0 && self.ratio <= 1.0 {
            return Ok(());
        }
        let accepted = "a number in 0 < ratio ≤ 1".into();
        Err(Error::Argument(ArgumentError::Range { argument: "ratio", value: self.ratio, accepted }))
    }

    fn reduce(
        &mut self,
        group: &dyn Collective<A>,
        places: &[Place<'_>],
        values: &mut [A],
        rest: &mut [A],
    ) -> Result<u64> {
        self.chosen.clear();
        self.own.clear();
        rest.copy_from_slice(values);
        for (start, length, count) in parts(places, self.ratio) {
            let part = &values[start..start + length];
            let from = self.chosen.len();
            self.choose(part, count);
            for index in &self.chosen[from..] {
                self.own.push(part[*index as usize]);
                rest[start + *index as usize] = A::zero();
            }
        }
        self.indices.clear();
        self.indices.extend(self.chosen.iter().flat_map(|index| index.to_le_bytes()));
        self.all_indices.resize(self.indices.len() * group.size(), 0);
        self.all.resize(self.own.len() * group.size(), A::zero());
        group.all_gather_bytes(&self.indices, &mut self.all_indices)?;
        group.all_gather(&self.own, &mut self.all)?;

        values.fill(A::zero());
        let (mut all, mut all_indices) = (self.all.iter(), self.all_indices.chunks_exact(INDEX));
        for _ in 0..group.size() {
            for (start, _, count) in parts(places, self.ratio) {
                for (index, sent) in all_indices.by_ref().take(count).zip(all.by_ref()) {
                    let index = u32::from_le_bytes([index[0], index[1], index[2], index[3]]);
                    values[start + index as usize] += *sent;
                }
            }
        }
        let size = A::from_f64(group.size() as f64);
        values.iter_mut().for_each(|value| *value /= size);
        Ok((size_of_val(&self.own[..]) + self.indices.len()) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_equals_the_first_and_nan_before_all() {
        let chosen = |values: &[f64], count: usize| {
            let mut top_k = TopK::<f64>::new(1.0);
            top_k.choose(values, count);
            top_k.chosen
        };
        assert_eq!(chosen(&[1.0, -2.0, 2.0, 2.0], 2), [1, 2]);
        assert_eq!(chosen(&[1.0, f64::NAN, 3.0, f64::INFINITY], 1), [1]);
        assert_eq!(chosen(&[-0.0, 0.0], 1), [0]);
        assert_eq!(chosen(&[1.0, 3.0, 2.0], 3), [0, 1, 2]);
    }
}
