//! Optimizers from configuration files.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod adaptors;
mod mutated;
mod optimizers;
mod registered;
mod schedules;
mod wrong;

use std::collections::BTreeMap;

use gradus::config::{Config, Registry};
use gradus::prelude::*;
use ndarray::Array2;

/// An optimizer of any kind.
type Boxed = Box<dyn Optimizer<f64>>;
/// Tensors by path.
type Tree = BTreeMap<&'static str, Array2<f64>>;

/// Two matrices of fixed numbers.
fn tree(phase: u32) -> Tree {
    let matrix = |shape: (usize, usize), from: f64| {
        Array2::from_shape_fn(shape, |(row, column)| {
            (f64::from(phase) + from + 1.7 * row as f64 + 0.9 * column as f64).sin()
        })
    };
    BTreeMap::from([("a", matrix((4, 3), 0.1)), ("b", matrix((3, 2), 0.5))])
}

/// The optimizer of a text in TOML.
fn built(text: &str) -> Boxed {
    let built = Config::from_toml(text).and_then(|config| config.build());
    built.unwrap_or_else(|error| panic!("{error} in\n{text}"))
}

fn schema() -> String {
    Registry::<f64>::default().schema().unwrap()
}

/// Everything that can be seen of some steps: the chain in words, and the parameters after each step or its error.
fn seen(mut opt: Boxed) -> Vec<String> {
    let mut params = tree(0);
    let mut all = vec![opt.describe(&params).map_or_else(|error| error.to_string(), |chain| chain.to_string())];
    for step in 1..5 {
        let report = opt.step(&mut params, &tree(step));
        let bits: Vec<u64> = params.values().flatten().map(|x| x.to_bits()).collect();
        all.push(format!("{report:?} {bits:?}"));
    }
    all
}

/// Fails unless the text and the code make the same optimizer, and the text survives both formats.
#[track_caller]
fn same(name: &str, text: &str, code: impl Fn() -> Boxed) {
    let config = Config::from_toml(text).unwrap_or_else(|error| panic!("{name}: {error}"));
    let of_code = seen(code());
    assert_eq!(seen(built(text)), of_code, "{name}");
    let toml = Config::from_toml(&config.to_toml().unwrap()).unwrap();
    let json = Config::from_json(&config.to_json().unwrap()).unwrap();
    assert_eq!([&toml, &json], [&config, &config], "{name}");
    assert_eq!(seen(json.build().unwrap()), of_code, "{name} in JSON");
}
