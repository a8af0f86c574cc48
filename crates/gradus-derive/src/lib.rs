//! The derive macro of gradus. Use it as `gradus::Params`; the feature `derive`, on by default, re-exports it.
#![forbid(unsafe_code)]

mod attributes;
mod expand;
mod fields;

use proc_macro::TokenStream;
use syn::{DeriveInput, parse_macro_input};

/// Makes a struct of arrays a tree of parameters: implements `gradus::params::Params` and `ParamsMut`.
///
/// The fields are visited in the order of their declaration, each under its name; those of a tuple struct under
/// their position. Any type that is a tree can be a field: arrays and views, containers of them, other structs.
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
/// | `#[params(skip)]` | field | the field is no parameter: it is never visited and may be of any type |
/// | `#[params(rename = "…")]` | field | the name in paths, in place of the field's own; neither empty nor with a dot, which separates the levels of a path |
/// | `#[params(read_only)]` | struct | implements `Params` alone: for gradients made of read-only views |
/// | `#[params(crate = "…")]` | struct | the path of the crate gradus, where it is not `::gradus`: for crates that re-export it |
///
/// A skipped field leaves the names of the others alone: the second field of a tuple struct is `1`, whether or not
/// the first is skipped. A raw identifier loses its prefix: `r#type` is named `type`.
///
/// A struct of read-only views that has a lifetime is a tree of gradients without `read_only`, too. The attribute says
/// so where the struct is declared; without a lifetime it is needed.
///
/// # Bounds
///
/// The implementations hold where every visited field is a tree, all of the same element type. `Linear<A>` above is a
/// tree for `f32` and for `f64`, and with the feature `half` for `bf16` and `f16`, without a bound written on `A`. A struct that mixes
/// element types is no tree. Fields that hold the struct itself, as in `children: Vec<Node>`, add no bound. Of structs that hold each
/// other, one is implemented by hand.
///
/// # Errors
///
/// Enums, unions, structs without a visited field, fields that hold no parameters and fields that share a name do not
/// compile. A field whose type names a parameter or lifetime of the struct is checked where the struct is used.
#[proc_macro_derive(Params, attributes(params))]
pub fn params(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    expand::expand(&input).unwrap_or_else(syn::Error::into_compile_error).into()
}
