//! Numbers as files have them: infinities as text, counts with an exponent.
//!
//! JSON has no infinity and writes `null` in its place, which no number is read from. So text formats get `"inf"` and
//! `"-inf"`; formats of bytes get the number as it is.

use std::any::{Any, TypeId};
use std::fmt;

use serde::de::{Error, MapAccess, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub(super) fn serialize<S: Serializer>(number: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    if number.is_finite() || !serializer.is_human_readable() {
        serializer.serialize_f64(*number)
    } else {
        serializer.collect_str(number)
    }
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Number::deserialize(deserializer)?.0)
}

/// A count, which may be written `1e4`.
pub(super) fn count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    Ok(Count::deserialize(deserializer)?.0)
}

/// A count that may be left out.
pub(super) fn optional_count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    Ok(Option::<Count>::deserialize(deserializer)?.map(|Count(count)| count))
}

/// Counts in any order, sorted.
pub(super) fn sorted_counts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u64>, D::Error> {
    let mut counts: Vec<u64> = Vec::<Count>::deserialize(deserializer)?.into_iter().map(|Count(count)| count).collect();
    counts.sort_unstable();
    Ok(counts)
}

/// Pairs of a step and a value.
pub(super) mod points {
    use super::*;

    pub(in super::super) fn serialize<S: Serializer>(points: &[(u64, f64)], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(points.iter().map(|(step, value)| (step, Number(*value))))
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<(u64, f64)>, D::Error> {
        let points = Vec::<(Count, Number)>::deserialize(deserializer)?;
        Ok(points.into_iter().map(|(Count(step), Number(value))| (step, value)).collect())
    }
}

/// The schedule inside a combinator, which may be a number.
pub(super) mod inner {
    use super::*;

    pub(in super::super) fn serialize<T: Serialize + 'static, S: Serializer>(
        inner: &T,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match (inner as &dyn Any).downcast_ref() {
            Some(number) => super::serialize(number, serializer),
            None => inner.serialize(serializer),
        }
    }

    pub(in super::super) fn deserialize<'de, T: Deserialize<'de> + 'static, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<T, D::Error> {
        if TypeId::of::<T>() != TypeId::of::<f64>() {
            return T::deserialize(deserializer);
        }
        let number: Box<dyn Any> = Box::new(super::deserialize(deserializer)?);
        number.downcast().map(|number| *number).map_err(|_| Error::custom("not a number"))
    }
}

struct Number(f64);

impl Serialize for Number {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serialize(&self.0, serializer)
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match deserializer.is_human_readable() {
            true => deserializer.deserialize_any(NumberVisitor).map(Self),
            false => f64::deserialize(deserializer).map(Self),
        }
    }
}

struct NumberVisitor;

impl<'de> Visitor<'de> for NumberVisitor {
    type Value = f64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number, \"inf\" or \"-inf\"")
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<f64, E> {
        Ok(number)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<f64, E> {
        Ok(number as f64)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<f64, E> {
        Ok(number as f64)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<f64, E> {
        let beyond = text.parse().ok().filter(|number: &f64| !number.is_finite());
        beyond.ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }

    fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<f64, M::Error> {
        let digits = digits(map)?;
        digits.parse().map_err(|_| Error::invalid_value(Unexpected::Str(&digits), &self))
    }
}

struct Count(u64);

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match deserializer.is_human_readable() {
            true => deserializer.deserialize_any(CountVisitor).map(Self),
            false => u64::deserialize(deserializer).map(Self),
        }
    }
}

struct CountVisitor;

impl<'de> Visitor<'de> for CountVisitor {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a count: a whole number ≥ 0")
    }

    fn visit_u64<E: Error>(self, count: u64) -> Result<u64, E> {
        Ok(count)
    }

    fn visit_i64<E: Error>(self, count: i64) -> Result<u64, E> {
        u64::try_from(count).map_err(|_| E::invalid_value(Unexpected::Signed(count), &self))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<u64, E> {
        // Below 2⁵³ every whole number is one of f64.
        match number.fract() == 0.0 && (0.0..=9_007_199_254_740_992.0).contains(&number) {
            true => Ok(number as u64),
            false => Err(E::invalid_value(Unexpected::Float(number), &self)),
        }
    }

    fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<u64, M::Error> {
        let digits = digits(map)?;
        match (digits.parse(), digits.parse()) {
            (Ok(count), _) => Ok(count),
            (_, Ok(number)) => self.visit_f64(number),
            _ => Err(Error::invalid_value(Unexpected::Str(&digits), &self)),
        }
    }
}

/// The digits of a number where serde_json keeps them all, as its feature `arbitrary_precision` makes it: it shows a
/// number of unknown type as a map of one entry.
fn digits<'de, M: MapAccess<'de>>(mut map: M) -> Result<String, M::Error> {
    match map.next_entry::<String, String>()? {
        Some((key, digits)) if key == "$serde_json::private::Number" => Ok(digits),
        _ => Err(Error::invalid_type(Unexpected::Map, &"a number")),
    }
}

#[cfg(test)]
mod tests {
    use serde::de::value::{self, MapDeserializer};
    use serde::forward_to_deserialize_any;

    use super::*;

    /// What serde_json shows of `text` with its feature `arbitrary_precision`.
    fn all_digits<T: for<'de> Deserialize<'de>>(text: &str) -> Result<T, value::Error> {
        T::deserialize(MapDeserializer::new(std::iter::once(("$serde_json::private::Number", text))))
    }

    #[test]
    fn numbers_with_all_their_digits() {
        assert_eq!(all_digits::<Number>("1e-3").unwrap().0, 1e-3);
        assert_eq!(all_digits::<Count>("18446744073709551615").unwrap().0, u64::MAX);
        assert_eq!(all_digits::<Count>("1e4").unwrap().0, 10_000);
        for wrong in ["-1", "0.5", "1e300"] {
            assert!(all_digits::<Count>(wrong).is_err(), "{wrong}");
        }
        let other = MapDeserializer::<_, value::Error>::new(std::iter::once(("number", "1")));
        assert!(Number::deserialize(other).is_err());
    }

    /// A format of bytes, in which only what is asked for can be found.
    struct Bytes(f64);

    impl<'de> Deserializer<'de> for Bytes {
        type Error = value::Error;

        fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, value::Error> {
            Err(Error::custom("bytes do not say what they are"))
        }

        fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, value::Error> {
            visitor.visit_f64(self.0)
        }

        fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, value::Error> {
            visitor.visit_u64(self.0 as u64)
        }

        fn is_human_readable(&self) -> bool {
            false
        }

        forward_to_deserialize_any! {
            bool i8 i16 i32 i64 i128 u8 u16 u32 u128 f32 char str string bytes byte_buf option unit unit_struct
            newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
        }
    }

    #[test]
    fn bytes_have_numbers_as_they_are() {
        assert_eq!(Number::deserialize(Bytes(f64::INFINITY)).unwrap().0, f64::INFINITY);
        assert_eq!(Count::deserialize(Bytes(7.0)).unwrap().0, 7);
    }
}
