//! Trees of tensors: anything made of arrays can be stepped.
//!
//! A tree is an [`ndarray`] array or view of any dimension, or a tuple, `Vec`, array, `Box`, `Option`,
//! [`BTreeMap`](std::collections::BTreeMap) or struct of trees, nested to any depth. [`Params`] reads one,
//! [`ParamsMut`] also writes it. Structs get both from the derive macro:
//!
//! ```
//! # #[cfg(feature = "derive")] {
//! use gradus::prelude::*;
//! use ndarray::{Array1, Array2};
//!
//! #[derive(Params)]
//! struct Linear {
//!     weight: Array2<f32>,
//!     bias: Array1<f32>,
//! }
//!
//! #[derive(Params)]
//! struct Mlp {
//!     layers: Vec<Linear>,
//!     #[params(skip)]
//!     steps_trained: usize,
//! }
//!
//! let linear = || Linear { weight: Array2::zeros((3, 2)), bias: Array1::zeros(3) };
//! let mlp = Mlp { layers: vec![linear(), linear()], steps_trained: 0 };
//! let layout = gradus::params::Layout::of(&mlp)?;
//! assert_eq!(layout.paths().collect::<Vec<_>>(), ["layers.0.weight", "layers.0.bias", "layers.1.weight", "layers.1.bias"]);
//! # }
//! # Ok::<(), gradus::Error>(())
//! ```
//!
//! Every tensor has a **path**: field names and indices joined by dots. State, groups, freezing and
//! errors speak of tensors by path, never by position. A map's key with dots in it is a path of several segments:
//! `"layers.0.weight"` among the keys is the same as nested trees, to a pattern and to a gradient tree.
//!
//! The order of a walk is fixed: fields as declared, sequences by index, maps by key. `HashMap` has no stable order and
//! is therefore no tree; use `BTreeMap`.

mod impls;
mod layout;
mod owned;
pub(crate) mod pattern;
pub(crate) mod scalar;
mod values;
mod visitor;
mod walk;

pub use layout::{Layout, TensorInfo};
pub(crate) use owned::Owned;
pub use pattern::Pattern;
pub use scalar::{Element, Scalar};
pub use values::{Order, Strided, StridedMut, Values, ValuesMut};
pub use visitor::{Path, Visitor, VisitorMut, for_each, for_each_mut};
pub(crate) use walk::collect_mut;

/// A tree of tensors that can be read: parameters or gradients.
///
/// Implemented for arrays, views and containers of them, and derived for structs. By hand it is one line a field:
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

    /// Shows every tensor to the visitor, always in the same order.
    fn visit<'a>(&'a self, visitor: &mut Visitor<'_, 'a, Self::Elem>);
}

/// A tree of tensors that can be written: what an optimizer moves.
///
/// [`visit_mut`](ParamsMut::visit_mut) must show the same tensors, in the same order, as [`Params::visit`]. If it does not,
/// whatever notices returns an error and changes nothing.
#[diagnostic::on_unimplemented(
    message = "`{Self}` holds no parameters that can be moved",
    label = "not a mutable tree of arrays",
    note = "read-only views can be gradients, but not parameters: use `view_mut()`; a struct of read-only views is derived with `#[params(read_only)]`"
)]
pub trait ParamsMut: Params {
    /// Shows every tensor to the visitor, mutably, in the order of [`Params::visit`].
    fn visit_mut<'a>(&'a mut self, visitor: &mut VisitorMut<'_, 'a, Self::Elem>);
}
