//! What a crate of one's own can add, with nothing but the public interface.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::cell::Cell;
use std::sync::Arc;

use gradus::adaptor::{Outcome, Transform};
use gradus::error::{StateError, StepError};
use gradus::params::{Layout, Visitor, VisitorMut};
use gradus::prelude::*;
use gradus::rule::{At, Decay, Lanes, MAX_SLOTS, Rule};
use gradus::schedule::Plateau;
use gradus::{Commit, Error, Hyper, Report, Result, StateReader, StateWriter, Step};
use ndarray::{Array1, Array2, ShapeBuilder, array, s};

gradus::hyper_parameters! {
    /// A sign of an average, with either kind of decay.
    struct Signs => SignsValues {
        /// The decay of the average.
        beta / set_beta: 0.9, 0.0..1.0;
    }
    options {
        /// How weight decay enters.
        kind: Decay = Decay::Coupled;
    }
}

impl Signs {
    fn optimizer<A: Scalar>(decay: Decay) -> Elementwise<Signs, A> {
        Elementwise::from_rule(Signs::default().kind(decay), |step: u64| 0.1 / (step + 1) as f64)
    }
}

impl<A: Scalar> Rule<A> for Signs {
    type Coefficients = [A; 2];

    fn name(&self) -> &'static str {
        "signs"
    }

    fn slots(&self) -> &'static [&'static str] {
        &["exp_avg"]
    }

    fn decay(&self) -> Decay {
        self.kind
    }

    fn coefficients(&self, values: &SignsValues, at: &At) -> (f64, [A; 2]) {
        (at.learning_rate, [values.beta, 1.0 - values.beta].map(A::from_f64))
    }

    fn sweep(&self, coefficients: [A; 2], lanes: Lanes<'_, A>) {
        lanes.each(coefficients, |&[beta, rest], _, grad, [m]: [A; 1]| {
            let m = beta * m + rest * grad;
            (if m > A::zero() { A::one() } else { -A::one() }, [m])
        });
    }
}

/// The laws of everything in this file.
mod laws {
    use gradus::testing::{self, Law};

    use super::*;

    #[test]
    fn of_the_rule() {
        fn all<A: Scalar>(decay: Decay) {
            let rule = move || Signs::default().kind(decay);
            let laws = testing::optimizer(move |rate| Elementwise::<_, A>::from_rule(rule(), rate).weight_decay(0.5));
            laws.oracle(move |at, param, grad, [m]| {
                let coupled = if decay == Decay::Coupled { grad + 0.5 * param } else { grad };
                let shrunk = if decay == Decay::Decoupled { param * (1.0 - at.learning_rate * 0.5) } else { param };
                *m = 0.9 * *m + (1.0 - 0.9) * coupled;
                shrunk - if *m > 0.0 { at.learning_rate } else { -at.learning_rate }
            })
            .slots(["exp_avg"])
            .debug()
            // It moves by −1 times the learning rate if the average is 0.
            .without(Law::ZeroGradient)
            .run();
        }
        for decay in [Decay::Coupled, Decay::Decoupled] {
            all::<f32>(decay);
            all::<f64>(decay);
        }
    }

    #[test]
    fn of_the_optimizer() {
        let own = |learning_rate| RowNormalized { learning_rate, steps: 0, layout: None };
        testing::optimizer(own).matrices().run();
    }

    #[test]
    fn of_the_adaptors() {
        testing::transform::<f32, _>(|| MeanAbsolute(0.1)).run();
        testing::transform::<f64, _>(|| MeanAbsolute(0.1)).run();
        testing::wrapper::<f64, _>(|inner| Watch { inner, seen: |_: &str, _: f64| () }).run();
    }

    #[test]
    fn of_the_schedule() {
        testing::schedule(|| Halving { start: 1.0, every: 2 }).range(0.0..=1.0).run();
    }
}

fn number(i: usize) -> f64 {
    ((i * 104_729) as f64 * 0.37).sin()
}

fn wave<A: Scalar>(rows: usize, columns: usize, phase: usize) -> Array2<A> {
    Array2::from_shape_fn((rows, columns), |(i, j)| A::from_f64(number(phase + i * columns + j)))
}

/// The same as a loop over elements.
fn naive<A: Scalar>(decay: Decay, steps: usize, (rows, columns): (usize, usize)) -> Array2<A> {
    let c = A::from_f64;
    let mut w = wave::<A>(rows, columns, 0);
    let mut m = Array2::<A>::zeros((rows, columns));
    for step in 0..steps {
        let lr = 0.1 / (step + 1) as f64;
        let grads = wave::<A>(rows, columns, 31 * (step + 1));
        for ((w, m), grad) in w.iter_mut().zip(&mut m).zip(&grads) {
            let grad = match decay {
                Decay::Coupled => *grad + c(0.5) * *w,
                Decay::Decoupled | Decay::Own => *grad,
            };
            if decay == Decay::Decoupled {
                *w *= c(1.0 - lr * 0.5);
            }
            *m = c(0.9) * *m + c(1.0 - 0.9) * grad;
            *w -= if *m > A::zero() { c(lr) } else { -c(lr) };
        }
    }
    w
}

#[test]
fn a_rule_gets_layouts_threads_decay_and_adaptors() {
    fn check<A: Scalar>() {
        let size = (173, 251);
        let plain = wave::<A>(size.0, size.1, 0);
        let mut fortran = Array2::zeros(size.f());
        let mut wide = Array2::zeros((2 * size.0, 2 * size.1));
        for decay in [Decay::Coupled, Decay::Decoupled] {
            let expected = naive::<A>(decay, 3, size);
            fortran.assign(&plain);
            wide.slice_mut(s![..;2, ..;2]).assign(&plain);
            let mut sliced = wide.slice_mut(s![..;2, ..;2]);
            let mut tree = (plain.clone(), &mut fortran, &mut sliced);
            let mut opt = Signs::optimizer::<A>(decay).weight_decay(0.5).accumulate(1).clip_value(1e30);
            for step in 0..3 {
                let grads = wave::<A>(size.0, size.1, 31 * (step + 1));
                opt.step(&mut tree, &(&grads, &grads, &grads)).unwrap();
            }
            assert_eq!(tree.0, expected);
            assert_eq!(*tree.1, expected);
            assert_eq!(*tree.2, expected);
            assert_eq!(opt.inner().inner().slot("1", "exp_avg").unwrap().shape(), [173, 251]);
            assert_eq!(opt.inner().inner().tensor_steps("2"), 3);
        }
    }
    check::<f32>();
    check::<f64>();
}

#[test]
fn a_rules_own_hyper_parameters_are_checked_by_name() {
    let rule = Signs::default().beta(|step: u64| if step == 0 { 0.5 } else { 1.5 });
    let (mut opt, mut w) = (Elementwise::from_rule(rule, 0.1), array![1.0]);
    opt.step(&mut w, &array![1.0]).unwrap();
    let before = w.clone();
    let error = opt.step(&mut w, &array![1.0]).unwrap_err();
    assert_eq!(error.to_string(), "beta is 1.5 at step 1; it must be a number in 0 ≤ beta < 1");
    assert_eq!((w, opt.steps()), (before, 1));
}

/// What a plateau in a rule's own hyper-parameter, or in an optimizer of one's own, has seen is in the state.
#[test]
fn what_a_plateau_has_seen_is_saved() {
    let plateau = || Plateau::new(0.8).factor(0.5).patience(0);
    let reduced = plateau();
    assert!(!reduced.observe(1.0) && reduced.observe(1.0));
    let rule = |plateau: &Plateau| Signs::default().beta(plateau.clone());
    let saved = Elementwise::<_, f64>::from_rule(rule(&reduced), 0.1).state_dict();
    let fresh = plateau();
    Elementwise::<_, f64>::from_rule(rule(&fresh), 0.1).load_state_dict(&saved).unwrap();
    assert_eq!(fresh.at(0), 0.4);

    let own = |plateau: &Plateau| RowNormalized { learning_rate: plateau.clone().into(), steps: 0, layout: None };
    let fresh = plateau();
    own(&fresh).load_state_dict(&own(&reduced).state_dict()).unwrap();
    assert_eq!(fresh.at(0), 0.4);
}

/// An optimizer of one's own that tells its layout steps no other tree, whether it asks for itself or not.
#[test]
fn an_optimizer_of_one_s_own_refuses_another_tree() {
    let own = || RowNormalized { learning_rate: 0.5.into(), steps: 0, layout: None };
    for mut opt in [Box::new(own()) as Box<dyn Optimizer<f64>>, Box::new(own().accumulate(1).ema(0.5))] {
        let mut w = array![[1.0, 0.0]];
        opt.step(&mut w, &array![[0.0, 1.0]]).unwrap();
        let mut other = (w.clone(), w.clone());
        let error = opt.step(&mut other, &(array![[0.0, 1.0]], array![[0.0, 1.0]])).unwrap_err();
        assert!(matches!(error, Error::Step(StepError::ParametersChanged { .. })), "{error}");
        assert_eq!((other, opt.steps()), ((w.clone(), w), 1));
    }
}

/// A preview is to look at: swapped for a step it moves nothing, as a whole or tensor by tensor.
#[test]
fn a_preview_is_never_applied() {
    fn refused(mut opt: impl Optimizer<f64>) {
        let (mut w, mut other, grads) = (array![[1.0]], array![[2.0]], array![[1.0]]);
        for whole in [true, false] {
            let mut parts = Step::pair(&mut w, &grads, None).unwrap().split(2, |_, _| 0);
            let mut applied = Step::pair(&mut other, &grads, None).unwrap();
            if whole {
                applied = parts.pop().unwrap();
            }
            let mut preview = parts[0].preview();
            match whole {
                true => std::mem::swap(&mut applied, &mut preview),
                false => {
                    let pairs = applied.iter_mut().zip(preview.iter_mut());
                    pairs.for_each(|((_, tensor), (info, looked_at))| {
                        looked_at.update(info, |mut param, _| param.fill(7.0));
                        std::mem::swap(tensor, looked_at);
                    });
                }
            }
            let before = opt.state_dict();
            assert_eq!(opt.apply(applied), Err(Error::Step(StepError::Previewed)));
            assert!(opt.state_dict() == before);
            drop(preview);
            drop(parts);
            assert_eq!((&w, &other, opt.steps()), (&array![[1.0]], &array![[2.0]], 0));
        }
    }
    refused(Adam::new(0.1));
    refused(Muon::new(0.1).clip_global_norm(1.0));
    refused(Lbfgs::new(0.1));
    refused(Sgd::new(0.1).route("**", Momentum::new(0.1, 0.9)));
    // Those that remember something themselves.
    refused(Sgd::new(0.1).accumulate(3));
    refused(
        Sgd::new(0.1)
            .clip_global_norm(f64::INFINITY)
            .ema(0.5)
            .swa(0, 1)
            .lookahead(1, 0.5)
            .freeze(|_: &str, _: &[usize]| true),
    );
    refused(Trusting.lookahead(1, 0.5));
    refused(Trusting.ema(0.5));
    refused(Trusting.swa(0, 1));
    refused(Trusting.freeze("**"));
    refused(Trusting.accumulate(1));
}

/// Does not ask whether it is given a preview.
struct Trusting;

impl Optimizer<f64> for Trusting {
    fn check(&self, _: &Step<'_, f64>) -> Result<()> {
        Ok(())
    }

    fn apply(&mut self, mut step: Step<'_, f64>) -> Result<Report> {
        step.iter_mut().for_each(|(info, tensor)| _ = tensor.update(info, |mut param, _| param.fill(9.0)));
        Ok(Report::new(0.0, true))
    }

    fn conclude(&mut self, result: Result<Report>) -> Result<Report> {
        result
    }

    fn replace_learning_rate(&mut self, _: Hyper) {}

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

    fn layout(&self) -> Option<&Arc<Layout>> {
        None
    }

    fn write_state(&self, _: &mut StateWriter<'_>) {}

    fn read_state<'s>(&'s mut self, _: &mut StateReader<'_>) -> Result<Commit<'s>> {
        Ok(Commit::nothing())
    }
}

/// A branch that accepts and then refuses: an error of its own where others have moved, its own error where none has.
#[test]
fn a_branch_that_refuses_too_late() {
    struct Late;

    impl Optimizer<f64> for Late {
        fn check(&self, _: &Step<'_, f64>) -> Result<()> {
            Ok(())
        }

        fn apply(&mut self, _: Step<'_, f64>) -> Result<Report> {
            Err(Error::Step(StepError::NoStep))
        }

        fn conclude(&mut self, result: Result<Report>) -> Result<Report> {
            result
        }

        fn replace_learning_rate(&mut self, _: Hyper) {}

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

        fn layout(&self) -> Option<&Arc<Layout>> {
            None
        }

        fn write_state(&self, _: &mut StateWriter<'_>) {}

        fn read_state<'s>(&'s mut self, _: &mut StateReader<'_>) -> Result<Commit<'s>> {
            Ok(Commit::nothing())
        }
    }
    let grads = (array![1.0], array![1.0]);
    let mut w = (array![1.0], array![1.0]);
    let error = Late.route("1", Sgd::new(1.0)).step(&mut w, &grads).unwrap_err();
    assert_eq!((error, &w), (Error::Step(StepError::NoStep), &grads));
    let error = Sgd::new(1.0).route("1", Late).step(&mut w, &grads).unwrap_err();
    assert_eq!(error, Error::RefusedTooLate { reason: Box::new(Error::Step(StepError::NoStep)) });
}

/// A branch that has nothing to save: what the others have saved is loaded.
#[test]
fn a_branch_that_saves_nothing() {
    type Make = fn() -> gradus::adaptor::Router<f64>;
    let makes: [Make; 4] = [
        || Momentum::new(0.1, 0.9).route("1", Trusting),
        || Trusting.route("1", Momentum::new(0.1, 0.9)),
        || Trusting.route("0", Trusting).route("1", Momentum::new(0.1, 0.9)),
        || Trusting.route("1", Trusting),
    ];
    for make in makes {
        let (mut opt, mut w, grads) = (make(), (array![1.0], array![1.0]), (array![1.0], array![1.0]));
        opt.step(&mut w, &grads).unwrap();
        let state = opt.state_dict();
        let mut resumed = make();
        resumed.load_state_dict(&state).unwrap();
        assert!(resumed.state_dict() == state);
        let mut other = w.clone();
        assert_eq!(resumed.step(&mut other, &grads), opt.step(&mut w, &grads));
        assert_eq!(other, w);
    }
    // What a branch expects and the state has not is an error still.
    let mut opt = Momentum::new(0.1, 0.9).route("1", Trusting);
    opt.step(&mut (array![1.0], array![1.0]), &(array![1.0], array![1.0])).unwrap();
    let error =
        Momentum::new(0.1, 0.9).route("1", Sgd::<f64>::new(1.0)).load_state_dict(&opt.state_dict()).unwrap_err();
    let expected = "route/sgd".to_owned();
    assert_eq!(error, Error::State(StateError::WrongAlgorithm { expected, found: Vec::new() }));
}

/// As many slots as there may be, and none.
#[test]
fn rules_of_every_number_of_slots() {
    gradus::hyper_parameters! {
        /// Slot k counts up by k + 1 a step; the parameter becomes their sum.
        struct Counters<const N: usize> => CountersValues {}
    }

    impl<A: Scalar, const N: usize> Rule<A> for Counters<N> {
        type Coefficients = ();

        fn name(&self) -> &'static str {
            "counters"
        }

        fn slots(&self) -> &'static [&'static str] {
            &["a", "b", "c", "d"][..N]
        }

        fn coefficients(&self, _: &CountersValues, at: &At) -> (f64, ()) {
            (at.learning_rate, ())
        }

        fn sweep(&self, (): (), lanes: Lanes<'_, A>) {
            fn sum<A: Scalar, const N: usize>(param: A, slots: [A; N]) -> (A, [A; N]) {
                let mut count = A::zero();
                let slots = slots.map(|slot| {
                    count += A::one();
                    slot + count
                });
                (param - slots.iter().fold(A::zero(), |sum, slot| sum + *slot), slots)
            }
            match N {
                0 => lanes.each((), |(), param, _, slots: [A; 0]| sum(param, slots)),
                1 => lanes.each((), |(), param, _, slots: [A; 1]| sum(param, slots)),
                2 => lanes.each((), |(), param, _, slots: [A; 2]| sum(param, slots)),
                3 => lanes.each((), |(), param, _, slots: [A; 3]| sum(param, slots)),
                _ => lanes.each((), |(), param, _, slots: [A; 4]| sum(param, slots)),
            }
        }
    }

    fn after_two_steps<const N: usize>() -> f32 {
        let (mut opt, mut w) = (Elementwise::from_rule(Counters::<N>::default(), 1.0), Array1::from_elem(37, 9.0_f32));
        (0..2).for_each(|_| _ = opt.step(&mut w, &Array1::zeros(37)).unwrap());
        assert!(w.iter().all(|x| *x == w[0]), "{w}");
        let names: Vec<&str> =
            ["a", "b", "c", "d", "e"].into_iter().filter(|name| opt.slot("", name).is_some()).collect();
        assert_eq!(names, ["a", "b", "c", "d"][..N]);
        w[0]
    }
    assert_eq!(MAX_SLOTS, 4);
    assert_eq!(after_two_steps::<0>(), 0.0);
    assert_eq!(after_two_steps::<1>(), 2.0);
    assert_eq!(after_two_steps::<2>(), 6.0);
    assert_eq!(after_two_steps::<3>(), 12.0);
    assert_eq!(after_two_steps::<4>(), 20.0);
}

/// An algorithm on whole tensors: every row of a matrix moves by the same length.
struct RowNormalized {
    learning_rate: Hyper,
    steps: u64,
    layout: Option<Arc<Layout>>,
}

impl Optimizer<f64> for RowNormalized {
    fn check(&self, _: &Step<'_, f64>) -> Result<()> {
        self.learning_rate.within("learning_rate", 0.0.., self.steps).map(drop)
    }

    fn apply(&mut self, mut step: Step<'_, f64>) -> Result<Report> {
        let learning_rate = self.learning_rate.within("learning_rate", 0.0.., self.steps)?;
        self.layout = Some(Arc::clone(step.layout()));
        let mut moved = false;
        for (info, tensor) in step.iter_mut() {
            let own = tensor.learning_rate.apply(learning_rate);
            moved |= tensor.update(info, |mut param, grad| {
                for (mut row, grad) in param.rows_mut().into_iter().zip(grad.rows()) {
                    let norm = grad.iter().map(|x| x * x).sum::<f64>().sqrt().max(1e-12);
                    row.scaled_add(-own / norm, &grad);
                }
            });
        }
        self.steps += 1;
        Ok(Report::new(learning_rate, moved))
    }

    fn conclude(&mut self, result: Result<Report>) -> Result<Report> {
        result
    }

    fn replace_learning_rate(&mut self, learning_rate: Hyper) {
        self.learning_rate = learning_rate;
    }

    fn part(&self, _: std::any::TypeId) -> Option<&dyn std::any::Any> {
        None
    }

    fn part_mut(&mut self, _: std::any::TypeId) -> Option<&mut dyn std::any::Any> {
        None
    }

    fn learning_rate(&self) -> f64 {
        self.learning_rate.at(self.steps)
    }

    fn steps(&self) -> u64 {
        self.steps
    }

    fn layout(&self) -> Option<&Arc<Layout>> {
        self.layout.as_ref()
    }

    fn write_state(&self, state: &mut StateWriter<'_>) {
        let mut node = state.node("row_normalized");
        node.value("steps", self.steps);
        self.learning_rate.write_state("learning_rate", &mut node);
    }

    fn read_state<'s>(&'s mut self, state: &mut StateReader<'_>) -> Result<Commit<'s>> {
        let node = state.node("row_normalized")?;
        let steps = node.value("steps", "a count")?;
        let rate = self.learning_rate.read_state("learning_rate", &node)?;
        let layout = node.layout().cloned();
        Ok(rate.and(Commit::new(move || (self.steps, self.layout) = (steps, layout))))
    }
}

#[test]
fn an_optimizer_of_whole_tensors_composes() {
    let own = || RowNormalized { learning_rate: 0.5.into(), steps: 0, layout: None };
    let grads = array![[3.0, 4.0], [0.0, -2.0]];
    let mut wide = Array2::<f64>::zeros((4, 2));
    let mut boxed: Box<dyn Optimizer<f64>> = Box::new(own().clip_global_norm(1.0).accumulate(2).maximize());
    for moved in [false, true, false, true] {
        assert_eq!(boxed.step(&mut wide.slice_mut(s![..;2, ..]), &grads).unwrap().moved, moved);
    }
    let expected = array![[0.6, 0.8], [0.0, 0.0], [0.0, -1.0], [0.0, 0.0]];
    assert!((&wide - &expected).iter().all(|x| x.abs() < 1e-12), "{wide}");
    assert_eq!((boxed.steps(), boxed.learning_rate()), (2, 0.5));

    let mut routed = Sgd::new(1.0).route("1", own());
    let mut w = (array![0.0], array![[0.0, 0.0]]);
    routed.step(&mut w, &(array![1.0], array![[0.0, 5.0]])).unwrap();
    assert_eq!(w, (array![-1.0], array![[0.0, -0.5]]));
}

#[test]
fn what_follows_the_parameters_follows_an_optimizer_of_whole_tensors() {
    let own = || RowNormalized { learning_rate: 0.5.into(), steps: 0, layout: None };
    let grads = array![[0.0, 2.0]];
    let mut opt = own().ema(0.5);
    for mut params in [Array2::<f64>::zeros((1, 2)), Array2::zeros((1, 2).f())] {
        let mut wide = Array2::<f64>::zeros((1, 4));
        opt = own().ema(0.5);
        for _ in 0..2 {
            opt.step(&mut params, &grads).unwrap();
        }
        opt.read(&mut params).unwrap();
        assert_eq!(params, array![[0.0, -0.75]]); // of −0.5 and −1
        opt = own().ema(0.5);
        opt.step(&mut wide.slice_mut(s![.., ..;2]), &grads).unwrap();
        opt.read(&mut params).unwrap();
        assert_eq!(params, array![[0.0, -0.5]]);
    }
    assert_eq!(opt.steps(), 1);
}

/// An adaptor that halves the gradients and tells the norm of each that it passes on.
struct Watch<O, F> {
    inner: O,
    seen: F,
}

impl<A: Scalar, O: Optimizer<A>, F: FnMut(&str, f64) + Send> Optimizer<A> for Watch<O, F> {
    fn check(&self, step: &Step<'_, A>) -> Result<()> {
        let mut preview = step.preview();
        preview.grads_mut().for_each(|(_, grad)| grad.scale_by(0.5));
        self.inner.check(&preview)
    }

    fn apply(&mut self, mut step: Step<'_, A>) -> Result<Report> {
        for (info, tensor) in step.iter_mut() {
            let Some(grad) = &mut tensor.grad else { continue };
            grad.scale_by(0.5);
            let norm = grad.to_array(info.shape()).iter().map(|x| x.as_f64().powi(2)).sum::<f64>().sqrt();
            (self.seen)(info.path(), norm);
        }
        self.inner.apply(step)
    }

    fn conclude(&mut self, result: Result<Report>) -> Result<Report> {
        self.inner.conclude(result)
    }

    fn replace_learning_rate(&mut self, learning_rate: Hyper) {
        self.inner.replace_learning_rate(learning_rate);
    }

    fn part(&self, of: std::any::TypeId) -> Option<&dyn std::any::Any> {
        self.inner.part(of)
    }

    fn part_mut(&mut self, of: std::any::TypeId) -> Option<&mut dyn std::any::Any> {
        self.inner.part_mut(of)
    }

    fn learning_rate(&self) -> f64 {
        self.inner.learning_rate()
    }

    fn steps(&self) -> u64 {
        self.inner.steps()
    }

    fn layout(&self) -> Option<&Arc<Layout>> {
        self.inner.layout()
    }

    fn write_state(&self, state: &mut StateWriter<'_>) {
        self.inner.write_state(state);
    }

    fn read_state<'s>(&'s mut self, state: &mut StateReader<'_>) -> Result<Commit<'s>> {
        self.inner.read_state(state)
    }
}

#[test]
fn an_adaptor_inside_and_outside_of_ours() {
    let mut log = Vec::new();
    let watch =
        Watch { inner: Sgd::new(1.0).clip_value(1.0), seen: |path: &str, norm| log.push((path.to_owned(), norm)) };
    let mut opt = watch.accumulate(2).freeze("0");
    let mut w = (array![0.0], array![0.0, 0.0]);
    for _ in 0..2 {
        opt.step(&mut w, &(array![9.0], array![1.2, -1.6])).unwrap();
    }
    drop(opt);
    assert_eq!(w, (array![0.0], array![-0.6, 0.8]));
    assert_eq!(log, [("1".to_owned(), 1.0)]);
}

/// A way of clipping: every tensor's mean absolute value to at most a limit.
#[derive(Clone)]
struct MeanAbsolute(f64);

impl<A: Element> Transform<A> for MeanAbsolute {
    fn name(&self) -> &'static str {
        "clip_mean_absolute"
    }

    fn hyper_parameters(&self) -> Vec<(&'static str, &Hyper)> {
        vec![]
    }

    fn transform<'s>(&'s self, step: &mut Step<'s, A>) -> Result<Outcome> {
        let mean = |(info, grad): (&gradus::params::TensorInfo, &gradus::Grad<'_, A>)| {
            grad.to_array(info.shape()).iter().map(|x| x.as_f64().abs()).sum::<f64>() / info.elements().max(1) as f64
        };
        let means: Vec<f64> = step.grads().map(mean).collect();
        let outcome = NonFinite::Error.outcome(means.iter().sum(), step)?;
        let larger = step.grads_mut().zip(means).filter(|(_, mean)| *mean > self.0);
        larger.for_each(|((_, grad), mean)| grad.scale_by(self.0 / mean));
        Ok(outcome)
    }
}

#[test]
fn a_way_of_clipping() {
    let mut opt = Sgd::new(1.0).transform(MeanAbsolute(1.0));
    let mut w = (array![0.0, 0.0], array![0.0]);
    let report = opt.step(&mut w, &(array![4.0, 0.0], array![0.5])).unwrap();
    assert_eq!((w, report.grad_norm), ((array![-2.0, 0.0], array![-0.5]), Some(2.5)));
    let error = opt.step(&mut (array![0.0, 0.0], array![0.0]), &(array![f64::NAN, 0.0], array![0.5])).unwrap_err();
    assert_eq!(error.to_string(), "gradient \"0\" is NaN at index [0]");
}

/// A schedule with the library's combinators.
struct Halving {
    start: f64,
    every: u64,
}

impl Schedule for Halving {
    fn at(&self, step: u64) -> f64 {
        self.start / (1_u64 << (step / self.every).min(60)) as f64
    }

    fn check(&self) -> Result<()> {
        Ok(())
    }

    fn memory(&self) -> gradus::schedule::Memory<'_> {
        gradus::schedule::Memory::none()
    }
}

#[test]
fn a_schedule_anywhere_a_number_goes() {
    let schedule = Halving { start: 1.0, every: 2 }.warmup(2).scale(0.5);
    let mut opt =
        Sgd::new(schedule).weight_decay(Halving { start: 0.0, every: 1 }).clip_value(Halving { start: 4.0, every: 3 });
    let mut w = array![0.0];
    let mut path = Vec::new();
    for _ in 0..7 {
        opt.step(&mut w, &array![-8.0]).unwrap();
        path.push(w[0]);
    }
    // Rates 0, ¼, ½, ½, ¼, ¼, ⅛; limits 4, 4, 4, 2, 2, 2, 1.
    assert_eq!(path, [0.0, 1.0, 3.0, 4.0, 4.5, 5.0, 5.125]);
}

/// A tree written by hand, whose two walks do not agree unless `honest`.
struct Handmade {
    weight: Array1<f64>,
    bias: Array1<f64>,
    honest: bool,
    walks: Cell<u32>,
}

impl Handmade {
    fn new(honest: bool) -> Self {
        Self { weight: array![1.0, 2.0], bias: array![3.0], honest, walks: Cell::new(0) }
    }
}

impl Params for Handmade {
    type Elem = f64;

    fn visit<'a>(&'a self, visitor: &mut Visitor<'_, 'a, f64>) {
        self.walks.set(self.walks.get() + 1);
        visitor.field("weight", &self.weight);
        if self.honest || self.walks.get() == 1 {
            visitor.field("bias", &self.bias);
        }
    }
}

impl ParamsMut for Handmade {
    fn visit_mut<'a>(&'a mut self, visitor: &mut VisitorMut<'_, 'a, f64>) {
        if self.honest {
            visitor.field("weight", &mut self.weight);
            visitor.field("bias", &mut self.bias);
        } else {
            visitor.field("bias", &mut self.bias);
        }
    }
}

#[test]
fn a_tree_by_hand() {
    let (mut params, grads) = (Handmade::new(true), Handmade::new(true));
    let mut opt = Adam::new(0.1);
    for _ in 0..3 {
        opt.step(&mut params, &grads).unwrap();
    }
    assert_eq!((opt.tensor_steps("weight"), opt.tensor_steps("bias")), (3, 3));
    assert!((params.bias[0] - 2.7).abs() < 1e-6);
}

/// Walks that contradict one another give errors, never a panic.
#[test]
fn a_tree_that_lies() {
    let mut opt = Sgd::new(0.1);
    let error = opt.step(&mut Handmade::new(false), &Handmade::new(true)).unwrap_err();
    assert_eq!(error, Error::Step(StepError::UnexpectedGradient { path: "weight".into() }));

    let (mut params, grads) = (Handmade::new(true), Handmade::new(false));
    opt.step(&mut params, &grads).unwrap();
    let error = opt.step(&mut params, &grads).unwrap_err();
    assert_eq!(error, Error::Step(StepError::MissingGradient { path: "bias".into() }));

    for norm in
        [gradus::clip::global_norm(&mut Handmade::new(false), 0.5), gradus::clip::value(&mut Handmade::new(false), 0.5)]
    {
        assert!(norm.is_ok() || matches!(norm, Err(Error::Step(StepError::MissingGradient { .. }))), "{norm:?}");
    }
}

/// Each optimizer in the words of the program that made it.
#[test]
fn debug_is_one_line() {
    let shown = |opt: &dyn std::fmt::Debug| format!("{opt:?}");
    let schedule = gradus::schedule::Cosine::new(1e-3, 9_500).warmup(500);
    let adamw: AdamW = AdamW::new(schedule).amsgrad(true).eps(1e-6);
    let text = "AdamW(learning_rate: Cosine(peak: 0.001, steps: 9500).warmup(500), eps: 1e-6, amsgrad: true, weight_decay: 0.01)";
    assert_eq!(shown(&adamw), text);
    assert_eq!(shown(&Adam::<f64>::new(1.0)), "Adam(learning_rate: 1)");
    assert_eq!(shown(&Sgd::<f64>::new(|step: u64| step as f64)), "Sgd(learning_rate: closure)");
    let halving = Halving { start: 1.0, every: 2 };
    assert_eq!(shown(&Muon::<f32>::new(halving)), "Muon(learning_rate: Halving, weight_decay: 0.1)");
    let rmsprop = RmsProp::<f32>::new(0.1).momentum(0.9).state_precision(gradus::rule::StatePrecision::Blockwise8);
    assert_eq!(shown(&rmsprop), "RmsProp(learning_rate: 0.1, momentum: 0.9, state_precision: Blockwise8)");
    assert_eq!(shown(&Signs::optimizer::<f32>(Decay::Decoupled)), "Signs(learning_rate: closure, kind: Decoupled)");
}

/// Settings of a running optimizer: of one of this crate by its own setters, of another through its rule.
#[test]
fn hyper_parameters_change_between_steps() {
    let (mut opt, mut w) = (Momentum::new(0.5, 0.5), array![8.0]);
    opt.step(&mut w, &array![4.0]).unwrap(); // v = 4
    opt.set_learning_rate(0.25);
    opt.set_momentum(0.25);
    opt.set_weight_decay(1.0);
    opt.step(&mut w, &array![1.0]).unwrap(); // v = 1 + 1 + 6
    assert_eq!((w[0], opt.learning_rate(), opt.steps()), (6.0 - 2.0, 0.25, 2));

    let mut opt = Elementwise::from_rule(Signs::default(), 0.5);
    opt.rule_mut().set_beta(1.5);
    let error = opt.step(&mut w, &array![1.0]).unwrap_err();
    assert_eq!(error.to_string(), "beta is 1.5 at step 0; it must be a number in 0 ≤ beta < 1");
}
