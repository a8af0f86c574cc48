//! Steps by criterion: `cargo bench --bench steps`; with `-- Adam` those whose name has it, with `-- --simd v3` at a lower SIMD level.
//!
//! Beside f32 steps stands the floor, a loop that moves the same bytes. For ratios see the bench `ratios`.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a bench fails by panicking")]

mod adaptors;
mod layouts;
#[path = "../shared/level.rs"]
mod level;
mod optimizers;
mod precision;
#[path = "../shared/mod.rs"]
mod shared;
mod trees;

use std::error::Error;
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group};
use gradus::Element;
use gradus::prelude::*;

use shared::floor::{Lines, move_bytes};
use shared::tensors::wave;

type Group<'c> = BenchmarkGroup<'c, WallTime>;

/// Until the parameters move: of an accumulation, all its micro-batches. What is stepped is made when the bench is
/// wanted, once.
fn step<A, P, G>(group: &mut Group<'_>, id: BenchmarkId, make: impl Fn() -> (Box<dyn Optimizer<A>>, P, G))
where
    A: Element,
    P: ParamsMut<Elem = A>,
    G: Params<Elem = A>,
{
    let mut made = None;
    group.bench_function(id, |bencher| {
        let (opt, params, grads) = made.get_or_insert_with(&make);
        bencher.iter(|| while !opt.step(params, grads).unwrap().moved {});
    });
}

/// What moving the bytes of a step on `elements` f32 takes; they lie in one piece, which is the least it can take.
fn floor(group: &mut Group<'_>, of: impl Into<String>, slots: usize, elements: usize) {
    let mut made = None;
    group.bench_function(BenchmarkId::new("floor", of.into()), |bencher| {
        let lines = |phase| {
            let numbers = wave::<f32>(elements, phase);
            Lines::new(|i| numbers[i], elements)
        };
        let (params, grads, slots) = made.get_or_insert_with(|| {
            (lines(0.0), lines(1.0), (0..slots).map(|_| Lines::zeros(elements)).collect::<Vec<_>>())
        });
        bencher.iter(|| move_bytes(params, grads, slots));
    });
}

/// Of parameter and gradient, read, and slots and parameter, written.
fn bytes<A>(elements: usize, slots: usize) -> Throughput {
    Throughput::Bytes(((3 + 2 * slots) * elements * size_of::<A>()) as u64)
}

criterion_group! {
    name = steps;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(500));
    targets = optimizers::all, trees::all, layouts::all, adaptors::all, precision::all
}

fn main() -> Result<(), Box<dyn Error>> {
    level::begin()?;
    steps();
    Criterion::default().configure_from_args().final_summary();
    Ok(())
}
