//! Programs on several ranks at once: each keeps its promises alone, and those outermost between ranks keep them together.

use std::sync::Arc;
use std::time::Duration;

use gradus::distributed::ThreadGroup;

use crate::build::{Number, Ranks};
use crate::chains::{Link, Surroundings};
use crate::dials::Turn;
use crate::faults::Fault;
use crate::programs::{self, Event, Kind, Program};
use crate::report::{Draw, Failure, Outcome, random};
use crate::runs::{End, How, Run, Way, same};
use crate::trees;

/// Long enough for a machine that does other things too.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A program for each rank: the same chain and tree, and faults that are one rank's or everybody's.
struct Programs {
    ranks: Vec<Program>,
    /// Whether what is between the ranks sees every step first, so that all ranks hear of every error.
    together: bool,
}

pub(crate) fn case(seed: u64) -> Outcome {
    let programs = draw(seed);
    match programs.ranks[0].kind {
        Kind::F64 => compare::<f64>(&programs),
        _ => compare::<f32>(&programs),
    }
}

fn draw(seed: u64) -> Programs {
    let mut random = random(seed, 5);
    let kind = if random.chance(0.5) { Kind::F32 } else { Kind::F64 };
    let tree = trees::tree(&mut random);
    let names = tree.names();
    let surroundings = Surroundings { names: &names, is_half: false, is_distributed: true };
    let mut chain = surroundings.chain(4, &mut random);
    if random.chance(0.6) {
        let last = chain.links.iter().rposition(Link::is_between_ranks).unwrap_or(0);
        chain.links.truncate(last + 1);
    }
    let mut events = programs::events(&chain, &names, 4 + random.below(5), &mut random);
    for event in &mut events {
        if let Event::Step { faults, asked, .. } = event {
            faults.retain(|fault| !matches!(fault, Fault::Parameter(_)));
            *asked = false;
        }
    }
    let count = 2 + random.below(2);
    let together =
        chain.links.last().is_some_and(|link| matches!(link, Link::Sharded { .. } | Link::DataParallel { .. }));
    let mut ranks = vec![Program { seed, kind, chain, tree, events }; count];
    for at in 0..ranks[0].events.len() {
        // A setting that only one rank has, and that is in its range, is the user's mistake.
        let alone = random.chance(0.6).then(|| random.below(count));
        for (_, program) in ranks.iter_mut().enumerate().filter(|(rank, _)| alone.is_some_and(|alone| alone != *rank)) {
            if let Event::Step { faults, .. } = &mut program.events[at] {
                let for_all = |turn: &Turn| matches!(turn, Turn::To(value) if !value.is_nan());
                faults.retain(|fault| matches!(fault, Fault::Dial(_, turn) if for_all(turn)));
            }
        }
    }
    Programs { ranks, together }
}

fn compare<A: Number>(programs: &Programs) -> Outcome {
    let wild = |event: &Event| matches!(event, Event::Step { faults, .. } if faults.iter().any(Fault::is_wild));
    let is_wild = programs.ranks.iter().any(|program| program.events.iter().any(wild));
    let run = |hows: Option<&[How]>| -> Outcome<Vec<End>> {
        let ends = ThreadGroup::run(programs.ranks.len(), |group| {
            let rank = gradus::distributed::RankGroup::rank(&group);
            let way = Way { without: hows, resumes: hows.is_none(), forms: 0, threads: 1, is_wild };
            let ranks = Ranks::Threads(Arc::new(group.timeout(TIMEOUT)));
            Run::<A>::new(&programs.ranks[rank], way, ranks)
                .all()
                .map_err(|failure| failure.after(format!("rank {rank}")))
        });
        ends.into_iter().collect()
    };
    let ends = run(None)?;
    let hows = &ends[0].hows;
    if hows.contains(&How::Torn) || ends.iter().any(|end| end.hows.contains(&How::Torn)) {
        return Ok(());
    }
    let tell = |kind: &str, what: String| {
        let events: String = programs
            .ranks
            .iter()
            .zip(&ends)
            .map(|(program, end)| format!("\n   rank:{}", crate::runs::told(program, &end.hows)))
            .collect();
        Failure::new(kind, format!("{}\n  {what}\n  events:{events}", programs.ranks[0]))
    };
    let agreed = ends.iter().all(|end| end.hows == *hows);
    if !agreed {
        return if programs.together {
            Err(tell("an error of one rank is none of another", String::new()))
        } else {
            Ok(())
        };
    }
    if programs.together
        && let Some(other) = ends.iter().position(|end| end.bits != ends[0].bits)
    {
        return Err(tell("ranks have other parameters", format!("ranks 0 and {other}")));
    }
    let again = run(Some(hows))?;
    for (rank, (first, second)) in ends.iter().zip(&again).enumerate() {
        if let Err(what) = same(first, second) {
            return Err(tell("refused steps or resuming leave a trace between ranks", format!("rank {rank}, {what}")));
        }
    }
    Ok(())
}
