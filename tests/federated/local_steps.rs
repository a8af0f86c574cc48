//! Local steps with an outer step along the mean change are FedAvg.

use gradus::distributed::{RankGroup, ThreadGroup};
use gradus::federated::{Failure, Server, Simulation, Task, Update};
use gradus::prelude::*;
use ndarray::{Array1, Array2};

const LOCAL: u64 = 7;
const ROUNDS: usize = 12;
/// One takes the mean of θ − y in the element type, the other that of y − θ in f64: both round, neither more than a few times.
const TOLERANCE: f64 = 1e-10;

/// The gradient of ½‖Aw − y‖² with the A and y of one owner.
fn gradient(owner: usize, w: &Array1<f64>) -> Array1<f64> {
    let a = Array2::from_shape_fn((6, 4), |(i, j)| ((owner * 24 + i * 4 + j) as f64 * 0.7).sin());
    let y = Array1::from_shape_fn(6, |i| ((owner * 6 + i) as f64).cos());
    a.t().dot(&(a.dot(w) - y))
}

#[test]
fn local_steps_with_an_outer_step_of_1_are_fedavg() {
    for owners in [2, 4] {
        let ranks = ThreadGroup::run(owners, |group| {
            let rank = group.rank();
            let mut opt = Sgd::new(0.05).local_steps(LOCAL, Sgd::new(1.0)).across(group);
            let mut w = Array1::zeros(4);
            for _ in 0..LOCAL as usize * ROUNDS {
                let grads = gradient(rank, &w);
                opt.step(&mut w, &grads).unwrap();
            }
            w
        });
        let client = |owner: usize| {
            move |task: &Task<Array1<f64>>| {
                let (mut w, mut opt) = (task.model().clone(), Sgd::new(0.05));
                for _ in 0..LOCAL {
                    let grads = gradient(owner, &w);
                    opt.step(&mut w, &grads)?;
                }
                Ok::<_, Failure>(Update::new(w, 1.0))
            }
        };
        let mut clients = Simulation::new((0..owners).map(client));
        let (mut server, mut w) = (Server::new(Sgd::new(1.0)), Array1::zeros(4));
        (0..ROUNDS).for_each(|_| assert!(server.round(&mut w, &mut clients).unwrap().moved));
        assert!(w.dot(&w) > 1e-3, "they have moved");
        for rank in ranks {
            assert!((&rank - &w).iter().all(|difference| difference.abs() < TOLERANCE), "{rank} {w}");
        }
    }
}
