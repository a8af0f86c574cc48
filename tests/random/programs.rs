//! Programs: a chain, a tree, and what is done with them, drawn from a number.

use std::fmt;

use half::{bf16, f16};
use rand::RngExt;

use crate::actions::Action;
use crate::chains::{Algorithm, Chain, Link, Surroundings};
use crate::faults::{self, Fault};
use crate::report::{Draw, Outcome, random, whole};
use crate::runs;
use crate::trees::{self, Form, Leaf, Tree};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    F32,
    F64,
    F16,
    Bf16,
}

#[derive(Clone)]
pub(crate) struct Program {
    pub(crate) seed: u64,
    pub(crate) kind: Kind,
    pub(crate) chain: Chain,
    pub(crate) tree: Tree<f64>,
    pub(crate) events: Vec<Event>,
}

#[derive(Debug, Clone)]
pub(crate) enum Event {
    /// A step with gradients from this seed, of this size; `asked` is whether `check` is called first.
    Step { seed: u64, size: f64, faults: Vec<Fault>, asked: bool },
    /// A setter of the adaptor that is so many below the outermost.
    Act(usize, Action),
    /// The state goes into a chain that was just built, or into the chain itself, and training goes on.
    Resume(bool),
    /// A metric for all plateaus.
    Metric(f64),
    /// Every counter of steps in the state becomes this.
    Counters(u64),
}

/// Draws a program and runs it, in every way in which its end must be the same.
pub(crate) fn case(seed: u64) -> Outcome {
    run(&draw(seed))
}

/// The same with an adaptor that a refused step changes.
pub(crate) fn broken(seed: u64) -> Outcome {
    let mut program = draw(seed);
    program.chain.links.push(Link::Broken);
    run(&program)
}

fn run(program: &Program) -> Outcome {
    match program.kind {
        Kind::F32 => runs::compare::<f32>(program),
        Kind::F64 => runs::compare::<f64>(program),
        Kind::F16 => runs::compare::<f16>(program),
        Kind::Bf16 => runs::compare::<bf16>(program),
    }
}

/// The story of a failure when everything is left out without which it is the same.
pub(crate) fn least(seed: u64, kind: &str) -> Option<String> {
    let fails = |program: &Program| whole(|| run(program)).err().filter(|failure| failure.kind == kind);
    let (mut program, mut story) = (draw(seed), None);
    loop {
        let smaller = program.smaller();
        let found = smaller.into_iter().find_map(|smaller| Some((fails(&smaller)?, smaller)));
        let Some((failure, smaller)) = found else { return story };
        (program, story) = (smaller, Some(failure.story));
    }
}

impl Program {
    /// This program with one thing less, in every way.
    fn smaller(&self) -> Vec<Self> {
        let mut all = Vec::new();
        let mut without = |change: &dyn Fn(&mut Self)| {
            let mut smaller = self.clone();
            change(&mut smaller);
            all.push(smaller);
        };
        (0..self.events.len()).rev().for_each(|at| without(&|program| drop(program.events.remove(at))));
        (0..self.chain.links.len()).for_each(|at| without(&|program| drop(program.chain.links.remove(at))));
        for at in 0..self.events.len() {
            if let Event::Step { faults, .. } = &self.events[at] {
                (0..faults.len()).for_each(|fault| {
                    without(&|program| {
                        if let Event::Step { faults, .. } = &mut program.events[at] {
                            faults.remove(fault);
                        }
                    });
                });
            }
        }
        let plain =
            |chain: &Chain| chain.base.numbers.iter().any(Option::is_some) || chain.base.options.contains(&true);
        if plain(&self.chain) {
            without(&|program| (program.chain.base.numbers, program.chain.base.options) = ([None; 3], [false; 3]));
        }
        if !matches!(self.chain.base.algorithm, Algorithm::Sgd) {
            without(&|program| program.chain.base.algorithm = Algorithm::Sgd);
        }
        all
    }
}

/// More elements than one thread is given.
const LARGE: usize = 70_000;

pub(crate) fn draw(seed: u64) -> Program {
    let mut random = random(seed, 0);
    let kind = random.pick(&[Kind::F32, Kind::F32, Kind::F32, Kind::F64, Kind::F64, Kind::F64, Kind::F16, Kind::Bf16]);
    let mut tree = trees::tree(&mut random);
    if random.chance(0.004) {
        tree = Tree::List(vec![tree, Tree::Leaf(Leaf::new(&[LARGE], &[], Form::C))]);
    }
    let names = tree.names();
    let is_half = matches!(kind, Kind::F16 | Kind::Bf16);
    let surroundings = Surroundings { names: &names, is_half, is_distributed: false };
    let chain = surroundings.chain(5, &mut random);
    let events = events(&chain, &names, 6 + random.below(6), &mut random);
    Program { seed, kind, chain, tree, events }
}

/// What is done with a chain, in order: mostly steps, of which most go well.
pub(crate) fn events(
    chain: &Chain,
    names: &[(String, Vec<usize>)],
    count: usize,
    random: &mut impl RngExt,
) -> Vec<Event> {
    let links = chain.links.len();
    let rounds = chain.any(&|link| matches!(link, Link::Proximal(_) | Link::Scaffold));
    let taps = chain.any(&|link| matches!(link, Link::Kfac { .. }));
    let mut events = Vec::new();
    if rounds && random.chance(0.9) {
        events.extend((0..links).map(|depth| Event::Act(depth, Action::BeginRound(1))));
    }
    for _ in 0..count {
        if taps && random.chance(0.7) {
            let seed = random.random();
            events.extend((0..links).map(|depth| Event::Act(depth, Action::Tap(seed))));
        }
        events.push(match random.below(20) {
            0 | 1 => Event::Resume(random.chance(0.7)),
            2 => Event::Metric(random.pick(&[1.0, 2.0, f64::NAN, f64::INFINITY, 0.5])),
            3 | 4 if links > 0 => Event::Act(random.below(links), action(names, random)),
            5 if random.chance(0.2) => Event::Counters(random.pick(&[u64::MAX, u64::MAX - 1, u64::MAX / 2, 1 << 53])),
            _ => step(random),
        });
    }
    events
}

fn step(random: &mut impl RngExt) -> Event {
    let faults = if random.chance(0.4) { 1 + random.below(5) / 4 } else { 0 };
    Event::Step {
        seed: random.random(),
        size: random.pick(&[1.0, 1.0, 1.0, 1e-3, 100.0]),
        faults: (0..faults).map(|_| faults::draw(12, random)).collect(),
        asked: random.chance(0.3),
    }
}

fn pattern(names: &[(String, Vec<usize>)], random: &mut impl RngExt) -> Vec<String> {
    match names {
        [] => vec!["**".into()],
        _ if random.chance(0.1) => vec!["nothing".into()],
        _ => vec![random.pick(names).0],
    }
}

fn action(names: &[(String, Vec<usize>)], random: &mut impl RngExt) -> Action {
    match random.below(12) {
        0 | 1 => Action::Unfreeze(pattern(names, random)),
        2 | 3 => Action::Refreeze(pattern(names, random)),
        4 => Action::UnfreezeAll,
        5 => Action::Discard,
        6 | 7 => Action::BeginRound(2 + random.below(3) as u64),
        8 => Action::EndRound,
        9 => Action::Read,
        10 => Action::Swap,
        _ => Action::Tap(random.random()),
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}\n  of {:?}", self.kind, self.chain, self.tree.names())
    }
}
