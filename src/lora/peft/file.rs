//! The tensors of `adapter_model.safetensors`.

use std::collections::BTreeMap;

use half::{bf16, f16};
use ndarray::{Array, Array1, Array2, ArrayD, Dimension, IxDyn};

use super::config::AdapterConfig;
use crate::error::{Error, Result, StateError};
use crate::lora::adapter::Lora;
use crate::lora::layer::AdaptedLayer;
use crate::params::{Element, Scalar};
use crate::state::StateTensor;
use crate::state::data::{Data, Stored};

const PREFIX: &str = "base_model.model.";
const LINEAR: [&str; 2] = [".lora_A.weight", ".lora_B.weight"];
const EMBEDDED: [&str; 2] = [".lora_embedding_A", ".lora_embedding_B"];
const MAGNITUDE_VECTOR: &str = ".lora_magnitude_vector";

/// What `peft` has between a module and its own tensors if the module also has an adapter.
const BASE: &str = ".base_layer.";

/// The element type of the tensors in a file. The numbers are converted when they are read and written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileType {
    /// `f64`.
    F64,
    /// `f32`.
    F32,
    /// `bf16`: 8 bits of precision.
    Bf16,
    /// `f16`: 11 bits of precision, up to 65,504.
    F16,
}

impl FileType {
    /// The type that holds the numbers of this Rust type.
    pub(super) fn of<A: Element>() -> Self {
        if A::DTYPE == "f64" { Self::F64 } else { Self::F32 }
    }

    /// The type of the tensors, or the narrowest that holds those of several types.
    pub(super) fn of_tensors<'t>(tensors: impl Iterator<Item = &'t StateTensor>) -> Option<Self> {
        let of = |tensor: &StateTensor| match tensor.data {
            Data::F64(_) => Some(Self::F64),
            Data::F32(_) => Some(Self::F32),
            Data::Bf16(_) => Some(Self::Bf16),
            Data::F16(_) => Some(Self::F16),
            _ => None,
        };
        tensors.filter_map(of).reduce(|one, other| match (one, other) {
            _ if one == other => one,
            (Self::F64, _) | (_, Self::F64) => Self::F64,
            _ => Self::F32,
        })
    }

    fn pack<A: Element, D: Dimension>(self, values: &Array<A, D>, shape: &[usize]) -> StateTensor {
        let values = values.iter().map(|value| value.as_f64());
        let data = match self {
            Self::F64 => f64::pack(values.collect()),
            Self::F32 => f32::pack(values.map(|value| value as f32).collect()),
            Self::Bf16 => Data::Bf16(values.map(|value| bf16::from_f64(value).to_bits()).collect()),
            Self::F16 => Data::F16(values.map(|value| f16::from_f64(value).to_bits()).collect()),
        };
        StateTensor { shape: shape.into(), data }
    }
}

/// The tensors of a file, sorted.
pub(super) struct Contents<A> {
    pub(super) modules: BTreeMap<String, Lora<A>>,
    pub(super) saved: BTreeMap<String, ArrayD<A>>,
}

/// Reads all tensors of a file.
pub(super) fn read<A: Scalar>(config: &AdapterConfig, tensors: &BTreeMap<String, StateTensor>) -> Result<Contents<A>> {
    let (mut modules, mut saved) = (BTreeMap::new(), BTreeMap::new());
    let unexpected = |key: &str| Error::State(StateError::UnexpectedEntry { key: key.into(), into: "adapter" });
    for (key, tensor) in tensors {
        let name = key.strip_prefix(PREFIX).ok_or_else(|| unexpected(key))?;
        let suffix = LINEAR.iter().chain(&EMBEDDED).chain([&MAGNITUDE_VECTOR]).find(|suffix| name.ends_with(**suffix));
        let Some((suffix, module)) = suffix.and_then(|suffix| Some((*suffix, name.strip_suffix(suffix)?))) else {
            let path = name.replace(BASE, ".");
            if !config.saves(&path, path != name) {
                return Err(unexpected(key));
            }
            let values = ArrayD::from_shape_vec(IxDyn(&tensor.shape), numbers(key, tensor)?);
            saved.insert(path, values.map_err(|_| unexpected(key))?);
            continue;
        };
        if (suffix == MAGNITUDE_VECTOR && config.base().dora.is_none()) || !is_target(config, module)? {
            return Err(unexpected(key));
        }
        if !modules.contains_key(module) {
            modules.insert(module.to_owned(), read_module(config, tensors, module)?);
        }
    }
    Ok(Contents { modules, saved })
}

/// Whether the configuration has this module. One whose regular expression cannot be read has those in the file.
fn is_target(config: &AdapterConfig, module: &str) -> Result<bool> {
    Ok(config.targets(module).unwrap_or(true))
}

fn read_module<A: Scalar>(
    config: &AdapterConfig,
    tensors: &BTreeMap<String, StateTensor>,
    module: &str,
) -> Result<Lora<A>> {
    let own = config.of(module)?;
    own.check()?;
    let key = |suffix: &str| format!("{PREFIX}{module}{suffix}");
    let is_embedding = tensors.contains_key(&key(EMBEDDED[0])) || tensors.contains_key(&key(EMBEDDED[1]));
    let [a, b] = if is_embedding { EMBEDDED } else { LINEAR }.map(key);
    let find = |key: &str| {
        let missing = || Error::State(StateError::MissingEntry { key: key.into(), similar: Vec::new() });
        tensors.get(key).ok_or_else(missing)
    };
    let axes = |key: &str| Ok(find(key)?.shape.to_vec());
    let matrix_needed = |key: &str, found: &[usize]| {
        let value = format!("of shape {found:?}");
        Error::State(StateError::EntryValue {
            key: key.into(),
            value,
            accepted: "a matrix, or the kernel of a convolution",
        })
    };
    let (a_shape, b_shape) = (axes(&a)?, axes(&b)?);
    let [_, window @ ..] = &a_shape[..] else { return Err(matrix_needed(&a, &a_shape)) };
    let [outputs, ..] = b_shape[..] else { return Err(matrix_needed(&b, &b_shape)) };
    let layer = match window {
        [] => return Err(matrix_needed(&a, &a_shape)),
        [_] if is_embedding => AdaptedLayer::Embedding,
        [_] if own.fan_in_fan_out => AdaptedLayer::FanInFanOut,
        [_] => AdaptedLayer::Linear,
        _ => AdaptedLayer::Convolution { window: window.to_vec() },
    };
    let shapes = Shapes::new(&layer, own.rank, outputs, window);
    let inputs = window.iter().try_fold(1_usize, |product, side| product.checked_mul(*side));
    let inputs = inputs.ok_or_else(|| matrix_needed(&a, &a_shape))?;
    let read = |key: &str, shape: &[usize]| {
        let tensor = find(key)?;
        let wrong = || {
            let found = tensor.shape.to_vec();
            Error::State(StateError::EntryShape { key: key.into(), expected: shape.into(), found })
        };
        if *tensor.shape != *shape {
            return Err(wrong());
        }
        Ok((numbers::<A>(key, tensor)?, wrong()))
    };
    let matrix = |key: &str, shape: &[usize], sides| {
        let (values, wrong) = read(key, shape)?;
        Array2::from_shape_vec(sides, values).map_err(|_| wrong)
    };
    let magnitude = own.dora.map(|_| Ok(Array1::from_vec(read(&key(MAGNITUDE_VECTOR), &shapes.magnitude)?.0)));
    Ok(Lora {
        lora_a: matrix(&a, &shapes.a, (own.rank, inputs))?,
        lora_b: matrix(&b, &shapes.b, (outputs, own.rank))?,
        magnitude: magnitude.transpose()?,
        scale: own.scale_as()?,
        dropout: own.dropout,
        norm: own.dora.unwrap_or_default(),
        layer,
    })
}

/// The shapes of a module's tensors in the file.
struct Shapes {
    a: Vec<usize>,
    b: Vec<usize>,
    magnitude: Vec<usize>,
}

impl Shapes {
    /// `window` has the axes of A after the first.
    fn new(layer: &AdaptedLayer, rank: usize, outputs: usize, window: &[usize]) -> Self {
        let a = std::iter::once(rank).chain(window.iter().copied()).collect();
        let (mut b, mut magnitude) = (vec![outputs, rank], vec![outputs]);
        if let AdaptedLayer::Convolution { window } = layer {
            let ones = window.len().saturating_sub(1);
            b.resize(2 + ones, 1);
            magnitude.insert(0, 1);
            magnitude.resize(2 + ones, 1);
        }
        Self { a, b, magnitude }
    }
}

/// Adds the tensors of an adapter to those of a file.
pub(super) fn write_module<A: Scalar>(
    module: &str,
    adapter: &Lora<A>,
    file_type: FileType,
    tensors: &mut BTreeMap<String, StateTensor>,
) {
    let (rank, outputs) = (adapter.lora_a.nrows(), adapter.lora_b.nrows());
    let window = match &adapter.layer {
        AdaptedLayer::Convolution { window } => window.clone(),
        _ => vec![adapter.lora_a.ncols()],
    };
    let shapes = Shapes::new(&adapter.layer, rank, outputs, &window);
    let [a, b] = if adapter.layer == AdaptedLayer::Embedding { EMBEDDED } else { LINEAR };
    let mut insert = |suffix: &str, tensor| _ = tensors.insert(format!("{PREFIX}{module}{suffix}"), tensor);
    insert(a, file_type.pack(&adapter.lora_a, &shapes.a));
    insert(b, file_type.pack(&adapter.lora_b, &shapes.b));
    if let Some(magnitude) = &adapter.magnitude {
        insert(MAGNITUDE_VECTOR, file_type.pack(magnitude, &shapes.magnitude));
    }
}

/// Adds a tensor that is saved whole. `module` is the adapted module that it is the base weight or bias of.
pub(super) fn write_saved<A: Scalar>(
    path: &str,
    module: Option<&str>,
    values: &ArrayD<A>,
    file_type: FileType,
    tensors: &mut BTreeMap<String, StateTensor>,
) {
    let own = module.and_then(|module| path.strip_prefix(module)?.strip_prefix('.').map(|own| (module, own)));
    let key = match own {
        Some((module, own)) => format!("{PREFIX}{module}{BASE}{own}"),
        None => format!("{PREFIX}{path}"),
    };
    tensors.insert(key, file_type.pack(values, values.shape()));
}

/// The numbers of a tensor in the type of the adapter.
fn numbers<A: Element>(key: &str, tensor: &StateTensor) -> Result<Vec<A>> {
    let elements = tensor.shape.iter().try_fold(1_usize, |product, length| product.checked_mul(*length));
    let convert = |values: &mut dyn Iterator<Item = f64>| values.map(A::from_f64).collect::<Vec<A>>();
    let values = match &tensor.data {
        Data::F64(values) => convert(&mut values.iter().copied()),
        Data::F32(values) => convert(&mut values.iter().map(|value| f64::from(*value))),
        Data::Bf16(bits) => convert(&mut bits.iter().map(|bits| bf16::from_bits(*bits).to_f64())),
        Data::F16(bits) => convert(&mut bits.iter().map(|bits| f16::from_bits(*bits).to_f64())),
        other => {
            return Err(Error::State(StateError::EntryType {
                key: key.into(),
                expected: A::DTYPE,
                found: other.dtype(),
            }));
        }
    };
    match Some(values.len()) == elements {
        true => Ok(values),
        false => {
            let (expected, found) = (tensor.shape.to_vec(), vec![values.len()]);
            Err(Error::State(StateError::EntryShape { key: key.into(), expected, found }))
        }
    }
}
