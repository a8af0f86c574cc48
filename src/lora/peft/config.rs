//! The settings of `adapter_config.json`.

use serde_json::{Map, Number, Value, json};

use super::names::{CONFIG, Targets, first_match, is_in_module, is_saved_whole, layer_of, list_of_names};
use crate::error::{Error, Result, StateError};
use crate::lora::adapter::NormGradient;
use crate::lora::config::Config;
use crate::lora::init::Init;

/// Which modules of a model have an adapter, and of which rank and α: the settings of `adapter_config.json`.
///
/// ```
/// use gradus::lora::{Config, peft::AdapterConfig};
///
/// let config = AdapterConfig::new(Config::new(8, 16.0), ["q_proj", "v_proj"])
///     .exclude(["layers.0.v_proj"])
///     .rank(r"layers\.1\..*", 4) // a regular expression
///     .modules_to_save(["classifier"]);
/// assert!(config.targets("model.layers.0.q_proj")? && !config.targets("model.layers.0.v_proj")?);
/// assert_eq!(config.of("model.layers.0.q_proj")?, Config::new(8, 16.0));
/// assert_eq!(config.of("model.layers.1.q_proj")?.scale(), 4.0); // α/r = 16/4
/// # Ok::<(), gradus::Error>(())
/// ```
///
/// # Settings
/// | setting of `peft` | here |
/// |---|---|
/// | `r`, `lora_alpha`, `lora_dropout`, `use_rslora`, `use_dora`, `fan_in_fan_out` | the [`Config`] of all modules |
/// | `target_modules`, `exclude_modules` | [`Targets`], [`exclude`](Self::exclude) |
/// | `layers_to_transform`, `layers_pattern` | [`layers`](Self::layers); read with a list of names |
/// | `rank_pattern`, `alpha_pattern` | [`rank`](Self::rank), [`alpha`](Self::alpha) |
/// | `modules_to_save`, `bias` | tensors that are saved whole: [`Adapters::saved`](super::Adapters::saved) |
/// | `init_lora_weights` | `true`, `false`, `"gaussian"`, `"eva"`, `"orthogonal"`, `"mica"`: no effect on trained adapters; `"pissa"`, `"pissa_niter_…"`: [`Adapters::prepare`](super::Adapters::prepare) |
/// | `task_type`, `base_model_name_or_path`, `revision`, … | kept, and written back |
///
/// Other settings that change the numbers, such as `lora_bias` and `target_parameters`, are errors.
#[must_use = "a configuration does nothing by itself"]
#[derive(Debug, Clone, PartialEq)]
pub struct AdapterConfig {
    base: Config,
    targets: Targets,
    excluded: Option<Targets>,
    layers: Option<Vec<u64>>,
    layer_lists: Vec<String>,
    ranks: Vec<(String, usize)>,
    alphas: Vec<(String, f64)>,
    whole: Vec<String>,
    bias: Bias,
    pub(super) init: FileInit,
    /// All settings, as they stand in the file.
    pub(super) settings: Map<String, Value>,
}

/// The biases that a file has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bias {
    None,
    All,
    AdaptersOnly,
}

/// What the initialization says about the base weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileInit {
    /// They are as they were.
    Unchanged,
    /// Their principal parts are taken away when the adapter is put on.
    Principal,
}

/// Settings that say nothing about the numbers of an adapter that has been trained.
const WITHOUT_EFFECT: [&str; 12] = [
    "auto_mapping",
    "base_model_name_or_path",
    "eva_config",
    "inference_mode",
    "loftq_config",
    "corda_config",
    "megatron_core",
    "peft_type",
    "peft_version",
    "qalora_group_size",
    "revision",
    "task_type",
];

/// Settings that are read.
const READ: [&str; 15] = [
    "alpha_pattern",
    "bias",
    "exclude_modules",
    "fan_in_fan_out",
    "init_lora_weights",
    "layers_pattern",
    "layers_to_transform",
    "lora_alpha",
    "lora_dropout",
    "modules_to_save",
    "r",
    "rank_pattern",
    "target_modules",
    "use_dora",
    "use_rslora",
];

impl AdapterConfig {
    /// Creates the configuration of these modules. `base` holds for all of them, except where a [`rank`](Self::rank) or an [`alpha`](Self::alpha) is set.
    pub fn new(base: Config, targets: impl Into<Targets>) -> Self {
        let targets = targets.into();
        let settings = json!({
            "peft_type": "LORA",
            "task_type": null,
            "base_model_name_or_path": null,
            "target_modules": targets.write(),
            "r": base.rank,
            "lora_alpha": number(base.alpha),
            "lora_dropout": base.dropout,
            "use_rslora": base.rank_stabilized,
            "use_dora": base.dora.is_some(),
            "init_lora_weights": if base.init == Init::Gaussian { json!("gaussian") } else { json!(true) },
            "bias": "none",
            "fan_in_fan_out": base.fan_in_fan_out,
            "inference_mode": true,
        });
        Self {
            base,
            targets,
            excluded: None,
            layers: None,
            layer_lists: Vec::new(),
            ranks: Vec::new(),
            alphas: Vec::new(),
            whole: Vec::new(),
            bias: Bias::None,
            init: FileInit::Unchanged,
            settings: settings.as_object().cloned().unwrap_or_default(),
        }
    }

    /// Modules that have no adapter even if they are targets.
    pub fn exclude(mut self, modules: impl Into<Targets>) -> Self {
        let modules = modules.into();
        self.set("exclude_modules", modules.write());
        self.excluded = Some(modules);
        self
    }

    /// Only the layers of these numbers. A module's number is the first that stands between dots in its name, such as 3 in `model.layers.3.mlp`. As in `peft`,
    /// the layers have no effect on targets that are a regular expression.
    pub fn layers(mut self, layers: impl IntoIterator<Item = u64>) -> Self {
        let layers: Vec<u64> = layers.into_iter().collect();
        self.set("layers_to_transform", json!(layers));
        self.layers = Some(layers);
        self
    }

    /// Sets the rank of the modules that match a pattern: a name, or a regular expression for the end of the name after a dot. The first pattern that matches
    /// counts, in the alphabetical order in which `peft` writes them.
    pub fn rank(mut self, pattern: impl Into<String>, rank: usize) -> Self {
        put(&mut self.ranks, pattern.into(), rank);
        self.set("rank_pattern", object(&self.ranks, |rank| json!(rank)));
        self
    }

    /// Sets α of the modules that match a pattern, as [`rank`](Self::rank) does.
    pub fn alpha(mut self, pattern: impl Into<String>, alpha: f64) -> Self {
        put(&mut self.alphas, pattern.into(), alpha);
        self.set("alpha_pattern", object(&self.alphas, |alpha| number(*alpha)));
        self
    }

    /// Modules that have no adapter and are trained and saved whole, such as a new classifier: those whose name ends with one of these.
    pub fn modules_to_save<'n>(mut self, names: impl IntoIterator<Item = &'n str>) -> Self {
        self.whole = names.into_iter().map(String::from).collect();
        self.set("modules_to_save", json!(self.whole));
        self
    }

    /// Sets `base_model_name_or_path`: the model that the adapters belong to.
    pub fn base_model(mut self, name: &str) -> Self {
        self.set("base_model_name_or_path", json!(name));
        self
    }

    /// Sets `task_type`, such as `CAUSAL_LM`: `peft` then loads the adapters into a model of this task.
    pub fn task_type(mut self, task: &str) -> Self {
        self.set("task_type", json!(task));
        self
    }

    /// The value of a setting in `adapter_config.json`, as JSON.
    pub fn setting(&self, name: &str) -> Option<String> {
        self.settings.get(name).map(Value::to_string)
    }

    /// The configuration of all modules that no pattern matches.
    pub fn base(&self) -> &Config {
        &self.base
    }

    /// Whether a module has an adapter.
    ///
    /// # Errors
    /// [`StateError::EntryValue`] for a regular expression that cannot be read.
    pub fn targets(&self, module: &str) -> Result<bool> {
        let is_excluded = match &self.excluded {
            Some(excluded) => excluded.chooses("exclude_modules", module)?,
            None => false,
        };
        if is_excluded || is_saved_whole(&self.whole, module) || !self.targets.chooses("target_modules", module)? {
            return Ok(false);
        }
        match (&self.layers, &self.targets) {
            (Some(layers), Targets::Names(names)) if !layers.is_empty() && !names.iter().any(|name| name == module) => {
                Ok(layer_of(&self.layer_lists, module)?.is_some_and(|layer| layers.contains(&layer)))
            }
            _ => Ok(true),
        }
    }

    /// The configuration of one module: with its rank and α.
    ///
    /// # Errors
    /// [`StateError::EntryValue`] for a regular expression that cannot be read.
    pub fn of(&self, module: &str) -> Result<Config> {
        let mut config = self.base;
        if let Some(rank) = first_match("rank_pattern", &self.ranks, module)? {
            config.rank = *rank;
        }
        if let Some(alpha) = first_match("alpha_pattern", &self.alphas, module)? {
            config.alpha = *alpha;
        }
        Ok(config)
    }

    /// Whether a tensor of the base model is among those that are saved whole.
    pub(super) fn saves(&self, tensor: &str, is_adapted: bool) -> bool {
        let is_bias = tensor == "bias" || tensor.ends_with(".bias");
        let is_resized = EMBEDDINGS.iter().any(|name| {
            tensor
                .strip_suffix(".weight")
                .is_some_and(|module| module == *name || module.ends_with(&format!(".{name}")))
        });
        let with_bias = match self.bias {
            Bias::None => false,
            Bias::All => is_bias,
            Bias::AdaptersOnly => is_bias && is_adapted,
        };
        with_bias || is_resized || self.is_whole(tensor)
    }

    /// Whether a tensor belongs to a module that is trained and saved whole.
    pub(super) fn is_whole(&self, tensor: &str) -> bool {
        is_in_module(&self.whole, tensor)
    }

    fn set(&mut self, key: &str, value: Value) {
        self.settings.insert(key.into(), value);
    }

    pub(super) fn read(settings: Map<String, Value>) -> Result<Self> {
        let reader = Reader(&settings);
        if settings.get("peft_type").and_then(Value::as_str) != Some("LORA") {
            return Err(reader.refuse("peft_type", "LORA"));
        }
        let (init, file_init) = reader.init()?;
        reader.refuse_unknown()?;
        let base = Config {
            rank: reader.count("r")?,
            alpha: reader.number("lora_alpha")?.ok_or_else(|| reader.refuse("lora_alpha", "a number"))?,
            rank_stabilized: reader.flag("use_rslora")?,
            dropout: reader.number("lora_dropout")?.unwrap_or(0.0),
            init,
            dora: reader.flag("use_dora")?.then_some(NormGradient::Detached),
            fan_in_fan_out: reader.flag("fan_in_fan_out")?,
        };
        base.check()?;
        let config = Self {
            base,
            targets: reader.targets("target_modules")?.unwrap_or(Targets::AllLinear),
            excluded: reader.targets("exclude_modules")?,
            layers: reader.layers()?,
            layer_lists: reader.names("layers_pattern")?,
            ranks: reader.pattern("rank_pattern", "a map from names to counts", |rank| {
                rank.as_u64().filter(|rank| *rank > 0).and_then(|rank| usize::try_from(rank).ok())
            })?,
            alphas: reader.pattern("alpha_pattern", "a map from names to numbers", Value::as_f64)?,
            whole: reader.names("modules_to_save")?,
            bias: reader.bias()?,
            init: file_init,
            settings: Map::new(),
        };
        Ok(Self { settings, ..config })
    }
}

/// Layers of which `peft` also saves the base weight if tokens have been added.
const EMBEDDINGS: [&str; 2] = ["embed_tokens", "lm_head"];

struct Reader<'s>(&'s Map<String, Value>);

impl Reader<'_> {
    fn refuse(&self, key: &str, accepted: &'static str) -> Error {
        let value = self.0.get(key).unwrap_or(&Value::Null).to_string();
        Error::State(StateError::EntryValue { key: format!("{CONFIG}/{key}"), value, accepted })
    }

    /// The value of a setting; files of older versions of peft lack some.
    fn given(&self, key: &str) -> Option<&Value> {
        self.0.get(key).filter(|value| !value.is_null())
    }

    fn flag(&self, key: &str) -> Result<bool> {
        let Some(value) = self.given(key) else { return Ok(false) };
        value.as_bool().ok_or_else(|| self.refuse(key, "true or false"))
    }

    fn number(&self, key: &str) -> Result<Option<f64>> {
        let Some(value) = self.given(key) else { return Ok(None) };
        value.as_f64().map(Some).ok_or_else(|| self.refuse(key, "a number"))
    }

    fn count(&self, key: &str) -> Result<usize> {
        let count = self.given(key).and_then(Value::as_u64).and_then(|count| usize::try_from(count).ok());
        count.ok_or_else(|| self.refuse(key, "a count"))
    }

    fn names(&self, key: &str) -> Result<Vec<String>> {
        let Some(value) = self.given(key) else { return Ok(Vec::new()) };
        list_of_names(value).ok_or_else(|| self.refuse(key, "a list of names"))
    }

    fn targets(&self, key: &str) -> Result<Option<Targets>> {
        match self.given(key) {
            None => Ok(None),
            Some(Value::Array(list)) if list.is_empty() && key == "exclude_modules" => Ok(None),
            Some(value) => match Targets::read(value) {
                Some(targets) => Ok(Some(targets)),
                None => Err(self.refuse(key, "a list of names or a regular expression")),
            },
        }
    }

    fn layers(&self) -> Result<Option<Vec<u64>>> {
        const KEY: &str = "layers_to_transform";
        let layers = match self.given(KEY) {
            None => return Ok(None),
            Some(Value::Array(list)) => list.iter().map(Value::as_u64).collect(),
            Some(layer) => layer.as_u64().map(|layer| vec![layer]),
        };
        layers.map(Some).ok_or_else(|| self.refuse(KEY, "a list of counts"))
    }

    fn pattern<T>(
        &self,
        key: &str,
        accepted: &'static str,
        read: impl Fn(&Value) -> Option<T>,
    ) -> Result<Vec<(String, T)>> {
        let Some(value) = self.given(key) else { return Ok(Vec::new()) };
        let entries = value.as_object().into_iter().flatten();
        let read: Option<Vec<_>> = entries.map(|(pattern, value)| Some((pattern.clone(), read(value)?))).collect();
        read.filter(|_| value.is_object()).ok_or_else(|| self.refuse(key, accepted))
    }

    fn bias(&self) -> Result<Bias> {
        match self.given("bias").map(Value::as_str) {
            None | Some(Some("none")) => Ok(Bias::None),
            Some(Some("all")) => Ok(Bias::All),
            Some(Some("lora_only")) => Ok(Bias::AdaptersOnly),
            Some(_) => Err(self.refuse("bias", "none, all or lora_only")),
        }
    }

    fn init(&self) -> Result<(Init, FileInit)> {
        const KEY: &str = "init_lora_weights";
        let name = match self.given(KEY) {
            None | Some(Value::Bool(_)) => return Ok((Init::Kaiming, FileInit::Unchanged)),
            Some(value) => value.as_str().unwrap_or_default(),
        };
        match name {
            "gaussian" => Ok((Init::Gaussian, FileInit::Unchanged)),
            "eva" | "orthogonal" | "mica" => Ok((Init::Kaiming, FileInit::Unchanged)),
            "pissa" => Ok((Init::Kaiming, FileInit::Principal)),
            _ if name.starts_with("pissa_niter_") => Ok((Init::Kaiming, FileInit::Principal)),
            // The others change the base weight in ways that cannot be repeated from the file.
            _ => Err(self.refuse(KEY, "true, false, gaussian, eva, orthogonal, mica or pissa")),
        }
    }

    fn refuse_unknown(&self) -> Result<()> {
        for (key, value) in self.0 {
            let is_off = match value {
                Value::Null | Value::Bool(false) => true,
                Value::Array(list) => list.is_empty(),
                Value::Object(map) => map.is_empty(),
                _ => false,
            };
            if !is_off && !READ.contains(&&**key) && !WITHOUT_EFFECT.contains(&&**key) {
                return Err(self.refuse(key, "left out: adapters that have it are not known here"));
            }
        }
        Ok(())
    }
}

/// A whole number without a fraction, as `peft` writes α.
fn number(value: f64) -> Value {
    match value.fract() == 0.0 && value.abs() < 1e15 {
        true => json!(value as i64),
        false => Number::from_f64(value).map_or(Value::Null, Value::Number),
    }
}

fn object<T>(entries: &[(String, T)], write: impl Fn(&T) -> Value) -> Value {
    Value::Object(entries.iter().map(|(pattern, value)| (pattern.clone(), write(value))).collect())
}

/// In alphabetical order, with one value for each pattern.
fn put<T>(entries: &mut Vec<(String, T)>, pattern: String, value: T) {
    entries.retain(|(known, _)| *known != pattern);
    let at = entries.partition_point(|(known, _)| *known < pattern);
    entries.insert(at, (pattern, value));
}
