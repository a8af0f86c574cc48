//! Reads any serde type from a document; an error has its place.

use std::fmt;

use serde::de::value::{MapAccessDeserializer, StrDeserializer, StringDeserializer};
use serde::de::{DeserializeSeed, Deserializer, EnumAccess, Error, IntoDeserializer, MapAccess, SeqAccess, Unexpected};
use serde::de::{Expected, VariantAccess, Visitor};
use serde::forward_to_deserialize_any;

use super::item::{Content, Item};
use crate::error::{ConfigError, ConfigProblem, nearest};

/// A problem, and its place as soon as that is known.
#[derive(Debug)]
pub(crate) struct Fault {
    place: Option<(String, Option<usize>)>,
    problem: Box<ConfigProblem>,
}

impl Fault {
    fn new(problem: ConfigProblem) -> Self {
        Self { place: None, problem: Box::new(problem) }
    }

    pub(crate) fn problem(&self) -> &ConfigProblem {
        &self.problem
    }

    /// The same at this place, unless it has one.
    pub(crate) fn at(mut self, path: &str, line: Option<usize>) -> Self {
        self.place.get_or_insert_with(|| (path.to_owned(), line));
        self
    }

    /// The error, in what `owner` is the name of.
    pub(crate) fn of(self, owner: &str) -> ConfigError {
        let Self { place, mut problem } = self;
        if let ConfigProblem::UnknownKey { owner: own, .. } | ConfigProblem::MissingKey { owner: own, .. } =
            &mut *problem
        {
            own.clear();
            own.push_str(owner);
        }
        let (path, line) = place.unwrap_or_default();
        ConfigError { path, line, problem }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.problem, f)
    }
}

impl std::error::Error for Fault {}

impl Error for Fault {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(ConfigProblem::Unreadable { reason: message.to_string() })
    }

    fn invalid_type(found: Unexpected<'_>, accepted: &dyn Expected) -> Self {
        Self::invalid_value(found, accepted)
    }

    fn invalid_value(found: Unexpected<'_>, accepted: &dyn Expected) -> Self {
        let found = match found {
            Unexpected::Bool(flag) => flag.to_string(),
            Unexpected::Unsigned(number) => number.to_string(),
            Unexpected::Signed(number) => number.to_string(),
            Unexpected::Float(number) => number.to_string(),
            Unexpected::Str(text) => format!("the text {text:?}"),
            Unexpected::Seq => "a list".to_owned(),
            Unexpected::Map | Unexpected::StructVariant => "a table".to_owned(),
            Unexpected::UnitVariant => "a name alone".to_owned(),
            other => other.to_string(),
        };
        Self::new(ConfigProblem::WrongKind { found, accepted: accepted.to_string() })
    }

    fn invalid_length(length: usize, accepted: &dyn Expected) -> Self {
        Self::new(ConfigProblem::WrongKind { found: format!("a list of {length}"), accepted: accepted.to_string() })
    }

    fn unknown_variant(name: &str, known: &'static [&'static str]) -> Self {
        Self::new(ConfigProblem::UnknownName {
            kind: "choice",
            name: name.to_owned(),
            similar: nearest(name, known.iter().copied()),
            known: known.iter().map(|name| (*name).to_owned()).collect(),
        })
    }

    fn unknown_field(key: &str, known: &'static [&'static str]) -> Self {
        Self::new(ConfigProblem::UnknownKey {
            key: key.to_owned(),
            owner: String::new(),
            similar: nearest(key, known.iter().copied()),
            known: known.iter().map(|name| (*name).to_owned()).collect(),
        })
    }

    fn missing_field(key: &'static str) -> Self {
        Self::new(ConfigProblem::MissingKey { key: key.to_owned(), owner: String::new() })
    }
}

/// One item at its place.
pub(crate) struct ItemReader<'i> {
    item: &'i Item,
    path: String,
}

impl<'i> ItemReader<'i> {
    pub(crate) fn new(item: &'i Item, path: impl Into<String>) -> Self {
        Self { item, path: path.into() }
    }

    fn below(&self, name: &str, item: &'i Item) -> Self {
        Self::new(item, join(&self.path, name))
    }

    fn wrong(&self, accepted: &str) -> Fault {
        let (found, accepted) = (self.item.content.to_string(), accepted.to_owned());
        Fault::new(ConfigProblem::WrongKind { found, accepted }).at(&self.path, self.item.line)
    }

    fn number<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let number = self.item.content.number().ok_or_else(|| self.wrong("a number"))?;
        self.place(visitor.visit_f64(number))
    }

    fn count<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let count = self.item.content.count().ok_or_else(|| self.wrong("a count: a whole number ≥ 0"))?;
        self.place(visitor.visit_u64(count))
    }

    fn place<T>(&self, result: Result<T, Fault>) -> Result<T, Fault> {
        result.map_err(|fault| fault.at(&self.path, self.item.line))
    }
}

/// A path and a name below it.
pub(crate) fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

impl<'de> Deserializer<'de> for ItemReader<'_> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let result = match &self.item.content {
            Content::Flag(flag) => visitor.visit_bool(*flag),
            Content::Whole(number) => match u64::try_from(*number) {
                Ok(count) => visitor.visit_u64(count),
                Err(_) => visitor.visit_i64(*number),
            },
            Content::Real(number) => visitor.visit_f64(*number),
            Content::Text(text) => visitor.visit_str(text),
            Content::List(list) => visitor.visit_seq(Elements { reader: &self, list, at: 0 }),
            Content::Table(entries) => visitor.visit_map(Entries { reader: &self, entries, at: 0 }),
        };
        self.place(result)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.number(visitor)
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.number(visitor)
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.count(visitor)
    }

    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.count(visitor)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.item.content {
            Content::Flag(flag) => self.place(visitor.visit_bool(flag)),
            _ => Err(self.wrong("true or false")),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let result = match &self.item.content {
            Content::Text(name) => visitor
                .visit_enum(IntoDeserializer::<Fault>::into_deserializer(name.as_str()) as StrDeserializer<'_, Fault>),
            Content::Table(entries) => match entries.as_slice() {
                [(name, item)] => visitor.visit_enum(Choice { name, content: self.below(name, item) }),
                _ => Err(self.wrong(&choices(variants))),
            },
            _ => Err(self.wrong(&choices(variants))),
        };
        self.place(result)
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u16 u128 char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map struct
        identifier ignored_any
    }
}

fn choices(variants: &[&str]) -> String {
    format!("one of {}", variants.join(", "))
}

struct Elements<'r, 'i> {
    reader: &'r ItemReader<'i>,
    list: &'i [Item],
    at: usize,
}

impl<'de> SeqAccess<'de> for Elements<'_, '_> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Fault> {
        let Some(item) = self.list.get(self.at) else { return Ok(None) };
        let reader = self.reader.below(&self.at.to_string(), item);
        self.at += 1;
        seed.deserialize(reader).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.list.len() - self.at)
    }
}

struct Entries<'r, 'i> {
    reader: &'r ItemReader<'i>,
    entries: &'i [(String, Item)],
    at: usize,
}

impl<'de> MapAccess<'de> for Entries<'_, '_> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        let Some((key, item)) = self.entries.get(self.at) else { return Ok(None) };
        let key_reader: StringDeserializer<Fault> = key.clone().into_deserializer();
        let place = self.reader.below(key, item);
        place.place(seed.deserialize(key_reader)).map(Some)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Fault> {
        let Some((key, item)) = self.entries.get(self.at) else { return Err(Fault::custom("a key without a value")) };
        self.at += 1;
        seed.deserialize(self.reader.below(key, item))
    }
}

/// A table of one entry as a variant with content.
struct Choice<'i> {
    name: &'i str,
    content: ItemReader<'i>,
}

impl<'de, 'i> EnumAccess<'de> for Choice<'i> {
    type Error = Fault;
    type Variant = ItemReader<'i>;

    fn variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<(T::Value, ItemReader<'i>), Fault> {
        let name: StringDeserializer<Fault> = self.name.to_owned().into_deserializer();
        let name = self.content.place(seed.deserialize(name))?;
        Ok((name, self.content))
    }
}

impl<'de> VariantAccess<'de> for ItemReader<'_> {
    type Error = Fault;

    fn unit_variant(self) -> Result<(), Fault> {
        Err(self.wrong("the name alone, as a text"))
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Fault> {
        seed.deserialize(self)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_any(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], visitor: V) -> Result<V::Value, Fault> {
        match &self.item.content {
            Content::Table(entries) => {
                let access = MapAccessDeserializer::new(Entries { reader: &self, entries, at: 0 });
                self.place(access.deserialize_any(visitor))
            }
            _ => Err(self.wrong("a table")),
        }
    }
}
