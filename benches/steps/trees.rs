//! Many tensors at once.

use criterion::{BenchmarkId, Criterion};
use gradus::prelude::*;
use ndarray::Array1;

use crate::shared::tensors::{gpt2, gpt2_shapes, wave};
use crate::{bytes, floor, step};

pub(crate) fn all(criterion: &mut Criterion) {
    a_thousand(criterion);
    a_model(criterion);
}

fn a_thousand(criterion: &mut Criterion) {
    const COUNT: usize = 1000;
    let mut group = criterion.benchmark_group("Adam f32, tensors");
    for length in [64, 1024, 8192] {
        let name = format!("{COUNT} × {length}");
        let tensors = |phase| -> Vec<Array1<f32>> { (0..COUNT).map(|_| wave(length, phase).into()).collect() };
        group.throughput(bytes::<f32>(COUNT * length, 2));
        step(&mut group, BenchmarkId::new("step", &name), || (Box::new(Adam::new(1e-3)), tensors(0.0), tensors(1.0)));
        floor(&mut group, name, 2, COUNT * length);
    }
    group.finish();
}

fn a_model(criterion: &mut Criterion) {
    let elements: usize = gpt2_shapes().iter().map(|shape| shape.iter().product::<usize>()).sum();
    let mut group = criterion.benchmark_group("AdamW f32, GPT-2 small");
    group.throughput(bytes::<f32>(elements, 2));
    step(&mut group, BenchmarkId::new("step", "148 tensors"), || (Box::new(AdamW::new(1e-3)), gpt2(0.0), gpt2(1.0)));
    floor(&mut group, "one tensor", 2, elements);
    group.finish();
}
