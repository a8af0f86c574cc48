//! What a serde type reads, found out by letting it read: its keys and kinds, as a JSON schema.

use std::cell::RefCell;
use std::fmt;
use std::marker::PhantomData;

use serde::de::value::StrDeserializer;
use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess};
use serde::de::{SeqAccess, VariantAccess, Visitor};
use serde::forward_to_deserialize_any;
use serde_json::{Map, Value as Json, json};

use super::reader::Fault;
use crate::error::ConfigProblem;

/// The schema of a number.
pub(crate) fn number() -> Json {
    json!({"$ref": "#/$defs/number"})
}

/// The schema of a count.
pub(crate) fn count() -> Json {
    json!({"type": "integer", "minimum": 0})
}

/// One key of a table: its kind, and whether it has to be there.
pub(crate) struct Field {
    pub(crate) key: String,
    pub(crate) shape: Json,
    pub(crate) required: bool,
}

/// The kind of a type, and a value of it.
pub(crate) fn of<T: DeserializeOwned>() -> (Json, Result<T, Fault>) {
    explore(PhantomData)
}

/// The kind of what a seed reads, and a value of it.
fn explore<'de, S: DeserializeSeed<'de>>(seed: S) -> (Json, Result<S::Value, Fault>) {
    let seen = RefCell::new(Json::Bool(true));
    let value = seed.deserialize(Explorer { seen: &seen, only: None });
    (seen.into_inner(), value)
}

/// The fields of a struct.
pub(crate) fn fields_of<T: DeserializeOwned>() -> Vec<Field> {
    let (shape, _) = of::<T>();
    let mut required: Vec<String> = Vec::new();
    // Every key that is missing is named in its turn.
    loop {
        let seen = RefCell::new(Json::Bool(true));
        let read = T::deserialize(Explorer { seen: &seen, only: Some(&required) });
        match read.as_ref().map_err(Fault::problem) {
            Err(ConfigProblem::MissingKey { key, .. }) if !required.contains(key) => required.push(key.clone()),
            _ => break,
        }
    }
    let properties = shape.get("properties").and_then(Json::as_object).cloned().unwrap_or_default();
    let field = |(key, shape): (String, Json)| Field { required: required.contains(&key), key, shape };
    properties.into_iter().map(field).collect()
}

/// Gives a type what it asks for, and notes it.
struct Explorer<'s> {
    seen: &'s RefCell<Json>,
    /// The only keys that are there.
    only: Option<&'s [String]>,
}

impl Explorer<'_> {
    fn see(&self, shape: Json) {
        *self.seen.borrow_mut() = shape;
    }
}

/// What a visitor says that it takes.
struct Wanted<'v, V>(&'v V);

impl<'de, V: Visitor<'de>> fmt::Display for Wanted<'_, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(f)
    }
}

impl<'de> Deserializer<'de> for Explorer<'_> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        // Numbers that are infinite and counts with an exponent are read as anything; what they are is in their words.
        let wanted = Wanted(&visitor).to_string();
        if wanted.starts_with("a pattern") {
            self.see(json!({"$ref": "#/$defs/pattern"}));
            return visitor.visit_str("**");
        }
        self.see(if wanted.starts_with("a count") { count() } else { number() });
        visitor.visit_u64(1)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.see(number());
        visitor.visit_f64(1.0)
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.see(count());
        visitor.visit_u64(1)
    }

    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_u64(visitor)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.see(json!({"type": "boolean"}));
        visitor.visit_bool(false)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.see(json!({"type": "string"}));
        visitor.visit_str("")
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let mut elements = Elements { shapes: Vec::new(), left: 1 };
        let value = visitor.visit_seq(&mut elements);
        self.see(json!({"type": "array", "items": elements.shapes.pop()}));
        value
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, Fault> {
        let mut elements = Elements { shapes: Vec::new(), left: length };
        let value = visitor.visit_seq(&mut elements);
        self.see(json!({"type": "array", "prefixItems": elements.shapes, "minItems": length, "maxItems": length}));
        value
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let is_there = |key: &&&str| self.only.is_none_or(|only| only.iter().any(|own| own == **key));
        let keys = fields.iter().filter(is_there).copied().collect();
        let mut entries = Entries { keys, at: 0, shapes: Map::new() };
        let value = visitor.visit_map(&mut entries);
        self.see(json!({"type": "object", "properties": entries.shapes, "additionalProperties": false}));
        value
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let with_content: Map<_, _> = variants.iter().map(|name| ((*name).to_owned(), json!(true))).collect();
        let table = json!({"type": "object", "properties": with_content, "additionalProperties": false,
            "minProperties": 1, "maxProperties": 1});
        self.see(json!({"anyOf": [{"enum": variants}, table]}));
        visitor.visit_enum(First(variants.first().copied().unwrap_or_default()))
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u16 u128 f32 char bytes byte_buf unit unit_struct tuple_struct map identifier ignored_any
    }
}

struct Elements {
    shapes: Vec<Json>,
    left: usize,
}

impl<'de> SeqAccess<'de> for &mut Elements {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Fault> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        let (shape, value) = explore(seed);
        self.shapes.push(shape);
        value.map(Some)
    }
}

struct Entries {
    keys: Vec<&'static str>,
    at: usize,
    shapes: Map<String, Json>,
}

impl<'de> MapAccess<'de> for &mut Entries {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        let Some(key) = self.keys.get(self.at) else { return Ok(None) };
        let key: StrDeserializer<'_, Fault> = (*key).into_deserializer();
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Fault> {
        let key = self.keys.get(self.at).copied().unwrap_or_default();
        self.at += 1;
        let (shape, value) = explore(seed);
        self.shapes.insert(key.to_owned(), shape);
        value
    }
}

/// The first variant, with whatever content it has.
struct First(&'static str);

impl<'de> EnumAccess<'de> for First {
    type Error = Fault;
    type Variant = Self;

    fn variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<(T::Value, Self), Fault> {
        let name: StrDeserializer<'_, Fault> = self.0.into_deserializer();
        Ok((seed.deserialize(name)?, self))
    }
}

impl<'de> VariantAccess<'de> for First {
    type Error = Fault;

    fn unit_variant(self) -> Result<(), Fault> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Fault> {
        explore(seed).1
    }

    fn tuple_variant<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, Fault> {
        Explorer { seen: &RefCell::new(Json::Bool(true)), only: None }.deserialize_tuple(length, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(self, fields: &'static [&'static str], visitor: V) -> Result<V::Value, Fault> {
        Explorer { seen: &RefCell::new(Json::Bool(true)), only: None }.deserialize_struct("", fields, visitor)
    }
}
