//! Trees and their elements, and the walk through one: paths on the stack, one callback per tensor.

use std::fmt;
use std::mem::take;

use ndarray::{ArrayView, ArrayViewMut, Dimension};
use num_traits::{Float, NumAssign};

use super::path::{Path, Segment};
use super::values::{Values, ValuesMut};
use crate::state::data::Stored;

/// A tree of tensors that can be read: parameters or gradients.
///
/// It is implemented for arrays, views and containers of them, and derived for structs. Without the derive macro, write one line per field:
///
/// ```
/// use gradus::params::{Params, ParamsMut, Visitor, VisitorMut};
/// use ndarray::{Array1, Array2};
///
/// struct Linear { weight: Array2<f32>, bias: Array1<f32> }
///
/// impl Params for Linear {
///     type Elem = f32;
///     fn visit<'a>(&'a self, visitor: &mut Visitor<'_, 'a, f32>) {
///         visitor.field("weight", &self.weight);
///         visitor.field("bias", &self.bias);
///     }
/// }
///
/// impl ParamsMut for Linear {
///     fn visit_mut<'a>(&'a mut self, visitor: &mut VisitorMut<'_, 'a, f32>) {
///         visitor.field("weight", &mut self.weight);
///         visitor.field("bias", &mut self.bias);
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` holds no parameters",
    label = "not a tree of arrays",
    note = "parameters are numbers of type `f32` or `f64` (feature `half`: also `bf16`, `f16`), slices, `Vec`s and `ndarray` arrays of them, and tuples, lists, `Option`, `Box`, `BTreeMap`, structs and enums of these",
    note = "a struct or an enum becomes a tree with `#[derive(Params)]`; a field without parameters is left out with `#[params(skip)]`",
    note = "an array of another version of `ndarray` is another type: `gradus::ndarray` is the version that gradus uses; an array of another version can be passed as a slice, `array.as_slice()`",
    note = "the matrices of `nalgebra` and `faer` need the features of these names"
)]
pub trait Params {
    /// The element type of every tensor in the tree.
    type Elem: Element;

    /// Passes every tensor to the visitor, always in the same order.
    fn visit<'a>(&'a self, visitor: &mut Visitor<'_, 'a, Self::Elem>);

    /// Visits trees that lie one after the other as lists of lists of this shape. Of numbers, these are one tensor.
    #[doc(hidden)]
    fn visit_list<'a>(list: &'a [Self], shape: &[usize], visitor: &mut Visitor<'_, 'a, Self::Elem>)
    where
        Self: Sized,
    {
        let Some((length, shape)) = shape.split_first() else {
            return list.iter().for_each(|tree| tree.visit(visitor));
        };
        let width = shape.iter().product::<usize>();
        for index in 0..*length {
            visitor.below(Segment::Index(index), |visitor| {
                Self::visit_list(&list[index * width..][..width], shape, visitor);
            });
        }
    }
}

/// A tree of tensors that can be written: parameters.
///
/// [`visit_mut`](ParamsMut::visit_mut) must pass the same tensors, in the same order, as [`Params::visit`]. If it does not, a step returns
/// an error and changes nothing.
#[diagnostic::on_unimplemented(
    message = "`{Self}` holds no parameters that can be moved",
    label = "not a mutable tree of arrays",
    note = "a struct or an enum becomes a tree with `#[derive(Params)]`",
    note = "read-only views can be gradients, but not parameters: use `view_mut()`; a struct of read-only views is derived with `#[params(read_only)]`"
)]
pub trait ParamsMut: Params {
    /// Passes every tensor to the visitor, mutably, in the order of [`Params::visit`].
    fn visit_mut<'a>(&'a mut self, visitor: &mut VisitorMut<'_, 'a, Self::Elem>);

    /// [`Params::visit_list`], mutably.
    #[doc(hidden)]
    fn visit_list_mut<'a>(mut list: &'a mut [Self], shape: &[usize], visitor: &mut VisitorMut<'_, 'a, Self::Elem>)
    where
        Self: Sized,
    {
        let Some((length, shape)) = shape.split_first() else {
            return list.iter_mut().for_each(|tree| tree.visit_mut(visitor));
        };
        let width = shape.iter().product::<usize>();
        for index in 0..*length {
            let (now, later) = take(&mut list).split_at_mut(width);
            list = later;
            visitor.below(Segment::Index(index), |visitor| Self::visit_list_mut(now, shape, visitor));
        }
    }
}

/// An element type of trees: `f32`, `f64` and, with the feature `half`, `half::bf16` and `half::f16`. The trait is sealed.
///
/// Hyper-parameters and numbers computed from them (bias corrections, `1 − β`, clip factors) are computed in `f64` and rounded with
/// [`from_f64`](Element::from_f64) once per step and tensor. Norms are summed in `f64`.
///
/// A number of such a type is itself a tree: a tensor without dimensions.
///
/// A hyper-parameter of a rule that rounds to 0 or to infinity is an error before anything moves. Only a learning rate and a weight decay
/// may round to 0, because schedules end there. A clip factor that is too small for the type is applied in `f64`.
pub trait Element:
    Float
    + NumAssign
    + Default
    + fmt::Debug
    + fmt::Display
    + Send
    + Sync
    + Stored
    + ParamsMut<Elem = Self>
    + sealed::Sealed
    + 'static
{
    /// The name of the type in Rust: `"f32"` or `"f64"`.
    const DTYPE: &'static str;

    /// Rounds an `f64` to the nearest number of this type.
    fn from_f64(value: f64) -> Self;

    /// Converts to `f64`, without rounding.
    fn as_f64(self) -> f64;
}

#[allow(unnameable_types, reason = "sealed")]
mod sealed {
    pub trait Sealed {}

    impl Sealed for f32 {}
    impl Sealed for f64 {}
    #[cfg(feature = "half")]
    impl Sealed for half::bf16 {}
    #[cfg(feature = "half")]
    impl Sealed for half::f16 {}
}

/// What a callback of a walk receives: path, shape, and the values, or none where an `Option` was empty.
type Callback<'v, V> = dyn FnMut(&Path<'_>, &[usize], Option<V>) + 'v;

/// Receives the tensors of a [`Params`] tree.
pub struct Visitor<'v, 'a, A> {
    path: Path<'v>,
    callback: &'v mut Callback<'v, Values<'a, A>>,
}

/// Receives the tensors of a [`ParamsMut`] tree.
pub struct VisitorMut<'v, 'a, A> {
    path: Path<'v>,
    callback: &'v mut Callback<'v, ValuesMut<'a, A>>,
}

/// The two visitors differ in nothing but `&` and `&mut`.
macro_rules! visitor {
    ($visitor:ident, $tree:ident, $visit:ident, $view:ident, $values:ident, $($mutable:tt)?) => {
        impl<'a, A: Element> $visitor<'_, 'a, A> {
            /// Visits a subtree under a name.
            pub fn field<T: $tree<Elem = A> + ?Sized>(&mut self, name: &str, tree: &'a $($mutable)? T) {
                self.descend(Segment::Name(name), tree);
            }

            /// Visits a subtree under an index.
            pub fn index<T: $tree<Elem = A> + ?Sized>(&mut self, index: usize, tree: &'a $($mutable)? T) {
                self.descend(Segment::Index(index), tree);
            }

            /// Visits one tensor, at the current path.
            pub fn tensor<D: Dimension>(&mut self, view: $view<'a, A, D>) {
                let shape = view.raw_dim();
                (self.callback)(&self.path, shape.slice(), Some($values::new(view)));
            }

            /// Reports that the tensors at and below the current path are absent. In a gradient tree they have no gradient in this step.
            pub fn absent(&mut self) {
                (self.callback)(&self.path, &[], None);
            }

            /// Shows one tensor at a path of its own; the root's is empty.
            #[cfg(feature = "federated")]
            pub(crate) fn tensor_at<D: Dimension>(&mut self, path: &str, view: $view<'a, A, D>) {
                let segment = if path.is_empty() { Segment::Root } else { Segment::Name(path) };
                let path = Path { parent: Some(&self.path), segment };
                $visitor { path, callback: &mut *self.callback }.tensor(view);
            }

            fn descend<T: $tree<Elem = A> + ?Sized>(&mut self, segment: Segment<'_>, tree: &'a $($mutable)? T) {
                self.below(segment, |visitor| tree.$visit(visitor));
            }

            /// Visits what is below the current path.
            fn below(&mut self, segment: Segment<'_>, visit: impl FnOnce(&mut $visitor<'_, 'a, A>)) {
                let path = Path { parent: Some(&self.path), segment };
                visit(&mut $visitor { path, callback: &mut *self.callback });
            }
        }

        impl<A> fmt::Debug for $visitor<'_, '_, A> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($visitor)).field("path", &self.path).finish_non_exhaustive()
            }
        }
    };
}

impl<'a, A: Element> Visitor<'_, 'a, A> {
    /// Visits the gradient of some rows of a tensor, at the current path: the indices of the rows in any order, and an array with one row
    /// for each index along its first axis. See [`Rows`](super::Rows).
    ///
    /// The shape that the callback gets is that of `values`.
    pub fn rows<D: Dimension>(&mut self, rows: &'a [usize], values: ArrayView<'a, A, D>) {
        let shape = values.raw_dim();
        (self.callback)(&self.path, shape.slice(), Some(Values::Rows(Box::new((rows, Values::new(values))))));
    }
}

visitor!(Visitor, Params, visit, ArrayView, Values,);
visitor!(VisitorMut, ParamsMut, visit_mut, ArrayViewMut, ValuesMut, mut);

/// Calls `f` with the path, the shape and the values of every tensor. The values of an empty `Option` are `None`.
///
/// ```
/// let layers = vec![(ndarray::array![[1.0, 2.0]], ndarray::array![3.0])];
/// let mut names = Vec::new();
/// gradus::params::for_each(&layers, |path, shape, _| names.push(format!("{path} {shape:?}")));
/// assert_eq!(names, ["0.0 [1, 2]", "0.1 [1]"]);
/// ```
pub fn for_each<'a, T: Params + ?Sized>(
    tree: &'a T,
    mut f: impl FnMut(&Path<'_>, &[usize], Option<Values<'a, T::Elem>>),
) {
    tree.visit(&mut Visitor { path: Path::ROOT, callback: &mut f });
}

/// [`for_each`] with writable values.
pub fn for_each_mut<'a, T: ParamsMut + ?Sized>(
    tree: &'a mut T,
    mut f: impl FnMut(&Path<'_>, &[usize], Option<ValuesMut<'a, T::Elem>>),
) {
    tree.visit_mut(&mut VisitorMut { path: Path::ROOT, callback: &mut f });
}
