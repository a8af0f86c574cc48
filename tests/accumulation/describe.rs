//! The list of a chain's parts, and its warnings.

use gradus::adaptor::{Outcome, Transform};
use gradus::prelude::*;
use gradus::{Hyper, Result, Step};
use ndarray::{Array1, array};

type Pair = (Array1<f64>, Array1<f64>);

fn params() -> Pair {
    (array![1.0], array![2.0])
}

/// Parts and number of warnings.
fn described(opt: &impl Optimizer<f64>) -> (Vec<String>, Vec<String>) {
    let chain = opt.describe(&params()).unwrap();
    (chain.parts().map(str::to_owned).collect(), chain.warnings().to_vec())
}

#[test]
fn parts_come_from_outside_to_inside_also_out_of_boxes() {
    let opt = Adam::new(0.1).ema(0.9).clip_global_norm(1.0).boxed().accumulate(4).freeze("0").boxed();
    let (parts, warnings) = described(&opt);
    let expected = ["freeze(\"0\")", "accumulate(4)", "clip_global_norm(1)", "ema(0.9)"];
    assert_eq!(parts[..4], expected);
    assert!(parts.len() == 5 && parts[4].starts_with("Adam(learning_rate: 0.1"), "{parts:?}");
    assert_eq!(warnings, [""; 0]);
}

/// The same after steps, and in the middle of a window.
#[test]
fn a_running_chain_is_described_and_not_changed() {
    let mut opt = Adam::new(0.1).accumulate(1).accumulate(2).skip_nonfinite().max_skipped(0);
    let (mut w, before) = (params(), described(&opt));
    for _ in 0..3 {
        opt.step(&mut w, &params()).unwrap();
        let state = opt.state_dict();
        assert_eq!((described(&opt), opt.state_dict()), (before.clone(), state));
    }
    assert_eq!(before.0.len(), 5, "{before:?}");
}

#[test]
fn each_wrong_order_has_a_warning_and_the_right_one_none() {
    type Chain = fn(Sgd<f64>) -> Box<dyn Optimizer<f64>>;
    let pairs: [(&str, Chain, Chain); 6] = [
        (
            "each micro-batch",
            |opt| opt.accumulate(4).clip_global_norm(1.0).boxed(),
            |opt| opt.clip_global_norm(1.0).accumulate(4).boxed(),
        ),
        (
            "each micro-batch",
            |opt| opt.accumulate_by(2.0).ema(0.9).clip_value(1.0).boxed(),
            |opt| opt.accumulate(4).clip_global_norm(f64::INFINITY).boxed(),
        ),
        (
            "the scale of the loss",
            |opt| opt.loss_scaling().clip_value(1.0).boxed(),
            |opt| opt.clip_value(1.0).unscale(2.0).boxed(),
        ),
        (
            "frozen tensors",
            |opt| opt.freeze("0").clip_global_norm(1.0).boxed(),
            |opt| opt.clip_global_norm(1.0).freeze("0").boxed(),
        ),
        (
            "the same noise",
            |opt| opt.accumulate(4).add_noise(0.1, 7).boxed(),
            |opt| opt.add_noise(0.1, 7).accumulate(4).boxed(),
        ),
        (
            "does not see",
            |opt| opt.max_skipped(3).skip_nonfinite().boxed(),
            |opt| opt.skip_nonfinite().max_skipped(3).boxed(),
        ),
    ];
    for (reason, wrong, right) in pairs {
        let (_, warnings) = described(&wrong(Sgd::new(0.1)));
        assert!(warnings.len() == 1 && warnings[0].contains(reason), "{reason}: {warnings:?}");
        assert_eq!(described(&right(Sgd::new(0.1))).1, [""; 0], "{reason}");
    }
}

/// A clip around a router clips what a branch accumulates; one in another branch does not.
#[test]
fn branches_are_apart() {
    let branch = || Sgd::new(0.1).accumulate(2);
    let opt = Sgd::new(0.1).clip_value(1.0).route("1", branch());
    let chain = opt.describe(&params()).unwrap();
    let expected = "all other tensors\n  clip_value(1)\n  Sgd(learning_rate: 0.1)\nroute 1\n  accumulate(2)\n  Sgd(learning_rate: 0.1)";
    assert_eq!(chain.to_string(), expected);
    assert_eq!(described(&opt.clip_value(1.0)).1.len(), 1);
    let nested = Sgd::new(0.1).route("1", Sgd::new(0.1).route("1", branch()).accumulate(3)).clip_value(1.0);
    assert_eq!(described(&nested).1.len(), 2);
}

/// A part of the user's own has the name of its type.
#[test]
fn parts_of_the_users_own() {
    struct Shrink;
    impl Transform<f64> for Shrink {
        fn name(&self) -> &'static str {
            "shrink"
        }
        fn hyper_parameters(&self) -> Vec<(&str, &Hyper)> {
            Vec::new()
        }
        fn transform<'s>(&'s self, _: &mut Step<'s, f64>) -> Result<Outcome> {
            Ok(Outcome::pass())
        }
    }
    let opt = Sgd::new(0.1).transform(Shrink).transform(|_: &mut Step<'_, f64>| Ok(()));
    assert_eq!(described(&opt).0[..2], ["transform(…)", "Shrink"]);
}

#[test]
fn parts_show_their_arguments() {
    let opt = Sgd::new(0.1).project("0", gradus::set::Interval::at_least(0.5)).keep_best().stop().patience(3);
    let expected = ["stop().patience(3)", "keep_best()", "project(0, Interval(0.5, inf))", "Sgd(learning_rate: 0.1)"];
    assert_eq!(described(&opt).0, expected);
}

#[cfg(feature = "distributed")]
#[test]
fn ranks_are_a_part() {
    let opt = Sgd::new(0.1).clip_value(1.0).data_parallel(gradus::distributed::Alone).accumulate(2);
    let expected = ["accumulate(2)", "data_parallel(1 ranks)", "clip_value(1)", "Sgd(learning_rate: 0.1)"];
    assert_eq!(described(&opt).0, expected);
}

#[cfg(feature = "half")]
#[test]
fn parts_inside_of_16_bits() {
    let opt = Sgd::new(0.1).accumulate(2).master_weights().clip_value(1.0);
    let chain = opt.describe(&array![half::bf16::ONE]).unwrap();
    let expected = ["clip_value(1)", "master_weights()", "accumulate(2)", "Sgd(learning_rate: 0.1)"];
    assert_eq!(chain.parts().collect::<Vec<_>>(), expected);
    assert_eq!(chain.warnings().len(), 1);
}
