//! The tree of a document, with the line of each value.

use std::fmt;

use serde::de::{Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{ConfigError, ConfigProblem, Error};

/// A value and its line; two are equal if the values are.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    pub(crate) line: Option<usize>,
    pub(crate) content: Content,
}

impl PartialEq for Item {
    fn eq(&self, other: &Self) -> bool {
        self.content == other.content
    }
}

/// Numbers are finite: infinity and NaN are texts, because JSON has no numbers for them. The order of a table's keys is kept, and means nothing.
#[derive(Debug, Clone)]
pub(crate) enum Content {
    Flag(bool),
    Whole(i64),
    Real(f64),
    Text(String),
    List(Vec<Item>),
    Table(Vec<(String, Item)>),
}

impl PartialEq for Content {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Flag(own), Self::Flag(other)) => own == other,
            (Self::Whole(own), Self::Whole(other)) => own == other,
            (Self::Real(own), Self::Real(other)) => own == other,
            (Self::Text(own), Self::Text(other)) => own == other,
            (Self::List(own), Self::List(other)) => own == other,
            (Self::Table(own), Self::Table(other)) => {
                let is_there = |key: &str, item: &Item| other.iter().any(|(own, found)| own == key && found == item);
                own.len() == other.len() && own.iter().all(|(key, item)| is_there(key, item))
            }
            _ => false,
        }
    }
}

impl Content {
    pub(crate) fn real(number: f64) -> Self {
        if number.is_finite() { Self::Real(number) } else { Self::Text(number.to_string()) }
    }

    /// The number, if it is one.
    pub(crate) fn number(&self) -> Option<f64> {
        match self {
            Self::Whole(number) => Some(*number as f64),
            Self::Real(number) => Some(*number),
            Self::Text(text) => match text.trim_start_matches(['+', '-']).to_lowercase().as_str() {
                "inf" | "infinity" | "nan" => text.parse().ok(),
                _ => None,
            },
            _ => None,
        }
    }

    /// The whole number ≥ 0, if it is one; `1e4` is.
    pub(crate) fn count(&self) -> Option<u64> {
        match self {
            Self::Whole(number) => u64::try_from(*number).ok(),
            // Below 2⁵³ every whole number is one of f64.
            Self::Real(number) if number.fract() == 0.0 && (0.0..=9_007_199_254_740_992.0).contains(number) => {
                Some(*number as u64)
            }
            _ => None,
        }
    }
}

impl fmt::Display for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => write!(f, "{flag}"),
            Self::Whole(number) => write!(f, "{number}"),
            Self::Real(number) => write!(f, "{number:?}"),
            Self::Text(text) => write!(f, "the text {text:?}"),
            Self::List(list) => write!(f, "a list of {}", list.len()),
            Self::Table(_) => f.write_str("a table"),
        }
    }
}

impl Item {
    pub(crate) fn table(&self) -> Option<&[(String, Self)]> {
        match &self.content {
            Content::Table(entries) => Some(entries),
            _ => None,
        }
    }

    /// The value of a key, if this is a table that has it.
    pub(crate) fn get(&self, key: &str) -> Option<&Self> {
        self.table()?.iter().find(|(own, _)| own == key).map(|(_, item)| item)
    }

    /// The error that something else is accepted here.
    pub(crate) fn wrong(&self, path: &str, accepted: impl Into<String>) -> Error {
        self.wrong_with(path, self.content.to_string(), accepted)
    }

    /// [`wrong`](Self::wrong), with words for what is here.
    pub(crate) fn wrong_with(&self, path: &str, found: String, accepted: impl Into<String>) -> Error {
        let problem = ConfigProblem::WrongKind { found, accepted: accepted.into() };
        Error::Config(ConfigError::new(path, self.line, problem))
    }

    /// The path below this item to a key of this name: its own keys first, then those of its entries, one after the other.
    pub(crate) fn find(&self, key: &str) -> Option<(String, Option<usize>)> {
        if let Some(item) = self.get(key) {
            return Some((key.to_owned(), item.line));
        }
        let below = |name: String, item: &Self| item.find(key).map(|(path, line)| (format!("{name}.{path}"), line));
        match &self.content {
            Content::Table(entries) => entries.iter().find_map(|(name, item)| below(name.clone(), item)),
            Content::List(items) => items.iter().enumerate().find_map(|(at, item)| below(at.to_string(), item)),
            _ => None,
        }
    }
}

impl Serialize for Item {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.content {
            Content::Flag(flag) => serializer.serialize_bool(*flag),
            Content::Whole(number) => serializer.serialize_i64(*number),
            Content::Real(number) => serializer.serialize_f64(*number),
            Content::Text(text) => serializer.serialize_str(text),
            Content::List(list) => serializer.collect_seq(list),
            Content::Table(entries) => serializer.collect_map(entries.iter().map(|(key, item)| (key, item))),
        }
    }
}

impl<'de> Deserialize<'de> for Item {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let content = deserializer.deserialize_any(ContentVisitor)?;
        Ok(Self { line: None, content })
    }
}

struct ContentVisitor;

impl<'de> Visitor<'de> for ContentVisitor {
    type Value = Content;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a setting: true or false, a number, a text, a list or a table")
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Content, E> {
        Ok(Content::Flag(flag))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Content, E> {
        Ok(Content::Whole(number))
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Content, E> {
        let whole = i64::try_from(number).map_err(|_| E::custom(format!("{number} is larger than 2⁶³ − 1")))?;
        Ok(Content::Whole(whole))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Content, E> {
        Ok(Content::real(number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Content, E> {
        Ok(Content::Text(text.to_owned()))
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut list: S) -> Result<Content, S::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Ok(Content::List(items))
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Content, M::Error> {
        let mut entries: Vec<(String, Item)> = Vec::new();
        while let Some((key, item)) = map.next_entry::<String, Item>()? {
            // With its feature `arbitrary_precision`, serde_json shows a number as a map.
            if key == "$serde_json::private::Number"
                && let Content::Text(digits) = &item.content
            {
                return match (digits.parse(), digits.parse()) {
                    (Ok(whole), _) => Ok(Content::Whole(whole)),
                    (_, Ok(number)) => Ok(Content::real(number)),
                    _ => Err(M::Error::custom(format!("{digits} is no number"))),
                };
            }
            if entries.iter().any(|(other, _)| *other == key) {
                return Err(M::Error::custom(format!("the key {key:?} is there twice")));
            }
            entries.push((key, item));
        }
        Ok(Content::Table(entries))
    }
}
