//! The fields of a struct that hold parameters.

use std::collections::HashSet;

use proc_macro2::{Ident, Span, TokenStream, TokenTree};
use quote::ToTokens;
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{Data, DeriveInput, Error, Fields, LitStr, Member, Result, Type};

use crate::attributes::FieldAttributes;

/// A field that is visited.
pub(crate) struct Field<'a> {
    pub(crate) member: Member,
    pub(crate) name: LitStr,
    pub(crate) ty: &'a Type,
    /// Whether the type names the struct itself.
    pub(crate) recursive: bool,
}

/// The fields that are not skipped. At least one of them is not recursive.
pub(crate) fn visited(input: &DeriveInput) -> Result<Vec<Field<'_>>> {
    let all = struct_fields(input)?;
    let itself = [input.ident.clone(), Ident::new("Self", Span::call_site())];
    let mut fields = Vec::with_capacity(all.len());
    for (member, field) in all.members().zip(all) {
        let attributes = FieldAttributes::parse(&field.attrs)?;
        if attributes.skip {
            continue;
        }
        fields.push(Field {
            name: attributes.rename.unwrap_or_else(|| own_name(&member, field.span())),
            member,
            ty: &field.ty,
            recursive: mentions(field.ty.to_token_stream(), &itself),
        });
    }
    check_parameters(&input.ident, &fields)?;
    check_names(&fields)?;
    Ok(fields)
}

fn struct_fields(input: &DeriveInput) -> Result<&Fields> {
    match &input.data {
        Data::Struct(data) => Ok(&data.fields),
        Data::Enum(data) => {
            Err(Error::new(data.enum_token.span, "`Params` cannot be derived for an enum, only for a struct"))
        }
        Data::Union(data) => {
            Err(Error::new(data.union_token.span, "`Params` cannot be derived for a union, only for a struct"))
        }
    }
}

fn own_name(member: &Member, span: Span) -> LitStr {
    match member {
        Member::Named(name) => LitStr::new(&name.unraw().to_string(), name.span()),
        Member::Unnamed(index) => LitStr::new(&index.index.to_string(), span),
    }
}

fn check_names(fields: &[Field<'_>]) -> Result<()> {
    let mut seen = HashSet::new();
    match fields.iter().find(|field| !seen.insert(field.name.value())) {
        Some(twice) => Err(Error::new(twice.name.span(), format!("two fields are named `{}`", twice.name.value()))),
        None => Ok(()),
    }
}

fn check_parameters(ident: &Ident, fields: &[Field<'_>]) -> Result<()> {
    if fields.iter().any(|field| !field.recursive) {
        return Ok(());
    }
    let message = match fields {
        [] => format!("`{ident}` holds no parameters: it needs a field that is not skipped"),
        _ => format!("`{ident}` holds nothing but itself: it needs a field of arrays"),
    };
    Err(Error::new(ident.span(), message))
}

/// Whether one of these names stands in a type other than behind `::` or as a lifetime.
fn mentions(tokens: TokenStream, names: &[Ident]) -> bool {
    let mut qualified = false;
    tokens.into_iter().any(|token| {
        let found = match &token {
            TokenTree::Ident(ident) => !qualified && names.contains(ident),
            TokenTree::Group(group) => mentions(group.stream(), names),
            _ => false,
        };
        qualified = matches!(&token, TokenTree::Punct(punct) if matches!(punct.as_char(), ':' | '\''));
        found
    })
}
