//! Adapters written by peft are read, and ours are written as peft writes them: `make_peft.py` made the files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use gradus::curvature::unfold;
use gradus::lora::peft::{AdapterConfig, Adapters, FileType, Targets};
use gradus::lora::{AdaptedLayer, Config, NormGradient};
use ndarray::{Array1, Array2, Array4, ArrayD, Axis, Ix1, Ix2, Ix4, IxDyn, array};
use serde_json::Value;

use crate::rng;

/// Sums of at most 25 products in f32, in another order; relative to the largest output.
const RELATIVE: f32 = 1e-5;

const NAMES: [&str; 24] = [
    "all_linear",
    "bf16",
    "biases",
    "biases_of_adapters",
    "classifier",
    "conv1d",
    "conv2d",
    "conv2d_dora",
    "dora",
    "embedding",
    "embedding_dora",
    "eva",
    "f16",
    "gpt2",
    "gpt2_dora",
    "layers",
    "llama",
    "lora",
    "orthogonal",
    "patterns",
    "pissa",
    "pissa_gpt2",
    "regex",
    "rslora",
];

type Model = BTreeMap<String, ArrayD<f32>>;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lora/peft").join(name)
}

/// The numbers of the generator.
fn tensor(shape: &[usize], phase: usize) -> ArrayD<f32> {
    let count = shape.iter().product();
    let numbers = (0..count).map(|i| ((17 * i + 5 * phase) % 23) as f32 / 16.0 - 0.6875).collect();
    ArrayD::from_shape_vec(IxDyn(shape), numbers).unwrap()
}

/// A chain of layers, with the outputs that peft has recorded.
struct Case {
    layers: Vec<(String, String)>,
    input: Vec<usize>,
    outputs: Vec<f32>,
    model: Model,
}

impl Case {
    fn read(name: &str) -> Self {
        let text = std::fs::read_to_string(folder(name).join("model.json")).unwrap();
        let value: Value = serde_json::from_str(&text).unwrap();
        let (mut layers, mut model) = (Vec::new(), Model::new());
        let described: Vec<(String, String, Vec<usize>)> = serde_json::from_value(value["layers"].clone()).unwrap();
        for (phase, (name, kind, shape)) in described.into_iter().enumerate() {
            model.insert(format!("{name}.weight"), tensor(&shape, phase + 1));
            if kind.ends_with("bias") {
                model.insert(format!("{name}.bias"), tensor(&shape[..1], phase + 51));
            }
            layers.push((name, kind));
        }
        let input = serde_json::from_value(value["input"].clone()).unwrap();
        Self { layers, input, outputs: serde_json::from_value(value["outputs"].clone()).unwrap(), model }
    }

    /// The outputs of the model, with adapters beside its weights if there are some.
    fn outputs(&self, model: &Model, adapters: Option<&Adapters<f32>>) -> Vec<f32> {
        let mut x = match &self.input[..] {
            [_] => ArrayD::zeros(IxDyn(&[])),
            shape => tensor(shape, 3),
        };
        for (at, (name, kind)) in self.layers.iter().enumerate() {
            if at > 0 {
                x.mapv_inplace(|x| (x / 4.0).tanh());
            }
            let weight = &model[&format!("{name}.weight")];
            let adapter = adapters.and_then(|adapters| adapters.modules.get(name));
            let product = |x: &Array2<f32>, weight: &ArrayD<f32>, is_transposed: bool| match adapter {
                Some(adapter) => adapter.forward(weight, x).unwrap(),
                None if is_transposed => x.dot(&weight.view().into_dimensionality::<Ix2>().unwrap()),
                None => x.dot(&weight.to_shape((weight.shape()[0], x.ncols())).unwrap().t()),
            };
            x = match kind.as_str() {
                "embedding" => {
                    let weight = weight.view().into_dimensionality::<Ix2>().unwrap();
                    let tokens: Vec<usize> = (0..self.input[0]).map(|i| (3 * i + 1) % weight.nrows()).collect();
                    let rows = adapter.map(|adapter| adapter.embed(&weight, &tokens).unwrap());
                    rows.unwrap_or_else(|| weight.select(Axis(0), &tokens)).into_dyn()
                }
                "conv2d" | "conv1d" => convolution(x, weight, |patches| product(patches, weight, false)),
                kind => {
                    let y = product(&x.into_dimensionality().unwrap(), weight, kind == "conv1d_gpt2");
                    match model.get(&format!("{name}.bias")) {
                        Some(bias) => (y + bias.view().into_dimensionality::<Ix1>().unwrap()).into_dyn(),
                        None => y.into_dyn(),
                    }
                }
            };
        }
        x.iter().copied().collect()
    }
}

/// A convolution that keeps the size of its input, over one axis or two.
fn convolution(x: ArrayD<f32>, weight: &ArrayD<f32>, product: impl Fn(&Array2<f32>) -> Array2<f32>) -> ArrayD<f32> {
    let is_flat = x.ndim() == 3;
    let x: Array4<f32> = if is_flat { x.insert_axis(Axis(2)) } else { x }.into_dimensionality::<Ix4>().unwrap();
    let width = weight.shape()[weight.ndim() - 1];
    let height = if is_flat { 1 } else { width };
    let patches = unfold(x.view(), (height, width), (1, 1), (height / 2, width / 2)).unwrap();
    let (batch, _, rows, columns) = x.dim();
    let y = product(&patches).into_shape_with_order((batch, rows, columns, weight.shape()[0])).unwrap();
    let y = y.permuted_axes([0, 3, 1, 2]).as_standard_layout().into_owned();
    if is_flat { y.remove_axis(Axis(2)).into_dyn() } else { y.into_dyn() }
}

fn assert_close(found: &[f32], expected: &[f32], what: &str) {
    let largest = expected.iter().fold(0.0_f32, |most, x| x.abs().max(most));
    let worst = found.iter().zip(expected).fold(0.0_f32, |worst, (a, b)| (a - b).abs().max(worst));
    assert_eq!(found.len(), expected.len(), "{what}");
    assert!(worst <= RELATIVE * largest, "{what}: {worst:e} of {largest}");
}

#[test]
fn what_peft_wrote_gives_its_outputs() {
    for name in NAMES {
        let case = Case::read(name);
        let adapters = Adapters::<f32>::load(folder(name)).unwrap();
        let mut prepared = case.model.clone();
        adapters.prepare(&mut prepared).unwrap();
        assert_close(&case.outputs(&prepared, Some(&adapters)), &case.outputs, name);
        let mut merged = case.model.clone();
        adapters.merge_into(&mut merged).unwrap();
        assert_close(&case.outputs(&merged, None), &case.outputs, &format!("{name}, merged"));
        // Without an adapter, or with another number in it, the outputs are others.
        for module in adapters.modules.keys() {
            let mut other = adapters.clone();
            other.modules.get_mut(module).unwrap().lora_b.mapv_inplace(|b| b + 0.01);
            let found = case.outputs(&prepared, Some(&other));
            let worst = found.iter().zip(&case.outputs).fold(0.0_f32, |worst, (a, b)| (a - b).abs().max(worst));
            let largest = case.outputs.iter().fold(0.0_f32, |most, x| x.abs().max(most));
            assert!(worst > 2.0 * RELATIVE * largest, "{name}: {module} does not count");
        }
    }
}

/// With `GRADUS_PEFT_FOLDER` they are also written there, for `make_peft.py --load`.
#[test]
fn what_is_written_has_the_bytes_of_peft() {
    let temporary = tempfile::tempdir().unwrap();
    let into = std::env::var("GRADUS_PEFT_FOLDER").map_or(temporary.path().to_owned(), PathBuf::from);
    for name in NAMES {
        let adapters = Adapters::<f32>::load(folder(name)).unwrap();
        adapters.save(into.join(name)).unwrap();
        assert_eq!(Adapters::load(into.join(name)).unwrap(), adapters, "{name}");
        for file in ["adapter_config.json", "adapter_model.safetensors"] {
            let [ours, theirs] =
                [into.join(name), folder(name)].map(|folder| std::fs::read(folder.join(file)).unwrap());
            assert!(ours == theirs, "{name}/{file}:\n{}", String::from_utf8_lossy(&ours));
        }
    }
}

/// Adapters that are not of peft: with `GRADUS_PEFT_FOLDER`, `make_peft.py --load` compares their outputs with peft's.
#[test]
fn adapters_of_our_own_are_written() {
    let temporary = tempfile::tempdir().unwrap();
    let into = std::env::var("GRADUS_PEFT_FOLDER").map_or(temporary.path().to_owned(), PathBuf::from);
    let base = Config::new(2, 3.0);
    let dora = base.dora(NormGradient::Detached);
    let regex = Targets::regex(r".*\.(q|v)_proj|.*\.down_proj");
    let layers: [&str; 4] = ["q_proj", "k_proj", "v_proj", "o_proj"];
    for (name, config) in [
        ("llama", AdapterConfig::new(dora, regex).rank(r"layers\.1\..*", 1).alpha("q_proj", 0.5)),
        ("layers", AdapterConfig::new(base, layers).layers([1]).exclude(["v_proj"])),
        ("all_linear", AdapterConfig::new(base.rank_stabilized(true), Targets::AllLinear)),
        ("classifier", AdapterConfig::new(base, ["query", "value"]).modules_to_save(["classifier"])),
        ("gpt2", AdapterConfig::new(base.fan_in_fan_out(true), ["c_attn", "c_proj"])),
        ("embedding", AdapterConfig::new(dora, ["embed_tokens", "q_proj"])),
        ("conv1d", AdapterConfig::new(base.dropout(0.25), ["conv1", "conv2"])),
        ("conv2d", AdapterConfig::new(dora, ["conv1", "conv2"])),
    ] {
        let case = Case::read(name);
        let mut adapters = Adapters::for_model(config, &case.model, &mut rng()).unwrap();
        if name == "embedding" {
            let table = case.model["model.embed_tokens.weight"].view().into_dimensionality::<Ix2>().unwrap();
            let adapter = dora.adapt_embedding(&table, &mut rng()).unwrap();
            adapters.modules.insert("model.embed_tokens".into(), adapter);
        }
        for (at, adapter) in adapters.modules.values_mut().enumerate() {
            adapter.lora_a += &tensor(adapter.lora_a.shape(), at).into_dimensionality::<Ix2>().unwrap();
            adapter.lora_b += &tensor(adapter.lora_b.shape(), at + 1).into_dimensionality::<Ix2>().unwrap();
            adapter.magnitude.iter_mut().flatten().for_each(|magnitude| *magnitude *= 1.125);
        }
        adapters.saved.values_mut().for_each(|values| values.mapv_inplace(|value| value + 0.5));
        let folder = into.join(format!("{name}.ours"));
        adapters.save(&folder).unwrap();
        let again = Adapters::load(&folder).unwrap();
        assert_eq!(again, adapters, "{name}");
        let mut prepared = case.model.clone();
        again.prepare(&mut prepared).unwrap();
        let outputs = case.outputs(&prepared, Some(&again));
        let mut merged = case.model.clone();
        again.merge_into(&mut merged).unwrap();
        assert_close(&case.outputs(&merged, None), &outputs, name);
        std::fs::write(folder.join("outputs.json"), serde_json::to_string(&outputs).unwrap()).unwrap();
    }
}

#[test]
fn the_configuration_of_each_module() {
    let config = |name: &str| Adapters::<f32>::load(folder(name)).unwrap().config().clone();
    assert_eq!(*config("rslora").base(), Config::new(3, 6.0).rank_stabilized(true).dropout(0.1));
    assert_eq!(*config("dora").base(), Config::new(2, 2.0).dora(NormGradient::Detached));
    assert_eq!(*config("gpt2").base(), Config::new(2, 4.0).fan_in_fan_out(true));
    assert_eq!(config("llama").setting("task_type").as_deref(), Some("\"CAUSAL_LM\""));
    let patterns = config("patterns");
    let of = |module: &str| patterns.of(module).unwrap();
    let base = |rank, alpha| Config::new(rank, alpha).rank_stabilized(true);
    assert_eq!(of("model.layers.0.self_attn.q_proj"), base(3, 2.0));
    assert_eq!(of("model.layers.0.self_attn.k_proj"), base(2, 0.5));
    assert_eq!(of("model.layers.0.self_attn.v_proj"), base(4, 2.0));
    assert_eq!(of("model.layers.1.mlp.down_proj"), base(1, 5.0));
    let layers = config("layers");
    for (module, expected) in [
        ("model.layers.1.self_attn.q_proj", true),
        ("model.layers.0.self_attn.q_proj", false),
        ("model.layers.1.self_attn.v_proj", false),
    ] {
        assert_eq!(layers.targets(module), Ok(expected), "{module}");
    }
}

#[test]
fn a_layer_stores_its_weight_in_its_own_way() {
    let layer = |name: &str, module: &str| {
        let adapters = Adapters::<f32>::load(folder(name)).unwrap();
        adapters.modules[module].layer().clone()
    };
    assert_eq!(layer("gpt2", "transformer.h.0.attn.c_attn"), AdaptedLayer::FanInFanOut);
    assert_eq!(layer("embedding", "model.embed_tokens"), AdaptedLayer::Embedding);
    assert_eq!(layer("embedding", "model.layers.0.self_attn.q_proj"), AdaptedLayer::Linear);
    assert_eq!(layer("conv1d", "encoder.conv1"), AdaptedLayer::Convolution { window: vec![2, 3] });
    // One layer of a model that otherwise stores (in, out).
    let mut adapters = Adapters::<f32>::load(folder("gpt2")).unwrap();
    let head = adapters.modules.get_mut("transformer.h.0.attn.c_attn").unwrap();
    head.set_fan_in_fan_out(false);
    assert_eq!(*head.layer(), AdaptedLayer::Linear);
    assert!(head.forward(&Array2::zeros((6, 5)), &Array2::zeros((1, 5))).is_ok());
}

#[test]
fn numbers_are_converted() {
    for (name, file_type) in [("bf16", FileType::Bf16), ("f16", FileType::F16), ("lora", FileType::F32)] {
        let narrow = Adapters::<f32>::load(folder(name)).unwrap();
        let wide = Adapters::<f64>::load(folder(name)).unwrap();
        assert_eq!((narrow.file_type(), wide.file_type()), (file_type, file_type));
        for (module, adapter) in &wide.modules {
            assert_eq!(adapter.lora_a, narrow.modules[module].lora_a.mapv(f64::from), "{name} {module}");
        }
    }
    let temporary = tempfile::tempdir().unwrap();
    let mut adapters = Adapters::<f64>::load(folder("lora")).unwrap();
    let a = &mut adapters.modules.get_mut("hidden").unwrap().lora_a;
    a[[0, 0]] = 1.0 + 2.0_f64.powi(-9) + 2.0_f64.powi(-12);
    for (file_type, expected) in [
        (FileType::F64, 1.0 + 2.0_f64.powi(-9) + 2.0_f64.powi(-12)),
        (FileType::F16, 1.0 + 2.0 * 2.0_f64.powi(-10)),
        (FileType::Bf16, 1.0),
    ] {
        adapters.set_file_type(file_type);
        adapters.save(temporary.path()).unwrap();
        let again = Adapters::<f64>::load(temporary.path()).unwrap();
        let found = again.modules["hidden"].lora_a[[0, 0]];
        let expected = if file_type == FileType::F16 { 1.0 + 2.0_f64.powi(-9) } else { expected };
        assert_eq!((again.file_type(), found), (file_type, expected));
    }
}

/// Adapters of a new model, as `get_peft_model` creates them.
#[test]
fn adapters_for_a_model() {
    let case = Case::read("classifier");
    let config = AdapterConfig::new(Config::new(2, 4.0), ["query", "value"])
        .rank("value", 1)
        .modules_to_save(["classifier"])
        .base_model("bert")
        .task_type("TOKEN_CLS");
    let mut adapters = Adapters::for_model(config, &case.model, &mut rng()).unwrap();
    let names: Vec<_> = adapters.modules.keys().map(|name| name.rsplit('.').next().unwrap()).collect();
    assert_eq!(names, ["query", "value"]);
    assert_eq!(adapters.saved.keys().collect::<Vec<_>>(), ["classifier.bias", "classifier.weight"]);
    let ranks: Vec<_> = adapters.modules.values().map(|adapter| adapter.lora_a.nrows()).collect();
    assert_eq!(ranks, [2, 1]);
    assert_close(&case.outputs(&case.model, Some(&adapters)), &case.outputs(&case.model, None), "before a step");

    let before = adapters.clone();
    let grads = (adapters.modules.clone(), adapters.saved.clone());
    use gradus::prelude::*;
    Sgd::new(0.5).step(&mut (&mut adapters.modules, &mut adapters.saved), &grads).unwrap();
    assert_eq!(adapters.saved["classifier.bias"], before.saved["classifier.bias"].mapv(|b| b * 0.5));

    let temporary = tempfile::tempdir().unwrap();
    adapters.save(temporary.path()).unwrap();
    let again = Adapters::load(temporary.path()).unwrap();
    assert_eq!(again, adapters);
    assert_eq!(again.config().setting("base_model_name_or_path").as_deref(), Some("\"bert\""));
    assert_eq!(again.config().setting("task_type").as_deref(), Some("\"TOKEN_CLS\""));
    let none = Adapters::for_model(AdapterConfig::new(Config::new(2, 4.0), ["quary"]), &case.model, &mut rng());
    assert_eq!(none.unwrap_err().to_string(), "no weight of the model is a target of the configuration");
}

/// Names of a tree without the segment `weight`, and all or nothing.
#[test]
fn merging_changes_all_or_nothing() {
    let adapters = Adapters::<f32>::load(folder("lora")).unwrap();
    let tree = |output: Array2<f32>| BTreeMap::from([("hidden", tensor(&[6, 5], 1)), ("output", output.into_dyn())]);
    let mut short = tree(tensor(&[3, 6], 2).into_dimensionality().unwrap());
    let mut long = Case::read("lora").model;
    adapters.merge_into(&mut short).unwrap();
    adapters.merge_into(&mut long).unwrap();
    assert_eq!((&short["hidden"], &short["output"]), (&long["hidden.weight"], &long["output.weight"]));

    let mut wrong = tree(array![[1.0]]);
    let error = adapters.merge_into(&mut wrong).unwrap_err().to_string();
    assert_eq!(
        (error.as_str(), &wrong["hidden"]),
        ("weight has shape [1, 1] where [3, 6] is needed", &tensor(&[6, 5], 1))
    );
    let mut missing = BTreeMap::from([("hidden", tensor(&[6, 5], 1))]);
    let error = adapters.merge_into(&mut missing).unwrap_err().to_string();
    assert_eq!(error, "unexpected entry \"output\": the model it is loaded into does not have it");
    assert_eq!(missing["hidden"], tensor(&[6, 5], 1));
    let classifier = Adapters::<f32>::load(folder("classifier")).unwrap();
    let mut model = Case::read("classifier").model;
    model.insert("classifier.bias".into(), Array1::zeros(2).into_dyn());
    let error = classifier.prepare(&mut model).unwrap_err().to_string();
    assert_eq!(error, "entry \"classifier.bias\" has shape [3] where [2] is needed");
}

#[test]
fn what_is_not_known_is_refused() {
    let temporary = tempfile::tempdir().unwrap();
    let config = std::fs::read_to_string(folder("dora").join("adapter_config.json")).unwrap();
    let model = std::fs::read(folder("dora").join("adapter_model.safetensors")).unwrap();
    std::fs::write(temporary.path().join("adapter_model.safetensors"), model).unwrap();
    let load = || Adapters::<f32>::load(temporary.path());
    let said = |key: &str, value: Value| {
        let mut settings: Value = serde_json::from_str(&config).unwrap();
        settings[key] = value;
        std::fs::write(temporary.path().join("adapter_config.json"), settings.to_string()).unwrap();
        load().unwrap_err().to_string()
    };
    let known = "it must be left out: adapters that have it are not known here";
    for (key, value) in [
        ("lora_bias", Value::from(true)),
        ("target_parameters", serde_json::json!(["experts.up"])),
        ("trainable_token_indices", serde_json::json!([1])),
        ("something_new", Value::from(1)),
    ] {
        let text = value.to_string();
        assert_eq!(said(key, value), format!("entry \"adapter_config.json/{key}\" is {text:?}; {known}"));
    }
    assert!(
        said("init_lora_weights", "olora".into())
            .ends_with("it must be true, false, gaussian, eva, orthogonal, mica or pissa")
    );
    assert!(said("peft_type", "IA3".into()).ends_with("it must be LORA"));
    // What is no truth value is not taken for false: it decides which numbers come out.
    for key in ["use_rslora", "use_dora", "fan_in_fan_out"] {
        for value in [Value::from("true"), 1.into()] {
            let text = value.to_string();
            let expected = format!("entry \"adapter_config.json/{key}\" is {text:?}; it must be true or false");
            assert_eq!(said(key, value), expected);
        }
    }
    assert!(said("lora_dropout", "0.1".into()).ends_with("it must be a number"));
    assert!(said("r", "two".into()).ends_with("it must be a count"));
    assert!(said("bias", "some".into()).ends_with("it must be none, all or lora_only"));
    assert!(said("rank_pattern", serde_json::json!({"hidden": 0})).ends_with("it must be a map from names to counts"));
    assert!(said("alpha_pattern", serde_json::json!(["hidden"])).ends_with("it must be a map from names to numbers"));
    assert!(said("target_modules", 1.into()).ends_with("it must be a list of names or a regular expression"));
    assert!(said("layers_to_transform", "1".into()).ends_with("it must be a list of counts"));
    assert!(said("rank_pattern", serde_json::json!({"(?=h)idden": 1})).contains("adapter_config.json/rank_pattern"));
    let unexpected = "the adapter it is loaded into does not have it";
    assert_eq!(
        said("target_modules", serde_json::json!(["output"])),
        format!("unexpected entry \"base_model.model.hidden.lora_A.weight\": {unexpected}")
    );
    assert_eq!(said("r", 0.into()), "rank is 0; it must be at least 1");
    assert_eq!(
        said("r", 3.into()),
        "entry \"base_model.model.hidden.lora_A.weight\" has shape [2, 5] where [3, 5] is needed"
    );
    assert_eq!(
        said("use_dora", false.into()),
        format!("unexpected entry \"base_model.model.hidden.lora_magnitude_vector\": {unexpected}")
    );
    // A choice that cannot be read does not prevent loading: the file has the chosen modules.
    let mut settings: Value = serde_json::from_str(&config).unwrap();
    settings["target_modules"] = "(?!vision).*".into();
    std::fs::write(temporary.path().join("adapter_config.json"), settings.to_string()).unwrap();
    assert_eq!(load().unwrap().modules.len(), 2);
    assert!(load().unwrap().config().targets("hidden").is_err());

    std::fs::write(temporary.path().join("adapter_config.json"), "{").unwrap();
    assert!(load().unwrap_err().to_string().starts_with("not a checkpoint: adapter_config"));
    assert!(
        Adapters::<f32>::load("no/such/folder").unwrap_err().to_string().starts_with("no/such/folder/adapter_config")
    );
}

/// A file that could not be read again, or that would be read as another adapter, is not written.
#[test]
fn what_the_configuration_does_not_describe_is_not_saved() {
    let weight = Array2::<f64>::eye(3);
    let folder = tempfile::tempdir().unwrap();
    let into = folder.path().join("adapter");
    let said = |config: AdapterConfig, own: Config| {
        let mut adapters = Adapters::new(config);
        adapters.modules.insert("m".into(), own.adapt(&weight, &mut rng()).unwrap());
        adapters.save(&into).unwrap_err().to_string()
    };
    let config = |own: Config| AdapterConfig::new(own, ["m"]);
    let (plain, dora) = (Config::new(2, 2.0), Config::new(2, 2.0).dora(NormGradient::Detached));
    assert_eq!(said(config(Config::new(1, 1.0)), plain), "lora_a has shape [2, 3] where [1, 3] is needed");
    assert_eq!(said(config(dora), plain), "magnitude has shape [] where [3] is needed");
    assert_eq!(said(config(plain), dora), "magnitude has shape [3] where [] is needed");
    assert_eq!(said(config(Config::new(2, 4.0)), plain), "alpha is 4; it must be that of the adapters");
    assert_eq!(said(config(plain.rank_stabilized(true)), plain), "alpha is 2; it must be that of the adapters");
    assert_eq!(said(config(plain).alpha("m", 3.0), plain), "alpha is 3; it must be that of the adapters");
    let not_there = "the configuration of the adapters it is loaded into does not have it";
    assert_eq!(said(AdapterConfig::new(plain, ["n"]), plain), format!("unexpected entry \"m\": {not_there}"));
    assert_eq!(
        said(config(plain).exclude(Targets::regex("m|n")), plain),
        format!("unexpected entry \"m\": {not_there}")
    );
    let mut adapters = Adapters::<f64>::new(config(plain));
    adapters.saved.insert("head.weight".into(), weight.clone().into_dyn());
    assert_eq!(adapters.save(&into).unwrap_err().to_string(), format!("unexpected entry \"head.weight\": {not_there}"));
    assert!(!into.exists());
}
