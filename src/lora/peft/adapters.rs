//! All adapters of a model.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use ndarray::{ArrayD, ArrayViewD};
use rand::Rng;

use super::config::{AdapterConfig, FileInit};
use super::file::{FileType, read, write_module, write_saved};
use super::names::CONFIG;
use crate::checkpoint::{Checkpoint, at_file, plain_bytes, write_atomically};
use crate::error::{Error, FileError, Result, StateError};
use crate::lora::adapter::{Lora, lengths, shape};
use crate::lora::config::{Config, within};
use crate::lora::layer::AdaptedLayer;
use crate::params::{Params, ParamsMut, Scalar, for_each, for_each_mut};

const MODEL: &str = "adapter_model.safetensors";

/// The end of the path of a module's weight.
const WEIGHT: &str = ".weight";

/// The adapters of a model, by the names of their modules, with their configuration.
///
/// `modules` and `saved` are parameter trees. To train both, step the pair: `opt.step(&mut (&mut adapters.modules, &mut adapters.saved), &grads)`.
#[derive(Debug, Clone, PartialEq)]
pub struct Adapters<A> {
    /// The adapters, by the names of their modules, such as `model.layers.0.self_attn.q_proj`.
    pub modules: BTreeMap<String, Lora<A>>,
    /// Tensors of the model that are saved whole, by path, such as `classifier.weight`: those of `modules_to_save`, biases, and resized embeddings. They
    /// replace the tensors of the base model.
    pub saved: BTreeMap<String, ArrayD<A>>,
    config: AdapterConfig,
    file_type: FileType,
}

impl<A: Scalar> Adapters<A> {
    /// Creates a collection without adapters. Insert each with its module's name: `adapters.modules.insert(name, config.of(name)?.adapt(&weight, &mut rng)?)`.
    pub fn new(config: AdapterConfig) -> Self {
        Self { modules: BTreeMap::new(), saved: BTreeMap::new(), config, file_type: FileType::of::<A>() }
    }

    /// Creates an adapter for each weight of a model that is a [target](AdapterConfig::targets), and copies the tensors that are saved whole.
    ///
    /// Weights have two axes or more, and the path of a module's weight is the module's name, or that name and `weight`. Weights of two axes are those of linear
    /// layers. An embedding's adapter is created by [`Config::adapt_embedding`]; insert it after this call.
    ///
    /// # Errors
    /// Those of [`AdapterConfig::targets`] and [`Config::adapt`]; [`Error::Other`] if no weight is a target.
    pub fn for_model(
        config: AdapterConfig,
        model: &(impl Params<Elem = A> + ?Sized),
        rng: &mut impl Rng,
    ) -> Result<Self> {
        let (mut adapters, mut result) = (Self::new(config), Ok(()));
        for_each(model, |path, shape, values| {
            if let (Some(values), Ok(())) = (values, &result) {
                let values = values.view(shape);
                let path = path.to_string();
                let module = path.strip_suffix(WEIGHT).unwrap_or(&path);
                if adapters.config.is_whole(&path) {
                    adapters.saved.insert(path, values.to_owned());
                } else if shape.len() > 1 {
                    result = adapters.insert(module, |config| config.adapt(&values, rng));
                }
            }
        });
        result?;
        match adapters.modules.is_empty() {
            true => Err(Error::Other("no weight of the model is a target of the configuration".into())),
            false => Ok(adapters),
        }
    }

    /// Inserts the adapter of a module, if it is a target.
    fn insert(&mut self, module: &str, adapt: impl FnOnce(&Config) -> Result<Lora<A>>) -> Result<()> {
        if self.config.targets(module)? {
            self.modules.insert(module.to_owned(), adapt(&self.config.of(module)?)?);
        }
        Ok(())
    }

    /// The configuration.
    pub fn config(&self) -> &AdapterConfig {
        &self.config
    }

    /// The element type in which [`save`](Self::save) writes: that of the file from [`load`](Self::load), or else that of the adapters.
    pub fn file_type(&self) -> FileType {
        self.file_type
    }

    /// Sets the element type in which [`save`](Self::save) writes. With 16 bits, the numbers are rounded to the nearest.
    pub fn set_file_type(&mut self, file_type: FileType) {
        self.file_type = file_type;
    }

    /// Reads a folder that `peft` or [`save`](Self::save) wrote. Numbers in `bf16`, `f16`, `f32` or `f64` are converted to the adapters' type.
    ///
    /// # Errors
    /// [`FileError::Io`], [`FileError::NotACheckpoint`]; [`StateError::EntryValue`] for a setting that is not supported and changes the numbers;
    /// [`StateError::MissingEntry`], [`StateError::UnexpectedEntry`], [`StateError::EntryShape`], [`StateError::EntryType`] if the tensors do not fit the
    /// configuration.
    pub fn load(folder: impl AsRef<Path>) -> Result<Self> {
        let folder = folder.as_ref();
        let path = folder.join(CONFIG);
        let text = fs::read(&path).map_err(|error| at_file(&path, &error))?;
        let settings = serde_json::from_slice(&text);
        let config = AdapterConfig::read(
            settings
                .map_err(|error| Error::File(FileError::NotACheckpoint { reason: format!("{CONFIG}: {error}") }))?,
        )?;
        let file = Checkpoint::open(folder.join(MODEL))?;
        let contents = read(&config, &file.params)?;
        let file_type = FileType::of_tensors(file.params.values()).unwrap_or_else(FileType::of::<A>);
        Ok(Self { modules: contents.modules, saved: contents.saved, config, file_type })
    }

    /// Writes a folder that `peft` can load. Each of the two files is replaced atomically.
    ///
    /// All adapters must have the rank and α of the [configuration](AdapterConfig::of) of their modules; otherwise an error is returned before a file is
    /// written. For adapters from [`Config::pissa`], `peft` needs the changed weight too.
    ///
    /// # Errors
    /// [`ArgumentError::Range`](crate::error::ArgumentError::Range), [`ArgumentError::Shape`](crate::error::ArgumentError::Shape) for an adapter that is not of
    /// this configuration; [`StateError::UnexpectedEntry`] for a module or tensor that `peft` would not load; [`FileError::Io`].
    pub fn save(&self, folder: impl AsRef<Path>) -> Result<()> {
        let folder = folder.as_ref();
        let unexpected = |key: &str| {
            Error::State(StateError::UnexpectedEntry { key: key.into(), into: "configuration of the adapters" })
        };
        let mut tensors = BTreeMap::new();
        self.config.base().check()?;
        for (module, adapter) in &self.modules {
            if !self.config.targets(module).unwrap_or(true) {
                return Err(unexpected(module));
            }
            ensure_made_with(&self.config.of(module)?, adapter)?;
            write_module(module, adapter, self.file_type, &mut tensors);
        }
        for (path, values) in &self.saved {
            let module = path.rsplit_once('.').map(|(module, _)| module);
            let module = module.filter(|module| self.modules.contains_key(*module));
            if !self.config.saves(path, module.is_some()) {
                return Err(unexpected(path));
            }
            write_saved(path, module, values, self.file_type, &mut tensors);
        }
        let settings = serde_json::to_string_pretty(&self.config.settings).unwrap_or_default();
        fs::create_dir_all(folder).map_err(|error| at_file(folder, &error))?;
        write_atomically(&folder.join(MODEL), &plain_bytes(&tensors)?)?;
        write_atomically(&folder.join(CONFIG), settings.as_bytes())
    }

    /// Changes the weights of the base model to those that the adapters were trained with, as `peft` does when it loads an adapter: tensors that are
    /// [saved](Self::saved) whole are copied, and with the initialization `"pissa"` the principal parts are subtracted. Other weights do not change. Call it
    /// once, before you use the adapters beside the weights.
    ///
    /// `peft` computes `"pissa_niter_…"` approximately; here the decomposition is exact.
    ///
    /// # Errors
    /// [`StateError::UnexpectedEntry`] for a module or tensor that the model does not have; [`ArgumentError::Shape`](crate::error::ArgumentError::Shape),
    /// [`ArgumentError::NotFinite`](crate::error::ArgumentError::NotFinite). On an error the model is unchanged.
    pub fn prepare(&self, model: &mut (impl ParamsMut<Elem = A> + ?Sized)) -> Result<()> {
        self.change(model, false)
    }

    /// [Prepares](Self::prepare) the base model and merges all adapters into its weights: the model alone then gives the adapted outputs.
    ///
    /// # Errors
    /// Those of [`prepare`](Self::prepare).
    pub fn merge_into(&self, model: &mut (impl ParamsMut<Elem = A> + ?Sized)) -> Result<()> {
        self.change(model, true)
    }

    /// Two passes: the first finds the errors, and its results are dropped one by one. So the second cannot fail halfway, and no second model is in memory.
    fn change(&self, model: &mut (impl ParamsMut<Elem = A> + ?Sized), merges: bool) -> Result<()> {
        let mut missing: BTreeSet<&str> = self.modules.keys().chain(self.saved.keys()).map(String::as_str).collect();
        let mut result = Ok(());
        for_each_mut(model, |path, shape, values| {
            if let (Some(values), true) = (values, result.is_ok()) {
                let found = self.found(&path.to_string());
                found.names().for_each(|name| _ = missing.remove(name));
                result = self.changed(&found, values.as_values().view(shape), merges).map(|_| ());
            }
        });
        result?;
        if let Some(key) = missing.first() {
            return Err(Error::State(StateError::UnexpectedEntry { key: (*key).into(), into: "model" }));
        }
        let mut result = Ok(());
        for_each_mut(model, |path, shape, values| {
            if let (Some(mut values), true) = (values, result.is_ok()) {
                let found = self.found(&path.to_string());
                let new = self.changed(&found, values.as_values().view(shape), merges);
                match new {
                    Ok(Some(new)) => values.view_mut(shape).assign(&new),
                    Ok(None) => {}
                    Err(error) => result = Err(error),
                }
            }
        });
        result
    }

    /// What belongs to the tensor of the model that has this path.
    fn found(&self, path: &str) -> Found<'_, A> {
        let weight = format!("{path}{WEIGHT}");
        let saved = self.saved.get_key_value(path).or_else(|| self.saved.get_key_value(&weight));
        let module = path.strip_suffix(WEIGHT).and_then(|module| self.modules.get_key_value(module));
        Found { saved, module: module.or_else(|| self.modules.get_key_value(path)) }
    }

    /// The new values of a tensor of the model, if they are others.
    fn changed(&self, found: &Found<'_, A>, old: ArrayViewD<'_, A>, merges: bool) -> Result<Option<ArrayD<A>>> {
        if let Some((key, saved)) = found.saved.filter(|(_, saved)| saved.shape() != old.shape()) {
            let (expected, found) = (old.shape().to_vec(), saved.shape().to_vec());
            return Err(Error::State(StateError::EntryShape { key: key.clone(), expected, found }));
        }
        let mut new = found.saved.map(|(_, saved)| saved.clone());
        if let Some((module, adapter)) = found.module {
            let is_linear = matches!(adapter.layer, AdaptedLayer::Linear | AdaptedLayer::FanInFanOut);
            let weight = new.get_or_insert_with(|| old.to_owned());
            adapter.matrix(weight)?;
            if is_linear && self.config.init == FileInit::Principal {
                let mut config = self.config.of(module)?;
                config.fan_in_fan_out = adapter.layer == AdaptedLayer::FanInFanOut;
                config.dora = None;
                _ = config.pissa(weight)?;
            }
            if merges {
                _ = adapter.merge(weight)?;
            }
        }
        Ok(new)
    }
}

/// What belongs to one tensor of a model, with its names.
struct Found<'f, A> {
    saved: Option<(&'f String, &'f ArrayD<A>)>,
    module: Option<(&'f String, &'f Lora<A>)>,
}

impl<'f, A> Found<'f, A> {
    fn names(&self) -> impl Iterator<Item = &'f str> + use<'f, A> {
        let names = [self.saved.map(|(name, _)| name), self.module.map(|(name, _)| name)];
        names.into_iter().flatten().map(String::as_str)
    }
}

fn ensure_made_with<A: Scalar>(config: &Config, adapter: &Lora<A>) -> Result<()> {
    config.check()?;
    let (a, b) = (&adapter.lora_a, &adapter.lora_b);
    shape("lora_a", &[config.rank, a.ncols()], a.shape())?;
    shape("lora_b", &[b.nrows(), config.rank], b.shape())?;
    let rows = [b.nrows()];
    let expected: &[usize] = if config.dora.is_some() { &rows } else { &[] };
    shape("magnitude", expected, lengths(&adapter.magnitude))?;
    within("alpha", config.alpha, adapter.scale == config.scale_as()?, "that of the adapters")
}
