//! Numbers near the largest, counters at their last use, and optimizers that refuse on one rank: a round is whole or has not been.

use std::sync::Arc;

use gradus::distributed::{RankGroup as _, ThreadGroup};
use gradus::error::{ArgumentError, FederatedError, RankError, StateError, StepError};
use gradus::federated::privacy::{Accountant, GaussianMechanism, PerExample};
use gradus::federated::secure::{FixedPoint, MaskedSum, Masker};
use gradus::federated::{
    Client, Failure, FedAdagrad, FedAdam, FedYogi, Ranks, Server, Simulation, Task, Tensors, Update,
};
use gradus::params::Layout;
use gradus::prelude::*;
use gradus::{Commit, Error, LinearTap, Report, Result, StateDict, StateReader, StateWriter, Step};
use ndarray::{Array1, array};

type Vector = Array1<f32>;

fn bits(model: &Vector) -> Vec<u32> {
    model.iter().map(|value| value.to_bits()).collect()
}

fn adding(change: f32) -> impl Client<Vector> + 'static {
    move |task: &Task<Vector>| Ok::<_, Failure>(Update::new(task.model() + change, 1.0))
}

/// Every server optimizer, with clients whose finite changes lead out of the numbers of f32: the first that would is refused.
#[test]
fn the_model_and_the_state_of_a_server_stay_finite() {
    type Make = fn() -> Box<dyn Optimizer<f32>>;
    let makes: [(&str, Make); 9] = [
        ("FedAvg", || Box::new(Sgd::new(2.0))),
        ("FedAvg, decay", || Box::new(Sgd::new(1.0).weight_decay(5.0))),
        ("FedAvgM", || Box::new(Momentum::new(1.0, 0.9))),
        ("Nesterov", || Box::new(Nesterov::new(1.0, 0.9))),
        ("FedAdagrad", || Box::new(FedAdagrad::new(0.1))),
        ("FedAdam", || Box::new(FedAdam::new(0.1))),
        ("FedYogi", || Box::new(FedYogi::new(0.1))),
        ("AdamW, averaged", || Box::new(AdamW::new(0.1).ema(0.9))),
        ("gathered", || Box::new(Sgd::new(1.0).accumulate(3).sum(true))),
    ];
    for (name, make) in makes {
        let mut refused = 0;
        for change in [7e37_f32, 1e38, 1e20, -2e38] {
            let (mut server, mut model) = (Server::new(make()), array![1.0_f32, 0.5]);
            let mut clients = Simulation::new([adding(change), adding(change)]);
            for _ in 0..8 {
                let (before, state) = (bits(&model), server.state_dict());
                match server.round(&mut model, &mut clients) {
                    Ok(_) => assert!(model.iter().all(|value| value.is_finite()), "{name}: {model}"),
                    Err(error) => {
                        let told = matches!(
                            error,
                            Error::Step(StepError::NonFiniteParameter { .. })
                                | Error::State(StateError::EntryValue { .. })
                        );
                        assert!(told, "{name}: {error}");
                        assert_eq!(bits(&model), before, "{name}");
                        assert!(server.state_dict() == state, "{name}: a trace");
                        refused += 1;
                    }
                }
            }
        }
        assert!(refused > 0, "{name} was never refused");
    }
    // The second moment of FedAdam: infinite, it would hold the element for good.
    let (mut server, mut model) = (Server::new(FedAdam::new(0.1)), array![1.0_f32, 0.5]);
    let error = server.round(&mut model, &mut Simulation::new([adding(1e20)])).unwrap_err();
    assert_eq!(error.to_string(), "entry \"fedadam/exp_avg_sq/\" is \"inf\"; it must be finite");
    let report = server.round(&mut model, &mut Simulation::new([adding(1.0)])).unwrap();
    assert!(report.moved && report.round == 0 && model[0] > 1.0);
}

/// The same on ranks, of which all refuse.
#[test]
fn all_ranks_refuse_what_would_not_be_finite() {
    ThreadGroup::run(3, |group| {
        let rank = group.rank();
        let mut clients = Ranks::new(&group, Simulation::new([adding(if rank == 1 { 2e37 } else { 1e37 })])).unwrap();
        let (mut server, mut model) = (Server::new(Momentum::new(20.0, 0.9).sharded(&group)), array![1e38_f32, 0.0]);
        let state = server.state_dict();
        let error = server.round(&mut model, &mut clients).unwrap_err();
        assert!(matches!(error, Error::Step(StepError::NonFiniteParameter { .. })), "{error}");
        assert_eq!((&model, server.rounds()), (&array![1e38, 0.0], 0));
        assert!(server.state_dict() == state);
        let mut model = array![-1e38_f32, -1e38];
        assert!(server.round(&mut model, &mut clients).unwrap().moved);
    });
}

/// An optimizer that refuses at the last moment.
struct Late(bool);

impl<A: Element> Optimizer<A> for Late {
    fn check(&self, _: &Step<'_, A>) -> Result<()> {
        Ok(())
    }

    fn apply(&mut self, _: Step<'_, A>) -> Result<Report> {
        if self.0 { Err(Error::Other("not on this rank".into())) } else { Ok(Report::new(0.0, true)) }
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

    fn layout(&self) -> Option<&Arc<Layout>> {
        None
    }

    fn write_state(&self, _: &mut StateWriter<'_>) {}

    fn read_state<'s>(&'s mut self, _: &mut StateReader<'_>) -> Result<Commit<'s>> {
        Ok(Commit::nothing())
    }
}

#[test]
fn an_optimizer_that_refuses_on_one_rank_ends_the_round_on_all() {
    let ends = ThreadGroup::run(3, |group| {
        let rank = group.rank();
        let mut clients = Ranks::new(group, Simulation::new([adding(1.0)])).unwrap();
        let (mut server, mut model) = (Server::new(Sgd::new(1.0).route("", Late(rank == 1))), array![1.0_f32]);
        let end = server.round(&mut model, &mut clients);
        assert_eq!((model, server.rounds()), (array![1.0], 0));
        end.unwrap_err()
    });
    let reason = || "not on this rank".to_owned();
    let heard = || Error::Ranks(RankError::RankRefused { rank: 1, reason: reason() });
    assert_eq!(ends, [heard(), Error::Other(reason()), heard()]);
}

/// A panic in a closure of the user, on one rank: the others hear that it has left.
#[test]
fn a_panic_on_one_rank_ends_the_round_on_all() {
    let groups = ThreadGroup::new(3).unwrap();
    let ends: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = groups
            .into_iter()
            .map(|group| {
                scope.spawn(move || {
                    let rank = group.rank();
                    let rate = move |_: u64| if rank == 1 { panic!("by intent") } else { 1.0 };
                    let mut clients = Ranks::new(group, Simulation::new([adding(1.0)])).unwrap();
                    let mut model = array![1.0_f32];
                    let end = Server::new(Sgd::new(rate)).round(&mut model, &mut clients);
                    assert_eq!(model, array![1.0]);
                    end.unwrap_err()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join()).collect()
    });
    for (rank, end) in ends.into_iter().enumerate() {
        match end {
            Ok(error) => assert_eq!(error, Error::Ranks(RankError::RankLeft { rank: 1 })),
            Err(_) => assert_eq!(rank, 1),
        }
    }
}

/// A client's own control variate: the round goes on.
#[test]
fn a_control_variate_that_overflows_is_not_sent() {
    let task = Task::new(0, array![0.0_f32]).with_control(Tensors::of(&array![1.0]).unwrap());
    let mut opt = Sgd::new(1e-30).scaffold();
    opt.begin_round(&task).unwrap();
    let mut w = task.model().clone();
    opt.step(&mut w, &array![3.0]).unwrap();
    let state = opt.state_dict();
    let error = opt.end_round(&array![1e10]).unwrap_err();
    assert_eq!(error.to_string(), "the change of the control variate is -inf at index [0]");
    assert!(opt.state_dict() == state);
    assert!(opt.end_round(&w).is_ok());
}

/// More clients than were expected, with changes near the largest: the mean has no number, the model stays.
#[test]
fn a_private_mean_that_overflows_moves_nothing() {
    let to = |task: &Task<Vector>| Ok::<_, Failure>(Update::new(task.model() + 3e38, 1.0));
    let mut clients = Simulation::new([to; 100]);
    let mechanism = GaussianMechanism::new(3e38, 1e-3, 0.01, 100).unwrap();
    let mut server = Server::new(Sgd::new(1.0)).private(mechanism);
    let mut refused = 0;
    for _ in 0..60 {
        let mut model = array![0.0_f32];
        match server.round(&mut model, &mut clients) {
            Ok(report) => assert!(report.counted.len() < 2 && model[0].is_finite()),
            Err(error) => {
                assert!(matches!(error, Error::Step(StepError::NonFiniteGradient { .. })), "{error}");
                assert_eq!(model, array![0.0]);
                refused += 1;
            }
        }
    }
    assert!(refused > 0, "two of 100 are sampled in every fourth round");
    assert_eq!(server.aggregation().accountant().spendings()[0].steps, 60);
}

#[test]
fn sums_beyond_the_element_type_are_refused() {
    let mut mechanism = GaussianMechanism::new(1e38, 1e-9, 0.01, 10).unwrap();
    let mut sum = (array![1.0_f32], array![[0.0, 1.0], [0.0, 1e38]].reversed_axes());
    let before = sum.clone();
    let error = mechanism.finish(&mut sum).unwrap_err();
    assert_eq!(error.to_string(), "gradient \"1\" is inf at index [1, 1]");
    assert_eq!(sum, before);
    assert_eq!(mechanism.accountant().spendings(), []);

    let (a, delta) = (ndarray::Array2::from_elem((4, 1), 1e19_f32), ndarray::Array2::from_elem((4, 1), 1e19_f32));
    let taps = PerExample::new().weight("w", LinearTap::new(&a, &delta)).unwrap();
    let error = taps.clip(3e38).unwrap_err();
    assert_eq!(error.to_string(), "gradient \"w\" is inf at index [0, 0]");
    assert!(taps.clip(1e37).is_ok());
}

#[cfg(feature = "half")]
#[test]
fn a_masked_sum_beyond_the_element_type_is_refused() {
    use half::f16;
    let format = FixedPoint::new(4, 3).unwrap();
    let mut sum = MaskedSum::new(format, 0, 0..3, 3).unwrap();
    for masker in &mut Masker::simulation(format).unwrap() {
        sum.add(&masker.mask(0, &(array![1.0], array![2.0, 30_000.0])).unwrap()).unwrap();
    }
    let one = f16::from_f32(1.0);
    let mut tree = (array![one], array![one, one]);
    let error = sum.unmask(&mut tree).unwrap_err();
    assert_eq!(error.to_string(), "parameter \"1\" is inf at index [1]");
    assert_eq!(tree, (array![one], array![one, one]));
    let mut wide = (array![0.0_f32], array![0.0, 0.0]);
    sum.unmask(&mut wide).unwrap();
    assert_eq!(wide, (array![3.0], array![6.0, 90_000.0]));
}

/// At its last use a counter is an error, before anyone is asked.
#[test]
fn counters_at_their_end() {
    let mut server = Server::new(Sgd::new(1.0));
    let mut model = array![0.0_f32];
    let mut clients = Simulation::new([adding(1.0)]);
    server.round(&mut model, &mut clients).unwrap();
    let mut state = server.state_dict();
    for (round, accepted) in [(u64::MAX - 1, true), (u64::MAX, false)] {
        state.insert_text("server/round", round);
        server.load_state_dict(&state).unwrap();
        let before = (bits(&model), server.state_dict());
        let end = server.round(&mut model, &mut clients);
        assert_eq!(end.is_ok(), accepted);
        if !accepted {
            assert_eq!(end, Err(Error::Step(StepError::CounterFull { counter: "rounds", path: None })));
            assert!((bits(&model), server.state_dict()) == before);
        }
    }

    let mut spent = Accountant::new();
    spent.steps(1.0, 1.0, u64::MAX).unwrap();
    assert!(matches!(spent.steps(1.0, 1.0, 1), Err(Error::Argument(ArgumentError::Range { argument: "steps", .. }))));
    assert!(spent.steps(1.0, 1.0, 0).is_ok() && spent.steps(0.5, 1.0, 1).is_ok());
    let mut mechanism = GaussianMechanism::new(1.0, 1.0, 1.0, 1).unwrap().resume(spent.clone());
    let mut sum = array![1.0_f32];
    assert!(mechanism.finish(&mut sum).is_err() && sum == array![1.0]);
    let mut server = Server::new(Sgd::new(1.0)).private(mechanism);
    let before = (bits(&model), server.state_dict());
    assert!(matches!(
        server.round(&mut model, &mut clients),
        Err(Error::Argument(ArgumentError::Range { argument: "steps", .. }))
    ));
    assert!((bits(&model), server.state_dict()) == before);
    assert_eq!(server.aggregation().accountant(), &spent);

    let full = |rank: usize| if rank == 1 { usize::MAX } else { 1 };
    let ends = ThreadGroup::run(2, |group| {
        let count = Many(full(group.rank()));
        Ranks::new::<Vector>(group, count).map(|ranks| ranks.own()).unwrap_err()
    });
    assert!(
        ends.iter().all(|end| matches!(end, Error::Argument(ArgumentError::Range { argument: "clients", .. }))),
        "{ends:?}"
    );
}

struct Many(usize);

impl gradus::federated::Clients<Vector> for Many {
    fn count(&self) -> usize {
        self.0
    }

    fn train(&mut self, _: Vec<(usize, Task<Vector>)>) -> Vec<gradus::federated::Reply<Vector>> {
        Vec::new()
    }
}

/// Five clients hide nobody: every report says so, in a number and in words.
#[test]
fn a_private_server_says_when_its_noise_is_too_large() {
    let round = |population: usize, elements: usize| {
        let mechanism = GaussianMechanism::new(1.0, 1.0, 1.0, population).unwrap();
        assert_eq!(mechanism.noise_ratio(elements), (elements as f64).sqrt() / population as f64);
        let mut server = Server::new(Sgd::new(1.0)).private(mechanism);
        let clients = (0..population).map(|_| adding(0.1));
        server.round(&mut Array1::zeros(elements), &mut Simulation::new(clients)).unwrap()
    };
    let few = round(5, 10_000);
    assert_eq!(few.noise, Some(20.0));
    let words = "round 0: 5 clients counted; the noise is 20.0 times as large as the largest mean change: 20.0 times as many clients would make them equal";
    assert_eq!(few.to_string(), words);
    let enough = round(200, 10_000);
    assert_eq!((enough.noise, enough.to_string().contains("noise")), (Some(0.5), false));
    let report = Server::new(Sgd::new(1.0)).round(&mut array![0.0_f32], &mut Simulation::new([adding(1.0)])).unwrap();
    assert_eq!(report.noise, None);
}

/// What a client's adaptor refuses before its round leaves no trace, whatever is around it and whether or not a state was loaded.
#[test]
fn a_step_before_the_round_leaves_no_trace() {
    type Make = fn() -> Box<dyn Optimizer<f32>>;
    let inner: [(&str, Make); 2] =
        [("proximal", || Box::new(Adam::new(0.1).proximal(0.1))), ("scaffold", || Box::new(Sgd::new(0.1).scaffold()))];
    type Around = fn(Box<dyn Optimizer<f32>>) -> Box<dyn Optimizer<f32>>;
    let around: [(&str, Around); 7] = [
        ("alone", |opt| opt),
        ("ema", |opt| Box::new(opt.ema(0.9))),
        ("lookahead", |opt| Box::new(opt.lookahead(2, 0.5))),
        ("swa", |opt| Box::new(opt.swa(0, 1))),
        ("accumulate", |opt| Box::new(opt.accumulate(2))),
        ("clip", |opt| Box::new(opt.clip_global_norm(1.0))),
        ("local_steps", |opt| Box::new(opt.local_steps(1, Sgd::new(1.0)))),
    ];
    for (name, make) in inner {
        for (outside, wrap) in around {
            let fresh = wrap(make()).state_dict();
            let mut of_a_file = StateDict::new(Some(Arc::new(Layout::of(&array![1.0_f32, 2.0]).unwrap())));
            fresh.keys().for_each(|key| of_a_file.insert_text(key, fresh.text(key).unwrap()));
            // A file has the parameters' layout also before the first step. Averages have tests of their own.
            let keeps_averages = ["ema", "lookahead", "swa"].contains(&outside);
            let states = [None, Some(&fresh), Some(&of_a_file).filter(|_| !keeps_averages)];
            for (loaded, state) in states.into_iter().enumerate() {
                let mut opt = wrap(make());
                state.into_iter().for_each(|state| opt.load_state_dict(state).unwrap());
                let (mut w, before, layout) = (array![1.0_f32, 2.0], opt.state_dict(), opt.layout().cloned());
                assert_eq!(
                    opt.step(&mut w, &array![1.0, 1.0]),
                    Err(Error::Federated(FederatedError::NoRound)),
                    "{name} in {outside}"
                );
                assert!(opt.state_dict() == before, "{name} in {outside}, loaded: {loaded}");
                assert_eq!(
                    (w, opt.steps(), opt.layout().cloned()),
                    (array![1.0, 2.0], 0, layout),
                    "{name} in {outside}"
                );
            }
        }
    }
}
