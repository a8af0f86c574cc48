//! The time of one step on 1, 2 and 4 ranks, split into compute and communication, and a model of it:
//! `cargo bench -p gradus-mpi --bench scaling`, with `-- --record` also to `benches/record/`.
//!
//! Ranks are threads, then processes under `mpirun`, each on one thread. The step is AdamW's alone, without the gradient: what
//! is compute here is the sweep and the copies into and out of messages. Communication is the time in the calls of the group: to agree,
//! to wait for the others, to send. A message's latency and a byte's time are fitted to all-reduces on 2 ranks; what they
//! say about 4, and about the steps, stands beside what was measured.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a bench fails by panicking")]

#[path = "../../tests/ranks/launch.rs"]
mod launch;
mod model;
mod point;
#[path = "../../../../benches/shared/record.rs"]
#[allow(dead_code, reason = "processes are started by another program")]
mod record;
mod stopwatch;

use std::error::Error;
use std::path::Path;
use std::time::Duration;

use gradus::distributed::{Alone, RankGroup, ThreadGroup};
use gradus_mpi::MpiGroup;

use model::Network;
use point::{MESSAGES, PARAMETERS, Point, ROUNDS, measure};
use record::Record;

const RANKS: [usize; 3] = [1, 2, 4];
/// Longer than any run takes.
const LIMIT: Duration = Duration::from_secs(1200);
const STEPS: [&str; 3] = ["adamw", "data_parallel", "sharded"];

/// The points of each number of ranks.
type Engine = [Vec<Point>; 3];

fn main() -> Result<(), Box<dyn Error>> {
    let given = |option: &str| std::env::args().any(|argument| argument == option);
    if given("--rank") {
        let group = MpiGroup::world()?;
        let points = measure(&group);
        if group.rank() == 0 {
            points.iter().for_each(|point| println!("{point}"));
        }
        return Ok(());
    }
    let threads = RANKS.map(|size| match size {
        1 => measure(&Alone),
        _ => ThreadGroup::run(size, |group| measure(&group)).remove(0),
    });
    let processes = RANKS.map(|size| {
        let end = launch::mpirun(size, &[], LIMIT);
        assert!(end.status.success(), "{}", end.errors);
        end.output.lines().filter_map(Point::read).collect()
    });

    let mut record = Record::default();
    let cores = std::thread::available_parallelism()?;
    let mpi = record::answer("mpirun", &["--version"]);
    record.say(&format!("Each rank on one thread, {cores} cores; the fastest of {ROUNDS} rounds; MPI is {mpi}."));
    for (name, engine) in [("threads", &threads), ("MPI", &processes)] {
        steps(&mut record, name, engine);
    }
    paper(&mut record, &processes, cores.get() as f64);
    if given("--record") {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../benches/record");
        record.write(&folder, "scaling", "`cargo bench -p gradus-mpi --bench scaling -- --record`")?;
    }
    Ok(())
}

fn find<'e>(points: &'e [Point], what: &str, elements: usize) -> &'e Point {
    points.iter().find(|point| point.what == what && point.elements == elements).unwrap()
}

fn steps(record: &mut Record, name: &str, engine: &Engine) {
    record.say(&format!("\n## One step, {name}\n"));
    record
        .say("| step | parameters | ranks | compute, ms | communication, ms | whole, ms |\n|---|---|---|---|---|---|");
    for log in PARAMETERS {
        for what in STEPS {
            for (ranks, points) in RANKS.iter().zip(engine) {
                let Point { compute, communication, .. } = find(points, what, 1 << log);
                let [compute, communication] = [compute, communication].map(|time| time * 1e3);
                let whole = compute + communication;
                record.say(&format!("| {what} | 2^{log} | {ranks} | {compute:.2} | {communication:.2} | {whole:.2} |"));
            }
        }
    }
}

/// The model beside what MPI has measured.
fn paper(record: &mut Record, engine: &Engine, cores: f64) {
    let [_, two, four] = engine;
    let bytes = |log: u32| f64::from(1 << log) * size_of::<f32>() as f64;
    let network = Network::fit(&MESSAGES.map(|log| (bytes(log), find(two, "all_reduce", 1 << log).communication)));

    record.say("\n## On paper\n");
    record.say(&format!(
        "Fitted to the all-reduces on 2 ranks: α = {:.2} µs a message, β = {:.3} ns a byte. Where there are more ranks than cores, the \
         model's time is multiplied by ranks/cores.\n",
        network.alpha() * 1e6,
        network.beta() * 1e9,
    ));
    record.say("| communication | bytes | 2 ranks, µs | model | error | 4 ranks, µs | model | error |\n|---|---|---|---|---|---|---|---|");
    let mut row = |what: &str, log: Option<u32>, model: fn(&Network, f64, f64) -> f64| {
        let elements = log.map_or(0, |log| 1 << log);
        let bytes = log.map_or(0.0, bytes);
        let cells = [(2.0, two), (4.0, four)].map(|(ranks, points)| {
            let found = find(points, what, elements).communication;
            let model = model(&network, ranks, bytes) * f64::max(1.0, ranks / cores);
            format!("{:.1} | {:.1} | {:+.0} %", found * 1e6, model * 1e6, 100.0 * (model / found - 1.0))
        });
        record.say(&format!("| {what} | {bytes} | {} |", cells.join(" | ")));
    };
    row("agreement", None, |network, ranks, _| network.agreement(ranks));
    MESSAGES.iter().for_each(|log| row("all_reduce", Some(*log), Network::all_reduce));
    for log in PARAMETERS {
        row("data_parallel", Some(log), Network::data_parallel);
        row("sharded", Some(log), Network::sharded);
    }
}
