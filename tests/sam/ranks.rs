//! `sam` on several ranks.

use gradus::Error;
use gradus::distributed::{RankGroup, ThreadGroup};
use gradus::error::{RankError, StepError};
use gradus::prelude::*;

use super::{Pair, bits, difference, grads, pair, perturbed};

/// The mean over ranks 0 and 1, whose noise is that of steps 2s and 2s + 1.
fn mean_grads(params: &Pair, step: usize) -> Pair {
    let both = [0, 1].map(|rank| grads(params, 2 * step + rank));
    (0.5 * (&both[0].0 + &both[1].0), 0.5 * (&both[0].1 + &both[1].1))
}

#[test]
fn around_sam_ranks_ascend_along_the_mean() {
    let ends = ThreadGroup::run(2, |group| {
        let rank = group.rank();
        let mut opt =
            Momentum::new(0.1, 0.9).sam(0.5).adaptive(0.01).surrogate_gap(0.3).data_parallel(group).verify_every(1);
        let mut params = pair(0);
        for step in 0..3 {
            let first = grads(&params, 2 * step + rank);
            assert!(opt.ascend(&mut params, &first)?.moved);
            let second = grads(&params, 2 * step + rank);
            opt.step(&mut params, &second)?;
        }
        Ok::<_, Error>(params)
    });
    let mut alone = Momentum::new(0.1, 0.9).sam(0.5).adaptive(0.01).surrogate_gap(0.3);
    let mut expected = pair(0);
    for step in 0..3 {
        alone.step_with(&mut expected, |params: &Pair| (0.0, mean_grads(params, step))).unwrap();
    }
    let ends: Vec<_> = ends.into_iter().map(Result::unwrap).collect();
    assert_eq!(bits(&ends[0]), bits(&ends[1]));
    assert!(difference(&ends[0], &expected) < 1e-13);
}

#[test]
fn inside_of_sam_every_rank_has_its_own_perturbation() {
    let ends = ThreadGroup::run(2, |group| {
        let rank = group.rank();
        let mut opt = Sgd::new(0.1).data_parallel(group).sam(0.5);
        let mut params = pair(0);
        opt.step_with(&mut params, |params: &Pair| (0.0, grads(params, rank)))?;
        Ok::<_, Error>(params)
    });
    let start = pair(0);
    let own = [0, 1].map(|rank| grads(&perturbed(&start, &grads(&start, rank), 0.5), rank));
    let expected = (&start.0 - &(0.05 * (&own[0].0 + &own[1].0)), &start.1 - &(0.05 * (&own[0].1 + &own[1].1)));
    for end in ends {
        assert!(difference(&end.unwrap(), &expected) < 1e-13);
    }
}

/// One rank forgets a call: all have an error, and nobody waits.
#[test]
fn ranks_take_the_same_call() {
    let results = ThreadGroup::run(2, |group| {
        let rank = group.rank();
        let mut opt = Sgd::new(0.1).sam(0.5).data_parallel(group);
        let mut params = pair(0);
        let error = match rank {
            0 => opt.ascend(&mut params, &pair(1)).unwrap_err(),
            _ => opt.step(&mut params, &pair(1)).unwrap_err(),
        };
        assert_eq!(bits(&params), bits(&pair(0)));
        // And then together.
        opt.ascend(&mut params, &pair(1)).unwrap();
        let twice = if rank == 0 { opt.ascend(&mut params, &pair(1)) } else { opt.step(&mut params, &pair(1)) };
        opt.step(&mut params, &pair(1)).unwrap();
        (error, twice.unwrap_err(), params)
    });
    let refused = |error: &Error| matches!(error, Error::Ranks(RankError::RankRefused { .. }));
    assert!(refused(&results[0].0) && results[1].0 == Error::Step(StepError::NotAscended));
    assert!(results[0].1 == Error::Step(StepError::AlreadyAscended) && refused(&results[1].1));
    assert_eq!(bits(&results[0].2), bits(&results[1].2));
}

#[test]
fn sharded_is_inside() {
    let ends = ThreadGroup::run(2, |group| {
        let rank = group.rank();
        let mut opt = Adam::new(0.1).sharded(group).sam(0.5);
        let mut params = pair(0);
        opt.step_with(&mut params, |params: &Pair| (0.0, grads(params, rank))).unwrap();
        params
    });
    assert_eq!(bits(&ends[0]), bits(&ends[1]));
    let errors =
        ThreadGroup::run(2, |group| Adam::new(0.1).sam(0.5).sharded(group).ascend(&mut pair(0), &pair(1)).unwrap_err());
    assert!(errors.contains(&Error::Ranks(RankError::NotShardable { name: "sam" })), "{errors:?}");
}

/// An ascent is no local step: rounds end after as many descents, and the anchor never is a perturbed point.
#[test]
fn an_ascent_is_no_local_step() {
    let run = |with_sam: bool| {
        let inner = || Momentum::new(0.1, 0.9);
        let (mut plain, mut sam) =
            (inner().local_steps(3, Sgd::new(0.5)), inner().sam(0.5).local_steps(3, Sgd::new(0.5)));
        let mut params = pair(0);
        (0..7).for_each(|step| {
            let same = pair(60 + step);
            if with_sam {
                assert!(sam.ascend(&mut params, &same).unwrap().moved);
                sam.step(&mut params, &same).unwrap();
            } else {
                plain.step(&mut params, &same).unwrap();
            }
        });
        bits(&params)
    };
    assert_eq!(run(true), run(false));
}

/// Outside of a group a rank would skip a step alone, and the others would wait for it or take it with its next one.
#[test]
fn no_rank_skips_alone() {
    type Chain = Box<dyn Optimizer<f64>>;
    type Make = fn(ThreadGroup) -> Chain;
    let makes: [(&str, Make); 3] = [
        ("data_parallel", |group| Box::new(Sgd::new(0.1).data_parallel(group).sam(0.5).non_finite(NonFinite::Skip))),
        ("sharded", |group| {
            Box::new(Sgd::new(0.1).sharded(group).clip_value(9.0).sam(0.5).non_finite(NonFinite::Skip))
        }),
        ("local_steps", |group| {
            let local = Sgd::new(0.1).local_steps(2, Sgd::new(1.0)).across(group);
            Box::new(local.sam(0.5).non_finite(NonFinite::Skip).ema(0.9))
        }),
    ];
    for (name, make) in makes {
        let errors = ThreadGroup::run(2, |group| {
            let (mut opt, mut params) = (make(group), pair(0));
            let error = opt.ascend(&mut params, &pair(1)).unwrap_err();
            assert_eq!(bits(&params), bits(&pair(0)));
            error.to_string()
        });
        for error in errors {
            assert!(error.contains("on one rank alone") && error.contains("NonFinite::Allow"), "{name}: {error}");
        }
        // Alone, there is nobody to wait.
        ThreadGroup::run(1, |group| {
            let (mut opt, mut params) = (make(group), pair(0));
            assert!(opt.ascend(&mut params, &pair(1)).unwrap().moved, "{name}");
            assert!(opt.step(&mut params, &pair(1)).unwrap().moved, "{name}");
        });
    }
}

/// The policy of the group: one rank's first or second gradient is NaN, and all skip, inside of `sam` or around it.
#[test]
fn all_ranks_skip_by_the_policy_of_the_group() {
    type Chain = Box<dyn Optimizer<f64>>;
    type Make = fn(ThreadGroup) -> Chain;
    let makes: [Make; 4] = [
        |group| {
            let inside = Momentum::new(0.1, 0.9).sharded(group).non_finite(NonFinite::Skip);
            Box::new(inside.sam(0.5).non_finite(NonFinite::Allow))
        },
        |group| {
            let inside = Momentum::new(0.1, 0.9).data_parallel(group).non_finite(NonFinite::Skip);
            Box::new(inside.sam(0.5).non_finite(NonFinite::Allow))
        },
        |group| Box::new(Momentum::new(0.1, 0.9).sam(0.5).data_parallel(group).non_finite(NonFinite::Skip)),
        |group| {
            let inside = Momentum::new(0.1, 0.9).sam(0.5).non_finite(NonFinite::Skip);
            Box::new(inside.data_parallel(group).non_finite(NonFinite::Allow))
        },
    ];
    for (case, make) in makes.into_iter().enumerate() {
        let ends = ThreadGroup::run(2, |group| {
            let rank = group.rank();
            let (mut opt, mut params) = (make(group), pair(0));
            let mut moved = Vec::new();
            for step in 0..4 {
                let mut calls = 0;
                let report = opt.step_with(&mut params, |params: &Pair| {
                    calls += 1;
                    let mut grads = grads(params, 2 * step + rank);
                    if rank == 0 && step == calls {
                        grads.1[1] = f64::NAN; // the first gradient of step 1, the second of step 2
                    }
                    (0.0, grads)
                });
                moved.push(report?.step.moved);
            }
            Ok::<_, Error>((moved, bits(&params), opt.steps()))
        });
        let ends: Vec<_> = ends.into_iter().map(Result::unwrap).collect();
        assert_eq!(ends[0], ends[1], "{case}");
        assert!(ends[0].0 == [true, false, false, true] && ends[0].2 == 2, "{case}");
    }
}
