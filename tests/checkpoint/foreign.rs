//! Files of other programs: what is no parameter is left out, and nothing of theirs is taken for ours.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use gradus::checkpoint::{Checkpoint, torch};
use gradus::error::{FileError, StateError};
use gradus::prelude::*;
use gradus::{Error, StateDict};
use ndarray::{Array1, ArrayD, array};
use safetensors::Dtype;
use safetensors::tensor::TensorView;

/// A file of these tensors.
fn file(tensors: &[(&str, Dtype, &[usize], &[u8])], metadata: &[(&str, &str)]) -> Vec<u8> {
    let views = tensors
        .iter()
        .map(|(name, dtype, shape, bytes)| (*name, TensorView::new(*dtype, shape.to_vec(), bytes).unwrap()));
    let metadata: HashMap<_, _> = metadata.iter().map(|(key, text)| (key.to_string(), text.to_string())).collect();
    safetensors::serialize(views, Some(metadata)).unwrap()
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

#[test]
fn integers_are_left_out_unless_asked_for() {
    let w = bytes(&[1.5, -2.0]);
    let theirs = file(
        &[
            ("w", Dtype::F32, &[2], &w),
            ("bn.num_batches_tracked", Dtype::I64, &[], &7_i64.to_le_bytes()),
            ("position_ids", Dtype::I32, &[1, 2], &[0; 8]),
            ("mask", Dtype::BOOL, &[3], &[1, 0, 1]),
            ("codes", Dtype::U8, &[2], &[1, 2]),
            ("count", Dtype::U64, &[1], &[0; 8]),
            ("narrow", Dtype::F8_E4M3, &[2], &[0, 1]),
        ],
        &[("format", "pt")],
    );
    let opened = Checkpoint::from_bytes(&theirs).unwrap();
    let mut tree = BTreeMap::from([("w", Array1::<f32>::zeros(2))]);
    opened.load_params(&mut tree).unwrap();
    assert_eq!(tree["w"], array![1.5, -2.0]);

    for (name, found) in [("bn.num_batches_tracked", "i64"), ("mask", "bool"), ("codes", "u8"), ("count", "u64")] {
        let mut tree = BTreeMap::from([("w", Array1::<f32>::zeros(2)), (name, array![0.0])]);
        let error = opened.load_params(&mut tree).unwrap_err();
        assert_eq!(error, Error::State(StateError::EntryType { key: name.into(), expected: "f32", found }));
        assert_eq!(tree["w"], array![0.0, 0.0]);
    }
    // A parameter that the tree lacks is still missed.
    let error = opened.load_params(&mut BTreeMap::<&str, Array1<f32>>::new()).unwrap_err();
    assert_eq!(error, Error::State(StateError::UnexpectedEntry { key: "w".into(), into: "model" }));
    // They are not lost either.
    let again = Checkpoint::from_bytes(&opened.to_bytes().unwrap()).unwrap();
    assert_eq!(again, opened);
    let kept = opened.to_bytes().unwrap();
    let kept = safetensors::SafeTensors::deserialize(&kept).unwrap();
    assert_eq!(kept.tensor("bn.num_batches_tracked").unwrap().data(), 7_i64.to_le_bytes());
}

#[test]
fn their_metadata_are_not_ours() {
    let w = bytes(&[1.0]);
    for metadata in [
        &[("checksum", "abc")][..],
        &[("format", "pt"), ("checksum", "00000000"), ("version", "2")],
        &[("layout", "NCHW"), ("checksum", "x")],
        &[("version", "1")],
    ] {
        let opened = Checkpoint::from_bytes(&file(&[("w", Dtype::F32, &[1], &w)], metadata)).unwrap();
        let mut tree = BTreeMap::from([("w", Array1::<f32>::zeros(1))]);
        opened.load_params(&mut tree).unwrap();
        assert_eq!(tree["w"], array![1.0], "{metadata:?}");
    }
}

/// One damaged mark does not hide that a file is ours.
#[test]
fn ours_are_known_by_either_mark() {
    let ours = Checkpoint::of_params(&array![1.0]).unwrap().to_bytes().unwrap();
    let damaged = |from: &str, to: &str| {
        let at = ours.windows(from.len()).position(|part| part == from.as_bytes()).unwrap();
        let mut bytes = ours.clone();
        bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
        Checkpoint::from_bytes(&bytes).unwrap_err()
    };
    for (from, to) in [("\"gradus\"", "\"gradut\""), ("gradus.version", "gradus.versiom"), ("\"format\"", "\"formar\"")]
    {
        assert!(matches!(damaged(from, to), Error::File(FileError::Corrupted { .. })), "{from}");
    }
}

#[test]
fn a_step_may_have_any_type() {
    let model = BTreeMap::from([("w", array![0.0_f64])]);
    let steps: [(Dtype, Vec<u8>); 11] = [
        (Dtype::F32, 12_f32.to_le_bytes().into()),
        (Dtype::F64, 12_f64.to_le_bytes().into()),
        (Dtype::BF16, 0x4140_u16.to_le_bytes().into()),
        (Dtype::F16, 0x4a00_u16.to_le_bytes().into()),
        (Dtype::I64, 12_i64.to_le_bytes().into()),
        (Dtype::I32, 12_i32.to_le_bytes().into()),
        (Dtype::I16, 12_i16.to_le_bytes().into()),
        (Dtype::I8, vec![12]),
        (Dtype::U64, 12_u64.to_le_bytes().into()),
        (Dtype::U32, 12_u32.to_le_bytes().into()),
        (Dtype::U8, vec![12]),
    ];
    let import = |dtype: Dtype, shape: &[usize], bytes: &[u8]| -> Result<StateDict, Error> {
        let slot = 0.5_f64.to_le_bytes();
        let slots = [("exp_avg/w", Dtype::F64, &[1][..], &slot[..]), ("exp_avg_sq/w", Dtype::F64, &[1], &slot)];
        let all = [&slots[..], &[("step/w", dtype, shape, bytes)]].concat();
        torch::import(&Checkpoint::from_bytes(&file(&all, &[])).unwrap(), "adam", &model, 0)
    };
    for (dtype, bytes) in steps {
        for shape in [&[][..], &[1]] {
            let mut opt: Adam<f64> = Adam::new(0.1);
            opt.load_state_dict(&import(dtype, shape, &bytes).unwrap()).unwrap();
            assert_eq!((opt.steps(), opt.tensor_steps("w")), (12, 12), "{dtype:?}");
        }
    }
    // f16: the least number, a half, infinity, and a count to its end.
    for (bits, said) in [(0x0001, "5.960464477539063e-8"), (0x3800, "0.5"), (0x7c00, "inf"), (0xbc00, "-1")] {
        let error = import(Dtype::F16, &[], &u16::to_le_bytes(bits)).unwrap_err();
        assert!(
            matches!(&error, Error::State(StateError::EntryValue { value, .. }) if value.parse::<f64>() == said.parse()),
            "{error}"
        );
    }
    assert_eq!(import(Dtype::F16, &[], &0x7bff_u16.to_le_bytes()).unwrap().text("adam/steps"), Some("65504"));
    for (dtype, shape, bytes) in [
        (Dtype::I64, &[][..], (-1_i64).to_le_bytes().to_vec()),
        (Dtype::I64, &[], i64::MAX.to_le_bytes().to_vec()),
        (Dtype::I32, &[2], vec![0; 8]),
        (Dtype::F32, &[2], vec![0; 8]),
        (Dtype::F32, &[0], vec![]),
        (Dtype::BOOL, &[], vec![1]),
        (Dtype::BF16, &[], 0x7fc0_u16.to_le_bytes().to_vec()),
    ] {
        let error = import(dtype, shape, &bytes).unwrap_err();
        assert!(
            matches!(&error, Error::State(StateError::EntryValue { key, .. }) if key == "step/w"),
            "{dtype:?}: {error}"
        );
    }
    // Integers that are no slot of a parameter are ignored.
    let slot = 0.5_f64.to_le_bytes();
    let others = [
        ("exp_avg/w", Dtype::F64, &[1][..], &slot[..]),
        ("exp_avg_sq/w", Dtype::F64, &[1], &slot),
        ("step/w", Dtype::I64, &[], &[12, 0, 0, 0, 0, 0, 0, 0]),
        ("epoch", Dtype::I64, &[], &[0; 8]),
        ("mask/other", Dtype::BOOL, &[1], &[1]),
    ];
    let state = torch::import(&Checkpoint::from_bytes(&file(&others, &[])).unwrap(), "adam", &model, 0).unwrap();
    let mut opt: Adam<f64> = Adam::new(0.1);
    opt.load_state_dict(&state).unwrap();
    assert_eq!(opt.steps(), 12);
    let whole = Checkpoint::from_bytes(&file(&[("exp_avg/w", Dtype::I64, &[1], &[0; 8])], &[])).unwrap();
    let error = torch::import(&whole, "adam", &model, 0).unwrap_err();
    assert_eq!(error.to_string(), "entry \"exp_avg/w\" holds i64 where f32, f64, bf16 or f16 is needed");
}

/// 32,000 tensors took 38 s when each was looked for among all.
#[test]
fn many_tensors() {
    const TENSORS: usize = 32_000;
    let start = Instant::now();
    let model: BTreeMap<String, ArrayD<f32>> =
        (0..TENSORS).map(|number| (format!("layers.{number}.weight"), ArrayD::zeros(vec![1]))).collect();
    let slots = model.iter().map(|(name, values)| (format!("momentum_buffer/{name}"), values));
    let file = Checkpoint::of_params(&slots.collect::<BTreeMap<_, _>>()).unwrap();
    let state = torch::import(&file, "momentum", &model, 9).unwrap();
    let (mut opt, mut model) = (Momentum::new(0.1, 0.9), model);
    opt.load_state_dict(&state).unwrap();
    // Gradients in another order than the parameters, most of them `None`.
    let grad = |name: &String| name.ends_with("7.weight").then(|| ArrayD::ones(vec![1]));
    let grads = Backwards(model.keys().rev().map(|name| (name.clone(), grad(name))).collect());
    opt.step(&mut model, &grads).unwrap();
    assert_eq!((opt.steps(), opt.tensor_steps("layers.7.weight"), opt.tensor_steps("layers.8.weight")), (10, 10, 9));
    let taken = start.elapsed();
    assert!(taken.as_secs() < 15, "{taken:?}");
}

struct Backwards(Vec<(String, Option<ArrayD<f32>>)>);

impl Params for Backwards {
    type Elem = f32;

    fn visit<'a>(&'a self, visitor: &mut gradus::params::Visitor<'_, 'a, f32>) {
        self.0.iter().for_each(|(name, grad)| visitor.field(name, grad));
    }
}
