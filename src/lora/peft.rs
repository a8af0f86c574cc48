//! Adapters in the files of Hugging Face's [peft](https://huggingface.co/docs/peft).
//!
//! A folder holds `adapter_config.json` and `adapter_model.safetensors`, where the adapter of the module
//! `layers.0.query` has the tensors `base_model.model.layers.0.query.lora_A.weight`, `….lora_B.weight` and with DoRA
//! `….lora_magnitude_vector`.
//!
//! ```no_run
//! use gradus::lora::{Config, peft};
//! # use rand::SeedableRng;
//! # let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(0);
//! # let weight = ndarray::Array2::<f32>::eye(4);
//!
//! let config = Config::new(8, 16.0);
//! let adapter = config.adapt(&weight, &mut rng)?;
//! peft::save("adapter", &config, [("layers.0.query", &adapter)])?;
//!
//! let (config, adapters) = peft::load::<f32>("adapter")?;
//! let adapter = &adapters["layers.0.query"];
//! # Ok::<(), gradus::Error>(())
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use ndarray::{Array, Dimension, IxDyn};
use serde_json::{Map, Value, json};

use super::adapter::{Lora, NormGradient, lengths, shape};
use super::config::{Config, within};
use super::init::Init;
use crate::checkpoint::{Checkpoint, at_file, plain_bytes, write_atomically};
use crate::error::{Error, FileError, Result, StateError, StepError};
use crate::params::Scalar;
use crate::state::StateTensor;
use crate::state::data::Stored;

const MODEL: &str = "adapter_model.safetensors";
const CONFIG: &str = "adapter_config.json";
const PREFIX: &str = "base_model.model.";
const LORA_A: &str = ".lora_A.weight";
const LORA_B: &str = ".lora_B.weight";
const MAGNITUDE_VECTOR: &str = ".lora_magnitude_vector";

/// Settings that say nothing about the numbers of an adapter that has been trained.
const WITHOUT_EFFECT: [&str; 14] = [
    "auto_mapping",
    "base_model_name_or_path",
    "exclude_modules",
    "inference_mode",
    "layers_pattern",
    "layers_to_transform",
    "lora_dropout",
    "megatron_core",
    "peft_type",
    "peft_version",
    "qalora_group_size",
    "revision",
    "target_modules",
    "task_type",
];

/// Writes the adapters of a model, by the names of their modules, to a folder that `peft` can load. Each of the two files is replaced atomically.
///
/// All adapters must be made with `config`; otherwise an error is returned before a file is written. For adapters from [`Config::pissa`], `peft` needs the
/// changed weight too.
///
/// # Errors
/// [`ArgumentError::Range`](crate::error::ArgumentError::Range), [`ArgumentError::Shape`](crate::error::ArgumentError::Shape) for an adapter that is not of this configuration;
/// [`StepError::DuplicatePath`] for two of one module; [`FileError::Io`].
pub fn save<'l, A: Scalar>(
    folder: impl AsRef<Path>,
    config: &Config,
    adapters: impl IntoIterator<Item = (&'l str, &'l Lora<A>)>,
) -> Result<()> {
    config.check()?;
    let folder = folder.as_ref();
    let (mut tensors, mut modules) = (BTreeMap::new(), Vec::new());
    for (module, adapter) in adapters {
        ensure_made_with(config, adapter)?;
        if modules.contains(&module) {
            return Err(Error::Step(StepError::DuplicatePath { path: module.into() }));
        }
        modules.push(module);
        let mut insert = |suffix: &str, tensor| _ = tensors.insert(format!("{PREFIX}{module}{suffix}"), tensor);
        insert(LORA_A, pack(&adapter.lora_a));
        insert(LORA_B, pack(&adapter.lora_b));
        adapter.magnitude.iter().for_each(|magnitude| insert(MAGNITUDE_VECTOR, pack(magnitude)));
    }
    let settings = json!({
        "peft_type": "LORA",
        "task_type": null,
        "base_model_name_or_path": null,
        "target_modules": modules,
        "r": config.rank,
        "lora_alpha": config.alpha,
        "lora_dropout": config.dropout,
        "use_rslora": config.rank_stabilized,
        "use_dora": config.dora.is_some(),
        "init_lora_weights": if config.init == Init::Gaussian { json!("gaussian") } else { json!(true) },
        "bias": "none",
        "fan_in_fan_out": false,
        "inference_mode": true,
    });
    fs::create_dir_all(folder).map_err(|error| at_file(folder, &error))?;
    write_atomically(&folder.join(MODEL), &plain_bytes(&tensors)?)?;
    write_atomically(&folder.join(CONFIG), format!("{settings:#}\n").as_bytes())
}

/// Reads the adapters of a folder that peft or [`save`] wrote, by the names of their modules.
///
/// # Errors
/// [`FileError::Io`], [`FileError::NotACheckpoint`]; [`StateError::EntryValue`] for a setting that is not supported and changes the numbers, such as a separate rank for
/// one module; [`StateError::MissingEntry`], [`StateError::UnexpectedEntry`], [`StateError::EntryShape`], [`StateError::EntryType`] if the tensors are not adapters.
pub fn load<A: Scalar>(folder: impl AsRef<Path>) -> Result<(Config, BTreeMap<String, Lora<A>>)> {
    let folder = folder.as_ref();
    let path = folder.join(CONFIG);
    let text = fs::read(&path).map_err(|error| at_file(&path, &error))?;
    let settings = serde_json::from_slice(&text);
    let config = read_config(
        &settings.map_err(|error| Error::File(FileError::NotACheckpoint { reason: format!("{CONFIG}: {error}") }))?,
    )?;
    let file = Checkpoint::open(folder.join(MODEL))?;
    let mut adapters = BTreeMap::new();
    for key in file.params.keys() {
        let suffix = [LORA_A, LORA_B, MAGNITUDE_VECTOR].into_iter().find(|suffix| key.ends_with(suffix));
        let module = key.strip_prefix(PREFIX).zip(suffix).and_then(|(rest, suffix)| rest.strip_suffix(suffix));
        match module {
            Some(module) if suffix != Some(MAGNITUDE_VECTOR) || config.dora.is_some() => {
                if !adapters.contains_key(module) {
                    adapters.insert(module.to_owned(), read_adapter(&file, &config, module)?);
                }
            }
            _ => return Err(Error::State(StateError::UnexpectedEntry { key: key.clone(), into: "adapter" })),
        }
    }
    Ok((config, adapters))
}

fn ensure_made_with<A: Scalar>(config: &Config, adapter: &Lora<A>) -> Result<()> {
    let (a, b) = (&adapter.lora_a, &adapter.lora_b);
    shape("lora_a", &[config.rank, a.ncols()], a.shape())?;
    shape("lora_b", &[b.nrows(), config.rank], b.shape())?;
    let rows = [b.nrows()];
    let expected: &[usize] = if config.dora.is_some() { &rows } else { &[] };
    shape("magnitude", expected, lengths(&adapter.magnitude))?;
    within("alpha", config.alpha, adapter.scale == config.scale_as()?, "that of the adapters")
}

fn read_adapter<A: Scalar>(file: &Checkpoint, config: &Config, module: &str) -> Result<Lora<A>> {
    let key = |suffix: &str| format!("{PREFIX}{module}{suffix}");
    let sides = |suffix: &str| match file.params.get(&key(suffix)).map(|tensor| &*tensor.shape) {
        Some(&[rows, columns]) => Ok((rows, columns)),
        Some(found) => Err(Error::State(StateError::EntryValue {
            key: key(suffix),
            value: format!("of shape {found:?}"),
            accepted: "a matrix",
        })),
        None => Err(Error::State(StateError::MissingEntry { key: key(suffix), similar: Vec::new() })),
    };
    let ((_, inputs), (outputs, _)) = (sides(LORA_A)?, sides(LORA_B)?);
    let magnitude = config.dora.map(|_| unpack(file, &key(MAGNITUDE_VECTOR), [outputs])).transpose()?;
    Ok(Lora {
        lora_a: unpack(file, &key(LORA_A), [config.rank, inputs])?,
        lora_b: unpack(file, &key(LORA_B), [outputs, config.rank])?,
        magnitude,
        scale: config.scale_as()?,
        dropout: config.dropout,
        norm: config.dora.unwrap_or_default(),
    })
}

fn read_config(settings: &Map<String, Value>) -> Result<Config> {
    let refuse = |key: &str, accepted| {
        let value = settings.get(key).unwrap_or(&Value::Null).to_string();
        Error::State(StateError::EntryValue { key: format!("{CONFIG}/{key}"), value, accepted })
    };
    let flag = |key: &str| match settings.get(key) {
        None | Some(Value::Null) => Ok(false), // files of older versions of peft lack some
        Some(value) => value.as_bool().ok_or_else(|| refuse(key, "true or false")),
    };
    let dropout = match settings.get("lora_dropout") {
        None | Some(Value::Null) => 0.0,
        Some(value) => value.as_f64().ok_or_else(|| refuse("lora_dropout", "a number"))?,
    };
    let rank = settings.get("r").and_then(Value::as_u64).ok_or_else(|| refuse("r", "a count"))?;
    let alpha = settings.get("lora_alpha").and_then(Value::as_f64).ok_or_else(|| refuse("lora_alpha", "a number"))?;
    if settings.get("peft_type").and_then(Value::as_str) != Some("LORA") {
        return Err(refuse("peft_type", "LORA"));
    }
    let init = match settings.get("init_lora_weights") {
        None | Some(Value::Bool(_)) => Init::Kaiming,
        Some(Value::String(name)) if name == "gaussian" => Init::Gaussian,
        // The others change the base weight when the adapter is put on.
        Some(_) => return Err(refuse("init_lora_weights", "true, false or gaussian")),
    };
    let known = ["r", "lora_alpha", "use_rslora", "use_dora", "init_lora_weights"];
    for (key, value) in settings {
        let is_off = match value {
            Value::Null | Value::Bool(false) => true,
            Value::Array(list) => list.is_empty(),
            Value::Object(map) => map.is_empty(),
            Value::String(text) => key == "bias" && text == "none",
            _ => false,
        };
        if !is_off && !known.contains(&&**key) && !WITHOUT_EFFECT.contains(&&**key) {
            return Err(refuse(key, "left out: adapters that have it are not known here"));
        }
    }
    let config = Config {
        rank: usize::try_from(rank).map_err(|_| refuse("r", "a count"))?,
        alpha,
        rank_stabilized: flag("use_rslora")?,
        dropout,
        init,
        dora: flag("use_dora")?.then_some(NormGradient::Detached),
    };
    config.check()?;
    Ok(config)
}

fn pack<A: Scalar, D: Dimension>(values: &Array<A, D>) -> StateTensor {
    StateTensor { shape: values.shape().into(), data: Stored::pack(values.iter().copied().collect()) }
}

fn unpack<A: Scalar, D: Dimension, const N: usize>(
    file: &Checkpoint,
    key: &str,
    shape: [usize; N],
) -> Result<Array<A, D>> {
    let tensor = file
        .params
        .get(key)
        .ok_or_else(|| Error::State(StateError::MissingEntry { key: key.into(), similar: Vec::new() }))?;
    tensor.ensure(key, &shape, A::DTYPE)?;
    let wrong = || {
        Error::State(StateError::EntryShape { key: key.into(), expected: shape.into(), found: tensor.shape.to_vec() })
    };
    let values = A::unpack(&tensor.data).ok_or_else(wrong)?;
    let array = Array::from_shape_vec(IxDyn(&shape), values).ok().and_then(|array| array.into_dimensionality().ok());
    array.ok_or_else(wrong)
}
