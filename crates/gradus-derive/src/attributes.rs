//! What `#[params(…)]` says about a struct or an enum, and about their parts.

use syn::meta::ParseNestedMeta;
use syn::{Attribute, Error, LitStr, Path, Result};

/// The attributes of a struct or an enum.
#[derive(Default)]
pub(crate) struct TreeAttributes {
    pub(crate) read_only: bool,
    pub(crate) gradus: Option<Path>,
}

/// The attributes of a field or a variant.
#[derive(Default)]
pub(crate) struct PartAttributes {
    pub(crate) skip: bool,
    pub(crate) rename: Option<LitStr>,
}

impl TreeAttributes {
    pub(crate) fn parse(attributes: &[Attribute]) -> Result<Self> {
        let mut parsed = Self::default();
        each_word(attributes, |word, meta| {
            match word {
                "read_only" => parsed.read_only = true,
                "crate" => parsed.gradus = Some(text(meta)?.parse_with(Path::parse_mod_style)?),
                _ => {
                    return Err(meta.error("unknown word: a struct or an enum accepts `read_only` and `crate = \"…\"`"));
                }
            }
            Ok(())
        })?;
        Ok(parsed)
    }
}

impl PartAttributes {
    pub(crate) fn parse(attributes: &[Attribute]) -> Result<Self> {
        let mut parsed = Self::default();
        each_word(attributes, |word, meta| {
            match word {
                "skip" => parsed.skip = true,
                "rename" => parsed.rename = Some(name(meta)?),
                _ => return Err(meta.error("unknown word: a field or a variant accepts `skip` and `rename = \"…\"`")),
            }
            Ok(())
        })?;
        match &parsed.rename {
            Some(rename) if parsed.skip => Err(Error::new(rename.span(), "what is skipped has no name to change")),
            _ => Ok(parsed),
        }
    }
}

/// Calls `f` with every word in the `#[params(…)]` of one item, and refuses a word that comes twice.
fn each_word(attributes: &[Attribute], mut f: impl FnMut(&str, &ParseNestedMeta<'_>) -> Result<()>) -> Result<()> {
    let mut seen = Vec::new();
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("params")) {
        attribute.parse_nested_meta(|meta| {
            let word = meta.path.get_ident().map(ToString::to_string).unwrap_or_default();
            if seen.contains(&word) {
                return Err(meta.error(format!("`{word}` is given twice")));
            }
            f(&word, &meta)?;
            seen.push(word);
            Ok(())
        })?;
    }
    Ok(())
}

fn text(meta: &ParseNestedMeta<'_>) -> Result<LitStr> {
    meta.value()?.parse()
}

/// One level of a path.
fn name(meta: &ParseNestedMeta<'_>) -> Result<LitStr> {
    let name = text(meta)?;
    match name.value() {
        value if value.is_empty() => Err(Error::new(name.span(), "a name cannot be empty")),
        value if value.contains('.') => {
            Err(Error::new(name.span(), "a dot separates the levels of a path: a name has none"))
        }
        _ => Ok(name),
    }
}
