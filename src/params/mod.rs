//! Trees of tensors: the parameters and gradients that optimizers take.
//!
//! A tree is one of these, nested to any depth:
//!
//! | tree | tensors |
//! |---|---|
//! | an [`ndarray`] array or view of any dimension | one |
//! | a number, `f32` or `f64` | one without dimensions |
//! | numbers in a slice, a `Vec` or an array: `Vec<f64>`, `[f64; 3]`, `&mut [f64]` | one vector |
//! | arrays of numbers in one of these: `Vec<[f32; 3]>`, `[[f64; 2]; 2]` | one with an axis per level: `[n, 3]`, `[2, 2]` |
//! | a slice, `Vec` or array of other trees | theirs, under their indices |
//! | a tuple | theirs, under their indices |
//! | a [`BTreeMap`](std::collections::BTreeMap), or a `HashMap` in [`Sorted`] | theirs, under their keys |
//! | `&T`, `&mut T`, `Box<T>`, `Option<T>` | those of `T` |
//! | a struct or an enum | those of its fields, under their names |
//! | a matrix or vector of nalgebra or faer, with the feature of that name | one |
//!
//! With the feature `half`, `bf16` and `f16` are numbers, too. The trait [`Params`] is for reading a tree, and [`ParamsMut`] for writing it.
//! The derive macro implements both for a struct or an enum:
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
//! The order of the tensors is fixed: fields as declared, lists by index, maps by key. A `HashMap` has no fixed order: wrap it in [`Sorted`].
//!
//! # Numbers
//! The parameters of a fit are trees as they are:
//!
//! ```
//! use gradus::prelude::*;
//!
//! let (mut opt, mut rates, gradient) = (Sgd::new(0.5), vec![1.0, 2.0], [2.0, -2.0]);
//! opt.step(&mut rates, &gradient)?;
//! assert_eq!(rates, [0.0, 3.0]);
//!
//! let slice = &mut rates[1..];
//! Sgd::new(0.5).step(&mut &mut *slice, &&gradient[1..])?; // a slice is passed by a reference to it
//! assert_eq!(rates, [0.0, 4.0]);
//! # Ok::<(), gradus::Error>(())
//! ```
//! Every field of a derived struct that is a number is a parameter. Skip a setting: `#[params(skip)] dropout: f32`.

#[cfg(feature = "faer")]
mod from_faer;
#[cfg(feature = "nalgebra")]
mod from_nalgebra;
mod impls;
mod layout;
mod order;
mod owned;
mod path;
pub(crate) mod pattern;
mod rows;
pub(crate) mod scalar;
mod sorted;
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
pub(crate) use rows::SortedRows;
pub use scalar::Scalar;
pub use sorted::Sorted;
pub use tree::{Element, Params, ParamsMut, Visitor, VisitorMut, for_each, for_each_mut};
pub use values::{Strided, StridedMut, Values, ValuesMut};
pub(crate) use walk::collect_mut;
