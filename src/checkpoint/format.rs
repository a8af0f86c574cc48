//! The bytes of a checkpoint: safetensors with a checksum.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use safetensors::SafeTensors;
use serde_json::Value;

use super::bytes::{Bytes, names_of};
use super::{Checkpoint, OPTIMIZER};
use crate::error::{Error, FileError, Result};
use crate::params::{Layout, TensorInfo};
use crate::state::StateDict;
#[cfg(feature = "lora")]
use crate::state::StateTensor;

const FORMAT: &str = "gradus";
const VERSION: &str = "1";
const NOTE: &str = "note/";

/// Bytes before the header: its length.
const HEADER_LENGTH: usize = 8;

/// What the format has in the place of a tensor under this name.
const METADATA: &str = "__metadata__";

/// A metadata key that no other program writes, beside `format`: a file of ours of which either is damaged is still one of
/// ours, and its checksum looked at. It is not in the checksum.
const MARK: &str = "gradus.version";

impl Checkpoint {
    /// Returns the bytes of the file, to store them somewhere else.
    ///
    /// # Errors
    /// [`FileError::ReservedName`] for a parameter `__metadata__`; [`FileError::NotACheckpoint`] if the header would be larger than 100 MB.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        write(self)
    }

    /// Reads a checkpoint from the bytes of a file.
    ///
    /// # Errors
    /// [`FileError::NotACheckpoint`], [`FileError::CheckpointVersion`], [`FileError::Corrupted`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        read(bytes)
    }
}

fn write(checkpoint: &Checkpoint) -> Result<Vec<u8>> {
    let mut tensors = checkpoint.others.clone();
    tensors.extend(checkpoint.params.iter().map(|(path, tensor)| (path.clone(), Bytes::of(tensor))));
    let mut metadata: BTreeMap<String, String> =
        checkpoint.notes.iter().map(|(name, value)| (format!("{NOTE}{name}"), value.clone())).collect();
    metadata.insert("format".into(), FORMAT.into());
    metadata.insert("version".into(), VERSION.into());
    if let Some(StateDict { layout, texts, tensors: state }) = &checkpoint.optimizer {
        metadata.insert("layout".into(), layout.as_deref().map_or("null".into(), describe));
        metadata.extend(texts.iter().map(|(key, text)| (format!("{OPTIMIZER}{key}"), text.clone())));
        tensors.extend(state.iter().map(|(key, tensor)| (format!("{OPTIMIZER}{key}"), Bytes::of(tensor))));
    }
    metadata.insert("checksum".into(), checksum(&tensors, &metadata));
    metadata.insert(MARK.into(), VERSION.into());
    serialize(&tensors, HashMap::from_iter(metadata))
}

fn serialize(tensors: &BTreeMap<String, Bytes>, metadata: HashMap<String, String>) -> Result<Vec<u8>> {
    if tensors.contains_key(METADATA) {
        return Err(Error::File(FileError::ReservedName { path: METADATA.into() }));
    }
    safetensors::serialize(tensors, Some(metadata)).map_err(not_a_checkpoint)
}

/// Tensors alone, as the libraries around PyTorch write them.
#[cfg(feature = "lora")]
pub(crate) fn write_plain(tensors: &BTreeMap<String, StateTensor>) -> Result<Vec<u8>> {
    let tensors = tensors.iter().map(|(name, tensor)| (name.clone(), Bytes::of(tensor))).collect();
    serialize(&tensors, HashMap::from([("format".into(), "pt".into())]))
}

fn read(bytes: &[u8]) -> Result<Checkpoint> {
    ensure_within(bytes)?;
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(not_a_checkpoint)?;
    let mut metadata: BTreeMap<String, String> = header.metadata().clone().unwrap_or_default().into_iter().collect();
    let file = SafeTensors::deserialize(bytes).map_err(not_a_checkpoint)?;
    let mut tensors = BTreeMap::new();
    for (name, view) in file.iter() {
        let bytes = Bytes { dtype: view.dtype(), shape: view.shape().into(), bytes: view.data().into() };
        tensors.insert(name.to_owned(), bytes);
    }
    let mark = metadata.remove(MARK);
    if metadata.get("format").is_none_or(|format| format != FORMAT) && mark.is_none() {
        return Ok(foreign(tensors));
    }
    let checked = metadata.remove("checksum");
    let found = checksum(&tensors, &metadata);
    if metadata.get("version").is_none_or(|version| version != VERSION) {
        let found = metadata.remove("version").unwrap_or_default();
        return Err(Error::File(FileError::CheckpointVersion { found, supported: VERSION }));
    }
    if let Some(found) = mark.filter(|mark| mark != VERSION) {
        return Err(Error::File(FileError::CheckpointVersion { found, supported: VERSION }));
    }
    match checked {
        Some(expected) if expected == found => {}
        other => return Err(Error::File(FileError::Corrupted { expected: other.unwrap_or_default(), found })),
    }
    ours(tensors, metadata)
}

/// The file of another program: all its tensors are parameters, but those of other types.
fn foreign(tensors: BTreeMap<String, Bytes>) -> Checkpoint {
    let mut checkpoint = Checkpoint::default();
    tensors.into_iter().for_each(|(path, bytes)| keep(&mut checkpoint, path, bytes));
    checkpoint
}

/// As a parameter, or as something else that stands beside them.
fn keep(checkpoint: &mut Checkpoint, path: String, bytes: Bytes) {
    match bytes.to_tensor() {
        Some(tensor) if bytes.is_float() => _ = checkpoint.params.insert(path, tensor),
        _ => _ = checkpoint.others.insert(path, bytes),
    }
}

fn ours(tensors: BTreeMap<String, Bytes>, metadata: BTreeMap<String, String>) -> Result<Checkpoint> {
    let mut checkpoint = Checkpoint::default();
    if let Some(layout) = metadata.get("layout") {
        checkpoint.optimizer = Some(StateDict::new(parse(layout)?.map(Arc::new)));
    }
    for (name, bytes) in tensors {
        let (Some(key), Some(state)) = (name.strip_prefix(OPTIMIZER), &mut checkpoint.optimizer) else {
            keep(&mut checkpoint, name, bytes);
            continue;
        };
        let reason = || format!("tensor {name:?} has the type {}", bytes.dtype());
        let tensor = bytes.to_tensor().ok_or_else(|| Error::File(FileError::NotACheckpoint { reason: reason() }))?;
        state.tensors.insert(key.into(), tensor);
    }
    for (name, text) in metadata {
        if let (Some(key), Some(state)) = (name.strip_prefix(OPTIMIZER), &mut checkpoint.optimizer) {
            state.texts.insert(key.into(), text);
        } else if let Some(name) = name.strip_prefix(NOTE) {
            checkpoint.notes.insert(name.into(), text);
        }
    }
    Ok(checkpoint)
}

fn describe(layout: &Layout) -> String {
    let tensors = layout.tensors().iter().map(|info| Value::from(vec![Value::from(info.path()), info.shape().into()]));
    Value::from_iter(tensors).to_string()
}

fn parse(text: &str) -> Result<Option<Layout>> {
    let reason = || Error::File(FileError::NotACheckpoint { reason: "its layout cannot be read".into() });
    let tensors: Option<Vec<(String, Vec<usize>)>> = serde_json::from_str(text).map_err(|_| reason())?;
    let Some(tensors) = tensors else { return Ok(None) };
    // The elements of all must be a number, or nobody could have had them.
    let elements = |shape: &[usize]| shape.iter().try_fold(1_usize, |product, length| product.checked_mul(*length));
    let total = tensors.iter().try_fold(0_usize, |sum, (_, shape)| sum.checked_add(elements(shape)?));
    total.ok_or_else(reason)?;
    let infos = tensors.into_iter().map(|(path, shape)| TensorInfo::new(path, &shape)).collect();
    Layout::new(infos).map(Some)
}

/// What the header says lies within the file. The numbers of a hostile one overflow when they are added.
fn ensure_within(bytes: &[u8]) -> Result<()> {
    let reason = |reason: &str| Error::File(FileError::NotACheckpoint { reason: reason.into() });
    let (length, rest) = bytes.split_first_chunk::<HEADER_LENGTH>().ok_or_else(|| reason("it has no header"))?;
    let length = usize::try_from(u64::from_le_bytes(*length)).ok().filter(|length| *length <= rest.len());
    let (header, data) = rest.split_at(length.ok_or_else(|| reason("its header is longer than the file"))?);
    let header: HashMap<String, Value> = serde_json::from_slice(header).map_err(|error| reason(&error.to_string()))?;
    for (name, tensor) in header.iter().filter(|(name, _)| *name != METADATA) {
        let offsets = tensor.get("data_offsets").and_then(Value::as_array);
        let within = |offset: &Value| offset.as_u64().is_some_and(|offset| offset <= data.len() as u64);
        if !offsets.is_some_and(|offsets| offsets.iter().all(within)) {
            return Err(reason(&format!("tensor {name:?} lies beyond the end of the file")));
        }
    }
    Ok(())
}

/// CRC-32 of all names, types, shapes, numbers and texts.
fn checksum(tensors: &BTreeMap<String, Bytes>, metadata: &BTreeMap<String, String>) -> String {
    let mut hasher = crc32fast::Hasher::new();
    let mut add = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    for (name, tensor) in tensors {
        add(name.as_bytes());
        add(names_of(tensor.dtype).0.as_bytes());
        tensor.shape.iter().for_each(|length| add(&(*length as u64).to_le_bytes()));
        add(&tensor.bytes);
    }
    for (key, text) in metadata {
        add(key.as_bytes());
        add(text.as_bytes());
    }
    format!("{:08x}", hasher.finalize())
}

fn not_a_checkpoint(error: safetensors::SafeTensorError) -> Error {
    Error::File(FileError::NotACheckpoint { reason: error.to_string() })
}
