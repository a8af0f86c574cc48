//! Parameters and gradients that do not lie row by row.

use criterion::Criterion;
use gradus::prelude::*;
use ndarray::Array2;

use crate::shared::layouts::LAYOUTS;
use crate::shared::tensors::wave;
use crate::{bytes, floor};

const SIDE: usize = 2048;

pub(crate) fn all(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("Adam f32, layouts, 2048 × 2048");
    group.throughput(bytes::<f32>(SIDE * SIDE, 2));
    for (name, param, grad) in LAYOUTS {
        let mut made = None;
        group.bench_function(name, |bencher| {
            let (opt, params, grads) = made.get_or_insert_with(|| {
                let matrix = Array2::from_shape_vec((SIDE, SIDE), wave(SIDE * SIDE, 1.0)).unwrap();
                (Adam::new(1e-3), param.hold(&matrix), grad.hold(&matrix))
            });
            bencher.iter(|| opt.step(&mut param.view_mut(params), &grad.view(grads)).unwrap());
        });
    }
    floor(&mut group, "C", 2, SIDE * SIDE);
    group.finish();
}
