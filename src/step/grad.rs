//! A gradient as the adaptors describe it: read once, by whoever needs it, never copied or written.

use std::mem::take;
use std::sync::Arc;

use ndarray::{ArrayD, IxDyn};

use crate::error::{Error, Result, StepError};
use crate::kernel::blocks;
use crate::params::{Element, Order, TensorInfo, Values};

/// Sweeps and reductions go in blocks of at most this many elements.
pub(crate) const BLOCK: usize = 2048;

/// What lies in another order is read in blocks of this many elements: of a matrix's columns, several rows at once.
pub(crate) const WIDE_BLOCK: usize = 8 * BLOCK;

/// A gradient with what adaptors have made of it: `clamp(scale · values, −limit, limit)`.
///
/// Clipping by norm, averaging and sign changes set the scale, clipping by value the limit; the values stay the
/// user's own, and are multiplied as they are read. The optimizer of a rule refuses a scale beyond the type's largest number:
/// [`StepError::GradientScale`].
///
/// A scale that is no normal number of the type is applied in `f64` when the values are read, and so is every scale in 16 bits,
/// because the product may be a number of the type even if the scale is not.
#[derive(Debug)]
pub struct Grad<'a, A> {
    source: Source<'a, A>,
    scale: f64,
    limit: f64,
}

#[derive(Debug)]
enum Source<'a, A> {
    Values(Values<'a, A>),
    /// Zero throughout.
    #[cfg(feature = "distributed")]
    Zero,
    /// A gradient not yet added to the sum of earlier ones.
    Sum(Box<Grad<'a, A>>, Values<'a, A>),
    /// A gradient with a factor for each index of its first axis, or one for all.
    Units(Box<Grad<'a, A>>, Arc<[f64]>),
    /// A gradient in another element type.
    #[cfg(feature = "half")]
    Widened(Box<dyn Widened<A> + 'a>),
}

/// A gradient of another element type, read in this one.
#[cfg(feature = "half")]
trait Widened<A>: std::fmt::Debug + Send + Sync {
    fn reborrow(&self) -> Box<dyn Widened<A> + '_>;

    fn order(&self) -> Order;

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

    fn ensure_kept(&self, info: &TensorInfo) -> Result<()> {
        ensure_kept::<A>(self.scale, self.limit, info)?;
        self.source.ensure_kept(info)
    }

    fn read(&self, shape: &[usize], order: Order, start: usize, out: &mut [A]) {
        self.read_as(shape, order, start, out);
    }
}

impl<A: Element> Source<'_, A> {
    fn ensure_kept(&self, info: &TensorInfo) -> Result<()> {
        match self {
            Self::Values(_) => Ok(()),
            #[cfg(feature = "distributed")]
            Self::Zero => Ok(()),
            Self::Sum(grad, _) | Self::Units(grad, _) => grad.ensure_kept(info),
            #[cfg(feature = "half")]
            Self::Widened(grad) => grad.ensure_kept(info),
        }
    }
}

/// Returns an error if the scale is beyond the largest number of `A`, or if a limit that is not 0 rounds to 0 in it. A smaller scale
/// is applied in `f64`, and a limit that becomes infinite limits nothing, as there is no larger number.
fn ensure_kept<A: Element>(scale: f64, limit: f64, info: &TensorInfo) -> Result<()> {
    if scale == 1.0 && limit == f64::INFINITY {
        return Ok(());
    }
    let refused = |quantity, value| {
        Err(Error::Step(StepError::GradientScale { path: info.path().into(), quantity, value, dtype: A::DTYPE }))
    };
    // Halves are scaled and limited as wider numbers.
    let is_wide = size_of::<A>() >= size_of::<f32>();
    if !(if is_wide { A::from_f64(scale).as_f64() } else { scale }).is_finite() {
        return refused("scale", scale);
    }
    if limit.is_nan() || (is_wide && limit != 0.0 && A::from_f64(limit) == A::zero()) {
        return refused("limit", limit);
    }
    Ok(())
}

impl<'a, A: Element> Grad<'a, A> {
    /// The gradient as the user gave it.
    pub fn new(values: Values<'a, A>) -> Self {
        Self { source: Source::Values(values), scale: 1.0, limit: f64::INFINITY }
    }

    /// A gradient of zeros, whatever the shape: in the place of one that is not known yet.
    #[cfg(feature = "distributed")]
    pub(crate) fn zero() -> Self {
        Self { source: Source::Zero, scale: 1.0, limit: f64::INFINITY }
    }

    /// The sum of this gradient and `sum`, added when it is read.
    pub fn plus(self, sum: Values<'a, A>) -> Self {
        Self { source: Source::Sum(Box::new(self), sum), scale: 1.0, limit: f64::INFINITY }
    }

    /// This gradient with one factor for each index of its first axis, or a single one for the whole.
    ///
    /// Reading the gradient panics if there are fewer factors.
    pub fn scale_units(self, factors: impl Into<Arc<[f64]>>) -> Self {
        Self { source: Source::Units(Box::new(self), factors.into()), scale: 1.0, limit: f64::INFINITY }
    }

    /// The same gradient, borrowed from this one.
    pub(crate) fn reborrow(&self) -> Grad<'_, A> {
        let source = match &self.source {
            Source::Values(values) => Source::Values(values.reborrow()),
            #[cfg(feature = "distributed")]
            Source::Zero => Source::Zero,
            Source::Sum(grad, sum) => Source::Sum(Box::new(grad.reborrow()), sum.reborrow()),
            Source::Units(grad, factors) => Source::Units(Box::new(grad.reborrow()), Arc::clone(factors)),
            #[cfg(feature = "half")]
            Source::Widened(grad) => Source::Widened(grad.reborrow()),
        };
        Grad { source, scale: self.scale, limit: self.limit }
    }

    /// This gradient in another element type; scale and limit are applied in that.
    #[cfg(feature = "half")]
    pub(crate) fn widened<W: Element>(&self) -> Grad<'_, W> {
        Grad { source: Source::Widened(Box::new(self)), scale: 1.0, limit: f64::INFINITY }
    }

    /// Multiplies the gradient by a factor.
    pub fn scale_by(&mut self, factor: f64) {
        self.scale *= factor;
        if self.limit.is_finite() {
            self.limit *= factor.abs();
        }
    }

    /// Limits every element to −`limit` … `limit`.
    pub fn limit_to(&mut self, limit: f64) {
        self.limit = self.limit.min(limit);
    }

    /// The factor that the values are multiplied by; 1 if they are as they are [read](Self::read_raw).
    pub fn scale(&self) -> f64 {
        if self.is_in_type() { self.scale } else { 1.0 }
    }

    /// The bound that every scaled element is kept within; infinite if there is none, or none that is not kept when the values
    /// are [read](Self::read_raw).
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
        matches!(self.source, Source::Values(_))
    }

    /// The order in which the gradient is read fastest.
    pub(crate) fn order(&self) -> Order {
        match &self.source {
            Source::Values(values) => values.order(),
            #[cfg(feature = "distributed")]
            Source::Zero => Order::C,
            Source::Sum(grad, _) | Source::Units(grad, _) => grad.order(),
            #[cfg(feature = "half")]
            Source::Widened(grad) => grad.order(),
        }
    }

    /// The values before [scale](Self::scale) and [limit](Self::limit) as one slice in this order, if they lie so.
    pub fn as_slice(&self, order: Order) -> Option<&[A]> {
        self.source_as_slice(order).filter(|_| self.is_in_type())
    }

    /// The values before anything is applied as one slice in this order, if they lie so.
    pub(crate) fn source_as_slice(&self, order: Order) -> Option<&[A]> {
        match &self.source {
            Source::Values(values) => values.as_slice(order),
            _ => None,
        }
    }

    /// Reads `out.len()` values before [scale](Self::scale) and [limit](Self::limit), beginning with element `start` of the
    /// tensor of this shape, walked in this order.
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
            Source::Values(values) => read(values, shape, order, start, out),
            #[cfg(feature = "distributed")]
            Source::Zero => out.fill(A::zero()),
            Source::Sum(grad, sum) => {
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
            Source::Units(grad, factors) => {
                grad.read(shape, order, start, out);
                scale_units(factors, shape, order, start, out);
            }
        }
    }

    /// [`read_raw`](Self::read_raw), scaled and limited.
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

    /// The gradient as an array of its own.
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

/// Whether a product with this factor is taken in the type: it is 1, 0 or one of the type's normal numbers, and the type is
/// one that is computed in.
pub(crate) fn is_in_type<A: Element>(factor: f64) -> bool {
    factor == 1.0 || factor == 0.0 || size_of::<A>() >= size_of::<f32>() && A::from_f64(factor).is_normal()
}

/// Scales and limits elements, in `f64` if the scale is not [in the type](is_in_type).
pub(crate) fn apply<A: Element>(values: &mut [A], scale: f64, limit: f64) {
    if scale == 1.0 && limit == f64::INFINITY {
        return;
    }
    match is_in_type::<A>(scale) {
        true => {
            let (scale, limit) = (A::from_f64(scale), A::from_f64(limit));
            values.iter_mut().for_each(|value| *value = transform(*value, scale, limit));
        }
        false => values.iter_mut().for_each(|value| *value = A::from_f64(transform(value.as_f64(), scale, limit))),
    }
}

/// Multiplies elements `start …` of a tensor walked in this order by the factors of the first axis's indices.
fn scale_units<A: Element>(factors: &[f64], shape: &[usize], order: Order, mut start: usize, mut out: &mut [A]) {
    let units = factors.len();
    // In C order a unit is a run of elements; in F order, and where every run is one element, the units take turns.
    let run = if order == Order::C { shape.iter().product::<usize>() / units.max(1) } else { 1 };
    while !out.is_empty() {
        let (unit, offset) = (start / run % units, start % run);
        let length = if run == 1 { units - unit } else { run - offset }.min(out.len());
        let (now, later) = take(&mut out).split_at_mut(length);
        (start, out) = (start + now.len(), later);
        match run {
            1 => now.iter_mut().zip(&factors[unit..]).for_each(|(out, factor)| match is_in_type::<A>(*factor) {
                true => *out *= A::from_f64(*factor),
                false => *out = A::from_f64(out.as_f64() * *factor),
            }),
            _ => apply(now, factors[unit], f64::INFINITY),
        }
    }
}

/// One element scaled and limited. NaN stays NaN.
#[inline(always)]
pub(crate) fn transform<A: Element>(value: A, scale: A, limit: A) -> A {
    let value = value * scale;
    if value > limit {
        limit
    } else if value < -limit {
        -limit
    } else {
        value
    }
}

/// A scratch slice on the stack for `len` elements, or as many as there are in a wide block.
pub(crate) fn with_buffer<A: Element, T>(len: usize, f: impl FnOnce(&mut [A]) -> T) -> T {
    const FEW: usize = 256;

    #[inline(never)]
    fn on_the_stack<A: Element, T, const N: usize>(len: usize, f: impl FnOnce(&mut [A]) -> T) -> T {
        f(&mut [A::zero(); N][..len.min(N)])
    }
    match len {
        0..=FEW => on_the_stack::<_, _, FEW>(len, f),
        _ => on_the_stack::<_, _, WIDE_BLOCK>(len, f),
    }
}

/// Reads elements `start …` of a tensor walked in this order.
fn read<A: Element>(values: &Values<'_, A>, shape: &[usize], order: Order, start: usize, out: &mut [A]) {
    if let Some(slice) = values.as_slice(order) {
        out.copy_from_slice(&slice[start..start + out.len()]);
        return;
    }
    let view = values.view(shape);
    blocks::read(&if order == Order::F { view.reversed_axes() } else { view }, start, out);
}
