//! Steps on each rank alone, rounds of all.

use gradus::Error;
use gradus::distributed::{Alone, Collective, RankGroup, ThreadGroup};
use gradus::error::StepError;
use gradus::prelude::*;
use ndarray::{Array1, array};

use crate::digits::{self, Digits};
use crate::ranks::{Engine, Regression, Tree, assert_same_on_all, bits, difference, matrix};

/// The two round differently: means of parameters here, of gradients there.
const RELATIVE: f64 = 1e-10;

/// Acceptance: with a round after every step, SGD inside and with a rate of 1 outside, it is data parallel.
pub(crate) fn one_step_is_data_parallel(group: &impl Engine) {
    let data = Regression::<f64>::new(8);
    let part = (group.rank(), group.size());
    // In the first step each rank's gradient belongs to what it had before.
    let (mut params, mut expected) = (Regression::start(5), Regression::start(5));
    let mut opt = Sgd::new(1.0).local_steps(1, Sgd::new(1.0)).across(group);
    let mut parallel = Sgd::new(1.0).data_parallel(group);
    for call in 0..200 {
        let (grads, same) = (data.part(&params, call, part), data.part(&expected, call, part));
        opt.step(&mut params, &grads).unwrap();
        parallel.step(&mut expected, &same).unwrap();
        assert_same_on_all(group, &params);
    }
    let difference = difference(&params, &expected);
    assert!(difference < RELATIVE, "{difference}");
    assert_eq!(opt.traffic(), parallel.traffic());
    assert_eq!((opt.ranks().rank(), parallel.ranks().rank()), (part.0, part.0));
}

#[test]
fn one_step_is_data_parallel_on_2_and_4_threads() {
    [2, 4].into_iter().for_each(|size| drop(ThreadGroup::run(size, |group| one_step_is_data_parallel(&group))));
}

/// The outer optimizer of DiLoCo, at a rate for few and short rounds.
fn outer() -> Nesterov<f32> {
    Nesterov::new(0.7, 0.6)
}

/// The loss on digits with rounds, within so many times that with one every step.
fn nearly_as_good(group: &impl Engine, (steps, every): (usize, u64), outer: Nesterov<f32>, within: f64) {
    let digits = Digits::load();
    let place = (group.rank(), group.size());
    let train = |opt: &mut dyn Optimizer<f32>| {
        let model = digits::train(opt, &digits, place, steps).unwrap();
        assert_same_on_all(group, &model);
        digits::loss(&model, &digits)
    };
    let inner = || AdamW::new(3e-3);
    let mut each = inner().data_parallel(group);
    let mut seldom = inner().local_steps(every, outer).across(group);
    let (expected, found) = (train(&mut each), train(&mut seldom));
    assert!(found < within * expected, "{found} where every step gives {expected}");
    assert_eq!(seldom.traffic().total * every, each.traffic().total);
    assert_eq!(seldom.outer().steps(), steps as u64 / every);
}

/// Acceptance: with a round every 50 steps.
pub(crate) fn fifty_steps_are_nearly_as_good(group: &impl Engine) {
    nearly_as_good(group, (400, 50), outer(), 1.05);
}

/// DiLoCo's own 0.7 and 0.9 make longer steps than the optimizer inside alone: half the loss in as many steps.
#[test]
fn the_outer_optimizer_of_diloco_is_better_on_4_threads() {
    ThreadGroup::run(4, |group| nearly_as_good(&group, (400, 50), Nesterov::new(0.7, 0.9), 0.75));
}

#[test]
fn fifty_steps_are_nearly_as_good_on_4_threads() {
    ThreadGroup::run(4, |group| fifty_steps_are_nearly_as_good(&group));
}

/// Alone and with SGD outside, the anchor goes a part of the way, as Lookahead's slow weights do.
#[test]
fn alone_it_is_lookahead() {
    let data = Regression::<f64>::new(8);
    let (mut params, mut expected) = (Regression::start(5), Regression::start(5));
    let mut opt = AdamW::new(0.1).local_steps(4, Sgd::new(0.25)).ema(0.5);
    let mut lookahead = AdamW::new(0.1).lookahead(4, 0.25).ema(0.5);
    for call in 0..21 {
        let (grads, same) = (data.grads(&params, call), data.grads(&expected, call));
        assert_eq!(opt.step(&mut params, &grads).unwrap(), lookahead.step(&mut expected, &same).unwrap());
        assert!(difference(&params, &expected) < 1e-13, "call {call}");
    }
    let [mut average, mut slow] = [(); 2].map(|()| params.clone());
    opt.read(&mut average).unwrap();
    lookahead.read(&mut slow).unwrap();
    assert!(difference(&average, &slow) < 1e-13);
    assert!(difference(&average, &params) > 1e-3);
}

/// Between rounds ranks are on their own, whichever tensors have gradients; in one they meet, but for what is frozen.
#[test]
fn ranks_part_and_meet() {
    ThreadGroup::run(3, |group| {
        let mut params = Regression::<f64>::start(group.rank() as u64);
        let mut opt = Sgd::new(0.5).local_steps(3, Nesterov::new(0.7, 0.9)).across(&group).freeze("1");
        let own = Regression::<f64>::start(group.rank() as u64);
        let mut all_bits = Vec::new();
        for call in 1..=6 {
            let weight = (group.rank() != 1).then(|| own.0.clone());
            let report = opt.step(&mut params, &(&weight, &own.1)).unwrap();
            assert_eq!(params.1, Regression::<f64>::start(0).1, "frozen as rank 0 had it");
            assert!(report.moved || group.rank() == 1);
            let mut gathered = vec![0.0; 45];
            group.all_gather(params.0.as_slice().unwrap(), &mut gathered).unwrap();
            assert_eq!(gathered[..15] == gathered[15..30], call % 3 == 0, "call {call}");
            all_bits.push(bits(&params));
        }
        assert_eq!(opt.inner().traffic().last_step, 15 * 8);
        assert_eq!(opt.inner().traffic().total, 2 * 15 * 8);
        all_bits.dedup();
        // Rank 1 stays between rounds.
        assert_eq!(all_bits.len(), if group.rank() == 1 { 3 } else { 6 });
    });
}

/// Micro-batches outside: one step, and so one step nearer to the round.
#[test]
fn accumulating_outside() {
    ThreadGroup::run(2, |group| {
        let mut opt = Sgd::new(1.0).local_steps(2, Sgd::new(1.0)).across(&group).accumulate(3);
        let mut w = Array1::<f64>::zeros(2);
        for call in 1..=12 {
            opt.step(&mut w, &array![1.0, group.rank() as f64]).unwrap();
            assert_eq!(opt.inner().traffic().total, call / 6 * 16);
        }
        assert_eq!(w, array![-4.0, -2.0]);
    });
}

/// From every point of a window, on each rank from its own file.
#[test]
fn a_resumed_run_is_the_uninterrupted_one() {
    ThreadGroup::run(2, |group| {
        let data = Regression::<f64>::new(8);
        let new = || AdamW::new(0.1).local_steps(3, Nesterov::new(0.7, 0.9)).across(&group);
        let part = (group.rank(), 2);
        let run = |opt: &mut dyn Optimizer<f64>, params: &mut Tree<f64>, calls: std::ops::Range<usize>| {
            for call in calls {
                let grads = data.part(params, call, part);
                opt.step(params, &grads).unwrap();
            }
        };
        for point in 0..7 {
            let (mut opt, mut params) = (new(), Regression::start(5));
            run(&mut opt, &mut params, 0..point);
            let (mut resumed, mut resumed_params) = (new(), params.clone());
            resumed.load_state_dict(&opt.state_dict()).unwrap();
            run(&mut opt, &mut params, point..9);
            run(&mut resumed, &mut resumed_params, point..9);
            assert_eq!(bits(&resumed_params), bits(&params));
            assert!(resumed.state_dict() == opt.state_dict());
        }
    });
    let mut state = {
        let mut opt = Sgd::new(0.1).local_steps(3, Sgd::new(1.0));
        (0..2).for_each(|_| _ = opt.step(&mut array![1.0], &array![1.0]).unwrap());
        opt.state_dict()
    };
    assert!(state.keys().any(|key| key == "local_steps/sgd/steps"));
    let mut shorter = Sgd::<f64>::new(0.1).local_steps(2, Sgd::new(1.0));
    let error = shorter.load_state_dict(&state).unwrap_err();
    assert_eq!(
        error.to_string(),
        "entry \"local_steps/taken\" is \"2\"; it must be less than the steps between rounds"
    );
    state.insert_text("local_steps/taken", 1);
    shorter.load_state_dict(&state).unwrap();
}

/// What was trained alone begins anew with the others; anchors that are not those of the others are found in the round.
#[test]
fn begun_before_the_others_came() {
    ThreadGroup::run(2, |group| {
        let new = || Sgd::new(1.0).local_steps(2, Sgd::new(1.0));
        let (mut alone, mut w) = (new(), array![group.rank() as f64]);
        alone.step(&mut w, &array![1.0]).unwrap();
        let state = alone.state_dict();
        let mut opt = alone.across(&group);
        let mut met = w.clone();
        opt.step(&mut met, &array![1.0 + group.rank() as f64]).unwrap();
        assert_eq!(met, array![-2.0 - group.rank() as f64]);
        opt.step(&mut met, &array![1.0 + group.rank() as f64]).unwrap();
        assert_eq!(met, array![-4.0]);

        let mut resumed = new().across(&group);
        resumed.load_state_dict(&state).unwrap();
        let error = resumed.step(&mut w, &array![1.0]).unwrap_err().to_string();
        assert!(error.starts_with("rank 1 has (root) with an anchor of digest"), "{error}");
        assert!(resumed.state_dict() == state);
    });
}

/// Whatever the inner and the outer optimizer refuse is refused before a round; what only shows in it is taken back.
#[test]
fn what_is_refused_changes_nothing() {
    let error = Sgd::new(0.1).local_steps(0, Sgd::new(1.0)).step(&mut array![1.0], &array![1.0]).unwrap_err();
    assert_eq!(error.to_string(), "every is 0; it must be at least 1");

    // The outer optimizer's rate is wrong in its second step, its clip refuses what is too large for a norm.
    let rate = |step: u64| if step == 1 { f64::NAN } else { 1.0 };
    let mut opt = AdamW::new(0.5).local_steps(2, Sgd::new(rate).clip_global_norm(1.0));
    let mut w = array![1.0, 2.0];
    (0..3).for_each(|_| _ = opt.step(&mut w, &array![1.0, -1.0]).unwrap());
    let before = (w.clone(), opt.state_dict());
    let error = opt.step(&mut w, &array![1.0, -1.0]).unwrap_err();
    assert!(matches!(error, Error::Step(StepError::HyperParameter { name: "learning_rate", .. })), "{error}");
    assert!((w, opt.state_dict()) == before);

    for bad in [f64::NAN, f64::INFINITY] {
        let mut opt = Sgd::new(1.0).local_steps(2, Sgd::new(1.0));
        let mut w = array![1.0, 2.0];
        opt.step(&mut w, &array![1.0, -1.0]).unwrap();
        let before = (w.clone(), opt.state_dict());
        let error = opt.step(&mut w, &array![1.0, bad]).unwrap_err();
        assert!(error.to_string().starts_with("parameter (root) is "), "{error}");
        assert!(matches!(error, Error::Step(StepError::NonFiniteParameter { index, .. }) if index == [1]));
        assert!((&w, opt.state_dict()) == (&before.0, before.1));
        assert!(opt.step(&mut w, &array![1.0, -1.0]).unwrap().moved);
    }
}

/// What a step between rounds allocates is the same at 16 times the size.
#[test]
fn a_step_allocates_nothing_that_grows_with_the_elements() {
    let allocated = |rows: usize| {
        let mut opt = AdamW::new(0.1).local_steps(100, Sgd::new(1.0)).across(Alone);
        let (mut params, grads) = (matrix::<f32>((rows, 64), 0), matrix((rows, 64), 1));
        opt.step(&mut params, &grads).unwrap();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        pool.install(|| {
            let info = allocation_counter::measure(|| _ = opt.step(&mut params, &grads).unwrap());
            (info.count_total, info.bytes_total)
        })
    };
    assert!(allocated(64).0 > 0, "the counter counts");
    assert_eq!(allocated(64), allocated(1024));
}

/// As a boxed optimizer, with a boxed one inside and outside.
#[test]
fn works_boxed() {
    let boxed = || Box::new(Adam::new(0.1)) as Box<dyn Optimizer<f64>>;
    let mut opt: Box<dyn Optimizer<f64>> = Box::new(boxed().local_steps(2, boxed()).across(Alone));
    let mut plain = Adam::new(0.1).local_steps(2, Adam::new(0.1));
    let (mut params, mut expected) = (Regression::start(5), Regression::start(5));
    for call in 0..4 {
        let grads = Regression::new(8).grads(&params, call);
        opt.step(&mut params, &grads).unwrap();
        plain.step(&mut expected, &grads).unwrap();
    }
    assert_eq!(bits(&params), bits(&expected));
}
