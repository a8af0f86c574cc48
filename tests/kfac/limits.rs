//! Taps and layers that pass every check of their own and would still spoil what is remembered.

use gradus::curvature::Layer;
use gradus::error::{CurvatureError, StepError};
use gradus::{Error, LinearTap, prelude::*};
use ndarray::{Array1, Array2, array};

use crate::{Problem, close, kfac, numbers};

fn reason(error: Error) -> Error {
    match error {
        Error::Layer { reason, .. } => *reason,
        other => panic!("{other} names no layer"),
    }
}

/// Finite, but not its sum of squares: refused at once, in both modes, and what was known stays.
#[test]
fn squares_beyond_the_range_of_numbers() {
    let problem = Problem::new(12, 4, 3);
    let single = |x: &Array2<f64>| x.mapv(|x| x as f32);
    let (x, delta, grad) = (single(&problem.x), single(&problem.delta), single(&problem.grads.0));
    for eigen in [false, true] {
        let fresh = || if eigen { Sgd::new(1.0).kfac().eigen(true) } else { Sgd::new(1.0).kfac() };
        for (scale, huge_input) in [(1e22_f32, false), (1e22, true), (4e18, false)] {
            let mut opt = fresh();
            let huge = if huge_input { &x * scale } else { &delta * scale };
            let tap = if huge_input { LinearTap::new(&huge, &delta) } else { LinearTap::new(&x, &huge) };
            let found = opt.observe("", tap);
            if scale < 1e19 {
                found.unwrap(); // the sum of squares is finite still, and so is the step
            } else {
                let argument = if huge_input { "the sum of input²" } else { "the sum of output_grad²" };
                let error = found.unwrap_err();
                assert_eq!(error.to_string(), format!("layer (root): {argument} is inf"));
                opt.observe("", LinearTap::new(&x, &delta)).unwrap();
            }
            let mut w = single(&problem.w);
            opt.step(&mut w, &grad).unwrap();
            assert!(w.iter().all(|w| w.is_finite()) && (scale < 1e19 || w != single(&problem.w)), "{w}");
        }
        // Two taps of which each would do.
        let (mut opt, large) = (fresh(), &delta * 4e18);
        let mut before = opt.state_dict();
        let error = (0..3).find_map(|_| {
            before = opt.state_dict();
            opt.observe("", LinearTap::new(&x, &large)).err()
        });
        assert!(matches!(error, Some(Error::Layer { .. })), "{error:?}");
        assert!(opt.state_dict() == before && before != fresh().state_dict());
    }
}

/// A weight has one name.
#[test]
fn two_names_for_one_weight() {
    #[derive(Params)]
    struct Model {
        h1: Linear,
    }
    #[derive(Params)]
    struct Linear {
        weight: Array2<f64>,
        bias: Array1<f64>,
    }
    let problem = Problem::new(12, 4, 3);
    let linear = |(weight, bias): (&Array2<f64>, &Array1<f64>)| Model {
        h1: Linear { weight: weight.clone(), bias: bias.clone() },
    };
    let grads = linear((&problem.grads.0, &problem.grads.1));
    let fresh = || Sgd::new(1.0).kfac().layer("alias", Layer::new("h1.weight"));
    for (first, second) in [("h1", "h1.weight"), ("alias", "h1"), ("alias", "h1.weight")] {
        let words = "already observed as layer";
        // Before the first step that one finds it, after it the second name is refused at once.
        let (mut opt, mut model) = (fresh(), linear((&problem.w, &problem.b)));
        opt.observe(first, problem.tap()).unwrap();
        opt.observe(second, problem.tap()).unwrap();
        let error = opt.step(&mut model, &grads).unwrap_err().to_string();
        assert!(error.contains(words) && error.contains(first) && error.contains(second), "{error}");
        assert!(model.h1.weight == problem.w && opt.steps() == 0);
        opt.discard();
        opt.observe(first, problem.tap()).unwrap();
        opt.step(&mut model, &grads).unwrap();
        let before = opt.state_dict();
        let error = opt.observe(second, problem.tap()).unwrap_err().to_string();
        assert!(error.contains(words) && error.contains(first) && error.contains(second), "{error}");
        assert!(opt.state_dict() == before);
    }
}

/// A layer that is given by name and of which there is no weight: as a pattern that matches nothing.
#[test]
fn a_layer_of_no_weight() {
    let problem = Problem::new(12, 4, 3);
    let mut opt = kfac().layer("typo", Layer::new("7"));
    opt.observe("l", problem.tap()).unwrap();
    let mut params = (problem.w.clone(), problem.b.clone());
    let error = opt.step(&mut params, &problem.grads).unwrap_err();
    assert_eq!(error.to_string(), "layer \"typo\": there is no weight \"7\"; the tensors are \"0\", \"1\"");
    assert!(params == (problem.w.clone(), problem.b.clone()) && opt.steps() == 0);
}

#[test]
fn messages_say_what_would_be_right() {
    let problem = Problem::new(12, 4, 3);
    let mut opt = Sgd::new(1.0).kfac();
    opt.observe("1", problem.tap()).unwrap();
    let error = opt.step(&mut (problem.w.clone(), problem.b.clone()), &problem.grads).unwrap_err();
    assert_eq!(
        error.to_string(),
        "layer \"1\": \"1\" has shape [3], which is not the shape of a weight; name the layer or its weight"
    );
    let error = opt.observe("0", problem.tap().positions(0)).unwrap_err();
    assert_eq!(error.to_string(), "layer \"0\": positions is 0; it must be at least 1");
    let rows = problem.tap().positions(5).check().unwrap_err().to_string();
    assert_eq!(rows, "input has 12 rows; it must have a multiple of 5 positions, and at least one example");
    // A gradient is named by its own path, not by the layer's.
    let (mut opt, mut broken) = (kfac(), problem.grads.clone());
    opt.observe("l", problem.tap()).unwrap();
    broken.1[1] = f64::NAN;
    let error = opt.step(&mut (problem.w.clone(), problem.b.clone()), &broken).unwrap_err();
    assert!(matches!(&error, Error::Step(StepError::NonFiniteGradient { path, .. }) if path == "1"), "{error}");
}

/// Taps of the real targets tell by how much the step's gradient is another.
#[test]
fn gradients_that_are_no_means() {
    let (x, delta) = (numbers(12, 4, 3), numbers(12, 5, 4));
    let step = |positions: usize, factor: f64, outputs: usize| {
        let delta = delta.slice(ndarray::s![.., ..outputs]).to_owned();
        let tap = LinearTap::new(&x, &delta).positions(positions);
        let (mut opt, mut w) = (Sgd::new(1.0).kfac(), Array2::zeros((outputs, 4)));
        opt.observe_empirical("", tap).unwrap();
        opt.step(&mut w, &(LinearTap::new(&x, &delta).weight_grad().unwrap() * factor)).map(drop).map_err(reason)
    };
    // The layer has 3 positions, of which the tap does not tell: the gradient is that of 4 examples.
    assert_eq!(step(3, 3.0, 5), Ok(()));
    for (positions, factor) in [(1, 3.0), (1, 12.0), (3, 12.0), (1, 2.5)] {
        let ratio = factor / positions as f64;
        match step(positions, factor, 5) {
            Err(Error::Curvature(CurvatureError::NotTheMean { ratio: found, examples })) => {
                assert!((found - ratio).abs() < 1e-9 * ratio && examples == 12 / positions, "{found}");
            }
            other => panic!("{other:?}"),
        }
    }
    // What clipping makes of a gradient is shorter; of few numbers, any is a multiple.
    assert_eq!(step(1, 0.3, 5), Ok(()));
    assert_eq!(step(1, 2.5, 1), Ok(()));
    assert!(step(1, 12.0, 1).is_err());
    // A gradient of other examples is no multiple.
    let (mut opt, mut w) = (Sgd::new(1.0).kfac(), Array2::zeros((5, 4)));
    opt.observe_empirical("", LinearTap::new(&x, &delta)).unwrap();
    opt.step(&mut w, &(numbers(5, 4, 9) * 12.0)).unwrap();
}

/// Adaptors outside see the gradients first; the taps go in by `inner_mut`.
#[test]
fn clipping_and_accumulation_outside() {
    let problem = Problem::new(12, 4, 3);
    let mut chain = kfac().damping(0.1).clip_global_norm(0.05).accumulate(2);
    let mut params = (problem.w.clone(), problem.b.clone());
    let half = |rows: std::ops::Range<usize>| {
        let part = |of: &Array2<f64>| of.slice(ndarray::s![rows.clone(), ..]).to_owned();
        (part(&problem.x), part(&problem.delta))
    };
    for (number, (x, delta)) in [half(0..6), half(6..12)].iter().enumerate() {
        let tap = LinearTap::new(x, delta);
        chain.inner_mut().inner_mut().observe_empirical("l", tap).unwrap();
        let grads = (tap.weight_grad().unwrap(), tap.bias_grad().unwrap());
        assert_eq!(chain.step(&mut params, &grads).unwrap().moved, number == 1);
    }
    // By hand: the mean gradient, clipped, and the whole batch's curvature.
    let tap = problem.tap();
    let (weight, bias) = (tap.weight_grad().unwrap(), tap.bias_grad().unwrap());
    let norm = (weight.mapv(|x| x * x).sum() + bias.mapv(|x| x * x).sum()).sqrt();
    assert!(norm > 0.05);
    let clip = 0.05 / (norm + 1e-6);
    let alone = Problem { grads: (weight * clip, bias * clip), ..Problem::new(12, 4, 3) };
    let mut opt = kfac().damping(0.1);
    opt.observe("l", problem.tap()).unwrap();
    let expected = &problem.w - &alone.moved(&mut opt).slice(ndarray::s![.., ..4]);
    assert!(close(&params.0, &expected, 1e-12));
}

/// κ and the model count every tensor with the learning rate that it has.
#[test]
fn groups_outside_are_counted() {
    let problem = Problem::new(9, 3, 2);
    let fresh = || Sgd::new(0.5).kfac().layer("l", Layer::new("0").bias("1"));
    let direction = {
        let mut opt = kfac();
        opt.observe("l", problem.tap()).unwrap();
        problem.moved(&mut opt)
    };
    let products = &direction * &problem.joined();
    let (bias, weight) = (products.column(3).sum(), products.slice(ndarray::s![.., ..3]).sum());
    for (scale, pattern) in [(10.0, "*"), (10.0, "1"), (0.0, "*")] {
        let mut opt = fresh().kl_clip(1e-3).group(pattern, Group::new().scale_learning_rate(scale));
        opt.inner_mut().observe("l", problem.tap()).unwrap();
        let rates = [0.5 * if pattern == "*" { scale } else { 1.0 }, 0.5 * scale];
        let size = rates[0] * rates[0] * weight + rates[1] * rates[1] * bias;
        let nu = (1e-3 / size.abs()).sqrt().min(1.0);
        let mut expected = &direction * nu;
        expected.slice_mut(ndarray::s![.., ..3]).mapv_inplace(|x| x * rates[0]);
        expected.column_mut(3).mapv_inplace(|x| x * rates[1]);
        let moved = problem.moved(&mut opt);
        assert!(close(&moved, &expected, 1e-10), "{moved} {expected}");
        // Foretold is the model's change, −ν·Ση⟨V, ∇⟩ + ½ν²·Ση²⟨V, ∇⟩.
        let foretold = -nu * (rates[0] * weight + rates[1] * bias) + 0.5 * nu * nu * size;
        match opt.inner_mut().adapt_damping(1.0, 0.5) {
            Ok(ratio) => assert!((ratio - -0.5 / foretold).abs() < 1e-8 * ratio.abs(), "{ratio}"),
            Err(error) => assert!(error == Error::Step(StepError::NoStep) && scale == 0.0, "a step of no length"),
        }
    }
}

/// However long the run and whatever the losses, the damping stays a number that divides.
#[test]
fn the_damping_stays_within_bounds() {
    let observe = |opt: &mut crate::Opt| opt.observe("l", LinearTap::new(&array![[1.0]], &array![[1.0]])).unwrap();
    let (mut opt, mut params) = (kfac().damping(0.5), (array![[0.0]], array![0.0]));
    assert_eq!(opt.current_damping(), 0.5);
    observe(&mut opt);
    for _ in 0..2000 {
        opt.step(&mut params, &(array![[1.0]], array![0.0])).unwrap();
    }
    // As after the 20 steps that count at most.
    assert!(opt.adapt_damping(1.0, -1e9).unwrap() > 0.75);
    assert!((opt.current_damping() - 0.5 * 0.95_f64.powi(20)).abs() < 1e-15);
    for (after, bound) in [(-1e9, 0.5e-6), (1e9, 0.5e6)] {
        for _ in 0..2000 {
            (0..20).for_each(|_| _ = opt.step(&mut params, &(array![[1.0]], array![0.0])).unwrap());
            opt.adapt_damping(0.0, after).unwrap();
        }
        assert!((opt.current_damping() / bound - 1.0).abs() < 1e-12, "{}", opt.current_damping());
        let mut resumed = kfac().damping(0.5);
        resumed.load_state_dict(&opt.state_dict()).unwrap();
    }
    // Nothing was foretold: no layer has factors, or the gradient is 0.
    let mut opt = kfac();
    opt.step(&mut params, &(array![[1.0]], array![0.0])).unwrap();
    assert_eq!(opt.adapt_damping(1.0, 0.5), Err(Error::Step(StepError::NoStep)));
    observe(&mut opt);
    opt.step(&mut params, &(array![[0.0]], array![0.0])).unwrap();
    assert_eq!(opt.adapt_damping(1.0, 0.5), Err(Error::Step(StepError::NoStep)));
    assert_eq!(opt.current_damping(), 1e-3);
}

/// A layer without outputs has nothing to step.
#[test]
fn no_outputs() {
    for eigen in [false, true] {
        let mut opt = if eigen { Sgd::new(1.0).kfac().eigen(true) } else { Sgd::new(1.0).kfac() };
        let (x, delta) = (numbers(5, 4, 1), Array2::zeros((5, 0)));
        opt.observe("", LinearTap::new(&x, &delta)).unwrap();
        let mut w: Array2<f64> = Array2::zeros((0, 4));
        opt.step(&mut w, &Array2::zeros((0, 4))).unwrap();
    }
}

/// At its last use a counter is an error, with the layer's name, and nothing has changed.
#[test]
fn counters_at_their_end() {
    let problem = Problem::new(4, 3, 2);
    let mut opt = kfac();
    opt.observe("l", problem.tap()).unwrap();
    problem.moved(&mut opt);
    let mut state = opt.state_dict();
    for updates in [u64::MAX - 1, u64::MAX] {
        state.insert_text("kfac/updates/l", updates);
        state.insert_text("kfac/since_adapted", u64::MAX);
        opt.load_state_dict(&state).unwrap();
        opt.observe("l", problem.tap()).unwrap();
        let (mut w, mut b, before) = (problem.w.clone(), problem.b.clone(), opt.state_dict());
        let end = opt.step(&mut (&mut w, &mut b), &(&problem.grads.0, &problem.grads.1));
        if updates < u64::MAX {
            assert!(end.unwrap().moved);
            continue;
        }
        assert_eq!(reason(end.unwrap_err()), Error::Step(StepError::CounterFull { counter: "updates", path: None }));
        assert!((&w, &b) == (&problem.w, &problem.b) && opt.state_dict() == before);
        opt.discard();
        assert!(opt.step(&mut (&mut w, &mut b), &(&problem.grads.0, &problem.grads.1)).unwrap().moved);
    }

    let mut opt = kfac();
    opt.observe("l", problem.tap()).unwrap();
    let mut state = opt.state_dict();
    state.insert_text("kfac/rows/l", u64::MAX - 3);
    opt.load_state_dict(&state).unwrap();
    let before = opt.state_dict();
    let error = reason(opt.observe("l", problem.tap()).unwrap_err());
    assert_eq!(error.to_string(), "rows is 4; it must be at most 3, for 18446744073709551612 are observed already");
    assert!(opt.state_dict() == before);
}

/// A first step that is refused, inside `sharded` or for a gradient, leaves no trace, whatever is around and whether or not a state was
/// loaded.
#[cfg(feature = "distributed")]
#[test]
fn a_refused_first_step_leaves_no_trace() {
    use gradus::distributed::Alone;

    type Boxed = Box<dyn Optimizer<f64>>;
    type Make = fn() -> Boxed;
    let inner: [(&str, Make, bool); 3] = [
        ("sharded", || Box::new(Sgd::new(0.1).kfac().sharded(Alone)), false),
        ("check_finite", || Box::new(Sgd::new(0.1).kfac().check_finite()), true),
        ("local_steps", || Box::new(Sgd::new(0.1).kfac().check_finite().local_steps(1, Sgd::new(1.0))), true),
    ];
    type Around = fn(Boxed) -> Boxed;
    let around: [(&str, Around); 6] = [
        ("alone", |opt| opt),
        ("ema", |opt| Box::new(opt.ema(0.9))),
        ("lookahead", |opt| Box::new(opt.lookahead(2, 0.5))),
        ("swa", |opt| Box::new(opt.swa(0, 1))),
        ("accumulate", |opt| Box::new(opt.accumulate(1))),
        ("clip", |opt| Box::new(opt.clip_value(1.0))),
    ];
    for (name, make, spoiled) in inner {
        for (outside, wrap) in around {
            let mut opt = wrap(make());
            let fresh = opt.state_dict();
            for loaded in [false, true] {
                if loaded {
                    opt.load_state_dict(&fresh).unwrap();
                }
                let (mut w, before) = (array![[1.0, 2.0]], opt.state_dict());
                let grad = array![[if spoiled { f64::NAN } else { 1.0 }, 1.0]];
                opt.step(&mut w, &grad).unwrap_err();
                assert!(opt.state_dict() == before, "{name} in {outside}, loaded: {loaded}");
                assert_eq!((w, opt.steps(), opt.layout()), (array![[1.0, 2.0]], 0, None), "{name} in {outside}");
            }
        }
    }
}
