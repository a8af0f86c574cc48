//! Federated learning: ten clients train one network to read handwritten digits, and no client sends an image.
//!
//! Every client has images of two of the ten digits only. Left to itself it would learn to answer with these two, and the mean of such networks
//! swings from round to round. Five methods are compared:
//!
//! | name | server | client |
//! |---|---|---|
//! | FedAvg | `Sgd::new(1.0)` | gradient descent |
//! | FedProx | `Sgd::new(1.0)` | pulled towards the server's model |
//! | SCAFFOLD | `Sgd::new(1.0)`, control variates | corrected by control variates |
//! | FedAdam | `FedAdam` | gradient descent |
//! | private | `Sgd::new(1.0)` | a limit on every image's gradient, and noise on their sum |
//!
//! With the method "private", a client's answers reveal almost nothing about any one of its images: they are (ε, δ)-differentially private with
//! δ = 1e-5 and the ε in the table. The number of a client's images is public. The noise comes from the operating system and differs in every
//! run.
//!
//! In each round half of the clients, chosen at random, take five passes through their images. The table shows the accuracy on 360 test images
//! and the number of rounds until it reaches 90 %. The picture `target/federated_digits.svg` shows the accuracy by round.
//!
//! ```sh
//! cargo run --release --example federated_digits --features federated
//! ```

mod clients;
#[path = "../digits/data.rs"]
mod data;
#[path = "../digits/model.rs"]
mod model;
mod picture;

use std::error::Error;

use gradus::federated::{Client, FedAdam, Sample, Server, Simulation};
use gradus::prelude::*;
use indicatif::{ProgressBar, ProgressStyle};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use clients::{Owner, Spent};
use data::Digits;
use model::Mlp;

const SEED: u64 = 7;
const HIDDEN: usize = 64;
const CLIENTS: usize = 10;
const ASKED: usize = 5;
const ROUNDS: usize = 150;
const GOAL: f64 = 0.9;
/// What the private clients spend at most, and how well the model must read nevertheless.
const EPSILON: f64 = 8.0;
const PRIVATE_GOAL: f64 = 0.75;
/// Late in a run the accuracy still swings from round to round: its mean over so many rounds is compared.
const LAST: usize = 20;

type Round = Box<dyn FnMut(&mut Mlp) -> gradus::Result<()>>;

/// One way to train.
struct Method {
    name: &'static str,
    round: Round,
    /// The privacy that a client has spent, where it has any.
    spent: Spent,
}

impl Method {
    /// A method without privacy.
    fn open(name: &'static str, round: Round) -> Self {
        Self { name, round, spent: Spent::default() }
    }
}

/// The accuracy after every round.
struct Run {
    name: &'static str,
    accuracy: Vec<f64>,
    epsilon: Option<f64>,
}

impl Run {
    fn last(&self) -> f64 {
        self.accuracy.iter().rev().take(LAST).sum::<f64>() / LAST as f64
    }

    /// The rounds until the goal is reached.
    fn rounds(&self) -> Option<usize> {
        self.accuracy.iter().position(|accuracy| *accuracy >= GOAL).map(|round| round + 1)
    }
}

/// Rounds of a server with clients; whoever fails is no part of this story.
fn rounds<O: Optimizer<f32> + 'static>(
    server: Server<O, f32>,
    owners: Vec<Owner>,
    client: impl Fn(Owner) -> Box<dyn Client<Mlp>>,
) -> Round {
    let mut server = server.select(Sample::count(ASKED).seed(SEED));
    let mut clients = Simulation::new(owners.into_iter().map(client));
    Box::new(move |model| {
        let report = server.round(model, &mut clients)?;
        assert!(report.moved && report.left_out.is_empty(), "{report}");
        Ok(())
    })
}

fn methods(digits: &Digits) -> Vec<Method> {
    let owners = || Owner::of_two_digits(&digits.train, CLIENTS, SEED);
    let average = || Server::new(Sgd::new(1.0));
    let spent = Spent::default();
    let private = |owner| clients::private(owner, &spent);
    vec![
        Method::open("FedAvg", rounds(average(), owners(), clients::plain)),
        Method::open("FedProx", rounds(average(), owners(), clients::proximal)),
        Method::open("SCAFFOLD", rounds(average().scaffold(), owners(), clients::scaffold)),
        Method::open("FedAdam", rounds(Server::new(FedAdam::new(0.02)), owners(), clients::plain)),
        Method { name: "private", round: rounds(average(), owners(), private), spent },
    ]
}

fn main() -> Result<(), Box<dyn Error>> {
    let digits = Digits::load(SEED)?;
    let methods = methods(&digits);
    let bar = ProgressBar::new((methods.len() * ROUNDS) as u64)
        .with_style(ProgressStyle::with_template("{msg:9} {wide_bar} {eta:>4}")?);
    let mut runs = Vec::new();
    for Method { name, mut round, spent } in methods {
        bar.set_message(name);
        let mut model = Mlp::new(HIDDEN, &mut ChaCha8Rng::seed_from_u64(SEED));
        let mut accuracy = Vec::new();
        for _ in 0..ROUNDS {
            round(&mut model)?;
            accuracy.push(model.accuracy(&digits.test));
            bar.inc(1);
        }
        runs.push(Run { name, accuracy, epsilon: spent.get() });
    }
    bar.finish_and_clear();

    println!("{:<10} {:>22} {:>15} {:>6}", "method", "accuracy at the end", "rounds to 90 %", "ε");
    for run in &runs {
        let rounds = run.rounds().map_or("–".into(), |rounds| rounds.to_string());
        let epsilon = run.epsilon.map_or("∞".into(), |epsilon| format!("{epsilon:.2}"));
        println!("{:<10} {:>20.2} % {rounds:>15} {epsilon:>6}", run.name, 100.0 * run.last());
    }
    println!("\naccuracy by round: {}", picture::draw(&runs)?.display());

    for run in &runs {
        if let Some(epsilon) = run.epsilon {
            assert!(epsilon < EPSILON && run.last() > PRIVATE_GOAL, "ε {epsilon}, accuracy {:.4}", run.last());
            continue;
        }
        assert!(run.last() > GOAL, "{} reads only {:.4} of the test images right", run.name, run.last());
    }
    let best = runs.iter().max_by(|a, b| a.last().total_cmp(&b.last())).ok_or("no runs")?;
    assert_eq!(best.name, "SCAFFOLD", "who corrects the drift ends above who averages over it");
    Ok(())
}
