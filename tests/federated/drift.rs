//! Clients that drift: two parabolas f = a/2·(x − b)², whose sum has its minimum at 0.

use gradus::federated::{Client, Failure, Server, Simulation, Task, Update};
use gradus::prelude::*;
use ndarray::{Array1, array};

type Model = Array1<f64>;

const PARABOLAS: [(f64, f64); 2] = [(1.0, 10.0), (10.0, -1.0)];
const RATE: f64 = 0.02;

/// As many digits as the fixed points are given with.
const GIVEN: f64 = 1e-8;

/// A fixed point is reached up to the rounding of numbers around 10, and the map contracts.
const ROUNDING: f64 = 1e-13;

/// The model after so many rounds from 5.
fn run<C: Client<Model> + 'static>(mut server: Server<Sgd<f64>, f64>, clients: [C; 2], rounds: usize) -> f64 {
    let (mut clients, mut model) = (Simulation::new(clients).threads(2), array![5.0]);
    for _ in 0..rounds {
        assert!(server.round(&mut model, &mut clients).unwrap().moved);
    }
    model[0]
}

fn server() -> Server<Sgd<f64>, f64> {
    Server::new(Sgd::new(1.0))
}

/// K steps of plain descent, as FedAvg has it.
fn averaging(steps: usize) -> [impl Client<Model> + 'static; 2] {
    PARABOLAS.map(|(a, b)| {
        move |task: &Task<Model>| {
            let (mut model, mut opt) = (task.model().clone(), Sgd::new(RATE));
            for _ in 0..steps {
                let grad = a * (&model - b);
                opt.step(&mut model, &grad)?;
            }
            Ok::<_, Failure>(Update::new(model, 1.0))
        }
    })
}

fn proximal(steps: usize, mu: f64) -> [impl Client<Model> + 'static; 2] {
    PARABOLAS.map(|(a, b)| {
        let mut opt = Sgd::new(RATE).proximal(mu);
        move |task: &Task<Model>| {
            let mut model = task.model().clone();
            opt.begin_round(task)?;
            for _ in 0..steps {
                let grad = a * (&model - b);
                opt.step(&mut model, &grad)?;
            }
            Ok::<_, Failure>(Update::new(model, 1.0))
        }
    })
}

fn scaffold(steps: usize) -> [impl Client<Model> + 'static; 2] {
    PARABOLAS.map(|(a, b)| {
        let mut opt = Sgd::new(RATE).scaffold();
        move |task: &Task<Model>| {
            let mut model = task.model().clone();
            opt.begin_round(task)?;
            for _ in 0..steps {
                let grad = a * (&model - b);
                opt.step(&mut model, &grad)?;
            }
            let change = opt.end_round(&model)?;
            Ok::<_, Failure>(Update::new(model, 1.0).with_control(change))
        }
    })
}

#[test]
fn averages_end_beside_the_minimum_the_more_steps_the_further() {
    for (steps, expected) in [(5, 0.375_419_484), (20, 1.768_124_194)] {
        let found = run(server(), averaging(steps), 300);
        assert!((found - expected).abs() < GIVEN, "{steps} local steps: {found}");
    }
    let found = run(server(), averaging(1), 300);
    assert!(found.abs() < 1e-12, "one local step is descent on the whole: {found}");
}

#[test]
fn control_variates_end_at_the_minimum() {
    for steps in [5, 20] {
        let found = run(server().scaffold(), scaffold(steps), 500);
        assert!(found.abs() < 1e-12, "{steps} local steps: {found}");
    }
}

#[test]
fn the_pull_of_fedprox_ends_where_its_formula_says() {
    for (steps, mu) in [(5, 1.0), (20, 1.0), (20, 10.0)] {
        // K steps are y = p + r(x − p) with r = (1 − η(a + μ))ᴷ about p = (ab + μx)/(a + μ): linear in x.
        let (mut slope, mut constant) = (0.0, 0.0);
        for (a, b) in PARABOLAS {
            let shrink = (1.0 - RATE * (a + mu)).powi(steps as i32);
            slope += (shrink + (1.0 - shrink) * mu / (a + mu)) / 2.0;
            constant += (1.0 - shrink) * a * b / (a + mu) / 2.0;
        }
        let expected = constant / (1.0 - slope);
        let found = run(server(), proximal(steps, mu), 300);
        assert!((found - expected).abs() < ROUNDING, "{steps} steps, {mu}: {found} for {expected}");
        let free = run(server(), averaging(steps), 300);
        assert!(found.abs() < free.abs(), "nearer the minimum than without the pull: {found} {free}");
    }
    assert_eq!(run(server(), proximal(20, 0.0), 300), run(server(), averaging(20), 300));
}

/// An answer that does not count must not leave the client's control variate ahead of the server's.
#[test]
fn control_variates_survive_answers_that_are_lost() {
    let mut number = 0;
    let clients = scaffold(5).map(|mut client| {
        let (first, mut calls) = (number, 0);
        number += 1;
        move |task: &Task<Model>| {
            let update = client.train(task)?;
            calls += 1;
            // For a while every third answer is lost, after all work has been done.
            if calls < 200 && calls % 3 == first { Err(Failure::from("lost")) } else { Ok(update) }
        }
    });
    let mut server = server().scaffold();
    let (mut clients, mut model) = (Simulation::new(clients), array![5.0]);
    let mut lost = 0;
    for _ in 0..700 {
        lost += server.round(&mut model, &mut clients).unwrap().left_out.len();
    }
    assert_eq!(lost, 133);
    assert!(model[0].abs() < 1e-12, "{}", model[0]);
}
