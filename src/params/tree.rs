//! Trees, and the walk through one: paths on the stack, one callback per tensor.

use std::fmt;

use ndarray::{ArrayView, ArrayViewMut, Dimension};

use super::path::{Path, Segment};
use super::scalar::Element;
use super::values::{Values, ValuesMut};

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
    note = "parameters are `ndarray` arrays and views of `f32` or `f64` (feature `half`: also `bf16`, `f16`), and tuples, `Vec`, `Option`, `Box`, `BTreeMap` and structs of them",
    note = "a struct becomes a tree with `#[derive(Params)]`; a field without parameters is left out with `#[params(skip)]`",
    note = "numbers become an array with `Array1::from(vec)`, or a view with `ArrayView1::from(&slice)`; a `HashMap` has no fixed order: use a `BTreeMap`",
    note = "an array of another version of `ndarray` is another type: `gradus::ndarray` is the version that gradus uses"
)]
pub trait Params {
    /// The element type of every tensor in the tree.
    type Elem: Element;

    /// Passes every tensor to the visitor, always in the same order.
    fn visit<'a>(&'a self, visitor: &mut Visitor<'_, 'a, Self::Elem>);
}

/// A tree of tensors that can be written: parameters.
///
/// [`visit_mut`](ParamsMut::visit_mut) must pass the same tensors, in the same order, as [`Params::visit`]. If it does not, a step returns
/// an error and changes nothing.
#[diagnostic::on_unimplemented(
    message = "`{Self}` holds no parameters that can be moved",
    label = "not a mutable tree of arrays",
    note = "read-only views can be gradients, but not parameters: use `view_mut()`; a struct of read-only views is derived with `#[params(read_only)]`"
)]
pub trait ParamsMut: Params {
    /// Passes every tensor to the visitor, mutably, in the order of [`Params::visit`].
    fn visit_mut<'a>(&'a mut self, visitor: &mut VisitorMut<'_, 'a, Self::Elem>);
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
                let path = Path { parent: Some(&self.path), segment };
                tree.$visit(&mut $visitor { path, callback: &mut *self.callback });
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
