//! The mean gradient of all ranks.

use gradus::distributed::{Alone, RankGroup, ThreadGroup};
use gradus::error::{RankError, StepError};
use gradus::prelude::*;
use gradus::{Error, StateDict};
use ndarray::{Array1, Array2, ShapeBuilder, array, s};

use crate::ranks::{Engine, Regression, Tree, assert_same_on_all, bits, difference, matrix, number};

const STEPS: usize = 200;
const MICRO: usize = 2;

/// The sum of parts is rounded otherwise than that of the whole, at every step anew.
const RELATIVE: f64 = 1e-6;

type Boxed<'g, A> = Box<dyn Optimizer<A> + 'g>;

/// Clipped, so that the norm must be the global one.
fn optimizers<A: Scalar>() -> Vec<Boxed<'static, A>> {
    let momentum = Momentum::new(0.05, 0.9).clip_global_norm(0.1);
    vec![Box::new(momentum), Box::new(AdamW::new(0.01).clip_global_norm(0.1))]
}

/// Acceptance: with accumulation and clipping, as one process with the joined batch.
pub(crate) fn equals_one_process<A: Scalar, G: Engine + gradus::distributed::Collective<A>>(group: &G) {
    let data = Regression::<A>::new(16);
    for (alone, inner) in optimizers().into_iter().zip(optimizers()) {
        let (mut alone, mut expected) = (alone.accumulate(MICRO as u64), Regression::start(7));
        // The others begin elsewhere, until they are given rank 0's.
        let mut params = Regression::start(7 + group.rank() as u64);
        let mut opt = inner.data_parallel(group).bucket_bytes(40);
        opt.broadcast(&mut params).unwrap();
        let mut opt = opt.verify_every(50).accumulate(MICRO as u64);
        for call in 0..STEPS * MICRO {
            let grads = data.part(&params, call, (group.rank(), group.size()));
            let report = opt.step(&mut params, &grads).unwrap();
            let grads = data.grads(&expected, call);
            let reference = alone.step(&mut expected, &grads).unwrap();
            assert_eq!(report.moved, reference.moved);
            let [norm, expected] = [report, reference].map(|report| report.grad_norm.unwrap_or(0.0));
            assert!((norm - expected).abs() <= 1e-3 * expected, "{norm} {expected}");
            assert_same_on_all(group, &params);
        }
        let difference = difference(&params, &expected);
        assert!(difference < RELATIVE, "{difference} in {}", A::DTYPE);
        assert_eq!(opt.steps(), STEPS as u64);
    }
}

#[test]
fn equals_one_process_on_2_and_4_threads() {
    for size in [2, 4] {
        ThreadGroup::run(size, |group| {
            equals_one_process::<f64, _>(&group);
            equals_one_process::<f32, _>(&group);
        });
    }
}

/// Clipping, averages, groups and frozen tensors inside or outside: the same as around the optimizer in one process.
#[test]
fn alone_it_is_the_optimizer_itself() {
    fn check<A: Scalar>() {
        let pairs: [(Boxed<'_, A>, Boxed<'_, A>); 5] = [
            (Box::new(Adam::new(0.1)), Box::new(Adam::new(0.1).data_parallel(Alone))),
            (
                Box::new(AdamW::new(0.1).clip_global_norm(0.1).ema(0.9)),
                Box::new(AdamW::new(0.1).clip_global_norm(0.1).data_parallel(Alone).bucket_bytes(0).ema(0.9)),
            ),
            (
                Box::new(Momentum::new(0.1, 0.9).ema(0.9).freeze("1").accumulate(3)),
                Box::new(Momentum::new(0.1, 0.9).ema(0.9).data_parallel(Alone).freeze("1").accumulate(3)),
            ),
            (
                Box::new(RmsProp::new(0.1).accumulate(2).lookahead(2, 0.5)),
                Box::new(RmsProp::new(0.1).accumulate(2).data_parallel(Alone).verify_every(1).lookahead(2, 0.5)),
            ),
            (
                Box::new(Muon::new(0.1).group("1", Group::new().scale_learning_rate(0.5)).route("1", Sgd::new(0.1))),
                Box::new(
                    Muon::new(0.1)
                        .group("1", Group::new().scale_learning_rate(0.5))
                        .route("1", Sgd::new(0.1).data_parallel(Alone))
                        .data_parallel(Alone),
                ),
            ),
        ];
        for (number, (mut alone, mut opt)) in pairs.into_iter().enumerate() {
            let data = Regression::<A>::new(4);
            let (mut expected, mut params) = (Regression::start(5), Regression::start(5));
            for call in 0..13 {
                let grads = data.grads(&params, call);
                let report = opt.step(&mut params, &grads).unwrap();
                assert_eq!(report, alone.step(&mut expected, &grads).unwrap());
                assert_eq!(bits(&params), bits(&expected), "pair {number}, call {call}");
                assert!(opt.state_dict() == alone.state_dict(), "pair {number}, call {call}");
            }
        }
    }
    check::<f32>();
    check::<f64>();
}

/// Parameters and gradients in column-major order, and with gaps, as those in row-major order.
#[test]
fn any_memory_layout() {
    ThreadGroup::run(2, |group| {
        let data = Regression::<f64>::new(8);
        let mut rows = Regression::start(5);
        let mut columns = (Array2::zeros((5, 3).f()), rows.1.clone());
        columns.0.assign(&rows.0);
        let mut wide = Array2::zeros((10, 6));
        wide.slice_mut(s![..;2, ..;-2]).assign(&rows.0);
        let mut bias = rows.1.clone();
        let new = || AdamW::new(0.1).data_parallel(&group).verify_every(1);
        let mut opts = [new(), new(), new()];
        for call in 0..5 {
            let (weight, vector) = data.part(&rows, call, (group.rank(), 2));
            let mut gaps = Array2::zeros((10, 6));
            gaps.slice_mut(s![..;-2, ..;2]).assign(&weight);
            let mut turned = Array2::zeros((5, 3).f());
            turned.assign(&weight);
            opts[0].step(&mut rows, &(&weight, &vector)).unwrap();
            opts[1].step(&mut columns, &(gaps.slice(s![..;-2, ..;2]), &vector)).unwrap();
            opts[2].step(&mut (wide.slice_mut(s![..;2, ..;-2]), &mut bias), &(&turned, &vector)).unwrap();
            assert_eq!(bits(&columns), bits(&rows));
            assert_eq!(bits::<f64>(&(wide.slice(s![..;2, ..;-2]), &bias)), bits(&rows));
        }
    });
}

/// A tensor without gradient on all ranks stays; without one on some it is an error that names it.
pub(crate) fn none_is_none_on_all(group: &impl Engine) {
    let mut params = Regression::<f64>::start(5);
    let start = params.clone();
    let mut opt = Adam::new(0.1).data_parallel(group);
    let weight = Regression::new(8).part(&params, 0, (group.rank(), group.size())).0;
    opt.step(&mut params, &(&weight, None::<Array1<f64>>)).unwrap();
    assert_eq!(params.1, start.1);
    assert_ne!(params.0, start.0);
    assert_eq!(opt.inner().tensor_steps("1"), 0);
    assert_same_on_all(group, &params);

    let before = (params.clone(), opt.state_dict());
    let bias = (group.rank() + 1 < group.size()).then(|| array![1.0, 2.0, 3.0]);
    let error = opt.step(&mut params, &(&weight, &bias)).unwrap_err();
    let expected = Error::Ranks(RankError::RanksDisagree {
        rank: group.size() - 1,
        expected: "\"1\" of shape [3] in f64 with a gradient".into(),
        found: "\"1\" of shape [3] in f64 without gradient".into(),
    });
    assert_eq!(error, expected);
    assert!((params, opt.state_dict()) == before);
}

#[test]
fn none_is_none_on_all_threads() {
    ThreadGroup::run(3, |group| none_is_none_on_all(&group));
}

/// Averages that follow the parameters, inside and outside, are the same on all ranks, and those of one process.
#[test]
fn what_follows_follows() {
    ThreadGroup::run(2, |group| {
        let data = Regression::<f64>::new(8);
        let (mut params, mut expected) = (Regression::start(5), Regression::start(5));
        let mut opt = Sgd::new(0.1).ema(0.5).data_parallel(&group).ema(0.9);
        let mut alone = Sgd::new(0.1).ema(0.5).ema(0.9);
        for call in 0..6 {
            let (part, whole) = (data.part(&params, call, (group.rank(), 2)), data.grads(&expected, call));
            opt.step(&mut params, &part).unwrap();
            alone.step(&mut expected, &whole).unwrap();
        }
        let [mut outside, mut inside, mut outer, mut inner] = [(); 4].map(|()| params.clone());
        opt.read(&mut outside).unwrap();
        opt.inner().inner().read(&mut inside).unwrap();
        alone.read(&mut outer).unwrap();
        alone.inner().read(&mut inner).unwrap();
        assert_same_on_all(&group, &outside);
        assert!(difference(&outside, &outer) < 1e-12 && difference(&inside, &inner) < 1e-12);
        assert!(difference(&outside, &inside) > 1e-3);
    });
}

/// Curvature of one rank's batch would make another step of the mean on every rank.
#[cfg(feature = "second-order")]
#[test]
fn curvature_inside_is_refused() {
    ThreadGroup::run(2, |group| {
        let mut params = Regression::<f64>::start(5);
        let grads = params.clone();
        let error = Sgd::new(0.1).kfac().data_parallel(&group).step(&mut params, &grads).unwrap_err();
        let expected = "kfac needs the gradients of its own rank's data, not the mean over all ranks; write it after `data_parallel`";
        assert_eq!(error.to_string(), expected);
        assert_eq!(bits(&params), bits(&grads));
        assert!(Sgd::new(0.1).kfac().data_parallel(Alone).step(&mut params, &grads).unwrap().moved);
        assert!(Sgd::new(0.1).data_parallel(&group).kfac().step(&mut params, &grads).unwrap().moved);
    });
}

/// Without a broadcast the first step gives all ranks rank 0's parameters; a refused one gives them nothing.
#[test]
fn all_begin_as_rank_0() {
    ThreadGroup::run(3, |group| {
        let mut params = Regression::<f64>::start(group.rank() as u64);
        let own = params.clone();
        let mut opt = Sgd::new(0.5).clip_global_norm(1.0).data_parallel(&group).non_finite(NonFinite::Allow);
        let mut bad = own.clone();
        bad.0[[1, 1]] = f64::NAN;
        let error = opt.step(&mut params, &bad).unwrap_err();
        assert!(matches!(error, Error::Step(StepError::NonFiniteGradient { .. })), "{error}");
        assert_eq!((&params, opt.layout()), (&own, None));

        let zero = (Array2::zeros((5, 3)), Array1::zeros(3));
        opt.step(&mut params, &zero).unwrap();
        assert_eq!(params, Regression::start(0));
    });
}

/// What follows a tensor without gradient follows it to what rank 0 had; and what remembers parameters outside, after a broadcast,
/// remembers the same on all.
#[test]
fn what_is_outside_when_ranks_begin_differently() {
    type Parts<'g> = [Boxed<'g, f64>; 4];
    ThreadGroup::run(3, |group| {
        let parts = || -> Parts<'_> {
            [
                Box::new(Sgd::new(0.5).data_parallel(&group)),
                Box::new(Sgd::new(0.5).local_steps(1, Sgd::new(1.0)).across(&group)),
                Box::new(Sgd::new(0.5).local_steps(3, Sgd::new(1.0)).across(&group)),
                Box::new(Sgd::new(0.5).sharded(&group)),
            ]
        };
        let start = || (Array1::from_elem(2, group.rank() as f64), Array1::from_elem(3, 8.0 + group.rank() as f64));
        let grads = (array![1.0, 2.0], None::<Array1<f64>>);
        for (number, opt) in parts().into_iter().enumerate() {
            let (mut opt, mut params) = (opt.ema(0.5), start());
            opt.step(&mut params, &grads).unwrap();
            let mut average = params.clone();
            opt.read(&mut average).unwrap();
            assert_eq!((&average, &params.1), (&params, &Array1::from_elem(3, 8.0)), "{number}");
        }
        for broadcast in [false, true] {
            let (mut params, mut parallel) = (start(), Sgd::new(0.5).data_parallel(&group));
            let (mut others, mut local) = (start(), Sgd::new(0.5).local_steps(1, Sgd::new(1.0)).across(&group));
            if broadcast {
                parallel.broadcast(&mut params).unwrap();
                local.broadcast(&mut others).unwrap();
            }
            let (mut parallel, mut local) = (parallel.lookahead(2, 0.5), local.lookahead(2, 0.5));
            for _ in 0..2 {
                parallel.step(&mut params, &grads).unwrap();
                local.step(&mut others, &grads).unwrap();
            }
            let alike = array![-0.5, -1.0];
            assert_eq!(params.0 == alike && others.0 == alike, broadcast || group.rank() == 0);
        }
    });
}

/// The 16-bit parameters are those of rank 0 too, with or without a gradient.
#[cfg(feature = "half")]
#[test]
fn master_weights_follow_rank_0() {
    use half::bf16;
    ThreadGroup::run(2, |group| {
        let mut all: [Box<dyn Optimizer<bf16> + '_>; 3] = [
            Box::new(Sgd::new(0.5).data_parallel(&group).master_weights()),
            Box::new(Sgd::new(0.5).local_steps(2, Sgd::new(1.0)).across(&group).master_weights()),
            Box::new(Sgd::new(0.5).sharded(&group).master_weights()),
        ];
        for opt in &mut all {
            let begin = bf16::from_f64(group.rank() as f64 + 1.0);
            let mut params = (Array1::from_elem(2, begin), Array1::from_elem(3, begin));
            opt.step(&mut params, &(Array1::from_elem(2, bf16::ONE), None::<Array1<bf16>>)).unwrap();
            assert_eq!(params, (Array1::from_elem(2, bf16::from_f64(0.5)), Array1::from_elem(3, bf16::ONE)));
        }
    });
}

/// Each rank goes on from the state that it saved, without being given rank 0's parameters again.
#[test]
fn a_resumed_run_is_the_uninterrupted_one() {
    ThreadGroup::run(2, |group| {
        let data = Regression::<f32>::new(8);
        let new = || AdamW::new(0.1).clip_global_norm(0.5).data_parallel(&group).accumulate(2);
        let (mut opt, mut params) = (new(), Regression::start(5));
        let step = |opt: &mut dyn Optimizer<f32>, params: &mut Tree<f32>, call| {
            let grads = data.part(params, call, (group.rank(), 2));
            opt.step(params, &grads).unwrap();
        };
        for call in 0..9 {
            step(&mut opt, &mut params, call);
        }
        let (state, mut resumed_params): (StateDict, _) = (opt.state_dict(), params.clone());
        let mut resumed = new();
        resumed.load_state_dict(&state).unwrap();
        for call in 9..15 {
            step(&mut opt, &mut params, call);
        }
        for call in 9..15 {
            step(&mut resumed, &mut resumed_params, call);
        }
        assert_eq!(bits(&resumed_params), bits(&params));
        assert!(resumed.state_dict() == opt.state_dict());
    });
}

/// Each rank has its parameters from a file of its own. They are compared once, and not sent.
#[test]
fn after_loading_parameters_are_compared() {
    ThreadGroup::run(2, |group| {
        let (mut params, grads) = (array![1.0], array![1.0]);
        let mut opt = Sgd::new(1.0).data_parallel(&group);
        opt.step(&mut params, &grads).unwrap();
        let mut resumed = Sgd::new(1.0).data_parallel(&group);
        resumed.load_state_dict(&opt.state_dict()).unwrap();
        params[0] = group.rank() as f64;
        let error = resumed.step(&mut params, &grads).unwrap_err().to_string();
        assert!(error.starts_with("rank 1 has (root) with values of digest"), "{error}");
        assert_eq!((params[0], resumed.steps()), (group.rank() as f64, 1));
        let (mut others, before) = (array![5.0], resumed.state_dict());
        resumed.step(&mut others, &grads).unwrap();
        resumed.step(&mut params, &grads).unwrap();
        assert_eq!((others[0], params[0]), (4.0, group.rank() as f64 - 1.0));
        resumed.load_state_dict(&before).unwrap();
        resumed.broadcast(&mut params).unwrap();
        assert_eq!(params[0], -1.0);
        resumed.step(&mut params, &grads).unwrap();
    });
}

/// A parameter written by hand on one rank is found at the next comparison, and not before.
#[test]
fn parameters_are_compared_every_n_steps() {
    let ends = ThreadGroup::run(2, |group| {
        let mut opt = Sgd::new(0.1).data_parallel(&group).verify_every(3);
        let mut params = Regression::<f64>::start(5);
        let grads = params.clone();
        opt.step(&mut params, &grads).unwrap();
        params.1[2] += group.rank() as f64 * 1e-12;
        (0..2).for_each(|_| _ = opt.step(&mut params, &grads).unwrap());
        let before = params.clone();
        let error = opt.step(&mut params, &grads).unwrap_err();
        assert_eq!(params, before);
        error.to_string()
    });
    assert!(ends.iter().all(|end| end.starts_with("rank 1 has \"1\" with values of digest ")), "{ends:?}");
    let mut opt = Sgd::new(0.1).data_parallel(Alone).verify_every(0);
    let error = opt.step(&mut array![1.0], &array![1.0]).unwrap_err();
    assert_eq!(error.to_string(), "verify_every is 0; it must be at least 1");
}

/// With a gradient in any of its micro-batches; summed outside, each by its rank; inside, one by one.
#[test]
fn accumulating_inside_and_outside() {
    ThreadGroup::run(2, |group| {
        let grad = |call: u64| Array1::from_shape_fn(4, |i| number::<f64>(call, (4 * group.rank() + i) as u64));
        let mut outside = Sgd::new(1.0).data_parallel(&group).accumulate(3);
        let mut inside = Sgd::new(1.0).accumulate(3).data_parallel(&group);
        let (mut by_outside, mut by_inside) = (Array1::zeros(4), Array1::zeros(4));
        for call in 0..6 {
            assert_eq!(outside.step(&mut by_outside, &grad(call)).unwrap().moved, call % 3 == 2);
            assert_eq!(inside.step(&mut by_inside, &grad(call)).unwrap().moved, call % 3 == 2);
        }
        assert!(difference(&by_outside, &by_inside) < 1e-14);
        assert_eq!(outside.inner().traffic().total, 2 * 4 * 8);
        assert_eq!(inside.traffic().total, 6 * 4 * 8);
        assert_eq!(inside.traffic().last_step, 4 * 8);
        assert_same_on_all(&group, &by_outside);
    });
}

/// What a step allocates is the same at 16 times the size.
#[test]
fn a_step_allocates_nothing_that_grows_with_the_elements() {
    let allocated = |rows: usize| {
        let mut opt = AdamW::new(0.1).clip_global_norm(1.0).data_parallel(Alone).verify_every(1);
        let (mut params, grads) = (matrix::<f32>((rows, 64), 0), matrix((rows, 64), 1));
        opt.step(&mut params, &grads).unwrap();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        pool.install(|| {
            let info = allocation_counter::measure(|| _ = opt.step(&mut params, &grads).unwrap());
            (info.count_total, info.bytes_total)
        })
    };
    let (small, large) = (allocated(64), allocated(1024));
    assert!(small.0 > 0, "the counter counts");
    // The shape stands in what the ranks agree about: [64, 64] and [1024, 64].
    assert!(large.0 == small.0 && large.1 <= small.1 + 64, "{small:?} {large:?}");
}
