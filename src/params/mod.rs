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
mod order;
mod owned;
mod path;
pub(crate) mod pattern;
pub(crate) mod scalar;
mod tree;
mod values;
mod walk;

pub use layout::{Layout, TensorInfo};
pub use order::Order;
pub(crate) use owned::Owned;
pub use path::Path;
pub use pattern::Pattern;
pub use scalar::{Element, Scalar};
pub use tree::{Params, ParamsMut, Visitor, VisitorMut, for_each, for_each_mut};
pub use values::{Strided, StridedMut, Values, ValuesMut};
pub(crate) use walk::collect_mut;
