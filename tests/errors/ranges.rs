//! Both ends of every hyper-parameter's range.

use gradus::prelude::*;
use gradus::{Error, Hyper};
use ndarray::array;

type Build = fn(Hyper) -> Box<dyn Optimizer<f64>>;

/// A hyper-parameter, what it belongs to, values in range, and values out of it.
const TABLE: &[(&str, Build, &[f64], &[f64])] = {
    const BELOW_1: (&[f64], &[f64]) = (&[0.0, 0.5, 0.999_999], &[-1e-9, 1.0, 1.5]);
    const POSITIVE: (&[f64], &[f64]) = (&[0.0, 1e-12, 0.5, 1e6], &[-1e-300, -1.0]);
    const TO_1: (&[f64], &[f64]) = (&[0.0, 1.0], &[-0.1, 1.000_001]);
    &[
        ("learning_rate", |x| Box::new(Sgd::new(x)), POSITIVE.0, POSITIVE.1),
        ("weight_decay", |x| Box::new(Sgd::new(0.1).weight_decay(x)), POSITIVE.0, POSITIVE.1),
        ("learning_rate", |x| Box::new(Momentum::new(x, 0.9)), POSITIVE.0, POSITIVE.1),
        ("momentum", |x| Box::new(Momentum::new(0.1, x)), BELOW_1.0, BELOW_1.1),
        ("dampening", |x| Box::new(Momentum::new(0.1, 0.9).dampening(x)), TO_1.0, TO_1.1),
        ("weight_decay", |x| Box::new(Momentum::new(0.1, 0.9).weight_decay(x)), POSITIVE.0, POSITIVE.1),
        ("learning_rate", |x| Box::new(Nesterov::new(x, 0.9)), POSITIVE.0, POSITIVE.1),
        ("momentum", |x| Box::new(Nesterov::new(0.1, x)), BELOW_1.0, BELOW_1.1),
        ("weight_decay", |x| Box::new(Nesterov::new(0.1, 0.9).weight_decay(x)), POSITIVE.0, POSITIVE.1),
        ("learning_rate", |x| Box::new(RmsProp::new(x)), POSITIVE.0, POSITIVE.1),
        ("alpha", |x| Box::new(RmsProp::new(0.1).alpha(x)), BELOW_1.0, BELOW_1.1),
        ("eps", |x| Box::new(RmsProp::new(0.1).eps(x)), POSITIVE.0, POSITIVE.1),
        ("momentum", |x| Box::new(RmsProp::new(0.1).momentum(x)), BELOW_1.0, BELOW_1.1),
        ("weight_decay", |x| Box::new(RmsProp::new(0.1).weight_decay(x)), POSITIVE.0, POSITIVE.1),
        ("learning_rate", |x| Box::new(Adam::new(x)), POSITIVE.0, POSITIVE.1),
        ("beta1", |x| Box::new(Adam::new(0.1).beta1(x)), BELOW_1.0, BELOW_1.1),
        ("beta2", |x| Box::new(Adam::new(0.1).beta2(x)), BELOW_1.0, BELOW_1.1),
        ("eps", |x| Box::new(Adam::new(0.1).eps(x)), POSITIVE.0, POSITIVE.1),
        ("weight_decay", |x| Box::new(Adam::new(0.1).weight_decay(x)), POSITIVE.0, POSITIVE.1),
        ("learning_rate", |x| Box::new(AdamW::new(x)), POSITIVE.0, POSITIVE.1),
        ("beta1", |x| Box::new(AdamW::new(0.1).beta1(x)), BELOW_1.0, BELOW_1.1),
        ("beta2", |x| Box::new(AdamW::new(0.1).beta2(x)), BELOW_1.0, BELOW_1.1),
        ("eps", |x| Box::new(AdamW::new(0.1).eps(x)), POSITIVE.0, POSITIVE.1),
        ("weight_decay", |x| Box::new(AdamW::new(0.1).weight_decay(x)), POSITIVE.0, POSITIVE.1),
        ("max_norm", |x| Box::new(Sgd::new(0.1).clip_global_norm(x)), POSITIVE.0, POSITIVE.1),
        ("max_norm", |x| Box::new(Sgd::new(0.1).clip_per_tensor_norm(x)), POSITIVE.0, POSITIVE.1),
        ("limit", |x| Box::new(Sgd::new(0.1).clip_value(x)), POSITIVE.0, POSITIVE.1),
        ("clipping", |x| Box::new(Sgd::new(0.1).clip_adaptive(x)), POSITIVE.0, POSITIVE.1),
        ("eps", |x| Box::new(Sgd::new(0.1).clip_adaptive(1.0).eps(x)), POSITIVE.0, POSITIVE.1),
        (
            "learning_rate",
            |x| Box::new(Sgd::new(0.1).group("**", Group::new().learning_rate(x))),
            POSITIVE.0,
            POSITIVE.1,
        ),
        (
            "scale_learning_rate",
            |x| Box::new(Sgd::new(0.1).group("**", Group::new().scale_learning_rate(x))),
            POSITIVE.0,
            POSITIVE.1,
        ),
        ("weight_decay", |x| Box::new(Sgd::new(0.1).group("**", Group::new().weight_decay(x))), POSITIVE.0, POSITIVE.1),
        (
            "scale_weight_decay",
            |x| Box::new(Sgd::new(0.1).group("**", Group::new().scale_weight_decay(x))),
            POSITIVE.0,
            POSITIVE.1,
        ),
    ]
};

#[test]
fn values_in_range_are_taken_and_others_refused() {
    for (name, build, good, bad) in TABLE {
        for value in *good {
            let report = build(Hyper::from(*value)).step(&mut array![1.0], &array![1.0]);
            assert!(report.is_ok(), "{name} {value}: {report:?}");
        }
        // A clip without a limit is one that only measures.
        let infinity = if matches!(*name, "max_norm" | "limit" | "clipping") { f64::NAN } else { f64::INFINITY };
        for value in bad.iter().chain(&[f64::NAN, infinity, f64::NEG_INFINITY]) {
            refused(name, build(Hyper::from(*value)), *value, 0);
        }
    }
}

/// A schedule may leave the range in the middle of the training.
#[test]
fn a_schedule_is_checked_at_every_step() {
    for (name, build, good, bad) in TABLE {
        let (good, bad) = (good[0], bad[0]);
        let mut opt = build(Hyper::from(move |step: u64| if step < 3 { good } else { bad }));
        for _ in 0..3 {
            opt.step(&mut array![1.0], &array![1.0]).unwrap();
        }
        refused(name, opt, bad, 3);
    }
}

fn refused(name: &str, mut opt: Box<dyn Optimizer<f64>>, bad: f64, at: u64) {
    let mut w = array![1.0];
    match opt.step(&mut w, &array![1.0]) {
        Err(Error::HyperParameter { name: found, value, step, .. }) => {
            assert_eq!((found, value.to_bits(), step), (name, bad.to_bits(), at));
        }
        other => panic!("{name} {bad}: {other:?}"),
    }
    assert_eq!((w[0], opt.steps()), (1.0, at), "{name}");
}
