//! A gradient as adaptors describe it: the values are read once, and never copied or written.

mod elements;
mod limits;
pub(crate) mod rows;

use std::borrow::Cow;
use std::sync::Arc;

use ndarray::{Array, ArrayD, Dimension, IxDyn};

use crate::error::Result;
use crate::params::{Element, Order, TensorInfo, Values};
use crate::step::memo::{Described, DescribedSource, SourceId, new_ids};
use elements::{apply, ensure_kept, scale_units};

pub(crate) use elements::{BLOCK, WIDE_BLOCK, is_in_type, read, transform, with_buffer};

/// The gradient of one tensor, with the changes that adaptors made: `clamp(scale · values, −limit, limit)`.
///
/// Adaptors do not write the values. Clipping by norm, averaging and changing the sign set the scale; clipping by value sets the limit. The
/// optimizer applies both when it reads the values.
///
/// A scale that is larger than the largest number of the element type is an error,
/// [`StepError::GradientScale`](crate::error::StepError::GradientScale). A scale that is too small to be a normal number of the type is
/// applied in `f64`, and so is every scale in 16-bit types, because the product may still be representable.
#[derive(Debug)]
pub struct Grad<'a, A> {
    source: Source<'a, A>,
    scale: f64,
    limit: f64,
}

#[derive(Debug)]
enum Source<'a, A> {
    Values(Values<'a, A>, SourceId),
    /// Values of the gradient's own, row by row.
    Owned(Arc<Vec<A>>, SourceId),
    /// Rows that lie among these values in another order.
    Gathered(Arc<Gathered<'a, A>>, SourceId),
    /// Zero throughout.
    #[cfg(feature = "distributed")]
    Zero,
    /// A gradient not yet added to the sum of earlier ones.
    Sum(Box<Grad<'a, A>>, Values<'a, A>, SourceId),
    /// A gradient with a factor for each index of its first axis, or one for all.
    Units(Box<Grad<'a, A>>, Arc<[f64]>),
    /// A gradient of some rows. They have scale and limit: those of the whole are 1 and infinite.
    Rows(Box<Touched<'a, A>>),
    /// A gradient in another element type.
    #[cfg(feature = "half")]
    Widened(Box<dyn Widened<A> + 'a>),
}

/// Where rows lie.
#[derive(Debug)]
struct Gathered<'a, A> {
    values: &'a [A],
    /// For each row its place among the values or, behind them, among the sums.
    places: Vec<usize>,
    sums: Vec<A>,
    width: usize,
}

/// The rows of a tensor that have a gradient, and the gradient of the tensor that consists of them alone.
#[derive(Debug)]
struct Touched<'a, A> {
    /// Increasing indices along the first axis.
    rows: Cow<'a, [usize]>,
    /// The path of the whole tensor, and the shape of these rows.
    info: TensorInfo,
    grad: Grad<'a, A>,
}

/// A gradient of another element type, read in this one.
#[cfg(feature = "half")]
trait Widened<A>: std::fmt::Debug + Send + Sync {
    fn reborrow(&self) -> Box<dyn Widened<A> + '_>;

    fn order(&self) -> Order;

    fn described(&self) -> Described;

    fn ensure_kept(&self, info: &TensorInfo) -> Result<()>;

    fn read(&self, shape: &[usize], order: Order, start: usize, out: &mut [A]);
}

#[cfg(feature = "half")]
impl<A: Element, H: Element> Widened<A> for &Grad<'_, H> {
    fn reborrow(&self) -> Box<dyn Widened<A> + '_> {
        Box::new(*self)
    }

    fn order(&self) -> Order {
        Grad::order(self)
    }

    fn described(&self) -> Described {
        Grad::described(self)
    }

    fn ensure_kept(&self, info: &TensorInfo) -> Result<()> {
        ensure_kept::<A>(self.scale, self.limit, info)?;
        self.source.ensure_kept(info)
    }

    fn read(&self, shape: &[usize], order: Order, start: usize, out: &mut [A]) {
        self.read_as(shape, order, start, out);
    }
}

impl<'a, A> From<Source<'a, A>> for Grad<'a, A> {
    fn from(source: Source<'a, A>) -> Self {
        Self { source, scale: 1.0, limit: f64::INFINITY }
    }
}

impl<A: Element> Source<'_, A> {
    fn ensure_kept(&self, info: &TensorInfo) -> Result<()> {
        match self {
            Self::Values(..) | Self::Owned(..) | Self::Gathered(..) => Ok(()),
            #[cfg(feature = "distributed")]
            Self::Zero => Ok(()),
            Self::Sum(grad, ..) | Self::Units(grad, _) => grad.ensure_kept(info),
            Self::Rows(touched) => touched.grad.ensure_kept(info),
            #[cfg(feature = "half")]
            Self::Widened(grad) => grad.ensure_kept(info),
        }
    }
}

impl<'a, A: Element> Grad<'a, A> {
    /// Creates a gradient with these values.
    pub fn new(values: Values<'a, A>) -> Self {
        Self::of(values, new_ids(1))
    }

    /// Values that stand for themselves under this number.
    pub(crate) fn of(values: Values<'a, A>, id: SourceId) -> Self {
        Source::Values(values, id).into()
    }

    /// Creates a gradient from an array that has the tensor's shape. Use it in adaptors that compute new gradients instead of scaling the
    /// user's.
    ///
    /// Reading the gradient panics if the array has fewer elements than the tensor.
    pub fn from_array<D: Dimension>(array: Array<A, D>) -> Self {
        Self::owned(array.iter().copied().collect(), new_ids(1))
    }

    /// Values of its own, row by row, that stand for themselves under this number.
    pub(crate) fn owned(values: Vec<A>, id: SourceId) -> Self {
        Source::Owned(Arc::new(values), id).into()
    }

    /// A gradient of zeros, whatever the shape: in the place of one that is not known yet.
    #[cfg(feature = "distributed")]
    pub(crate) fn zero() -> Self {
        Source::Zero.into()
    }

    /// The sum of this gradient and `sum`. The addition is done when the gradient is read.
    #[must_use]
    pub fn plus(self, sum: Values<'a, A>) -> Self {
        self.plus_known(sum, new_ids(1))
    }

    /// [`plus`](Self::plus) for a sum that stands for itself under this number.
    pub(crate) fn plus_known(self, sum: Values<'a, A>, id: SourceId) -> Self {
        Source::Sum(Box::new(self), sum, id).into()
    }

    /// This gradient, with each slice along its first axis multiplied by its own factor. A single factor applies to the whole gradient.
    ///
    /// Reading the gradient panics if there are fewer factors than slices.
    #[must_use]
    pub fn scale_units(mut self, factors: impl Into<Arc<[f64]>>) -> Self {
        let factors = factors.into();
        if let Source::Rows(touched) = &mut self.source {
            let of_rows = match &*factors {
                [_] => factors,
                factors => touched.rows.iter().map(|row| factors[*row]).collect(),
            };
            touched.grad.replace_with(|grad| grad.scale_units(of_rows));
            return self;
        }
        Source::Units(Box::new(self), factors).into()
    }

    /// Changes the gradient by methods that take it.
    pub(crate) fn replace_with(&mut self, change: impl FnOnce(Self) -> Self) {
        let nothing = Source::Values(Values::Contiguous(&[], Order::C), 0).into();
        *self = change(std::mem::replace(self, nothing));
    }

    /// The same gradient, borrowed from this one.
    pub(crate) fn reborrow(&self) -> Grad<'_, A> {
        let source = match &self.source {
            Source::Values(values, id) => Source::Values(values.reborrow(), *id),
            Source::Owned(values, id) => Source::Owned(Arc::clone(values), *id),
            Source::Gathered(rows, id) => Source::Gathered(Arc::clone(rows), *id),
            #[cfg(feature = "distributed")]
            Source::Zero => Source::Zero,
            Source::Sum(grad, sum, id) => Source::Sum(Box::new(grad.reborrow()), sum.reborrow(), *id),
            Source::Units(grad, factors) => Source::Units(Box::new(grad.reborrow()), Arc::clone(factors)),
            Source::Rows(touched) => Source::Rows(Box::new(touched.reborrow(Grad::reborrow))),
            #[cfg(feature = "half")]
            Source::Widened(grad) => Source::Widened(grad.reborrow()),
        };
        Grad { source, scale: self.scale, limit: self.limit }
    }

    /// This gradient in another element type; scale and limit are applied in that.
    #[cfg(feature = "half")]
    pub(crate) fn widened<W: Element>(&self) -> Grad<'_, W> {
        if let Source::Rows(touched) = &self.source {
            return Source::Rows(Box::new(touched.reborrow(Grad::widened))).into();
        }
        Source::Widened(Box::new(self)).into()
    }

    /// What the gradient is, without the values.
    pub(crate) fn described(&self) -> Described {
        let source = match &self.source {
            Source::Values(_, id) | Source::Owned(_, id) | Source::Gathered(.., id) => DescribedSource::Values(*id),
            #[cfg(feature = "distributed")]
            Source::Zero => DescribedSource::Zero,
            Source::Sum(grad, _, id) => DescribedSource::Sum(Box::new(grad.described()), *id),
            Source::Units(grad, factors) => {
                let factors = factors.iter().map(|factor| factor.to_bits()).collect();
                DescribedSource::Units(Box::new(grad.described()), factors)
            }
            Source::Rows(touched) => DescribedSource::Rows(Box::new(touched.grad.described())),
            #[cfg(feature = "half")]
            Source::Widened(grad) => DescribedSource::Widened(Box::new(grad.described())),
        };
        Described { source, scale: self.scale.to_bits(), limit: self.limit.to_bits() }
    }

    /// Multiplies the gradient by a factor.
    pub fn scale_by(&mut self, factor: f64) {
        if let Source::Rows(touched) = &mut self.source {
            return touched.grad.scale_by(factor);
        }
        self.scale *= factor;
        if self.limit.is_finite() {
            self.limit *= factor.abs();
        }
    }

    /// Limits every element to the range −`limit` to `limit`.
    pub fn limit_to(&mut self, limit: f64) {
        if let Source::Rows(touched) = &mut self.source {
            return touched.grad.limit_to(limit);
        }
        self.limit = self.limit.min(limit);
    }

    /// The factor to apply to the values of [`read_raw`](Self::read_raw). It is 1 if these values are already scaled.
    pub fn scale(&self) -> f64 {
        if self.is_in_type() { self.scale } else { 1.0 }
    }

    /// The limit to apply to the values of [`read_raw`](Self::read_raw), after the scale. It is infinite if there is no limit, or if these
    /// values are already limited.
    pub fn limit(&self) -> f64 {
        if self.is_in_type() { self.limit } else { f64::INFINITY }
    }

    /// Scale and limit, in whatever type they are applied.
    pub(crate) fn scale_and_limit(&self) -> (f64, f64) {
        (self.scale, self.limit)
    }

    /// Whether the scale is applied as a number of the type.
    fn is_in_type(&self) -> bool {
        is_in_type::<A>(self.scale)
    }

    /// Returns an error unless the gradient can be read with its scales and limits in the element type.
    pub(crate) fn ensure_kept(&self, info: &TensorInfo) -> Result<()> {
        ensure_kept::<A>(self.scale, self.limit, info)?;
        self.source.ensure_kept(info)
    }

    /// Whether scale and limit are all that the adaptors have made of the user's values.
    pub(crate) fn is_affine(&self) -> bool {
        matches!(self.source, Source::Values(..))
    }

    /// The order in which the gradient is read fastest.
    pub(crate) fn order(&self) -> Order {
        match &self.source {
            Source::Values(values, _) => values.order(),
            Source::Owned(..) | Source::Gathered(..) => Order::C,
            #[cfg(feature = "distributed")]
            Source::Zero => Order::C,
            Source::Sum(grad, ..) | Source::Units(grad, _) => grad.order(),
            Source::Rows(touched) => touched.grad.order(),
            #[cfg(feature = "half")]
            Source::Widened(grad) => grad.order(),
        }
    }

    /// The values before [scale](Self::scale) and [limit](Self::limit), if they are contiguous in this order.
    pub fn as_slice(&self, order: Order) -> Option<&[A]> {
        self.source_as_slice(order).filter(|_| self.is_in_type())
    }

    /// Values of [`as_slice`](Self::as_slice) in row-major order, also if only these lie one after the other.
    pub(crate) fn piece(&self, start: usize, length: usize) -> Option<&[A]> {
        match &self.source {
            Source::Gathered(rows, _) => rows.piece(start, length).filter(|_| self.is_in_type()),
            _ => self.as_slice(Order::C).and_then(|values| values.get(start..start + length)),
        }
    }

    /// The values before anything is applied as one slice in this order, if they lie so.
    pub(crate) fn source_as_slice(&self, order: Order) -> Option<&[A]> {
        match &self.source {
            Source::Values(values, _) => values.as_slice(order),
            Source::Owned(values, _) => (order == Order::C).then_some(&values[..]),
            _ => None,
        }
    }

    /// Reads `out.len()` values before [scale](Self::scale) and [limit](Self::limit), starting with element `start` of the tensor in this
    /// order. `shape` is the tensor's shape.
    ///
    /// # Panics
    /// If the tensor ends before `out` is full.
    pub fn read_raw(&self, shape: &[usize], order: Order, start: usize, out: &mut [A]) {
        self.read_source(shape, order, start, out);
        if !self.is_in_type() {
            apply(out, self.scale, self.limit);
        }
    }

    /// [`read`](Self::read) in another type, in which scale and factors are applied.
    #[cfg(feature = "half")]
    fn read_as<W: Element>(&self, shape: &[usize], order: Order, start: usize, out: &mut [W]) {
        match &self.source {
            Source::Units(grad, factors) => {
                grad.read_as(shape, order, start, out);
                scale_units(factors, shape, order, start, out);
                apply(out, self.scale, self.limit);
            }
            _ => with_buffer(out.len(), |buffer| {
                for (block, out) in out.chunks_mut(WIDE_BLOCK).enumerate() {
                    let narrow = &mut buffer[..out.len()];
                    self.read_source(shape, order, start + block * WIDE_BLOCK, narrow);
                    out.iter_mut().zip(narrow).for_each(|(out, narrow)| *out = W::from_f64(narrow.as_f64()));
                    apply(out, self.scale, self.limit);
                }
            }),
        }
    }

    /// Reads the values before anything is applied.
    pub(crate) fn read_source(&self, shape: &[usize], order: Order, start: usize, out: &mut [A]) {
        match &self.source {
            Source::Values(values, _) => read(values, shape, order, start, out),
            Source::Owned(values, _) => read(&Values::Contiguous(values, Order::C), shape, order, start, out),
            Source::Gathered(rows, _) => rows.read(shape, order, start, out),
            #[cfg(feature = "distributed")]
            Source::Zero => out.fill(A::zero()),
            Source::Sum(grad, sum, _) => {
                grad.read(shape, order, start, out);
                with_buffer(out.len(), |buffer| {
                    for (start, out) in (start..).step_by(WIDE_BLOCK).zip(out.chunks_mut(WIDE_BLOCK)) {
                        let values = &mut buffer[..out.len()];
                        read(sum, shape, order, start, values);
                        out.iter_mut().zip(values).for_each(|(out, sum)| *out += *sum);
                    }
                });
            }
            #[cfg(feature = "half")]
            Source::Widened(grad) => grad.read(shape, order, start, out),
            Source::Rows(touched) => touched.read(shape, order, start, out),
            Source::Units(grad, factors) => {
                grad.read(shape, order, start, out);
                scale_units(factors, shape, order, start, out);
            }
        }
    }

    /// Reads values as [`read_raw`](Self::read_raw) does, and applies scale and limit.
    ///
    /// # Panics
    /// If the tensor ends before `out` is full.
    pub fn read(&self, shape: &[usize], order: Order, start: usize, out: &mut [A]) {
        self.read_source(shape, order, start, out);
        apply(out, self.scale, self.limit);
    }

    /// Adds the gradient to sums in this order.
    pub(crate) fn add_to(&self, shape: &[usize], order: Order, sums: &mut [A]) {
        if let Some(values) = self.as_slice(order) {
            let (scale, limit) = (A::from_f64(self.scale), A::from_f64(self.limit)); // in the type, or there were no slice
            return sums.iter_mut().zip(values).for_each(|(sum, grad)| *sum += transform(*grad, scale, limit));
        }
        with_buffer(sums.len(), |buffer| {
            for (block, sums) in sums.chunks_mut(WIDE_BLOCK).enumerate() {
                let grads = &mut buffer[..sums.len()];
                self.read(shape, order, block * WIDE_BLOCK, grads);
                sums.iter_mut().zip(grads).for_each(|(sum, grad)| *sum += *grad);
            }
        });
    }

    /// The gradient itself as a slice in this order, if it lies so and is neither scaled nor limited.
    pub(crate) fn as_final_slice(&self, order: Order) -> Option<&[A]> {
        self.as_slice(order).filter(|_| self.scale == 1.0 && self.limit == f64::INFINITY)
    }

    /// The gradient as a new array, with scale and limit applied.
    pub fn to_array(&self, shape: &[usize]) -> ArrayD<A> {
        if let Some(values) = self.as_final_slice(Order::C)
            && let Ok(array) = ArrayD::from_shape_vec(shape, values.to_vec())
        {
            return array;
        }
        let mut array = ArrayD::zeros(IxDyn(shape));
        if let Some(out) = array.as_slice_mut() {
            self.read(shape, Order::C, 0, out);
        }
        array
    }
}
#[cfg(test)]
mod tests {
    use super::*;
    use crate::Tensor;

    /// A step of small tensors takes as long as these are copied.
    #[test]
    #[cfg(target_pointer_width = "64")]
    fn what_a_step_copies_is_small() {
        assert_eq!(size_of::<Values<'_, f32>>(), 24);
        assert_eq!(size_of::<Grad<'_, f32>>(), 56);
        assert_eq!(size_of::<Tensor<'_, f32>>(), 192);
    }
}
