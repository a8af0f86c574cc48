//! After an error everything is as before, however the adaptors are nested.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use gradus::error::StepError;
use gradus::prelude::*;
use gradus::{Error, Hyper, Report, Result};
use ndarray::{Array1, Array2, array};

type Tree = (Array1<f64>, Array2<f64>);
type Boxed = Box<dyn Optimizer<f64>>;

/// An optimizer with this learning rate.
type Build = fn(Hyper) -> Boxed;

/// A step that must fail.
type Fault = Box<dyn Fn(&mut Boxed, &mut Tree) -> Result<Report>>;

/// A learning rate that can be broken from outside.
fn switched(broken: &Arc<AtomicBool>) -> Hyper {
    let broken = Arc::clone(broken);
    Hyper::from(move |step: u64| if broken.load(Ordering::Relaxed) { f64::NAN } else { 0.1 / (step + 1) as f64 })
}

/// Every adaptor around an optimizer whose learning rate is given, alone and nested; those around two optimizers with
/// one that could move before the other refuses.
const STACKS: &[(&str, Build)] = &[
    ("alone", |lr| Box::new(Adam::new(lr))),
    ("clip_global_norm", |lr| Box::new(Adam::new(lr).clip_global_norm(1.0))),
    ("clip_adaptive", |lr| Box::new(Adam::new(lr).clip_adaptive(0.1))),
    ("accumulate", |lr| Box::new(Adam::new(lr).accumulate(3))),
    ("accumulate a clipped gradient", |lr| Box::new(Adam::new(lr).accumulate(2).clip_value(0.3))),
    ("clip an accumulated gradient", |lr| Box::new(Adam::new(lr).clip_value(0.3).accumulate(2))),
    ("freeze", |lr| Box::new(Adam::new(lr).freeze("1"))),
    ("group", |lr| Box::new(AdamW::new(0.1).group("1", Group::new().learning_rate(lr)))),
    ("maximize", |lr| Box::new(Momentum::new(lr, 0.9).maximize())),
    ("skip_nonfinite", |lr| Box::new(RmsProp::new(lr).skip_nonfinite())),
    ("route to the broken one", |lr| Box::new(Adam::new(0.1).route("1", Adam::new(lr)))),
    ("route from the broken one", |lr| Box::new(Adam::new(lr).route("1", Momentum::new(0.1, 0.9)))),
    ("route to an accumulating one", |lr| Box::new(Adam::new(0.1).accumulate(2).route("1", Sgd::new(lr)))),
    ("accumulate a router", |lr| Box::new(Adam::new(0.1).route("1", Sgd::new(lr)).accumulate(2))),
    ("a router in a router", |lr| {
        Box::new(Adam::new(0.1).route("1", Sgd::new(0.1).accumulate(3).route("1", Nesterov::new(lr, 0.9))))
    }),
    ("everything", |lr| {
        let routed = AdamW::new(0.1).route("0", Momentum::new(lr, 0.5)).group("**", Group::no_decay());
        Box::new(routed.clip_global_norm(2.0).accumulate(2).maximize().freeze("1").skip_nonfinite())
    }),
];

fn params() -> Tree {
    (array![1.0, -2.0], array![[0.5, 1.5], [2.5, -0.5]])
}

fn grads(step: usize) -> Tree {
    let number = |i: usize| ((7 * step + 3 * i) as f64).sin();
    (Array1::from_shape_fn(2, number), Array2::from_shape_fn((2, 2), |(i, j)| number(2 + 2 * i + j)))
}

/// Ways in which a step can fail, each with the errors that it may give.
fn faults(broken: &Arc<AtomicBool>) -> Vec<(&'static str, Fault)> {
    let broken = Arc::clone(broken);
    vec![
        (
            "a hyper-parameter",
            Box::new(move |opt, params| {
                broken.store(true, Ordering::Relaxed);
                let result = opt.step(params, &grads(9));
                broken.store(false, Ordering::Relaxed);
                result
            }),
        ),
        ("a missing gradient", Box::new(|opt, params| opt.step(params, &(grads(9).0,)))),
        ("an extra gradient", Box::new(|opt, params| opt.step(params, &(grads(9).0, grads(9).1, grads(9).0)))),
        ("a shape", Box::new(|opt, params| opt.step(params, &(grads(9).1, grads(9).0)))),
        (
            "other parameters",
            Box::new(|opt, params| {
                let mut more = (params.0.clone(), params.1.clone(), array![1.0]);
                let result = opt.step(&mut more, &(grads(9).0, grads(9).1, array![1.0]));
                assert_eq!(more, (params.0.clone(), params.1.clone(), array![1.0]));
                result
            }),
        ),
    ]
}

fn is_refusal(error: &Error) -> bool {
    matches!(
        error,
        Error::Step(StepError::HyperParameter { .. })
            | Error::Step(StepError::MissingGradient { .. })
            | Error::Step(StepError::UnexpectedGradient { .. })
            | Error::Step(StepError::ShapeMismatch { .. })
            | Error::Step(StepError::ParametersChanged { .. })
    )
}

/// Beside an optimizer that never failed, one that failed in every way after every step: the same bits throughout.
#[test]
fn a_run_with_failed_steps_is_the_run_without_them() {
    for (name, build) in STACKS {
        let broken = Arc::new(AtomicBool::new(false));
        let faults = faults(&broken);
        let (mut opt, mut moved) = (build(switched(&broken)), params());
        let (mut undisturbed, mut expected) = (build(switched(&broken)), params());
        for step in 0..7 {
            opt.step(&mut moved, &grads(step)).unwrap();
            undisturbed.step(&mut expected, &grads(step)).unwrap();
            assert_eq!(moved, expected, "{name}: step {step}");
            for (fault, provoke) in &faults {
                let error = provoke(&mut opt, &mut moved).map_or_else(|error| error, |_| panic!("{name}: {fault}"));
                assert!(is_refusal(&error), "{name}: {fault}: {error}");
                assert_eq!(moved, expected, "{name}: {fault} moved something");
                assert_eq!(opt.steps(), undisturbed.steps(), "{name}: {fault}");
                assert_eq!(opt.learning_rate(), undisturbed.learning_rate(), "{name}: {fault}");
            }
        }
        assert_ne!(moved, params(), "{name}");
    }
}

/// Before the first step too, when there is no state yet.
#[test]
fn a_first_step_that_fails_leaves_no_trace() {
    for (name, build) in STACKS {
        let broken = Arc::new(AtomicBool::new(false));
        for (fault, provoke) in faults(&broken).iter().take(4) {
            let (mut opt, mut moved) = (build(switched(&broken)), params());
            assert!(provoke(&mut opt, &mut moved).is_err(), "{name}: {fault}");
            assert_eq!((&moved, opt.steps()), (&params(), 0), "{name}: {fault}");
            // What it was refused for, it has not remembered: other parameters are welcome.
            let mut others = array![1.0, 2.0, 3.0];
            if name.contains("alone") {
                opt.step(&mut others, &array![1.0, 1.0, 1.0]).unwrap();
                assert_ne!(others, array![1.0, 2.0, 3.0]);
            }
        }
    }
}

/// A pattern that matches nothing is found before another branch moves, and before a micro-batch is added.
#[test]
fn a_pattern_is_checked_before_anything_moves() {
    let nowhere = || Adam::new(0.1).freeze("nowhere");
    for opt in [
        &mut Sgd::new(0.1).route("1", nowhere()) as &mut dyn Optimizer<f64>,
        &mut Sgd::new(0.1).route("1", Adam::new(0.1).group("nowhere", Group::no_decay())),
        &mut Sgd::new(0.1).route("1", Adam::new(0.1).route("nowhere", Sgd::new(0.1))),
        &mut nowhere().accumulate(2),
    ] {
        let mut moved = params();
        let error = opt.step(&mut moved, &grads(1)).unwrap_err();
        assert!(matches!(&error, Error::Step(StepError::PatternUnmatched { .. })), "{error}");
        assert_eq!((moved, opt.steps()), (params(), 0));
    }
}

/// One branch refuses a gradient that the other would have taken.
#[test]
fn a_router_asks_all_branches_before_any_moves() {
    for opt in [
        &mut Sgd::new(0.1).route("1", Adam::new(0.1).clip_global_norm(1.0)) as &mut dyn Optimizer<f64>,
        &mut Sgd::new(0.1).route("1", Adam::new(0.1).check_finite()),
        &mut Sgd::new(0.1).route("1", Adam::new(0.1).check_finite().accumulate(4)),
        &mut Sgd::new(0.1).accumulate(4).route("1", Adam::new(0.1).check_finite()),
    ] {
        let (mut moved, mut bad) = (params(), grads(1));
        bad.1[[1, 1]] = f64::NAN;
        let error = opt.step(&mut moved, &bad).unwrap_err();
        assert!(matches!(&error, Error::Step(StepError::NonFiniteGradient { path, .. }) if path == "1"), "{error}");
        assert_eq!((moved, opt.steps()), (params(), 0));
    }
}
