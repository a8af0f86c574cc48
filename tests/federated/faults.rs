//! Rounds in which clients fail in every way: the others go on, and who does not is named.

use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gradus::error::StepError;
use gradus::federated::{
    Client, Clients, Failure, FedAdam, LeftOut, Reason, Reply, Server, Simulation, Task, Tensors, Update,
};
use gradus::prelude::*;
use gradus::{Error, StateDict};
use ndarray::{Array1, array};

type Model = (Array1<f64>, Array1<f64>);

fn model() -> Model {
    (array![1.0, -0.0], array![3.0])
}

/// What comes back whatever is asked.
struct Script(Vec<fn(&Model) -> Reply<Model>>);

impl Clients<Model> for Script {
    fn count(&self) -> usize {
        20
    }

    fn train(&mut self, tasks: Vec<(usize, Task<Model>)>) -> Vec<Reply<Model>> {
        self.0.iter().map(|answer| answer(tasks[0].1.model())).collect()
    }
}

fn moved(client: usize, model: &Model, by: f64) -> Reply<Model> {
    Reply::new(client, Update::new((&model.0 + by, &model.1 + by), 1.0))
}

fn weighing(client: usize, model: &Model, weight: f64) -> Reply<Model> {
    Reply::new(client, Update::new(model.clone(), weight))
}

/// Everything that can be wrong with an answer, from the clients 1 to 12.
fn wrong() -> Vec<fn(&Model) -> Reply<Model>> {
    vec![
        |model| Reply::new(1, Update::new((array![1.0, f64::NAN], model.1.clone()), 1.0)),
        |model| Reply::new(2, Update::new((model.0.clone(), array![f64::INFINITY]), 1.0)),
        |model| Reply::new(3, Update::new((array![1.0], model.1.clone()), 1.0)),
        |model| weighing(4, model, 0.0),
        |model| weighing(5, model, f64::NAN),
        |model| weighing(6, model, -1.0),
        |model| moved(7, model, 100.0),
        |model| moved(7, model, 200.0),
        |model| moved(20, model, 100.0),
        |model| Reply::new(8, Update::new(model.clone(), 1.0).with_control(Tensors::of(model).unwrap())),
        |_| Reply::left_out(9, Reason::Failed, "no data"),
        |_| Reply::left_out(10, Reason::Late, ""),
        |model| Reply::new(11, Update::new((array![1e308, 0.0], model.1.clone()), 1.0)),
    ]
}

fn named(client: usize, reason: Reason, detail: &str) -> LeftOut {
    LeftOut { client, reason, detail: detail.into() }
}

fn reasons() -> Vec<LeftOut> {
    let mut named = vec![
        named(1, Reason::NotFinite, "\"0\" is NaN at index [1]"),
        named(2, Reason::NotFinite, "\"1\" is inf at index [0]"),
        named(
            3,
            Reason::OtherLayout,
            "the parameters have changed since the first step: expected \"0\" of shape [2], found \"0\" of shape [1]",
        ),
        named(4, Reason::Weight, "0"),
        named(5, Reason::Weight, "NaN"),
        named(6, Reason::Weight, "-1"),
        named(7, Reason::Duplicate, "2 answers"),
        named(8, Reason::Control, "the server has no control variate"),
        named(9, Reason::Failed, "no data"),
        named(10, Reason::Late, ""),
    ];
    named.extend((12..20).map(|client| LeftOut { client, reason: Reason::Silent, detail: String::new() }));
    named.push(self::named(20, Reason::Unasked, ""));
    named
}

/// The bits of a model.
fn bits(model: &Model) -> Vec<u64> {
    model.0.iter().chain(&model.1).map(|value| value.to_bits()).collect()
}

#[test]
fn the_round_goes_on_with_those_that_answered_validly() {
    let mut answers = wrong();
    answers.insert(3, |model| moved(0, model, 2.0));
    let (mut server, mut model) = (Server::new(Sgd::new(1.0)), model());
    answers.pop();
    answers.push(|model| moved(11, model, 4.0));
    let report = server.round(&mut model, &mut Script(answers)).unwrap();
    assert_eq!(model, (array![4.0, 3.0], array![6.0]));
    assert_eq!(report.counted.iter().map(|counted| counted.client).collect::<Vec<_>>(), [0, 11]);
    assert_eq!(report.left_out, reasons());
}

#[test]
fn without_a_valid_answer_nothing_changes() {
    let (mut server, mut model) = (Server::new(FedAdam::new(0.1)), model());
    let valid = || Script(vec![|model| moved(0, model, 2.0)]);
    server.round(&mut model, &mut valid()).unwrap();
    let (before, state): (_, StateDict) = (model.clone(), server.state_dict());
    let mut answers = wrong();
    answers.pop();
    for answers in [answers, Vec::new()] {
        let report = server.round(&mut model, &mut Script(answers)).unwrap();
        assert!(!report.moved && report.counted.is_empty() && report.step.is_none() && report.round == 1);
        assert_eq!(bits(&model), bits(&before));
        assert!(server.state_dict() == state);
    }
    let mut other = (Server::new(FedAdam::new(0.1)), self::model());
    (0..2).for_each(|_| _ = other.0.round(&mut other.1, &mut valid()).unwrap());
    server.round(&mut model, &mut valid()).unwrap();
    assert_eq!(bits(&model), bits(&other.1));
}

/// From a number near the largest the change to another near it may have no number.
#[test]
fn a_change_that_overflows_is_left_out() {
    let (mut server, mut model) = (Server::new(Sgd::new(1.0)), (array![-1.7e308, 0.0], array![0.0]));
    let mut answers = wrong();
    let mut clients = Script(answers.split_off(answers.len() - 1));
    let report = server.round(&mut model, &mut clients).unwrap();
    assert_eq!(report.left_out[11], named(11, Reason::NotFinite, "\"0\" is inf at index [0]"));
}

/// Numbers that are finite, but would not be so in a sum: a garbage client is left out, the others go on.
#[test]
fn what_would_overflow_a_sum_is_left_out() {
    type Answer = fn(&Model) -> Reply<Model>;

    let garbage: [(Answer, LeftOut); 3] = [
        (|model| weighing(0, model, f64::MAX), named(0, Reason::Weight, "1.7976931348623157e308, too large to add up")),
        (
            |model| Reply::new(0, Update::new((array![1.7e308, 0.0], model.1.clone()), 1.0)),
            named(0, Reason::NotFinite, "\"0\" is 1.7e308 at index [0], too large to add up"),
        ),
        (
            |model| Reply::new(0, Update::new((&model.0 * 1e10, model.1.clone()), 1e300)),
            named(0, Reason::NotFinite, "\"0\" is inf at index [0]"),
        ),
    ];
    for (garbage, expected) in garbage {
        let (mut server, mut model) = (Server::new(Sgd::new(1.0)), model());
        let mut clients = Script(vec![garbage, |model| moved(1, model, 2.0), |model| moved(2, model, 4.0)]);
        let report = server.round(&mut model, &mut clients).unwrap();
        assert_eq!(report.left_out[0], expected);
        assert_eq!(model, (array![4.0, 3.0], array![6.0]));
    }
}

/// The same of control variates, and in the model's own type.
#[test]
fn a_control_variate_stays_finite() {
    struct Two(f32);

    impl Clients<Array1<f32>> for Two {
        fn count(&self) -> usize {
            2
        }

        fn train(&mut self, tasks: Vec<(usize, Task<Array1<f32>>)>) -> Vec<Reply<Array1<f32>>> {
            let reply = |(client, task): (usize, Task<Array1<f32>>)| {
                let control = Tensors::of(&array![if client == 0 { self.0 } else { 1.0 }]).unwrap();
                Reply::new(client, Update::new(task.model().clone(), 1.0).with_control(control))
            };
            tasks.into_iter().map(reply).collect()
        }
    }

    let (mut server, mut model) = (Server::new(Sgd::new(1.0)).scaffold(), array![0.0_f32]);
    for round in 0..5 {
        let report = server.round(&mut model, &mut Two(f32::MAX)).unwrap();
        assert_eq!(report.left_out.is_empty(), round == 0, "{report}"); // once it fits
    }
    assert!(server.control().unwrap().values()[0].is_finite());
    let mut server = Server::new(Sgd::new(1.0)).scaffold();
    let report = server.round(&mut array![0.0_f64], &mut Script64).unwrap();
    assert_eq!(report.counted.len(), 1);
    assert_eq!(report.left_out, [named(0, Reason::Control, "(root) is 1.7e308 at index [0], too large to add up")]);
}

/// Two clients of which one has a control variate that two of its like could not be added to.
struct Script64;

impl Clients<Array1<f64>> for Script64 {
    fn count(&self) -> usize {
        2
    }

    fn train(&mut self, tasks: Vec<(usize, Task<Array1<f64>>)>) -> Vec<Reply<Array1<f64>>> {
        let reply = |(client, task): (usize, Task<Array1<f64>>)| {
            let control = Tensors::of(&array![if client == 0 { 1.7e308 } else { 1.0 }]).unwrap();
            Reply::new(client, Update::new(task.model().clone(), 1.0).with_control(control))
        };
        tasks.into_iter().map(reply).collect()
    }
}

#[test]
fn what_the_server_cannot_do_is_known_before_anyone_is_asked() {
    struct Nobody;

    impl Clients<Model> for Nobody {
        fn count(&self) -> usize {
            2
        }

        fn train(&mut self, _: Vec<(usize, Task<Model>)>) -> Vec<Reply<Model>> {
            panic!("asked")
        }
    }

    let mut model = model();
    let refused = Server::new(FedAdam::new(0.1).beta1(2.0)).round(&mut model, &mut Nobody);
    assert!(matches!(refused, Err(Error::Step(StepError::HyperParameter { name: "beta1", .. }))));

    let mut server = Server::new(Sgd::new(1.0));
    server.round(&mut model, &mut Script(vec![|model| moved(0, model, 1.0)])).unwrap();
    let mut other = (array![1.0], array![1.0]);
    assert!(matches!(server.round(&mut other, &mut Nobody), Err(Error::Step(StepError::ParametersChanged { .. }))));
    assert_eq!(server.rounds(), 1);
}

#[test]
fn with_scaffold_a_control_change_is_asked_for_and_looked_at() {
    let (mut server, mut model) = (Server::new(Sgd::new(1.0)).scaffold(), model());
    let mut clients = Script(vec![
        |model| moved(0, model, 1.0),
        |model| Reply::new(1, Update::new(model.clone(), 1.0).with_control(Tensors::of(&model.0).unwrap())),
        |model| {
            let change = Tensors::of(&(array![0.0, f64::INFINITY], array![0.0])).unwrap();
            Reply::new(2, Update::new(model.clone(), 1.0).with_control(change))
        },
    ]);
    let state = server.state_dict();
    let report = server.round(&mut model, &mut clients).unwrap();
    let controls =
        ["none; the client needs scaffold() and with_control", "other paths or shapes", "\"0\" is inf at index [1]"]
            .into_iter()
            .enumerate();
    let expected: Vec<_> = controls.map(|(client, detail)| named(client, Reason::Control, detail)).collect();
    assert_eq!(report.left_out[..3], expected);
    assert!(!report.moved && server.state_dict() == state);
}

/// A client that adds one, when it is let.
fn gated(gate: Receiver<()>) -> impl Client<Model> {
    let gate = Mutex::new(gate);
    move |task: &Task<Model>| {
        gate.lock().unwrap().recv()?;
        Ok::<_, Failure>(Update::new((&task.model().0 + 1.0, &task.model().1 + 1.0), 1.0))
    }
}

#[test]
fn stragglers_are_named_and_what_they_say_too_late_is_forgotten() {
    let (go, gate) = channel();
    let prompt =
        |task: &Task<Model>| Ok::<_, Failure>(Update::new((&task.model().0 + 5.0, task.model().1.clone()), 1.0));
    let clients: Vec<Box<dyn Client<Model>>> = vec![Box::new(prompt), Box::new(gated(gate))];
    // Long enough for a prompt answer on any machine: a straggler waits for the gate, not for the clock.
    let mut clients = Simulation::new(clients).threads(2).deadline(Duration::from_secs(2));
    let (mut server, mut model) = (Server::new(Sgd::new(1.0)), model());

    let report = server.round(&mut model, &mut clients).unwrap();
    assert_eq!(report.left_out, [named(1, Reason::Late, "no answer in 2s")]);
    assert_eq!(model.0[0], 6.0);
    assert!(clients.with_client(1, |_| ()).is_none() && clients.with_client(0, |_| ()).is_some());

    let report = server.round(&mut model, &mut clients).unwrap();
    assert_eq!(report.left_out, [named(1, Reason::Busy, "")]);
    assert_eq!(model.0[0], 11.0);

    go.send(()).unwrap(); // it answers the first round
    while clients.with_client(1, |_| ()).is_none() {
        std::thread::yield_now();
    }
    go.send(()).unwrap();
    let report = server.round(&mut model, &mut clients).unwrap();
    // Between its answer and its next task a thread may need a moment to say that it is free.
    if report.left_out.is_empty() {
        assert_eq!(model.0[0], 11.0 + 3.0); // the mean of 5 and 1: of this round's model
    } else {
        assert_eq!(report.left_out, [named(1, Reason::Busy, "")]);
    }
}

/// Who has not begun at the deadline does not begin later, on a model of the past.
#[test]
fn tasks_that_wait_are_taken_back() {
    let (go, gate) = channel();
    let begun = Arc::new(Mutex::new(0));
    let counted = Arc::clone(&begun);
    let second = move |task: &Task<Model>| {
        *counted.lock().unwrap() += 1;
        Ok::<_, Failure>(Update::new(task.model().clone(), 1.0))
    };
    let clients: Vec<Box<dyn Client<Model>>> = vec![Box::new(gated(gate)), Box::new(second)];
    let mut clients = Simulation::new(clients).threads(1).deadline(Duration::from_millis(50));
    let (mut server, mut model) = (Server::new(Sgd::new(1.0)), model());
    let report = server.round(&mut model, &mut clients).unwrap();
    assert!(!report.moved && report.left_out.iter().all(|out| out.reason == Reason::Late));
    drop(go);
    // Tasks are taken in their order: one that still waits is taken before that of this round.
    let report = server.round(&mut model, &mut clients.deadline(Duration::MAX)).unwrap();
    assert_eq!(report.counted.len(), 1);
    assert_eq!(*begun.lock().unwrap(), 1);
}

/// A client that never answers has its thread for good; the others get another one.
#[test]
fn a_client_that_hangs_keeps_no_other_from_training() {
    let (go, gate) = channel();
    let prompt = |task: &Task<Model>| Ok::<_, Failure>(Update::new(task.model().clone(), 1.0));
    let clients: Vec<Box<dyn Client<Model>>> = vec![Box::new(gated(gate)), Box::new(prompt), Box::new(prompt)];
    let mut clients = Simulation::new(clients).threads(1).deadline(Duration::from_millis(50));
    let (mut server, mut model) = (Server::new(Sgd::new(1.0)), model());
    let report = server.round(&mut model, &mut clients).unwrap();
    assert!(report.left_out.iter().all(|out| out.reason == Reason::Late), "{report}");
    // As long as it takes: whoever has no thread is late on any machine.
    let mut clients = clients.deadline(Duration::from_secs(20));
    for _ in 0..3 {
        let report = server.round(&mut model, &mut clients).unwrap();
        assert_eq!(report.left_out, [named(0, Reason::Busy, "")]);
        assert_eq!(report.counted.len(), 2);
    }
    drop(go);
}

#[test]
fn a_panic_is_one_clients_own() {
    let clients: Vec<Box<dyn Client<Model>>> = vec![
        Box::new(|_: &Task<Model>| -> Result<Update<Model>, Failure> { panic!("out of {}", "memory") }),
        Box::new(|task: &Task<Model>| Ok(Update::new((&task.model().0 + 1.0, task.model().1.clone()), 1.0))),
        Box::new(|_: &Task<Model>| Err(Error::Step(StepError::NoStep).into())),
    ];
    let mut clients = Simulation::new(clients).threads(1);
    let (mut server, mut model) = (Server::new(Sgd::new(1.0)), model());
    for round in 1..=3 {
        let report = server.round(&mut model, &mut clients).unwrap();
        let expected =
            [named(0, Reason::Panicked, "out of memory"), named(2, Reason::Failed, "no step has been taken yet")];
        assert_eq!(report.left_out, expected);
        assert_eq!(model.0[0], 1.0 + f64::from(round));
    }
}
