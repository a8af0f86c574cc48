//! A run that stops and goes on is the run that never stopped.

use std::sync::{Arc, Mutex};
use std::thread;

use gradus::error::StateError;
use gradus::prelude::*;
use gradus::schedule::{Memory, Plateau, Remember};
use gradus::{Commit, Error, Pattern, StateDict};
use ndarray::array;

use crate::chains::{Build, CHAINS, Tree, grads, number, tree};

const STEPS: u64 = 24;
const POINTS: u64 = 20;

/// Equality that NaN does not spoil and that tells 0 from −0.
fn bits(tree: &Tree) -> Vec<Vec<u32>> {
    tree.values().map(|tensor| tensor.iter().map(|x| x.to_bits()).collect()).collect()
}

#[test]
fn at_twenty_points_of_every_chain() {
    thread::scope(|scope| CHAINS.iter().for_each(|(name, build)| _ = scope.spawn(|| at_twenty_points(name, *build))));
}

fn at_twenty_points(name: &str, build: Build) {
    let (mut opt, mut params) = (build(), tree(1));
    let mut seen: Vec<(StateDict, Tree)> = Vec::new();
    for step in 0..STEPS {
        seen.push((opt.state_dict(), params.clone()));
        opt.step(&mut params, &grads(step)).unwrap();
    }
    for point in 0..POINTS {
        let at = (number(5, point as usize).abs() * STEPS as f32) as usize;
        let (state, mut resumed_params) = seen[at].clone();
        let mut resumed = build();
        resumed.load_state_dict(&state).unwrap();
        assert!(resumed.state_dict() == state, "{name}: what was loaded at {at} is what was saved");
        assert_eq!(resumed.steps(), { state_steps(&state) }, "{name}");
        (at as u64..STEPS).for_each(|step| _ = resumed.step(&mut resumed_params, &grads(step)).unwrap());
        assert!(bits(&resumed_params) == bits(&params), "{name}, interrupted at {at}");
        assert!(resumed.state_dict() == opt.state_dict(), "{name}, interrupted at {at}");
    }
}

/// The count of the optimizer that the chain speaks of: the first that is named.
fn state_steps(state: &StateDict) -> u64 {
    let key = state.keys().find(|key| key.ends_with("/steps") && !key.starts_with("route")).unwrap();
    state.text(key).unwrap().parse().unwrap()
}

#[test]
fn into_an_optimizer_that_is_elsewhere() {
    for (name, build) in CHAINS {
        let (mut opt, mut params, mut other, mut other_params) = (build(), tree(1), build(), tree(2));
        let (start, start_params) = (opt.state_dict(), params.clone());
        (0..5).for_each(|step| _ = opt.step(&mut params, &grads(step)).unwrap());
        (0..8).for_each(|step| _ = other.step(&mut other_params, &grads(step + 30)).unwrap());
        let (state, mut expected) = (opt.state_dict(), params.clone());
        other.load_state_dict(&state).unwrap();
        opt.step(&mut expected, &grads(5)).unwrap();
        other.step(&mut params, &grads(5)).unwrap();
        assert!(bits(&params) == bits(&expected) && other.state_dict() == opt.state_dict(), "{name}");
        // And back to the beginning.
        opt.load_state_dict(&start).unwrap();
        assert!(opt.state_dict() == start, "{name}");
        let (mut fresh, mut again, mut first) = (build(), start_params.clone(), start_params);
        opt.step(&mut again, &grads(0)).unwrap();
        fresh.step(&mut first, &grads(0)).unwrap();
        assert!(bits(&again) == bits(&first), "{name}");
    }
}

#[test]
fn what_remembers_nothing_can_be_added_and_left_out() {
    let (mut opt, mut params) = (AdamW::new(0.1).clip_global_norm(1.0).check_finite(), tree(1));
    opt.step(&mut params, &grads(7)).unwrap();
    let state = opt.state_dict();
    let mut other = AdamW::<f32>::new(0.1).maximize().unscale(2.0).group("**.bias", Group::no_decay());
    other.load_state_dict(&state).unwrap();
    assert!(other.state_dict() == state);
}

#[test]
fn a_plateau_goes_on_where_it_was() {
    let plateau = || Plateau::new(0.1).factor(0.5).patience(0);
    let (first, second) = (plateau(), plateau());
    let opt: Sgd<f32> = Sgd::new(first.clone().warmup(0));
    (0..3).for_each(|_| _ = first.observe(1.0));
    let mut resumed: Sgd<f32> = Sgd::new(second.clone().warmup(0));
    resumed.load_state_dict(&opt.state_dict()).unwrap();
    assert_eq!(second.state(), first.state());
    assert_eq!(resumed.learning_rate(), 0.025);
}

/// Also in what remembers nothing else: there it has a node of its own.
#[test]
fn a_plateau_goes_on_wherever_it_is_in_a_chain() {
    let plateau = || Plateau::new(0.5).factor(0.5).patience(0);
    let fresh = || [(); 10].map(|()| plateau());
    let build = |p: &[Plateau; 10]| {
        let [a, b, c, d, e, f, g, h, i, j] = p.clone();
        let group = Group::new().learning_rate(e).scale_learning_rate(f).weight_decay(g).scale_weight_decay(h);
        let inner = Sgd::<f32>::new(0.1).clip_global_norm(a).clip_global_norm(1.0).clip_global_norm(b).clip_value(c);
        inner.clip_adaptive(d).group("*.bias", group).layerwise_decay(i, ["a.**", "b.**"]).unscale(j).ema(0.5)
    };
    let (seen, other) = (fresh(), fresh());
    for (times, plateau) in (1..).zip(&seen) {
        (0..times).for_each(|_| _ = plateau.observe(1.0));
    }
    let saved = build(&seen).state_dict();
    let mut resumed = build(&other);
    resumed.load_state_dict(&saved).unwrap();
    assert_eq!(other.each_ref().map(Plateau::state), seen.each_ref().map(Plateau::state));
    assert!(resumed.state_dict() == saved);
    // A clip that has nothing to remember can be left out, one that has cannot.
    let numbers = Sgd::<f32>::new(0.1).clip_global_norm(1.0).clip_global_norm(1.0);
    Sgd::<f32>::new(0.1).load_state_dict(&numbers.state_dict()).unwrap();
    let error = Sgd::<f32>::new(0.1).clip_global_norm(plateau()).load_state_dict(&numbers.state_dict()).unwrap_err();
    assert!(matches!(error, Error::State(StateError::MissingEntry { .. })), "{error}");
    let error = numbers.clone().load_state_dict(&numbers.clip_global_norm(plateau()).state_dict()).unwrap_err();
    assert!(matches!(error, Error::State(StateError::UnexpectedEntry { .. })), "{error}");
}

#[test]
fn freezing_that_was_changed_on_the_way_is_remembered() {
    let build = || Sgd::new(1.0).freeze("0");
    let (mut opt, mut params, grads) = (build(), (array![1.0], array![1.0]), (array![0.5], array![0.5]));
    opt.step(&mut params, &grads).unwrap();
    opt.unfreeze(Pattern::from("0")).unwrap();
    opt.refreeze("1").unwrap();
    let mut resumed = build();
    resumed.load_state_dict(&opt.state_dict()).unwrap();
    resumed.step(&mut params, &grads).unwrap();
    assert_eq!(params, (array![0.5], array![0.5]));
}

/// The state of a schedule belongs to its hyper-parameter.
#[test]
fn the_state_of_a_schedule_is_that_of_one_hyper_parameter() {
    let reduced = Plateau::new(0.8).factor(0.5).patience(0);
    (0..2).for_each(|_| _ = reduced.observe(1.0));
    let state = Optimizer::<f64>::state_dict(&Momentum::new(reduced, 0.5));
    assert_eq!(state.keys().collect::<Vec<_>>(), ["momentum/learning_rate/plateau", "momentum/steps"]);
    let other = Plateau::new(0.9);
    let error = Momentum::<f64>::new(0.8, other.clone()).load_state_dict(&state).unwrap_err();
    assert!(
        matches!(&error, Error::State(StateError::MissingEntry { key, .. }) if key == "momentum/momentum/plateau"),
        "{error}"
    );
    let error = Momentum::<f64>::new(0.8, 0.5).load_state_dict(&state).unwrap_err();
    let key = "momentum/learning_rate/plateau".into();
    assert_eq!(error, Error::State(StateError::UnexpectedEntry { key, into: "optimizer" }));
    assert_eq!(other.at(0), 0.9);
}

/// A schedule of the user's that remembers the best metric, and is no `Plateau`.
#[derive(Clone)]
struct Best(Arc<Mutex<f64>>);

impl Schedule for Best {
    fn at(&self, _: u64) -> f64 {
        *self.0.lock().unwrap()
    }

    fn check(&self) -> gradus::Result<()> {
        Ok(())
    }

    fn memory(&self) -> Memory<'_> {
        Memory::of(self)
    }
}

impl Remember for Best {
    fn key(&self) -> &'static str {
        "best"
    }

    fn save(&self) -> String {
        self.at(0).to_string()
    }

    fn load(&self, saved: &str) -> Option<Commit<'static>> {
        let (best, own) = (saved.parse().ok()?, Arc::clone(&self.0));
        Some(Commit::new(move || *own.lock().unwrap() = best))
    }
}

#[test]
fn any_schedule_may_have_state() {
    let best = |value| Best(Arc::new(Mutex::new(value)));
    // Two of one kind in one hyper-parameter, and one in an optional one.
    let opt = |[a, b, c, d]: &[Best; 4]| {
        RmsProp::<f64>::new(a.clone().warmup(2).times(b.clone())).alpha(c.clone()).momentum(d.clone().scale(0.5))
    };
    let (known, fresh) = ([0.1, 0.2, 0.3, 0.4].map(best), [0.0; 4].map(best));
    let state = opt(&known).state_dict();
    opt(&fresh).load_state_dict(&state).unwrap();
    assert_eq!(fresh.map(|best| best.at(0)), [0.1, 0.2, 0.3, 0.4]);
    assert!(state.keys().any(|key| key == "rmsprop/learning_rate/best#2"));
}
