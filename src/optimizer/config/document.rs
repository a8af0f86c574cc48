//! A configuration as it was read.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::item::Item;
use super::text;
use crate::error::Result;

/// A configuration: the optimizer, and the adaptors around it, as data. [`build`](Self::build) makes them.
///
/// It is serde data, so it can be a part of your own settings; errors have line numbers only if it was read by [`from_toml`](Self::from_toml).
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    root: Item,
}

impl Config {
    /// Reads TOML. The names in it are only looked up by [`build`](Self::build).
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) with the line, if the text is not TOML.
    pub fn from_toml(text: &str) -> Result<Self> {
        Ok(Self { root: text::from_toml(text)? })
    }

    /// Reads JSON. It has the same keys as TOML; infinity is `"inf"`.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) with the line, if the text is not JSON.
    pub fn from_json(text: &str) -> Result<Self> {
        Ok(Self { root: text::from_json(text)? })
    }

    /// The configuration in TOML; infinity is `"inf"`. Comments are lost.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) if the document is not a table.
    pub fn to_toml(&self) -> Result<String> {
        text::to_toml(&self.root)
    }

    /// The configuration in JSON.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) if serde_json returns an error.
    pub fn to_json(&self) -> Result<String> {
        text::to_json(&self.root)
    }

    pub(super) fn root(&self) -> &Item {
        &self.root
    }
}

impl Serialize for Config {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.root.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Config {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self { root: Item::deserialize(deserializer)? })
    }
}
