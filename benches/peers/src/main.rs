//! One AdamW step on gradus and its peers, side by side in one run. See README.md.

mod python;
mod rust;

use std::time::{Duration, Instant};

use python::Python;

const ROUNDS: usize = 9;
const PAUSE: Duration = Duration::from_millis(300);
const LEARNING_RATE: f64 = 1e-3;
const WEIGHT_DECAY: f64 = 0.01;

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

fn main() {
    let python = std::env::var("PYTHON").unwrap_or_else(|_| "python3".into());
    println!(
        "AdamW on f32, medians of {ROUNDS} interleaved rounds; how many times as long as gradus. {} threads.\n",
        rayon::current_num_threads()
    );
    let logs: Vec<u32> = std::env::args().skip(1).filter_map(|log| log.parse().ok()).collect();
    let logs = if logs.is_empty() { vec![10, 14, 18, 22, 25] } else { logs };
    let problems: Vec<Problem> = logs
        .into_iter()
        .map(|log| Problem { count: 1, length: 1 << log, clip: 0.0 })
        .chain([Problem { count: 1000, length: 1024, clip: 0.0 }])
        .chain([22, 25].map(|log| Problem { count: 1, length: 1 << log, clip: 1.0 }))
        .collect();
    let mut header = false;
    for problem in problems {
        let Problem { count, length, clip } = problem;
        let mut peers: Vec<(&str, Box<dyn Peer>)> = rust::peers(problem);
        for library in ["torch-fused", "torch-foreach", "optax"] {
            match Python::start(&python, library, problem) {
                Some(peer) => peers.push((library, Box::new(peer))),
                None => eprintln!("{library}: not there"),
            }
        }
        if !header {
            let names: Vec<&str> =
                rust::peers(Problem { count: 1, length: 8, clip: 0.0 }).iter().map(|(name, _)| *name).collect();
            println!("| tensors | {} | torch-fused | torch-foreach | optax |", names.join(" | "));
            println!("|---|{}", "---|".repeat(names.len() + 3));
            header = true;
        }
        check(&mut peers, problem);
        let repeats = ((1 << 21) / (count * length)).max(1);
        let mut times = vec![Vec::new(); peers.len()];
        for _ in 0..ROUNDS {
            for ((_, peer), times) in peers.iter_mut().zip(&mut times) {
                // The threads of the one before spin a while; a first step wakes one's own.
                std::thread::sleep(PAUSE);
                peer.time(1);
                times.push(peer.time(repeats));
            }
        }
        let medians: Vec<f64> = times
            .into_iter()
            .map(|mut times| {
                times.sort_by(f64::total_cmp);
                times[ROUNDS / 2]
            })
            .collect();
        let ratios: Vec<String> = rust::NAMES
            .iter()
            .chain(&["torch-fused", "torch-foreach", "optax"])
            .map(|name| match peers.iter().position(|(peer, _)| peer == name) {
                Some(at) => format!("{:.2}", medians[at] / medians[0]),
                None => "–".into(),
            })
            .collect();
        let clipped = if clip > 0.0 { ", clipped" } else { "" };
        println!("| {count} × {length}{clipped} | {} |", ratios.join(" | "));
    }
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
