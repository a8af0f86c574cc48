//! f32 Adam beside a loop that moves the same bytes: `cargo bench --bench adam`.
//!
//! Criterion reports each alone. The table that follows interleaves them, which is what a ratio on a noisy machine
//! needs: median of [`ROUNDS`] rounds, in each of which every contestant runs once.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput};
use gradus::prelude::*;
use ndarray::Array1;
use rayon::prelude::*;

const SIZES: [usize; 5] = [1 << 10, 1 << 14, 1 << 18, 1 << 22, 1 << 25];
const ROUNDS: usize = 15;

/// The state of both contestants at one size.
struct Arena {
    params: Array1<f32>,
    grads: Array1<f32>,
    opt: Adam<f32>,
    moments: [Vec<f32>; 2],
}

impl Arena {
    fn new(size: usize) -> Self {
        let wave = |phase: f32| Array1::from_shape_fn(size, |i| (i as f32 * 0.61 + phase).sin() + 1.5);
        let mut arena = Self {
            params: wave(0.0),
            grads: wave(1.0),
            opt: Adam::new(1e-3),
            moments: [vec![1.0; size], vec![1.0; size]],
        };
        arena.adam();
        arena
    }

    fn adam(&mut self) {
        self.opt.step(black_box(&mut self.params), &self.grads).expect("a valid step");
    }

    /// Reads four streams and writes three: 28 bytes an element, as Adam does, on as many threads.
    fn floor(&mut self) {
        let [m, v] = &mut self.moments;
        let (params, grads) =
            (self.params.as_slice_mut().expect("contiguous"), self.grads.as_slice().expect("contiguous"));
        let chunk = if params.len() > 32 * 1024 { 16 * 1024 } else { params.len() };
        let body = |(((p, g), m), v): (((&mut [f32], &[f32]), &mut [f32]), &mut [f32])| {
            for (((p, g), m), v) in p.iter_mut().zip(g).zip(m).zip(v) {
                *m = f32::from_bits(m.to_bits() ^ 1);
                *v = f32::from_bits(v.to_bits() ^ 1);
                *p = f32::from_bits(p.to_bits() ^ (g.to_bits() & 1));
            }
        };
        if chunk == params.len() {
            return body((((params, grads), m), v));
        }
        params
            .par_chunks_mut(chunk)
            .zip(grads.par_chunks(chunk))
            .zip(m.par_chunks_mut(chunk))
            .zip(v.par_chunks_mut(chunk))
            .for_each(body);
    }
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
