//! The derive macro of gradus. Use it as `gradus::Params`; the feature `derive`, on by default, re-exports it.
#![forbid(unsafe_code)]

mod attributes;
mod expand;
mod fields;

use proc_macro::TokenStream;
use syn::{DeriveInput, parse_macro_input};

/// Makes a struct or an enum a tree of parameters: implements `gradus::params::Params` and `ParamsMut`.
///
/// Fields are visited in declaration order, each under its name; fields of a tuple struct are visited under their position. A field can have any type
/// that is a tree: arrays and views, numbers, containers of them, other structs and enums.
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
/// Every visited field is a parameter, numbers too. Skip the settings of a model:
///
/// ```
/// use gradus::prelude::*;
/// use ndarray::Array1;
///
/// #[derive(Params)]
/// struct Fit {
///     amplitude: f64,
///     rates: Vec<f64>,
///     offset: Array1<f64>,
///     #[params(skip)]
///     noise: f64, // a constant: without `skip`, an optimizer would move it
/// }
/// ```
///
/// # Enums
///
/// A tree has the tensors of the variant that it is. The name of the variant is not in the paths: a variant with a single unnamed field has the paths of
/// that field, and other variants have those of a struct with the same fields. So the paths do not change if variants are renamed, added or
/// reordered, and a list of layers has the names that PyTorch's `Sequential` has.
///
/// ```
/// use gradus::prelude::*;
/// use ndarray::{Array1, Array2};
///
/// #[derive(Params)]
/// struct Linear {
///     weight: Array2<f32>,
///     bias: Array1<f32>,
/// }
///
/// #[derive(Params)]
/// enum Layer {
///     Linear(Linear),
///     Scale { gain: f32, shift: f32 },
///     Relu,
///     #[params(skip)]
///     Dropout(f64),
/// }
///
/// let linear = || Layer::Linear(Linear { weight: Array2::zeros((2, 2)), bias: Array1::zeros(2) });
/// let model = vec![linear(), Layer::Relu, Layer::Scale { gain: 1.0, shift: 0.0 }, Layer::Dropout(0.1), linear()];
/// let layout = gradus::params::Layout::of(&model)?;
/// assert_eq!(layout.paths().collect::<Vec<_>>(), ["0.weight", "0.bias", "2.gain", "2.shift", "4.weight", "4.bias"]);
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// If the variant changes between two steps, and with it paths or shapes, the optimizer returns an error: its state belongs to the old tensors.
/// If two variants may have the same paths and shapes, a checkpoint of one can be loaded into the other; to prevent that, give one of them a name,
/// `#[params(rename = "conv")]`, which becomes a level of its paths.
///
/// # Attributes
///
/// | attribute | on | effect |
/// |---|---|---|
/// | `#[params(skip)]` | field | the field is not a parameter: it is never visited and may have any type |
/// | `#[params(rename = "…")]` | field | the name in paths instead of the field's name; it must not be empty or contain a dot, which separates the levels of a path |
/// | `#[params(skip)]` | variant | no field of the variant is a parameter |
/// | `#[params(rename = "…")]` | variant | a level in the paths of the variant's fields |
/// | `#[params(read_only)]` | struct, enum | implements only `Params`: for gradients made of read-only views |
/// | `#[params(crate = "…")]` | struct, enum | the path of the crate gradus, if it is not `::gradus`: for crates that re-export it |
///
/// A skipped field does not change the names of other fields: the second field of a tuple struct is `1`, even if the first one is skipped. A raw
/// identifier loses its prefix: `r#type` is named `type`.
///
/// A struct of read-only views with a lifetime is a tree of gradients even without `read_only`. Without a lifetime the attribute is needed.
///
/// # Bounds
///
/// A struct or an enum is a tree if every visited field is a tree and all have the same element type. `Linear<A>` above is a tree for `f32` and `f64`, and with the
/// feature `half` for `bf16` and `f16`; no bound on `A` is needed. A struct with several element types is not a tree. Fields that contain the struct
/// itself, such as `children: Vec<Node>`, add no bound. If two types contain each other, implement the traits for one of them by hand.
///
/// # Errors
///
/// Unions, structs and enums without a visited field, fields without parameters, and fields with the same name do not compile. If a field's type contains a
/// type parameter or lifetime of the struct, the field is checked where the struct is used.
#[proc_macro_derive(Params, attributes(params))]
pub fn params(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    expand::expand(&input).unwrap_or_else(syn::Error::into_compile_error).into()
}
