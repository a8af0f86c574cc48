//! The derive macro of gradus.

use proc_macro::TokenStream;

/// Derives `Params`.
#[proc_macro_derive(Params, attributes(params))]
pub fn params(_: TokenStream) -> TokenStream {
    TokenStream::new()
}
