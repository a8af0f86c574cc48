//! State in fewer bits.

use criterion::{BenchmarkId, Criterion, Throughput};
use gradus::prelude::*;
use ndarray::Array1;

use crate::shared::optimizers::PRECISIONS;
use crate::shared::tensors::wave;
use crate::{floor, step};

/// Bytes an element that a step with both moments in f32 moves.
const FULL: usize = 28;

pub(crate) fn all(criterion: &mut Criterion) {
    for (name, precision, slot) in PRECISIONS {
        let mut group = criterion.benchmark_group(format!("Adam f32, state in {name}"));
        for log in [18, 22, 25] {
            let elements = 1 << log;
            let moved = elements * (3 * size_of::<f32>() + 4 * slot / 8);
            group.throughput(Throughput::Bytes(moved as u64));
            step(&mut group, BenchmarkId::new("step", format!("2^{log}")), || {
                let opt = Adam::new(1e-3).state_precision(precision);
                (Box::new(opt), Array1::from(wave::<f32>(elements, 0.0)), Array1::from(wave::<f32>(elements, 1.0)))
            });
            // As many bytes, though of fewer elements.
            floor(&mut group, format!("2^{log}"), 2, moved / FULL);
        }
        group.finish();
    }
}
