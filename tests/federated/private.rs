//! Rounds whose noise hides who took part.

use gradus::distributed::{RankGroup, ThreadGroup};
use gradus::error::{FederatedError, StepError};
use gradus::federated::privacy::{Accountant, GaussianMechanism};
use gradus::federated::{Client, Failure, Ranks, Server, Simulation, Task, Update};
use gradus::{Error, prelude::*};
use ndarray::{Array1, array};

const CLIENTS: usize = 6;

fn mechanism(rate: f64) -> GaussianMechanism {
    GaussianMechanism::new(1.0, 0.8, rate, CLIENTS).unwrap()
}

fn clients(ids: impl IntoIterator<Item = usize>) -> Vec<Box<dyn Client<Array1<f64>>>> {
    let client = |id: usize| -> Box<dyn Client<Array1<f64>>> {
        Box::new(move |task: &Task<Array1<f64>>| {
            Ok::<_, Failure>(Update::new(task.model() + id as f64, 1.0 + id as f64))
        })
    };
    ids.into_iter().map(client).collect()
}

#[test]
fn every_round_is_on_the_account() {
    let mut clients = Simulation::new(clients(0..CLIENTS));
    let (mut server, mut model) = (Server::new(Sgd::new(1.0)).private(mechanism(0.5)), array![0.0, 0.0]);
    for _ in 0..5 {
        let before = model.clone();
        assert!(server.round(&mut model, &mut clients).unwrap().moved);
        assert!(before.iter().zip(&model).all(|(before, after)| before != after), "noise is on every element");
    }
    let mut expected = Accountant::new();
    expected.steps(0.5, 0.8, 5).unwrap();
    assert_eq!(server.aggregation().accountant(), &expected);
}

/// With a rate this small nobody is asked, and the model moves all the same.
#[test]
fn a_round_without_anyone_moves_by_noise() {
    let mut clients = Simulation::new(clients(0..CLIENTS));
    let (mut server, mut model) = (Server::new(Sgd::new(1.0)).private(mechanism(1e-12)), array![0.0]);
    let report = server.round(&mut model, &mut clients).unwrap();
    assert!(report.moved && report.counted.is_empty() && model[0] != 0.0, "{report}");
    assert_eq!(server.aggregation().accountant().spendings()[0].steps, 1);
}

#[test]
fn what_was_spent_is_in_the_state() {
    let mut clients = Simulation::new(clients(0..CLIENTS));
    let orders = || Accountant::new().orders([2.0, 3.0]).unwrap();
    let make = || Server::new(Sgd::new(1.0)).private(mechanism(0.3).resume(orders()));
    let (mut server, mut model) = (make(), array![0.0]);
    (0..3).for_each(|_| _ = server.round(&mut model, &mut clients).unwrap());
    let mut resumed = make();
    resumed.load_state_dict(&server.state_dict()).unwrap();
    assert_eq!(resumed.aggregation().accountant(), server.aggregation().accountant());
    assert_eq!(resumed.state_dict(), server.state_dict());
    assert_eq!(resumed.aggregation().epsilon(1e-5).unwrap().order, 3.0);

    let mut wrong = server.state_dict();
    wrong.insert_text("privacy/rate/0", 1.5);
    let before = resumed.state_dict();
    assert!(resumed.load_state_dict(&wrong).is_err());
    assert_eq!(resumed.state_dict(), before);
}

/// One rank draws the noise, and all have it.
#[test]
fn ranks_end_with_the_same_bits() {
    let ends = ThreadGroup::run(2, |group| {
        let rank = group.rank();
        let own = (0..CLIENTS).filter(|id| id % 2 == rank);
        let mut clients = Ranks::new(group, Simulation::new(clients(own))).unwrap();
        let (mut server, mut model) = (Server::new(Sgd::new(1.0)).private(mechanism(0.7)), array![0.0, 0.0, 0.0]);
        (0..4).for_each(|_| _ = server.round(&mut model, &mut clients).unwrap());
        assert_eq!(server.aggregation().accountant().spendings()[0].steps, 4);
        model.mapv(f64::to_bits)
    });
    assert_eq!(ends[0], ends[1]);
}

#[test]
fn what_would_not_be_private_is_refused() {
    let mut clients = Simulation::new(clients(0..CLIENTS + 1));
    let (mut server, mut model) = (Server::new(Sgd::new(1.0)).private(mechanism(0.5)), array![0.0]);
    let error = server.round(&mut model, &mut clients).unwrap_err();
    assert_eq!(error.to_string(), "population is 6; it must be the number of clients, 7");

    let mut server = Server::new(Sgd::new(1.0)).private(mechanism(0.5)).scaffold();
    let error = server.round(&mut model, &mut clients).unwrap_err();
    assert_eq!(error, Error::Federated(FederatedError::ControlNotPrivate));
    let said = "scaffold() and private() cannot be combined: control variates are sums without noise";
    assert_eq!(error.to_string(), said);
    assert_eq!(model, array![0.0]);
    assert_eq!(server.aggregation().accountant(), &Accountant::new());
}

/// The noisy sum is there before the model moves by it: a round that fails later is on the account.
#[test]
fn a_round_that_fails_after_its_sum_is_on_the_account() {
    struct Broken;

    impl Optimizer<f64> for Broken {
        fn check(&self, _: &gradus::Step<'_, f64>) -> gradus::Result<()> {
            Ok(())
        }

        fn apply(&mut self, _: gradus::Step<'_, f64>) -> gradus::Result<gradus::Report> {
            Err(Error::Step(StepError::NoStep))
        }

        fn conclude(&mut self, result: gradus::Result<gradus::Report>) -> gradus::Result<gradus::Report> {
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
            0
        }

        fn layout(&self) -> Option<&std::sync::Arc<gradus::params::Layout>> {
            None
        }

        fn write_state(&self, _: &mut gradus::StateWriter<'_>) {}

        fn read_state<'s>(&'s mut self, _: &mut gradus::StateReader<'_>) -> gradus::Result<gradus::Commit<'s>> {
            Ok(gradus::Commit::nothing())
        }
    }

    let mut clients = Simulation::new(clients(0..CLIENTS));
    let (mut server, mut model) = (Server::new(Broken).private(mechanism(0.5)), array![3.0]);
    for failed in 1..=2 {
        assert_eq!(server.round(&mut model, &mut clients), Err(Error::Step(StepError::NoStep)));
        assert_eq!((model[0], server.rounds()), (3.0, 0));
        assert_eq!(server.aggregation().accountant().spendings()[0].steps, failed);
    }
}

/// What was told once cannot be taken back: an older state does not lower the account.
#[test]
fn the_account_of_a_living_server_never_falls() {
    let mut clients = Simulation::new(clients(0..CLIENTS));
    let (mut server, mut model) = (Server::new(Sgd::new(1.0)).private(mechanism(0.5)), array![0.0]);
    server.round(&mut model, &mut clients).unwrap();
    let (state, at) = (server.state_dict(), model.clone());
    (0..2).for_each(|_| _ = server.round(&mut model, &mut clients).unwrap());
    server.load_state_dict(&state).unwrap();
    assert_eq!((server.rounds(), server.aggregation().accountant().spendings()[0].steps), (1, 3));
    let later = model.clone();
    model = at;
    (0..2).for_each(|_| _ = server.round(&mut model, &mut clients).unwrap());
    assert_eq!(server.aggregation().accountant().spendings()[0].steps, 5);
    assert_ne!(model, later, "choices and noise after it are new");

    // One that has spent in another way, too.
    let mut other = Accountant::new();
    other.steps(0.1, 2.0, 7).unwrap();
    let mut resumed: Server<Sgd<f64>, f64, _> = Server::new(Sgd::new(1.0)).private(mechanism(0.5).resume(other));
    resumed.load_state_dict(&state).unwrap();
    let steps: Vec<_> = resumed.aggregation().accountant().spendings().iter().map(|spent| spent.steps).collect();
    assert_eq!(steps, [1, 7]);
}

/// A change beyond all numbers counts as none, and nobody learns of it by an error.
#[test]
fn a_change_without_a_norm_is_no_change() {
    let huge = |task: &Task<Array1<f64>>| Ok::<_, Failure>(Update::new(task.model() + 1.7e308, 1.0));
    let mechanism = GaussianMechanism::new(1.0, 1e-9, 1.0, 2).unwrap();
    let (mut server, mut model) = (Server::new(Sgd::new(1.0)).private(mechanism), array![0.0, 0.0]);
    let report = server.round(&mut model, &mut Simulation::new([huge; 2])).unwrap();
    assert_eq!(report.counted.len(), 2);
    assert!(model.iter().all(|value| value.abs() < 1e-6 && *value != 0.0), "{model}"); // noise of 5e-10
}
