//! Adapters written by peft are read, and ours are written as peft reads them: `make_peft.py` made the files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use gradus::lora::{Config, Lora, NormGradient, peft};
use ndarray::Array2;
use serde_json::Value;

const NAMES: [&str; 3] = ["lora", "rslora", "dora"];

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lora/peft").join(name)
}

/// The numbers of the generator.
fn tensor(rows: usize, columns: usize, phase: usize) -> Array2<f32> {
    Array2::from_shape_fn((rows, columns), |(i, j)| ((17 * (i * columns + j) + 5 * phase) % 23) as f32 / 16.0 - 0.6875)
}

fn outputs(adapters: &BTreeMap<String, Lora<f32>>) -> Array2<f32> {
    let hidden = adapters["hidden"].forward(&tensor(6, 5, 1), &tensor(4, 5, 3)).unwrap();
    adapters["output"].forward(&tensor(3, 6, 2), &hidden.mapv(f32::tanh)).unwrap()
}

fn expected(name: &str) -> Array2<f32> {
    let rows: Vec<[f32; 3]> =
        serde_json::from_str(&std::fs::read_to_string(folder(name).join("outputs.json")).unwrap()).unwrap();
    Array2::from(rows)
}

#[test]
fn what_peft_wrote_gives_the_same_outputs() {
    for name in NAMES {
        let (config, adapters) = peft::load::<f32>(folder(name)).unwrap();
        let worst = (outputs(&adapters) - expected(name)).iter().fold(0.0_f32, |worst, x| x.abs().max(worst));
        println!("{name}: {worst:e}");
        assert!(worst < 1e-5, "{name}: {worst}");
        let wanted = match name {
            "rslora" => Config::new(3, 6.0).rank_stabilized(true).dropout(0.1),
            "dora" => Config::new(2, 2.0).dora(NormGradient::Detached),
            _ => Config::new(2, 4.0),
        };
        assert_eq!(config, wanted, "{name}");
    }
}

/// With `GRADUS_PEFT_FOLDER` they are also written there, for `make_peft.py --load`.
#[test]
fn what_is_written_is_read_again() {
    let temporary = tempfile::tempdir().unwrap();
    let into = std::env::var("GRADUS_PEFT_FOLDER").map_or(temporary.path().to_owned(), PathBuf::from);
    for name in NAMES {
        let (config, adapters) = peft::load::<f32>(folder(name)).unwrap();
        let named = adapters.iter().map(|(module, adapter)| (module.as_str(), adapter));
        peft::save(into.join(name), &config, named).unwrap();
        assert_eq!(peft::load::<f32>(into.join(name)).unwrap(), (config, adapters), "{name}");
    }
}

#[test]
fn what_is_not_known_is_refused() {
    let temporary = tempfile::tempdir().unwrap();
    let config = std::fs::read_to_string(folder("dora").join("adapter_config.json")).unwrap();
    let model = std::fs::read(folder("dora").join("adapter_model.safetensors")).unwrap();
    std::fs::write(temporary.path().join("adapter_model.safetensors"), model).unwrap();
    let said = |key: &str, value: Value| {
        let mut settings: Value = serde_json::from_str(&config).unwrap();
        settings[key] = value;
        std::fs::write(temporary.path().join("adapter_config.json"), settings.to_string()).unwrap();
        peft::load::<f32>(temporary.path()).unwrap_err().to_string()
    };
    let known = "it must be left out: adapters that have it are not known here";
    for (key, value) in [
        ("fan_in_fan_out", Value::from(true)),
        ("rank_pattern", serde_json::json!({"hidden": 4})),
        ("bias", Value::from("all")),
        ("lora_bias", Value::from(true)),
        ("modules_to_save", serde_json::json!(["output"])),
        ("something_new", Value::from(1)),
    ] {
        let text = value.to_string();
        assert_eq!(said(key, value), format!("entry \"adapter_config.json/{key}\" is {text:?}; {known}"));
    }
    assert!(said("init_lora_weights", "pissa".into()).ends_with("it must be true, false or gaussian"));
    assert!(said("peft_type", "IA3".into()).ends_with("it must be LORA"));
    // What is no truth value is not taken for false: it decides which numbers come out.
    for key in ["use_rslora", "use_dora"] {
        assert_eq!(
            said(key, "true".into()),
            format!(r#"entry "adapter_config.json/{key}" is "\"true\""; it must be true or false"#)
        );
        assert_eq!(
            said(key, 1.into()),
            format!(r#"entry "adapter_config.json/{key}" is "1"; it must be true or false"#)
        );
    }
    assert!(said("lora_dropout", "0.1".into()).ends_with("it must be a number"));
    assert!(said("r", "two".into()).ends_with("it must be a count"));
    assert_eq!(said("r", 0.into()), "rank is 0; it must be at least 1");
    assert_eq!(
        said("r", 3.into()),
        "entry \"base_model.model.hidden.lora_A.weight\" has shape [2, 5] where [3, 5] is needed"
    );
    assert_eq!(
        said("use_dora", false.into()),
        "unexpected entry \"base_model.model.hidden.lora_magnitude_vector\": the adapter it is loaded into does not have it"
    );
    std::fs::write(temporary.path().join("adapter_config.json"), &config).unwrap();
    let error = peft::load::<f64>(temporary.path()).unwrap_err().to_string();
    assert_eq!(error, "entry \"base_model.model.hidden.lora_magnitude_vector\" holds f32 where f64 is needed");
    std::fs::write(temporary.path().join("adapter_config.json"), "{").unwrap();
    assert!(
        peft::load::<f32>(temporary.path()).unwrap_err().to_string().starts_with("not a checkpoint: adapter_config")
    );
    assert!(peft::load::<f32>("no/such/folder").unwrap_err().to_string().starts_with("no/such/folder/adapter_config"));
}
