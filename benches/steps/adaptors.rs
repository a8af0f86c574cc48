//! Every adaptor around AdamW.

use criterion::{BenchmarkId, Criterion};
use gradus::Element;
use ndarray::Array1;

use crate::shared::optimizers::ADAPTORS;
use crate::shared::tensors::wave;
use crate::{bytes, floor, step};

const ELEMENTS: usize = 1 << 22;

/// Two tensors.
fn halves<A: Element>(phase: f64) -> [Array1<A>; 2] {
    [wave(ELEMENTS / 2, phase).into(), wave(ELEMENTS / 2, phase).into()]
}

pub(crate) fn all(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("AdamW f32, adaptors, 2 × 2^21");
    group.throughput(bytes::<f32>(ELEMENTS, 2));
    for (name, build) in ADAPTORS {
        step(&mut group, BenchmarkId::new("step", name), || (build(), halves::<f32>(0.0), halves::<f32>(1.0)));
    }
    floor(&mut group, "none", 2, ELEMENTS);
    group.finish();
    #[cfg(feature = "half")]
    master_weights(criterion);
}

/// Parameters and gradients of 16 bits; the floor moves the bytes of f32 ones.
#[cfg(feature = "half")]
fn master_weights(criterion: &mut Criterion) {
    use gradus::prelude::*;
    use half::{bf16, f16};

    let mut group = criterion.benchmark_group("AdamW, master_weights, 2 × 2^21");
    let opt = || AdamW::new(1e-3);
    step(&mut group, BenchmarkId::new("step", "bf16"), || {
        (Box::new(opt().master_weights()), halves::<bf16>(0.0), halves::<bf16>(1.0))
    });
    step(&mut group, BenchmarkId::new("step", "f16"), || {
        (Box::new(opt().master_weights()), halves::<f16>(0.0), halves::<f16>(1.0))
    });
    step(&mut group, BenchmarkId::new("step", "bf16, stochastic_rounding"), || {
        (Box::new(opt().stochastic_rounding(1)), halves::<bf16>(0.0), halves::<bf16>(1.0))
    });
    step(&mut group, BenchmarkId::new("step", "bf16, kahan"), || {
        (Box::new(opt().kahan()), halves::<bf16>(0.0), halves::<bf16>(1.0))
    });
    floor(&mut group, "f32", 2, ELEMENTS);
    group.finish();
}
