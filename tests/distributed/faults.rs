//! Calls that fail and ranks that die: the step ends on all, and nothing has changed.

use std::any::Any;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use gradus::distributed::compress::{Bf16, PowerSgd, TopK};
use gradus::distributed::{Collective, RankGroup, ThreadGroup};
use gradus::error::RankError;
use gradus::prelude::*;
use gradus::{Error, Result};
use ndarray::Array1;

use crate::ranks::{Engine, Regression, bits};

/// A group that fails at one of its calls, as an engine fails on all ranks, or whose rank dies there.
struct Faulty<G> {
    group: G,
    calls: AtomicUsize,
    at: usize,
    dies: bool,
}

impl<G: RankGroup> Faulty<G> {
    fn new(group: G, at: usize, dies: bool) -> Self {
        Self { group, calls: AtomicUsize::new(0), at, dies }
    }

    fn failure() -> Error {
        Error::Ranks(RankError::Transport { operation: "the cable", reason: "unplugged".into() })
    }

    fn call(&self) -> Result<()> {
        match self.calls.fetch_add(1, Ordering::Relaxed) == self.at {
            true if self.dies => std::panic::panic_any("killed"),
            true => Err(Self::failure()),
            false => Ok(()),
        }
    }
}

impl<G: RankGroup> RankGroup for Faulty<G> {
    fn rank(&self) -> usize {
        self.group.rank()
    }

    fn size(&self) -> usize {
        self.group.size()
    }

    fn barrier(&self) -> Result<()> {
        self.call()?;
        self.group.barrier()
    }

    fn all_gather_bytes(&self, own: &[u8], all: &mut [u8]) -> Result<()> {
        self.call()?;
        self.group.all_gather_bytes(own, all)
    }
}

impl<A, G: Collective<A>> Collective<A> for Faulty<G> {
    fn all_reduce(&self, values: &mut [A]) -> Result<()> {
        self.call()?;
        self.group.all_reduce(values)
    }

    fn reduce_scatter(&self, values: &[A], own: &mut [A]) -> Result<()> {
        self.call()?;
        self.group.reduce_scatter(values, own)
    }

    fn all_gather(&self, own: &[A], all: &mut [A]) -> Result<()> {
        self.call()?;
        self.group.all_gather(own, all)
    }

    fn broadcast(&self, values: &mut [A], root: usize) -> Result<()> {
        self.call()?;
        self.group.broadcast(values, root)
    }
}

type Boxed<'g> = Box<dyn Optimizer<f64> + 'g>;

type Way<G> = for<'g> fn(&'g G) -> Boxed<'g>;

/// All ways to train on several ranks.
fn ways<G: Collective<f64>>() -> [(&'static str, Way<G>); 7] {
    fn inner() -> impl Optimizer<f64> {
        AdamW::new(0.1).clip_global_norm(0.5).ema(0.9)
    }
    [
        ("data_parallel", |group| Box::new(inner().data_parallel(group).bucket_bytes(32).verify_every(2))),
        ("bf16", |group| Box::new(inner().data_parallel(group).compress(Bf16::new()))),
        ("top_k", |group| Box::new(inner().data_parallel(group).compress(TopK::new(0.5)))),
        ("power_sgd", |group| Box::new(inner().data_parallel(group).compress(PowerSgd::new(1)))),
        ("local_steps(1)", |group| Box::new(inner().local_steps(1, Sgd::new(0.7)).across(group).ema(0.5))),
        ("local_steps(2)", |group| Box::new(inner().local_steps(2, Nesterov::new(0.7, 0.9)).across(group).ema(0.5))),
        ("accumulate", |group| Box::new(inner().data_parallel(group).accumulate(2))),
    ]
}

/// Whatever call of the group fails, the step did not happen; the next goes on as if it had not been tried.
pub(crate) fn a_failed_call_leaves_no_trace<G: Engine>(group: &G) {
    const STEPS: usize = 4;
    let data = Regression::<f64>::new(8);
    let part = (group.rank(), group.size());
    for (undisturbed, faulty) in ways::<G>().into_iter().zip(ways::<Faulty<&G>>()) {
        let (name, make) = faulty;
        let start = || Regression::<f64>::start(group.rank() as u64);
        let (mut opt, mut expected) = (undisturbed.1(group), start());
        for call in 0..STEPS {
            let grads = data.part(&expected, call, part);
            opt.step(&mut expected, &grads).unwrap();
        }
        let mut failures = 0;
        for at in 0.. {
            let failing = Faulty::new(group, at, false);
            let (mut retried, mut params) = (make(&failing), start());
            for call in 0..STEPS {
                let grads = data.part(&params, call, part);
                let before = (bits(&params), retried.state_dict());
                if let Err(error) = retried.step(&mut params, &grads) {
                    assert_eq!(error, Faulty::<&G>::failure());
                    assert!((bits(&params), retried.state_dict()) == before, "{name}: call {at} failed in step {call}");
                    failures += 1;
                    retried.step(&mut params, &grads).unwrap();
                }
            }
            assert_eq!(bits(&params), bits(&expected), "{name}: call {at} failed");
            assert!(retried.state_dict() == opt.state_dict(), "{name}: call {at} failed");
            drop(retried);
            if failing.calls.into_inner() <= at {
                break;
            }
        }
        assert!(failures >= STEPS, "{name} failed only {failures} times");
    }
}

#[test]
fn a_failed_call_leaves_no_trace_on_2_threads() {
    ThreadGroup::run(2, |group| a_failed_call_leaves_no_trace(&group));
}

/// Runs ranks of which some may panic; what they return, or nothing.
fn survivors<T: Send>(size: usize, rank: impl Fn(ThreadGroup) -> T + Sync) -> Vec<Result<T, Box<dyn Any + Send>>> {
    let ranks = ThreadGroup::new(size).unwrap();
    std::thread::scope(|scope| {
        let threads: Vec<_> = ranks.into_iter().map(|own| scope.spawn(|| rank(own))).collect();
        threads.into_iter().map(|thread| thread.join()).collect()
    })
}

/// Trains until one rank is killed at one of its calls. The others end with an error that names it, their parameters as they were
/// before that step, and so their state, if it is not torn.
fn killed_at(at: usize, (name, make): (&str, Way<Faulty<ThreadGroup>>), tears: bool) {
    const DYING: usize = 1;
    let ends = survivors(3, |group| {
        let rank = group.rank();
        let group = Faulty::new(group, if rank == DYING { at } else { usize::MAX }, true);
        let data = Regression::<f64>::new(9);
        let (mut opt, mut params) = (make(&group), Regression::<f64>::start(rank as u64));
        for call in 0.. {
            let grads = data.part(&params, call, (rank, 3));
            let before = (bits(&params), opt.state_dict());
            if let Err(error) = opt.step(&mut params, &grads) {
                assert!(bits(&params) == before.0, "{name}: killed at call {at}");
                assert!(tears || opt.state_dict() == before.1, "{name}: killed at call {at}");
                return error;
            }
        }
        unreachable!("the loop only ends by an error")
    });
    for (rank, end) in ends.into_iter().enumerate() {
        match end {
            Err(panic) => assert_eq!((rank, panic.downcast_ref()), (DYING, Some(&"killed")), "{name}"),
            Ok(error) => assert_eq!(error, Error::Ranks(RankError::RankLeft { rank: DYING }), "{name}: rank {rank}"),
        }
    }
}

/// Acceptance: a rank is killed at any of its calls.
#[test]
fn a_killed_rank_ends_all() {
    for way in ways() {
        [0, 1, 2, 3, 5, 8].into_iter().for_each(|at| killed_at(at, way, false));
    }
}

/// At every call of a first and a second step: of these only the last is too late for the state.
#[test]
fn a_killed_rank_ends_all_that_share() {
    const CALLS: [usize; 2] = [8, 7];
    let sharded: Way<Faulty<ThreadGroup>> = |group| Box::new(AdamW::new(0.1).clip_global_norm(0.5).sharded(group));
    for at in 0..CALLS[0] + CALLS[1] {
        killed_at(at, ("sharded", sharded), [CALLS[0], CALLS[0] + CALLS[1]].contains(&(at + 1)));
    }
}

/// Acceptance: a rank that makes fewer steps and goes, and one that stays but does not come.
#[test]
fn a_rank_that_makes_fewer_steps() {
    let ends = ThreadGroup::run(3, |group| {
        let rank = group.rank();
        let mut opt = Momentum::new(0.1, 0.9).data_parallel(group);
        let (mut params, grads) = (Array1::<f64>::ones(3), Array1::ones(3));
        for _ in 0..if rank == 2 { 2 } else { 3 } {
            let before = (params.clone(), opt.state_dict());
            if let Err(error) = opt.step(&mut params, &grads) {
                assert!((params, opt.state_dict()) == before);
                return Some(error);
            }
        }
        None
    });
    assert_eq!(
        ends,
        [
            Some(Error::Ranks(RankError::RankLeft { rank: 2 })),
            Some(Error::Ranks(RankError::RankLeft { rank: 2 })),
            None
        ]
    );

    const PATIENCE: Duration = Duration::from_millis(50);
    let mut ranks = ThreadGroup::new(2).unwrap();
    let (absent, own) = (ranks.pop().unwrap(), ranks.pop().unwrap().timeout(PATIENCE));
    let mut opt = Momentum::new(0.1, 0.9).data_parallel(own);
    let mut params = Array1::<f64>::ones(3);
    let error = opt.step(&mut params, &Array1::ones(3)).unwrap_err();
    assert_eq!(
        error,
        Error::Ranks(RankError::RankTimeout { operation: "all_gather_bytes", waited: PATIENCE, missing: vec![1] })
    );
    assert_eq!((params, opt.steps()), (Array1::ones(3), 0));
    drop(absent);
}
