//! Every step is that of one process with the mean gradient.

use gradus::adaptor::Ema;
use gradus::distributed::{Alone, Collective, ThreadGroup};
use gradus::prelude::*;
use gradus::rule::{Rounding, StatePrecision};
use gradus::schedule::Cosine;
use gradus::{Error, adaptor};
use ndarray::{Array1, Array2, ArrayD, array, s};

use super::{Boxed, Tree, bits, grads, mean, params, train, train_alone};

const STEPS: u64 = 7;

/// What the order of a norm's sum may change: a few ulp of `f64`, over the steps.
const SUM_ORDER: f64 = 1e-12;

type Build<A> = fn() -> Boxed<A>;

fn precise<A: Scalar>(precision: StatePrecision) -> Boxed<A> {
    Box::new(AdamW::new(0.01).state_precision(precision))
}

/// Chains that must agree to the last bit.
#[rustfmt::skip] // one chain, one line
fn chains<A: Scalar>() -> Vec<(&'static str, Build<A>)> {
    vec![
        ("sgd", || Box::new(Sgd::new(0.1))),
        ("momentum", || Box::new(Momentum::new(0.1, 0.9).weight_decay(0.01))),
        ("nesterov", || Box::new(Nesterov::new(0.1, 0.9))),
        ("rmsprop", || Box::new(RmsProp::new(0.01).centered().momentum(0.9))),
        ("amsgrad", || Box::new(Adam::new(Cosine::new(0.05, 5).warmup(2)).amsgrad())),
        ("adamw", || Box::new(AdamW::new(0.05))),
        ("groups", || Box::new(AdamW::new(0.05).group("*.bias", adaptor::Group::no_decay()).group("b.**", adaptor::Group::new().scale_learning_rate(0.1)))),
        ("groups by shape", || Box::new(AdamW::new(0.05).weight_decay(0.5).group(|_: &str, shape: &[usize]| shape.len() < 2, adaptor::Group::no_decay()))),
        ("freeze", || Box::new(AdamW::new(0.05).freeze("c.**").unfreeze_at(3, "c.bias"))),
        ("freeze all but one", || Box::new(AdamW::new(0.05).freeze(["a.**", "b.**", "c.**"]).ema(0.9).warmup())),
        ("ema", || Box::new(AdamW::new(0.05).ema(0.9).debiased())),
        ("lookahead", || Box::new(AdamW::new(0.05).lookahead(3, 0.5))),
        ("accumulate inside", || Box::new(AdamW::new(0.05).accumulate(3))),
        ("route", || Box::new(AdamW::new(0.05).route("a.**", Momentum::new(0.1, 0.9)))),
        ("clip_value", || Box::new(AdamW::new(0.05).clip_value(0.3))),
        ("clip_global_norm that is never reached", || Box::new(AdamW::new(0.05).clip_global_norm(f64::INFINITY))),
        ("in bf16", || precise(StatePrecision::Bf16(Rounding::Stochastic))),
        ("in bf16, to nearest", || precise(StatePrecision::Bf16(Rounding::Nearest))),
        ("in 8 bits", || precise(StatePrecision::Blockwise8)),
        ("8 bits of momentum", || Box::new(Momentum::new(0.1, 0.9).state_precision(StatePrecision::Blockwise8))),
    ]
}

/// Chains of whole tensors.
#[rustfmt::skip] // one chain, one line
fn chains_by_tensor() -> Vec<(&'static str, Build<f64>)> {
    let mut all: Vec<(&str, Build<f64>)> = vec![
        ("muon beside adamw", || Box::new(AdamW::new(0.05).route("*.weight", Muon::new(0.02)))),
        ("clip_per_tensor_norm", || Box::new(AdamW::new(0.05).clip_per_tensor_norm(0.5).p(1.0))),
        ("clip_adaptive", || Box::new(AdamW::new(0.05).clip_adaptive(0.1))),
    ];
    #[cfg(feature = "second-order")]
    all.extend([
        ("shampoo", (|| Box::new(AdamW::new(0.05).route("*.weight", Shampoo::new(0.02)))) as Build<f64>),
        ("soap", || Box::new(AdamW::new(0.05).route("*.weight", Soap::new(0.02)))),
    ]);
    all.extend(chains());
    all
}

/// This rank's parameters after each step are those of one process, and so are the reports.
fn equals_one_process<A: Scalar>(group: &impl Collective<A>, name: &str, build: Build<A>, by_tensor: bool) {
    let ranks = group.size();
    let (mut sharded, mut alone) = (build().sharded(group), build());
    if by_tensor {
        sharded = sharded.by_tensor();
    }
    let (mut own, mut expected) = (params::<A>(), params::<A>());
    for step in 0..STEPS {
        let found = train(&mut sharded, &mut own, step..step + 1);
        let reports = train_alone(&mut alone, &mut expected, ranks, step..step + 1);
        assert!(bits(&own) == bits(&expected), "{name} on {ranks} ranks, step {step}");
        assert_eq!(found[0].moved, reports[0].moved, "{name}, step {step}");
        assert_eq!(found[0].learning_rate, reports[0].learning_rate, "{name}, step {step}");
    }
    assert_eq!(sharded.steps(), alone.steps());
}

#[test]
fn steps_are_those_of_one_process() {
    for ranks in 1..=5 {
        ThreadGroup::run(ranks, |group| {
            chains::<f64>().into_iter().for_each(|(name, build)| equals_one_process(&group, name, build, false));
            chains::<f32>().into_iter().for_each(|(name, build)| equals_one_process(&group, name, build, false));
        });
    }
    chains::<f64>().into_iter().for_each(|(name, build)| equals_one_process(&Alone, name, build, false));
}

#[test]
fn steps_by_tensor_are_those_of_one_process() {
    for ranks in 1..=5 {
        ThreadGroup::run(ranks, |group| {
            chains_by_tensor().into_iter().for_each(|(name, build)| equals_one_process(&group, name, build, true));
        });
    }
}
