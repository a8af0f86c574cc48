//! All ranks act alike, and nothing has changed when they refuse.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use gradus::distributed::{Collective, RankGroup as _, Sharded, ThreadGroup};
use gradus::error::{RankError, StepError};
use gradus::prelude::*;
use gradus::{Error, Report, Result, Step};
use ndarray::{Array1, Array2};

const RANKS: usize = 3;

/// The rank that does what the others do not.
const ODD: usize = 1;

/// A tree and its gradients; the vector's may be missing.
type Tree = (Array2<f64>, Array1<f64>);
type Grads = (Array2<f64>, Option<Array1<f64>>);

fn tree(value: f64) -> Tree {
    (Array2::from_elem((30, 20), value), Array1::from_elem(10, value))
}

fn grads(value: f64) -> Grads {
    (Array2::from_elem((30, 20), value), Some(Array1::from_elem(10, value)))
}

fn with_nan() -> Grads {
    let mut grads = grads(1.0);
    grads.1.as_mut().unwrap()[7] = f64::NAN;
    grads
}

/// Steps with these gradients, and whether parameters or state have changed by it.
fn step<O: Optimizer<f64>, G: Collective<f64>>(
    opt: &mut Sharded<O, G, f64>,
    params: &mut Tree,
    grads: &dyn Params<Elem = f64>,
) -> (Result<Report>, bool) {
    let before = (params.clone(), opt.state_dict());
    let result = opt.step(params, grads);
    (result, (params.clone(), opt.state_dict()) != before)
}

/// A good step, one that goes wrong on the odd rank, and a good one again: what the second said on each rank. It changes nothing.
fn goes_wrong<O: Optimizer<f64>>(
    opt: impl Fn(ThreadGroup) -> Sharded<O, ThreadGroup, f64> + Sync,
    spoil: impl Fn(&mut Sharded<O, ThreadGroup, f64>) -> Grads + Sync,
    mend: impl Fn(&mut Sharded<O, ThreadGroup, f64>) + Sync,
) -> Vec<Result<Report>> {
    ThreadGroup::run(RANKS, |group| {
        let is_odd = group.rank() == ODD;
        let (mut opt, mut params) = (opt(group), tree(1.0));
        opt.step(&mut params, &grads(0.5)).unwrap();
        let second = if is_odd { spoil(&mut opt) } else { grads(1.0) };
        let (result, changed) = step(&mut opt, &mut params, &second);
        assert!(!changed);
        if is_odd {
            mend(&mut opt);
        }
        assert!(opt.step(&mut params, &grads(0.5)).unwrap().moved && opt.steps() == 2);
        result
    })
}

/// The odd rank's own error, and that the others heard of it.
fn refused_by_the_odd(results: Vec<Result<Report>>, own: &Error) {
    for (rank, result) in results.into_iter().enumerate() {
        let expected = if rank == ODD {
            own.clone()
        } else {
            Error::Ranks(RankError::RankRefused { rank: ODD, reason: own.to_string() })
        };
        assert_eq!(result, Err(expected), "rank {rank}");
    }
}

#[test]
fn a_nan_on_one_rank_is_an_error_on_all() {
    for by_tensor in [false, true] {
        let build = |group| {
            let opt = AdamW::new(0.1).clip_global_norm(1.0).sharded(group);
            if by_tensor { opt.by_tensor() } else { opt }
        };
        let results = goes_wrong(build, |_| with_nan(), |_| {});
        let own = results[ODD].as_ref().unwrap_err();
        assert!(
            matches!(own, Error::Step(StepError::NonFiniteGradient { path, index, value }) if path == "1" && *index == [7] && value.is_nan())
        );
        let expected =
            Error::Ranks(RankError::RankRefused { rank: ODD, reason: "gradient \"1\" is NaN at index [7]".into() });
        assert!(results[0] == Err(expected.clone()) && results[2] == Err(expected));
    }
}

#[test]
fn a_nan_on_one_rank_is_skipped_by_all() {
    let build = |group| AdamW::new(0.1).clip_global_norm(1.0).sharded(group).non_finite(NonFinite::Skip);
    for result in goes_wrong(build, |_| with_nan(), |_| {}) {
        assert_eq!(result, Ok(Report::of_skipped(0.1)));
    }
}

#[test]
fn a_nan_that_is_allowed_is_the_same_on_all() {
    let ends = ThreadGroup::run(RANKS, |group| {
        let grads = if group.rank() == ODD { with_nan() } else { grads(1.0) };
        let (mut opt, mut params) = (Sgd::new(0.1).sharded(group).non_finite(NonFinite::Allow), tree(1.0));
        assert!(opt.step(&mut params, &grads).unwrap().moved);
        params
    });
    for (matrix, vector) in ends {
        assert!(matrix.iter().all(|value| *value == 0.9));
        assert!(vector.iter().enumerate().all(|(at, value)| value.is_nan() == (at == 7)));
    }
}

/// What a rank finds in its share of the mean, all do something about.
#[test]
fn what_is_found_inside_is_found_by_all() {
    let run = |policy: NonFinite| {
        ThreadGroup::run(RANKS, |group| {
            let grads = if group.rank() == ODD { with_nan() } else { grads(1.0) };
            let mut opt = AdamW::new(0.1).skip_nonfinite().sharded(group).non_finite(policy);
            let mut params = tree(1.0);
            let report = opt.step(&mut params, &grads);
            assert!(params == tree(1.0));
            (report, opt.inner().skipped(), opt.steps())
        })
    };
    for (report, skipped, steps) in run(NonFinite::Allow) {
        assert_eq!((report, skipped, steps), (Ok(Report::of_skipped(0.1)), 1, 0));
    }
    let clipped = ThreadGroup::run(RANKS, |group| {
        let grads = if group.rank() == ODD { with_nan() } else { grads(1.0) };
        let mut opt = AdamW::new(0.1).clip_global_norm(1.0).sharded(group).non_finite(NonFinite::Allow);
        step(&mut opt, &mut tree(1.0), &grads)
    });
    assert!(clipped.into_iter().all(|(result, changed)| result.is_err() && !changed));
}

/// Finite gradients whose sum is not.
#[test]
fn a_sum_that_overflows_is_found_by_all() {
    let run = |policy: NonFinite| {
        ThreadGroup::run(2, |group| {
            let mut opt = AdamW::new(0.1).clip_global_norm(1.0).sharded(group).non_finite(policy);
            let mut large = grads(1.0);
            large.0[[29, 19]] = 1e308;
            step(&mut opt, &mut tree(1.0), &large)
        })
    };
    // What is allowed the clip inside refuses.
    for refused in [run(NonFinite::Error), run(NonFinite::Allow)] {
        assert!(refused.iter().all(|(result, changed)| result.is_err() && !changed));
        assert!(
            matches!(refused[0].0, Err(Error::Ranks(RankError::RankRefused { rank: 1, .. }))),
            "{:?}",
            refused[0].0
        );
        assert!(matches!(refused[1].0, Err(Error::Step(StepError::NonFiniteGradient { .. }))), "{:?}", refused[1].0);
    }
    let skipped = run(NonFinite::Skip);
    assert!(skipped.into_iter().all(|(result, changed)| result == Ok(Report::of_skipped(0.1)) && !changed));
}

#[test]
fn what_one_rank_refuses_no_rank_does() {
    let build = |group| AdamW::new(0.1).sharded(group);
    let decay = |decay: f64| {
        move |opt: &mut Sharded<AdamW<f64>, ThreadGroup, f64>| {
            *opt.inner_mut() = std::mem::replace(opt.inner_mut(), AdamW::new(0.1)).weight_decay(decay);
            grads(1.0)
        }
    };
    let own = AdamW::new(0.1).weight_decay(-1.0).step(&mut tree(1.0), &grads(1.0)).unwrap_err();
    let Error::Step(StepError::HyperParameter { name, value, path, pattern, accepted, .. }) = own else {
        panic!("{own}")
    };
    let own = Error::Step(StepError::HyperParameter { name, value, path, pattern, accepted, step: 1 });
    refused_by_the_odd(goes_wrong(build, decay(-1.0), |opt| _ = decay(0.01)(opt)), &own);
}

/// While the others ask for the norm already.
#[test]
fn what_one_rank_refuses_before_a_norm_no_rank_does() {
    let results = ThreadGroup::run(RANKS, |group| {
        let is_odd = group.rank() == ODD;
        let limit = move |step: u64| if is_odd && step == 1 { f64::NAN } else { 1.0 };
        let (mut opt, mut params) = (AdamW::new(0.1).clip_global_norm(limit).sharded(group), tree(1.0));
        opt.step(&mut params, &grads(0.5)).unwrap();
        let (result, changed) = step(&mut opt, &mut params, &grads(0.5));
        assert!(!changed);
        result.unwrap_err()
    });
    for (rank, error) in results.into_iter().enumerate() {
        match rank {
            ODD => assert!(
                matches!(error, Error::Step(StepError::HyperParameter { name: "max_norm", step: 1, .. })),
                "{error}"
            ),
            _ => assert!(matches!(error, Error::Ranks(RankError::RankRefused { rank: ODD, .. })), "{error}"),
        }
    }
}

#[test]
fn ranks_that_do_different_steps_are_told_which() {
    let build = |group| Sgd::new(0.1).sharded(group);
    let disagree = |results: Vec<Result<Report>>, expected: &str, found: &str| {
        let (expected, found) = (expected.to_owned(), found.to_owned());
        assert_eq!(results, vec![Err(Error::Ranks(RankError::RanksDisagree { rank: ODD, expected, found })); RANKS]);
    };
    let missing = goes_wrong(build, |_| (Array2::ones((30, 20)), None), |_| {});
    let described = "\"1\" of shape [10] in f64";
    disagree(missing, &format!("{described} with a gradient"), &format!("{described} without gradient"));
    let slower = |opt: &mut Sharded<Sgd<f64>, ThreadGroup, f64>, rate: f64| {
        let steps = opt.inner().state_dict();
        *opt.inner_mut() = Sgd::new(rate);
        opt.inner_mut().load_state_dict(&steps).unwrap();
    };
    let spoil = |opt: &mut Sharded<Sgd<f64>, ThreadGroup, f64>| {
        slower(opt, 0.2);
        grads(1.0)
    };
    disagree(goes_wrong(build, spoil, |opt| slower(opt, 0.1)), "the learning rate 0.1", "the learning rate 0.2");

    // Other parameters, from the first step on.
    let shapes = ThreadGroup::run(RANKS, |group| {
        let length = if group.rank() == ODD { 9 } else { 10 };
        let mut opt = Sgd::new(0.1).sharded(group);
        let mut params: Tree = (Array2::ones((30, 20)), Array1::ones(length));
        let grads = params.clone();
        let result = opt.broadcast(&mut params).map(|()| Report::new(0.0, false)).and(opt.step(&mut params, &grads));
        assert!(params == grads && opt.layout().is_none() && opt.state_dict().layout().is_none());
        result
    });
    disagree(shapes, "\"1\" of shape [10] in f64 to receive", "\"1\" of shape [9] in f64 to receive");
}

#[test]
fn parameters_that_change_between_steps_are_refused_by_all() {
    let results = ThreadGroup::run(RANKS, |group| {
        let is_odd = group.rank() == ODD;
        let mut opt = Sgd::new(0.1).sharded(group);
        opt.step(&mut tree(1.0), &grads(1.0)).unwrap();
        let mut params: Tree = (Array2::ones((30, 20)), Array1::ones(if is_odd { 11 } else { 10 }));
        let grads = params.clone();
        opt.step(&mut params, &grads)
    });
    let (expected, found) = ("\"1\" of shape [10]".to_owned(), "\"1\" of shape [11]".to_owned());
    refused_by_the_odd(results, &Error::Step(StepError::ParametersChanged { expected, found }));
}

#[test]
fn what_needs_whole_tensors_says_so() {
    fn refused<O: Optimizer<f64>>(build: impl Fn() -> O + Sync, expected: &str) {
        let results = ThreadGroup::run(2, |group| step(&mut build().sharded(group), &mut tree(1.0), &grads(1.0)));
        for (result, changed) in results {
            assert_eq!(result.unwrap_err().to_string(), expected);
            assert!(!changed);
        }
    }
    let cut = |name: &str| format!("{name} needs whole tensors; call `.by_tensor()` on `sharded`");
    refused(|| AdamW::new(0.1).route("0", Muon::new(0.1)), &cut("muon"));
    refused(|| AdamMini::new(0.1), &cut("adammini"));
    refused(|| Sm3::new(0.1), &cut("sm3"));
    refused(|| Came::new(0.1), &cut("came"));
    refused(|| AdamW::new(0.1).route("0", Apollo::new(0.1)), &cut("apollo"));
    refused(|| AdamW::new(0.1).route("0", ApolloMini::new(0.1)), &cut("apollomini"));
    refused(|| Mars::new(0.1), &cut("mars"));
    refused(|| NovoGrad::new(0.1), &cut("novograd"));
    refused(|| AdamW::new(0.1).clip_per_tensor_norm(1.0), &cut("clip_per_tensor_norm"));
    refused(|| AdamW::new(0.1).clip_adaptive(0.1), &cut("clip_adaptive"));
    let whole = |name: &str| format!("{name} needs all tensors in one place; it cannot be used inside `sharded`");
    refused(|| Lbfgs::new(0.1), &whole("lbfgs"));
    #[cfg(feature = "second-order")]
    refused(|| Sgd::new(0.1).kfac(), &whole("kfac"));
    #[cfg(feature = "second-order")]
    refused(|| AdamW::new(0.1).route("0", Shampoo::new(0.1)), &cut("shampoo"));
}

/// A step of an optimizer that knows whether it sees parts.
#[test]
fn a_step_says_whether_tensors_are_cut() {
    #[derive(Debug)]
    struct Asks(Vec<bool>);

    impl Optimizer<f64> for Asks {
        fn check(&self, _: &Step<'_, f64>) -> Result<()> {
            Ok(())
        }

        fn apply(&mut self, step: Step<'_, f64>) -> Result<Report> {
            self.0.push(step.is_cut());
            self.0.push(step.preview().is_cut());
            Ok(Report::new(0.0, true))
        }

        fn conclude(&mut self, result: Result<Report>) -> Result<Report> {
            result
        }

        fn replace_learning_rate(&mut self, _: gradus::Hyper) {}

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

        fn layout(&self) -> Option<&std::sync::Arc<gradus::params::Layout>> {
            None
        }

        fn write_state(&self, _: &mut gradus::StateWriter<'_>) {}

        fn read_state<'s>(&'s mut self, _: &mut gradus::StateReader<'_>) -> Result<gradus::Commit<'s>> {
            Ok(gradus::Commit::nothing())
        }
    }

    let asked = |ranks: usize, by_tensor: bool| {
        ThreadGroup::run(ranks, |group| {
            let opt = Asks(Vec::new()).lookahead(1, 0.5).sharded(group);
            let mut opt = if by_tensor { opt.by_tensor() } else { opt };
            opt.step(&mut tree(1.0), &grads(1.0)).unwrap();
            opt.into_inner().into_inner().0
        })
    };
    assert_eq!(asked(2, false), vec![vec![true; 2]; 2]);
    assert_eq!(asked(2, true), vec![vec![false; 2]; 2]);
    assert_eq!(asked(1, false), vec![vec![false; 2]]);
}

#[test]
fn a_rank_that_leaves_is_an_error_on_all() {
    let ends = ThreadGroup::run(RANKS, |group| {
        let rank = group.rank();
        let mut opt = AdamW::new(0.1).clip_global_norm(1.0).sharded(group.timeout(Duration::from_secs(20)));
        let mut params = tree(1.0);
        opt.step(&mut params, &grads(1.0)).unwrap();
        if rank == ODD {
            return None;
        }
        Some(step(&mut opt, &mut params, &grads(1.0)))
    });
    for (result, changed) in ends.into_iter().flatten() {
        assert_eq!((result, changed), (Err(Error::Ranks(RankError::RankLeft { rank: ODD })), false));
    }
}

/// A group of which one call fails, the same on all ranks.
struct Breaks {
    group: ThreadGroup,
    calls: AtomicUsize,
    at: usize,
}

impl Breaks {
    fn call<T>(&self, call: impl FnOnce(&ThreadGroup) -> Result<T>) -> Result<T> {
        match self.calls.fetch_add(1, Ordering::Relaxed) == self.at {
            true => Err(Error::Ranks(RankError::Transport { operation: "a call", reason: "the cable is out".into() })),
            false => call(&self.group),
        }
    }
}

impl gradus::distributed::RankGroup for Breaks {
    fn rank(&self) -> usize {
        self.group.rank()
    }

    fn size(&self) -> usize {
        self.group.size()
    }

    fn barrier(&self) -> Result<()> {
        self.call(|group| group.barrier())
    }

    fn all_gather_bytes(&self, own: &[u8], all: &mut [u8]) -> Result<()> {
        self.call(|group| group.all_gather_bytes(own, all))
    }
}

impl Collective<f64> for Breaks {
    fn all_reduce(&self, values: &mut [f64]) -> Result<()> {
        self.call(|group| group.all_reduce(values))
    }

    fn reduce_scatter(&self, values: &[f64], own: &mut [f64]) -> Result<()> {
        self.call(|group| group.reduce_scatter(values, own))
    }

    fn all_gather(&self, own: &[f64], all: &mut [f64]) -> Result<()> {
        self.call(|group| group.all_gather(own, all))
    }

    fn broadcast(&self, values: &mut [f64], root: usize) -> Result<()> {
        self.call(|group| group.broadcast(values, root))
    }
}

/// Whichever call of a step fails, nothing has changed, and the next step goes well; but after the last one the state is a step ahead,
/// and says so.
#[test]
fn whichever_call_fails_the_parameters_are_what_they_were() {
    /// To agree, the gradients' sums, the parameters of rank 0, to agree about the sums, the norm when asked, to agree again, the norm,
    /// the parameters.
    const CALLS: usize = 8;
    for at in 0..CALLS {
        ThreadGroup::run(2, |group| {
            let breaks = Breaks { group, calls: AtomicUsize::new(0), at };
            let mut opt = AdamW::new(0.1).clip_global_norm(1.0).sharded(&breaks);
            let (mut params, saved) = (tree(1.0), opt.state_dict());
            let (result, changed) = step(&mut opt, &mut params, &grads(1.0));
            let broken = Error::Ranks(RankError::Transport { operation: "a call", reason: "the cable is out".into() });
            assert!(result == Err(broken.clone()) && params == tree(1.0), "call {at}");
            assert_eq!(changed, at + 1 == CALLS, "call {at}");
            if changed {
                assert_eq!(opt.step(&mut params, &grads(1.0)).unwrap_err(), broken);
                let torn = opt.state_dict();
                let message = opt.load_state_dict(&torn).unwrap_err().to_string();
                assert!(message.starts_with("entry \"sharded/parameters\" is \"torn\""), "{message}");
                opt.load_state_dict(&saved).unwrap();
            }
            assert!(opt.step(&mut params, &grads(1.0)).unwrap().moved && params != tree(1.0), "call {at}");
        });
    }
    // All are counted, and parameters are only broadcast once.
    ThreadGroup::run(2, |group| {
        let sound = Breaks { group, calls: AtomicUsize::new(0), at: usize::MAX };
        let mut opt = AdamW::new(0.1).clip_global_norm(1.0).sharded(&sound);
        for calls in [CALLS, CALLS + CALLS - 1] {
            opt.step(&mut tree(1.0), &grads(1.0)).unwrap();
            assert_eq!(sound.calls.load(Ordering::Relaxed), calls);
        }
    });
}

/// A check asks nobody, and has no opinion on gradients that the other ranks do not have.
#[test]
fn a_check_on_one_rank_returns() {
    ThreadGroup::run(2, |group| {
        let rank = group.rank();
        let sharded = || Muon::new(0.1).clip_per_tensor_norm(1.0).sharded(&group);
        let (mut opt, mut params) = (sharded().by_tensor(), tree(1.0));
        let nan = with_nan();
        if rank == 0 {
            let step = Step::pair(&mut params, &nan, None).unwrap();
            opt.check(&step).unwrap();
            // What all ranks know one can say.
            assert!(matches!(sharded().check(&step), Err(Error::Ranks(RankError::CutTensors { .. }))));
            let centralized = Sgd::new(0.1).centralize().sharded(&group);
            let error = centralized.check(&step).unwrap_err();
            assert_eq!(error, Error::Ranks(RankError::CutTensors { name: "centralize" }));
        }
        group.barrier().unwrap();
        opt.broadcast(&mut params).unwrap();
    });
}

#[test]
fn boxed_inside_and_outside() {
    let ends = ThreadGroup::run(2, |group| {
        let inside: Box<dyn Optimizer<f64>> = Box::new(Sgd::new(0.5));
        let mut outside: Box<dyn Optimizer<f64>> = Box::new(inside.sharded(group));
        let mut params = tree(1.0);
        outside.step(&mut params, &grads(1.0)).map(|_| params)
    });
    assert!(ends.into_iter().all(|end| end == Ok(tree(0.5))));
}

/// Buffers remember nothing of a step on other parameters that was refused.
#[test]
fn a_refused_first_step_leaves_nothing_behind() {
    ThreadGroup::run(2, |group| {
        let mut opt = Sgd::new(1.0).sharded(group);
        let nan = Array1::from_elem(5001, f64::NAN);
        opt.step(&mut Array1::zeros(5001), &nan).unwrap_err();
        // Ranges of 512 and 513 elements: the first has a place to spare.
        let mut params = Array1::zeros(1025);
        opt.step(&mut params, &Array1::ones(1025)).unwrap();
        assert!(params.iter().all(|param| *param == -1.0));
    });
}
