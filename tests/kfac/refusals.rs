//! Whatever may be wrong is named, and nothing has changed; or the documented fallback holds.

use std::error::Error as _;

use gradus::adaptor::Adapted;
use gradus::curvature::{Kfac, Layer};
use gradus::error::{ArgumentError, CurvatureError, StepError};
use gradus::{Error, LinearTap, prelude::*};
use ndarray::{Array1, Array2, array};

use crate::{Problem, close, kfac, numbers};

fn reason(error: Error) -> Error {
    match error {
        Error::Layer { layer, reason } => {
            assert_eq!(layer, "l");
            *reason
        }
        other => panic!("{other} names no layer"),
    }
}

/// Observing changes nothing on an error: the state and the next step are those without it.
fn refused(tap: LinearTap<'_, f64>) -> Error {
    let problem = Problem::new(12, 4, 3);
    let (mut opt, mut other) = (kfac(), kfac());
    opt.observe("l", problem.tap()).unwrap();
    other.observe("l", problem.tap()).unwrap();
    problem.moved(&mut opt);
    problem.moved(&mut other);
    let before = opt.state_dict();
    let error = opt.observe("l", tap).unwrap_err();
    assert!(opt.state_dict() == before);
    assert_eq!(problem.moved(&mut opt), problem.moved(&mut other));
    reason(error)
}

#[test]
fn taps_that_are_not_in_order() {
    let (x, delta) = (numbers(5, 4, 1), numbers(5, 3, 2));
    let mut broken = x.clone();
    broken[[3, 1]] = f64::NAN;
    let error = refused(LinearTap::new(&broken, &delta));
    assert!(
        matches!(&error, Error::Argument(ArgumentError::NotFinite { argument: "input", index, .. }) if *index == [3, 1]),
        "{error}"
    );
    let mut broken = delta.clone();
    broken[[0, 2]] = f64::INFINITY;
    let error = refused(LinearTap::new(&x, &broken));
    assert!(
        matches!(&error, Error::Argument(ArgumentError::NotFinite { argument: "output_grad", index, .. }) if *index == [0, 2]),
        "{error}"
    );

    let shape = |error: Error| match error {
        Error::Argument(ArgumentError::Shape { argument, expected, found }) => (argument, expected, found),
        other => panic!("{other}"),
    };
    assert_eq!(shape(refused(LinearTap::new(&numbers(5, 7, 1), &delta))), ("input", vec![5, 4], vec![5, 7]));
    assert_eq!(shape(refused(LinearTap::new(&x, &numbers(5, 2, 1)))), ("output_grad", vec![5, 3], vec![5, 2]));
    assert_eq!(shape(refused(LinearTap::new(&x, &numbers(6, 3, 1)))), ("output_grad", vec![5, 3], vec![6, 3]));
    let none = LinearTap::new(&x, &delta).positions(2);
    assert_eq!(refused(none), Error::Argument(ArgumentError::Rows { argument: "input", rows: 5, positions: 2 }));
    let none = Array2::zeros((0, 4));
    assert!(matches!(
        refused(LinearTap::new(&none, &Array2::zeros((0, 3)))),
        Error::Argument(ArgumentError::Rows { rows: 0, .. })
    ));
}

/// Before the first step only that can tell; it changes nothing, and after `discard` goes on.
#[test]
fn the_first_step_finds_what_observing_could_not() {
    let problem = Problem::new(12, 4, 3);
    let (w, b) = (problem.w.clone(), problem.b.clone());
    let mut opt = kfac();
    opt.observe("l", LinearTap::new(&numbers(5, 7, 1), &numbers(5, 3, 2))).unwrap();
    let mut params = (w.clone(), b.clone());
    let error = opt.step(&mut params, &problem.grads).unwrap_err();
    assert_eq!(error.to_string(), "layer \"l\": input has shape [5, 7] where [5, 4] is needed");
    assert!(error.source().is_some());
    assert!(params == (w.clone(), b.clone()) && opt.steps() == 0);
    let error = opt.observe("l", problem.tap()).unwrap_err(); // not beside the other one
    assert!(matches!(reason(error), Error::Argument(ArgumentError::Shape { argument: "input", .. })));
    opt.discard();
    opt.observe("l", problem.tap()).unwrap();
    opt.step(&mut params, &problem.grads).unwrap();

    let mut opt = Sgd::new(1.0).kfac();
    opt.observe("hiden", problem.tap()).unwrap();
    let error = opt.step(&mut (w.clone(), b.clone()), &problem.grads).unwrap_err();
    let expected = "layer \"hiden\": there is no weight \"hiden.weight\", \"hiden\"; the tensors are \"0\", \"1\"";
    assert_eq!(error.to_string(), expected);
    opt.discard();
    opt.step(&mut (w.clone(), b.clone()), &problem.grads).unwrap();
    assert_eq!(opt.observe("hiden", problem.tap()).unwrap_err().to_string(), expected, "and at once from then on");

    for (layer, words) in [
        (Layer::new("2"), "there is no weight \"2\"; the tensors are \"0\", \"1\""),
        (Layer::new("0").bias("c"), "there is no weight \"c\"; the tensors are \"0\", \"1\""),
        (Layer::new("1"), "\"1\" has shape [3], which is not the shape of a weight; name the layer or its weight"),
        (Layer::new("0").bias("0"), "bias has shape [3, 4] where [3] is needed"),
    ] {
        let mut opt = Sgd::new(1.0).kfac().layer("l", layer);
        opt.observe("l", problem.tap()).unwrap();
        let error = opt.step(&mut (w.clone(), b.clone()), &problem.grads).unwrap_err();
        assert_eq!(error.to_string(), format!("layer \"l\": {words}"));
    }
}

/// A second tap that is not finite leaves the first, and so does one whose squares are too large for the type.
#[test]
fn taps_are_refused_for_what_is_in_them_alone() {
    let (x, delta) = (numbers(5, 4, 1).mapv(|x| x as f32), numbers(5, 3, 2).mapv(|x| x as f32));
    let mut opt = Sgd::new(0.1).kfac();
    opt.observe("l", LinearTap::new(&x, &delta)).unwrap();
    let before = opt.state_dict();
    let mut broken = delta.clone();
    broken[[4, 2]] = f32::NEG_INFINITY;
    let error = reason(opt.observe("l", LinearTap::new(&x, &broken)).unwrap_err());
    assert!(
        matches!(&error, Error::Argument(ArgumentError::NotFinite { argument: "output_grad", index, .. }) if *index == [4, 2]),
        "{error}"
    );
    assert!(opt.state_dict() == before);
    let error = reason(opt.observe("l", LinearTap::new(&(&x * 1e30), &delta)).unwrap_err());
    assert_eq!(error.to_string(), "the sum of input² is inf");
    assert!(opt.state_dict() == before);
}

/// The optimizer inside refuses, or a hyper-parameter is out of range: taps, factors and parameters stay.
#[test]
fn a_refused_step_changes_nothing() {
    let problem = Problem::new(12, 4, 3);
    let rate = |step: u64| if step == 1 { f64::NAN } else { 1.0 };
    let layer = || Layer::new("0").bias("1");
    let mut opt = Sgd::new(rate).kfac().no_kl_clip().layer("l", layer());
    let mut params = (problem.w.clone(), problem.b.clone());
    opt.observe("l", problem.tap()).unwrap();
    opt.step(&mut params, &problem.grads).unwrap();
    opt.observe("l", LinearTap::new(&problem.delta.dot(&numbers(3, 4, 9)), &problem.delta)).unwrap();
    let (before, kept) = (opt.state_dict(), params.clone());
    assert!(matches!(
        opt.step(&mut params, &problem.grads),
        Err(Error::Step(StepError::HyperParameter { name: "learning_rate", .. }))
    ));
    let mut broken = problem.grads.clone();
    broken.1[2] = f64::NAN;
    let error = opt.step(&mut params, &broken).unwrap_err();
    assert!(matches!(error, Error::Step(StepError::NonFiniteGradient { path, .. }) if path == "1"));
    assert!(opt.state_dict() == before && params == kept);

    for (opt, name) in [
        (kfac().damping(0.0), "damping"),
        (kfac().decay(1.0), "decay"),
        (kfac().kl_clip(-1.0), "kl_clip"),
        (kfac().factors_every(0), "factors_every"),
        (kfac().inverses_every(0), "inverses_every"),
    ] {
        let mut opt = opt;
        opt.observe("l", problem.tap()).unwrap();
        let found = opt.step(&mut params, &problem.grads).unwrap_err();
        assert!(
            matches!(found, Error::Step(StepError::HyperParameter { name: found, .. }) | Error::Argument(ArgumentError::Zero { argument: found }) if found == name),
            "{found}"
        );
        assert_eq!(params, kept);
    }
}

/// What is 0, 1 or infinite once it is rounded to f32 has left its range.
#[test]
fn settings_beyond_the_numbers() {
    type Narrow = Adapted<Sgd<f32>, Kfac<f32>>;
    let narrow = || Sgd::new(1.0).kfac();
    let settings: [(Narrow, &str); 4] = [
        (narrow().damping(1e-46), "damping"),
        (narrow().damping(1e39), "damping"),
        (narrow().decay(1e-46), "decay"),
        (narrow().decay(1.0 - 1e-12), "decay"),
    ];
    for (mut opt, name) in settings {
        let (x, delta) = (array![[1.0_f32, 2.0], [0.5, 1.0]], array![[1.0_f32], [-1.0]]);
        opt.observe("", LinearTap::new(&x, &delta)).unwrap();
        let mut w = array![[1.0_f32, 2.0]];
        let found = opt.step(&mut w, &array![[1.0, 1.0]]).unwrap_err();
        assert!(
            matches!(found, Error::Step(StepError::HyperParameter { name: found, .. }) | Error::Argument(ArgumentError::Zero { argument: found }) if found == name),
            "{found}"
        );
        assert_eq!((w, opt.steps()), (array![[1.0, 2.0]], 0));
    }
}

#[test]
fn gradients_divided_by_the_batch() {
    let problem = Problem::new(10, 4, 3);
    let mean = |delta: &Array2<f64>| (delta.t().dot(&problem.x), delta.sum_axis(ndarray::Axis(0)));
    let divided = &problem.delta / 10.0;
    for bias in [true, false] {
        let layer = if bias { Layer::new("0").bias("1") } else { Layer::new("0") };
        let fresh = || Sgd::new(1.0).kfac().layer("l", layer.clone());
        let step = |delta: &Array2<f64>, empirical: bool| {
            let (mut opt, mut params) = (fresh(), (problem.w.clone(), problem.b.clone()));
            let tap = LinearTap::new(&problem.x, delta);
            if empirical { opt.observe_empirical("l", tap) } else { opt.observe("l", tap) }.unwrap();
            opt.step(&mut params, &mean(&divided)).map(drop).map_err(reason)
        };
        assert_eq!(step(&problem.delta, true), Ok(()));
        let error = step(&divided, true).unwrap_err();
        assert!(
            matches!(error, Error::Curvature(CurvatureError::NotTheMean { ratio, examples: 10 }) if (ratio - 10.0).abs() < 1e-9),
            "{error}"
        );
        assert_eq!(step(&divided, false), Ok(()), "of drawn targets nobody can tell");
    }
    let tap = problem.tap();
    let (weight, bias) = mean(&divided);
    assert!(close(&tap.weight_grad().unwrap(), &weight, 1e-15));
    assert!((tap.bias_grad().unwrap() - bias).iter().all(|d| d.abs() < 1e-15));
}

/// Rank-deficient batches, a zero gradient and a batch of one have finite steps; zero curvature divides by the damping.
#[test]
fn fallbacks() {
    for eigen in [false, true] {
        let fresh = |damping: f64| if eigen { kfac().damping(damping).eigen(true) } else { kfac().damping(damping) };
        let run = |damping: f64, x: Array2<f64>, delta: Array2<f64>| {
            let problem = Problem { x, delta, ..Problem::new(4, 4, 3) };
            let mut opt = fresh(damping);
            opt.observe("l", problem.tap()).unwrap();
            problem.moved(&mut opt)
        };
        let same_row = Array2::from_shape_fn((6, 4), |(_, j)| j as f64);
        for damping in [1e-3, 1e-30] {
            for x in [same_row.clone(), Array2::zeros((6, 4)), numbers(6, 4, 1) * 1e8] {
                let moved = run(damping, x, Array2::from_shape_fn((6, 3), |(_, j)| 1.0 + j as f64));
                assert!(moved.iter().all(|x| x.is_finite()), "{moved}");
            }
        }
        let zero = run(0.25, numbers(6, 4, 1), Array2::zeros((6, 3)));
        let joined = Problem::new(4, 4, 3).joined();
        match eigen {
            true => assert!(close(&zero, &(joined * 4.0), 1e-12)),
            // π = 1, and G is √λ = ½: twice what A makes of it.
            false => assert!(zero.iter().all(|x| x.is_finite()) && !close(&zero, &joined, 1e-3)),
        }
    }
    // A zero gradient moves nothing, kl-clip or not.
    let problem = Problem { grads: (Array2::zeros((3, 4)), Array1::zeros(3)), ..Problem::new(6, 4, 3) };
    let mut opt = Sgd::new(1.0).kfac().layer("l", Layer::new("0").bias("1"));
    opt.observe("l", problem.tap()).unwrap();
    assert_eq!(problem.moved(&mut opt), Array2::<f64>::zeros((3, 5)));
}

/// A layer that this step has no tap of keeps its factors.
#[test]
fn a_step_without_taps_keeps_the_factors() {
    let problem = Problem::new(12, 4, 3);
    let mut opt = kfac().inverses_every(1);
    opt.observe("l", problem.tap()).unwrap();
    let first = problem.moved(&mut opt);
    assert_eq!(problem.moved(&mut opt), first);
    assert_ne!(first, problem.joined());
    assert_eq!(opt.state_dict().text("kfac/updates/l"), Some("1"));
}

/// An f32 factor that rounding has made indefinite: λ far below its last digits.
#[test]
fn indefinite_by_rounding() {
    let x = Array2::from_shape_fn((40, 30), |(i, j)| 1e3 + ((i * 7 + j) as f32 * 0.3).sin());
    let delta = Array2::from_shape_fn((40, 2), |(i, j)| ((i + j) as f32).cos());
    for eigen in [false, true] {
        let mut opt = Sgd::new(1e-3).kfac().damping(1e-10);
        opt = if eigen { opt.eigen(true) } else { opt };
        opt.observe("", LinearTap::new(&x, &delta)).unwrap();
        let mut w = Array2::zeros((2, 30));
        opt.step(&mut w, &Array2::from_shape_fn((2, 30), |(i, j)| (i + j) as f32 * 0.01)).unwrap();
        assert!(w.iter().all(|x| x.is_finite()) && w.iter().any(|x| *x != 0.0));
    }
}
