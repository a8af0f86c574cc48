//! Documents from and to TOML and JSON.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::item::{Content, Item};
use crate::error::{ConfigError, ConfigProblem, Error, Result};

fn unreadable(line: Option<usize>, reason: impl Into<String>) -> Error {
    let problem = ConfigProblem::Unreadable { reason: reason.into() };
    Error::Config(ConfigError::new("", line, problem))
}

/// The line of a byte.
fn line_of(text: &str, at: usize) -> Option<usize> {
    let before = text.as_bytes().get(..at)?;
    Some(1 + before.iter().filter(|byte| **byte == b'\n').count())
}

pub(super) fn from_toml(text: &str) -> Result<Item> {
    let parsed = DeTable::parse(text).map_err(|error| {
        let line = error.span().and_then(|span| line_of(text, span.start));
        unreadable(line, format!("not TOML: {}", error.message()))
    })?;
    let line = line_of(text, parsed.span().start);
    Ok(Item { line, content: table(text, parsed.get_ref())? })
}

fn table(text: &str, table: &DeTable<'_>) -> Result<Content> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    let entries = entries.into_iter().map(|(key, value)| {
        let item = item(text, value)?;
        Ok((key.get_ref().to_string(), Item { line: line_of(text, key.span().start), ..item }))
    });
    entries.collect::<Result<_>>().map(Content::Table)
}

fn item(text: &str, value: &Spanned<DeValue<'_>>) -> Result<Item> {
    let line = line_of(text, value.span().start);
    let content = match value.get_ref() {
        DeValue::Boolean(flag) => Content::Flag(*flag),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(whole) => Content::Whole(whole),
            Err(_) => return Err(unreadable(line, format!("{number} is larger than 2⁶³ − 1"))),
        },
        DeValue::Float(number) => match number.as_str().parse() {
            Ok(number) => Content::real(number),
            Err(_) => return Err(unreadable(line, format!("{number} is no number"))),
        },
        DeValue::String(text) => Content::Text(text.to_string()),
        DeValue::Array(list) => Content::List(list.iter().map(|value| item(text, value)).collect::<Result<_>>()?),
        DeValue::Table(inner) => table(text, inner)?,
        DeValue::Datetime(date) => return Err(unreadable(line, format!("no setting is a date, such as {date}"))),
    };
    Ok(Item { line, content })
}

pub(super) fn from_json(text: &str) -> Result<Item> {
    serde_json::from_str(text).map_err(|error| {
        // Its message ends with the place.
        let message = error.to_string();
        let reason = message.split(" at line ").next().unwrap_or_default();
        unreadable(Some(error.line()).filter(|line| *line > 0), format!("not accepted as JSON: {reason}"))
    })
}

pub(super) fn to_toml(item: &Item) -> Result<String> {
    toml::to_string(item).map_err(|error| unreadable(None, error.to_string()))
}

pub(super) fn to_json(item: &Item) -> Result<String> {
    serde_json::to_string_pretty(item).map_err(|error| unreadable(None, error.to_string()))
}
