//! Clients on the ranks of a group: the same as on one, and what happens when a rank is gone.

use std::time::{Duration, Instant};

use gradus::distributed::{RankGroup, ThreadGroup};
use gradus::error::{RankError, StepError};
use gradus::federated::privacy::{Accountant, GaussianMechanism};
use gradus::federated::{
    Aggregation, Client, Clients, Failure, FedAdam, FedYogi, Ranks, Reason, Reply, RoundReport, Sample, Server,
    Simulation, Task, Tensors, Update,
};
use gradus::prelude::*;
use gradus::{Error, Result, StateDict};
use ndarray::{Array1, array};

use super::rounds::{Model, client, model};

const CLIENTS: usize = 7;

/// Sums in another order round otherwise; three rounds pass that on.
const OTHER_ORDER: f64 = 1e-12;

/// Three rounds in which some are chosen and one fails.
fn run<C: Clients<Model>>(mut clients: C) -> (Model, StateDict, Vec<RoundReport>) {
    let (mut server, mut model) = (Server::new(FedAdam::new(0.1)).select(Sample::count(5).seed(3)), model());
    let reports = (0..3).map(|_| server.round(&mut model, &mut clients).unwrap()).collect();
    (model, server.state_dict(), reports)
}

fn failing(number: usize) -> Box<dyn Client<Model>> {
    match number {
        2 => Box::new(|_: &Task<Model>| Err(Failure::from("no data"))),
        _ => Box::new(client(number)),
    }
}

#[test]
fn ranks_do_what_one_process_does() {
    let (expected, _, reports) = run(Simulation::new((0..CLIENTS).map(failing)).threads(2));
    assert!(reports.iter().any(|report| report.left_out.iter().any(|out| out.client == 2)));
    for size in [1, 2, 4] {
        let ends = ThreadGroup::run(size, |group| {
            // The clients rank by rank, as even as may be.
            let (rank, size) = (group.rank(), group.size());
            let own = CLIENTS * rank / size..CLIENTS * (rank + 1) / size;
            let clients = Ranks::new(group, Simulation::new(own.clone().map(failing)).threads(1)).unwrap();
            assert_eq!(clients.own(), own);
            run(clients)
        });
        for (model, state, found) in &ends {
            assert_eq!((model, found), (&ends[0].0, &ends[0].2));
            assert!(*state == ends[0].1);
            assert_eq!(*found, reports, "{size} ranks");
            let close = |(a, b): (&f64, &f64)| (a - b).abs() < OTHER_ORDER;
            assert!(model.0.iter().zip(&expected.0).all(close) && model.1[0].iter().zip(&expected.1[0]).all(close));
        }
        assert!(size > 1 || ends[0].0 == expected, "one rank: the same bits");
    }
}

type Vector = Array1<f64>;

fn adding(shift: f64) -> impl Client<Vector> + 'static {
    move |task: &Task<Vector>| Ok::<_, Failure>(Update::new(task.model() + shift, 1.0))
}

/// Chance that is nobody's seed: the first rank's choice is everybody's.
#[test]
fn all_ranks_make_the_first_ones_choice() {
    let ends = ThreadGroup::run(3, |group| {
        let mut clients = Ranks::new(group, Simulation::new((0..4).map(|_| adding(1.0)))).unwrap();
        let (mut server, mut model) = (Server::new(FedYogi::new(0.1)).select(Sample::count(6)), array![0.0]);
        (0..4).map(|_| server.round(&mut model, &mut clients).unwrap()).collect::<Vec<_>>()
    });
    assert!(ends[0].iter().all(|report| report.counted.len() == 6));
    assert_eq!(ends[0], ends[1]);
    assert_eq!(ends[0], ends[2]);
}

/// What is added to the sum is added once, not on every rank.
#[test]
fn a_sum_is_completed_once() {
    struct One;

    impl Aggregation for One {
        fn complete(&mut self, sum: &mut [f64]) {
            sum[0] += 3.0;
        }
    }

    let ends = ThreadGroup::run(3, |group| {
        let mut clients = Ranks::new(group, Simulation::new([adding(1.0)])).unwrap();
        let (mut server, mut model) = (Server::new(Sgd::new(1.0)).aggregate_by(One), array![0.0]);
        server.round(&mut model, &mut clients).unwrap();
        model
    });
    assert_eq!(ends, vec![array![2.0]; 3]);
}

#[test]
fn a_round_without_a_valid_answer_changes_no_rank() {
    let ends = ThreadGroup::run(2, |group| {
        let mut clients = Ranks::new(group, Simulation::new([adding(f64::NAN)])).unwrap();
        let (mut server, mut model) = (Server::new(FedAdam::new(0.1)), array![7.0]);
        let state = server.state_dict();
        let report = server.round(&mut model, &mut clients).unwrap();
        assert!(server.state_dict() == state && model == array![7.0]);
        report
    });
    assert!(!ends[0].moved && ends[0] == ends[1]);
    assert_eq!(
        ends[0].left_out.iter().map(|out| (out.client, out.reason)).collect::<Vec<_>>(),
        [(0, Reason::NotFinite), (1, Reason::NotFinite)]
    );
}

#[test]
fn what_keeps_one_rank_from_a_round_keeps_all() {
    let round = |rate: f64, start: f64, group: ThreadGroup| {
        let mut clients = Ranks::new(group, Simulation::new([adding(1.0)]))?;
        let (mut server, mut model) = (Server::new(Sgd::new(rate)), array![start]);
        let end = server.round(&mut model, &mut clients);
        assert_eq!((model, server.rounds()), (array![start], 0));
        end
    };
    let refused = ThreadGroup::run(3, |group| round(if group.rank() == 1 { -1.0 } else { 1.0 }, 0.0, group));
    assert!(matches!(refused[1], Err(Error::Step(StepError::HyperParameter { name: "learning_rate", .. }))));
    for other in [0, 2] {
        assert!(
            matches!(&refused[other], Err(Error::Ranks(RankError::RankRefused { rank: 1, reason })) if reason.starts_with("learning_rate"))
        );
    }
    let differ = ThreadGroup::run(3, |group| round(1.0, if group.rank() == 2 { 0.5 } else { 0.0 }, group));
    assert!(differ.iter().all(|end| matches!(end, Err(Error::Ranks(RankError::RanksDisagree { rank: 2, .. })))));
}

/// A rank that dies before, or while its clients train: an error on the others, soon, and nothing has moved.
#[test]
fn a_rank_that_is_killed_ends_the_round_on_all() {
    const BOUND: Duration = Duration::from_secs(30); // half of the group's own timeout
    for round in [0, 1] {
        let began = Instant::now();
        let ends: Vec<Result<RoundReport>> = ThreadGroup::run(3, |group| {
            let rank = group.rank();
            let mut clients = Ranks::new(group, Simulation::new([adding(1.0)]))?;
            let (mut server, mut model) = (Server::new(FedAdam::new(0.1)), array![0.0]);
            if round == 1 {
                server.round(&mut model, &mut clients)?;
            }
            if rank == 1 {
                return Err(Error::Step(StepError::NoStep)); // dropping its place in the group
            }
            let (before, state) = (model.clone(), server.state_dict());
            let end = server.round(&mut model, &mut clients);
            assert!(model == before && server.state_dict() == state);
            end
        });
        for rank in [0, 2] {
            assert_eq!(ends[rank], Err(Error::Ranks(RankError::RankLeft { rank: 1 })), "in round {round}");
        }
        assert!(began.elapsed() < BOUND);
    }
}

/// The same in the middle of a round: the rank's own training ends it.
#[test]
fn a_rank_that_is_killed_while_it_trains_ends_the_round_on_all() {
    type Here = Simulation<Vector, Box<dyn Client<Vector>>>;

    struct Dying(Option<Ranks<ThreadGroup, Here>>);

    impl Clients<Vector> for Dying {
        fn count(&self) -> usize {
            self.0.as_ref().unwrap().count()
        }

        fn train(&mut self, tasks: Vec<(usize, Task<Vector>)>) -> Vec<Reply<Vector>> {
            assert_eq!(tasks.len(), 2);
            self.0 = None; // gone
            Vec::new()
        }

        fn exchange(&self, own: &[u8]) -> Result<Vec<Vec<u8>>> {
            self.0.as_ref().ok_or(Error::Step(StepError::NoStep))?.exchange(own)
        }
    }

    let ends = ThreadGroup::run(2, |group| {
        let dies = group.rank() == 1;
        let client: Box<dyn Client<Vector>> = Box::new(adding(1.0));
        let mut clients = Ranks::new(group, Simulation::new([client]))?;
        let (mut server, mut model) = (Server::new(Sgd::new(1.0)), array![0.0]);
        let end = match dies {
            true => server.round(&mut model, &mut Dying(Some(clients))),
            false => server.round(&mut model, &mut clients),
        };
        assert_eq!((model, server.rounds()), (array![0.0], 0));
        end
    });
    assert_eq!(ends, [Err(Error::Ranks(RankError::RankLeft { rank: 1 })), Err(Error::Step(StepError::NoStep))]);
}

/// What is not the model, but would make the ranks part: it is found before anyone trains.
#[test]
fn servers_that_differ_in_anything_find_out() {
    fn one_of_two<O: Optimizer<f64>, G: Aggregation>(make: impl Fn(bool) -> Server<O, f64, G> + Sync) {
        let ends = ThreadGroup::run(2, |group| {
            let other = group.rank() == 1;
            let mut clients = Ranks::new(group, Simulation::new([adding(1.0)]))?;
            make(other).round(&mut array![0.0], &mut clients)
        });
        assert!(
            ends.iter().all(|end| matches!(end, Err(Error::Ranks(RankError::RanksDisagree { rank: 1, .. })))),
            "{ends:?}"
        );
    }

    struct Scaled(f64);

    impl Aggregation for Scaled {
        fn divisor(&self, weights: f64) -> f64 {
            self.0 * weights
        }
    }

    struct Limited(f64);

    impl Aggregation for Limited {
        fn settings(&self) -> Vec<f64> {
            vec![self.0]
        }
    }

    let private = |clip, noise, rate| {
        let mechanism = GaussianMechanism::new(clip, noise, rate, 2).unwrap();
        Server::new(Sgd::new(1.0)).private(mechanism)
    };
    one_of_two(|other| Server::new(Sgd::new(if other { 0.5 } else { 1.0 })));
    one_of_two(|other| Server::new(Sgd::new(1.0)).aggregate_by(Scaled(if other { 0.5 } else { 1.0 })));
    one_of_two(|other| Server::new(Sgd::new(1.0)).aggregate_by(Limited(if other { 0.5 } else { 1.0 })));
    one_of_two(|other| private(if other { 0.5 } else { 1.0 }, 1.0, 0.5));
    one_of_two(|other| private(1.0, if other { 0.5 } else { 1.0 }, 0.5));
    one_of_two(|other| private(1.0, 1.0, if other { 0.5 } else { 0.6 }));
    one_of_two(|other| {
        let mut spent = Accountant::new();
        spent.steps(0.5, 1.0, if other { 3 } else { 4 }).unwrap();
        Server::new(Sgd::new(1.0)).private(GaussianMechanism::new(1.0, 1.0, 0.5, 2).unwrap().resume(spent))
    });
    // What SCAFFOLD remembers.
    let server = || Server::<Sgd<f64>, f64>::new(Sgd::new(1.0)).scaffold();
    let controlled = |task: &Task<Vector>| {
        let control = Tensors::of(&array![1.0]).unwrap();
        Ok::<_, Failure>(Update::new(task.model().clone(), 1.0).with_control(control))
    };
    let mut saved = server();
    saved.round(&mut array![0.0], &mut Simulation::new([controlled, controlled])).unwrap();
    let mut control = saved.state_dict();
    control.insert_tensor("server/control/", array![7.0].view());
    let known = saved.state_dict();
    let accepted = {
        let mut one = server();
        let failing = |_: &Task<Vector>| Err::<Update<Vector>, Failure>("no data".into());
        let clients: [Box<dyn Client<Vector>>; 2] = [Box::new(controlled), Box::new(failing)];
        one.round(&mut array![0.0], &mut Simulation::new(clients)).unwrap();
        let mut state = one.state_dict(); // of other clients accepted, and
        state.insert_tensor("server/control/", array![1.0].view()); // of the same control variate
        state
    };
    for other_state in [&control, &accepted] {
        one_of_two(|other| {
            let mut server = server();
            server.load_state_dict(if other { other_state } else { &known }).unwrap();
            server
        });
    }
}

/// A number that no client can have stays one that no client has.
#[test]
fn numbers_out_of_range_are_nobodys() {
    struct Wild;

    impl Clients<Vector> for Wild {
        fn count(&self) -> usize {
            1
        }

        fn train(&mut self, tasks: Vec<(usize, Task<Vector>)>) -> Vec<Reply<Vector>> {
            tasks.into_iter().map(|(_, task)| Reply::new(usize::MAX, Update::new(task.model() + 1.0, 1.0))).collect()
        }
    }

    let ends = ThreadGroup::run(2, |group| {
        let mut clients = Ranks::new(group, Wild).unwrap();
        Server::new(Sgd::new(1.0)).round(&mut array![0.0], &mut clients).unwrap()
    });
    let reasons: Vec<_> = ends[0].left_out.iter().map(|out| (out.client, out.reason)).collect();
    assert_eq!(reasons[..2], [(0, Reason::Silent), (1, Reason::Silent)]);
    assert_eq!(reasons[2..], [(usize::MAX, Reason::Unasked); 2]);
}

/// The numbers of a rank's clients are those of the beginning, whatever its clients say later.
#[test]
fn a_rank_has_the_clients_that_it_came_with() {
    struct Growing(std::cell::Cell<usize>);

    impl Clients<Vector> for Growing {
        fn count(&self) -> usize {
            self.0.set(self.0.get() + 1);
            self.0.get()
        }

        fn train(&mut self, tasks: Vec<(usize, Task<Vector>)>) -> Vec<Reply<Vector>> {
            tasks.into_iter().map(|(client, task)| Reply::new(client, Update::new(task.model() + 1.0, 1.0))).collect()
        }
    }

    let ends = ThreadGroup::run(2, |group| {
        let mut clients = Ranks::new(group, Growing(0.into())).unwrap();
        let own = clients.own();
        let report = Server::new(Sgd::new(1.0)).round(&mut array![0.0], &mut clients).unwrap();
        (own, report.left_out)
    });
    assert_eq!(ends, [(0..1, Vec::new()), (1..2, Vec::new())]);
}
