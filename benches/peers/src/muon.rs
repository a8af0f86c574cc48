//! Muon on one square matrix, beside PyTorch's, which orthogonalises in bf16, and the same in f32.

use gradus::{Muon, Optimizer};
use ndarray::Array2;

use crate::process::Process;
use crate::record::Record;
use crate::{LEARNING_RATE, PAUSE, Peer, Problem, ROUNDS, measure, median, wave};

struct Ours {
    opt: Muon<f32>,
    param: Array2<f32>,
    grad: Array2<f32>,
}

impl Peer for Ours {
    fn step(&mut self) {
        assert!(self.opt.step(&mut self.param, &self.grad).is_ok());
    }

    fn values(&mut self) -> Vec<f32> {
        self.param.iter().copied().take(8).collect()
    }
}

/// f32 beside bf16: a step of 0.001 is as long in both.
const TOLERANCE: f32 = 1e-3;

pub(crate) fn table(python: &str, record: &mut Record) {
    record.say(&format!("{ROUNDS} interleaved rounds, medians; {} threads.\n", rayon::current_num_threads()));
    record.say("| matrix | gradus, ms | torch, bf16, ms | torch, f32, ms | bf16/gradus | f32/gradus |\n|---|---|---|---|---|---|");
    for n in [256, 512, 1024] {
        let matrix = |phase| Array2::from_shape_vec((n, n), wave(n * n, phase)).unwrap_or_default();
        let mut ours = Ours { opt: Muon::new(LEARNING_RATE), param: matrix(0.0), grad: matrix(1.0) };
        let peers = ["torch-muon", "torch-muon-f32"];
        let peers = peers.map(|library| Process::python(python, library, Problem { count: 1, length: n, clip: 0.0 }));
        let [Some(mut narrow), Some(mut wide)] = peers else {
            eprintln!("torch: not there");
            continue;
        };
        let mut all: [&mut dyn Peer; 3] = [&mut ours, &mut narrow, &mut wide];
        all.iter_mut().for_each(|peer| peer.step());
        let expected = all[0].values();
        for peer in &mut all[1..] {
            let found = peer.values();
            let close = expected.iter().zip(&found).all(|(a, b)| (a - b).abs() <= TOLERANCE);
            assert!(close && found.len() == expected.len(), "{found:?} is not {expected:?}");
        }
        let mut times = [Vec::new(), Vec::new(), Vec::new()];
        for _ in 0..ROUNDS {
            for (peer, times) in all.iter_mut().zip(&mut times) {
                std::thread::sleep(PAUSE);
                times.push(measure(*peer));
            }
        }
        let [ours, narrow, wide] = times.map(|times| median(times).unwrap_or(f64::NAN) * 1e3);
        let ratios = [narrow / ours, wide / ours];
        record
            .say(&format!("| {n} × {n} | {ours:.2} | {narrow:.2} | {wide:.2} | {:.2} | {:.2} |", ratios[0], ratios[1]));
    }
}
