//! Averages and slow weights: evaluated, exchanged, and refused where they would be lost.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use gradus::adaptor::{Buffers, PowerEma, post_hoc_weights};
use gradus::error::StepError;
use gradus::prelude::*;
use gradus::{Error, Step};
use ndarray::{Array1, Array2, ShapeBuilder, array, s};

type Pair = (Array2<f64>, Array1<f64>);

fn number(i: usize) -> f64 {
    ((i * 104_729) as f64 * 0.37).sin()
}

/// A matrix in either order and a vector.
fn pair(phase: usize, column_major: bool) -> Pair {
    let mut matrix = Array2::zeros((37, 71).set_f(column_major));
    matrix.indexed_iter_mut().for_each(|((i, j), x)| *x = number(i * 71 + j + phase));
    (matrix, Array1::from_shape_fn(5, |i| number(i + phase)))
}

fn bits(pair: &Pair) -> Vec<u64> {
    pair.0.iter().chain(&pair.1).map(|x| x.to_bits()).collect()
}

/// Every adaptor with averages, through what they have in common.
trait Averaging: Optimizer<f64> {
    fn exchange(&mut self, params: &mut dyn ParamsMut<Elem = f64>) -> gradus::Result<()>;
    fn show(&self, tree: &mut dyn ParamsMut<Elem = f64>) -> gradus::Result<()>;
}

macro_rules! averaging {
    ($($adaptor:ident)*) => {
        $(
            impl<O: Optimizer<f64>> Averaging for gradus::adaptor::Adapted<O, gradus::adaptor::$adaptor<f64>> {
                fn exchange(&mut self, params: &mut dyn ParamsMut<Elem = f64>) -> gradus::Result<()> {
                    self.swap(params)
                }

                fn show(&self, tree: &mut dyn ParamsMut<Elem = f64>) -> gradus::Result<()> {
                    self.read(tree)
                }
            }
        )*
    };
}

averaging!(Ema Swa Lookahead);

fn all() -> Vec<(&'static str, Box<dyn Averaging>)> {
    vec![
        ("ema", Box::new(Adam::new(0.1).ema(0.9))),
        ("ema, debiased", Box::new(Adam::new(0.1).ema(0.9).debiased(true))),
        ("ema, warm-up", Box::new(Adam::new(0.1).ema(0.9).warmup(true))),
        ("swa", Box::new(Adam::new(0.1).swa(2, 2))),
        ("lookahead", Box::new(Adam::new(0.1).lookahead(3, 0.5))),
    ]
}

#[test]
fn swapped_in_and_out_nothing_is_lost() {
    for (name, mut opt) in all() {
        for column_major in [false, true] {
            let mut params = pair(0, column_major);
            opt.exchange(&mut params).unwrap(); // nothing is there yet
            assert_eq!(bits(&params), bits(&pair(0, column_major)), "{name}");
            (0..4).for_each(|step| _ = opt.step(&mut params, &pair(step + 9, false)).unwrap());
            let (before, state, mut read) = (params.clone(), opt.state_dict(), pair(1, !column_major));
            opt.show(&mut read).unwrap();
            opt.exchange(&mut params).unwrap();
            assert!(bits(&params) == bits(&read) && bits(&params) != bits(&before), "{name}");

            // As long as they are there no step is taken, whoever asks.
            let swapped = opt.state_dict();
            let error = opt.step(&mut params, &pair(3, false)).unwrap_err();
            assert_eq!(error, Error::Step(StepError::Swapped), "{name}");
            let (mut same, grads) = (params.clone(), pair(3, false));
            assert_eq!(
                opt.check(&Step::pair(&mut same, &grads, None).unwrap()),
                Err(Error::Step(StepError::Swapped)),
                "{name}"
            );
            assert_eq!(opt.show(&mut read), Err(Error::Step(StepError::Swapped)), "{name}");
            let error = opt.exchange(&mut array![1.0]).unwrap_err();
            assert!(matches!(error, Error::Step(StepError::ParametersChanged { .. })), "{name}: {error}");
            assert!(opt.state_dict() == swapped && bits(&params) == bits(&read), "{name}");

            opt.exchange(&mut params).unwrap();
            assert!(bits(&params) == bits(&before) && opt.state_dict() == state, "{name}");
            opt.step(&mut params, &pair(3, false)).unwrap();
            (_, opt) = all().into_iter().find(|(other, _)| *other == name).unwrap();
        }
    }
}

#[test]
fn a_state_saved_while_swapped_is_swapped_when_loaded() {
    let (mut opt, mut params) = (Sgd::new(1.0).ema(0.5), array![4.0]);
    (0..2).for_each(|_| _ = opt.step(&mut params, &array![2.0]).unwrap());
    opt.swap(&mut params).unwrap();
    let mut resumed = Sgd::new(1.0).ema(0.5);
    resumed.load_state_dict(&opt.state_dict()).unwrap();
    assert_eq!(resumed.step(&mut params, &array![2.0]), Err(Error::Step(StepError::Swapped)));
    resumed.swap(&mut params).unwrap();
    assert_eq!(params, array![0.0]);
}

/// The updates written out, element by element.
#[test]
fn warm_up_and_correction_are_those_of_the_docs() {
    let decays = [0.3, 0.9, 0.99, 0.999, 0.5];
    let decay = move |step: u64| decays[step as usize];
    let (mut warm, mut debiased) = (Sgd::new(1.0).ema(decay).warmup(true), Sgd::new(1.0).ema(decay).debiased(true));
    let (mut w, mut same) = (array![1.0], array![1.0]);
    let (mut expected, mut sum, mut product) = (0.0, 0.0, 1.0);
    for (t, decay) in decays.into_iter().enumerate() {
        let grad = array![number(t)];
        warm.step(&mut w, &grad).unwrap();
        debiased.step(&mut same, &grad).unwrap();
        let least = if t == 0 { 0.0 } else { f64::min(decay, (1.0 + t as f64) / (10.0 + t as f64)) };
        expected += (1.0 - least) * (w[0] - expected);
        (sum, product) = (decay * sum + (1.0 - decay) * w[0], product * decay);
        let (mut read, mut other) = (array![0.0], array![0.0]);
        warm.read(&mut read).unwrap();
        debiased.read(&mut other).unwrap();
        assert!((read[0] - expected).abs() < 1e-15, "{t}: {read} is not {expected}");
        assert!((other[0] - sum / (1.0 - product)).abs() < 1e-14, "{t}: {other} is not {}", sum / (1.0 - product));
    }
    // A decay of 1 keeps the first parameters.
    let mut opt = Sgd::new(1.0).ema(1.0).debiased(true);
    (0..3).for_each(|_| _ = opt.step(&mut w, &array![1.0]).unwrap());
    let mut read = array![0.0];
    opt.read(&mut read).unwrap();
    assert_eq!(read, &w + 2.0);
}

#[test]
fn only_steps_count_for_swa_and_lookahead() {
    let mut opt = Sgd::new(1.0).accumulate(2).skip_nonfinite().swa(1, 2);
    let (mut w, mut average) = (array![0.0], array![0.0]);
    for grad in [1.0, 1.0, f64::NAN, 1.0, 1.0, 1.0, 1.0] {
        opt.step(&mut w, &array![grad]).unwrap();
    }
    opt.read(&mut average).unwrap();
    assert_eq!((w, average, opt.averaged()), (array![-3.0], array![-2.0], 2));

    let mut opt = Sgd::new(1.0).accumulate(2).skip_nonfinite().lookahead(2, 0.5);
    let mut w = array![0.0];
    let seen = [1.0, 1.0, f64::NAN, 1.0, 1.0, 1.0, 1.0].map(|grad| {
        opt.step(&mut w, &array![grad]).unwrap();
        w[0]
    });
    assert_eq!(seen, [0.0, -1.0, -1.0, -1.0, -1.0, -1.0, -2.0]);
}

/// Beside a loop written out, in every layout, with an average outside that must follow to where the parameters end.
#[test]
fn lookahead_is_the_loop_of_the_docs() {
    let mut wide = Array2::<f64>::zeros((37, 142));
    wide.slice_mut(s![.., ..;2]).assign(&pair(0, false).0);
    let mut tree = (pair(0, false), pair(0, true), wide.slice_mut(s![.., ..;2]), pair(0, false).0);
    let mut opt = Adam::new(0.1).lookahead(3, 0.25).freeze("3").ema(0.5);
    let (mut plain, mut fast, mut slow) = (Adam::new(0.1), pair(0, false), pair(0, false));
    let mut average = fast.0.clone();
    for step in 0..7 {
        let grads = pair(step + 9, false);
        opt.step(&mut tree, &(&grads, &grads, &grads.0, &grads.0)).unwrap();
        plain.step(&mut fast, &grads).unwrap();
        if step % 3 == 2 {
            let follow = |slow: &mut f64, fast: &f64| *slow += 0.25 * (fast - *slow);
            slow.0.zip_mut_with(&fast.0, follow);
            slow.1.zip_mut_with(&fast.1, follow);
            fast = slow.clone();
        }
        let weight = if step == 0 { 1.0 } else { 0.5 };
        average.zip_mut_with(&fast.0, |average, param| *average += weight * (param - *average));
    }
    assert!(tree.0 == fast && tree.1 == fast && tree.2 == fast.0 && tree.3 == pair(0, false).0);
    let mut averages = (pair(0, false), pair(0, false), average.clone(), average.clone());
    opt.read(&mut averages).unwrap();
    assert!(averages.0.0 == average && averages.1.0 == average && averages.2 == average);
    assert_eq!(averages.3, tree.3);
}

#[test]
fn numbers_out_of_range_are_refused() {
    let said = |mut opt: Box<dyn Optimizer<f64>>| {
        let mut w = array![1.0];
        let error = opt.step(&mut w, &array![1.0]).unwrap_err();
        assert_eq!((w, opt.steps(), opt.layout().is_none()), (array![1.0], 0, true), "{error}");
        error.to_string()
    };
    assert_eq!(said(Box::new(Sgd::new(1.0).swa(0, 0))), "every is 0; it must be at least 1");
    assert_eq!(said(Box::new(Sgd::new(1.0).lookahead(0, 0.5))), "every is 0; it must be at least 1");
    assert_eq!(
        said(Box::new(Sgd::new(1.0).lookahead(1, 1.5))),
        "slow_step is 1.5 at step 0; it must be a number in 0 ≤ slow_step ≤ 1"
    );
    assert_eq!(
        said(Box::new(Sgd::new(1.0).layerwise_decay(-0.5, ["**"]))),
        "layerwise_decay is -0.5 at step 0; it must be a finite number ≥ 0"
    );
    assert!(said(Box::new(Sgd::new(1.0).layerwise_decay(0.5, ["a"]))).starts_with("pattern \"a\" matches no tensor"));
    // Also if it is a later layer's turn only later.
    assert!(said(Box::new(Sgd::new(1.0).freeze("**").unfreeze_at(9, "b"))).starts_with("pattern \"b\" matches no"));
    // What the optimizer inside refuses leaves no averages behind.
    assert!(said(Box::new(Sgd::new(-1.0).lookahead(1, 0.5))).starts_with("learning_rate is -1"));
    assert!(said(Box::new(Sgd::new(-1.0).lookahead(2, 0.5))).starts_with("learning_rate is -1"));
    assert!(said(Box::new(Sgd::new(-1.0).swa(1, 1))).starts_with("learning_rate is -1"));
}

#[test]
fn layers_decay_with_groups_inside_and_outside() {
    let inner = Group::new().scale_learning_rate(10.0);
    let mut opt = Sgd::new(1.0)
        .group("1", inner)
        .layerwise_decay(|step: u64| 0.5 / (step + 1) as f64, ["{0,1,2}", "2"])
        .group("2", Group::new().learning_rate(3.0));
    let mut w = [0, 1, 2, 3].map(|_| array![0.0]);
    opt.step(&mut w, &[0, 1, 2, 3].map(|_| array![1.0])).unwrap();
    assert_eq!(w.each_ref().map(|w| w[0]), [-0.5, -5.0, -3.0, -1.0]);
    opt.step(&mut w, &[0, 1, 2, 3].map(|_| array![1.0])).unwrap();
    assert_eq!(w.map(|w| w[0]), [-0.75, -7.5, -6.0, -2.0]);
}

#[test]
fn layers_thaw_in_their_turn_and_have_no_state_before() {
    let build = || Adam::new(0.1).freeze(["0", "1"]).unfreeze_at(4, "0").unfreeze_at(2, "1");
    let (mut opt, mut w) = (build(), [0, 1, 2].map(|_| Array1::<f32>::zeros(100)));
    let mut steps = Vec::new();
    for step in 0..6 {
        let state = opt.state_dict();
        let mut resumed = build();
        resumed.load_state_dict(&state).unwrap();
        let mut copy = w.clone();
        let grads = [0, 1, 2].map(|_| Array1::ones(100));
        opt.step(&mut w, &grads).unwrap();
        resumed.step(&mut copy, &grads).unwrap();
        assert!(copy == w && resumed.state_dict() == opt.state_dict(), "step {step}");
        steps.push(["0", "1", "2"].map(|path| opt.inner().tensor_steps(path)));
        let bytes = steps[step].iter().filter(|steps| **steps > 0).count() * 800;
        assert_eq!(opt.inner().state_bytes(), bytes, "step {step}");
    }
    assert_eq!(steps, [[0, 0, 1], [0, 0, 2], [0, 1, 3], [0, 2, 4], [1, 3, 5], [2, 4, 6]]);
    // A call by hand in between holds until a later turn.
    opt.refreeze("**").unwrap();
    assert!(!opt.step(&mut w, &[0, 1, 2].map(|_| Array1::ones(100))).unwrap().moved);
}

/// Set by hand before every step, without gradient, or frozen inside or outside: no adaptor writes to it.
#[test]
fn a_tensor_that_is_not_moved_is_left_as_it_is() {
    type Build = fn() -> Box<dyn Optimizer<f64>>;
    let builds: [(&str, Build); 14] = [
        ("lookahead", || Box::new(Sgd::new(1.0).lookahead(2, 0.5))),
        ("lookahead around an average", || Box::new(Sgd::new(1.0).ema(0.5).lookahead(2, 0.5))),
        ("lookahead in lookahead", || Box::new(Sgd::new(1.0).lookahead(2, 0.5).lookahead(1, 0.25))),
        ("lookahead around muon", || Box::new(Sgd::new(1.0).route("never", Muon::new(0.1)).lookahead(2, 0.5))),
        ("ema", || Box::new(Sgd::new(1.0).ema(0.5))),
        ("swa", || Box::new(Sgd::new(1.0).swa(1, 1))),
        ("accumulate", || Box::new(Sgd::new(1.0).accumulate(2))),
        ("accumulate(1)", || Box::new(Sgd::new(1.0).weight_decay(0.5).accumulate(1).sum(true))),
        ("clips", || {
            Box::new(Sgd::new(1.0).clip_global_norm(1.0).clip_per_tensor_norm(1.0).clip_value(1.0).clip_adaptive(1.0))
        }),
        ("finite", || Box::new(Sgd::new(1.0).check_finite().skip_nonfinite().maximize().unscale(2.0))),
        ("group", || Box::new(Sgd::new(1.0).group("**", Group::new().weight_decay(0.5)).layerwise_decay(0.5, ["**"]))),
        ("route", || Box::new(Sgd::new(1.0).route("hand", AdamW::new(1.0).weight_decay(0.1)))),
        ("adamw", || Box::new(AdamW::new(1.0).weight_decay(0.1).lookahead(2, 0.5).ema(0.5))),
        ("momentum", || Box::new(Momentum::new(1.0, 0.9).weight_decay(0.1).lookahead(2, 0.5))),
    ];
    type Tree = std::collections::BTreeMap<&'static str, Array1<f64>>;
    let tree = |hand: f64, other: f64| {
        Tree::from([("hand", array![hand]), ("never", array![other]), ("other", array![other])])
    };
    for (name, build) in builds {
        let inner_frozen = |frozen: bool| -> Box<dyn Optimizer<f64>> {
            match frozen {
                true => Box::new(build().freeze("hand")),
                false => build(),
            }
        };
        for case in ["no gradient", "frozen"] {
            let mut opt = inner_frozen(case == "frozen");
            let mut params = tree(0.0, 1.0);
            for step in 0..6 {
                let by_hand = 10.0 + f64::from(step);
                params.insert("hand", array![by_hand]);
                let before = params["other"].clone();
                let grads: std::collections::BTreeMap<_, _> = tree(1.0, 1.0)
                    .into_iter()
                    .map(|(path, grad)| {
                        (path, Some(grad).filter(|_| path == "other" || path == "hand" && case == "frozen"))
                    })
                    .collect();
                let moved = opt.step(&mut params, &grads).unwrap().moved;
                assert_eq!(params["hand"], array![by_hand], "{name}, {case}, step {step}");
                assert!(params["other"] != before || !moved || name.contains("lookahead"), "{name}, {case}: moves");
            }
        }
    }
    // Frozen inside of the slow weights.
    let mut opt = Sgd::new(1.0).freeze("0").lookahead(2, 0.5);
    let mut params = (array![0.0], array![0.0]);
    for by_hand in [10.0, 11.0, 12.0, 13.0] {
        params.0[0] = by_hand;
        opt.step(&mut params, &(array![1.0], array![1.0])).unwrap();
        assert_eq!(params.0, array![by_hand]);
    }
    assert_eq!(params.1, array![-2.0]);
    // Without gradient throughout.
    let mut opt = Sgd::new(1.0).lookahead(2, 0.5);
    for by_hand in [10.0, 11.0, 12.0, 13.0] {
        let mut params = array![by_hand];
        opt.step(&mut params, &None::<Array1<f64>>).unwrap();
        assert_eq!(params, array![by_hand]);
    }
}

/// A step that moves nothing, as L-BFGS has converged, leaves everything as it is: slow weights, averages and parameters.
#[test]
fn what_does_not_move_is_not_followed() {
    // The gradient is flatter than `tolerance_change` along it, but not within `tolerance_grad`.
    let (steep, flat) = (array![1.0, -1.0], array![1e-6, 1e-6]);
    for adaptor in ["lookahead", "ema", "swa"] {
        let inside = || Lbfgs::new(0.1).tolerance_change(1e-3);
        let mut opt: Box<dyn Averaging> = match adaptor {
            "lookahead" => Box::new(inside().lookahead(2, 0.5)),
            "ema" => Box::new(inside().ema(0.5)),
            _ => Box::new(inside().swa(0, 1)),
        };
        let mut w = array![1.0, -0.0];
        assert!(opt.step(&mut w, &steep).unwrap().moved);
        let mut averages = [w.clone(), w.clone()];
        w[1] = -0.0;
        let before = w.clone();
        opt.show(&mut averages[0]).unwrap();
        assert!(!opt.step(&mut w, &flat).unwrap().moved, "{adaptor}");
        opt.show(&mut averages[1]).unwrap();
        assert_eq!(w.mapv(f64::to_bits), before.mapv(f64::to_bits), "{adaptor}");
        assert_eq!(averages[0], averages[1], "{adaptor}");
    }
}

/// A gradient that was gathered before moves a tensor that has none in the call that moves: slow weights follow it.
#[test]
fn what_a_gathered_gradient_moves_is_followed() {
    let none = || None::<Array1<f64>>;
    let mut opt = Sgd::new(1.0).accumulate(2).sum(true).lookahead(1, 0.5).ema(0.5);
    let (mut params, mut average) = (array![0.0], array![9.0]);
    opt.step(&mut params, &array![4.0]).unwrap();
    assert!(opt.step(&mut params, &none()).unwrap().moved);
    assert_eq!(params, array![-2.0]);
    opt.read(&mut average).unwrap();
    assert_eq!(average, array![-2.0]);
}

/// A weight, and a buffer that the forward pass changes, without gradient.
type WithBuffer = (Array1<f64>, Array1<f64>);

/// The averages after three steps, in which the buffer is 10, 20 and 40 and the weight 3, 2 and 1.
fn with_buffer(mut opt: impl Averaging) -> WithBuffer {
    let mut model: WithBuffer = (array![4.0], array![0.0]);
    for buffer in [10.0, 20.0, 40.0] {
        model.1[0] = buffer;
        opt.step(&mut model, &(array![1.0], None::<Array1<f64>>)).unwrap();
    }
    let mut averages = model.clone();
    opt.show(&mut averages).unwrap();
    assert_eq!(model, (array![1.0], array![40.0]));
    averages
}

#[test]
fn a_buffer_stays_follows_or_is_copied() {
    let ema = || Sgd::new(1.0).ema(0.5);
    assert_eq!(with_buffer(ema()), (array![1.75], array![10.0]));
    assert_eq!(with_buffer(ema().buffers(Buffers::Stay)), (array![1.75], array![10.0]));
    assert_eq!(with_buffer(ema().buffers(Buffers::Follow)), (array![1.75], array![27.5]));
    assert_eq!(with_buffer(ema().buffers(Buffers::Copy)), (array![1.75], array![40.0]));
    let swa = |buffers| with_buffer(Sgd::new(1.0).swa(2, 1).buffers(buffers));
    assert_eq!(swa(Buffers::Stay), (array![1.5], array![20.0]));
    assert_eq!(swa(Buffers::Follow), (array![1.5], array![30.0]));
    assert_eq!(swa(Buffers::Copy), (array![1.5], array![40.0]));
}

/// An average inside or outside has its own choice, a frozen tensor is one that does not move, and so is one of a skipped or refused step.
#[test]
fn the_choice_for_buffers_is_of_one_average() {
    let inside = Sgd::new(1.0).ema(0.5).buffers(Buffers::Copy).ema(0.5);
    assert_eq!(with_buffer(inside), (array![1.75], array![10.0]));
    let outside = Sgd::new(1.0).ema(0.5).ema(0.5).buffers(Buffers::Copy);
    assert_eq!(with_buffer(outside), (array![1.75], array![40.0]));

    let mut opt = Sgd::new(1.0).freeze("1").accumulate(2).check_finite().ema(0.5).buffers(Buffers::Copy);
    let (mut model, grads) = ((array![4.0], array![1.0]), (array![1.0], array![1.0]));
    (0..2).for_each(|_| _ = opt.step(&mut model, &grads).unwrap());
    model.1[0] = 2.0;
    opt.step(&mut model, &grads).unwrap(); // only accumulates
    let state = opt.state_dict();
    opt.step(&mut model, &(array![f64::NAN], array![1.0])).unwrap_err();
    assert_eq!(opt.state_dict(), state);
    assert_eq!(state.tensor("ema/average/1"), Some(array![1.0].into_dyn()));
    opt.step(&mut model, &grads).unwrap();
    assert_eq!(opt.state_dict().tensor("ema/average/1"), Some(array![2.0].into_dyn()));
}

/// Where all tensors move, the choice for buffers changes no bit.
#[test]
fn what_moves_is_averaged_alike() {
    let run = |buffers| {
        let (mut opt, mut params) = (Adam::new(0.1).ema(0.9).buffers(buffers), pair(0, true));
        (0..4).for_each(|step| _ = opt.step(&mut params, &pair(step + 9, false)).unwrap());
        opt.state_dict()
    };
    assert!(run(Buffers::Stay) == run(Buffers::Copy) && run(Buffers::Stay) == run(Buffers::Follow));
    let shown = format!("{:?}", Sgd::<f64>::new(1.0).ema(0.5).buffers(Buffers::Copy));
    assert!(shown.ends_with("ema(0.5).buffers(Copy)"), "{shown}");
}

fn golden() -> serde_json::Value {
    serde_json::from_str(include_str!("golden/post_hoc.json")).unwrap()
}

fn numbers(value: &serde_json::Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

/// numpy's roots are eigenvalues of a matrix with entries up to 1e4, of which γ is a small one.
const ROOTS: f64 = 1e-11;

/// Two solutions of equations whose condition number is up to 200.
const SOLVED: f64 = 1e-11;

/// 400 products of powers, each rounded.
const POWERS: f64 = 1e-12;

fn near(found: f64, expected: f64, tolerance: f64) {
    assert!((found - expected).abs() <= tolerance * expected.abs().max(1.0), "{found} {expected}");
}

#[test]
fn post_hoc_averages_agree_with_the_paper_s_formulas() {
    let golden = golden();
    let gammas = golden["gammas"].as_array().unwrap();
    assert_eq!(gammas.len(), 7);
    for case in gammas {
        let average = PowerEma::of_width(case["width"].as_f64().unwrap()).unwrap();
        near(average.gamma(), case["gamma"].as_f64().unwrap(), ROOTS);
        near(average.width(), case["width"].as_f64().unwrap(), 1e-14);
    }
    let sets = golden["weights"].as_array().unwrap();
    assert_eq!(sets.len(), 5);
    for case in sets {
        let average = |value: &serde_json::Value| match numbers(value)[..] {
            [steps, gamma] => (steps as u64, PowerEma::new(gamma)),
            _ => unreachable!("steps and γ"),
        };
        let saved: Vec<_> = case["saved"].as_array().unwrap().iter().map(average).collect();
        let found = post_hoc_weights(&saved, average(&case["wanted"])).unwrap();
        let expected = numbers(&case["weights"]);
        assert_eq!(found.len(), expected.len());
        found.iter().zip(&expected).for_each(|(found, expected)| near(*found, *expected, SOLVED));
    }
}

#[test]
fn an_average_of_another_width_is_made_of_two() {
    let walk = &golden()["walk"];
    let [narrow, wide] = [0.05, 0.1].map(|width| PowerEma::of_width(width).unwrap());
    let mut opt = Sgd::new(1.0).ema(wide).ema(narrow);
    let (mut w, mut saved, mut times) = (array![0.0], Vec::new(), Vec::new());
    for (step, value) in numbers(&walk["values"]).into_iter().enumerate() {
        let grad = array![w[0] - value];
        opt.step(&mut w, &grad).unwrap();
        if (step + 1).is_multiple_of(20) {
            let mut averages = [array![0.0], array![0.0]];
            opt.read(&mut averages[0]).unwrap();
            opt.inner().read(&mut averages[1]).unwrap();
            saved.extend(averages);
            times.extend([narrow, wide].map(|average| (step as u64 + 1, average)));
        }
    }
    near(saved[38][0], walk["narrow"].as_f64().unwrap(), POWERS);
    near(saved[39][0], walk["wide"].as_f64().unwrap(), POWERS);
    let weights = post_hoc_weights(&times, (400, PowerEma::of_width(0.15).unwrap())).unwrap();
    let made: f64 = weights.iter().zip(&saved).map(|(weight, saved)| weight * saved[0]).sum();
    // 40 equations with a condition number of 1e4.
    near(made, walk["made"].as_f64().unwrap(), 1e-8);
    // The reconstruction, and the average itself.
    near(made, walk["wanted"].as_f64().unwrap(), 1e-3);
}

#[test]
fn post_hoc_averages_need_times_and_widths() {
    let one = PowerEma::new(5.0);
    let said = |saved: &[(u64, PowerEma)], wanted| post_hoc_weights(saved, wanted).unwrap_err().to_string();
    assert_eq!(said(&[], (1, one)), "saved is empty; it must have at least one element");
    assert_eq!(said(&[(0, one)], (1, one)), "steps is 0; it must be at least 1");
    assert_eq!(said(&[(1, one)], (1, PowerEma::new(-0.5))), "gamma is -0.5; it must be a finite number > -0.5");
    assert!(said(&[(7, one), (7, one)], (7, one)).starts_with("saved is 1; it must be averages of different steps"));
    let first = post_hoc_weights(&[(7, one), (8, one)], (7, one)).unwrap();
    first.iter().zip([1.0, 0.0]).for_each(|(found, expected)| near(*found, expected, SOLVED));
    for width in [0.0, -0.1, f64::NAN, 0.29, 1e-200, f64::INFINITY] {
        assert!(PowerEma::of_width(width).is_err(), "{width}");
    }
    assert!(PowerEma::of_width(1.0 / 12.0_f64.sqrt()).unwrap().gamma() < 1e-6);
    let error = Sgd::new(1.0).ema(PowerEma::new(-0.7)).step(&mut array![1.0], &array![1.0]).unwrap_err();
    assert!(matches!(error, Error::Step(StepError::HyperParameter { name: "decay", .. })), "{error}");
}

/// The average mixed into the parameters.
#[test]
fn an_average_is_mixed_in() {
    let (mut opt, mut w) = (Sgd::new(1.0).ema(0.5), array![4.0]);
    (0..2).for_each(|_| _ = opt.step(&mut w, &array![2.0]).unwrap()); // 2, 0; the average 2, 1
    let mut average = w.clone();
    opt.read(&mut average).unwrap();
    gradus::tree::lerp(&mut w, &average, 0.25).unwrap();
    assert_eq!(w, array![0.25]);
}
