//! From the struct or enum to its implementations.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, format_ident, quote};
use syn::spanned::Spanned;
use syn::{DeriveInput, GenericParam, Generics, Ident, Result, TypeParam};

use crate::attributes::TreeAttributes;
use crate::fields::{Field, Fields};

pub(crate) fn expand(input: &DeriveInput) -> Result<TokenStream> {
    let attributes = TreeAttributes::parse(&input.attrs)?;
    let gradus = attributes.gradus.map_or_else(|| quote!(::gradus), ToTokens::into_token_stream);
    let elem = Ident::new("__Elem", Span::call_site());
    let tree = Tree { input, fields: Fields::visited(input)?, gradus, elem };
    let read = tree.implement(&tree.read());
    let write = (!attributes.read_only).then(|| tree.implement(&tree.write()));
    Ok(quote!(#read #write))
}

/// What both implementations are made from.
struct Tree<'a> {
    input: &'a DeriveInput,
    fields: Fields<'a>,
    /// The path of the crate.
    gradus: TokenStream,
    /// The element type, a parameter of the implementation that the bounds tie to every field's element type.
    ///
    /// Not `<First as Params>::Elem`: that would be a private type in a public interface where the first field's type
    /// is private, and a generic type is not known to be a tree while the bounds that say so are being normalized.
    elem: Ident,
}

/// What differs between the implementations.
struct Access {
    name: TokenStream,
    elem: TokenStream,
    method: TokenStream,
    visitor: TokenStream,
    mutable: TokenStream,
}

impl Tree<'_> {
    fn read(&self) -> Access {
        let elem = &self.elem;
        Access {
            name: quote!(Params),
            elem: quote!(type Elem = #elem;),
            method: quote!(visit),
            visitor: quote!(Visitor),
            mutable: quote!(),
        }
    }

    fn write(&self) -> Access {
        Access {
            name: quote!(ParamsMut),
            elem: quote!(),
            method: quote!(visit_mut),
            visitor: quote!(VisitorMut),
            mutable: quote!(mut),
        }
    }

    fn implement(&self, access: &Access) -> TokenStream {
        let Self { input, gradus, .. } = self;
        let Access { name, elem, method, visitor, mutable } = access;
        let ident = &input.ident;
        let (_, arguments, _) = input.generics.split_for_impl();
        let generics = self.generics();
        let (parameters, ..) = generics.split_for_impl();
        let bounds = self.bounds(access);
        let body = self.body(access);
        quote! {
            #[automatically_derived]
            #[allow(unused_qualifications, reason = "paths are absolute")]
            impl #parameters #gradus::params::#name for #ident #arguments where #(#bounds,)* {
                #elem

                fn #method<'__walk>(
                    &'__walk #mutable self,
                    visitor: &mut #gradus::params::#visitor<'_, '__walk, Self::Elem>,
                ) {
                    #body
                }
            }
        }
    }

    /// What visits the fields.
    fn body(&self, access: &Access) -> TokenStream {
        let Access { mutable, .. } = access;
        match &self.fields {
            Fields::Struct(fields) => fields
                .iter()
                .map(|field| {
                    let member = &field.member;
                    self.visit(field, access, &quote!(&#mutable self.#member))
                })
                .collect(),
            Fields::Enum(variants) => {
                let arms = variants.iter().map(|(variant, fields)| {
                    let members = fields.iter().map(|field| &field.member);
                    let bindings: Vec<_> = (0..fields.len()).map(|at| format_ident!("__field{at}")).collect();
                    let visits = fields.iter().zip(&bindings);
                    let visits = visits.map(|(field, tree)| self.visit(field, access, &tree.to_token_stream()));
                    quote!(Self::#variant { #(#members: #bindings,)* .. } => { #(#visits)* })
                });
                quote!(match self { #(#arms)* })
            }
        }
    }

    /// Visits one field, to which `tree` is a reference.
    fn visit(&self, field: &Field<'_>, access: &Access, tree: &TokenStream) -> TokenStream {
        let (Self { gradus, .. }, Access { name, method, .. }) = (self, access);
        match &field.name {
            Some(path) => quote!(visitor.field(#path, #tree);),
            None => quote!(#gradus::params::#name::#method(#tree, visitor);),
        }
    }

    /// The generics and the element type.
    fn generics(&self) -> Generics {
        let mut generics = self.input.generics.clone();
        generics.params.push(GenericParam::Type(TypeParam::from(self.elem.clone())));
        generics
    }

    /// Its own bounds, and that every field is a tree of the element type. A field that holds the struct or
    /// enum itself is one as soon as the others are; to demand it would never end.
    fn bounds(&self, access: &Access) -> Vec<TokenStream> {
        let Self { input, fields, gradus, elem } = self;
        let own = input.generics.where_clause.iter().flat_map(|clause| &clause.predicates);
        let trees = fields.all().filter(|field| !field.recursive).map(|field| self.bound(field, access));
        own.map(ToTokens::to_token_stream).chain([quote!(#elem: #gradus::Element)]).chain(trees).collect()
    }

    /// All of it lies where the field's type stands, so that an error points there.
    fn bound(&self, Field { ty, .. }: &Field<'_>, Access { name, .. }: &Access) -> TokenStream {
        let Self { gradus, elem, .. } = self;
        let mut tree: Vec<_> = quote!(#gradus::params::#name<Elem = #elem>).into_iter().collect();
        tree.iter_mut().for_each(|token| token.set_span(ty.span()));
        quote!(#ty: #(#tree)*)
    }
}
