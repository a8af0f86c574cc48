//! Names of other crates, the schema, and configurations as parts of other settings.

use gradus::config::{Config, Registry};
use gradus::prelude::*;
use gradus::schedule::Linear;
use serde::{Deserialize, Serialize};

/// Settings that serde reads.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sawtooth {
    height: f64,
    length: u64,
}

fn registry() -> Registry<f64> {
    let mut registry = Registry::<f64>::default();
    registry
        .optimizer("Mine", |settings| {
            let momentum: f64 = settings.get("momentum")?;
            Ok(Momentum::new(settings.hyper("learning_rate")?, momentum).boxed())
        })
        .schedule("Sawtooth", |settings| {
            let Sawtooth { height, length } = settings.read()?;
            Ok(Box::new(Linear::new(height, 0.0, length).cycle(length)))
        })
        .adaptor("clip_twice", |opt, settings| {
            let limit: f64 = settings.get("limit")?;
            Ok(opt.clip_value(limit).clip_global_norm(limit).boxed())
        });
    registry
}

#[test]
fn names_of_others_work_as_ours() {
    let text = "[optimizer]\nname = 'Mine'\nmomentum = 0.5\n\
                learning_rate = { schedule = 'Sawtooth', height = 0.1, length = 4, warmup = 2 }\n[[then]]\nclip_twice = 0.5";
    let opt = registry().build(&Config::from_toml(text).unwrap()).unwrap();
    let code = Momentum::new(Linear::new(0.1, 0.0, 4).cycle(4).warmup(2), 0.5).clip_value(0.5).clip_global_norm(0.5);
    assert_eq!(crate::seen(opt), crate::seen(code.boxed()));
    for (wrong, message) in [
        (
            text.replace("momentum", "momentun"),
            "optimizer.momentun (line 3): Mine has no setting \"momentun\" (did you mean \"momentum\"?); it has momentum, learning_rate",
        ),
        (
            text.replace("height", "hight"),
            "optimizer.learning_rate.hight (line 4): Sawtooth has no setting \"hight\" (did you mean \"height\"?); it has height, length",
        ),
        (
            text.replace("twice = 0.5", "twice = -1"),
            "then.0.clip_twice (line 6): max_norm is -1 at step 0; it must be a number ≥ 0 or infinity",
        ),
    ] {
        let error = registry().build(&Config::from_toml(&wrong).unwrap()).err().unwrap();
        assert_eq!(error.to_string(), message);
    }
    let schema = registry().schema().unwrap();
    for name in ["Mine", "Sawtooth", "clip_twice", "height"] {
        assert!(schema.contains(&format!("\"{name}\"")), "{name}");
    }
    let names = format!("{:?}", registry());
    assert!(names.contains("\"Mine\"") && names.contains("\"AdamW\""), "{names}");
}

/// A training run's own settings.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Run {
    epochs: u64,
    training: Config,
}

#[test]
fn a_configuration_is_a_part_of_other_settings() {
    let text =
        "epochs = 3\n[training.optimizer]\nname = 'Sgd'\nlearning_rate = 0.5\n[[training.then]]\nclip_value = inf";
    let run: Run = toml::from_str(text).unwrap();
    assert_eq!(run.training.build::<f32>().unwrap().learning_rate(), 0.5);
    let json = serde_json::to_string(&run).unwrap();
    assert_eq!(serde_json::from_str::<Run>(&json).unwrap(), run);
    assert!(json.contains("\"clip_value\":\"inf\""), "{json}");
}

/// If this fails, `target/config.schema.json` has the new schema: look at the difference, and copy it to `guide/`.
#[test]
fn the_schema_is_that_of_the_file() {
    let folder = env!("CARGO_MANIFEST_DIR");
    let new = crate::schema();
    let old = std::fs::read_to_string(format!("{folder}/guide/config.schema.json")).unwrap_or_default();
    let parsed = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap_or_default();
    if parsed(&new) != parsed(&old) {
        std::fs::create_dir_all(format!("{folder}/target")).unwrap();
        std::fs::write(format!("{folder}/target/config.schema.json"), new).unwrap();
        panic!("guide/config.schema.json is not the schema; the new one is target/config.schema.json");
    }
}

/// An adaptor with the address of the router inside is not that router.
#[test]
fn a_route_is_around_all_that_is_before_it() {
    let mut registry = Registry::<f64>::default();
    registry.optimizer("Routed", |settings| {
        let rate = settings.hyper("learning_rate")?;
        Ok(Sgd::new(rate).route("a", Sgd::new(0.1)).maximize().boxed())
    });
    let text = "[optimizer]\nname = 'Routed'\nlearning_rate = 0.1\n[[then]]\n\
                route = { pattern = 'b', optimizer = { name = 'Sgd', learning_rate = 0.1 } }";
    let opt = registry.build(&Config::from_toml(text).unwrap()).unwrap();
    let code = Sgd::new(0.1).route("a", Sgd::new(0.1)).maximize().route("b", Sgd::new(0.1));
    assert_eq!(crate::seen(opt), crate::seen(code.boxed()));
}
