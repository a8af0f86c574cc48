//! A part of a checkpoint: one tensor, some by pattern, under other names, of another element type.

use std::collections::BTreeMap;

use gradus::checkpoint::Checkpoint;
use gradus::error::{StateError, StepError};
use gradus::prelude::*;
use gradus::{Error, StateDict};
use ndarray::{Array1, ArrayD, array};
use safetensors::Dtype;
use safetensors::tensor::TensorView;

use crate::chains::{CHAINS, grads, tree};

/// A file of another program, with tensors of one axis.
fn foreign(tensors: &[(&str, Dtype, &[u8])]) -> Checkpoint {
    let width = |dtype: Dtype| dtype.bitsize() / 8;
    let views = tensors.iter().map(|(name, dtype, bytes)| {
        (*name, TensorView::new(*dtype, vec![bytes.len() / width(*dtype)], bytes).unwrap())
    });
    Checkpoint::from_bytes(&safetensors::serialize(views, None).unwrap()).unwrap()
}

fn map<const N: usize>(tensors: [(&'static str, Array1<f32>); N]) -> BTreeMap<&'static str, Array1<f32>> {
    BTreeMap::from(tensors)
}

#[test]
fn one_tensor_or_why_not() {
    let counter = 3_i64.to_le_bytes();
    let file = foreign(&[
        ("encoder.weight", Dtype::F32, &[0, 0, 128, 63, 0, 0, 0, 192]),
        ("encoder.tracked", Dtype::I64, &counter),
        ("head.weight", Dtype::BF16, &[0x80, 0x3f]),
    ]);
    assert_eq!(file.names().collect::<Vec<_>>(), ["encoder.weight", "head.weight"]);
    assert_eq!(file.tensor("encoder.weight"), Ok(array![1.0_f32, -2.0].into_dyn()));
    let of = |name: &str| file.tensor::<f32>(name).unwrap_err();
    assert_eq!(
        of("encoder.weigth"),
        Error::State(StateError::MissingEntry { key: "encoder.weigth".into(), similar: vec!["encoder.weight".into()] })
    );
    let holds = |key: &str, found| Error::State(StateError::EntryType { key: key.into(), expected: "f32", found });
    assert_eq!(of("head.weight"), holds("head.weight", "bf16"));
    assert_eq!(of("encoder.tracked"), holds("encoder.tracked", "i64"));
}

#[test]
fn a_part_is_loaded_and_the_rest_is_named() {
    let saved = Checkpoint::of_params(&map([
        ("a.bias", array![1.0]),
        ("a.weight", array![2.0, 3.0]),
        ("b.weight", array![4.0]),
        ("z", array![5.0]),
    ]))
    .unwrap();
    let zeros = || {
        map([
            ("a.gain", array![0.0]),
            ("a.weight", array![0.0, 0.0]),
            ("b.bias", array![0.0]),
            ("b.weight", array![0.0]),
        ])
    };
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();

    let mut tree = zeros();
    let report = saved.load_matching(&mut tree, "a.**").unwrap();
    assert_eq!(report.loaded, names(&["a.weight"]));
    assert_eq!(report.missing, names(&["a.gain"]));
    assert_eq!(report.left_over, names(&["a.bias", "b.weight", "z"]));
    let mut expected = zeros();
    expected.insert("a.weight", array![2.0, 3.0]);
    assert_eq!(tree, expected);

    let report = saved.load_matching(&mut tree, "**").unwrap();
    assert_eq!((report.loaded, report.missing), (names(&["a.weight", "b.weight"]), names(&["a.gain", "b.bias"])));
    assert_eq!(report.left_over, names(&["a.bias", "z"]));
    assert_eq!((tree["b.weight"][0], tree["b.bias"][0]), (4.0, 0.0));

    let all = saved.load_matching(&mut tree, |path: &str, _: &[usize]| path == "b.weight").unwrap();
    assert_eq!((all.loaded.len(), all.missing.len(), all.left_over.len()), (1, 0, 3));
}

#[test]
fn a_part_that_does_not_fit_changes_nothing() {
    let saved = Checkpoint::of_params(&map([("a", array![1.0]), ("b", array![2.0, 3.0])])).unwrap();
    let zeros = || map([("a", array![0.0]), ("b", array![0.0])]);
    let mut tree = zeros();
    let error = saved.load_matching(&mut tree, "**").unwrap_err();
    let shape = StateError::EntryShape { key: "b".into(), expected: vec![1], found: vec![2] };
    assert_eq!((error, &tree), (Error::State(shape), &zeros()));
    let error = saved.load_matching(&mut tree, ["a", "c"]).unwrap_err();
    assert!(matches!(error, Error::Step(StepError::PatternUnmatched { .. })), "{error}");
    let mut wide = BTreeMap::from([("a", array![0.0_f64])]);
    let error = saved.load_matching(&mut wide, "a").unwrap_err();
    assert!(matches!(error, Error::State(StateError::EntryType { found: "f32", .. })), "{error}");
    assert_eq!((tree, wide["a"][0]), (zeros(), 0.0));
    // What does not fit is left out by the pattern.
    let mut tree = zeros();
    assert_eq!(saved.load_matching(&mut tree, "a").unwrap().left_over, ["b"]);
    assert_eq!(tree["a"], array![1.0]);
}

#[test]
fn integers_stay_where_they_are() {
    let counter = 3_i64.to_le_bytes();
    let file = foreign(&[("norm.tracked", Dtype::I64, &counter), ("norm.weight", Dtype::F32, &[0, 0, 128, 63])]);
    let mut tree = map([("norm.tracked", array![7.0]), ("norm.weight", array![0.0])]);
    let report = file.load_matching(&mut tree, "**").unwrap();
    assert_eq!((report.loaded, report.missing), (vec!["norm.weight".into()], vec!["norm.tracked".into()]));
    assert_eq!(report.left_over, ["norm.tracked"]);
    assert_eq!(tree, map([("norm.tracked", array![7.0]), ("norm.weight", array![1.0])]));
}

#[test]
fn every_number_of_16_bits_is_widened() {
    let bits: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
    let file = foreign(&[("bf16", Dtype::BF16, &bits), ("f16", Dtype::F16, &bits)]).cast::<f64>();
    let same = |found: ArrayD<f64>, expected: fn(u16) -> f64| {
        assert_eq!(found.len(), 1 << 16);
        for (bits, found) in (0..=u16::MAX).zip(found) {
            let expected = expected(bits);
            assert!(found == expected || found.is_nan() && expected.is_nan(), "{bits:#x}: {found} {expected}");
            assert_eq!(found.is_sign_negative(), expected.is_sign_negative(), "{bits:#x}");
        }
    };
    same(file.tensor("f16").unwrap(), |bits| half::f16::from_bits(bits).to_f64());
    same(file.tensor("bf16").unwrap(), |bits| half::bf16::from_bits(bits).to_f64());
}

#[test]
fn another_element_type_rounds_to_the_nearest() {
    let values = array![0.1, -1.0 / 3.0, 1e300, 1e-300, f64::MAX];
    let (mut opt, mut w) = (Adam::new(0.1), values.clone());
    opt.step(&mut w, &values).unwrap();
    let saved = Checkpoint::of(&values, &opt).unwrap();
    let narrow = saved.clone().cast::<f32>();
    assert_eq!(narrow.tensor::<f32>("").unwrap(), values.mapv(|value| value as f32).into_dyn());
    // The state is what it was, and so is what has the type already.
    assert_eq!(narrow.optimizer(), saved.optimizer());
    assert_eq!(saved.clone().cast::<f64>(), saved);
    let nan = array![f32::from_bits(0x7fc0_1234)];
    let kept = Checkpoint::of_params(&nan).unwrap().cast::<f32>().tensor::<f32>("").unwrap();
    assert_eq!(kept[0].to_bits(), 0x7fc0_1234);
}

#[test]
fn two_names_that_become_one_are_an_error() {
    let counter = 3_i64.to_le_bytes();
    let file = foreign(&[("a", Dtype::F32, &[0; 4]), ("b", Dtype::I64, &counter)]);
    for name in ["same", "optimizer/x"] {
        let error = file.clone().map_names(|_| name.into()).unwrap_err();
        assert_eq!(error, Error::Step(StepError::DuplicatePath { path: name.into() }));
    }
    let renamed = file.map_names(|name| format!("x.{name}")).unwrap();
    assert_eq!(renamed.names().collect::<Vec<_>>(), ["x.a"]);
    let error = renamed.tensor::<f32>("x.b").unwrap_err();
    assert!(matches!(error, Error::State(StateError::EntryType { found: "i64", .. })), "{error}");
}

/// The entries that end with a node, a kind and the path of a tensor: what must be renamed. `lbfgs/scale` is a number, and "scale" a tensor.
fn of_tensors(state: &StateDict) -> usize {
    let paths: Vec<String> = state.layout().unwrap().paths().map(|path| format!("/{path}")).collect();
    let two_slashes = |key: &&str| key.matches('/').count() > 1;
    state.keys().filter(two_slashes).filter(|key| paths.iter().any(|path| key.ends_with(path))).count()
}

#[test]
fn every_chain_is_renamed_and_back() {
    for (name, build) in CHAINS {
        let (mut opt, mut params) = (build(), tree(1));
        (0..5).for_each(|step| _ = opt.step(&mut params, &grads(step)).unwrap());
        let saved = Checkpoint::of(&params, &opt).unwrap().note("step", 5);
        let there = saved.clone().map_names(|path| format!("model/{path}")).unwrap();
        let state = there.optimizer().unwrap();
        assert!(state.layout().unwrap().paths().all(|path| path.starts_with("model/")), "{name}");
        let renamed = state.keys().filter(|key| key.contains("/model/")).count();
        assert_eq!(renamed, of_tensors(saved.optimizer().unwrap()), "{name}");
        let back = there.map_names(|path| path.strip_prefix("model/").unwrap().to_owned()).unwrap();
        assert_eq!(back, saved, "{name}");
    }
}

#[test]
fn training_goes_on_under_other_names() {
    // A name that is also one of a counter, and a root that gets one.
    let (mut opt, mut old) = (Adam::new(0.1).ema(0.9), BTreeMap::from([("steps", array![1.0]), ("w", array![2.0])]));
    let grads = old.clone();
    (0..3).for_each(|_| _ = opt.step(&mut old, &grads).unwrap());
    let saved = Checkpoint::of(&old, &opt).unwrap();
    let renamed = saved.map_names(|name| if name == "w" { "weight".into() } else { "a.count".into() }).unwrap();
    let mut new = BTreeMap::from([("a.count", array![0.0]), ("weight", array![0.0])]);
    let mut resumed = Adam::new(0.1).ema(0.9);
    renamed.load(&mut new, &mut resumed).unwrap();
    opt.step(&mut old, &grads).unwrap();
    let grads = BTreeMap::from([("a.count", array![1.0]), ("weight", array![2.0])]);
    resumed.step(&mut new, &grads).unwrap();
    assert!(new.values().eq(old.values()), "{new:?} {old:?}");

    let (mut opt, mut w) = (Momentum::new(0.1, 0.9), array![1.0]);
    (0..2).for_each(|_| _ = opt.step(&mut w, &array![1.0]).unwrap());
    let named = Checkpoint::of(&w, &opt).unwrap().map_names(|_| "w".into()).unwrap();
    let (mut tree, mut resumed) = (BTreeMap::from([("w", array![0.0])]), Momentum::new(0.1, 0.9));
    named.load(&mut tree, &mut resumed).unwrap();
    opt.step(&mut w, &array![1.0]).unwrap();
    resumed.step(&mut tree, &BTreeMap::from([("w", array![1.0])])).unwrap();
    assert_eq!(tree["w"], w);
}
