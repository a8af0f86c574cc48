//! Values of one tensor that are no slice: views, and memory of fewer bits.

use ndarray::ArrayViewD;
#[cfg(feature = "half")]
use ndarray::ArrayViewMutD;
#[cfg(feature = "half")]
use pulp::Arch;

use super::Order;

/// Values that can be viewed as an array.
pub(crate) trait Viewed<A>: Send + Sync {
    fn as_view(&self) -> ArrayViewD<'_, A>;

    /// The order in which the elements are read fastest.
    fn order(&self) -> Order {
        Order::C
    }

    /// Reads elements `start …` in this order, if that is possible without a [view](Self::as_view).
    fn read(&self, shape: &[usize], order: Order, start: usize, out: &mut [A]) -> bool {
        let _ = (shape, order, start, out);
        false
    }
}

macro_rules! viewed_through {
    ($reference:ty) => {
        impl<A, V: Viewed<A> + ?Sized> Viewed<A> for $reference {
            fn as_view(&self) -> ArrayViewD<'_, A> {
                V::as_view(self)
            }

            fn order(&self) -> Order {
                V::order(self)
            }

            fn read(&self, shape: &[usize], order: Order, start: usize, out: &mut [A]) -> bool {
                V::read(self, shape, order, start, out)
            }
        }
    };
}

viewed_through!(&V);
#[cfg(feature = "half")]
viewed_through!(&mut V);

/// Values of one tensor in memory of fewer bits.
#[cfg(feature = "half")]
pub(crate) trait Narrow<A>: Viewed<A> {
    /// The values as a writable array. From then on it is what is read; it is rounded when the step is over.
    fn as_view_mut(&mut self) -> ArrayViewMutD<'_, A>;

    /// All elements, in this order; `None` if there is such an array.
    fn in_order(&mut self, shape: &[usize], order: Order) -> Option<Box<dyn NarrowPart<A> + '_>>;
}

#[cfg(feature = "half")]
impl<A, N: Narrow<A> + ?Sized> Narrow<A> for &mut N {
    fn as_view_mut(&mut self) -> ArrayViewMutD<'_, A> {
        N::as_view_mut(self)
    }

    fn in_order(&mut self, shape: &[usize], order: Order) -> Option<Box<dyn NarrowPart<A> + '_>> {
        N::in_order(self, shape, order)
    }
}

/// Elements of one tensor in an order, in memory of fewer bits.
#[cfg(feature = "half")]
pub(crate) trait NarrowPart<A>: Send {
    fn len(&self) -> usize;

    /// Whether the part can be divided: whether its elements lie in this order.
    fn is_divisible(&self) -> bool;

    /// Reads elements `start …`.
    fn read(&self, start: usize, out: &mut [A]);

    /// Rounds elements `start …`.
    fn write(&mut self, arch: Arch, start: usize, values: &[A]);

    /// The first `at` elements and the others, if the part is [divisible](Self::is_divisible); else both nothing.
    fn split_at<'s>(self: Box<Self>, at: usize) -> (Box<dyn NarrowPart<A> + 's>, Box<dyn NarrowPart<A> + 's>)
    where
        Self: 's;
}
