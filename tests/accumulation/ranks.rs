//! Micro-batches of different sizes on several ranks.

use std::time::Duration;

use gradus::Error;
use gradus::distributed::{RankGroup, ThreadGroup};
use gradus::error::RankError;
use gradus::prelude::*;
use ndarray::{Array1, array};

use crate::{Boxed, ROUNDING, SAMPLES, Tree, difference, grads, optimizers, start};

type OnRank<'g> = Box<dyn Optimizer<f64> + 'g>;
type Chain = for<'g> fn(Boxed, &'g ThreadGroup) -> OnRank<'g>;

/// Where the ranks average: inside of `accumulate`, which communicates once per step, and outside of it.
const CHAINS: [(&str, Chain); 4] = [
    ("data_parallel inside", |opt, group| opt.data_parallel(group).bucket_bytes(40).accumulate(2).boxed()),
    ("data_parallel outside", |opt, group| opt.accumulate(2).data_parallel(group).boxed()),
    ("sharded inside", |opt, group| opt.sharded(group).by_tensor().accumulate(2).boxed()),
    ("sharded outside", |opt, group| opt.accumulate(2).sharded(group).by_tensor().boxed()),
];

/// The samples of each rank's micro-batches, call by call, of an epoch. In the last window rank 2 has none, if there is one.
fn calls(rank: usize, ranks: usize, outside: bool) -> Vec<std::ops::Range<usize>> {
    let sizes: &[[usize; 3]] = match (ranks, outside) {
        (2, _) => &[[7, 3, 0], [1, 9, 0], [4, 6, 0], [2, 5, 0], [8, 5, 0]],
        // Every call is a joint one: a rank that has no data left has a weight of 0.
        (_, true) => &[[5, 2, 1], [4, 7, 3], [1, 6, 6], [3, 5, 2], [2, 3, 0]],
        (_, false) => &[[5, 2, 1], [4, 7, 3], [1, 6, 6], [3, 5, 2], [2, 3, usize::MAX]],
    };
    let (mut from, mut own) = (0, Vec::new());
    for all in sizes {
        for (at, size) in all.iter().enumerate().filter(|(_, size)| **size != usize::MAX) {
            if at == rank && at < ranks {
                own.push(from..from + size);
            }
            from += size;
        }
    }
    assert_eq!(from, SAMPLES);
    own
}

/// Three epochs in one process, with the samples of all ranks, and the number of steps.
fn reference(build: fn() -> Boxed, ranks: usize) -> (Tree, u64) {
    let (mut opt, mut w, last) = (build(), start(), calls(ranks - 1, ranks, true));
    for _ in 0..3 {
        // Windows of two calls, and what is left.
        let ends = [1, 3, 4].map(|call| last[call].end);
        for (from, to) in [0, ends[0], ends[1]].into_iter().zip(ends) {
            let whole = grads(&w, from..to);
            opt.step(&mut w, &whole).unwrap();
        }
        assert_eq!(ends[2], SAMPLES);
    }
    (w, opt.steps())
}

/// Acceptance: the weighted mean over ranks and micro-batches is the large batch, also at the end of an epoch.
#[test]
fn unequal_micro_batches_of_all_ranks_are_the_large_batch() {
    for (name, build) in optimizers() {
        let expected = [2, 3].map(|ranks| reference(build, ranks));
        for (place, chain) in CHAINS {
            for (ranks, (expected, steps)) in [2, 3].into_iter().zip(&expected) {
                let outside = place.ends_with("outside");
                let ends = ThreadGroup::run(ranks, |group| {
                    let (mut opt, mut w) = (chain(build(), &group), start());
                    for _ in 0..3 {
                        for samples in calls(group.rank(), ranks, outside) {
                            // The mean over no samples is not a number.
                            let part = grads(&w, if samples.is_empty() { 0..1 } else { samples.clone() });
                            opt.step_weighted(&mut w, &part, samples.len() as f64).unwrap();
                        }
                        assert!(opt.flush(&mut w).unwrap().moved);
                        assert!(!opt.flush(&mut w).unwrap().moved);
                    }
                    assert_eq!(opt.steps(), *steps);
                    w
                });
                for w in &ends {
                    assert_eq!(w, &ends[0], "the same bits on all ranks");
                    let difference = difference(w, expected);
                    assert!(difference < ROUNDING, "{name}, {place}, {ranks} ranks: {difference}");
                }
            }
        }
    }
}

/// Without weights a rank's micro-batches count alike, also if it has fewer than others in a window that is flushed.
#[test]
fn without_weights_micro_batches_count_alike() {
    for (grads, expected) in [([&[3.0][..], &[1.0, 2.0]], -2.0), ([&[3.0], &[]], -3.0), ([&[], &[]], 0.0)] {
        let ends = ThreadGroup::run(2, |group| {
            let (mut opt, mut w) = (Sgd::new(1.0).data_parallel(&group).accumulate(4), array![0.0]);
            grads[group.rank()].iter().for_each(|grad| _ = opt.step(&mut w, &array![*grad]).unwrap());
            let moved = opt.flush(&mut w).unwrap().moved;
            assert_eq!((moved, opt.gathered()), (expected != 0.0, 0));
            w[0]
        });
        assert_eq!(ends, [expected; 2]);
    }
}

/// Equal weights send no other numbers than none: the same bits.
#[test]
fn equal_weights_give_the_same_bits_as_none() {
    ThreadGroup::run(3, |group| {
        let new = || Momentum::new(0.1, 0.9).clip_global_norm(0.1).data_parallel(&group);
        let (mut weighted, mut plain, mut w, mut expected) = (new(), new(), start(), start());
        for call in 0..6 {
            let from = 7 * call + 2 * group.rank();
            let (part, other) = (grads(&w, from..from + 2), grads(&expected, from..from + 2));
            weighted.step_weighted(&mut w, &part, 2.0).unwrap();
            plain.step(&mut expected, &other).unwrap();
            assert_eq!(w, expected);
        }
    });
}

/// What a compression has not sent is added to the next gradient, whatever its weight: over all steps everything is sent.
#[test]
fn compressed_gradients_have_weights() {
    use gradus::distributed::compress::TopK;
    let ends = ThreadGroup::run(2, |group| {
        let (mut opt, mut w) = (Sgd::new(1.0).data_parallel(&group).compress(TopK::new(0.5)), array![0.0, 0.0]);
        let weight = [3.0, 1.0][group.rank()];
        opt.step_weighted(&mut w, &array![8.0, 4.0], weight).unwrap();
        assert_eq!(w, array![-8.0, 0.0]);
        (0..2).for_each(|_| _ = opt.step_weighted(&mut w, &array![0.0, 0.0], weight).unwrap());
        w
    });
    assert_eq!(ends, vec![array![-8.0, -4.0]; 2]);
}

/// A state that a rank has saved in the middle of a window.
#[test]
fn a_rank_resumes_in_the_middle_of_a_window() {
    ThreadGroup::run(2, |group| {
        let build = || AdamW::new(0.1).data_parallel(&group).accumulate(4);
        let (mut opt, mut w) = (build(), start());
        let call = |opt: &mut dyn Optimizer<f64>, w: &mut Tree, number: usize| {
            let samples = [3 * number..3 * number + 1, 3 * number + 1..3 * number + 3][group.rank()].clone();
            let part = grads(w, samples.clone());
            opt.step_weighted(w, &part, samples.len() as f64).unwrap();
        };
        (0..6).for_each(|number| call(&mut opt, &mut w, number));
        let (mut resumed, mut params) = (build(), w.clone());
        resumed.load_state_dict(&opt.state_dict()).unwrap();
        for (opt, w) in [(&mut opt, &mut w), (&mut resumed, &mut params)] {
            call(opt, w, 6);
            assert!(opt.flush(w).unwrap().moved);
        }
        assert_eq!((&w, opt.state_dict()), (&params, resumed.state_dict()));
    });
}

/// A rank that flushes while another takes a step is told so, on both.
#[test]
fn ranks_that_do_not_flush_together_disagree() {
    ThreadGroup::run(2, |group| {
        let (mut opt, mut w) = (Sgd::new(1.0).data_parallel(&group).accumulate(2), array![0.0]);
        let result = match group.rank() {
            0 => (0..2).map(|_| opt.step(&mut w, &array![1.0])).last().unwrap(),
            _ => opt.flush(&mut w),
        };
        let expected = Error::Ranks(RankError::RanksDisagree {
            rank: 1,
            expected: "step number 0, the first with this group".into(),
            found: "step number 0, the first with this group, a flush".into(),
        });
        assert_eq!((result, &w), (Err(expected), &array![0.0]));
        assert_eq!(opt.gathered(), 1 - group.rank() as u64);
    });
}

/// A rank that cannot flush does not leave the others waiting.
#[test]
fn an_error_of_one_rank_reaches_all() {
    let short = |group: ThreadGroup| group.timeout(Duration::from_secs(20));
    ThreadGroup::run(2, |group| {
        let group = short(group);
        let mut opt = Sgd::new(1.0).check_finite().data_parallel(&group).accumulate(4).freeze("0");
        let (mut w, rank) = ((array![0.0], array![0.0]), group.rank());
        opt.step(&mut w, &(array![1.0], array![1.0])).unwrap();
        let result = match rank {
            0 => opt.flush(&mut w),
            _ => opt.flush(&mut (array![0.0], Array1::zeros(2))), // other parameters
        };
        let Err(Error::Ranks(RankError::RankRefused { rank: 1, .. })) = result else {
            assert_eq!(rank, 1);
            assert!(
                matches!(result, Err(Error::Step(gradus::error::StepError::ParametersChanged { .. }))),
                "{result:?}"
            );
            return;
        };
        assert_eq!((rank, opt.inner().gathered()), (0, 1));
    });
}
