//! Files with one thing wrong: the error names its place.

use gradus::config::Config;
use serde_json::{Value, json};

use crate::{adaptors, optimizers, schedules};

/// A step from a value of a document to one inside it.
#[derive(Clone)]
enum Part {
    Key(String),
    Index(usize),
}

/// The texts of all tables of right files.
fn right() -> Vec<String> {
    let optimizers = optimizers::rows().into_iter().chain(optimizers::shared()).map(|row| row.text);
    let schedules = schedules::rows();
    let schedules = schedules.iter().map(|(text, _)| format!("[optimizer]\nname = 'Sgd'\nlearning_rate = {text}\n"));
    let adaptors = adaptors::rows();
    let adaptors = adaptors.iter().map(|(then, _)| adaptors::text(then));
    optimizers.chain(schedules).chain(adaptors).collect()
}

/// The places of all values below this one.
fn places(value: &Value, at: &mut Vec<Part>, all: &mut Vec<Vec<Part>>) {
    if !at.is_empty() {
        all.push(at.clone());
    }
    let below: Vec<(Part, &Value)> = match value {
        Value::Object(table) => table.iter().map(|(key, value)| (Part::Key(key.clone()), value)).collect(),
        Value::Array(list) => list.iter().enumerate().map(|(index, value)| (Part::Index(index), value)).collect(),
        _ => Vec::new(),
    };
    for (part, value) in below {
        at.push(part);
        places(value, at, all);
        at.pop();
    }
}

fn value_at<'v>(value: &'v mut Value, place: &[Part]) -> &'v mut Value {
    place.iter().fold(value, |value, part| match part {
        Part::Key(key) => &mut value[key],
        Part::Index(index) => &mut value[index],
    })
}

fn path(place: &[Part]) -> String {
    let part = |part: &Part| match part {
        Part::Key(key) => key.clone(),
        Part::Index(index) => index.to_string(),
    };
    place.iter().map(part).collect::<Vec<_>>().join(".")
}

/// The message to a document, if it is not right.
fn message(document: &Value) -> Option<String> {
    let config = Config::from_json(&document.to_string()).unwrap();
    config.build::<f64>().err().map(|error| error.to_string())
}

/// Whether the message is about this place or one in it.
fn names(message: &str, path: &str) -> bool {
    message.strip_prefix(path).is_some_and(|rest| rest.starts_with(": ") || rest.starts_with('.'))
}

/// Values that are first looked at in a later step: of the second schedule, and in an ascent or a round.
const LATER: [&str; 5] = [".next", ".rho", ".adaptive", ".surrogate_gap", ".proximal"];

/// What is wrong with each value, the document, and the places that the message may name.
fn wrong(document: &Value) -> Vec<(String, Value, Vec<String>)> {
    let (mut all, mut wrong) = (Vec::new(), Vec::new());
    places(document, &mut Vec::new(), &mut all);
    for place in all {
        let (last, parent) = place.split_last().unwrap();
        let own = path(&place);
        let mut changed = |what: &str, expected: Vec<String>, change: &dyn Fn(&mut Value)| {
            let mut document = document.clone();
            change(&mut document);
            wrong.push((format!("{own} {what}"), document, expected));
        };
        if let Part::Key(key) = last {
            let misspelt = format!("{key}x");
            let other = path(&[parent, &[Part::Key(misspelt.clone())]].concat());
            changed("is misspelt", vec![other], &|document| {
                let table = value_at(document, parent).as_object_mut().unwrap();
                let value = table.remove(key).unwrap();
                table.insert(misspelt.clone(), value);
            });
        }
        let value = value_at(&mut document.clone(), &place).clone();
        let replaced = |with: Value| {
            let place = place.clone();
            move |document: &mut Value| *value_at(document, &place) = with.clone()
        };
        match value {
            Value::Number(_) => {
                changed("is a text", vec![own.clone()], &replaced(json!("wrong")));
                if !LATER.iter().any(|later| own.ends_with(later)) {
                    // A schedule's value may be out of range, and not one of its arguments.
                    let around = (2..=place.len()).map(|length| path(&place[..length])).collect();
                    changed("is NaN", around, &replaced(json!("NaN")));
                }
                changed("is a flag", vec![own.clone()], &replaced(json!(true)));
            }
            Value::Bool(_) => changed("is a number", vec![own.clone()], &replaced(json!(3))),
            Value::String(text) if text.parse::<f64>().is_ok() => {}
            Value::String(_) => changed("is a number", vec![own.clone()], &replaced(json!(3.25))),
            _ => changed("is a list of lists", vec![own.clone()], &replaced(json!([[[]]]))),
        }
    }
    wrong
}

#[test]
fn what_is_wrong_is_named_with_its_place() {
    let (mut seen, mut failed) = (0, Vec::new());
    for text in right() {
        let config = Config::from_toml(&text).unwrap();
        let document: Value = serde_json::from_str(&config.to_json().unwrap()).unwrap();
        for (what, document, expected) in wrong(&document) {
            seen += 1;
            match message(&document) {
                Some(message) if expected.iter().any(|path| names(&message, path)) => {}
                other => failed.push(format!("{what}: {other:?}")),
            }
        }
    }
    failed.sort();
    failed.dedup();
    assert!(failed.is_empty(), "{} of {seen}:\n{}", failed.len(), failed.join("\n"));
    assert!(seen > 2_000, "{seen}");
}

/// What is left out has a default, or is named.
#[test]
fn what_is_missing_is_named() {
    let (mut missing, mut defaults) = (0, 0);
    for text in right() {
        let config = Config::from_toml(&text).unwrap();
        let document: Value = serde_json::from_str(&config.to_json().unwrap()).unwrap();
        let mut all = Vec::new();
        places(&document, &mut Vec::new(), &mut all);
        for place in all {
            let (last, parent) = place.split_last().unwrap();
            let Part::Key(key) = last else { continue };
            let mut document = document.clone();
            value_at(&mut document, parent).as_object_mut().unwrap().remove(key);
            match message(&document) {
                None => defaults += 1,
                Some(message) => {
                    // Another setting may not be possible without it.
                    let parent = if parent.is_empty() { "the configuration".to_owned() } else { path(parent) };
                    assert!(names(&message, &parent), "{message}; {key} of {parent}");
                    missing += usize::from(message.contains(&format!("needs the setting {key:?}")));
                }
            }
        }
    }
    assert!(missing > 200 && defaults > 300, "{missing} {defaults}");
}

#[test]
fn messages() {
    let adamw = "[optimizer]\nname = 'AdamW'\nlearning_rate = 0.1\n";
    for (text, expected) in [
        ("[optimizer", "line 1: not TOML: unclosed table, expected `]`"),
        ("", "line 1: the configuration needs the setting \"optimizer\""),
        (
            "optimizer = 3",
            "optimizer (line 1): found 3; it must be a table with the name of an optimizer and its settings",
        ),
        (
            "[optimizer]\nname = 'adamw'",
            "optimizer.name (line 2): there is no optimizer \"adamw\" (did you mean \"AdamW\"?); there are …",
        ),
        (
            "[optimizer]\nname = 'AdamW'\nlearning_rte = 0.1",
            "optimizer.learning_rte (line 3): AdamW has no setting \"learning_rte\" (did you mean \"learning_rate\"?); it has learning_rate, beta1, …",
        ),
        (
            "[optimizer]\nname = 'Momentum'\nlearning_rate = 0.1",
            "optimizer (line 1): Momentum needs the setting \"momentum\"",
        ),
        (
            &format!("{adamw}\nbeta_1 = 0.9"),
            "optimizer.beta_1 (line 5): AdamW has no setting \"beta_1\" (did you mean \"beta1\"?); it has learning_rate, beta1, …",
        ),
        (
            &format!("{adamw}\nbeta1 = 1.5"),
            "optimizer.beta1 (line 5): beta1 is 1.5 at step 0; it must be a number in 0 ≤ beta1 < 1",
        ),
        (
            &format!("{adamw}\nbeta1 = 'high'"),
            "optimizer.beta1 (line 5): found the text \"high\"; it must be a number or a schedule",
        ),
        (
            "[optimizer]\nname = 'AdmaW'\nlr = 0.1",
            "optimizer.name (line 2): there is no optimizer \"AdmaW\" (did you mean \"AdamW\"…",
        ),
        (
            "[optimizer]\nname = 'AdamW'\nlr = 0.1",
            "optimizer.lr (line 3): AdamW has no setting \"lr\" (did you mean \"learning_rate\"?); it has learning_rate, beta1, …",
        ),
        (
            "[optimizer]\nname = 'Sgd'\nlearning_rate = { schedule = 'Cosine', peak = 1, steps = 9, warm_up = 1 }",
            "optimizer.learning_rate.warm_up (line 3): Cosine has no setting \"warm_up\" (did you mean \"warmup\"?); it has peak, …",
        ),
        (
            "[optimizer]\nname = 'Sgd'\nlearning_rate = { schedule = 'Cosine', peak = -1, steps = 9 }",
            "optimizer.learning_rate.peak (line 3): Cosine: peak is -1; it must be at least the floor of 0",
        ),
        (&format!("{adamw}amsgrad = 1"), "optimizer.amsgrad (line 4): found 1; it must be true or false"),
        (
            &format!("{adamw}state_precision = 'BF16'"),
            "optimizer.state_precision (line 4): there is no choice \"BF16\" (did you mean \"Bf16\"?); there are Full, Bf16, Blockwise8, Blockwise4",
        ),
        (
            "[optimizer]\nname = 'Sgd'\nlearning_rate = { schedule = 'Cosin', peak = 1, steps = 10 }",
            "optimizer.learning_rate.schedule (line 3): there is no schedule \"Cosin\" (did you mean \"Cosine\"?); there are …",
        ),
        (
            "[optimizer]\nname = 'Sgd'\nlearning_rate = { schedule = 'Cosine', peak = 1, steps = 1.5 }",
            "optimizer.learning_rate.steps (line 3): found 1.5; it must be a count: a whole number ≥ 0",
        ),
        (
            "[optimizer]\nname = 'Sgd'\nlearning_rate = { schedule = 'Cosine', peak = 1, steps = 9, floor = 2 }",
            "optimizer.learning_rate.floor (line 3): Cosine: floor is 2; it must be a finite number, at most the peak",
        ),
        (
            "[optimizer]\nname = 'Sgd'\nlearning_rate = { schedule = 'Cosine', peak = 1, steps = 9, warmup = 1, scale = 2 }",
            "optimizer.learning_rate.scale (line 3): found another combinator, scale; it must be the only combinator of its table; for several, write a list: [{ schedule = … }, { warmup = … }, …]",
        ),
        (
            "[optimizer]\nname = 'Kron'\nlearning_rate = 0.1\nprobe = 'signs'",
            "optimizer.probe (line 4): a probe is code, which no file has: call `probe` on the optimizer",
        ),
        (
            "[optimizer]\nname = 'Lbfgs'\nlearning_rate = 1\nbounds = [0, 1]",
            "optimizer.bounds (line 4): bounds cannot be set in a file: they are arrays; call `bounds` on the optimizer",
        ),
        (&format!("{adamw}[[then]]\nclip = 1"), "then.0.clip (line 5): there is no adaptor \"clip\"; there are …"),
        (
            &format!("{adamw}[[then]]\nclip_global_norm = {{ max_norm = 1, exat = true }}"),
            "then.0.clip_global_norm.exat (line 5): clip_global_norm has no setting \"exat\" (did you mean \"exact\"?); it has max_norm, p, exact, non_finite",
        ),
        (
            &format!("{adamw}[[then]]\naccumulate = 0"),
            "then.0.accumulate (line 5): accumulate is 0; it must be at least 1",
        ),
        (&format!("{adamw}[[then]]\nmonitor = 0"), "then.0.monitor (line 5): every is 0; it must be at least 1"),
        (
            &format!("{adamw}[[then]]\nclip_value = '1e999'"),
            "then.0.clip_value (line 5): found the text \"1e999\"; it must be a number or a schedule",
        ),
        (
            &format!("{adamw}[[then]]\nkfac = true"),
            "then.0.kfac (line 5): kfac cannot be set in a file: its layers are observed by their taps; call `kfac` on what `build` returns",
        ),
        (&format!("{adamw}[[then]]\ncentralize = 2"), "then.0.centralize (line 5): found 2; it must be true or false"),
        (
            &format!("{adamw}[[then]]\nfreeze = '{{a'"),
            "then.0.freeze (line 5): pattern \"{a\": an opening brace without a closing one",
        ),
        (
            &format!("{adamw}[[then]]\ngroup = {{ pattern = '**.bias', betta1 = 0.5 }}"),
            "then.0.group.betta1 (line 5): AdamW has no hyper-parameter \"betta1\", which the group \"**.bias\" sets (did you mean \"beta1\"?); it has learning_rate, weight_decay, beta1, beta2, eps",
        ),
        (
            &format!("{adamw}[[then]]\nema = 0.9\nswa = 3"),
            "then.0 (line 4): found a table with the keys ema, swa; it must be a table with one key, the name of an adaptor; \
             each adaptor has a `[[then]]` of its own",
        ),
        (&format!("{adamw}date = 2026-01-01"), "line 4: no setting is a date, such as 2026-01-01"),
    ] {
        let error = Config::from_toml(text).and_then(|config| config.build::<f64>()).err().unwrap().to_string();
        match expected.strip_suffix('…') {
            Some(beginning) => assert!(error.starts_with(beginning), "{error}\n{expected}"),
            None => assert_eq!(error, expected),
        }
    }
    let error = Config::from_json("\"AdamW\"").and_then(|config| config.build::<f64>()).err().unwrap().to_string();
    assert_eq!(error, "the configuration: found the text \"AdamW\"; it must be a table with the key `optimizer`");
    for (text, expected) in [
        (
            "{\"optimizer\": {\"name\": \"Sgd\",\n \"name\": \"Lion\"}}",
            "line 2: not accepted as JSON: the key \"name\" is there twice",
        ),
        (
            "{\"optimizer\": null}",
            "line 1: not accepted as JSON: invalid type: null, expected a setting: true or false, a number, a text, a list or a table",
        ),
    ] {
        assert_eq!(Config::from_json(text).unwrap_err().to_string(), expected);
    }
}
