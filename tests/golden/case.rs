//! The golden files, read strictly: what the tests do not know, they refuse.

use std::collections::{BTreeMap, BTreeSet};

use gradus::Hyper;
use serde_json::Value;

use super::beside;

pub(crate) const STEPS: u64 = 100;

/// What a case gives to a setter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Setting {
    Number(f64),
    Switch(bool),
}

pub(crate) type Options = BTreeMap<String, Setting>;

/// A case of a golden file.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) source: String,
    pub(crate) options: Options,
    pub(crate) maximize: bool,
    pub(crate) dtype: String,
    pub(crate) size: usize,
    pub(crate) shape: Vec<usize>,
    pub(crate) learning_rates: Vec<f64>,
    pub(crate) indices: Vec<usize>,
    pub(crate) steps: Vec<u64>,
    pub(crate) values: Vec<Vec<f64>>,
}

impl Case {
    /// Reads every key, and refuses a case with others.
    pub(crate) fn read(value: &Value) -> Self {
        let text = |key: &str| value[key].as_str().unwrap_or_else(|| panic!("no text {key}")).to_owned();
        let counts = |key: &str| list(&value[key]).map(|count| count.as_u64().unwrap());
        let numbers = |value: &Value| list(value).map(|number| number.as_f64().unwrap()).collect::<Vec<_>>();
        let setting = |(name, value): (&String, &Value)| match value {
            Value::Bool(on) => (name.clone(), Setting::Switch(*on)),
            Value::Number(number) => (name.clone(), Setting::Number(number.as_f64().unwrap())),
            _ => panic!("{name} is neither a number nor a switch: {value}"),
        };
        let keys = value.as_object().unwrap().keys().map(String::as_str);
        let keys: BTreeSet<&str> = keys.filter(|key| *key != "shape").collect();
        let known = "dtype indices learning_rate maximize name options size source steps values".split(' ');
        assert_eq!(keys, known.collect());
        let size = value["size"].as_u64().unwrap() as usize;
        let shape = match &value["shape"] {
            Value::Null => vec![size],
            shape => list(shape).map(|side| side.as_u64().unwrap() as usize).collect(),
        };
        Self {
            name: text("name"),
            source: text("source"),
            options: value["options"].as_object().unwrap().iter().map(setting).collect(),
            maximize: value["maximize"].as_bool().unwrap(),
            dtype: text("dtype"),
            size,
            shape,
            learning_rates: numbers(&value["learning_rate"]),
            indices: counts("indices").map(|index| index as usize).collect(),
            steps: counts("steps").collect(),
            values: list(&value["values"]).map(numbers).collect(),
        }
    }

    pub(crate) fn describe(&self) -> String {
        let rates = if self.has_changing_rates() { "changing" } else { "constant" };
        let Self { name, source, options, dtype, shape, .. } = self;
        format!("{name} {options:?} of {source}, {shape:?} of {dtype}, {rates} learning rate")
    }

    pub(crate) fn has_changing_rates(&self) -> bool {
        self.learning_rates.len() > 1
    }

    /// What would let a case be passed without comparing what it was made for.
    fn check(&self) {
        assert!(["f32", "f64"].contains(&self.dtype.as_str()), "{}", self.describe());
        let sources = [
            "torch",
            "optax 0.2.8",
            "timm 1.0.31",
            "keras 3.15.1",
            "transformers 5.23.0",
            "schedulefree 1.4.1",
            "naive f64 reference",
        ];
        assert!(sources.contains(&self.source.as_str()), "{}", self.describe());
        assert_eq!(self.shape.iter().product::<usize>(), self.size, "{}", self.describe());
        assert_eq!(self.steps, [1, 2, 3, 10, 50, STEPS], "{}", self.describe());
        assert_eq!(self.values.len(), self.steps.len(), "{}", self.describe());
        assert_eq!(self.indices, sampled_indices(self.size), "{}", self.describe());
        assert!(self.values.iter().all(|row| row.len() == self.indices.len()), "{}", self.describe());
        assert!([1, STEPS as usize].contains(&self.learning_rates.len()), "{}", self.describe());
    }

    /// The learning rate as an optimizer takes it.
    pub(crate) fn learning_rate(&self) -> Hyper {
        let rates = self.learning_rates.clone();
        match rates[..] {
            [rate] => rate.into(),
            _ => (move |step: u64| rates[step as usize]).into(),
        }
    }
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().unwrap_or_else(|| panic!("not a list: {value}")).iter()
}

/// The indices that the generator records: all of a small tensor, else both ends and some between.
fn sampled_indices(size: usize) -> Vec<usize> {
    match size {
        0..=9 => (0..size).collect(),
        _ => (0..8).chain((1..9).map(|part| part * size / 9)).chain(size - 8..size).collect(),
    }
}

/// A golden file's cases. The README has their number, so that a file that was cut short is noticed.
pub(crate) fn cases(optimizer: &str) -> Vec<Case> {
    let golden = beside::golden(optimizer);

    let keys: Vec<&str> = golden.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, ["cases", "generator", "library", "naive_reference", "version"]);
    let library = ["library", "version"].map(|key| golden[key].as_str().unwrap());
    assert!(
        matches!(library, ["torch", version] if version.starts_with("2.15.0"))
            || [["optax", "0.2.8"], ["timm", "1.0.31"], ["schedulefree", "1.4.1"]].contains(&library)
    );

    let cases: Vec<Case> = list(&golden["cases"]).map(Case::read).collect();
    cases.iter().for_each(Case::check);
    let vectors = cases.iter().filter(|case| case.shape.len() == 1);
    let sizes: BTreeSet<_> = vectors.map(|case| case.size).collect();
    // PyTorch's Adafactor divides by the number of elements.
    let least = usize::from(optimizer == "adafactor");
    let expected = [0, 1, 7, 8, 9, 1000, 100_003].into_iter().filter(|size| *size >= least);
    assert_eq!(sizes, expected.collect(), "{optimizer}");
    assert!(cases.iter().any(Case::has_changing_rates), "{optimizer}");
    let row = format!("| `{optimizer}.json` | `optimizers.py` | {} |", cases.len());
    assert!(beside::text("README.md").contains(&row), "the README has no row {row}");
    cases
}
