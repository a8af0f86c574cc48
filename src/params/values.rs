//! The values of one tensor: a slice where the memory is contiguous, a view where it is not.

use std::fmt;

use ndarray::{
    ArrayBase, ArrayD, ArrayView, ArrayViewD, ArrayViewMut, ArrayViewMutD, Data, DataMut, Dimension, IxDyn,
    ShapeBuilder,
};

use super::order::Order;
use super::viewed::Viewed;
#[cfg(feature = "half")]
use super::viewed::{Narrow, NarrowPart};

/// The values of one tensor, read-only. The shape is in the tree's [`Layout`](super::Layout).
#[derive(Debug)]
pub enum Values<'a, A> {
    /// All elements, contiguous in this order.
    Contiguous(&'a [A], Order),
    /// Elements with gaps, or in another order.
    Strided(Strided<'a, A>),
    /// Some rows of a gradient: their indices in any order, and a tensor with one row for each index. See [`Rows`](super::Rows).
    Rows(Box<(&'a [usize], Self)>),
}

/// The values of one tensor, writable.
#[derive(Debug)]
pub enum ValuesMut<'a, A> {
    /// All elements, contiguous in this order.
    Contiguous(&'a mut [A], Order),
    /// Elements with gaps, or in another order.
    Strided(StridedMut<'a, A>),
}

/// A view of any dimension. It is a trait object, because an ndarray view cannot be given a shorter lifetime in place.
pub struct Strided<'a, A>(Box<dyn Viewed<A> + 'a>);

/// A writable view of any dimension: [`Strided`] for [`ValuesMut`].
pub struct StridedMut<'a, A>(Access<'a, A>);

enum Access<'a, A> {
    Write(Box<dyn ViewedMut<A> + 'a>),
    /// In memory of fewer bits.
    #[cfg(feature = "half")]
    Narrow(Box<dyn Narrow<A> + 'a>),
    /// In a preview; contiguous values too, which cost no box so. Becomes a copy if it is written.
    Read(Values<'a, A>),
    Copied(Box<ArrayD<A>>),
}

impl<'a, A: Copy + Send + Sync> StridedMut<'a, A> {
    fn new(view: ArrayViewMutD<'a, A>) -> Self {
        Self(Access::Write(Box::new(view)))
    }

    fn as_values(&self) -> Values<'_, A> {
        match &self.0 {
            Access::Write(view) => Values::Strided(Strided(Box::new(view.as_view()))),
            #[cfg(feature = "half")]
            Access::Narrow(narrow) => Values::of_viewed(&**narrow),
            Access::Read(values) => values.reborrow(),
            Access::Copied(array) => Values::Strided(Strided(Box::new(array.view()))),
        }
    }

    fn as_view_mut(&mut self, shape: &[usize]) -> ArrayViewMutD<'_, A> {
        if let Access::Read(values) = &self.0 {
            self.0 = Access::Copied(Box::new(values.view(shape).into_owned()));
        }
        match &mut self.0 {
            Access::Write(view) => view.as_view_mut(),
            #[cfg(feature = "half")]
            Access::Narrow(narrow) => narrow.as_view_mut(),
            Access::Copied(array) => array.view_mut(),
            Access::Read(_) => unreachable!("it has just been copied"),
        }
    }
}

trait ViewedMut<A>: Viewed<A> {
    fn as_view_mut(&mut self) -> ArrayViewMutD<'_, A>;
}

impl<A: Copy + Send + Sync, S: Data<Elem = A> + Send + Sync> Viewed<A> for ArrayBase<S, IxDyn> {
    fn as_view(&self) -> ArrayViewD<'_, A> {
        self.view()
    }
}

impl<A: Copy + Send + Sync, S: DataMut<Elem = A> + Send + Sync> ViewedMut<A> for ArrayBase<S, IxDyn> {
    fn as_view_mut(&mut self) -> ArrayViewMutD<'_, A> {
        self.view_mut()
    }
}

impl<A> fmt::Debug for Strided<'_, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Strided({:?})", self.0.as_view().shape())
    }
}

impl<A> fmt::Debug for StridedMut<'_, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Access::Write(view) => write!(f, "StridedMut({:?})", view.as_view().shape()),
            #[cfg(feature = "half")]
            Access::Narrow(_) => f.write_str("StridedMut(narrow)"),
            Access::Read(_) | Access::Copied(_) => f.write_str("StridedMut(preview)"),
        }
    }
}

impl<'a, A: Copy + Send + Sync> Values<'a, A> {
    /// The values of a view of any dimension.
    pub fn new<D: Dimension>(view: ArrayView<'a, A, D>) -> Self {
        if let Some(slice) = view.to_slice() {
            return Self::Contiguous(slice, Order::C);
        }
        match view.clone().reversed_axes().to_slice() {
            Some(slice) => Self::Contiguous(slice, Order::F),
            None => Self::Strided(Strided(Box::new(view.into_dyn()))),
        }
    }

    /// The values as a view. `shape` is the shape of the tensor, as it was given with the values.
    ///
    /// # Panics
    /// If the number of elements is not the tensor's.
    pub fn view(&self, shape: &[usize]) -> ArrayViewD<'_, A> {
        match self {
            Self::Contiguous(slice, order) => contiguous(slice, *order, shape),
            Self::Strided(strided) => strided.0.as_view(),
            Self::Rows(rows) => rows.1.view(shape),
        }
    }

    /// The same values, borrowed from these.
    pub(crate) fn reborrow(&self) -> Values<'_, A> {
        match self {
            Self::Contiguous(slice, order) => Values::Contiguous(slice, *order),
            Self::Strided(strided) => Values::Strided(Strided(Box::new(&*strided.0))),
            Self::Rows(rows) => Values::Rows(Box::new((rows.0, rows.1.reborrow()))),
        }
    }

    /// The order in which the elements lie; C where there are gaps.
    pub(crate) fn order(&self) -> Order {
        match self {
            Self::Contiguous(_, order) => *order,
            Self::Strided(strided) => strided.0.order(),
            Self::Rows(rows) => rows.1.order(),
        }
    }

    /// Reads elements `start …` in this order, if that is possible without a [view](Self::view).
    pub(crate) fn read_without_view(&self, shape: &[usize], order: Order, start: usize, out: &mut [A]) -> bool {
        match self {
            Self::Contiguous(..) => false,
            Self::Strided(strided) => strided.0.read(shape, order, start, out),
            Self::Rows(rows) => rows.1.read_without_view(shape, order, start, out),
        }
    }

    /// Values that are read through another type.
    #[cfg(feature = "half")]
    pub(crate) fn of_viewed(viewed: impl Viewed<A> + 'a) -> Self {
        Self::Strided(Strided(Box::new(viewed)))
    }

    /// The elements as a slice, if they are contiguous in this order.
    pub fn as_slice(&self, order: Order) -> Option<&[A]> {
        match self {
            Self::Contiguous(slice, own) if *own == order => Some(slice),
            _ => None,
        }
    }
}

/// A slice as a view.
///
/// # Panics
/// If the slice has another length than the shape.
fn contiguous<'a, A>(slice: &'a [A], order: Order, shape: &[usize]) -> ArrayViewD<'a, A> {
    match ArrayView::from_shape(shape.set_f(order == Order::F), slice) {
        Ok(view) if view.len() == slice.len() => view,
        _ => unreachable!("{} elements are no tensor of shape {shape:?}", slice.len()),
    }
}

impl<'a, A: Copy + Send + Sync> ValuesMut<'a, A> {
    /// The values of a view of any dimension.
    pub fn new<D: Dimension>(view: ArrayViewMut<'a, A, D>) -> Self {
        let (view, order) = match view.is_standard_layout() {
            true => (view, Order::C),
            false => (view.reversed_axes(), Order::F),
        };
        if !view.is_standard_layout() {
            return Self::Strided(StridedMut::new(view.reversed_axes().into_dyn()));
        }
        match view.into_slice() {
            Some(slice) => Self::Contiguous(slice, order),
            None => unreachable!("a view in standard layout is a slice"),
        }
    }

    /// Borrows the values for reading.
    pub fn as_values(&self) -> Values<'_, A> {
        match self {
            Self::Contiguous(slice, order) => Values::Contiguous(slice, *order),
            Self::Strided(strided) => strided.as_values(),
        }
    }

    /// Values in the place of writable ones, for those who only look. What is written goes to a copy.
    pub(crate) fn preview(values: Values<'a, A>) -> Self {
        Self::Strided(StridedMut(Access::Read(values)))
    }

    /// Values in memory of fewer bits.
    #[cfg(feature = "half")]
    pub(crate) fn narrow(narrow: impl Narrow<A> + 'a) -> Self {
        Self::Strided(StridedMut(Access::Narrow(Box::new(narrow))))
    }

    /// The part that all elements are, in this order, if they are in memory of fewer bits and no view of them has been written.
    #[cfg(feature = "half")]
    pub(crate) fn narrow_part(&mut self, shape: &[usize], order: Order) -> Option<Box<dyn NarrowPart<A> + '_>> {
        match self {
            Self::Strided(StridedMut(Access::Narrow(narrow))) => narrow.in_order(shape, order),
            _ => None,
        }
    }

    /// Whether these are [previewed](Self::preview).
    pub(crate) fn is_preview(&self) -> bool {
        matches!(self, Self::Strided(StridedMut(Access::Read(_) | Access::Copied(_))))
    }

    /// Borrows the values for writing.
    pub(crate) fn reborrow(&mut self) -> ValuesMut<'_, A> {
        match self {
            Self::Contiguous(slice, order) => ValuesMut::Contiguous(slice, *order),
            Self::Strided(StridedMut(Access::Write(view))) => ValuesMut::Strided(StridedMut::new(view.as_view_mut())),
            #[cfg(feature = "half")]
            Self::Strided(StridedMut(Access::Narrow(narrow))) => ValuesMut::narrow(&mut **narrow),
            Self::Strided(StridedMut(Access::Read(values))) => {
                ValuesMut::Strided(StridedMut(Access::Read(values.reborrow())))
            }
            Self::Strided(StridedMut(Access::Copied(array))) => {
                ValuesMut::Strided(StridedMut(Access::Read(Values::new(array.view()))))
            }
        }
    }

    /// Changes every element.
    pub(crate) fn map(&mut self, shape: &[usize], f: impl Fn(A) -> A) {
        match self {
            Self::Contiguous(slice, _) => slice.iter_mut().for_each(|value| *value = f(*value)),
            Self::Strided(_) => self.view_mut(shape).mapv_inplace(f),
        }
    }

    /// The elements as a slice if they lie in this order, else as a view whose row-major order is this order.
    pub(crate) fn in_order(&mut self, shape: &[usize], order: Order) -> Result<&mut [A], ArrayViewMutD<'_, A>> {
        if matches!(self, Self::Contiguous(_, own) if *own == order)
            && let Self::Contiguous(slice, _) = self
        {
            return Ok(slice);
        }
        let view = self.view_mut(shape);
        Err(if order == Order::F { view.reversed_axes() } else { view })
    }

    /// The values as a writable view. `shape` is the shape of the tensor.
    ///
    /// # Panics
    /// If the number of elements is not the tensor's.
    pub fn view_mut(&mut self, shape: &[usize]) -> ArrayViewMutD<'_, A> {
        let (slice, order) = match self {
            Self::Contiguous(slice, order) => (slice, *order),
            Self::Strided(strided) => return strided.as_view_mut(shape),
        };
        let elements = slice.len();
        match ArrayViewMut::from_shape(shape.set_f(order == Order::F), slice) {
            Ok(view) if view.len() == elements => view,
            _ => unreachable!("{elements} elements are no tensor of shape {shape:?}"),
        }
    }
}
