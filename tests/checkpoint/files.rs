//! What is saved comes back, and what does not fit is refused whole.

use std::collections::BTreeMap;

use gradus::checkpoint::Checkpoint;
use gradus::error::{FileError, StepError};
use gradus::prelude::*;
use gradus::{Error, StateDict};
use ndarray::{Array1, Array2, ArrayD, array};
use safetensors::SafeTensors;

use crate::chains::{CHAINS, Tree, grads, tree};

/// A run of some steps.
fn run(build: crate::chains::Build, steps: u64) -> (Box<dyn Optimizer<f32>>, Tree) {
    let (mut opt, mut params) = (build(), tree(1));
    (0..steps).for_each(|step| _ = opt.step(&mut params, &grads(step)).unwrap());
    (opt, params)
}

#[test]
fn every_chain_comes_back_from_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.safetensors");
    for (name, build) in CHAINS {
        for steps in [0, 5] {
            let (opt, params) = run(build, steps);
            let saved = Checkpoint::of(&params, &opt).unwrap().note("epoch", steps);
            saved.save(&path).unwrap();
            let opened = Checkpoint::open(&path).unwrap();
            assert!(opened == saved, "{name} after {steps} steps");
            let (mut resumed, mut loaded) = (build(), tree(9));
            opened.load(&mut loaded, &mut resumed).unwrap();
            assert!(loaded == params && resumed.state_dict() == opt.state_dict(), "{name} after {steps} steps");
            assert_eq!(opened.noted("epoch"), Some(steps.to_string().as_str()));
        }
    }
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["run.safetensors"]);
}

#[test]
fn others_read_the_file() {
    let (mut opt, mut w) = (Adam::new(0.5), Array2::<f32>::ones((2, 3)).reversed_axes());
    w[[2, 1]] = 7.0;
    opt.step(&mut w, &Array2::ones((3, 2))).unwrap();
    let bytes = Checkpoint::of(&(&mut w,), &opt).unwrap().to_bytes().unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let param = file.tensor("0").unwrap();
    let numbers: Vec<f32> = param.data().chunks(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect();
    assert_eq!((param.shape(), numbers), (&[3, 2][..], w.iter().copied().collect()));
    assert_eq!(file.tensor("optimizer/adam/exp_avg/").unwrap().shape(), [3, 2]);
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    let metadata = header.metadata().clone().unwrap();
    assert_eq!((&*metadata["format"], &*metadata["optimizer/adam/steps"]), ("gradus", "1"));
}

#[test]
fn files_of_others_are_read() {
    let bytes: Vec<u8> = [1.5_f32, -2.0].iter().flat_map(|x| x.to_le_bytes()).collect();
    let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![2], &bytes).unwrap();
    let file = safetensors::serialize([("w", view)], None).unwrap();
    let mut tree = BTreeMap::from([("w", Array1::<f32>::zeros(2))]);
    let checkpoint = Checkpoint::from_bytes(&file).unwrap();
    checkpoint.load_params(&mut tree).unwrap();
    assert_eq!(tree["w"], array![1.5, -2.0]);
    let error = checkpoint.load(&mut tree, &mut Sgd::new(0.1)).unwrap_err();
    assert_eq!(error, Error::File(FileError::NoOptimizerState));
}

#[test]
fn parameters_of_every_layout_and_type() {
    let rows = Array2::from_shape_fn((3, 4), |(i, j)| (10 * i + j) as f64);
    let strided = rows.slice(ndarray::s![..;2, ..;3]);
    let saved = Checkpoint::of_params(&(strided, Some(rows.t()), None::<Array1<f64>>)).unwrap();
    let mut loaded = (Array2::<f64>::zeros((2, 2)), Array2::<f64>::zeros((4, 3)));
    Checkpoint::from_bytes(&saved.to_bytes().unwrap()).unwrap().load_params(&mut loaded).unwrap();
    assert_eq!(loaded, (strided.to_owned(), rows.t().to_owned()));
    let single = Checkpoint::of_params(&array![f64::NAN, -0.0]).unwrap();
    let mut root = Array1::<f64>::zeros(2);
    Checkpoint::from_bytes(&single.to_bytes().unwrap()).unwrap().load_params(&mut root).unwrap();
    assert!(root[0].is_nan() && root[1].is_sign_negative());
}

/// What does not fit changes neither parameters nor state.
#[test]
fn what_does_not_fit_is_refused_whole() {
    let (opt, params) = run(|| Box::new(Adam::new(0.1)), 3);
    let saved = Checkpoint::of(&params, &opt).unwrap();
    let refused = |mut into: Tree, mut other: Box<dyn Optimizer<f32>>| {
        let (state, before): (StateDict, Tree) = (other.state_dict(), into.clone());
        let error = saved.load(&mut into, &mut other).unwrap_err();
        assert!(other.state_dict() == state && into == before, "{error}");
        error.to_string()
    };
    let changed = |change: fn(&mut Tree)| {
        let mut tree = tree(3);
        change(&mut tree);
        refused(tree, Box::new(Adam::new(0.1)))
    };
    assert_eq!(refused(tree(3), Box::new(Sgd::new(0.1))), "expected the state of sgd, found that of adam");
    assert_eq!(
        changed(|tree| _ = tree.remove("scale")),
        "unexpected entry \"scale\": the model it is loaded into does not have it"
    );
    assert_eq!(changed(|tree| _ = tree.insert("more", ArrayD::zeros(vec![1]))), "entry \"more\" is missing");
    assert_eq!(
        changed(|tree| _ = tree.insert("scale", ArrayD::zeros(vec![1]))),
        "entry \"scale\" has shape [] where [1] is needed"
    );
    let error =
        saved.load_params(&mut tree(3).into_iter().map(|(k, v)| (k, v.mapv(f64::from))).collect::<BTreeMap<_, _>>());
    assert_eq!(error.unwrap_err().to_string(), "entry \"a.bias\" holds f32 where f64 is needed");
}

#[test]
fn a_file_that_cannot_be_written_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let saved = Checkpoint::of_params(&array![1.0]).unwrap();
    let error = saved.save(folder.path().join("no/such.safetensors")).unwrap_err();
    assert!(matches!(error, Error::File(FileError::Io { kind: std::io::ErrorKind::NotFound, .. })), "{error}");
    // A folder is in the place of the file.
    std::fs::create_dir(folder.path().join("taken")).unwrap();
    assert!(matches!(saved.save(folder.path().join("taken")), Err(Error::File(FileError::Io { .. }))));
    assert!(matches!(saved.save(""), Err(Error::File(FileError::Io { .. }))));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn a_parameter_may_not_have_the_name_of_a_state() {
    let tree = BTreeMap::from([("optimizer/adam/steps", array![1.0])]);
    let error = Checkpoint::of_params(&tree).unwrap_err();
    assert_eq!(error, Error::Step(StepError::DuplicatePath { path: "optimizer/adam/steps".into() }));
}
