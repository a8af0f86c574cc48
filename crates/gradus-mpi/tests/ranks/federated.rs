//! Federated rounds, whose clients are on all ranks.

use gradus::Error;
use gradus::distributed::RankGroup;
use gradus::error::{RankError, StepError};
use gradus::federated::{
    Client, Clients, Failure, FedAdam, Ranks, Reason, RoundReport, Sample, Server, Simulation, Task, Update,
};
use gradus::prelude::*;
use gradus_mpi::MpiGroup;
use ndarray::{Array1, array};

use super::Test;

pub(crate) const TESTS: &[Test] = &[
    ("rounds equal those of one process", rounds_equal_those_of_one_process),
    ("a rank that cannot keeps all from a round", a_rank_that_cannot_keeps_all_from_a_round),
    ("ranks of other models do not begin", ranks_of_other_models_do_not_begin),
];

type Model = (Array1<f64>, Array1<f64>);

const CLIENTS: usize = 7;
/// The client that answers nonsense.
const BROKEN: usize = 5;

/// Sums in another order round otherwise; three rounds pass that on.
const OTHER_ORDER: f64 = 1e-12;

fn model() -> Model {
    (Array1::from_shape_fn(11, |i| (i as f64).cos()), array![0.5])
}

/// A client that pulls each element to a number of its own.
fn client(number: usize) -> impl Client<Model> + 'static {
    move |task: &Task<Model>| {
        let (mut model, mut opt) = (task.model().clone(), Sgd::new(0.1));
        let target = (number as f64).sin();
        for _ in 0..3 {
            let grads = (&model.0 - target, &model.1 - target);
            opt.step(&mut model, &grads)?;
        }
        if number == BROKEN {
            model.0[3] = f64::NAN;
        }
        Ok::<_, Failure>(Update::new(model, 1.0 + number as f64))
    }
}

fn run(mut clients: impl Clients<Model>) -> (Model, Vec<RoundReport>) {
    let (mut server, mut model) = (Server::new(FedAdam::new(0.1)).select(Sample::count(6).seed(3)), model());
    let reports = (0..3).map(|_| server.round(&mut model, &mut clients).unwrap()).collect();
    (model, reports)
}

fn rounds_equal_those_of_one_process(group: &MpiGroup) {
    let (rank, size) = (group.rank(), group.size());
    let own = CLIENTS * rank / size..CLIENTS * (rank + 1) / size;
    let clients = Ranks::new(group, Simulation::new(own.clone().map(client)).threads(1)).unwrap();
    assert_eq!(clients.own(), own);
    let (found, reports) = run(clients);
    let (expected, alone) = run(Simulation::new((0..CLIENTS).map(client)).threads(1));
    assert_eq!(reports, alone);
    let named = |report: &RoundReport| {
        let mut left_out = report.left_out.iter();
        left_out.any(|out| (out.client, out.reason) == (BROKEN, Reason::NotFinite) && out.detail.contains("NaN"))
    };
    assert!(reports.iter().any(named), "{reports:?}");
    let elements = |model: &Model| model.0.iter().chain(&model.1).copied().collect::<Vec<_>>();
    let (found, expected) = (elements(&found), elements(&expected));
    assert!(found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < OTHER_ORDER), "{found:?} {expected:?}");

    let bytes: Vec<_> = found.iter().flat_map(|value| value.to_le_bytes()).collect();
    let mut all = vec![0; bytes.len() * size];
    group.all_gather_bytes(&bytes, &mut all).unwrap();
    assert!(all.chunks(bytes.len()).all(|other| other == bytes), "all ranks have the same bits");
}

/// One round with this learning rate and start; nothing may move.
fn refused(group: &MpiGroup, rate: f64, start: f64) -> Error {
    let adding = |task: &Task<Array1<f64>>| Ok::<_, Failure>(Update::new(task.model() + 1.0, 1.0));
    let mut clients = Ranks::new(group, Simulation::new([adding])).unwrap();
    let (mut server, mut model) = (Server::new(Sgd::new(rate)), array![start]);
    let error = server.round(&mut model, &mut clients).unwrap_err();
    assert_eq!((model, server.rounds()), (array![start], 0));
    error
}

fn a_rank_that_cannot_keeps_all_from_a_round(group: &MpiGroup) {
    let error = refused(group, if group.rank() == 1 { -1.0 } else { 1.0 }, 0.0);
    match group.rank() {
        1 => assert!(matches!(error, Error::Step(StepError::HyperParameter { name: "learning_rate", .. })), "{error}"),
        _ => assert!(matches!(error, Error::Ranks(RankError::RankRefused { rank: 1, .. })), "{error}"),
    }
}

fn ranks_of_other_models_do_not_begin(group: &MpiGroup) {
    let last = group.size() - 1;
    let error = refused(group, 1.0, if group.rank() == last { 0.5 } else { 0.0 });
    assert!(matches!(error, Error::Ranks(RankError::RanksDisagree { rank, .. }) if rank == last), "{error}");
}
