//! The fields of a struct or an enum that hold parameters.

use std::collections::HashSet;

use proc_macro2::{Ident, Span, TokenStream, TokenTree};
use quote::ToTokens;
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{Data, DeriveInput, Error, LitStr, Member, Result, Type, Variant};

use crate::attributes::PartAttributes;

/// A field that is visited.
pub(crate) struct Field<'a> {
    pub(crate) member: Member,
    /// The name in paths; none for the only field of a variant, which stands for the variant.
    pub(crate) name: Option<LitStr>,
    pub(crate) ty: &'a Type,
    /// Whether the type names the struct or enum itself.
    pub(crate) recursive: bool,
}

/// What is visited.
pub(crate) enum Fields<'a> {
    Struct(Vec<Field<'a>>),
    /// The visited fields of each variant.
    Enum(Vec<(&'a Ident, Vec<Field<'a>>)>),
}

impl<'a> Fields<'a> {
    /// The fields that are not skipped. At least one of them is not recursive.
    pub(crate) fn visited(input: &'a DeriveInput) -> Result<Self> {
        let itself = [input.ident.clone(), Ident::new("Self", Span::call_site())];
        let fields = match &input.data {
            Data::Struct(data) => Self::Struct(named(&data.fields, &itself)?),
            Data::Enum(data) => Self::Enum(
                data.variants.iter().map(|own| Ok((&own.ident, variant(own, &itself)?))).collect::<Result<_>>()?,
            ),
            Data::Union(data) => {
                let message = "`Params` cannot be derived for a union, only for a struct or an enum";
                return Err(Error::new(data.union_token.span, message));
            }
        };
        check_parameters(&input.ident, &fields)?;
        Ok(fields)
    }

    /// The fields of all variants.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Field<'a>> {
        let (of_struct, of_enum) = match self {
            Self::Struct(fields) => (&fields[..], &[][..]),
            Self::Enum(variants) => (&[][..], &variants[..]),
        };
        of_struct.iter().chain(of_enum.iter().flat_map(|(_, fields)| fields))
    }
}

/// The fields that are not skipped, each with a name.
fn named<'a>(all: &'a syn::Fields, itself: &[Ident]) -> Result<Vec<Field<'a>>> {
    let mut fields = Vec::with_capacity(all.len());
    for (member, field) in all.members().zip(all) {
        let attributes = PartAttributes::parse(&field.attrs)?;
        if attributes.skip {
            continue;
        }
        fields.push(Field {
            name: Some(attributes.rename.unwrap_or_else(|| own_name(&member, field.span()))),
            member,
            ty: &field.ty,
            recursive: mentions(field.ty.to_token_stream(), itself),
        });
    }
    check_names(&fields)?;
    Ok(fields)
}

/// The fields of a variant. Its name is in their paths only if it has been given one.
fn variant<'a>(variant: &'a Variant, itself: &[Ident]) -> Result<Vec<Field<'a>>> {
    let attributes = PartAttributes::parse(&variant.attrs)?;
    if attributes.skip {
        return Ok(Vec::new());
    }
    let mut fields = named(&variant.fields, itself)?;
    if let [Field { member: Member::Unnamed(index), name, .. }] = &mut fields[..]
        && name.as_ref().is_some_and(|name| name.value() == index.index.to_string())
    {
        *name = None;
    }
    let Some(level) = attributes.rename else { return Ok(fields) };
    if fields.is_empty() {
        return Err(Error::new(level.span(), "a variant without parameters has no name to change"));
    }
    for Field { name, .. } in &mut fields {
        let below = name.take().map(|name| format!("{}.{}", level.value(), name.value()));
        *name = Some(below.map_or_else(|| level.clone(), |path| LitStr::new(&path, level.span())));
    }
    Ok(fields)
}

fn own_name(member: &Member, span: Span) -> LitStr {
    match member {
        Member::Named(name) => LitStr::new(&name.unraw().to_string(), name.span()),
        Member::Unnamed(index) => LitStr::new(&index.index.to_string(), span),
    }
}

fn check_names(fields: &[Field<'_>]) -> Result<()> {
    let mut seen = HashSet::new();
    match fields.iter().filter_map(|field| field.name.as_ref()).find(|name| !seen.insert(name.value())) {
        Some(twice) => Err(Error::new(twice.span(), format!("two fields are named `{}`", twice.value()))),
        None => Ok(()),
    }
}

fn check_parameters(ident: &Ident, fields: &Fields<'_>) -> Result<()> {
    if fields.all().any(|field| !field.recursive) {
        return Ok(());
    }
    let message = match fields.all().next() {
        None => format!("`{ident}` holds no parameters: it needs a field that is not skipped"),
        Some(_) => format!("`{ident}` holds nothing but itself: it needs a field of arrays"),
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
