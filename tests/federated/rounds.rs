//! Rounds in which all goes well: what the model becomes, and who is asked.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gradus::error::ArgumentError;
use gradus::federated::{
    Aggregation, Client, Clients, Counted, Failure, FedAdam, Reply, Sample, Selection, Server, Simulation, Task, Update,
};
use gradus::prelude::*;
use gradus::{Commit, Error, Result, StateReader, StateWriter};
use ndarray::{Array1, Array2, array};

/// A tree with a matrix that does not lie row by row.
pub(crate) type Model = (Array2<f64>, Vec<Array1<f64>>);

pub(crate) fn model() -> Model {
    (Array2::from_shape_fn((3, 2), |(i, j)| i as f64 - 0.5 * j as f64).reversed_axes(), vec![array![1.0, -2.0]])
}

/// A client that pulls each element to a number of its own, and answers after a while.
pub(crate) fn client(number: usize) -> impl Client<Model> + 'static {
    move |task: &Task<Model>| {
        let (mut model, mut opt) = (task.model().clone(), Sgd::new(0.1));
        let target = (number as f64).sin();
        for _ in 0..3 {
            let grads = (&model.0 - target, vec![&model.1[0] - target]);
            opt.step(&mut model, &grads)?;
        }
        Ok::<_, Failure>(Update::new(model, 1.0 + number as f64))
    }
}

/// Each rounds a handful of times.
const TOLERANCE: f64 = 1e-14;

#[test]
fn a_round_is_the_weighted_mean() {
    let mut clients = Simulation::new((0..5).map(client)).threads(3);
    let (mut found, mut server) = (model(), Server::new(Sgd::new(1.0)));
    for round in 0..3 {
        let start = found.clone();
        let report = server.round(&mut found, &mut clients).unwrap();
        let counted: Vec<_> = (0..5).map(|client| Counted { client, weight: 1.0 + client as f64 }).collect();
        assert_eq!((report.round, report.moved, &report.counted), (round, true, &counted));
        assert!(report.left_out.is_empty() && report.step.unwrap().learning_rate == 1.0);

        let task = Task::new(0, start);
        let updates: Vec<_> = (0..5).map(|number| client(number).train(&task).unwrap()).collect();
        let sum = updates.iter().fold(Array2::zeros((2, 3)), |sum, one| sum + one.weight() * &one.params().0);
        assert!((&found.0 - sum / 15.0).iter().all(|difference: &f64| difference.abs() < TOLERANCE));
        let sum = updates.iter().fold(Array1::zeros(2), |sum, one| sum + one.weight() * &one.params().1[0]);
        assert!((&found.1[0] - sum / 15.0).iter().all(|difference: &f64| difference.abs() < TOLERANCE));
    }
    assert_eq!((server.rounds(), server.optimizer().steps()), (3, 3));
}

#[test]
fn the_order_of_arrival_does_not_change_the_bits() {
    let run = |slow: fn(usize) -> u64, threads: usize| {
        let late = move |number: usize| {
            let mut inner = client(number);
            move |task: &Task<Model>| {
                std::thread::sleep(Duration::from_millis(slow(number)));
                inner.train(task)
            }
        };
        let (mut clients, mut model) = (Simulation::new((0..6).map(late)).threads(threads), model());
        let mut server = Server::new(FedAdam::new(0.1));
        (0..2).for_each(|_| _ = server.round(&mut model, &mut clients).unwrap());
        model
    };
    let expected = run(|_| 0, 1);
    assert_eq!(run(|number| 6 * number as u64, 6), expected);
    assert_eq!(run(|number| 36 - 6 * number as u64, 6), expected);
}

#[test]
fn no_more_at_a_time_than_there_are_threads_which_stay() {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let names = Arc::new(Mutex::new(std::collections::HashSet::new()));
    let counting = |_: usize| {
        let (now, most, names) = (Arc::clone(&now), Arc::clone(&most), Arc::clone(&names));
        move |task: &Task<Array1<f64>>| {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            names.lock().unwrap().insert(std::thread::current().id());
            std::thread::sleep(Duration::from_millis(2));
            now.fetch_sub(1, Ordering::SeqCst);
            Ok::<_, Failure>(Update::new(task.model().clone(), 1.0))
        }
    };
    let mut clients = Simulation::new((0..9).map(counting)).threads(2);
    let (mut server, mut model) = (Server::new(Sgd::new(1.0)), array![0.0]);
    for _ in 0..3 {
        assert_eq!(server.round(&mut model, &mut clients).unwrap().counted.len(), 9);
    }
    assert!(most.load(Ordering::SeqCst) <= 2);
    assert!(names.lock().unwrap().len() <= 2);
}

#[test]
fn only_those_chosen_are_asked() {
    let mut sample = Sample::count(2).seed(5);
    let (mut clients, mut model) = (Simulation::new((0..7).map(client)), model());
    let mut server = Server::new(Sgd::new(1.0)).select(Sample::count(2).seed(5));
    for round in 0..5 {
        let report = server.round(&mut model, &mut clients).unwrap();
        let asked: Vec<_> = report.counted.iter().map(|counted| counted.client).collect();
        assert_eq!(asked, sample.select(7, round).unwrap());
    }
    let mut server = Server::new(Sgd::new(1.0)).select(Sample::count(8));
    let before = model.clone();
    assert!(matches!(
        server.round(&mut model, &mut clients),
        Err(Error::Argument(ArgumentError::Range { argument: "count", .. }))
    ));
    assert_eq!(model, before);
}

/// A choice of nobody moves nothing, and the next try of the same round makes another one.
#[test]
fn a_round_of_nobody_is_tried_anew() {
    let (mut clients, mut model) = (Simulation::new((0..3).map(client)), model());
    let mut server = Server::new(Sgd::new(1.0)).select(Sample::poisson(0.1).seed(2));
    let (mut empty, mut full) = (0, 0);
    for _ in 0..60 {
        let report = server.round(&mut model, &mut clients).unwrap();
        assert_eq!(report.round, full);
        if report.moved {
            full += 1
        } else {
            empty += 1
        }
        assert_eq!(report.moved, !report.counted.is_empty());
    }
    assert!(full > 5 && empty > 30, "{full} {empty}");
    assert_eq!(server.rounds(), full);
}

/// A user's own way to clients: no threads, and a map for a model.
#[test]
fn any_way_to_the_clients_will_do() {
    struct Here;

    impl Clients<BTreeMap<String, Array1<f32>>> for Here {
        fn count(&self) -> usize {
            2
        }

        fn train(
            &mut self,
            tasks: Vec<(usize, Task<BTreeMap<String, Array1<f32>>>)>,
        ) -> Vec<Reply<BTreeMap<String, Array1<f32>>>> {
            let answer = |(client, task): (usize, Task<BTreeMap<String, Array1<f32>>>)| {
                let mut model = task.model().clone();
                model.values_mut().for_each(|tensor| *tensor += 1.0 + client as f32);
                Reply::new(client, Update::new(model, 1.0))
            };
            tasks.into_iter().rev().map(answer).collect()
        }
    }

    let mut model = BTreeMap::from([("b".to_owned(), array![0.0_f32]), ("a.w".to_owned(), array![1.0, 2.0])]);
    let report = Server::new(Sgd::new(1.0)).round(&mut model, &mut Here).unwrap();
    assert!(report.moved && report.to_string() == "round 0: 2 clients counted");
    assert_eq!((&model["a.w"], &model["b"]), (&array![2.5, 3.5], &array![1.5]));
}

/// Limits every change, adds to the sum, and divides by a fixed number.
#[derive(Debug, Default)]
struct Limited {
    completed: u64,
    released: u64,
    moves: bool,
}

impl Aggregation for Limited {
    fn prepare(&mut self, change: &mut [f64], _: f64) -> f64 {
        change.iter_mut().for_each(|change| *change = change.clamp(-1.0, 1.0));
        1.0
    }

    fn complete(&mut self, sum: &mut [f64]) {
        self.completed += 1;
        sum.iter_mut().for_each(|sum| *sum += 0.5);
    }

    fn divisor(&self, _: f64) -> f64 {
        4.0
    }

    fn moves_without_answers(&self) -> bool {
        self.moves
    }

    fn released(&mut self) {
        self.released += 1;
    }

    fn write_state(&self, state: &mut StateWriter<'_>) {
        state.node("limited").value("released", self.released);
    }

    fn read_state<'s>(&'s mut self, state: &mut StateReader<'_>) -> Result<Commit<'s>> {
        let released = state.node("limited")?.value("released", "a count")?;
        Ok(Commit::new(move || self.released = released))
    }
}

#[test]
fn changes_can_be_put_together_in_another_way() {
    let far = |shift: f64| move |task: &Task<Array1<f64>>| Ok::<_, Failure>(Update::new(task.model() + shift, 9.0));
    let mut clients = Simulation::new([far(5.0), far(0.25)]);
    let (mut server, mut model) = (Server::new(Sgd::new(1.0)).aggregate_by(Limited::default()), array![0.0, 8.0]);
    let report = server.round(&mut model, &mut clients).unwrap();
    assert_eq!(report.counted[0].weight, 1.0);
    assert_eq!(model, array![0.4375, 8.4375]); // (1 + 0.25 + 0.5)/4
    assert_eq!((server.aggregation().completed, server.aggregation().released), (1, 1));

    let mut resumed = Server::new(Sgd::<f64>::new(1.0)).aggregate_by(Limited::default());
    resumed.load_state_dict(&server.state_dict()).unwrap();
    assert_eq!(resumed.aggregation().released, 1);
}

#[test]
fn a_round_of_nobody_moves_if_it_must() {
    let failing = |_: &Task<Array1<f64>>| Err::<Update<Array1<f64>>, _>(Failure::from("no data"));
    for moves in [false, true] {
        let limited = Limited { moves, ..Limited::default() };
        let (mut server, mut model) = (Server::new(Sgd::new(1.0)).aggregate_by(limited), array![1.0]);
        let report = server.round(&mut model, &mut Simulation::new([failing])).unwrap();
        assert_eq!(
            (report.moved, server.rounds(), model[0]),
            (moves, u64::from(moves), if moves { 1.125 } else { 1.0 })
        );
    }
}
