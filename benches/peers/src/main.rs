//! One AdamW step on gradus and its peers, side by side in one run. See README.md.

mod frameworks;
#[path = "../../shared/level.rs"]
mod level;
mod muon;
mod process;
#[path = "../../shared/record.rs"]
mod record;
mod rust;
mod zoo;

use std::error::Error;
use std::path::Path;
use std::time::{Duration, Instant};

use gradus::simd;

use process::Process;
use record::Record;

const ROUNDS: usize = 9;
/// The threads of the one before spin a while.
const PAUSE: Duration = Duration::from_millis(300);
/// One's own threads are awake, and the clock of the cores is up, after so many seconds of steps.
const WARM_UP: f64 = 0.02;
/// Seconds of steps, about, of which a round takes the mean.
const MEASURED: f64 = 0.05;
const LEARNING_RATE: f64 = 1e-3;
const WEIGHT_DECAY: f64 = 0.01;

/// With these glibc's heap asks the kernel once and gives nothing back. A library that allocates in every step is
/// otherwise timed as much for the pages that the kernel clears.
const KEEPING_HEAP: [(&str, &str); 2] = [("MALLOC_MMAP_MAX_", "0"), ("MALLOC_TRIM_THRESHOLD_", "17179869184")];

/// Steps after which all must have the same parameters.
const CHECKED_STEPS: usize = 5;
/// f32 rounding of five steps in five libraries.
const TOLERANCE: f32 = 2e-6;

/// What is stepped: so many tensors of so many elements, clipped by global norm unless 0.
#[derive(Debug, Clone, Copy)]
struct Problem {
    count: usize,
    length: usize,
    clip: f64,
}

/// A library with its own copy of the problem.
trait Peer {
    fn step(&mut self);

    /// The first elements of the first tensor.
    fn values(&mut self) -> Vec<f32>;

    /// Seconds of a step, as the mean of `repeats`.
    fn time(&mut self, repeats: usize) -> f64 {
        let start = Instant::now();
        (0..repeats).for_each(|_| self.step());
        start.elapsed().as_secs_f64() / repeats as f64
    }
}

/// The numbers of every library's parameters (phase 0) and gradients (phase 1).
fn wave(length: usize, phase: f32) -> Vec<f32> {
    (0..length).map(|i| (i as f32 * 0.61 + phase).sin() + 1.5).collect()
}

/// Without options: the table of all sizes, on both heaps.
fn main() -> Result<(), Box<dyn Error>> {
    let (options, sizes): (Vec<String>, Vec<String>) =
        std::env::args().skip(1).partition(|argument| argument.starts_with('-'));
    let given = |option: &str| options.iter().any(|given| given == option);
    let python = std::env::var("PYTHON").unwrap_or_else(|_| "python3".into());
    if given("--table") {
        table(&python, &sizes);
        return Ok(());
    }
    if given("--frameworks-table") {
        frameworks::table();
        return Ok(());
    }
    if given("--serve") {
        return Ok(serve()?);
    }
    level::begin()?;
    let mut record = Record::default();
    let (name, with) = if given("--frameworks") {
        record.say(&format!("AdamW on f32, medians of interleaved rounds, {} threads.", rayon::current_num_threads()));
        on_both_heaps(&mut record, &["--frameworks-table".into()])?;
        ("frameworks", rust::versions())
    } else if given("--muon") {
        muon::table(&python, &mut record);
        ("muon", [rust::versions(), process::versions(&python)].concat())
    } else if given("--zoo") {
        zoo::table(&python, &mut record);
        ("zoo", process::versions(&python))
    } else {
        record.say(&format!(
            "AdamW on f32, medians of {ROUNDS} interleaved rounds; how many times as long as gradus. {} threads.",
            rayon::current_num_threads()
        ));
        on_both_heaps(&mut record, &[vec!["--table".into()], sizes.clone()].concat())?;
        ("peers", [rust::versions(), process::versions(&python)].concat())
    };
    if given("--record") {
        let level = simd::level();
        let given = [options, vec![format!("--simd {level}")], sizes].concat().join(" ");
        let held: Vec<_> = process::held_to(level).iter().map(|(name, value)| format!(" `{name}={value}`")).collect();
        let held = if held.is_empty() { String::new() } else { format!("; Python with{}", held.concat()) };
        let made_by = format!("`cargo run --release -- {given}` in `benches/peers`, with {}{held}", with.join(", "));
        record.write(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../record"), name, &made_by)?;
    }
    Ok(())
}

/// Runs a table in a process of its own for each setting of the heap, since a heap is set up once.
fn on_both_heaps(record: &mut Record, run: &[String]) -> std::io::Result<()> {
    record.say("\n## Default heap settings\n");
    record.run(run, &KEEPING_HEAP.map(|(name, _)| (name, None)))?;
    record.say(&format!("\n## A heap that never returns memory\n\nWith `{}`.\n", {
        KEEPING_HEAP.map(|(name, value)| format!("{name}={value}")).join(" ")
    }));
    record.run(run, &KEEPING_HEAP.map(|(name, value)| (name, Some(value))))
}

fn problems(sizes: &[String]) -> Vec<Problem> {
    let logs: Vec<u32> = sizes.iter().filter_map(|log| log.parse().ok()).collect();
    let clipped: Vec<u32> = if logs.is_empty() { vec![22, 25] } else { logs.clone() };
    let logs = if logs.is_empty() { vec![10, 14, 18, 22, 25] } else { logs };
    let one = |log: u32, clip: f64| Problem { count: 1, length: 1 << log, clip };
    let plain = logs.into_iter().map(|log| one(log, 0.0)).chain([Problem { count: 1000, length: 1024, clip: 0.0 }]);
    plain.chain(clipped.into_iter().map(|log| one(log, 1.0))).collect()
}

fn table(python: &str, sizes: &[String]) {
    let names: Vec<&str> = rust::NAMES.into_iter().chain(process::NAMES).collect();
    println!("| tensors | {} |\n|---|{}", names.join(" | "), "---|".repeat(names.len()));
    let mut rows = Vec::new();
    for problem in problems(sizes) {
        let row = ratios(python, &names, problem);
        let Problem { count, length, clip } = problem;
        let clipped = if clip > 0.0 { ", clipped" } else { "" };
        println!("| {count} × {length}{clipped} | {} |", cells(&row));
        if clip == 0.0 {
            rows.push(row);
        }
    }
    let column = |at: usize| rows.iter().filter_map(move |row| row[at]);
    let medians: Vec<Option<f64>> = (0..names.len()).map(|at| median(column(at).collect())).collect();
    println!("| median, not clipped | {} |", cells(&medians));
    let all = rust::LIBRARIES.flat_map(column).collect();
    println!(
        "\nMedian over sizes and Rust libraries, those that are not clipped and without the loop: {}.",
        cells(&[median(all)])
    );
}

/// Runs one Rust library as `peer.py` runs those of Python: each line of the standard input is a command.
fn serve() -> std::io::Result<()> {
    let mut peer: Option<Box<dyn Peer>> = None;
    for line in std::io::stdin().lines() {
        let line = line?;
        let words: Vec<&str> = line.split(' ').collect();
        match (&words[..], &mut peer) {
            (["setup", library, count, length, clip, _], _) => {
                let number = |text: &str| text.parse().map_err(std::io::Error::other);
                let problem = Problem {
                    count: number(count)?,
                    length: number(length)?,
                    clip: clip.parse().map_err(std::io::Error::other)?,
                };
                peer = Some(rust::peer(number(library)?, problem));
                println!("ready");
            }
            (["run", repeats], Some(peer)) => {
                println!("{}", peer.time(repeats.parse().map_err(std::io::Error::other)?))
            }
            (["values"], Some(peer)) => {
                println!("{}", peer.values().iter().map(f32::to_string).collect::<Vec<_>>().join(" "));
            }
            _ => return Err(std::io::Error::other(format!("no command: {line}"))),
        }
    }
    Ok(())
}

fn cells(ratios: &[Option<f64>]) -> String {
    let cell = |ratio: &Option<f64>| ratio.map_or("–".into(), |ratio| format!("{ratio:.2}"));
    ratios.iter().map(cell).collect::<Vec<_>>().join(" | ")
}

/// How many times as long as the first each takes; nothing for those that are not there.
fn ratios(python: &str, names: &[&str], problem: Problem) -> Vec<Option<f64>> {
    // Each in a process of its own: the time of a step depends on which pages of memory its arrays get.
    let of_rust = rust::able(problem).map(|number| (rust::NAMES[number], Process::rust(number, problem)));
    let of_python = process::NAMES.map(|library| (library, Process::python(python, library, problem)));
    let mut peers: Vec<(&str, Box<dyn Peer>)> = Vec::new();
    for (library, process) in of_rust.chain(of_python) {
        match process {
            Some(peer) => peers.push((library, Box::new(peer))),
            None => eprintln!("{library}: not there"),
        }
    }
    check(&mut peers, problem);
    let medians = medians(&mut peers);
    let of = |name: &&str| Some(medians[peers.iter().position(|(peer, _)| peer == name)?]);
    names.iter().map(|name| Some(of(name)? / medians[0])).collect()
}

/// Seconds of a step of each, the medians of interleaved rounds.
fn medians(peers: &mut [(&str, Box<dyn Peer>)]) -> Vec<f64> {
    let mut times = vec![Vec::new(); peers.len()];
    for _ in 0..ROUNDS {
        for ((_, peer), times) in peers.iter_mut().zip(&mut times) {
            std::thread::sleep(PAUSE);
            times.push(measure(peer.as_mut()));
        }
    }
    times.into_iter().map(|times| median(times).unwrap_or(f64::NAN)).collect()
}

/// Seconds of a step, when the peer is warm.
fn measure(peer: &mut dyn Peer) -> f64 {
    let first = peer.time(1);
    let again = |seconds: f64, of: f64| (seconds / of).clamp(1.0, 1e5) as usize;
    let warm = peer.time(again(WARM_UP, first));
    peer.time(again(MEASURED, warm))
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let (upper, lower) = (values.get(values.len() / 2)?, values.get(values.len().saturating_sub(1) / 2)?);
    Some((upper + lower) / 2.0)
}

/// All must compute the same update.
fn check(peers: &mut [(&str, Box<dyn Peer>)], problem: Problem) {
    let mut expected: Vec<f32> = Vec::new();
    for (name, peer) in peers {
        peer.time(CHECKED_STEPS);
        let values = peer.values();
        if expected.is_empty() {
            expected = values;
            continue;
        }
        let close = expected.iter().zip(&values).all(|(a, b)| (a - b).abs() <= TOLERANCE * a.abs().max(1.0));
        assert!(close && values.len() == expected.len(), "{name} on {problem:?}: {values:?} is not {expected:?}");
    }
}
