//! f32 Adam beside a loop that moves the same bytes: `cargo bench --bench adam`.
//!
//! Criterion reports each alone. The table that follows interleaves them, which is what a ratio on a noisy machine
//! needs: median of [`ROUNDS`] rounds, in each of which every contestant runs once.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput};
use gradus::prelude::*;
use ndarray::{ArrayView1, ArrayViewMut1};
use pulp::Arch;
use rayon::prelude::*;

const SIZES: [usize; 5] = [1 << 10, 1 << 14, 1 << 18, 1 << 22, 1 << 25];
const ROUNDS: usize = 15;

/// Elements of one parallel share of the floor.
const CHUNK: usize = 16 * 1024;

/// The tensors of both contestants at one size.
struct Arena {
    params: Vec<f32>,
    grads: Vec<f32>,
    moments: [Vec<f32>; 2],
    opt: Adam<f32>,
}

impl Arena {
    fn new(size: usize) -> Self {
        let wave = |phase: f32| (0..size).map(|i| (i as f32 * 0.61 + phase).sin() + 1.5).collect();
        let moments = [wave(2.0), wave(3.0)];
        let mut arena = Self { params: wave(0.0), grads: wave(1.0), moments, opt: Adam::new(1e-3) };
        arena.adam();
        arena
    }

    fn adam(&mut self) {
        let mut params = ArrayViewMut1::from(&mut self.params[..]);
        let report = self.opt.step(&mut params, &ArrayView1::from(&self.grads[..]));
        assert!(black_box(report).is_ok_and(|report| report.moved));
    }

    /// Reads four streams and writes three: 28 bytes an element, as Adam does, on as many threads.
    fn floor(&mut self) {
        let ([m, v], p, g) = (&mut self.moments, &mut self.params, &self.grads);
        if p.len() <= 2 * CHUNK {
            return move_bytes(black_box(p), g, m, v);
        }
        let first = p.par_chunks_mut(CHUNK).zip(g.par_chunks(CHUNK));
        let second = m.par_chunks_mut(CHUNK).zip(v.par_chunks_mut(CHUNK));
        first.zip(second).for_each(|((p, g), (m, v))| move_bytes(p, g, m, v));
    }
}

/// Changes a bit of everything that Adam writes, with everything it reads, in registers as wide as Adam's: narrower ones
/// reach less of the memory's bandwidth.
fn move_bytes(p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32]) {
    Arch::new().dispatch(move || {
        for (((p, g), m), v) in p.iter_mut().zip(g).zip(m).zip(v) {
            *m = f32::from_bits(m.to_bits() ^ 1);
            *v = f32::from_bits(v.to_bits() ^ 1);
            *p = f32::from_bits(p.to_bits() ^ (g.to_bits() & 1));
        }
    });
}

fn alone(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("adam_f32");
    group.sample_size(10).measurement_time(Duration::from_secs(1)).warm_up_time(Duration::from_millis(300));
    for size in SIZES {
        let mut arena = Arena::new(size);
        group.throughput(Throughput::Bytes(28 * size as u64));
        group.bench_function(BenchmarkId::new("adam", size), |b| b.iter(|| arena.adam()));
        group.bench_function(BenchmarkId::new("floor", size), |b| b.iter(|| arena.floor()));
    }
    group.finish();
}

fn interleaved() {
    println!("\nf32 Adam beside the same bytes moved, medians of {ROUNDS} interleaved rounds");
    println!("{:>10} {:>14} {:>14} {:>12}", "elements", "adam ns/elem", "floor ns/elem", "floor/adam");
    for size in SIZES {
        let mut arena = Arena::new(size);
        let repeats = ((1 << 22) / size).max(1);
        let mut times = [Vec::new(), Vec::new()];
        for _ in 0..ROUNDS {
            for (times, run) in times.iter_mut().zip([Arena::adam, Arena::floor]) {
                let start = Instant::now();
                (0..repeats).for_each(|_| run(&mut arena));
                times.push(start.elapsed().as_secs_f64() * 1e9 / (repeats * size) as f64);
            }
        }
        let [adam, floor] = times.map(|mut times| {
            times.sort_by(f64::total_cmp);
            times[ROUNDS / 2]
        });
        println!("{size:>10} {adam:>14.3} {floor:>14.3} {:>12.2}", floor / adam);
    }
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    alone(&mut criterion);
    criterion.final_summary();
    interleaved();
}
