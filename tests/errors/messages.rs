//! The sentence of every variant.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::{declared, variant};
use gradus::error::{
    ArgumentError, ConfigError, ConfigProblem, CurvatureError, FederatedError, FileError, RankError, StateError,
    StepError,
};
use gradus::optimizer::MuonBlocks;
use gradus::prelude::*;
use gradus::schedule::{Cosine, CosineRestarts};
use gradus::simd::Level;
use gradus::{Commit, Error, LinearTap, Report, Result, StateDict, StateReader, StateWriter, Step, check, clip};
use ndarray::{Array1, Array2, array};

/// What a first step on two vectors says.
fn step(mut opt: impl Optimizer<f64>) -> Error {
    opt.step(&mut (array![1.0], array![2.0, 3.0]), &(array![0.5], array![0.5, 0.5])).unwrap_err()
}

/// What plain descent says to these gradients for two vectors, of one element and of two.
fn pairing(grads: &dyn Params<Elem = f64>) -> Error {
    Sgd::new(0.1).step(&mut (array![1.0], array![2.0, 3.0]), grads).unwrap_err()
}

/// What the second step says to parameters that are not those of the first.
fn changed(mut first: impl ParamsMut<Elem = f64> + Clone, mut second: impl ParamsMut<Elem = f64> + Clone) -> Error {
    let mut opt = Adam::new(0.1);
    let grads = first.clone();
    opt.step(&mut first, &grads).unwrap();
    let grads = second.clone();
    opt.step(&mut second, &grads).unwrap_err()
}

/// What one optimizer says to the state of another after a step.
fn resumed(mut saved: impl Optimizer<f64>, mut loaded: impl Optimizer<f64>) -> Error {
    let grads = (array![0.5], array![0.5]);
    saved.step(&mut (array![1.0], array![2.0]), &grads).unwrap();
    loaded.load_state_dict(&saved.state_dict()).unwrap_err()
}

/// What an optimizer says when its parameter, a matrix, loses a row.
fn resized(mut opt: impl Optimizer<f64>) -> Error {
    opt.step(&mut array![[1.0], [2.0]], &array![[1.0], [2.0]]).unwrap();
    opt.resize("", &[Some(1)], &array![[2.0]]).unwrap_err()
}

/// An error of a configuration.
fn config(path: &str, line: Option<usize>, problem: ConfigProblem) -> Error {
    Error::Config(ConfigError::new(path, line, problem))
}

/// The error and its sentence, for every variant and every form it takes.
fn table() -> Vec<(Error, &'static str)> {
    let mut late = Sgd::new(|step: u64| 0.1 - 0.1 * step as f64);
    let (mut w, g) = (array![1.0], array![1.0]);
    (0..2).for_each(|_| _ = late.step(&mut w, &g).unwrap());

    let many: BTreeMap<String, Array1<f64>> = (10..22).map(|i| (format!("layer{i}"), array![1.0])).collect();
    let nan = (array![1.0], array![2.0, f64::NAN]);
    let square: Array2<f64> = array![[1.0, 2.0], [f64::NEG_INFINITY, 3.0]];

    vec![
        (late.step(&mut w, &g).unwrap_err(), "learning_rate is -0.1 at step 2; it must be a finite number ≥ 0"),
        (
            step(Lion::new(0.1).update_clipping(true)),
            "update_clipping is not possible with lion; it needs an optimizer that averages the squared gradient",
        ),
        (
            resized(Muon::new(0.1)),
            "entry \"muon/momentum_buffer/\" cannot follow a change of the parameter's rows; \
             `route` the parameter to an element-wise optimizer",
        ),
        (
            Sgd::new(0.1).step(&mut square.clone(), &Rows::new(vec![1], square.clone())).unwrap_err(),
            "gradient (root) has 1 row indices and 2 rows of values",
        ),
        (
            Sgd::new(0.1).step(&mut square.clone(), &Rows::new(vec![1], array![[1.0]])).unwrap_err(),
            "the rows of gradient (root) have shape [1] where those of the parameter have [2]",
        ),
        (
            Sgd::new(0.1).step(&mut square.clone(), &Rows::new(vec![7], array![[1.0, 2.0]])).unwrap_err(),
            "gradient (root) has row index 7 at place 0, and the parameter has 2 rows",
        ),
        (
            Muon::new(0.1).step(&mut square.clone(), &Rows::new(vec![1], array![[1.0, 2.0]])).unwrap_err(),
            "muon cannot use the gradient of rows of (root); \
             pass a dense gradient, or route the tensor to an element-wise optimizer",
        ),
        (
            gradus::tree::dot(&(array![1.0], array![2.0]), &(array![1.0], array![2.0, 3.0])).unwrap_err(),
            "the trees differ: tensor \"1\" has shape [1] in the first tree and [2] in the second",
        ),
        (
            gradus::tree::dot(&(array![1.0], array![2.0]), &(array![1.0],)).unwrap_err(),
            "the trees differ: tensor \"1\" is only in the first tree",
        ),
        (
            gradus::tree::dot(&(array![1.0],), &(array![1.0], array![2.0])).unwrap_err(),
            "the trees differ: tensor \"1\" is only in the second tree",
        ),
        (step(Adam::new(0.1).beta1(1.0)), "beta1 is 1 at step 0; it must be a number in 0 ≤ beta1 < 1"),
        (
            step(Momentum::new(0.1, 0.9).dampening(1.5)),
            "dampening is 1.5 at step 0; it must be a number in 0 ≤ dampening ≤ 1",
        ),
        (step(Sgd::new(f64::NAN)), "learning_rate is NaN at step 0; it must be a finite number ≥ 0"),
        (
            step(Sgd::new(1e300).group("1", Group::new().scale_learning_rate(1e300))),
            "learning_rate is inf at step 0 for \"1\"; it must be a finite number ≥ 0",
        ),
        (
            step(Sgd::new(0.1).group("1", Group::new().weight_decay(-0.5))),
            "weight_decay is -0.5 at step 0 for \"1\" in the group \"1\"; it must be a finite number ≥ 0",
        ),
        (
            step(Adam::new(0.1).group("1", Group::new().set("beta", 0.5))),
            "Adam has no hyper-parameter \"beta\", which the group \"1\" sets (did you mean \"beta1\"?); \
             it has learning_rate, weight_decay, beta1, beta2, eps",
        ),
        (
            step(Adam::new(0.1).group("1", Group::new().set("amsgrad", 1.0))),
            "the group \"1\" cannot change amsgrad of Adam: it is an option, which all tensors share; `route` gives some tensors \
             an optimizer with another",
        ),
        (step(Sgd::new(0.1).accumulate(0)), "accumulate is 0; it must be at least 1"),
        (step(Sgd::new(0.1).clip_global_norm(1.0).p(0.5)), "p is 0.5 at step 0; it must be a number ≥ 1 or infinity"),
        (step(Sgd::new(0.1).clip_value(-1.0)), "limit is -1 at step 0; it must be a number ≥ 0 or infinity"),
        (
            // What is provoked depends on the machine: see tests/simd.rs.
            Error::Argument(ArgumentError::SimdLevel { level: Level::V4, available: vec![Level::Baseline, Level::V3] }),
            "the SIMD level v4 is not available; this machine has baseline, v3",
        ),
        (step(Sgd::new(0.1).unscale(0.0)), "loss_scale is 0 at step 0; it must be a finite number > 0"),
        (
            resumed(Sgd::new(0.1).freeze("0"), Sgd::new(0.1).freeze("1")),
            "the state was saved with freeze \"0\" and is loaded with freeze \"1\": they differ in \"0\"",
        ),
        (step(Sgd::new(Cosine::new(f64::NAN, 10))), "learning_rate: Cosine: peak is NaN; it must be a finite number"),
        (
            step(Sgd::new(CosineRestarts::new(0.1, 0))),
            "learning_rate: CosineRestarts: period is 0; it must be at least 1",
        ),
        (
            pairing(&(array![0.5],)),
            "no gradient for parameter \"1\"; the gradient tree needs the same tensors as the parameters \
             (use `Option` and `None` for \"no gradient this step\")",
        ),
        (
            pairing(&(array![0.5], array![0.5, 0.5], array![0.5])),
            "gradient \"2\" belongs to no parameter; the gradient tree needs the same tensors as the parameters",
        ),
        (pairing(&(array![0.5], array![[0.5, 0.5]])), "gradient \"1\" has shape [1, 2] where the parameter has [2]"),
        (
            Sgd::new(0.1).step(&mut array![1.0], &array![[1.0]]).unwrap_err(),
            "gradient (root) has shape [1, 1] where the parameter has [1]",
        ),
        (
            check::Gradients::new().step(2.0).compare(&mut array![1.0], &array![1.0], |w| w.sum()).unwrap_err(),
            "step is 2; it must be from 2.220446049250313e-16 to 1",
        ),
        (
            check::gradients(&mut array![1.0, f64::INFINITY], &array![1.0, 1.0], |w| w[0]).unwrap_err(),
            "parameter (root) is inf at index [1]",
        ),
        (
            check::gradients(&mut array![1.0, 0.0], &array![1.0, 0.0], |w: &Array1<f64>| w[1].sqrt()).unwrap_err(),
            "the loss is NaN after a small change of parameter (root) at index [1]; it must be finite",
        ),
        (
            check::gradients(&mut array![1.0], &array![1.0], {
                let mut asked = 0.0;
                move |_: &Array1<f64>| {
                    asked += 1.5;
                    asked
                }
            })
            .unwrap_err(),
            "the loss is not deterministic: 1.5, then 3 at the same parameters",
        ),
        (
            clip::global_norm(&mut Twins([array![1.0], array![1.0]]), 1.0).unwrap_err(),
            "two tensors have the path \"twin\"; rename one",
        ),
        (
            changed((array![1.0], array![1.0]), (array![1.0], array![1.0, 2.0])),
            "the parameters have changed since the first step: expected \"1\" of shape [1], found \"1\" of shape [2]",
        ),
        (
            changed((array![1.0], array![1.0]), (array![1.0],)),
            "the parameters have changed since the first step: expected \"1\" of shape [1], found no more tensors",
        ),
        (
            changed(array![1.0], vec![array![1.0], array![1.0]]),
            "the parameters have changed since the first step: expected (root) of shape [1], found \"0\" of shape [1]",
        ),
        (
            Sgd::new(0.1).check_finite().step(&mut (array![1.0], array![2.0, 3.0]), &nan).unwrap_err(),
            "gradient \"1\" is NaN at index [1]",
        ),
        (clip::global_norm(&mut square.clone(), 1.0).unwrap_err(), "gradient (root) is -inf at index [1, 0]"),
        (
            clip::global_norm(&mut (array![1.0], array![f64::MAX, f64::MAX]), 1.0).unwrap_err(),
            "the gradient norm overflows; the largest element is in \"1\"",
        ),
        (
            step(Sgd::new(0.1).freeze("encoder.**")),
            "pattern \"encoder.**\" matches no tensor; the tensors are \"0\", \"1\"",
        ),
        (
            Sgd::new(0.1).freeze("0").step(&mut vec![vec![array![1.0]]], &vec![vec![array![1.0]]]).unwrap_err(),
            "pattern \"0\" matches no tensor (for the whole subtree, write \"0.**\"); the tensors are \"0.0\"",
        ),
        (step(Sgd::new(0.1).freeze(["0", "b"])), "pattern \"b\" matches no tensor; the tensors are \"0\", \"1\""),
        (
            Sgd::new(0.1).freeze(["a", "b"]).step(&mut many.clone(), &many).unwrap_err(),
            "pattern \"a\" matches no tensor; the tensors are \"layer10\", \"layer11\", \"layer12\", \"layer13\", \
             \"layer14\", \"layer15\", \"layer16\", \"layer17\" and 4 more",
        ),
        (step(Sgd::new(0.1).freeze("{0,1")), "pattern \"{0,1\": an opening brace without a closing one"),
        (step(Sgd::new(0.1).freeze("0}")), "pattern \"0}\": a closing brace without an opening one"),
        (step(Sgd::new(0.1).freeze("{{0}}")), "pattern \"{{0}}\": braces do not nest"),
        (
            Sgd::new(0.1).clip_value(1e-46).step(&mut array![1.0_f32], &array![1.0]).unwrap_err(),
            "limit is 1e-46 at step 0; it must be 0 or at least 1.401298464324817e-45 as f32",
        ),
        (
            Sgd::new(0.1).unscale(1e-30).unscale(1e-30).step(&mut array![1.0_f32], &array![1.0]).unwrap_err(),
            "the scale of gradient (root) is 9.999999999999998e59, which becomes infinite in f32",
        ),
        (ended(), "the counter steps has reached its maximum, 18446744073709551615; load a state with a smaller one"),
        (previewed(), "a preview of a step cannot be applied; apply the step itself"),
        (
            step(Sgd::new(0.1).route("1", Late)),
            "other tensors have already moved: not today (an optimizer must reject in `check` every step that it would reject in `apply`)",
        ),
        (
            step(Sgd::new(0.1).sam(0.05)),
            "`sam` needs two calls: `ascend` with the gradients at the parameters, then `step` with the gradients where they are then",
        ),
        (ascended(), "the parameters are at the perturbed point; call `step` with the gradients there, or `retreat`"),
        (
            Sgd::new(0.1).ascend(&mut w, &g).unwrap_err(),
            "this chain cannot ascend: it has no `sam`, or has it before `master_weights`, `stochastic_rounding` or `kahan`; write `sam` after them",
        ),
        (
            step(Sgd::new(f64::NAN).skip_nonfinite().max_skipped(0)),
            "learning_rate is NaN at step 0; it must be a finite number ≥ 0",
        ),
        (
            Sgd::new(0.1).skip_nonfinite().max_skipped(0).step(&mut array![1.0], &array![f64::NAN]).unwrap_err(),
            "1 steps in a row are skipped, and max_skipped allows 0",
        ),
        (swapped(), "the parameters are swapped for their averages; swap them back first"),
        (loading(|_| {}, AdamW::new(0.1)), "expected the state of adamw, found that of adam"),
        (loading(|state| _ = state.remove("adam/exp_avg/1"), Adam::new(0.1)), "entry \"adam/exp_avg/1\" is missing"),
        (
            loading(|state| state.insert_text("adam/more", 1), Adam::new(0.1)),
            "unexpected entry \"adam/more\": the optimizer it is loaded into does not have it",
        ),
        (
            loading(|state| state.insert_text("adam/steps", -1), Adam::new(0.1)),
            "entry \"adam/steps\" is \"-1\"; it must be a count",
        ),
        (
            loading(|state| state.insert_tensor("adam/exp_avg/1", array![1.0].view()), Adam::new(0.1)),
            "entry \"adam/exp_avg/1\" has shape [1] where [2] is needed",
        ),
        (
            loading(|state| state.insert_tensor("adam/exp_avg/1", array![1.0_f32, 1.0].view()), Adam::new(0.1)),
            "entry \"adam/exp_avg/1\" holds f32 where f64 is needed",
        ),
        (
            step(Muon::new(0.1)),
            "muon needs tensors with at least two axes, and \"0\" has shape [1]; route it to another optimizer",
        ),
        (
            Muon::new(0.1).coefficients(Vec::<[f64; 3]>::new()).step(&mut square.clone(), &square).unwrap_err(),
            "coefficients is empty; it must have at least one element",
        ),
        (
            Muon::new(0.1).blocks(MuonBlocks::Rows(3)).step(&mut square.clone(), &square).unwrap_err(),
            "the rows of (root) cannot be divided equally: blocks is 3, which is not a divisor of 2; route the tensor to another optimizer",
        ),
        (
            {
                let mut opt = Sgd::new(0.1).qk_clip(100.0);
                opt.observe_rotary("", [1.0, 2.0, 3.0]).unwrap();
                opt.step(&mut square.clone(), &square).unwrap_err()
            },
            "the 2 rows of (root) do not fit the 3 heads of the query; there must be a multiple of 3",
        ),
        (
            {
                let mut opt = Sgd::new(0.1).qk_clip(100.0);
                opt.observe("", "", [1.0, 2.0]).unwrap();
                opt.step(&mut square.clone(), &square).unwrap_err()
            },
            "(root) is the query and the key of the same heads; qk_clip needs two tensors",
        ),
        (
            LinearTap::new(&Array2::<f64>::zeros((3, 2)), &Array2::zeros((3, 1))).positions(2).check().unwrap_err(),
            "input has 3 rows; it must have a multiple of 2 positions, and at least one example",
        ),
        (
            LinearTap::new(&Array2::<f64>::zeros((3, 2)), &Array2::zeros((2, 1))).check().unwrap_err(),
            "output_grad has shape [2, 1] where [3, 1] is needed",
        ),
        (LinearTap::new(&array![[0.0, f64::NAN]], &array![[1.0]]).check().unwrap_err(), "input is NaN at index [0, 1]"),
        (step(Stubborn), "not today"),
    ]
}

/// The errors of curvature.
#[cfg(feature = "second-order")]
fn curvature() -> Vec<(Error, &'static str)> {
    let (x, delta) = (array![[1.0], [2.0]], array![[3.0], [4.0]]);
    // The gradient of the sum, and of a layer "l".
    let observed = |layer: &str| {
        let mut opt = Sgd::new(0.1).kfac();
        opt.observe_empirical(layer, LinearTap::new(&x, &delta)).unwrap();
        let mut w = BTreeMap::from([("l".to_owned(), array![[0.0]])]);
        opt.step(&mut w, &BTreeMap::from([("l".to_owned(), array![[11.0]])])).unwrap_err()
    };
    let inside = |error: Error| match error {
        Error::Layer { reason, .. } => *reason,
        other => other,
    };
    vec![
        (
            observed("l"),
            "layer \"l\": the gradient is 2 times the mean over the 2 observed examples: output_grad was divided by the batch size, \
             the gradient is a sum, or the tap lacks its positions",
        ),
        (
            inside(observed("l")),
            "the gradient is 2 times the mean over the 2 observed examples: output_grad was divided by the batch size, \
             the gradient is a sum, or the tap lacks its positions",
        ),
        (inside(observed("m")), "there is no weight \"m.weight\", \"m\"; the tensors are \"l\""),
        (Sgd::<f64>::new(0.1).kfac().adapt_damping(1.0, 1.0).unwrap_err(), "no step has been taken yet"),
    ]
}

/// A second ascent.
fn ascended() -> Error {
    let (mut opt, mut w) = (Sgd::new(0.1).sam(0.05), array![1.0]);
    opt.ascend(&mut w, &array![1.0]).unwrap();
    opt.ascend(&mut w, &array![1.0]).unwrap_err()
}

/// What a step says that is taken on the averages.
fn swapped() -> Error {
    let (mut opt, mut w) = (Sgd::new(0.1).ema(0.9), array![1.0]);
    opt.step(&mut w, &array![1.0]).unwrap();
    opt.swap(&mut w).unwrap();
    opt.step(&mut w, &array![1.0]).unwrap_err()
}

/// What a step says after the last one that can be counted.
fn ended() -> Error {
    let (mut opt, mut w) = (Sgd::new(0.1), array![1.0]);
    opt.step(&mut w, &array![1.0]).unwrap();
    let mut state = opt.state_dict();
    state.insert_text("sgd/steps", u64::MAX);
    opt.load_state_dict(&state).unwrap();
    opt.step(&mut w, &array![1.0]).unwrap_err()
}

/// What is said to a preview in the place of a step.
fn previewed() -> Error {
    let (mut w, grads) = (array![1.0], array![1.0]);
    let mut parts = Step::pair(&mut w, &grads, None).unwrap().split(2, |_, _| 0);
    let mut swapped = parts.pop().unwrap();
    std::mem::swap(&mut swapped, &mut parts[0].preview());
    Sgd::new(0.1).apply(swapped).unwrap_err()
}

/// What Adam says to its own state after one step on two vectors, changed.
fn loading(change: impl FnOnce(&mut StateDict), mut into: impl Optimizer<f64>) -> Error {
    let mut opt = Adam::new(0.1);
    opt.step(&mut (array![1.0], array![2.0, 3.0]), &(array![0.5], array![0.5, 0.5])).unwrap();
    let mut state = opt.state_dict();
    change(&mut state);
    into.load_state_dict(&state).unwrap_err()
}

/// The errors of files.
#[cfg(feature = "checkpoint")]
fn files() -> Vec<(Error, &'static str)> {
    use gradus::checkpoint::Checkpoint;

    // A file with a few bytes changed.
    let changed = |from: &str, to: &str| {
        let mut bytes = Checkpoint::of_params(&array![1.0]).unwrap().note("a", "b").to_bytes().unwrap();
        let at = bytes.windows(from.len()).position(|bytes| bytes == from.as_bytes()).unwrap();
        bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
        Checkpoint::from_bytes(&bytes).unwrap_err()
    };
    let saved = Checkpoint::of_params(&BTreeMap::from([("hiden.weight", array![1.0])])).unwrap();
    let model = || BTreeMap::from([("hidden.weight", array![1.0])]);
    vec![
        (
            saved.load_params(&mut model()).unwrap_err(),
            "entry \"hidden.weight\" is missing; similar names are \"hiden.weight\"",
        ),
        (
            saved.save("no/such/folder/file").unwrap_err(),
            "no/such/folder/file: the folder no/such/folder does not exist",
        ),
        (Checkpoint::open("no/such/file").unwrap_err(), "no/such/file: No such file or directory (os error 2)"),
        (Checkpoint::from_bytes(b"no").unwrap_err(), "not a checkpoint: it has no header"),
        (
            changed("\"version\":\"1\"", "\"version\":\"2\""),
            "the checkpoint has format version 2; this library reads version 1",
        ),
        (
            changed("\"note/a\":\"b\"", "\"note/a\":\"c\""),
            "the checkpoint is corrupted: its bytes have the checksum 226b7009, and 87e0e007 was written",
        ),
    ]
}

/// The errors that only features can cause, written out: a row for each variant, whatever was built.
fn of_features() -> Vec<(Error, &'static str)> {
    let text = str::to_owned;
    vec![
        (
            Error::Step(StepError::SumOfHalves { dtype: "f16", every: 4 }),
            "gradients of f16 cannot be summed; write accumulate(4) before master_weights(), stochastic_rounding() or kahan(), where \
             gradients are f32",
        ),
        (
            Error::File(FileError::ReservedName { path: text("__metadata__") }),
            "the safetensors format reserves the name \"__metadata__\"; rename the tensor",
        ),
        (
            Error::File(FileError::NoOptimizerState),
            "the file has no optimizer state; use `load_params` to load the parameters alone",
        ),
        (
            Error::File(FileError::Io { path: "a/b".into(), kind: std::io::ErrorKind::NotFound, reason: text("gone") }),
            "a/b: gone",
        ),
        (
            Error::File(FileError::NotACheckpoint { reason: text("it has no header") }),
            "not a checkpoint: it has no header",
        ),
        (
            Error::File(FileError::CheckpointVersion { found: text("2"), supported: "1" }),
            "the checkpoint has format version 2; this library reads version 1",
        ),
        (
            Error::File(FileError::Corrupted { expected: text("87e0e007"), found: text("226b7009") }),
            "the checkpoint is corrupted: its bytes have the checksum 226b7009, and 87e0e007 was written",
        ),
        (
            Error::Layer { layer: text("l"), reason: Box::new(Error::Step(StepError::NoStep)) },
            "layer \"l\": no step has been taken yet",
        ),
        (
            Error::Curvature(CurvatureError::NoWeight {
                sought: vec![text("m.weight"), text("m")],
                paths: vec![text("l")],
            }),
            "there is no weight \"m.weight\", \"m\"; the tensors are \"l\"",
        ),
        (
            Error::Curvature(CurvatureError::NotAWeight { path: text("bias"), shape: vec![3] }),
            "\"bias\" has shape [3], which is not the shape of a weight; name the layer or its weight",
        ),
        (
            Error::Curvature(CurvatureError::SameLayer { other: text("l.weight") }),
            "already observed as layer \"l.weight\"; use one name for both taps and call `discard`",
        ),
        (Error::Argument(ArgumentError::TooLarge { argument: "input" }), "input would be too large to address"),
        (
            Error::Curvature(CurvatureError::NotTheMean { ratio: 2.0, examples: 3 }),
            "the gradient is 2 times the mean over the 3 observed examples: output_grad was divided by the batch size, \
             the gradient is a sum, or the tap lacks its positions",
        ),
        (Error::Step(StepError::NoStep), "no step has been taken yet"),
        (
            config("", Some(3), ConfigProblem::Unreadable { reason: text("not TOML: unclosed table") }),
            "line 3: not TOML: unclosed table",
        ),
        (
            config(
                "optimizer.beta_1",
                Some(4),
                ConfigProblem::UnknownKey {
                    key: text("beta_1"),
                    owner: text("Adam"),
                    similar: vec![text("beta1")],
                    known: vec![text("beta1"), text("eps")],
                },
            ),
            "optimizer.beta_1 (line 4): Adam has no setting \"beta_1\" (did you mean \"beta1\"?); it has beta1, eps",
        ),
        (
            config("optimizer", None, ConfigProblem::MissingKey { key: text("momentum"), owner: text("Lars") }),
            "optimizer: Lars needs the setting \"momentum\"",
        ),
        (
            config("", None, ConfigProblem::WrongKind { found: text("3"), accepted: text("a table") }),
            "the configuration: found 3; it must be a table",
        ),
        (
            config(
                "optimizer.name",
                Some(2),
                ConfigProblem::UnknownName {
                    kind: "optimizer",
                    name: text("adam"),
                    similar: vec![text("Adam")],
                    known: vec![text("Adam"), text("Sgd")],
                },
            ),
            "optimizer.name (line 2): there is no optimizer \"adam\" (did you mean \"Adam\"?); there are Adam, Sgd",
        ),
        (
            Error::Setting {
                path: text("then.0.accumulate"),
                line: Some(5),
                reason: Box::new(Error::Step(StepError::NoStep)),
            },
            "then.0.accumulate (line 5): no step has been taken yet",
        ),
        (
            config("then.0.kfac", None, ConfigProblem::OnlyInCode { name: text("kfac"), instead: text("call `kfac`") }),
            "then.0.kfac: kfac cannot be set in a file: call `kfac`",
        ),
        (Error::Ranks(RankError::NoRank { rank: 3, size: 2 }), "there is no rank 3 in a group of 2"),
        (Error::Ranks(RankError::RankLeft { rank: 1 }), "rank 1 has left the group"),
        (
            Error::Ranks(RankError::RankTimeout {
                operation: "all_reduce",
                waited: Duration::from_millis(1500),
                missing: vec![0, 2],
            }),
            "all_reduce: timed out after 1.5s waiting for ranks [0, 2]",
        ),
        (
            Error::State(StateError::MissingRank { rank: 1, found: 2, size: 3 }),
            "the state of rank 1 is missing: 2 states were given, and those of all 3 ranks are needed",
        ),
        (
            Error::Ranks(RankError::RanksDisagree { rank: 1, expected: text("AdamW"), found: text("Adam") }),
            "rank 1 has Adam where rank 0 has AdamW",
        ),
        (
            Error::Ranks(RankError::RankRefused { rank: 1, reason: text("gradient \"w\" is NaN") }),
            "rank 1 rejected the step: gradient \"w\" is NaN",
        ),
        (
            Error::Ranks(RankError::Transport { operation: "broadcast", reason: text("no route") }),
            "broadcast: no route",
        ),
        (
            Error::Ranks(RankError::CutTensors { name: "muon" }),
            "muon needs whole tensors; call `.by_tensor()` on `sharded`",
        ),
        (
            Error::Step(StepError::UnfitDiagonal { reason: text("no gradient") }),
            "the diagonal of the Hessian does not fit the parameters; pass another to `curvature`: no gradient",
        ),
        (
            Error::Ranks(RankError::NotShardable { name: "lbfgs" }),
            "lbfgs needs all tensors in one place; it cannot be used inside `sharded`",
        ),
        (
            Error::Ranks(RankError::InsideSharded { name: "local_steps" }),
            "local_steps cannot be used inside `sharded`; write it after: `.sharded(group).local_steps(…)`",
        ),
        (
            Error::Ranks(RankError::DataOfAllRanks { name: "kfac" }),
            "kfac needs the gradients of its own rank's data, not the mean over all ranks; write it after `data_parallel`",
        ),
        (
            Error::Federated(FederatedError::FixedPointRange {
                path: String::new(),
                index: 4,
                value: f64::NAN,
                largest: 8.0,
            }),
            "(root) is NaN at element 4; it must be in −8 to 8, the range of fixed point",
        ),
        (
            Error::Federated(FederatedError::MaskedSum { clients: 5, found: 4 }),
            "the masked sum has 4 of 5 clients; the masks cancel only in the sum of all",
        ),
        (
            Error::Federated(FederatedError::Entropy { reason: text("no device") }),
            "no random numbers from the operating system: no device",
        ),
        (Error::Federated(FederatedError::NoRound), "no round has begun; call begin_round first"),
        (Error::Federated(FederatedError::NoControl), "the task has no control variate; call scaffold() on the server"),
        (
            Error::Federated(FederatedError::ControlNotPrivate),
            "scaffold() and private() cannot be combined: control variates are sums without noise",
        ),
    ]
}

/// Two tensors under one name.
struct Twins([Array1<f64>; 2]);

impl Params for Twins {
    type Elem = f64;

    fn visit<'a>(&'a self, visitor: &mut gradus::params::Visitor<'_, 'a, f64>) {
        self.0.iter().for_each(|tensor| visitor.field("twin", tensor));
    }
}

impl ParamsMut for Twins {
    fn visit_mut<'a>(&'a mut self, visitor: &mut gradus::params::VisitorMut<'_, 'a, f64>) {
        self.0.iter_mut().for_each(|tensor| visitor.field("twin", tensor));
    }
}

/// An optimizer from another crate, with an error of its own.
struct Stubborn;

impl Optimizer<f64> for Stubborn {
    fn check(&self, _: &Step<'_, f64>) -> Result<()> {
        Err(Error::Other("not today".into()))
    }

    fn apply(&mut self, step: Step<'_, f64>) -> Result<Report> {
        self.check(&step)?;
        Ok(Report::new(0.0, true))
    }

    fn conclude(&mut self, result: Result<Report>) -> Result<Report> {
        result
    }

    fn replace_learning_rate(&mut self, _: gradus::Hyper) {}

    fn part(&self, _: std::any::TypeId) -> Option<&dyn std::any::Any> {
        None
    }

    fn part_mut(&mut self, _: std::any::TypeId) -> Option<&mut dyn std::any::Any> {
        None
    }

    fn learning_rate(&self) -> f64 {
        0.0
    }

    fn steps(&self) -> u64 {
        0
    }

    fn layout(&self) -> Option<&std::sync::Arc<gradus::params::Layout>> {
        None
    }

    fn write_state(&self, _: &mut StateWriter<'_>) {}

    fn read_state<'s>(&'s mut self, _: &mut StateReader<'_>) -> Result<Commit<'s>> {
        Ok(Commit::nothing())
    }
}

/// One that has second thoughts.
struct Late;

impl Optimizer<f64> for Late {
    fn check(&self, _: &Step<'_, f64>) -> Result<()> {
        Ok(())
    }

    fn apply(&mut self, _: Step<'_, f64>) -> Result<Report> {
        Err(Error::Other("not today".into()))
    }

    fn conclude(&mut self, result: Result<Report>) -> Result<Report> {
        result
    }

    fn replace_learning_rate(&mut self, _: gradus::Hyper) {}

    fn part(&self, _: std::any::TypeId) -> Option<&dyn std::any::Any> {
        None
    }

    fn part_mut(&mut self, _: std::any::TypeId) -> Option<&mut dyn std::any::Any> {
        None
    }

    fn learning_rate(&self) -> f64 {
        0.0
    }

    fn steps(&self) -> u64 {
        0
    }

    fn layout(&self) -> Option<&std::sync::Arc<gradus::params::Layout>> {
        None
    }

    fn write_state(&self, _: &mut StateWriter<'_>) {}

    fn read_state<'s>(&'s mut self, _: &mut StateReader<'_>) -> Result<Commit<'s>> {
        Ok(Commit::nothing())
    }
}

#[test]
fn every_variant_says_what_where_and_what_would_be_right() {
    for (error, message) in table().into_iter().chain(of_features()) {
        assert_eq!(error.to_string(), message);
    }
    #[cfg(feature = "second-order")]
    for (error, message) in curvature() {
        assert_eq!(error.to_string(), message);
    }
    #[cfg(feature = "checkpoint")]
    for (error, message) in files() {
        assert_eq!(error.to_string(), message);
    }
}

#[test]
fn the_table_has_every_variant() {
    let rows = table().into_iter().chain(of_features());
    let rows: BTreeSet<_> = rows.map(|(error, _)| variant(&error)).collect();
    let declared = declared();
    assert!(declared.len() >= 50, "the variants are no longer read from the source: {declared:?}");
    let (missing, unknown): (Vec<_>, Vec<_>) =
        (declared.difference(&rows).collect(), rows.difference(&declared).collect());
    assert!(
        missing.is_empty(),
        "no row for {missing:?}: add to `table` what provokes it with the default features, or write it out in \
         `of_features`, beside the sentence that it says"
    );
    assert!(unknown.is_empty(), "rows for what is no variant: {unknown:?}");
}
