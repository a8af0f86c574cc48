//! The derive macro of gradus. Use it as `gradus::Params`; the feature `derive`, on by default, re-exports it.
#![forbid(unsafe_code)]

mod attributes;
mod expand;
mod fields;

use proc_macro::TokenStream;
use syn::{DeriveInput, parse_macro_input};

/// Makes a struct of arrays a tree of parameters: implements `gradus::params::Params` and `ParamsMut`.
///
/// Fields are visited in declaration order, each under its name; fields of a tuple struct are visited under their position. A field can have any type
/// that is a tree: arrays and views, containers of them, other structs.
///
/// ```
/// use gradus::prelude::*;
/// use ndarray::{Array1, Array2, array};
///
/// #[derive(Params)]
/// struct Linear<A> {
///     weight: Array2<A>,
///     bias: Array1<A>,
/// }
///
/// #[derive(Params)]
/// struct Model {
///     #[params(rename = "fc")]
///     layers: Vec<Linear<f32>>,
///     scale: Option<Array1<f32>>,
///     #[params(skip)]
///     epochs: usize,
/// }
///
/// let layer = || Linear { weight: array![[1.0]], bias: array![2.0] };
/// let model = Model { layers: vec![layer(), layer()], scale: None, epochs: 3 };
/// let layout = gradus::params::Layout::of(&model)?;
/// assert_eq!(layout.paths().collect::<Vec<_>>(), ["fc.0.weight", "fc.0.bias", "fc.1.weight", "fc.1.bias"]);
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// # Attributes
///
/// | attribute | on | effect |
/// |---|---|---|
/// | `#[params(skip)]` | field | the field is not a parameter: it is never visited and may have any type |
/// | `#[params(rename = "…")]` | field | the name in paths instead of the field's name; it must not be empty or contain a dot, which separates the levels of a path |
/// | `#[params(read_only)]` | struct | implements only `Params`: for gradients made of read-only views |
/// | `#[params(crate = "…")]` | struct | the path of the crate gradus, if it is not `::gradus`: for crates that re-export it |
///
/// A skipped field does not change the names of other fields: the second field of a tuple struct is `1`, even if the first one is skipped. A raw
/// identifier loses its prefix: `r#type` is named `type`.
///
/// A struct of read-only views with a lifetime is a tree of gradients even without `read_only`. Without a lifetime the attribute is needed.
///
/// # Bounds
///
/// The struct is a tree if every visited field is a tree and all have the same element type. `Linear<A>` above is a tree for `f32` and `f64`, and with the
/// feature `half` for `bf16` and `f16`; no bound on `A` is needed. A struct with several element types is not a tree. Fields that contain the struct
/// itself, such as `children: Vec<Node>`, add no bound. If two structs contain each other, implement the traits for one of them by hand.
///
/// # Errors
///
/// Enums, unions, structs without a visited field, fields without parameters, and fields with the same name do not compile. If a field's type contains a
/// type parameter or lifetime of the struct, the field is checked where the struct is used.
#[proc_macro_derive(Params, attributes(params))]
pub fn params(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    expand::expand(&input).unwrap_or_else(syn::Error::into_compile_error).into()
}
