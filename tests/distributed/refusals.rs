//! What one rank cannot do no rank does, and nothing has changed.

use std::sync::Arc;
use std::time::Duration;

use gradus::distributed::compress::TopK;
use gradus::distributed::{RankGroup, ThreadGroup};
use gradus::error::{RankError, StepError};
use gradus::prelude::*;
use gradus::{Error, Result};
use ndarray::{Array1, Array2};

use crate::ranks::{Engine, Regression, Tree, assert_same_on_all, bits};

type Boxed<'g> = Box<dyn Optimizer<f64> + 'g>;

/// Acceptance: NaN on one rank, under each policy; training goes on with the next batch.
pub(crate) fn not_finite_on_one(group: &impl Engine) {
    const BAD: usize = 1;
    let data = Regression::<f64>::new(8);
    let part = (group.rank(), group.size());
    for policy in [NonFinite::Error, NonFinite::Skip, NonFinite::Allow] {
        for outside in [1, 2] {
            // What is inside may refuse the mean, but not what only one rank has.
            let inside = if policy == NonFinite::Allow { NonFinite::Allow } else { NonFinite::Error };
            let inner = AdamW::new(0.1).clip_global_norm(1e9).non_finite(inside);
            let mut opt = inner.data_parallel(group).non_finite(policy).accumulate(outside);
            let mut params = Regression::<f64>::start(5);
            for call in 0..4 {
                let grads = data.part(&params, call, part);
                opt.step(&mut params, &grads).unwrap();
            }
            let mut spoiled = data.part(&params, 4, part);
            if group.rank() == BAD {
                spoiled.0[[2, 1]] = f64::NAN;
            }
            for _ in 1..outside {
                assert!(!opt.step(&mut params, &spoiled).unwrap().moved, "only gathered");
            }
            let before = (bits(&params), opt.inner().state_dict());
            let result = opt.step(&mut params, &spoiled);
            let unchanged = (bits(&params), opt.inner().state_dict()) == before;
            match policy {
                NonFinite::Error => {
                    let reason = "gradient \"0\" is NaN at index [2, 1]".to_owned();
                    let own = Error::Step(StepError::NonFiniteGradient {
                        path: "0".into(),
                        index: vec![2, 1],
                        value: f64::NAN,
                    });
                    match (group.rank(), result.unwrap_err()) {
                        (BAD, error) => assert_eq!(error.to_string(), own.to_string()),
                        (_, error) => assert_eq!(error, Error::Ranks(RankError::RankRefused { rank: BAD, reason })),
                    }
                    assert!(unchanged);
                    opt.discard();
                }
                NonFinite::Skip => assert!(!result.unwrap().moved && unchanged),
                NonFinite::Allow => {
                    assert!(result.unwrap().moved);
                    assert!(params.0[[2, 1]].is_nan() && params.0[[2, 2]].is_finite());
                    assert_same_on_all(group, &params);
                    continue;
                }
            }
            for call in 5..9 {
                let grads = data.part(&params, call, part);
                opt.step(&mut params, &grads).unwrap();
            }
            assert_same_on_all(group, &params);
            assert_ne!(bits(&params), before.0);
        }
    }
}

#[test]
fn not_finite_on_one_of_3_threads() {
    ThreadGroup::run(3, |group| not_finite_on_one(&group));
}

/// What the optimizer inside refuses before a round or the first step is refused by all, with an `accumulate` around it that asks first.
#[test]
fn not_finite_on_one_before_a_round() {
    let run = |steps: u64| {
        move |group: ThreadGroup| {
            let mut opt = Sgd::new(0.1).check_finite().local_steps(2, Sgd::new(1.0)).across(&group).accumulate(1);
            let (mut params, good) = (Array1::<f64>::ones(2), Array1::ones(2));
            (0..steps).for_each(|_| _ = opt.step(&mut params, &good).unwrap());
            let before = (params.clone(), opt.state_dict());
            let bad = Array1::from_elem(2, if group.rank() == 0 { f64::NAN } else { 1.0 });
            let error = opt.step(&mut params, &bad).unwrap_err();
            let reason = "gradient (root) is NaN at index [0]".to_owned();
            match group.rank() {
                0 => assert_eq!(error.to_string(), reason),
                _ => assert_eq!(error, Error::Ranks(RankError::RankRefused { rank: 0, reason })),
            }
            assert!((params.clone(), opt.state_dict()) == before);
            assert!(opt.step(&mut params, &good).unwrap().moved);
        }
    };
    (0..2).for_each(|steps| drop(ThreadGroup::run(2, run(steps))));
}

/// Two tensors under one name.
struct Twins([Array1<f64>; 2]);

impl Params for Twins {
    type Elem = f64;

    fn visit<'a>(&'a self, visitor: &mut gradus::params::Visitor<'_, 'a, f64>) {
        self.0.iter().for_each(|twin| visitor.field("twin", twin));
    }
}

impl ParamsMut for Twins {
    fn visit_mut<'a>(&'a mut self, visitor: &mut gradus::params::VisitorMut<'_, 'a, f64>) {
        self.0.iter_mut().for_each(|twin| visitor.field("twin", twin));
    }
}

/// A tree that does not fit on one rank: it is told why, and the others that it is so.
#[test]
fn trees_that_do_not_pair_on_one_rank() {
    ThreadGroup::run(3, |group| {
        let is_odd = group.rank() == 1;
        let refused = |result: Result<()>| match (is_odd, result.unwrap_err()) {
            (true, error) => error,
            (false, error) => {
                assert!(matches!(error, Error::Ranks(RankError::RankRefused { rank: 1, .. })), "{error}");
                error
            }
        };
        let all: [Boxed<'_>; 4] = [
            Box::new(Sgd::new(0.1).data_parallel(&group)),
            Box::new(Sgd::new(0.1).local_steps(1, Sgd::new(1.0)).across(&group)),
            Box::new(Sgd::new(0.1).local_steps(3, Sgd::new(1.0)).across(&group)),
            Box::new(Sgd::new(0.1).sharded(&group)),
        ];
        for mut opt in all {
            let (mut params, good) = (Array1::<f64>::ones(2), Array1::ones(2));
            let bad = Array1::ones(if is_odd { 3 } else { 2 });
            let error = refused(opt.step(&mut params, &bad).map(drop));
            assert!(!is_odd || matches!(error, Error::Step(StepError::ShapeMismatch { .. })), "{error}");
            assert_eq!((&params, opt.steps()), (&good, 0));
            assert!(opt.step(&mut params, &good).unwrap().moved);
        }
        let (mut params, mut twins) = (Array1::ones(2), Twins([Array1::ones(2), Array1::ones(2)]));
        let tree: &mut dyn ParamsMut<Elem = f64> = if is_odd { &mut twins } else { &mut params };
        let error = refused(Sgd::new(0.1).data_parallel(&group).broadcast(tree));
        assert!(!is_odd || matches!(error, Error::Step(StepError::DuplicatePath { .. })), "{error}");
    });
}

/// The first step is refused by the optimizer inside, after rank 0's parameters have come: they have not stayed.
#[test]
fn a_first_step_that_fails_inside() {
    ThreadGroup::run(2, |group| {
        for every in [1, 3] {
            let inner = || Sgd::new(0.1).clip_global_norm(1.0);
            let mut parallel = inner().data_parallel(&group).non_finite(NonFinite::Allow);
            let mut local = inner().local_steps(every, Sgd::new(1.0)).across(&group);
            let mut both: [&mut dyn Optimizer<f64>; 2] = [&mut parallel, &mut local];
            for opt in &mut both {
                let start = Array1::from_elem(2, group.rank() as f64);
                let (mut params, state) = (start.clone(), opt.state_dict());
                opt.step(&mut params, &Array1::from_elem(2, f64::INFINITY)).unwrap_err();
                assert_eq!((&params, opt.layout()), (&start, None));
                assert!(opt.state_dict() == state);
                opt.step(&mut params, &Array1::zeros(2)).unwrap();
                assert_eq!(params, Array1::<f64>::zeros(2));
            }
        }
    });
}

/// The sum of finite gradients is too large for a number: all refuse, or skip.
#[test]
fn a_sum_that_overflows() {
    ThreadGroup::run(2, |group| {
        let mut w = Array1::<f32>::zeros(2);
        let grads = Array1::from_elem(2, f32::MAX);
        let mut opt = Sgd::new(0.1).data_parallel(&group);
        let error = opt.step(&mut w, &grads).unwrap_err();
        assert_eq!(error.to_string(), "gradient (root) is inf at index [0]");
        let mut opt = opt.non_finite(NonFinite::Skip);
        assert!(!opt.step(&mut w, &grads).unwrap().moved);
        assert_eq!((w, opt.steps()), (Array1::zeros(2), 0));
    });
}

/// NaN parameters on one rank are found in the round: nobody's step holds.
#[test]
fn parameters_that_are_not_finite_on_one() {
    ThreadGroup::run(2, |group| {
        let mut opt = AdamW::new(0.1).local_steps(2, Sgd::new(1.0)).across(&group);
        let mut params = Regression::<f64>::start(5);
        let grads = params.clone();
        opt.step(&mut params, &grads).unwrap();
        let before = (bits(&params), opt.state_dict());
        let mut spoiled = grads.clone();
        spoiled.1[2] = if group.rank() == 0 { f64::INFINITY } else { 1.0 };
        let error = opt.step(&mut params, &spoiled).unwrap_err();
        let reason = "parameter \"1\" is NaN at index [2]";
        match group.rank() {
            0 => assert_eq!(error.to_string(), reason),
            _ => assert_eq!(error, Error::Ranks(RankError::RankRefused { rank: 0, reason: reason.into() })),
        }
        assert!((bits(&params), opt.state_dict()) == before);
        assert!(opt.step(&mut params, &grads).unwrap().moved);
        assert_same_on_all(&group, &params);
    });
}

/// Acceptance: other shapes on one rank, with a step or a broadcast; and ranks that do different things.
#[test]
fn ranks_that_disagree() {
    let error = |what: fn(&ThreadGroup) -> Result<()>| {
        let mut ends = ThreadGroup::run(3, |group| what(&group).unwrap_err().to_string());
        ends.dedup();
        assert_eq!(ends.len(), 1, "{ends:?}");
        ends.remove(0)
    };
    fn shaped(group: &ThreadGroup) -> Array2<f32> {
        Array2::ones((2, if group.rank() == 2 { 4 } else { 3 }))
    }
    let shapes = "rank 2 has (root) of shape [2, 4] in f32 with a gradient where rank 0 has (root) of shape [2, 3] in f32 \
                  with a gradient";
    let step = error(|group| {
        let mut params = shaped(group);
        let result = Sgd::new(0.1).data_parallel(group).step(&mut params, &shaped(group)).map(drop);
        assert_eq!(params, shaped(group));
        result
    });
    assert_eq!(step, shapes);
    let broadcast = error(|group| Sgd::new(0.1).data_parallel(group).broadcast(&mut shaped(group)));
    assert!(broadcast.starts_with("rank 2 has (root) of shape [2, 4]"), "{broadcast}");
    let local = error(|group| {
        Sgd::new(0.1).local_steps(3, Sgd::new(1.0)).across(group).step(&mut shaped(group), &shaped(group)).map(drop)
    });
    assert!(local.starts_with("rank 2 has (root) of shape [2, 4]"), "{local}");
    let number = error(|group| {
        let mut opt = Sgd::new(0.1).local_steps(3 + group.rank() as u64 / 2, Sgd::new(1.0)).across(group);
        opt.step(&mut Array1::<f32>::ones(1), &Array1::ones(1)).map(drop)
    });
    assert_eq!(
        number,
        "rank 2 has step 1 of 4 to round 0, the first with this group where rank 0 has step 1 of 3 to round 0, the first \
         with this group"
    );
    let resumed = error(|group| {
        let mut opt = Sgd::<f32>::new(0.1);
        let (mut params, grads) = (Array1::ones(1), Array1::ones(1));
        if group.rank() == 2 {
            opt.step(&mut params, &grads)?;
        }
        opt.data_parallel(group).step(&mut params, &grads).map(drop)
    });
    assert!(resumed.starts_with("rank 2 has step number 1, the first with this group where rank 0 has step number 0"));
    let frozen = error(|group| {
        let opt = Sgd::new(0.1).data_parallel(group);
        let mut opt: Boxed<'_> = if group.rank() == 2 { Box::new(opt.freeze("1")) } else { Box::new(opt) };
        let grads = (Array1::<f64>::ones(2), None::<Array1<f64>>);
        opt.step(&mut (Array1::ones(2), Array1::ones(3)), &grads).map(drop)
    });
    assert_eq!(
        frozen,
        "rank 2 has \"1\" of shape [3] in f64 frozen where rank 0 has \"1\" of shape [3] in f64 without gradient"
    );
    let rate = error(|group| {
        let mut opt = Sgd::<f32>::new(0.1 * group.rank().max(1) as f64).data_parallel(group);
        opt.step(&mut Array1::ones(1), &Array1::ones(1)).map(drop)
    });
    assert_eq!(rate, "rank 2 has the learning rate 0.2 where rank 0 has the learning rate 0.1");
    let outer_rate = error(|group| {
        let outer = Sgd::new(0.1 * group.rank().max(1) as f64);
        let mut opt = Sgd::<f32>::new(0.1).local_steps(2, outer).across(group);
        opt.step(&mut Array1::ones(1), &Array1::ones(1)).map(drop)
    });
    assert!(outer_rate.starts_with("rank 2 has the learning rate 0.1, outside 0.2 where"), "{outer_rate}");
    let group_rate = error(|group| {
        let change = Group::new().scale_learning_rate(0.5 * group.rank().max(1) as f64);
        let mut opt = Sgd::<f32>::new(0.1).data_parallel(group).group("", change);
        opt.step(&mut Array1::ones(1), &Array1::ones(1)).map(drop)
    });
    assert!(group_rate.starts_with("rank 2 has (root) of shape [1] in f32 with a gradient where"), "{group_rate}");
    assert!(group_rate.ends_with("with a gradient, learning rate · 0.5"), "{group_rate}");
    let group_value = error(|group| {
        let change = Group::new().set("beta1", 0.25 * group.rank().max(1) as f64);
        let mut opt = Adam::<f32>::new(0.1).data_parallel(group).group("", change);
        opt.step(&mut Array1::ones(1), &Array1::ones(1)).map(drop)
    });
    assert!(group_value.ends_with("with a gradient, beta1 0.25"), "{group_value}");
    let policy = error(|group| {
        let policy = if group.rank() == 2 { NonFinite::Skip } else { NonFinite::Error };
        let mut opt = Sgd::<f32>::new(0.1).data_parallel(group).non_finite(policy);
        opt.step(&mut Array1::ones(1), &Array1::ones(1)).map(drop)
    });
    assert!(policy.contains("non_finite Skip"), "{policy}");
}

/// One rank's hyper-parameter is out of range in the third step: it says so, and the others say that it does.
#[test]
fn what_one_rank_refuses_all_do() {
    ThreadGroup::run(2, |group| {
        let broken = group.rank() == 1;
        let rate = move |step: u64| if step == 2 && broken { f64::NAN } else { 0.1 };
        let mut opt = Adam::new(rate).data_parallel(&group);
        let mut params: Tree<f64> = Regression::start(5);
        let grads = params.clone();
        (0..2).for_each(|_| _ = opt.step(&mut params, &grads).unwrap());
        let before = (bits(&params), opt.state_dict());
        let error = opt.step(&mut params, &grads).unwrap_err();
        match (broken, error) {
            (true, error) => {
                assert!(matches!(error, Error::Step(StepError::HyperParameter { step: 2, .. })), "{error}")
            }
            (false, error) => assert!(matches!(error, Error::Ranks(RankError::RankRefused { rank: 1, .. })), "{error}"),
        }
        assert!((bits(&params), opt.state_dict()) == before);
    });
}

type Outside = (&'static str, fn(Boxed<'static>) -> Boxed<'static>);

/// Adaptors outside that refuse a gradient which is not finite.
const OUTSIDE: [Outside; 6] = [
    ("check_finite", |opt| opt.check_finite().boxed()),
    ("clip_global_norm", |opt| opt.clip_global_norm(1.0).boxed()),
    ("averages", |opt| opt.ema(0.5).lookahead(2, 0.5).check_finite().swa(0, 1).boxed()),
    ("accumulate(1)", |opt| opt.accumulate(1).check_finite().boxed()),
    ("inside accumulate(1)", |opt| opt.check_finite().accumulate(1).boxed()),
    ("another branch", |opt| opt.route("1", Sgd::new(0.1).check_finite()).boxed()),
];

type Between = (&'static str, fn(Arc<ThreadGroup>) -> Boxed<'static>);

/// All that is between ranks, where every call is one of all ranks.
const BETWEEN: [Between; 4] = [
    ("data_parallel", |group| AdamW::new(0.1).data_parallel(group).boxed()),
    ("top_k", |group| AdamW::new(0.1).data_parallel(group).compress(TopK::new(0.5)).boxed()),
    ("sharded", |group| AdamW::new(0.1).sharded(group).boxed()),
    ("local_steps", |group| AdamW::new(0.1).local_steps(1, Sgd::new(0.7)).across(group).boxed()),
];

/// What comes up on one rank before it has met the others is told them, from wherever in the chain it comes: nothing has changed, and
/// training goes on.
#[test]
fn what_one_rank_refuses_outside_all_do() {
    const ODD: usize = 1;
    ThreadGroup::run(3, |group| {
        let (odd, group) = (group.rank() == ODD, Arc::new(group.timeout(Duration::from_secs(20))));
        for ((name, between), (outside, adapt)) in BETWEEN.iter().flat_map(|own| OUTSIDE.map(|other| (*own, other))) {
            let mut opt = adapt(between(Arc::clone(&group)));
            let mut params = (Array1::<f64>::ones(4), Array1::ones(3));
            let good = params.clone();
            // Before the first step, in which the ranks begin together, and later; and a tree of other tensors.
            for round in 0..2 {
                let mut spoiled = good.clone();
                spoiled.1[2] = f64::NAN;
                let shorter = (good.0.clone(), Array1::ones(2));
                for bad in [spoiled, shorter] {
                    let before = (params.clone(), opt.state_dict(), opt.steps());
                    let error = opt.step(&mut params, if odd { &bad } else { &good }).unwrap_err();
                    let told = format!("{name}, {outside}, round {round}: {error}");
                    match error {
                        Error::Step(StepError::NonFiniteGradient { path, index, .. }) => {
                            assert!(odd && path == "1" && index == [2], "{told}");
                        }
                        Error::Step(StepError::ShapeMismatch { .. }) => assert!(odd, "{told}"),
                        Error::Ranks(RankError::RankRefused { rank: ODD, .. }) => assert!(!odd, "{told}"),
                        _ => panic!("{told}"),
                    }
                    assert!((params.clone(), opt.state_dict(), opt.steps()) == before, "{told}");
                }
                assert!(opt.step(&mut params, &good).unwrap().moved, "{name}, {outside}");
            }
            assert_same_on_all(&group, &params);
        }
    });
}

/// In a call in which no rank waits an error is one rank's own: it repeats the call, and is where the others are.
#[test]
fn what_is_refused_where_no_rank_waits() {
    type Make = fn(Arc<ThreadGroup>) -> Boxed<'static>;
    let makes: [(&str, Make); 5] = [
        ("accumulate", |group| Sgd::new(0.1).data_parallel(group).check_finite().accumulate(2).boxed()),
        ("outside accumulate", |group| Sgd::new(0.1).data_parallel(group).accumulate(2).check_finite().boxed()),
        ("accumulate around sharded", |group| Sgd::new(0.1).sharded(group).accumulate(2).check_finite().boxed()),
        ("local_steps", |group| {
            let mut opt = Sgd::new(0.1).check_finite().local_steps(3, Sgd::new(1.0)).across(group);
            opt.step(&mut Array1::ones(2), &Array1::ones(2)).unwrap(); // the first is one of all ranks
            opt.boxed()
        }),
        ("outside local_steps", |group| {
            let mut opt = Sgd::new(0.1).local_steps(3, Sgd::new(1.0)).across(group).check_finite();
            opt.step(&mut Array1::ones(2), &Array1::ones(2)).unwrap();
            opt.boxed()
        }),
    ];
    ThreadGroup::run(2, |group| {
        let (odd, group) = (group.rank() == 1, Arc::new(group.timeout(Duration::from_secs(20))));
        for (name, make) in makes {
            let mut opt = make(Arc::clone(&group));
            let (mut params, good, bad) = (Array1::<f64>::ones(2), Array1::ones(2), Array1::from_elem(2, f64::NAN));
            for _ in 0..usize::from(odd) * 2 {
                let error = opt.step(&mut params, &bad).unwrap_err();
                assert!(matches!(error, Error::Step(StepError::NonFiniteGradient { .. })), "{name}: {error}");
            }
            (0..2).for_each(|_| _ = opt.step(&mut params, &good).unwrap());
            assert_same_on_all(&group, &params);
            assert!(params[0] < 1.0, "{name}");
        }
    });
}
