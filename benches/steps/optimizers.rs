//! Every optimizer at every size.

use criterion::{BenchmarkId, Criterion};
use gradus::prelude::*;
use ndarray::Array1;

use crate::shared::optimizers::optimizers;
use crate::shared::tensors::wave;
use crate::{bytes, floor, step};

const SIZES: [u32; 5] = [10, 14, 18, 22, 25];

pub(crate) fn all(criterion: &mut Criterion) {
    every_optimizer::<f32>(criterion);
    every_optimizer::<f64>(criterion);
}

fn every_optimizer<A: Scalar>(criterion: &mut Criterion) {
    for (name, slots, build) in optimizers::<A>() {
        let mut group = criterion.benchmark_group(format!("{name} {}", A::DTYPE));
        for log in SIZES {
            let elements = 1 << log;
            group.throughput(bytes::<A>(elements, slots));
            step(&mut group, BenchmarkId::new("step", format!("2^{log}")), || {
                (build(), Array1::from(wave::<A>(elements, 0.0)), Array1::from(wave::<A>(elements, 1.0)))
            });
            if A::DTYPE == "f32" {
                floor(&mut group, format!("2^{log}"), slots, elements);
            }
        }
        group.finish();
    }
}
