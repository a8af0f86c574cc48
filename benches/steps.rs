//! Every optimizer at every size, by criterion: `cargo bench --bench steps`; with `-- adam` those whose name has it.
//!
//! f32 stands beside the floor, a loop that moves the same bytes. For ratios see the bench `ratios`.
#![allow(clippy::unwrap_used, reason = "a bench fails by panicking")]

#[allow(dead_code, reason = "the loop by hand is for the other bench")]
#[path = "ratios/floor.rs"]
mod floor;

use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use floor::Lines;
use gradus::prelude::*;
use ndarray::Array1;

const SIZES: [u32; 5] = [10, 14, 18, 22, 25];

fn wave<A: Scalar>(elements: usize, phase: f64) -> Array1<A> {
    Array1::from_shape_fn(elements, |i| A::from_f64((i as f64 * 0.61 + phase).sin() + 1.5))
}

/// One optimizer in one element type at all sizes; `slots` state slots move bytes beside parameter and gradient.
fn sizes<A: Scalar>(criterion: &mut Criterion, name: &str, slots: usize, build: impl Fn() -> Box<dyn Optimizer<A>>) {
    let mut group = criterion.benchmark_group(format!("{name}_{}", A::DTYPE));
    for log in SIZES {
        let elements = 1 << log;
        let (mut opt, mut params, grads) = (build(), wave::<A>(elements, 0.0), wave::<A>(elements, 1.0));
        group.throughput(Throughput::Bytes(((3 + 2 * slots) * elements * size_of::<A>()) as u64));
        let id = BenchmarkId::new("step", format!("2^{log}"));
        group.bench_function(id, |bencher| bencher.iter(|| opt.step(&mut params, &grads).unwrap()));
        if A::DTYPE == "f32" {
            let (mut params, grads) = (Lines::zeros(elements), Lines::zeros(elements));
            let mut slots: Vec<_> = (0..slots).map(|_| Lines::zeros(elements)).collect();
            let id = BenchmarkId::new("floor", format!("2^{log}"));
            group.bench_function(id, |bencher| {
                bencher.iter(|| floor::move_bytes(&mut params, &grads, &mut slots));
            });
        }
    }
    group.finish();
}

fn every_optimizer<A: Scalar>(criterion: &mut Criterion) {
    sizes::<A>(criterion, "sgd", 0, || Box::new(Sgd::new(1e-3)));
    sizes::<A>(criterion, "momentum", 1, || Box::new(Momentum::new(1e-3, 0.9)));
    sizes::<A>(criterion, "nesterov", 1, || Box::new(Nesterov::new(1e-3, 0.9)));
    sizes::<A>(criterion, "rmsprop", 1, || Box::new(RmsProp::new(1e-3)));
    sizes::<A>(criterion, "rmsprop_centered_momentum", 3, || Box::new(RmsProp::new(1e-3).centered().momentum(0.9)));
    sizes::<A>(criterion, "adam", 2, || Box::new(Adam::new(1e-3)));
    sizes::<A>(criterion, "adamw", 2, || Box::new(AdamW::new(1e-3)));
    sizes::<A>(criterion, "amsgrad", 3, || Box::new(Adam::new(1e-3).amsgrad()));
}

fn all(criterion: &mut Criterion) {
    every_optimizer::<f32>(criterion);
    every_optimizer::<f64>(criterion);
}

criterion_group! {
    name = steps;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(500));
    targets = all
}
criterion_main!(steps);
