//! Numbers near the largest, tensors that change, adaptors inside each other, optimizers that refuse or panic on one rank alone, and
//! trees that show something else in every walk: a step is whole or has not been, on all ranks.

use std::sync::atomic::{AtomicUsize, Ordering};

use gradus::distributed::compress::{PowerSgd, TopK};
use gradus::distributed::{Alone, RankGroup as _, ThreadGroup};
use gradus::error::{FederatedError, RankError, StateError, StepError};
use gradus::params::{Visitor, VisitorMut};
use gradus::prelude::*;
use gradus::{Commit, Error, Report, Result, StateReader, StateWriter, Step};
use ndarray::{Array1, Array2, array};

use crate::ranks::{Regression, bits};

type Boxed<'g, A> = Box<dyn Optimizer<A> + 'g>;

/// A tensor of another shape than before, and one that is gone: the same error on whichever rank, in whichever step.
#[test]
fn local_steps_on_other_parameters() {
    fn refused(opt: &mut impl Optimizer<f64>, other: &mut dyn ParamsMut<Elem = f64>, grads: &dyn Params<Elem = f64>) {
        let before = (bits(&*other), opt.state_dict());
        let error = opt.step(other, grads).unwrap_err();
        assert!(
            matches!(
                error,
                Error::Step(StepError::ParametersChanged { .. }) | Error::Ranks(RankError::RankRefused { rank: 0, .. })
            ),
            "{error}"
        );
        assert!((bits(&*other), opt.state_dict()) == before);
    }
    for every in 1..4 {
        for taken in 1..4 {
            let alone = |opt: &mut gradus::distributed::LocalSteps<_, _, _, f64>| {
                let (mut w, g) = ((array![1.0], array![1.0, 1.0]), (array![1.0], array![1.0, 1.0]));
                (0..taken).for_each(|_| _ = opt.step(&mut w, &g).unwrap());
                let longer = || (array![1.0, 2.0], array![1.0, 1.0]);
                refused(opt, &mut longer(), &longer());
                let gone = || (array![1.0],);
                refused(opt, &mut gone(), &gone());
                assert!(opt.step(&mut w, &g).unwrap().moved);
            };
            alone(&mut Sgd::new(0.1).local_steps(every, Sgd::new(0.5)).across(Alone));
            ThreadGroup::run(2, |group| {
                let mut opt = Sgd::new(0.1).local_steps(every, Nesterov::new(0.5, 0.9)).across(group);
                let (mut w, g) = ((array![1.0], array![1.0, 1.0]), (array![1.0], array![1.0, 1.0]));
                (0..taken).for_each(|_| _ = opt.step(&mut w, &g).unwrap());
                let longer = || (array![1.0, 2.0], array![1.0, 1.0]);
                refused(&mut opt, &mut longer(), &longer());
                assert!(opt.step(&mut w, &g).unwrap().moved);
            });
        }
    }
}

/// Finite parameters and a finite mean change, from which the outer optimizer leads out of the numbers.
#[test]
fn anchors_stay_finite() {
    type Outer = fn() -> Boxed<'static, f32>;
    let outers: [(Outer, f32); 3] = [
        (|| Box::new(Sgd::new(3.0)), -1e38),
        (|| Box::new(Nesterov::new(2.5, 0.9)), -1e38),
        // The second moment alone.
        (|| Box::new(Adam::new(0.1)), 0.0),
    ];
    for (outer, begin) in outers {
        for ranks in [1, 2] {
            ThreadGroup::run(ranks, |group| {
                let mut opt = Sgd::new(1.0).local_steps(2, outer()).across(group).ema(0.5);
                let (mut w, g) = (array![begin, 1.0], array![if begin == 0.0 { 1e22_f32 } else { 5e37 }, 1.0]);
                opt.step(&mut w, &g).unwrap();
                let before = (w.clone(), opt.state_dict());
                for _ in 0..2 {
                    let error = opt.step(&mut w, &g).unwrap_err();
                    let told = matches!(
                        error,
                        Error::Step(StepError::NonFiniteParameter { .. }) | Error::State(StateError::EntryValue { .. })
                    );
                    assert!(told, "{error}");
                    assert!((w.clone(), opt.state_dict()) == before);
                }
                assert!(opt.step(&mut w, &array![-g[0], 1.0]).unwrap().moved && w.iter().all(|w| w.is_finite()));
            });
        }
    }
}

/// Finite parameters whose change since the last round, or the sum of changes of which each is finite, has no number.
#[test]
fn changes_that_overflow() {
    for ranks in [1, 2] {
        ThreadGroup::run(ranks, |group| {
            let mut opt = Sgd::new(1.0).local_steps(2, Sgd::new(1.0)).across(&group);
            // From one end of the numbers to the other; and half of that way, which is too far for two ranks together.
            for (begin, grads, refused) in [(-3e38_f32, [-3e38, -3e38], true), (-2e38, [0.0, -3e38], ranks == 2)] {
                let mut w = array![begin];
                opt.broadcast(&mut w).unwrap();
                opt.step(&mut w, &array![grads[0]]).unwrap();
                let before = (w.clone(), opt.state_dict());
                match opt.step(&mut w, &array![grads[1]]) {
                    Ok(_) => assert!(!refused && w[0].is_finite()),
                    Err(error) => {
                        assert!(
                            refused && matches!(error, Error::Step(StepError::NonFiniteParameter { .. })),
                            "{error}"
                        );
                        assert!((w, opt.state_dict()) == before);
                    }
                }
            }
        });
    }
}

/// An optimizer that accepts a step and then refuses it, or does not read what it has written, if it is told to; else Sgd.
struct Late<A> {
    inner: Sgd<A>,
    refuses: bool,
    is_illegible: bool,
}

impl<A: Scalar> Late<A> {
    fn new(refuses: bool) -> Self {
        Self { inner: Sgd::new(1.0), refuses, is_illegible: false }
    }
}

impl<A: Scalar> Optimizer<A> for Late<A> {
    fn check(&self, step: &Step<'_, A>) -> Result<()> {
        self.inner.check(step)
    }

    fn apply(&mut self, step: Step<'_, A>) -> Result<Report> {
        if self.refuses { Err(Error::Other("not on this rank".into())) } else { self.inner.apply(step) }
    }

    fn conclude(&mut self, result: Result<Report>) -> Result<Report> {
        self.inner.conclude(result)
    }

    fn replace_learning_rate(&mut self, learning_rate: gradus::Hyper) {
        self.inner.replace_learning_rate(learning_rate);
    }

    fn part(&self, of: std::any::TypeId) -> Option<&dyn std::any::Any> {
        self.inner.part(of)
    }

    fn part_mut(&mut self, of: std::any::TypeId) -> Option<&mut dyn std::any::Any> {
        self.inner.part_mut(of)
    }

    fn learning_rate(&self) -> f64 {
        1.0
    }

    fn steps(&self) -> u64 {
        self.inner.steps()
    }

    fn layout(&self) -> Option<&std::sync::Arc<gradus::params::Layout>> {
        self.inner.layout()
    }

    fn write_state(&self, state: &mut StateWriter<'_>) {
        self.inner.write_state(state);
    }

    fn read_state<'s>(&'s mut self, state: &mut StateReader<'_>) -> Result<Commit<'s>> {
        if self.is_illegible { Err(Error::Other("illegible".into())) } else { self.inner.read_state(state) }
    }
}

fn heard(rank: usize, error: &Error) {
    let reason = "not on this rank".to_owned();
    match rank {
        1 => assert_eq!(*error, Error::Other(reason)),
        _ => assert_eq!(*error, Error::Ranks(RankError::RankRefused { rank: 1, reason })),
    }
}

/// Inside and outside of local steps: nothing has changed, and the next round goes well.
#[test]
fn an_optimizer_that_refuses_a_round_on_one_rank() {
    ThreadGroup::run(3, |group| {
        let refuses = group.rank() == 1;
        for outside in [false, true] {
            let (inner, outer) = (Late::new(refuses && !outside), Late::new(refuses && outside));
            let mut opt = inner.local_steps(1, outer).across(&group);
            let (mut w, g) = (array![1.0_f64], array![1.0]);
            let before = (w.clone(), opt.state_dict());
            heard(group.rank(), &opt.step(&mut w, &g).unwrap_err());
            assert!((w.clone(), opt.state_dict()) == before);
            opt.inner_mut().refuses = false;
            opt.outer_mut().refuses = false;
            assert!(opt.step(&mut w, &g).unwrap().moved);
            assert_eq!(w, array![0.0]);
        }
    });
}

/// What cannot be put back is an error of its own, on the rank that has it.
#[test]
fn a_round_that_cannot_be_taken_back() {
    ThreadGroup::run(2, |group| {
        let is_odd = group.rank() == 1;
        for outside in [false, true] {
            let mut opt = Late::new(false).local_steps(1, Late::new(true)).across(&group);
            opt.inner_mut().is_illegible = is_odd && !outside;
            opt.outer_mut().is_illegible = is_odd && outside;
            let (mut w, g) = (array![1.0_f64], array![1.0]);
            let error = opt.step(&mut w, &g).unwrap_err();
            let reason = Box::new(Error::Other("not on this rank".into()));
            assert_eq!(error, if is_odd { Error::RefusedTooLate { reason } } else { *reason });
            assert_eq!(w, array![1.0]);
        }
    });
}

/// Inside `sharded` on one rank: parameters stay on all, and all know that state has parted. On all ranks: nothing has changed.
#[test]
fn an_optimizer_that_refuses_its_share() {
    ThreadGroup::run(3, |group| {
        let refuses = group.rank() == 1;
        let (mut w, g) = (Array1::<f64>::ones(2000), Array1::ones(2000));
        let mut opt = Late::new(refuses).sharded(&group);
        for _ in 0..2 {
            heard(group.rank(), &opt.step(&mut w, &g).unwrap_err());
            assert_eq!(w, g);
        }
        assert_eq!(opt.state_dict().text("sharded/parameters"), Some("torn"));

        let mut opt = Late::new(true).sharded(&group);
        let before = opt.state_dict();
        assert_eq!(opt.step(&mut w, &g).unwrap_err(), Error::Other("not on this rank".into()));
        assert!(w == g && opt.state_dict() == before);
        opt.inner_mut().refuses = false;
        assert!(opt.step(&mut w, &g).unwrap().moved && w == Array1::<f64>::zeros(2000));
    });
}

/// What speaks to ranks itself is refused inside `sharded` by all ranks, at every step, and nothing has changed.
#[test]
fn adaptors_that_do_not_go_inside_sharded() {
    for ranks in [1, 3] {
        ThreadGroup::run(ranks, |group| {
            let all: [(Boxed<'_, f64>, &str); 5] = [
                (
                    Box::new(Sgd::new(0.1).local_steps(1, Sgd::new(1.0))),
                    "write it after: `.sharded(group).local_steps(…)`",
                ),
                (
                    Box::new(Sgd::new(0.1).local_steps(5, Sgd::new(1.0)).across(&group)),
                    "write it after: `.sharded(group).local_steps(…)`",
                ),
                (Box::new(Sgd::new(0.1).data_parallel(&group)), "write it after: `.sharded(group).data_parallel(…)`"),
                (Box::new(Sgd::new(0.1).sharded(&group)), "write one `sharded`, over the group of all ranks"),
                (
                    Box::new(Sgd::new(0.1).sharded(&group).by_tensor().ema(0.5).accumulate(1)),
                    "write one `sharded`, over the group of all ranks",
                ),
            ];
            for (inner, instead) in all {
                let mut opt = inner.sharded(&group);
                let (mut w, g) = (Array1::<f64>::ones(600), Array1::ones(600));
                let before = opt.state_dict();
                for _ in 0..2 {
                    let error = opt.step(&mut w, &g).unwrap_err();
                    assert!(matches!(error, Error::Ranks(RankError::InsideSharded { .. })), "{error}");
                    assert!(error.to_string().ends_with(instead), "{error}");
                    assert!(w == g && opt.state_dict() == before);
                }
            }
            // The other way round each of them is of use.
            let mut opt = Momentum::new(0.1, 0.9).sharded(&group).local_steps(2, Sgd::new(1.0));
            let (mut w, g) = (Array1::<f64>::ones(600), Array1::ones(600));
            (0..4).for_each(|_| assert!(opt.step(&mut w, &g).unwrap().moved));
        });
    }
}

/// A closure of the user that panics on one rank: the others hear that it has left.
#[test]
fn a_panic_in_a_closure_on_one_rank() {
    type Make = fn(ThreadGroup) -> Boxed<'static, f64>;
    fn rate(group: &ThreadGroup) -> impl Fn(u64) -> f64 + Send + Sync + 'static {
        let dies = group.rank() == 1;
        move |step| if dies && step == 1 { panic!("by intent") } else { 0.1 }
    }
    let makes: [Make; 4] = [
        |group| Box::new(Adam::new(rate(&group)).data_parallel(group)),
        |group| Box::new(Adam::new(rate(&group)).sharded(group)),
        |group| Box::new(Adam::new(rate(&group)).local_steps(2, Sgd::new(1.0)).across(group)),
        |group| Box::new(Adam::new(rate(&group)).data_parallel(group).compress(TopK::new(0.5)).accumulate(1)),
    ];
    for make in makes {
        let ranks = ThreadGroup::new(3).unwrap();
        let ends: Vec<_> = std::thread::scope(|scope| {
            let train = |group: ThreadGroup| {
                let mut opt = make(group);
                let (mut w, g) = (Array1::<f64>::ones(3), Array1::ones(3));
                opt.step(&mut w, &g).unwrap();
                let before = (w.clone(), opt.state_dict());
                let error = opt.step(&mut w, &g).unwrap_err();
                assert!((w, opt.state_dict()) == before);
                error
            };
            let threads: Vec<_> = ranks.into_iter().map(|own| scope.spawn(move || train(own))).collect();
            threads.into_iter().map(|thread| thread.join()).collect()
        });
        for (rank, end) in ends.into_iter().enumerate() {
            match end {
                Ok(error) => assert_eq!(error, Error::Ranks(RankError::RankLeft { rank: 1 })),
                Err(_) => assert_eq!(rank, 1),
            }
        }
    }
}

/// Saved at any micro-batch, loaded, and as if it had never stopped; also where the ranks began with other parameters.
#[test]
fn compression_inside_accumulation_resumes_anywhere() {
    type Make = for<'g> fn(&'g ThreadGroup) -> Boxed<'g, f64>;
    let makes: [Make; 4] = [
        |group| Box::new(Momentum::new(0.1, 0.9).data_parallel(group).compress(PowerSgd::new(1)).accumulate(3)),
        |group| Box::new(Momentum::new(0.1, 0.9).data_parallel(group).compress(TopK::new(0.5)).accumulate(3)),
        |group| Box::new(Momentum::new(0.1, 0.9).data_parallel(group).verify_every(1).accumulate(3)),
        |group| Box::new(Momentum::new(0.1, 0.9).local_steps(2, Nesterov::new(0.7, 0.9)).across(group).accumulate(3)),
    ];
    ThreadGroup::run(2, |group| {
        let data = Regression::<f64>::new(8);
        let part = (group.rank(), 2);
        for make in makes {
            for stop in 0..8 {
                let run = |stops: bool| {
                    let (mut opt, mut params) = (make(&group), Regression::<f64>::start(group.rank() as u64));
                    for call in 0..9 {
                        if stops && call == stop {
                            let state = opt.state_dict();
                            opt = make(&group);
                            opt.load_state_dict(&state).unwrap();
                            assert!(opt.state_dict() == state);
                        }
                        let grads = data.part(&params, call, part);
                        opt.step(&mut params, &grads).unwrap();
                    }
                    (bits(&params), opt.state_dict())
                };
                assert!(run(true) == run(false), "stopped before call {stop}");
            }
        }
    });
}

/// What is saved of the parameters is the same number on every machine and in every version.
#[test]
fn a_fingerprint_stays_what_it_is() {
    let mut opt = Sgd::new(0.5).sharded(Alone);
    opt.step(&mut array![[1.0_f32, 2.0], [3.0, 4.0]], &array![[1.0, 1.0], [1.0, 1.0]]).unwrap();
    assert_eq!(opt.state_dict().text("sharded/parameters"), Some("4923f6e62f739dc4"));
}

/// A tree that shows another tensor from some walk on.
struct Liar {
    tensors: [Array2<f64>; 2],
    other: Array1<f64>,
    walks: AtomicUsize,
    from: usize,
    lie: usize,
}

impl Liar {
    fn new(from: usize, lie: usize) -> Self {
        let tensors = [Array2::ones((2, 2)), Array2::ones((1, 3))];
        Self { tensors, other: Array1::ones(5), walks: AtomicUsize::new(0), from, lie }
    }

    fn lies(&self) -> Option<usize> {
        (self.walks.fetch_add(1, Ordering::Relaxed) >= self.from).then_some(self.lie)
    }
}

impl Params for Liar {
    type Elem = f64;

    fn visit<'a>(&'a self, visitor: &mut Visitor<'_, 'a, f64>) {
        let (lies, [a, b]) = (self.lies(), &self.tensors);
        match lies {
            Some(0) => visitor.field("a", a),
            Some(1) => {
                [("a", a), ("b", b), ("c", a)].map(|(name, tensor)| visitor.field(name, tensor)).into_iter().collect()
            }
            Some(2) => {
                visitor.field("a", &self.other);
                visitor.field("b", b);
            }
            Some(3) => [("b", b), ("a", a)].map(|(name, tensor)| visitor.field(name, tensor)).into_iter().collect(),
            Some(_) => [("x", a), ("b", b)].map(|(name, tensor)| visitor.field(name, tensor)).into_iter().collect(),
            None => [("a", a), ("b", b)].map(|(name, tensor)| visitor.field(name, tensor)).into_iter().collect(),
        }
    }
}

impl ParamsMut for Liar {
    fn visit_mut<'a>(&'a mut self, visitor: &mut VisitorMut<'_, 'a, f64>) {
        let (lies, [a, b]) = (self.lies(), &mut self.tensors);
        match lies {
            Some(0) => visitor.field("a", a),
            Some(1) => {
                visitor.field("a", a);
                visitor.field("b", b);
                visitor.field("c", &mut self.other);
            }
            Some(2) => {
                visitor.field("a", &mut self.other);
                visitor.field("b", b);
            }
            Some(3) => {
                visitor.field("b", b);
                visitor.field("a", a);
            }
            Some(_) => {
                visitor.field("x", a);
                visitor.field("b", b);
            }
            None => {
                visitor.field("a", a);
                visitor.field("b", b);
            }
        }
    }
}

/// All ranks have the same liar, so that all make the same calls.
#[test]
fn liars_on_ranks() {
    type Make = for<'g> fn(&'g ThreadGroup) -> Boxed<'g, f64>;
    let makes: [Make; 5] = [
        |group| Box::new(Adam::new(0.1).data_parallel(group).verify_every(1)),
        |group| Box::new(Adam::new(0.1).data_parallel(group).compress(PowerSgd::new(1)).accumulate(2)),
        |group| Box::new(Adam::new(0.1).local_steps(2, Sgd::new(1.0)).across(group)),
        |group| Box::new(Adam::new(0.1).sharded(group)),
        |group| Box::new(Adam::new(0.1).sharded(group).by_tensor().local_steps(2, Sgd::new(1.0))),
    ];
    ThreadGroup::run(2, |group| {
        for make in makes {
            for (from, lie) in (0..6).flat_map(|from| (0..5).map(move |lie| (from, lie))) {
                let (mut opt, mut model) = (make(&group), Liar::new(from, lie));
                let grads = Liar::new(usize::MAX, 0);
                for _ in 0..4 {
                    let before = (model.tensors.clone(), opt.state_dict());
                    if opt.step(&mut model, &grads).is_err() {
                        assert!((model.tensors.clone(), opt.state_dict()) == before);
                    }
                    let lying = Liar::new(0, lie);
                    let mut honest = Liar::new(usize::MAX, 0);
                    let before = (honest.tensors.clone(), opt.state_dict());
                    if opt.step(&mut honest, &lying).is_err() {
                        assert!((honest.tensors.clone(), opt.state_dict()) == before);
                    }
                }
            }
        }
    });
}

/// What no optimizer inside has moved since the last round is left as it is, and what one rank has moved all get.
#[test]
fn local_steps_leave_what_does_not_move() {
    let chains: [fn() -> Boxed<'static, f64>; 3] = [
        || Box::new(Sgd::new(1.0).local_steps(2, Sgd::new(0.5))),
        || Box::new(Sgd::new(1.0).freeze("1").local_steps(2, Nesterov::new(0.5, 0.9).weight_decay(0.1))),
        || Box::new(Sgd::new(1.0).local_steps(1, Momentum::new(0.5, 0.9).weight_decay(0.1)).freeze("1")),
    ];
    for (chain, make) in chains.into_iter().enumerate() {
        let mut opt = make();
        let mut params = (array![0.0], array![0.0]);
        let grad = (chain > 0).then(|| array![1.0]);
        for call in 10..14 {
            params.1[0] = f64::from(call); // by hand
            assert!(opt.step(&mut params, &(array![1.0], &grad)).unwrap().moved);
            assert_eq!(params.1, array![f64::from(call)], "chain {chain}");
        }
    }
    // Moved in the first step of a round of two, on rank 0 only; and saved in between.
    for resumed in [false, true] {
        let ends = ThreadGroup::run(2, |group| {
            let fresh = || Sgd::new(1.0).local_steps(2, Sgd::new(1.0)).across(&group);
            let (mut opt, mut params) = (fresh(), (array![0.0], array![0.0], array![0.0]));
            let grad = (group.rank() == 0).then(|| array![4.0]);
            opt.step(&mut params, &(array![1.0], &grad, None::<Array1<f64>>)).unwrap();
            if resumed {
                let state = opt.state_dict();
                opt = fresh();
                opt.load_state_dict(&state).unwrap();
                assert!(opt.state_dict() == state);
            }
            params.2[0] = 7.0;
            opt.step(&mut params, &(array![1.0], None::<Array1<f64>>, None::<Array1<f64>>)).unwrap();
            (params, opt.traffic().last_step)
        });
        assert_eq!(ends, vec![((array![-2.0], array![-2.0], array![7.0]), 16); 2], "resumed: {resumed}");
    }
    // A round in which nothing has moved, with an outer optimizer that would.
    let mut opt = Sgd::new(1.0).local_steps(1, Momentum::new(1.0, 0.9));
    let mut w = array![0.0];
    opt.step(&mut w, &array![1.0]).unwrap();
    assert!(!opt.step(&mut w, &None::<Array1<f64>>).unwrap().moved);
    assert_eq!((w, opt.outer().steps()), (array![-1.0], 2));
}

/// An average outside follows what has moved inside: also what had a gradient before, and not what is frozen there.
#[test]
fn averages_follow_what_has_moved() {
    for (by_tensor, ranks) in [(false, 1), (false, 2), (true, 1), (true, 2)] {
        ThreadGroup::run(ranks, |group| {
            let inside = Sgd::new(1.0).freeze("2").accumulate(2).sum(true);
            let sharded = inside.sharded(&group);
            let sharded = if by_tensor { sharded.by_tensor() } else { sharded };
            let mut opt = sharded.ema(0.5);
            let mut params = (Array1::zeros(300), Array1::zeros(300), Array1::zeros(300));
            let (one, none) = (Array1::from_elem(300, 1.0), None::<Array1<f64>>);
            opt.step(&mut params, &(&one, &one, &one)).unwrap(); // gathered
            params.2.fill(8.0); // by hand
            assert!(opt.step(&mut params, &(&one, &none, &one)).unwrap().moved);
            let mut average = params.clone();
            opt.read(&mut average).unwrap();
            assert_eq!((params.0[0], params.1[299], params.2[0]), (-2.0, -1.0, 8.0));
            let found = (average.0[299], average.1[0], average.2[0]);
            assert_eq!(found, (-2.0, -1.0, 0.0), "by_tensor {by_tensor}, {ranks} ranks");
        });
    }
}

/// Matrices are each moved on one rank alone; averages and slow weights follow on all.
#[test]
fn averages_follow_matrices_of_other_ranks() {
    let run = |opt: &mut dyn Optimizer<f64>| {
        let matrix = |phase: f64| Array2::from_shape_fn((3, 4), |(i, j)| ((i * 4 + j) as f64 + phase).sin());
        let mut params = (matrix(0.0), matrix(0.5), matrix(0.9));
        for step in 1..=4 {
            let phase = f64::from(step);
            opt.step(&mut params, &(matrix(phase), matrix(phase + 0.2), matrix(phase + 0.4))).unwrap();
        }
        params
    };
    let build = || Muon::new(0.1).lookahead(2, 0.5);
    let expected = run(&mut build());
    let ends = ThreadGroup::run(2, |group| {
        let mut opt = Muon::new(0.1).sharded(&group).by_tensor().lookahead(2, 0.5);
        run(&mut opt)
    });
    assert!(ends.into_iter().all(|end| end == expected));
}

/// Beside another optimizer a branch is asked before either moves.
#[test]
fn what_is_inside_is_asked() {
    type Make = fn() -> Boxed<'static, f64>;
    let makes: [(&str, Make); 5] = [
        ("sharded", || Box::new(Sgd::new(1.0).proximal(0.1).sharded(Alone))),
        ("sharded, scaffold", || Box::new(Adam::new(0.1).scaffold().sharded(Alone).by_tensor())),
        ("sharded, a setting", || Box::new(Adam::new(f64::NAN).clip_global_norm(1.0).sharded(Alone))),
        ("data_parallel", || Box::new(Sgd::new(1.0).proximal(0.1).data_parallel(Alone))),
        ("local_steps", || Box::new(Sgd::new(1.0).proximal(0.1).local_steps(3, Sgd::new(1.0)))),
    ];
    for (name, make) in makes {
        let mut opt = Sgd::new(1.0).route("1", make());
        let (mut params, grads) = ((array![1.0], array![1.0, 2.0]), (array![1.0], array![1.0, 2.0]));
        let state = opt.state_dict();
        let error = opt.step(&mut params, &grads).unwrap_err();
        assert!(
            matches!(error, Error::Federated(FederatedError::NoRound) | Error::Step(StepError::HyperParameter { .. })),
            "{name}: {error}"
        );
        assert_eq!(params, (array![1.0], array![1.0, 2.0]), "{name}");
        assert!(opt.state_dict() == state, "{name}: a trace");
    }
}

/// A preview is to look at, also for what speaks to ranks.
#[test]
fn a_preview_is_never_applied() {
    fn refused(mut opt: impl Optimizer<f64>) {
        let (mut w, mut other, grads) = (array![1.0], array![2.0], array![1.0]);
        let step = Step::pair(&mut w, &grads, None).unwrap();
        let mut applied = Step::pair(&mut other, &grads, None).unwrap();
        let mut preview = step.preview();
        std::mem::swap(&mut applied, &mut preview);
        assert_eq!(opt.apply(applied), Err(Error::Step(StepError::Previewed)));
        drop(preview);
        drop(step);
        assert_eq!((w, other, opt.steps()), (array![1.0], array![2.0], 0));
    }
    refused(Sgd::new(0.1).sharded(Alone));
    refused(Sgd::new(0.1).data_parallel(Alone));
    refused(Sgd::new(0.1).local_steps(1, Sgd::new(1.0)));
    refused(Sgd::new(0.1).local_steps(3, Sgd::new(1.0)));
    ThreadGroup::run(2, |group| refused(Sgd::new(0.1).sharded(group)));
}

/// Knows the parameters of its steps, and leaves it to `step` to compare them.
#[derive(Debug, Default)]
struct Trusting(Option<std::sync::Arc<gradus::params::Layout>>, u64);

impl Optimizer<f64> for Trusting {
    fn check(&self, _: &Step<'_, f64>) -> Result<()> {
        Ok(())
    }

    fn apply(&mut self, mut step: Step<'_, f64>) -> Result<Report> {
        self.0 = Some(std::sync::Arc::clone(step.layout()));
        self.1 += 1;
        let moved = step.iter_mut().filter_map(|(info, tensor)| {
            Some(tensor.update(info, |mut param, grad| param -= &grad)).filter(|moved| *moved)
        });
        Ok(Report::new(1.0, moved.count() > 0))
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
        1.0
    }

    fn steps(&self) -> u64 {
        self.1
    }

    fn layout(&self) -> Option<&std::sync::Arc<gradus::params::Layout>> {
        self.0.as_ref()
    }

    fn write_state(&self, _: &mut StateWriter<'_>) {}

    fn read_state<'s>(&'s mut self, _: &mut StateReader<'_>) -> Result<Commit<'s>> {
        Ok(Commit::nothing())
    }
}

/// What has been trained before it was given to ranks still is of its own parameters.
#[test]
fn an_optimizer_that_was_used_before() {
    let used = || {
        let mut opt = Trusting::default();
        opt.step(&mut array![1.0], &array![1.0]).unwrap();
        opt
    };
    let makes: [Boxed<'static, f64>; 2] =
        [Box::new(used().data_parallel(Alone)), Box::new(used().local_steps(2, Sgd::new(1.0)))];
    for mut opt in makes {
        let mut other = array![1.0, 2.0];
        let error = opt.step(&mut other, &array![1.0, 1.0]).unwrap_err();
        assert!(matches!(error, Error::Step(StepError::ParametersChanged { .. })), "{error}");
        assert_eq!((other, opt.steps()), (array![1.0, 2.0], 1));
    }
}

/// One rank alone is asked about its gradients, too, and says what it would do.
#[test]
fn a_rank_alone_knows_its_gradients() {
    for policy in [NonFinite::Error, NonFinite::Skip] {
        let makes: [Boxed<'static, f64>; 2] = [
            Box::new(Sgd::new(1.0).data_parallel(Alone).non_finite(policy)),
            Box::new(Sgd::new(1.0).sharded(Alone).non_finite(policy)),
        ];
        for branch in makes {
            let mut opt = Sgd::new(1.0).check_finite().route("1", branch).route("0", Sgd::new(1.0));
            let (mut params, grads) = ((array![1.0], array![1.0]), (array![1.0], array![f64::NAN]));
            let state = opt.state_dict();
            match (policy, opt.step(&mut params, &grads)) {
                (NonFinite::Skip, result) => assert!(result.unwrap().moved && params == (array![0.0], array![1.0])),
                (_, result) => {
                    let error = result.unwrap_err();
                    assert!(
                        matches!(&error, Error::Step(StepError::NonFiniteGradient { path, .. }) if path == "1"),
                        "{error}"
                    );
                    assert!(params == (array![1.0], array![1.0]) && opt.state_dict() == state);
                }
            }
        }
    }
}
