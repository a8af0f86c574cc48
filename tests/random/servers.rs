//! Federated servers whose clients are hostile: the model stays finite, a round that is refused changes nothing, and everybody is named.

use gradus::federated::privacy::GaussianMechanism;
use gradus::federated::secure::{FixedPoint, Masked, MaskedSum, Masker};
use gradus::federated::{
    Aggregation, Client, Clients, Failure as ClientFailure, Mean, Reason, Reply, RoundReport, Sample, Server,
    Simulation, Task, Tensors, Update,
};
use gradus::{Result, StateDict};
use rand::RngExt;

use crate::actions::Boxed;
use crate::build::{Context, Number, Ranks, build};
use crate::chains::{Chain, Link, Surroundings};
use crate::dials::Dials;
use crate::faults::{Edit, edit_tree, set};
use crate::report::{Draw, Failure, Outcome, USER, caught, random};
use crate::runs::states;
use crate::trees::{self, Tree};

/// What a client does in a round.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Mood {
    Honest,
    /// This number in one element.
    Number(f64),
    /// This number in all.
    Numbers(f64),
    OtherTree(Edit),
    Weight(f64),
    Control(f64),
    NoControl,
    Silent,
    Twice,
    Fails,
    Panics,
    /// An answer of somebody who was not asked.
    Stranger,
}

fn mood(seed: u64, client: usize, round: u64) -> Mood {
    let mut random = random(seed ^ (client as u64) << 32 ^ round << 48, 30);
    let edits = [
        Edit::Missing,
        Edit::Extra,
        Edit::Renamed,
        Edit::Reshaped,
        Edit::Repeated,
        Edit::Reordered,
        Edit::Emptied,
        Edit::None,
    ];
    let numbers =
        [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 3.4e38, -3.4e38, 1e38, 1e30, 1.7e308, -1.7e308, 1e200, 1e-45];
    let weights = [0.0, -1.0, f64::NAN, f64::INFINITY, 1e308, f64::MAX, 5e-324, 1e38, 1e-40, 1e10];
    match random.below(24) {
        0..3 => Mood::Number(random.pick(&numbers)),
        3..5 => Mood::Numbers(random.pick(&numbers)),
        5..7 => Mood::OtherTree(random.pick(&edits)),
        7..9 => Mood::Weight(random.pick(&weights)),
        9 => Mood::Control(random.pick(&numbers)),
        10 => Mood::NoControl,
        11 => Mood::Silent,
        12 => Mood::Twice,
        13 => Mood::Fails,
        14 => Mood::Panics,
        15 => Mood::Stranger,
        _ => Mood::Honest,
    }
}

/// The answer that goes with a mood.
fn update<A: Number>(seed: u64, client: usize, task: &Task<Tree<A>>, mood: Mood) -> Update<Tree<A>> {
    let mut random = random(seed ^ client as u64, 31 + task.round());
    let mut params = task.model().clone();
    let nudge = 1.0 / 16.0 * (1 + client) as f64;
    let scale = params.largest() / 64.0;
    let near = |x: A| A::from_f64(x.as_f64() + nudge.min(scale.max(1.0 / 64.0)));
    params.leaves_mut().into_iter().for_each(|leaf| leaf.view_mut().mapv_inplace(near));
    let mut weight = 1.0 + client as f64;
    let mut control = 0.125;
    match mood {
        Mood::Number(value) => set(&mut params, value, &mut random),
        Mood::Numbers(value) => {
            params.leaves_mut().into_iter().for_each(|leaf| leaf.view_mut().fill(A::from_f64(value)))
        }
        Mood::OtherTree(edit) => edit_tree(&mut params, edit, &mut random),
        Mood::Weight(value) => weight = value,
        Mood::Control(value) => control = value,
        _ => {}
    }
    let controls = task.control().filter(|_| mood != Mood::NoControl).and_then(|_| Tensors::of(task.model()).ok());
    let update = Update::new(params, weight);
    match controls {
        Some(mut controls) => {
            controls.values_mut().fill(A::from_f64(control));
            update.with_control(controls)
        }
        None => update,
    }
}

/// Clients that answer whatever they like; who was asked is remembered.
struct Crowd {
    seed: u64,
    count: usize,
    asked: Vec<(usize, Mood)>,
}

impl<A: Number> Clients<Tree<A>> for Crowd {
    fn count(&self) -> usize {
        self.count
    }

    fn train(&mut self, tasks: Vec<(usize, Task<Tree<A>>)>) -> Vec<Reply<Tree<A>>> {
        self.asked.clear();
        let mut replies = Vec::new();
        for (client, task) in tasks {
            let mood = mood(self.seed, client, task.round());
            self.asked.push((client, mood));
            let reply = |client, mood| Reply::new(client, update(self.seed, client, &task, mood));
            match mood {
                Mood::Silent => {}
                Mood::Fails => replies.push(Reply::left_out(client, Reason::Failed, "no data")),
                Mood::Panics => replies.push(Reply::left_out(client, Reason::Panicked, "")),
                Mood::Twice => replies.extend([reply(client, Mood::Honest), reply(client, Mood::Numbers(7.0))]),
                Mood::Stranger => replies.extend([reply(client, Mood::Honest), reply(self.count + 3, Mood::Honest)]),
                mood => replies.push(reply(client, mood)),
            }
        }
        replies
    }
}

/// The same clients in threads, where they may panic.
struct Threads<A: Number> {
    simulation: Simulation<Tree<A>, Box<dyn Client<Tree<A>>>>,
    crowd: Crowd,
}

impl<A: Number> Clients<Tree<A>> for Threads<A> {
    fn count(&self) -> usize {
        self.crowd.count
    }

    fn train(&mut self, tasks: Vec<(usize, Task<Tree<A>>)>) -> Vec<Reply<Tree<A>>> {
        let round = |task: &Task<_>| task.round();
        self.crowd.asked =
            tasks.iter().map(|(client, task)| (*client, mood(self.crowd.seed, *client, round(task)))).collect();
        self.simulation.train(tasks)
    }
}

fn threads<A: Number>(crowd: Crowd) -> Threads<A> {
    let seed = crowd.seed;
    let client = |number: usize| -> Box<dyn Client<Tree<A>>> {
        Box::new(move |task: &Task<Tree<A>>| match mood(seed, number, task.round()) {
            Mood::Fails | Mood::Silent => Err(ClientFailure::from("no data")),
            Mood::Panics => panic!("{USER} in a client"),
            mood => Ok(update(seed, number, task, mood)),
        })
    };
    Threads { simulation: Simulation::new((0..crowd.count).map(client)).threads(2), crowd }
}

/// An aggregation of the user's own: every change limited, all weights alike.
struct Limited;

impl Aggregation for Limited {
    fn prepare(&mut self, change: &mut [f64], _: f64) -> f64 {
        change.iter_mut().for_each(|change| *change = change.clamp(-1.0, 1.0));
        1.0
    }
}

pub(crate) fn case(seed: u64) -> Outcome {
    let mut random = random(seed, 32);
    match random.below(10) {
        0 | 1 => masks(seed),
        2..6 => servers::<f32>(seed),
        _ => servers::<f64>(seed),
    }
}

fn servers<A: Number>(seed: u64) -> Outcome {
    let mut random = random(seed, 33);
    let tree = trees::tree(&mut random);
    let names = tree.names();
    let surroundings = Surroundings { names: &names, is_half: false, is_distributed: false };
    let mut chain = surroundings.chain(random.pick(&[0, 0, 2]), &mut random);
    // Rounds of clients, taps and dials are not the server's.
    chain.links.retain(|link| !matches!(link, Link::Proximal(_) | Link::Scaffold | Link::Kfac { .. }));
    let size = random.pick(&[1.0, 1.0, 1.0, 1e30, 3e38]);
    let model: Tree<A> = tree.like(size, &mut crate::report::random(seed, 34), &mut crate::report::random(seed, 35));
    let count = 1 + random.below(6);
    let scaffold = random.chance(0.3);
    let crowd = Crowd { seed, count, asked: Vec::new() };
    let rounds = Rounds { seed, chain, model, scaffold, story: String::new() };
    match random.below(4) {
        0 => {
            let mechanism = || GaussianMechanism::new(1.0, 0.5, 0.7, count).unwrap();
            rounds.run(crowd, |server| server.private(mechanism()), "private")
        }
        1 => rounds.run(crowd, |server| server.aggregate_by(Limited), "limited"),
        2 => rounds.run(crowd, |server| server.select(Sample::poisson(0.7).seed(seed)), "mean of a sample"),
        _ => rounds.run(crowd, |server| server.aggregate_by(Mean), "mean"),
    }
}

struct Rounds<A> {
    seed: u64,
    chain: Chain,
    model: Tree<A>,
    scaffold: bool,
    story: String,
}

impl<A: Number> Rounds<A> {
    fn run<G: Aggregation>(
        mut self,
        crowd: Crowd,
        make: impl Fn(Server<Boxed<A>, A>) -> Server<Boxed<A>, A, G>,
        kind: &'static str,
    ) -> Outcome {
        let mut random = random(self.seed, 36);
        let optimizer = || build(&self.chain, &mut Context { dials: &mut Dials::default(), ranks: Ranks::Alone });
        let scaffold = self.scaffold;
        let new = || {
            let server = make(Server::new(optimizer()));
            if scaffold { server.scaffold() } else { server }
        };
        self.story =
            format!("{kind}, scaffold {scaffold}, {} clients, {}\n  of {}", crowd.count, self.chain, self.model);
        let mut server = new();
        let mut model = self.model.clone();
        let count = crowd.count;
        let mut crowd = if random.chance(0.7) { Ok(crowd) } else { Err(threads::<A>(crowd)) };
        for round in 0..5 {
            if random.chance(0.2) {
                let state = server.state_dict();
                let mut resumed = new();
                match caught(|| resumed.load_state_dict(&state)) {
                    Ok(Ok(())) => server = resumed,
                    Ok(Err(error)) => {
                        return self.failed(kind, "a server's own state is refused", round, error.to_string());
                    }
                    Err(panic) => {
                        return self.failed(kind, &format!("loading panics at {}", panic.place), round, panic.message);
                    }
                }
            }
            let before = (model.clone(), of_server(&server.state_dict()));
            let result = caught(|| match &mut crowd {
                Ok(crowd) => server.round(&mut model, crowd),
                Err(threads) => server.round(&mut model, threads),
            });
            let asked = match &crowd {
                Ok(crowd) => crowd.asked.clone(),
                Err(threads) => threads.crowd.asked.clone(),
            };
            self.story += &format!("\n  round {round}: {asked:?}");
            match result {
                Err(panic) => return self.failed(kind, &format!("panic at {}", panic.place), round, panic.message),
                Ok(Err(error)) => {
                    self.story += &format!(" refused: {error}");
                    let after = of_server(&server.state_dict());
                    if model.memory() != before.0.memory() {
                        return self.failed(kind, "a refused round has moved the model", round, error.to_string());
                    }
                    if after != before.1 {
                        let what = format!("{error}: {}", states(&before.1, &after));
                        return self.failed(kind, "a refused round has changed the server", round, what);
                    }
                }
                Ok(Ok(report)) => {
                    if let Some((kind_of, what)) = wrong(&report, &asked, crowd.is_ok(), count, (&before.0, &model)) {
                        return self.failed(kind, kind_of, round, what);
                    }
                }
            }
        }
        Ok(())
    }

    fn failed(&self, kind: &str, what: &str, round: u64, told: String) -> Outcome {
        Err(Failure::new(format!("{kind}: {what}"), format!("{}\n  round {round}: {told}", self.story)))
    }
}

/// A state but for the account of privacy, on which a sum that was put together stays.
fn of_server(state: &StateDict) -> StateDict {
    let mut state = state.clone();
    let account: Vec<_> = state.keys().filter(|key| key.starts_with("privacy/")).map(str::to_owned).collect();
    account.iter().for_each(|key| _ = state.remove(key));
    state
}

/// What is wrong with a round that was not refused.
fn wrong<A: Number>(
    report: &RoundReport,
    asked: &[(usize, Mood)],
    strangers: bool,
    count: usize,
    (before, after): (&Tree<A>, &Tree<A>),
) -> Option<(&'static str, String)> {
    if !after.largest().is_finite() {
        return Some(("the model is no longer finite", format!("{report:?}\n  {after:?}")));
    }
    if !report.moved && before.memory() != after.memory() {
        return Some(("the model moves without `moved`", format!("{report:?}")));
    }
    let mut named: Vec<_> = report.counted.iter().map(|counted| counted.client).collect();
    named.extend(report.left_out.iter().map(|out| out.client));
    named.sort_unstable();
    let mut expected: Vec<_> = asked.iter().map(|(client, _)| *client).collect();
    if strangers && asked.iter().any(|(_, mood)| *mood == Mood::Stranger) {
        expected.push(count + 3);
    }
    let mut distinct = named.clone();
    distinct.dedup();
    if distinct != expected {
        return Some(("not everybody is named", format!("{expected:?} expected, {report:?}")));
    }
    let honest = |mood| mood == Mood::Honest || mood == Mood::Stranger;
    let left_out =
        report.left_out.iter().find(|out| asked.iter().any(|(client, mood)| *client == out.client && honest(*mood)));
    left_out.map(|out| ("an honest client is left out", format!("{out:?}")))
}

/// Masked sums: what does not belong into one is refused, and the sum is that of all members.
fn masks(seed: u64) -> Outcome {
    let mut random = random(seed, 37);
    let count = 2 + random.below(4);
    let tree: Tree<f64> =
        trees::tree(&mut random).like(1.0, &mut crate::report::random(seed, 38), &mut crate::report::random(seed, 39));
    let round = random.random_range(0..5_u64);
    let told = |kind: &str, what: String| {
        Err(Failure::new(format!("masks: {kind}"), format!("{count} clients of {tree}: {what}")))
    };
    let run = || -> Result<Option<String>> {
        let fixed = FixedPoint::new(12, count)?;
        let mut maskers = Masker::simulation(fixed)?;
        let elements = tree.bits().len();
        let mut sum = MaskedSum::new(fixed, round, 0..count, elements)?;
        let mut random = crate::report::random(seed, 40);
        for masker in &mut maskers {
            let client = masker.client();
            let mut wild = tree.clone();
            set(&mut wild, random.pick(&[f64::NAN, f64::INFINITY, 1e300]), &mut random);
            if elements > 0 && masker.mask(round, &wild).is_ok() {
                return Ok(Some("a number beyond the range is masked".into()));
            }
            let masked = masker.mask(round, &tree)?;
            let before = sum.clone();
            let words = masked.words().to_vec();
            let mut longer = words.clone();
            longer.push(1);
            let mut wrong = vec![
                Masked::new(client, round + 1, words.clone()),
                Masked::new(count + 5, round, words.clone()),
                Masked::new(usize::MAX, round, words.clone()),
                Masked::new(client, round, longer),
            ];
            if let Some(known) = before.clients().next() {
                wrong.push(Masked::new(known, round, words));
            }
            if wrong.iter().any(|wrong| sum.add(wrong).is_ok()) || sum != before {
                return Ok(Some("what does not belong into a sum is added".into()));
            }
            if masker.mask(round, &tree).is_ok() {
                return Ok(Some("a mask is used twice".into()));
            }
            if sum.unmask(&mut tree.clone()).is_ok() {
                return Ok(Some("a sum is opened before all are in it".into()));
            }
            sum.add(&masked)?;
        }
        let (mut opened, mut other) = (tree.clone(), tree.clone());
        sum.unmask(&mut opened)?;
        edit_tree(&mut other, Edit::Extra, &mut random);
        let grown = other.bits().len() != elements;
        if grown && sum.unmask(&mut other).is_ok() {
            return Ok(Some("a tree of another size is written".into()));
        }
        let exact = |x: f64| fixed.encode(x).map(|x| f64::from(x) * count as f64);
        let pairs = opened.bits().into_iter().zip(tree.bits());
        let wrong = pairs.map(|(sum, own)| (f64::from_bits(sum), f64::from_bits(own)));
        let wrong = wrong.into_iter().find(|(sum, own)| exact(*own) != fixed.encode(*sum).map(f64::from));
        Ok(wrong.filter(|(sum, _)| sum.abs() < fixed.largest()).map(|wrong| format!("a sum is wrong: {wrong:?}")))
    };
    match caught(run) {
        Err(panic) => told(&format!("panic at {}", panic.place), panic.message),
        Ok(Err(error)) => told("an error", error.to_string()),
        Ok(Ok(Some(what))) => told("wrong", what),
        Ok(Ok(None)) => Ok(()),
    }
}
