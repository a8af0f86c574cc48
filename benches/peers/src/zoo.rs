//! Other optimizers on one square matrix, beside those of timm, pytorch-optimizer, optax under `jit` and their authors.

use gradus::prelude::*;
use ndarray::Array2;

use crate::process::Process;
use crate::record::Record;
use crate::{Peer, Problem, ROUNDS, cells, medians, wave};

/// The side of the matrix: 2^22 elements.
const SIDE: usize = 2048;

/// The packages, in the order of the columns. The last is the one of the optimizer's authors.
const PACKAGES: [&str; 4] = ["timm", "pytorch-optimizer", "optax", "authors"];

type Build = fn() -> Box<dyn Optimizer<f32>>;

const OPTIMIZERS: [(&str, Build); 6] = [
    ("Lion", || Box::new(Lion::new(1e-4))),
    ("Lamb", || Box::new(Lamb::new(1e-3))),
    ("Adafactor", || Box::new(Adafactor::new(1e-2))),
    ("AdEMAMix", || Box::new(AdEMAMix::new(1e-3))),
    ("AdamWScheduleFree", || Box::new(AdamWScheduleFree::new(1e-3))),
    // The first step moves; at this rate, the same gradient forever would double its estimate until it overflows.
    ("Prodigy", || Box::new(Prodigy::new(|step: u64| if step == 0 { 1.0 } else { 1e-6 }))),
];

struct Ours {
    opt: Box<dyn Optimizer<f32>>,
    param: Array2<f32>,
    grad: Array2<f32>,
}

impl Ours {
    fn new(build: Build) -> Self {
        let matrix = |phase| Array2::from_shape_vec((SIDE, SIDE), wave(SIDE * SIDE, phase)).expect("a square");
        Self { opt: build(), param: matrix(0.0), grad: matrix(1.0) }
    }
}

impl Peer for Ours {
    fn step(&mut self) {
        self.opt.step(&mut self.param, &self.grad).expect("a step");
    }

    fn values(&mut self) -> Vec<f32> {
        self.param.iter().copied().take(8).collect()
    }
}

/// The golden numbers compare what is computed; here every library must at least move.
fn check(peers: &mut [(&str, Box<dyn Peer>)]) {
    for (name, peer) in peers {
        let before = peer.values();
        peer.step();
        let after = peer.values();
        assert!(before != after && !after.is_empty() && after.iter().all(|x| x.is_finite()), "{name}: {after:?}");
    }
}

pub(crate) fn table(python: &str, record: &mut Record) {
    let threads = rayon::current_num_threads();
    record.say(&format!(
        "f32 on {SIDE} × {SIDE}, medians of {ROUNDS} interleaved rounds; how many times as long as gradus. {threads} threads.\n"
    ));
    record.say(&format!("| optimizer | gradus, ms | {} |\n|---|---|{}", PACKAGES.join(" | "), "---|".repeat(4)));
    for (name, build) in OPTIMIZERS {
        let mut peers: Vec<(&str, Box<dyn Peer>)> = vec![("gradus", Box::new(Ours::new(build)))];
        for package in PACKAGES {
            let problem = Problem { count: 1, length: SIDE, clip: 0.0 };
            if let Some(peer) = Process::python(python, &format!("{package}:{name}"), problem) {
                peers.push((package, Box::new(peer)));
            }
        }
        check(&mut peers);
        let times = medians(&mut peers);
        let of = |package: &&str| peers.iter().position(|(name, _)| name == package).map(|at| times[at] / times[0]);
        let ratios: Vec<_> = PACKAGES.iter().map(of).collect();
        record.say(&format!("| {name} | {:.2} | {} |", times[0] * 1e3, cells(&ratios)));
    }
}
