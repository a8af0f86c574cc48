//! What is computed from a parameter's new values in the sweep that writes them.

use ndarray::{ArrayViewMut, ArrayViewMutD, Dimension};
use pulp::Arch;

use crate::params::{Order, ValuesMut, blocks};
use crate::scalar::Scalar;

/// Something that follows a parameter, element by element.
///
/// The optimizer brings every block up to date right after the parameter's, while the block is in the cache: no second
/// pass over the parameters.
#[derive(Debug)]
pub struct Follower<'a, A> {
    values: ValuesMut<'a, A>,
    weight: A,
}

impl<'a, A: Scalar> Follower<'a, A> {
    /// A running average: `average ← average + weight·(param − average)`.
    ///
    /// `average` has the parameter's shape, in any layout; the parameter's own is the fastest.
    pub fn average<D: Dimension>(average: ArrayViewMut<'a, A, D>, weight: f64) -> Self {
        Self { values: ValuesMut::new(average), weight: A::from_f64(weight) }
    }

    /// The follower with its elements in this order.
    pub(crate) fn in_order(&mut self, shape: &[usize], order: Order) -> Following<'_, A> {
        let weight = self.weight;
        match self.values.in_order(shape, order) {
            Ok(slice) => Following { target: Target::Slice(slice), weight },
            Err(view) => Following { target: Target::View(Box::new(view)), weight },
        }
    }
}

/// A follower, or a part of one, in the order of a sweep.
pub(crate) struct Following<'a, A> {
    target: Target<'a, A>,
    weight: A,
}

enum Target<'a, A> {
    Slice(&'a mut [A]),
    View(Box<ArrayViewMutD<'a, A>>),
}

impl<A: Scalar> Following<'_, A> {
    /// Follows to the new values of the elements from `start`.
    pub(crate) fn follow(&mut self, arch: Arch, start: usize, params: &[A]) {
        let weight = self.weight;
        let average = move |average: &mut A, param: &A| *average = *average + weight * (*param - *average);
        match &mut self.target {
            Target::Slice(values) => {
                let values = &mut values[start..start + params.len()];
                arch.dispatch(
                    #[inline(always)]
                    move || values.iter_mut().zip(params).for_each(|(value, param)| average(value, param)),
                );
            }
            Target::View(view) => blocks::update(view, start, params, average),
        }
    }

    /// Whether the follower can be divided anywhere.
    pub(crate) fn is_divisible(&self) -> bool {
        matches!(self.target, Target::Slice(_))
    }

    /// The first `at` elements and the others, if [divisible](Self::is_divisible); else both nothing.
    pub(crate) fn split_at(self, at: usize) -> (Self, Self) {
        let weight = self.weight;
        let (left, right) = match self.target {
            Target::Slice(values) => values.split_at_mut(at),
            Target::View(_) => Default::default(),
        };
        (Self { target: Target::Slice(left), weight }, Self { target: Target::Slice(right), weight })
    }
}
