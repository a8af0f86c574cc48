//! Trees of tensors: the parameters and gradients that optimizers take.
//!
//! A tree is an [`ndarray`] array or view of any dimension, or a tuple, `Vec`, array, `Box`, `Option`,
//! [`BTreeMap`](std::collections::BTreeMap) or struct of trees, nested to any depth. The trait [`Params`] is for reading a tree, and
//! [`ParamsMut`] for writing it. The derive macro implements both for a struct:
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
//! Every tensor has a **path**: field names and indices joined by dots. State, groups, freezing and errors name tensors by path, not by
//! position. Dots in the key of a map separate segments: a map with the key `"layers.0.weight"` has the same path as the nested trees
//! `layers`, `0`, `weight`.
//!
//! The order of the tensors is fixed: fields as declared, sequences by index, maps by key. `HashMap` has no fixed order and is therefore
//! not a tree; use `BTreeMap`.

mod impls;
mod layout;
mod order;
mod owned;
mod path;
pub(crate) mod pattern;
mod rows;
pub(crate) mod scalar;
mod tree;
mod values;
pub(crate) mod viewed;
mod walk;

pub use layout::{Layout, TensorInfo};
pub use order::Order;
pub(crate) use owned::Owned;
pub use path::Path;
pub use pattern::Pattern;
pub use rows::Rows;
pub(crate) use rows::Sorted;
pub use scalar::{Element, Scalar};
pub use tree::{Params, ParamsMut, Visitor, VisitorMut, for_each, for_each_mut};
pub use values::{Strided, StridedMut, Values, ValuesMut};
pub(crate) use walk::collect_mut;
