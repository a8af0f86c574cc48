//! The parts of a safetensors file, to be changed and joined again with a checksum that is right.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// A tensor as the file has it.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) dtype: String,
    pub(crate) shape: Vec<u64>,
    pub(crate) bytes: Vec<u8>,
}

/// A file in its parts.
#[derive(Clone)]
pub(crate) struct Parts {
    pub(crate) metadata: BTreeMap<String, String>,
    pub(crate) tensors: BTreeMap<String, Entry>,
}

impl Parts {
    pub(crate) fn of(file: &[u8]) -> Self {
        let (length, rest) = file.split_at(8);
        let (header, data) = rest.split_at(u64::from_le_bytes(length.try_into().unwrap()) as usize);
        let mut header: BTreeMap<String, Value> = serde_json::from_slice(header).unwrap();
        let metadata = header.remove("__metadata__").map(|texts| serde_json::from_value(texts).unwrap());
        let entry = |value: Value| {
            let [from, to]: [usize; 2] = serde_json::from_value(value["data_offsets"].clone()).unwrap();
            let shape = serde_json::from_value(value["shape"].clone()).unwrap();
            Entry { dtype: value["dtype"].as_str().unwrap().into(), shape, bytes: data[from..to].to_vec() }
        };
        let tensors = header.into_iter().map(|(name, value)| (name, entry(value))).collect();
        Self { metadata: metadata.unwrap_or_default(), tensors }
    }

    /// The file of these parts, with the checksum that belongs to them, if they have one; `change` changes the header after all else.
    pub(crate) fn join(&self, change: impl FnOnce(&mut Value)) -> Vec<u8> {
        let mut parts = self.clone();
        if parts.metadata.contains_key("checksum") {
            parts.metadata.insert("checksum".into(), self.checksum());
        }
        parts.join_unchecked(change)
    }

    /// The file of these parts, with whatever checksum is among them.
    pub(crate) fn join_unchecked(&self, change: impl FnOnce(&mut Value)) -> Vec<u8> {
        let mut header = serde_json::Map::from_iter([("__metadata__".into(), json!(self.metadata))]);
        let mut data = Vec::new();
        for (name, entry) in &self.tensors {
            let offsets = [data.len(), data.len() + entry.bytes.len()];
            header.insert(name.clone(), json!({"dtype": entry.dtype, "shape": entry.shape, "data_offsets": offsets}));
            data.extend_from_slice(&entry.bytes);
        }
        let mut header = Value::from(header);
        change(&mut header);
        let header = header.to_string().into_bytes();
        [&(header.len() as u64).to_le_bytes()[..], &header, &data].concat()
    }

    /// As `src/checkpoint/format.rs` computes it: each part after its length.
    fn checksum(&self) -> String {
        let mut hasher = crc32fast::Hasher::new();
        let mut add = |bytes: &[u8]| {
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        for (name, entry) in &self.tensors {
            add(name.as_bytes());
            add(entry.dtype.as_bytes());
            entry.shape.iter().for_each(|length| add(&length.to_le_bytes()));
            add(&entry.bytes);
        }
        for (key, text) in self.metadata.iter().filter(|(key, _)| *key != "checksum" && *key != "gradus.version") {
            add(key.as_bytes());
            add(text.as_bytes());
        }
        format!("{:08x}", hasher.finalize())
    }
}
