//! Server and clients go on from their saved states as if they had never stopped.

use gradus::adaptor::Accumulate;
use gradus::error::{FederatedError, StateError};
use gradus::federated::{
    Client, Failure, FedAdagrad, FedAdam, FedYogi, Proximal, Sample, Scaffold, Server, Simulation, Task, Update,
};
use gradus::prelude::*;
use gradus::{Error, StateDict};
use ndarray::{Array2, ShapeBuilder, array};

type Model = Array2<f64>;

/// A client whose optimizer is all that it keeps.
struct Owner<O> {
    opt: O,
    target: f64,
}

type Chain = Proximal<Accumulate<Scaffold<Sgd<f64>, f64>, f64>, f64>;

fn owners() -> impl Iterator<Item = Owner<Chain>> {
    let opt = || Sgd::new(|step: u64| 0.1 / (1.0 + step as f64)).scaffold().accumulate(2).proximal(0.1);
    (0..4).map(move |number| Owner { opt: opt(), target: f64::from(number) })
}

impl Client<Model> for Owner<Chain> {
    fn train(&mut self, task: &Task<Model>) -> Result<Update<Model>, Failure> {
        let mut model = task.model().clone();
        self.opt.begin_round(task)?;
        self.opt.inner_mut().inner_mut().begin_round(task)?;
        for _ in 0..6 {
            let grads = &model - self.target;
            self.opt.step(&mut model, &grads)?;
        }
        let change = self.opt.inner_mut().inner_mut().end_round(&model)?;
        Ok(Update::new(model, 1.0 + self.target).with_control(change))
    }
}

fn start() -> Model {
    Array2::from_shape_fn((3, 2).f(), |(i, j)| (i as f64 - 2.0 * j as f64).cos())
}

fn resumes<O: Optimizer<f64>>(optimizer: impl Fn() -> O) {
    const ROUNDS: usize = 8;
    let server = || Server::new(optimizer()).scaffold().select(Sample::count(3).seed(11));
    let (mut straight, mut model, mut clients) = (server(), start(), Simulation::new(owners()));
    let mut saved: Vec<(StateDict, Vec<StateDict>, Model)> = Vec::new();
    for _ in 0..ROUNDS {
        let states = (0..4).map(|client| clients.with_client(client, |owner| owner.opt.state_dict()).unwrap());
        saved.push((straight.state_dict(), states.collect(), model.clone()));
        straight.round(&mut model, &mut clients).unwrap();
    }
    for (round, (state, states, at)) in saved.into_iter().enumerate() {
        let (mut resumed, mut found, mut clients) = (server(), at, Simulation::new(owners()));
        resumed.load_state_dict(&state).unwrap();
        assert!(resumed.state_dict() == state);
        for (client, state) in states.iter().enumerate() {
            clients.with_client(client, |owner| owner.opt.load_state_dict(state).unwrap()).unwrap();
        }
        (round..ROUNDS).for_each(|_| _ = resumed.round(&mut found, &mut clients).unwrap());
        assert_eq!(found, model, "from round {round}");
        assert!(resumed.state_dict() == straight.state_dict());
    }
}

#[test]
fn rounds_go_on_bit_for_bit() {
    resumes(|| Momentum::new(0.5, 0.9));
    resumes(|| FedAdam::new(0.05));
    resumes(|| FedYogi::new(0.05).flower(true));
    resumes(|| FedAdagrad::new(0.05));
}

/// In the middle of a round, too.
#[test]
fn a_clients_training_goes_on_bit_for_bit() {
    let task = Task::new(4, start()).with_control(gradus::federated::Tensors::of(&(start() * 0.1)).unwrap());
    let fresh = || owners().next().unwrap().opt;
    let step = |opt: &mut Chain, model: &mut Model| {
        let grads = &*model * 2.0;
        opt.step(model, &grads).unwrap();
    };
    let (mut opt, mut model) = (fresh(), task.model().clone());
    opt.begin_round(&task).unwrap();
    opt.inner_mut().inner_mut().begin_round(&task).unwrap();
    let mut saved = Vec::new();
    for _ in 0..4 {
        saved.push((opt.state_dict(), model.clone()));
        step(&mut opt, &mut model);
    }
    let change = opt.inner_mut().inner_mut().end_round(&model).unwrap();
    for (steps, (state, mut found)) in saved.into_iter().enumerate() {
        let mut resumed = fresh();
        resumed.load_state_dict(&state).unwrap();
        assert!(resumed.state_dict() == state);
        (steps..4).for_each(|_| step(&mut resumed, &mut found));
        assert_eq!(found, model);
        assert_eq!(resumed.inner_mut().inner_mut().end_round(&found).unwrap(), change);
        assert!(resumed.state_dict() == opt.state_dict());
    }
}

#[test]
fn another_servers_state_is_refused_and_changes_nothing() {
    let mut clients = Simulation::new(owners());
    let (mut server, mut model) = (Server::new(FedAdam::new(0.05)).scaffold(), start());
    server.round(&mut model, &mut clients).unwrap();
    let state = server.state_dict();

    let mut other: Server<FedYogi<f64>, f64> = Server::new(FedYogi::new(0.05)).scaffold();
    assert!(matches!(other.load_state_dict(&state), Err(Error::State(StateError::WrongAlgorithm { .. }))));
    let mut plain: Server<FedAdam<f64>, f64> = Server::new(FedAdam::new(0.05));
    assert!(matches!(plain.load_state_dict(&state), Err(Error::State(StateError::UnexpectedEntry { .. }))));
    // What lies row by row says nothing of its order.
    for key in state.keys().filter(|key| !key.contains("order/")) {
        let mut less = state.clone();
        less.remove(key);
        let mut fresh: Server<FedAdam<f64>, f64> = Server::new(FedAdam::new(0.05)).scaffold();
        let before = fresh.state_dict();
        assert!(fresh.load_state_dict(&less).is_err(), "without {key}");
        assert!(fresh.state_dict() == before && fresh.rounds() == 0);
    }
    assert_eq!(other.rounds(), 0);
    let mut short = array![1.0];
    assert!(matches!(
        Sgd::new(0.1).proximal(1.0).step(&mut short, &array![1.0]),
        Err(Error::Federated(FederatedError::NoRound))
    ));
}

/// Numbers in a state are believed only as far as there are data: none of them makes a vector of its length.
#[test]
fn a_state_that_says_much_and_holds_little_is_refused() {
    let most = (usize::MAX >> 1).to_string();
    let mut plain: Server<Sgd<f64>, f64> = Server::new(Sgd::new(1.0));
    let mut state = plain.state_dict();
    state.insert_text("server/clients", &most);
    assert!(matches!(plain.load_state_dict(&state), Err(Error::State(StateError::MissingEntry { .. }))));

    let mut clients = Simulation::new(owners());
    let (mut server, mut model) = (Server::new(Sgd::new(0.5)).scaffold(), start());
    server.round(&mut model, &mut clients).unwrap();
    let mut state = server.state_dict();
    state.insert_text("server/clients", &most);
    let before = server.state_dict();
    assert!(matches!(server.load_state_dict(&state), Err(Error::State(StateError::EntryShape { .. }))));
    assert!(server.state_dict() == before);
}
