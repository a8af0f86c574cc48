//! L-BFGS: the line search, what is a vector, and what an error leaves.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use gradus::error::{ArgumentError, StateError, StepError};
use gradus::optimizer::LbfgsStop;
use gradus::{Error, StateDict, prelude::*};
use ndarray::{Array1, Array2, ArrayView2, ShapeBuilder, array};

fn curvatures(n: usize) -> Array1<f64> {
    Array1::from_shape_fn(n, |i| 10.0_f64.powf(3.0 * i as f64 / (n - 1) as f64))
}

/// ½Σcᵢ(wᵢ − 1)².
fn quadratic(w: &Array1<f64>) -> (f64, Array1<f64>) {
    let (c, d) = (curvatures(w.len()), w - 1.0);
    (0.5 * (&c * &d * &d).sum(), &c * &d)
}

fn rosenbrock(w: &Array1<f64>) -> (f64, Array1<f64>) {
    let (a, b) = (1.0 - w[0], w[1] - w[0] * w[0]);
    (a * a + 100.0 * b * b, array![-2.0 * a - 400.0 * w[0] * b, 200.0 * b])
}

#[test]
fn finds_the_bottom_of_a_quadratic() {
    let mut w = Array1::zeros(20);
    let mut opt = Lbfgs::new(1.0).strong_wolfe(true).iterations(60).tolerance_change(0.0);
    let report = opt.step_with(&mut w, quadratic).unwrap();
    assert!(w.iter().all(|x| (x - 1.0_f64).abs() < 1e-8), "{w}");
    assert_eq!(report.stop, LbfgsStop::Gradient);
    assert!(report.evaluations <= 75 && report.iterations < 60, "{report:?}");
    assert!(report.loss < 1e-14 && report.initial_loss > 100.0);
    // There already: one evaluation, nothing moves.
    let before = w.clone();
    let report = opt.step_with(&mut w, quadratic).unwrap();
    assert!(w == before && (report.iterations, report.evaluations, report.stop) == (0, 1, LbfgsStop::Gradient));
}

/// Both conditions between the points where iterations begin, of which there is one a call.
#[test]
fn accepted_points_satisfy_the_strong_wolfe_conditions() {
    let mut w = array![-1.2, 1.0];
    let mut opt = Lbfgs::new(1.0).strong_wolfe(true).iterations(1).evaluations(30);
    let mut searched = 0;
    for _ in 0..25 {
        let before = w.clone();
        let (loss, grad) = rosenbrock(&before);
        let report = opt.step_with(&mut w, rosenbrock).unwrap();
        let (after, after_grad) = rosenbrock(&w);
        let movement = &w - &before;
        let slope = grad.dot(&movement);
        assert!(slope < 0.0 && after <= loss + 1e-4 * slope, "decrease");
        assert!(after_grad.dot(&movement).abs() <= 0.9 * slope.abs() * (1.0 + 1e-9), "curvature");
        assert!(report.loss == after && report.initial_loss == loss);
        searched += u64::from(report.evaluations > 2);
    }
    assert!(searched > 3, "the search had something to do");
}

/// f64::MAX and beyond in the way of the first guess: the search turns back, a fixed step is taken back.
#[test]
fn turns_back_from_what_is_not_finite() {
    for wall in [f64::NAN, f64::INFINITY] {
        // Minimum at 1, a wall from 1.5 on.
        let hostile = |w: &Array1<f64>| match w[0] {
            x if x > 1.5 => (wall, array![f64::NAN]),
            x => ((x - 1.0).powi(2), array![2.0 * (x - 1.0)]),
        };
        let mut w = array![0.0];
        let mut opt = Lbfgs::new(30.0).strong_wolfe(true);
        let report = opt.step_with(&mut w, hostile).unwrap();
        assert!((w[0] - 1.0_f64).abs() < 1e-6, "{w} {report:?}");
        let (mut w, mut opt) = (array![0.0], Lbfgs::new(30.0));
        let report = opt.step_with(&mut w, hostile).unwrap();
        assert_eq!((w, report.stop, report.loss), (array![0.0], LbfgsStop::NotFinite, 1.0));
    }
}

#[test]
fn errors_change_nothing() {
    let mut w = array![-1.2, 1.0];
    let mut opt = Lbfgs::new(1.0).strong_wolfe(true);
    opt.step_with(&mut w, rosenbrock).unwrap();
    let (before, state) = (w.clone(), opt.state_dict());
    let error = opt.step_with(&mut w, |_| (f64::NAN, array![0.0, 0.0])).unwrap_err();
    assert!(matches!(error, Error::Argument(ArgumentError::NotFinite { argument: "loss", .. })));
    let error = opt.step_with(&mut w, |_| (1.0, array![0.0, f64::INFINITY])).unwrap_err();
    assert!(matches!(error, Error::Step(StepError::NonFiniteGradient { .. })));
    assert!(w == before && opt.state_dict() == state);
    // A shape that changes in the middle: after parameters and history have moved.
    for fails_at in [1, 2, 5] {
        let mut calls = 0;
        let error = opt.step_with(&mut w, |w| {
            calls += 1;
            let (loss, grad) = rosenbrock(w);
            (loss, if calls > fails_at { array![1.0] } else { grad })
        });
        assert!(matches!(error, Err(Error::Step(StepError::ShapeMismatch { .. }))), "{error:?}");
        assert!(w == before && opt.state_dict() == state, "{fails_at}");
    }
    // A gradient that is missing in the middle.
    let (mut pair, mut opt, mut calls) = ((array![1.0], array![2.0]), Lbfgs::new(0.1), 0);
    let error = opt.step_with(&mut pair, |(a, b)| {
        calls += 1;
        (a[0] * a[0] + b[0] * b[0], (a * 2.0, Some(b * 2.0).filter(|_| calls < 2)))
    });
    assert_eq!(error, Err(Error::Step(StepError::MissingGradient { path: "1".into() })));
    assert!(pair == (array![1.0], array![2.0]) && opt.state_dict() == Lbfgs::<f64>::new(0.1).state_dict());
    for (opt, name) in [
        (Lbfgs::new(-1.0), "learning_rate"),
        (Lbfgs::new(1.0).history(0), "history"),
        (Lbfgs::new(1.0).iterations(0), "iterations"),
        (Lbfgs::new(1.0).evaluations(0), "evaluations"),
        (Lbfgs::new(1.0).tolerance_grad(-1.0), "tolerance_grad"),
        (Lbfgs::new(1.0).tolerance_change(f64::NAN), "tolerance_change"),
    ] {
        let (mut opt, mut w) = (opt, array![-1.2, 1.0]);
        let error = opt.step_with(&mut w, rosenbrock).unwrap_err();
        assert!(
            matches!(error, Error::Step(StepError::HyperParameter { name: found, .. }) | Error::Argument(ArgumentError::Zero { argument: found }) if found == name),
            "{error}"
        );
        let error = opt.step(&mut w, &array![1.0, 1.0]).unwrap_err();
        assert!(
            matches!(error, Error::Step(StepError::HyperParameter { name: found, .. }) | Error::Argument(ArgumentError::Zero { argument: found }) if found == name),
            "{error}"
        );
        assert_eq!((w, opt.steps()), (array![-1.2, 1.0], 0));
    }
}

/// At every call, also into one that is elsewhere.
#[test]
fn resumes_bit_for_bit() {
    for search in [false, true] {
        let fresh = || {
            let opt = Lbfgs::new(if search { 1.0 } else { 0.2 }).history(3).iterations(2);
            opt.strong_wolfe(search)
        };
        let (mut opt, mut w, mut seen): (_, _, Vec<(StateDict, Array1<f64>)>) = (fresh(), array![-1.2, 1.0], vec![]);
        for _ in 0..8 {
            seen.push((opt.state_dict(), w.clone()));
            opt.step_with(&mut w, rosenbrock).unwrap();
        }
        for (at, (state, start)) in seen.into_iter().enumerate() {
            let (mut resumed, mut own) = (if at % 2 == 0 { fresh() } else { opt.clone() }, start);
            resumed.load_state_dict(&state).unwrap();
            assert!(resumed.state_dict() == state);
            (at..8).for_each(|_| _ = resumed.step_with(&mut own, rosenbrock).unwrap());
            assert!(own == w && resumed.state_dict() == opt.state_dict(), "{search}, {at}");
        }
        let mut state = opt.state_dict();
        assert!(state.remove("lbfgs/y.2/"));
        assert!(
            matches!(fresh().load_state_dict(&state), Err(Error::State(StateError::MissingEntry { key, .. })) if key == "lbfgs/y.2/")
        );
        let mut state = opt.state_dict();
        state.insert_text("lbfgs/pairs", 4);
        assert!(
            matches!(fresh().load_state_dict(&state), Err(Error::State(StateError::MissingEntry { key, .. })) if key == "lbfgs/s.3/")
        );
    }
}

/// Few iterations a call leave the search few evaluations; it does not end where it began.
#[test]
fn one_iteration_a_call_arrives() {
    for iterations in [1, 2, 3] {
        let (mut opt, mut w) = (Lbfgs::new(1.0).strong_wolfe(true).iterations(iterations), array![-1.2, 1.0]);
        let losses: Vec<f64> = (0..60).map(|_| opt.step_with(&mut w, rosenbrock).unwrap().loss).collect();
        assert!(losses.windows(2).all(|pair| pair[1] <= pair[0]), "{losses:?}");
        assert!(losses[59] < 1e-10, "{iterations}: {w} {losses:?}"); // the tolerances end it
    }
    // A first guess ten times too long has to be divided.
    let (mut opt, mut w) = (Lbfgs::new(1e4).strong_wolfe(true).iterations(1), array![-1.2, 1.0]);
    assert!(opt.step_with(&mut w, rosenbrock).unwrap().loss < 24.0, "{w}");
}

/// The iteration that met a wall is as if it had not been: position, history and counts.
#[test]
fn an_iteration_that_is_taken_back_leaves_the_history() {
    let calls = std::cell::Cell::new(0);
    let hostile = |wall: u64| {
        let calls = &calls;
        calls.set(0);
        move |w: &Array1<f64>| {
            calls.set(calls.get() + 1);
            let (loss, grad) = quadratic(w);
            (if calls.get() == wall { f64::NAN } else { loss }, grad)
        }
    };
    let fresh = || Lbfgs::new(0.3).history(3);
    let (mut opt, mut w) = (fresh().iterations(20), Array1::zeros(6));
    let report = opt.step_with(&mut w, hostile(8)).unwrap();
    // The first evaluation is at the beginning: the seventh iteration is taken back.
    assert_eq!((report.stop, report.iterations, opt.steps()), (LbfgsStop::NotFinite, 6, 6));
    let (mut other, mut expected) = (fresh().iterations(7), Array1::zeros(6));
    (0..6).for_each(|_| {
        let (_, grad) = quadratic(&expected);
        other.step(&mut expected, &grad).unwrap();
    });
    assert_eq!(w, expected);
    assert!(opt.state_dict() == other.state_dict());
    assert!(opt.state_dict().text("lbfgs/pairs") == Some("3"));
}

/// A shorter history takes the last pairs of a longer one.
#[test]
fn a_shorter_history_keeps_the_last_pairs() {
    let (mut long, mut w) = (Lbfgs::new(0.3).history(5), Array1::zeros(6));
    let mut short = Lbfgs::<f64>::new(0.3).history(2);
    for at in 0..9 {
        if at == 7 {
            short.load_state_dict(&long.state_dict()).unwrap();
            assert_eq!(short.state_dict().text("lbfgs/pairs"), Some("2"));
            assert_eq!(short.state_dict().tensor::<f64>("lbfgs/y.1/"), long.state_dict().tensor::<f64>("lbfgs/y.4/"));
        }
        let (_, grad) = quadratic(&w);
        long.step(&mut w, &grad).unwrap();
    }
    let mut state = long.state_dict();
    state.insert_text("lbfgs/pairs", u64::MAX);
    assert!(short.load_state_dict(&state).is_err());
}

#[test]
fn a_loss_has_no_index() {
    let error = Lbfgs::<f64>::new(1.0).step_with(&mut array![1.0], |_| (f64::NAN, array![0.0])).unwrap_err();
    assert_eq!(error.to_string(), "loss is NaN");
}

/// Two tensors, one column by column and one with gaps, are one vector.
#[test]
fn a_tree_in_any_layout_is_one_vector() {
    let start = Array1::from_shape_fn(10, |i| (i as f64).sin());
    let (mut flat, mut opt) = (start.clone(), Lbfgs::new(1.0).strong_wolfe(true).iterations(7));
    opt.step_with(&mut flat, quadratic).unwrap();

    let first = Array2::from_shape_vec((2, 3).set_f(true), vec![0.0; 6]).unwrap();
    let mut memory = Array1::<f64>::zeros(8);
    let mut tree = (first, memory.view_mut().slice_axis_move(ndarray::Axis(0), ndarray::Slice::new(0, None, 2)));
    tree.0.iter_mut().chain(tree.1.iter_mut()).zip(&start).for_each(|(to, from)| *to = *from);
    let mut opt = Lbfgs::new(1.0).strong_wolfe(true).iterations(7);
    opt.step_with(&mut tree, |tree| {
        let joined: Array1<f64> = tree.0.iter().chain(&tree.1).copied().collect();
        let (loss, grad) = quadratic(&joined);
        let split = |from: usize, count: usize| grad.iter().copied().skip(from).take(count).collect::<Vec<_>>();
        let first = ArrayView2::from_shape((2, 3), &split(0, 6)).unwrap().to_owned();
        (loss, (first, Array1::from(split(6, 4))))
    })
    .unwrap();
    let joined: Array1<f64> = tree.0.iter().chain(&tree.1).copied().collect();
    assert_eq!(joined, flat);
    assert_ne!(flat, start);
    assert!(memory.iter().skip(1).step_by(2).all(|x| *x == 0.0), "what lies between is not the tensor's");
}

/// One iteration a step: what one call of one iteration does; through adaptors, boxed, in f32.
#[test]
fn as_an_optimizer() {
    let (mut called, mut stepped) = (Array1::zeros(6), Array1::zeros(6));
    let (mut calls, mut steps) = (Lbfgs::new(0.5).iterations(1), Lbfgs::new(0.5));
    for _ in 0..10 {
        calls.step_with(&mut called, quadratic).unwrap();
        let (_, grad) = quadratic(&stepped);
        assert!(steps.step(&mut stepped, &grad).unwrap().moved);
        assert_eq!(called, stepped);
    }
    assert_eq!((calls.steps(), steps.steps()), (10, 10));

    let mut boxed: Box<dyn Optimizer<f32>> = Box::new(Lbfgs::new(0.5).clip_global_norm(1e6).ema(0.5));
    let mut w = Array1::<f32>::zeros(6);
    for _ in 0..200 {
        let grad = quadratic(&w.mapv(f64::from)).1.mapv(|g| g as f32);
        boxed.step(&mut w, &grad).unwrap();
    }
    assert!(w.iter().all(|x| (x - 1.0).abs() < 1e-4), "{w}");

    // A group's learning rate scales its part; weight decay there is none.
    let (mut opt, mut w) =
        (Lbfgs::new(0.5).group("0", Group::new().scale_learning_rate(0.5)), (array![0.0], array![0.0]));
    opt.step(&mut w, &(array![0.25], array![0.25])).unwrap();
    assert_eq!(w, (array![-0.0625], array![-0.125]));
    let mut opt = Lbfgs::new(0.5).group("0", Group::new().weight_decay(0.1));
    let error = opt.step(&mut w, &(array![0.25], array![0.25])).unwrap_err();
    assert!(
        matches!(error, Error::Step(StepError::HyperParameter { name: "weight_decay", path: Some(_), .. })),
        "{error}"
    );
}

/// Without a gradient a tensor is not part of the vector, and the history begins anew when that changes.
#[test]
fn other_tensors_begin_anew() {
    let grad = |x: &Array1<f64>| quadratic(x).1;
    let (mut opt, mut w) = (Lbfgs::new(0.5), (Array1::zeros(3), Array1::zeros(3)));
    for _ in 0..3 {
        let grads = (grad(&w.0), None::<Array1<f64>>);
        opt.step(&mut w, &grads).unwrap();
    }
    assert_eq!(w.1, Array1::<f64>::zeros(3));
    let (mut alone, mut expected) = (Lbfgs::new(0.5), w.clone());
    let both = (grad(&w.0), grad(&w.1));
    opt.step(&mut w, &both).unwrap();
    alone.step(&mut expected, &both).unwrap();
    assert_eq!(w, expected);
}

/// What a step writes it reads again, and goes on with, however large or small the gradients: the curvature between two of them is
/// not always a number of the element type.
#[test]
fn gradients_at_the_ends_of_the_range() {
    fn run<A: Scalar>(grads: &[[f64; 2]]) {
        let (mut opt, mut w) = (Lbfgs::<A>::new(1.0), Array1::<A>::zeros(2));
        for grad in grads.iter().cycle().take(9) {
            let grad = Array1::from(grad.map(A::from_f64).to_vec());
            opt.step(&mut w, &grad).unwrap();
            assert!(w.iter().all(|x| !x.is_nan()), "{} {grads:?}: {w}", A::DTYPE);
            let state = opt.state_dict();
            let mut resumed = Lbfgs::<A>::new(1.0);
            resumed.load_state_dict(&state).unwrap_or_else(|error| panic!("{} {grads:?}: {error}", A::DTYPE));
            assert!(resumed.state_dict() == state);
        }
    }
    run::<f32>(&[[3e38, -3e38], [-3e38, 3e38]]);
    run::<f32>(&[[3e38, -3e38]]);
    run::<f32>(&[[3e38, 0.0], [1.0, 0.0]]);
    run::<f32>(&[[3e38, 3e38], [-2e38, 1e38], [1e38, -1e38]]);
    run::<f32>(&[[1e-6, 1e-6], [-1e-6, 2e-6]]);
    run::<f64>(&[[1.7e308, -1.7e308], [-1.7e308, 1.7e308]]);
    run::<f64>(&[[1e200, 0.0], [-1e200, 1.0]]);
    run::<f64>(&[[1e160, 1e150], [1e150, 1e160]]);
}

/// A tree whose walks tell different things from a certain one on.
struct Liar {
    tensors: Vec<(&'static str, Array1<f64>)>,
    /// How many walks are still honest, the lie, and whether it is told once.
    honest: std::cell::Cell<u32>,
    lie: Lie,
    once: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Lie {
    Other(&'static str),
    Shape,
    Missing,
    More,
    Turned,
    Twice,
}

impl Liar {
    fn tells(&self) -> Vec<(&'static str, usize)> {
        let left = self.honest.get();
        self.honest.set(match left {
            0 if self.once => u32::MAX,
            _ => left.saturating_sub(1),
        });
        let mut shown: Vec<_> = (0..2).map(|at| (self.tensors[at].0, at)).collect();
        match self.lie {
            _ if left > 0 => {}
            Lie::Other(name) => shown[1].0 = name,
            Lie::Shape => shown[1].1 = 2,
            Lie::Missing => _ = shown.pop(),
            Lie::More => shown.push(("c", 2)),
            Lie::Turned => shown.reverse(),
            Lie::Twice => shown[1].0 = "a",
        }
        shown
    }
}

impl Params for Liar {
    type Elem = f64;

    fn visit<'a>(&'a self, visitor: &mut gradus::params::Visitor<'_, 'a, f64>) {
        // As gradients it is honest.
        self.tensors[..2].iter().for_each(|(name, values)| visitor.field(name, values));
    }
}

impl ParamsMut for Liar {
    fn visit_mut<'a>(&'a mut self, visitor: &mut gradus::params::VisitorMut<'_, 'a, f64>) {
        let shown = self.tells();
        let mut tensors: Vec<_> = self.tensors.iter_mut().map(|(_, values)| Some(values)).collect();
        for (name, at) in shown {
            if let Some(values) = tensors[at].take() {
                visitor.field(name, values);
            }
        }
    }
}

/// Whichever walk is the first that lies, and whether it goes on lying or not.
#[test]
fn trees_that_lie_are_as_they_were() {
    let loss = |w: &Liar| w.tensors[..2].iter().map(|(_, w)| w.dot(w)).sum::<f64>();
    let grads = |w: &Liar| {
        let tensors = w.tensors[..2].iter().map(|(name, w)| (*name, w * 2.0)).collect();
        Liar { tensors, honest: std::cell::Cell::new(u32::MAX), lie: Lie::Missing, once: false }
    };
    let mut refused = 0;
    for lie in [Lie::Other("z"), Lie::Shape, Lie::Missing, Lie::More, Lie::Turned, Lie::Twice] {
        for once in [true, false] {
            for search in [true, false] {
                for honest in 0..12 {
                    let tensors = vec![("a", array![3.0, -2.0]), ("b", array![1.0, 4.0, 2.0]), ("c", array![7.0])];
                    let before = tensors.clone();
                    let mut tree = Liar { tensors, honest: std::cell::Cell::new(honest), lie, once };
                    let opt = Lbfgs::new(0.05).iterations(6);
                    let mut opt = opt.strong_wolfe(search);
                    let fresh = opt.state_dict();
                    let result = opt.step_with(&mut tree, |tree| (loss(tree), grads(tree)));
                    let what = format!("{lie:?} after {honest}, once {once}, search {search}: {result:?}");
                    match result {
                        Ok(_) => {}
                        Err(_) => {
                            refused += 1;
                            // What is shown no longer cannot be put back.
                            let hidden = !once && matches!(lie, Lie::Missing | Lie::Shape | Lie::Twice);
                            let shown = if hidden { 1 } else { 3 };
                            assert_eq!(tree.tensors[..shown], before[..shown], "{what}");
                            assert!(opt.state_dict() == fresh, "{what}");
                        }
                    }
                }
            }
        }
    }
    assert!(refused > 100, "{refused}");
}

/// Other parameters than before are refused where nothing has moved yet, or there is nothing to move.
#[test]
fn other_parameters_where_nothing_moved() {
    let changed = |result: gradus::Result<gradus::Report>| {
        matches!(result, Err(Error::Step(StepError::ParametersChanged { .. })))
    };
    let (mut w, mut other) = (array![1.0, 2.0], array![1.0, 2.0, 3.0]);
    let (flat, steep) = (array![0.0, 0.0], array![0.0, 0.0, 0.0]);
    let mut opt = Lbfgs::new(0.1);
    assert!(!opt.step(&mut w, &flat).unwrap().moved);
    assert!(changed(opt.step(&mut other, &steep)));
    let mut opt = Lbfgs::new(0.1);
    opt.step(&mut Array1::<f64>::zeros(0), &Array1::zeros(0)).unwrap();
    assert!(changed(opt.step(&mut Array2::<f64>::zeros((0, 2)), &Array2::zeros((0, 2)))));

    // Of a step that is skipped the optimizer inside sees nothing.
    let nan = |elements| Array1::from_elem(elements, f64::NAN);
    let mut opt = Sgd::new(0.1).clip_per_tensor_norm(1.0).non_finite(NonFinite::Skip);
    opt.step(&mut w, &flat).unwrap();
    assert!(!opt.step(&mut w, &nan(2)).unwrap().moved);
    assert!(changed(opt.step(&mut other, &nan(3))));
    let mut opt = Adam::new(0.1).skip_nonfinite().unscale(2.0);
    opt.step(&mut w, &flat).unwrap();
    assert!(changed(opt.step(&mut other, &nan(3))));

    #[cfg(feature = "half")]
    {
        use half::f16;
        let mut opt = Lbfgs::<f32>::new(0.1).master_weights();
        opt.step(&mut Array1::<f16>::default(0), &Array1::<f16>::default(0)).unwrap();
        let result = opt.step(&mut Array2::<f16>::default((0, 2)), &Array2::<f16>::default((0, 2)));
        assert!(changed(result));
        let mut opt = Lbfgs::<f32>::new(0.1).master_weights();
        opt.step(&mut Array1::<f16>::default(2), &Array1::<f16>::default(2)).unwrap();
        assert!(changed(opt.step(&mut Array1::<f16>::default(3), &Array1::<f16>::default(3))));
    }
}

mod bounds {
    use super::*;

    /// Tensors of several shapes, one of them without a gradient, inside and outside of the bounds, by the loss and by single steps.
    #[test]
    fn every_tensor_has_its_own() {
        type Tree = (Array2<f64>, Array1<f64>, Array1<f64>);
        let target = (array![[2.0, -3.0], [0.25, 9.0]], array![-1.0]);
        let grads = |w: &Tree| (&w.0 - &target.0, &w.1 - &target.1, None::<Array1<f64>>);
        let loss = |w: &Tree| {
            let grads = grads(w);
            (0.5 * (grads.0.mapv(|g| g * g).sum() + grads.1.mapv(|g| g * g).sum()), grads)
        };
        let lower = (Array2::from_elem((2, 2), -1.0), array![0.0], array![5.0]);
        let upper = (array![[1.0, 1.0], [1.0, f64::INFINITY]], array![0.5], array![6.0]);
        let solution = (array![[1.0, -1.0], [0.25, 9.0]], array![0.0], array![7.0]);
        // Not only the tensor without a gradient starts outside.
        let start = (array![[0.0, 0.0], [3.0, 0.0]], array![0.25], array![7.0]);
        let close = |w: &Tree| {
            let near = |a: &f64, b: &f64| (a - b).abs() < 1e-6;
            w.0.iter().zip(&solution.0).all(|(a, b)| near(a, b)) && w.1 == solution.1 && w.2 == solution.2
        };
        for search in [false, true] {
            let mut opt = Lbfgs::new(1.0).history(5).strong_wolfe(search).bounds(&lower, &upper).unwrap();
            let mut w = start.clone();
            let report = opt.step_with(&mut w, loss).unwrap();
            assert!(close(&w) && report.stop == LbfgsStop::Gradient, "{w:?} {report:?}");
            assert_eq!(w.0[[0, 0]], 1.0);
            let single = Lbfgs::new(1.0).history(5).strong_wolfe(search).bounds(&lower, &upper).unwrap();
            let (mut opt, mut w) = (single.clip_global_norm(f64::INFINITY), start.clone());
            for _ in 0..30 {
                let grads = grads(&w);
                opt.step(&mut w, &grads).unwrap();
                assert!(w.0.iter().zip(&lower.0).zip(&upper.0).all(|((x, low), high)| low <= x && x <= high), "{w:?}");
            }
            assert!(close(&w), "{w:?}");
            assert!(
                !opt.step(&mut w, &(array![[-1.0, 1.0], [0.0, 0.0]], array![1.0], None::<Array1<f64>>)).unwrap().moved
            );
        }
    }

    #[test]
    fn without_bounds_in_the_way_it_is_the_same_minimum() {
        let far = Array1::from_elem(20, 1e3);
        let mut w = Array1::zeros(20);
        let opt = Lbfgs::new(1.0).strong_wolfe(true).iterations(100).tolerance_change(0.0);
        let report = opt.bounds(&-&far, &far).unwrap().step_with(&mut w, quadratic).unwrap();
        assert!(w.iter().all(|x| (x - 1.0_f64).abs() < 1e-8) && report.evaluations < 100, "{w} {report:?}");
    }

    #[test]
    fn wrong_bounds_are_errors() {
        let bounds = |lower: Vec<f64>, upper: Vec<f64>| Lbfgs::new(1.0).bounds(&lower, &upper);
        assert!(matches!(bounds(vec![0.0], vec![1.0, 2.0]), Err(Error::Argument(ArgumentError::Trees { .. }))));
        for (lower, upper, name) in
            [(2.0, 1.0, "upper bound"), (f64::NAN, 1.0, "lower bound"), (0.0, f64::NAN, "upper bound")]
        {
            let error = bounds(vec![0.0, lower], vec![0.0, upper]).unwrap_err();
            assert!(
                matches!(error, Error::Argument(ArgumentError::Range { argument, .. }) if argument == name),
                "{error}"
            );
        }
        let mut opt = bounds(vec![0.0; 2], vec![1.0; 2]).unwrap();
        let (mut w, loss) = (vec![2.0; 3], |w: &Vec<f64>| (w[0], vec![1.0; 3]));
        for error in [opt.step_with(&mut w, loss).unwrap_err(), opt.step(&mut w, &vec![1.0; 3]).unwrap_err()] {
            assert!(matches!(error, Error::Argument(ArgumentError::Trees { .. })), "{error}");
        }
        assert!(w == [2.0; 3] && opt.steps() == 0 && opt.layout().is_none());
        // A start outside is put back after an error.
        let mut opt = bounds(vec![0.0], vec![1.0]).unwrap();
        let mut w = vec![2.0];
        let loss = |w: &Vec<f64>| (if w[0] > 1.0 { 1.0 } else { f64::NAN }, vec![1.0]);
        assert!(opt.step_with(&mut w, loss).is_err() && w == [2.0]);
    }

    /// A resumed run is the same.
    #[test]
    fn the_state_has_all() {
        let new = || {
            Lbfgs::new(1.0)
                .history(3)
                .strong_wolfe(true)
                .iterations(2)
                .evaluations(20)
                .bounds(&array![-1.5, 0.0], &array![0.5, 2.0])
                .unwrap()
        };
        let (mut opt, mut w) = (new(), array![-1.2, 1.0]);
        opt.step_with(&mut w, rosenbrock).unwrap();
        let (mut resumed, mut v) = (new(), w.clone());
        resumed.load_state_dict(&opt.state_dict()).unwrap();
        for _ in 0..20 {
            let reports = [opt.step_with(&mut w, rosenbrock).unwrap(), resumed.step_with(&mut v, rosenbrock).unwrap()];
            assert!(reports[0] == reports[1] && w == v);
        }
        assert!((w[0] - 0.5).abs() < 1e-12 && (w[1] - 0.25).abs() < 1e-6, "{w}");
    }
}
